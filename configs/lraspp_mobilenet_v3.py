"""MobileNetV3 with the LR-ASPP head on Cityscapes, from random weights.

COMMAND: python -m deeplax.main --config=configs/lraspp_mobilenet_v3.py
         (:small is the small network; :debug needs no data set)

1905.02244, section 6.4: no pre-training, trained on the 2,975 fine annotations,
whole images at one scale. The network is that of the model zoo of
tensorflow/models research/deeplab: output stride 32, scores added at stride 8,
image pooling over windows of the training crop. Expect on val, in percent mIoU:

  large  72.41 (zoo), 72.36 (paper); test 72.6
  small  68.99 (zoo), 68.38 (paper); test 69.4

The zoo's numbers are at output stride 32, the paper's at 16 by their
Multiply-Adds (9.74B for the large one); evaluate runs both. Neither source
gives learning rate and steps for this network: they are those of v3 on
Cityscapes (1706.05587, appendix B). Time and memory: not measured.
"""

from deeplax.settings import defaults
from deeplax.settings import protocols

ARGS = ("", "debug", "small")


def get_config(arg: str = ""):
  """Return the configuration; `arg` is one of `ARGS`."""
  defaults.pick("lraspp_mobilenet_v3", arg, ARGS)
  c = protocols.cityscapes(defaults.base(), "lraspp_mobilenet_v3")
  size = "small" if arg else "large"
  c.model.backbone = f"mobilenet_v3_{size}_seg"
  c.model.output_stride = 32
  c.model.head = "lraspp"
  c.model.channels = 128
  c.model.dropout = 0.0  # model.py has one only after a projection
  c.model.image_pooling_crop = c.data.get_ref("crop_size")
  c.model.image_pooling_stride = (4, 5)
  c.model.decoder.kind = "sum"  # of class scores, with this head
  c.model.decoder.features = (8,)
  c.model.decoder.output_stride = 8
  c.eval.sweep.output_strides = (32, 16)
  if arg == "debug":
    c.model.depth_multiplier = 0.5
    c.model.channels = 32
    return defaults.debug(c)
  return c
