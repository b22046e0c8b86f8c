"""How the four papers train, as settings over `defaults.base()`.

`base()` itself is the first stage of v3 and v3+ on VOC 2012. Each function here
makes the changes of another stage, data set or paper and returns the
configuration. docs/protocols.md lists every number with its source.

Papers: v1 1412.7062, v2 1606.00915, v3 1706.05587, v3+ 1802.02611; "code" is
tensorflow/models research/deeplab.
"""

from typing import Any

# The first grid of the search for CRF parameters (v1, 4.1; v2, 4.1).
CRF_GRIDS = {
  "v1": {
    "w1": (5, 6, 7, 8, 9, 10),
    "sigma_alpha": (50, 60, 70, 80, 90, 100),
    "sigma_beta": (3, 4, 5, 6, 7, 8, 9, 10),
  },
  "v2": {
    "w1": (3, 4, 5, 6),
    "sigma_alpha": (30, 40, 50, 60, 70, 80, 90, 100),
    "sigma_beta": (3, 4, 5, 6),
  },
}

# Duplicated in the second stage (v3, 4.1), by their names in VOC.
HARD_CLASSES = ("bicycle", "chair", "diningtable", "pottedplant", "sofa")


def v1(c: Any) -> Any:
  """v1 on VOC 2012 (section 4.1): VGG-16, step schedule, labels at 1/8."""
  c.data.crop_size = (321, 321)  # v3, appendix A
  c.data.min_scale = 1.0  # the paper states no augmentation
  c.data.max_scale = 1.0
  c.data.flip = False
  c.optim.base_lr = 0.001
  c.optim.head_multiplier = 10.0  # the classifier: 0.01
  c.optim.multiplied = "classifier"
  c.optim.schedule = "step"
  c.optim.weight_decay = 5e-4
  c.train.batch_size = 20
  c.train.total_steps = 6_000  # three drops; v2, table 2, "step"
  c.train.upsample_logits = False
  c.eval.pad_to = (513, 513)
  # w2, which is fixed too, is base's; deeplax.crf.search looks for the others.
  c.eval.crf.sigma_gamma = 3.0
  c.eval.sweep.output_strides = (8,)
  c.eval.sweep.scales = (1.0,)
  c.eval.sweep.flip = (False,)
  return c


def v2_vgg16(c: Any) -> Any:
  """v2 with VGG-16 on VOC 2012 (4.1): poly, 20K steps of batch 10."""
  c = v1(c)
  c.data.min_scale = 0.5
  c.data.max_scale = 1.5
  c.data.flip = True
  c.optim.schedule = "poly"
  c.train.batch_size = 10
  c.train.total_steps = 20_000
  return c


def v2_resnet101(c: Any) -> Any:
  """v2 with ResNet-101: rate, norms and CRF of kazuto1011's port.

  Its optimizer gets the convolutions' parameters alone (main.py, get_params).
  """
  c = v2_vgg16(c)
  c.eval.crf.sigma_gamma = 1.0
  c.optim.base_lr = 2.5e-4
  c.model.batch_norm.mode = "fixed"
  c.model.input_scales = (0.75, 0.5)  # v2, 4.1.2
  return c


def v3_cascade(c: Any) -> Any:
  """v3's network without ASPP (table 4): blocks 5 to 7 after block4."""
  c.model.head = "cascade"
  c.model.multi_grid = (1, 2, 1)
  c.model.decoder.kind = "none"
  return c


def stage2(c: Any, name: str) -> Any:
  """The second stage of v3 and v3+ (v3, 4.1): frozen norms, output stride 8.

  It trains on VOC's own trainval, val included, for the test server: the mIoU
  it reports while training is no validation score.
  """
  c.init.checkpoint = f"runs/{name}"
  c.data.train_split = "trainval"  # 2,913 images
  c.data.duplicate_classes = HARD_CLASSES
  c.model.batch_norm.mode = "frozen"
  c.model.output_stride = 8
  # The paper; a comment in the code (train.py) has 0.0001 for trainval.
  c.optim.base_lr = 0.001
  c.eval.sweep.output_strides = (8,)
  return c


def coco(c: Any, name: str) -> Any:
  """Pre-training on COCO's images with VOC's classes (v3, 4.1): about 60K."""
  del name
  c.data.name = "coco"
  c.data.train_split = "train"
  return c


def after_coco(c: Any, name: str) -> Any:
  """VOC train_aug after COCO (v3, 4.1)."""
  c.init.checkpoint = f"runs/{name}_coco"
  c.optim.base_lr = 0.0001
  return c


def cityscapes(c: Any, name: str) -> Any:
  """Cityscapes (v3, appendix B): 19 trainIds, whole images evaluated."""
  del name
  c.data.name = "cityscapes"
  c.data.train_split = "train"  # 2,975 fine annotations
  c.data.crop_size = (769, 769)
  c.train.total_steps = 90_000
  c.eval.every = 5_000
  c.eval.pad_to = (1025, 2049)  # whole images of 1024 x 2048
  c.eval.sweep.scales = (0.75, 1.0, 1.25)  # v3, table 12
  return c


def cityscapes_test(c: Any, name: str) -> Any:
  """What v3 sends to the Cityscapes server (appendix B): coarse labels too.

  It trains on val, so its mIoU there is no validation score.
  """
  c = cityscapes(c, name)
  c.data.train_split = "train+val+train_extra"  # 3,475 fine, 19,998 coarse
  c.eval.sweep.output_strides = (4,)
  c.eval.sweep.scales = (0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
  return c


# Arguments, after the colon, of v3 and v3+ configurations.
STAGES = {
  "stage2": stage2,
  "coco": coco,
  "after_coco": after_coco,
  "cityscapes": cityscapes,
  "cityscapes_test": cityscapes_test,
}
