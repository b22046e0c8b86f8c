"""What differs between ecosystems, one row each: numbers, not code.

A row is chosen by `model.conventions`; `build.py` and the `*_from_config.py`
files hand its values down. A row is added once a test compares it with the
original.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

from deeplax.models import layers

Init = layers.Init

# tf.nn.fused_batch_norm raises a smaller epsilon to this; the reference's
# scopes ask for 1e-5.
FUSED_MIN_EPS = 1.001e-5


@dataclasses.dataclass(frozen=True)
class Backbone:
  """The settings of one backbone.

  Attributes:
    mean: RGB mean of the raw image, 0..255; images are padded with it.
    std: What the centered image is divided by.
    eps: Of its norms.
    decay: Of its norms' running statistics.
    kernel_init: How its kernels are drawn.
    weight_decay: What the reference advises (train.py --weight_decay); the
      config decides.
    fields: Of its module, where they are not the module's defaults.
  """

  mean: tuple[float, float, float]
  std: tuple[float, float, float]
  eps: float
  decay: float
  kernel_init: Init
  weight_decay: float
  fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Conventions:
  """One ecosystem.

  Attributes:
    backbones: Row of each backbone, by `model.backbone`.
    head_eps: Of the norms of head and decoder, whatever the backbone.
    head_decay: Of the same norms.
    conv_init: Dense kernels of head and decoder.
    depthwise_init: Depthwise kernels of head and decoder.
    pointwise_init: Their 1x1 kernels.
    logits_init: The classifier's kernel.
    atrous_rates: Of the head, by the output stride it is configured at.
    dropout: After the head's projection.
    pooling_first: Whether the head's concatenation starts with image pooling.
    norm_between: Whether a separable convolution of head or decoder has norm
      and ReLU between its halves.
    refine: Whether a 3x3 convolution follows the head's projection, separable
      where a decoder comes next (v3+) and dense where none does (v3).
    align_corners: Of the resizes in the network and of its logits; else they
      are half-pixel.
  """

  backbones: Mapping[str, Backbone]
  head_eps: float
  head_decay: float
  conv_init: Init
  depthwise_init: Init
  pointwise_init: Init
  logits_init: Init
  atrous_rates: Mapping[int, tuple[int, ...]]
  dropout: float
  pooling_first: bool
  norm_between: bool
  refine: bool
  align_corners: bool

  def backbone(self, name: str) -> Backbone:
    """Return the row of `name`.

    Raises:
      ValueError: On a backbone these conventions do not know.
    """
    if name not in self.backbones:
      raise ValueError(f"backbone {name!r} not in {sorted(self.backbones)}")
    return self.backbones[name]


# feature_extractor.py _preprocess_zero_mean_unit_range: 2 x / 255 - 1.
UNIT_RANGE: dict[str, Any] = {
  "mean": (127.5, 127.5, 127.5),
  "std": (127.5, 127.5, 127.5),
}
# feature_extractor.py _MEAN_RGB.
SUBTRACT_MEAN: dict[str, Any] = {
  "mean": (123.15, 115.90, 103.06),
  "std": (1.0, 1.0, 1.0),
}

_XCEPTION = Backbone(
  **UNIT_RANGE,
  eps=1e-3,
  decay=0.9997,
  kernel_init=Init("truncated_normal", 0.09),
  weight_decay=4e-5,
)
_RESNET_BETA = Backbone(
  **UNIT_RANGE,
  eps=FUSED_MIN_EPS,
  decay=0.95,
  kernel_init=Init("variance_scaling", 2.0),
  weight_decay=1e-4,
)
_RESNET = dataclasses.replace(_RESNET_BETA, **SUBTRACT_MEAN)
_MOBILENET_V2 = dataclasses.replace(_XCEPTION, decay=0.997)

# torchvision transforms of its weights: of ImageNet in 0..1, here in 0..255.
IMAGENET: dict[str, Any] = {
  "mean": (123.675, 116.28, 103.53),
  "std": (58.395, 57.12, 57.375),
}
# nn.Conv2d.reset_parameters: uniform, variance 1 / (3 fan_in).
_TORCH_CONV = Init("kaiming_uniform", 1 / 3)

_RESNET_TORCH = Backbone(
  **IMAGENET,
  eps=1e-5,
  decay=0.9,  # torch's momentum is what a batch adds: 0.1
  kernel_init=Init("kaiming_normal", 2.0),
  weight_decay=1e-4,
  fields={
    "strided": "first",
    "pool_padding": "symmetric",
    "low_level": "output",
  },
)
_MOBILENET_V2_TORCH = dataclasses.replace(
  _RESNET_TORCH,
  weight_decay=4e-5,
  fields={"padding": "symmetric", "low_level": "output", "last_conv": True},
)
_MOBILENET_V3_TORCH = dataclasses.replace(
  _MOBILENET_V2_TORCH,
  eps=1e-3,
  decay=0.99,
  fields={
    "padding": "symmetric",
    "dilate_from": "same",  # mobilenetv3.py drops the stride of a dilated one
    "gate": "exact_hard_sigmoid",
  },
)
# timm models/xception_aligned.py. Its xception71 leaves out a shortcut of the
# fifth block at output stride 8, where no stride asks for it; here that stays.
_XCEPTION_TIMM = dataclasses.replace(
  _XCEPTION, decay=0.9, kernel_init=_TORCH_CONV, fields={"low_level": "relu"}
)
_XCEPTIONS_TIMM = {
  name: _XCEPTION_TIMM for name in ("xception_41", "xception_65", "xception_71")
}


def _same(row: Backbone) -> Backbone:
  """With smp's replace_strides_with_dilation."""
  return dataclasses.replace(row, fields={**row.fields, "dilate_from": "same"})


_VGG16_TORCH = dataclasses.replace(
  _RESNET_TORCH, decay=0.0, weight_decay=5e-4, fields={"pool": 2}
)

_TORCHVISION = Conventions(
  backbones={
    "vgg16": _VGG16_TORCH,
    "resnet50": _RESNET_TORCH,
    "resnet101": _RESNET_TORCH,
    "mobilenet_v2": _MOBILENET_V2_TORCH,
    "mobilenet_v3_large": _MOBILENET_V3_TORCH,
  },
  head_eps=1e-5,
  head_decay=0.9,
  conv_init=_TORCH_CONV,
  depthwise_init=_TORCH_CONV,
  pointwise_init=_TORCH_CONV,
  logits_init=_TORCH_CONV,
  # Those of output stride 8, whatever it is: DeepLabHead, and the default of
  # smp's decoder_atrous_rates.
  atrous_rates=dict.fromkeys((32, 16, 8, 4), (12, 24, 36)),
  dropout=0.5,
  pooling_first=False,
  norm_between=False,
  refine=True,
  align_corners=False,
)

# deeplab-public-ver2, the authors' Caffe: its mean_value, turned from BGR.
_CAFFE_MEAN: dict[str, Any] = {
  "mean": (122.675, 116.669, 104.008),
  "std": (1.0, 1.0, 1.0),
}
_VGG16_CAFFE = Backbone(
  **_CAFFE_MEAN,
  eps=1e-5,
  decay=0.0,  # it has no norms
  kernel_init=Init("kaiming_normal", 2.0),
  weight_decay=5e-4,
  # v1's and v2's networks pool 3x3; VGG-16's own 2x2 is torchvision's row.
  fields={"pool": 3},
)

_RESNET_CAFFE = dataclasses.replace(
  _VGG16_CAFFE,
  decay=0.999,
  fields={
    "strided": "first",
    "stride_in": "conv1",
    "dilate_from": "same",
    "pool_padding": "ceil",
    "low_level": "output",
  },
)

_CAFFE = Conventions(
  backbones={
    "vgg16": _VGG16_CAFFE,
    "resnet50": _RESNET_CAFFE,
    "resnet101": _RESNET_CAFFE,
  },
  head_eps=1e-5,
  head_decay=0.0,  # v1's and v2's heads have no norms
  conv_init=Init("kaiming_normal", 2.0),
  depthwise_init=Init("kaiming_normal", 2.0),
  pointwise_init=Init("kaiming_normal", 2.0),
  logits_init=Init("truncated_normal", 0.01),  # weight_filler: gaussian
  # Of v3's head; v1's and v2's are in large_fov.py.
  atrous_rates={4: (24, 48, 72), 8: (12, 24, 36), 16: (6, 12, 18)},
  dropout=0.5,
  pooling_first=True,
  norm_between=True,
  refine=False,
  align_corners=True,  # its Interp layer
)

CONVENTIONS = {
  # DeepLab v1 and v2 as released.
  "caffe": _CAFFE,
  # v2's port, kazuto1011/deeplab-pytorch: F.interpolate as by default.
  "kazuto": dataclasses.replace(_CAFFE, align_corners=False),
  # tensorflow/models research/deeplab: core/feature_extractor.py
  # networks_map and extract_features, model.py extract_features.
  "tf_deeplab": Conventions(
    backbones={
      "xception_41": _XCEPTION,
      "xception_65": _XCEPTION,
      "xception_71": _XCEPTION,
      "resnet_v1_50_beta": _RESNET_BETA,
      "resnet_v1_101_beta": _RESNET_BETA,
      "resnet_v1_50": _RESNET,
      "resnet_v1_101": _RESNET,
      "mobilenet_v2": _MOBILENET_V2,
      "mobilenet_v3_large_seg": _MOBILENET_V2,
      "mobilenet_v3_small_seg": _MOBILENET_V2,
      "mobilenet_edgetpu": _MOBILENET_V2,
    },
    head_eps=FUSED_MIN_EPS,
    head_decay=0.9997,
    conv_init=Init("xavier_uniform"),
    depthwise_init=Init("truncated_normal", 0.33),
    pointwise_init=Init("truncated_normal", 0.06),
    logits_init=Init("truncated_normal", 0.01),
    # g3doc/faq.md, question 5.
    atrous_rates={
      32: (3, 6, 9),
      16: (6, 12, 18),
      8: (12, 24, 36),
      4: (24, 48, 72),
    },
    dropout=0.1,
    pooling_first=True,
    norm_between=True,
    refine=False,
    align_corners=True,
  ),
  # torchvision models/segmentation and models/.
  "torchvision": _TORCHVISION,
  # segmentation_models_pytorch encoders/ and decoders/deeplabv3.
  "smp": dataclasses.replace(
    _TORCHVISION,
    backbones={
      "resnet50": _same(_RESNET_TORCH),
      "resnet101": _same(_RESNET_TORCH),
      "mobilenet_v2": _same(_MOBILENET_V2_TORCH),
      **_XCEPTIONS_TIMM,
    },
    # base/initialization.py.
    conv_init=Init("kaiming_uniform", 2.0),
    depthwise_init=Init("kaiming_uniform", 2.0),
    pointwise_init=Init("kaiming_uniform", 2.0),
    logits_init=Init("xavier_uniform"),
    align_corners=True,
  ),
  # timm: ImageNet networks, so only its backbones; a head on one is as smp's.
  "timm": dataclasses.replace(
    _TORCHVISION,
    backbones={
      "resnet50": _RESNET_TORCH,
      "resnet101": _RESNET_TORCH,
      **_XCEPTIONS_TIMM,
    },
    align_corners=True,
  ),
}


def get(name: str) -> Conventions:
  """Return the row of `name`.

  Raises:
    ValueError: On an unknown name.
  """
  if name not in CONVENTIONS:
    raise ValueError(f"conventions {name!r} not in {sorted(CONVENTIONS)}")
  return CONVENTIONS[name]
