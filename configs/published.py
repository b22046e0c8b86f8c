"""Known networks: their settings, their file and the mIoU that came with them.

COMMAND: python -m deeplax.convert --source=tf_deeplab \\
           --config=configs/published.py:xception65_coco_voc_trainaug \\
           --checkpoint=model.ckpt --workdir=runs/published
         python -m deeplax.evaluate --workdir=runs/published
         (:debug needs no weights)

The name after the colon is one of `NETWORKS`; its `source` is what --source
wants, its `file` what to fetch. Files are fetched by hand: none comes with
deeplax. The mIoU is what their programs report, in percent; deeplax's numbers
equal theirs (tests/models), but none of these mIoU has been re-measured, for
want of the weights and of the data. Each row evaluates as its source did,
padded to 513x513 or not at all (PyTorch's), or says in what it differs
(`differs`: torchvision's are of another data set, at another size of image).

From the reference's zoo (tensorflow/models research/deeplab g3doc/model_zoo.md
and quantize.md), torchvision's weights (evaluated on COCO val2017 with VOC's
classes), v2 in PyTorch (kazuto1011/deeplab-pytorch, release v1.0, trained from
the authors' COCO weights), and networks that segmentation_models_pytorch builds
and publishes no weights of. Those of ImageNet alone lend their backbone; head
and decoder are new then, and deeplax.main trains them
(--config.init.checkpoint).
"""

from deeplax.settings import defaults
from deeplax.settings import protocols
from deeplax.settings import published

NETWORKS = published.NETWORKS
ARGS = ("debug", *NETWORKS)


def get_config(arg: str = ""):
  """Return the configuration of the network `arg`, one of `ARGS`."""
  defaults.pick("published", arg, ARGS)
  c = defaults.base()
  c.eval.pad_to = (513, 513)
  if arg == "debug":
    small = {"depth_multiplier": 0.5, "channels": 32}
    c.model.update_from_flattened_dict(published.MOBILENET | small)
    return defaults.debug(c)
  network = NETWORKS[arg]
  if network.data == "cityscapes":
    c = protocols.cityscapes(c, arg)
  elif network.data == "ade20k":
    c.data.name = network.data
    c.data.train_split = "train"
    c.eval.pad_to = None
  c.model.update_from_flattened_dict(network.settings)
  for key, value in network.evaluation.items():
    c.eval[key] = value
  if network.auxiliary:
    c.train.auxiliary_weight = 0.5
  for reported in network.reported[:1]:
    c.eval.output_stride = reported.output_stride
    c.eval.scales = reported.scales
    c.eval.flip = reported.flip
  strides = dict.fromkeys(r.output_stride for r in network.reported)
  c.eval.sweep.output_strides = (*strides,) or (c.model.output_stride,)
  return c
