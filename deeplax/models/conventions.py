"""The settings in which other programs differ, one row each: data, not code.

A row is chosen by `model.conventions`; `build.py` and the `*_from_config.py`
files hand its values down. A row is added once a test compares it with the
original.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from deeplax.models import layers
from deeplax.models import style as style_lib
from deeplax.settings import own

Init = layers.Init
Norm = layers.Norm
Style = style_lib.Style

# tf.nn.fused_batch_norm raises a smaller epsilon to this; the reference's
# scopes ask for 1e-5.
FUSED_MIN_EPS = 1.001e-5
_XCEPTIONS = ("xception_41", "xception_65", "xception_71")


class Backbone(NamedTuple):
  """The settings of one backbone.

  Attributes:
    mean: RGB mean of the raw image, 0..255; images are padded with it.
    std: Deviation that the centered image is divided by.
    norm: Settings of its norms.
    kernel_init: How its kernels are drawn.
    fields: Fields of its module that differ from the module's defaults.
  """

  mean: tuple[float, float, float]
  std: tuple[float, float, float]
  norm: Norm
  kernel_init: Init
  fields: Mapping[str, Any] = {}


class Conventions(NamedTuple):
  """The settings of one program.

  Attributes:
    backbones: The row of each backbone, by `model.backbone`.
    style: Settings of head and decoder, whatever the backbone.
    atrous_rates: Rates of the head, by the configured output stride.
    dropout: Rate after the head's projection.
    pooling_first: Whether the head's concatenation starts with image pooling.
    refine: Whether a 3x3 convolution follows the head's projection, separable
      where a decoder comes next (v3+) and dense where none does (v3).
    align_corners: How features and logits are resized; False: half-pixel.
  """

  backbones: Mapping[str, Backbone]
  style: Style
  atrous_rates: Mapping[int, tuple[int, ...]]
  dropout: float
  pooling_first: bool
  refine: bool
  align_corners: bool

  def backbone(self, name: str) -> Backbone:
    """Return the row of `name`; a user's own has the head's settings.

    Raises:
      ValueError: On a backbone that the program does not have.
    """
    if own.is_own(name):
      style = self.style
      return Backbone(
        **UNIT_RANGE, norm=style.norm, kernel_init=style.conv_init
      )
    if name not in self.backbones:
      raise ValueError(f"backbone {name!r} not in {sorted(self.backbones)}")
    return self.backbones[name]


# feature_extractor.py _preprocess_zero_mean_unit_range: 2 x / 255 - 1.
UNIT_RANGE: dict[str, Any] = {"mean": (127.5,) * 3, "std": (127.5,) * 3}
# feature_extractor.py _MEAN_RGB.
SUBTRACT_MEAN: dict[str, Any] = {
  "mean": (123.15, 115.90, 103.06),
  "std": (1.0, 1.0, 1.0),
}

_XCEPTION = Backbone(
  **UNIT_RANGE,
  norm=Norm(decay=0.9997, eps=1e-3),
  kernel_init=Init("truncated_normal", 0.09),
)
_RESNET_BETA = Backbone(
  **UNIT_RANGE,
  norm=Norm(decay=0.95, eps=FUSED_MIN_EPS),
  kernel_init=Init("variance_scaling", 2.0),
)
_RESNET = _RESNET_BETA._replace(**SUBTRACT_MEAN)
_MOBILENET_V2 = _XCEPTION._replace(norm=Norm(decay=0.997, eps=1e-3))

# torchvision transforms of its weights: of ImageNet in 0..1, here in 0..255.
IMAGENET: dict[str, Any] = {
  "mean": (123.675, 116.28, 103.53),
  "std": (58.395, 57.12, 57.375),
}
# nn.Conv2d.reset_parameters: uniform, variance 1 / (3 fan_in).
_TORCH_CONV = Init("kaiming_uniform", 1 / 3)

# torch's momentum, 0.1, is the share that a batch adds.
_TORCH_NORM = Norm(decay=0.9, eps=1e-5)
_RESNET_TORCH = Backbone(
  **IMAGENET,
  norm=_TORCH_NORM,
  kernel_init=Init("kaiming_normal", 2.0),
  fields={
    "strided": "first",
    "pool_padding": "symmetric",
    "low_level": "output",
  },
)
_MOBILENET_V2_TORCH = _RESNET_TORCH._replace(
  fields={"padding": "symmetric", "low_level": "output", "last_conv": True}
)
_MOBILENET_V3_TORCH = _RESNET_TORCH._replace(
  norm=Norm(decay=0.99, eps=1e-3),
  fields={
    "padding": "symmetric",
    "dilate_from": "same",  # mobilenetv3.py drops the stride of a dilated one
    "gate": "exact_hard_sigmoid",
  },
)
# timm models/xception_aligned.py. Its xception71 leaves out a shortcut of the
# fifth block at output stride 8, where no stride asks for it; here that stays.
_XCEPTION_TIMM = _XCEPTION._replace(
  norm=Norm(decay=0.9, eps=1e-3),
  kernel_init=_TORCH_CONV,
  fields={"low_level": "relu"},
)
_XCEPTIONS_TIMM = dict.fromkeys(_XCEPTIONS, _XCEPTION_TIMM)


def _same(row: Backbone) -> Backbone:
  """Return the row with smp's replace_strides_with_dilation."""
  return row._replace(fields={**row.fields, "dilate_from": "same"})


def _drawn(init: Init, style: Style) -> Style:
  """Return the style with one way of drawing all kernels but the logits'."""
  return style._replace(
    conv_init=init, depthwise_init=init, pointwise_init=init
  )


# Stands in for the norm of networks that have none.
_NO_NORM = Norm(decay=0.0, eps=1e-5)
_VGG16_TORCH = _RESNET_TORCH._replace(norm=_NO_NORM, fields={"pool": 2})

_TORCH_STYLE = Style(norm=_TORCH_NORM, norm_between=False)
_TORCHVISION = Conventions(
  backbones={
    "vgg16": _VGG16_TORCH,
    "resnet50": _RESNET_TORCH,
    "resnet101": _RESNET_TORCH,
    "mobilenet_v2": _MOBILENET_V2_TORCH,
    "mobilenet_v3_large": _MOBILENET_V3_TORCH,
  },
  style=_drawn(_TORCH_CONV, _TORCH_STYLE._replace(logits_init=_TORCH_CONV)),
  # Those of output stride 8, whatever it is: DeepLabHead, and the default of
  # smp's decoder_atrous_rates.
  atrous_rates=dict.fromkeys((32, 16, 8, 4), (12, 24, 36)),
  dropout=0.5,
  pooling_first=False,
  refine=True,
  align_corners=False,
)

# Of v3's head, by output stride.
_RATES = {4: (24, 48, 72), 8: (12, 24, 36), 16: (6, 12, 18)}

_CAFFE_INIT = Init("kaiming_normal", 2.0)
_VGG16_CAFFE = Backbone(
  # deeplab-public-ver2, the authors' Caffe: its mean_value, turned from BGR.
  mean=(122.675, 116.669, 104.008),
  std=(1.0, 1.0, 1.0),
  norm=_NO_NORM,
  kernel_init=_CAFFE_INIT,
  # v1's and v2's networks pool 3x3; VGG-16's own 2x2 is torchvision's row.
  fields={"pool": 3},
)
_RESNET_CAFFE = _VGG16_CAFFE._replace(
  norm=Norm(decay=0.999, eps=1e-5),
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
  # v1's and v2's heads have no norms. weight_filler: gaussian, 0.01.
  style=_drawn(
    _CAFFE_INIT,
    Style(norm=_NO_NORM, logits_init=Init("truncated_normal", 0.01)),
  ),
  # v1's and v2's are in large_fov.py.
  atrous_rates=_RATES,
  dropout=0.5,
  pooling_first=True,
  refine=False,
  align_corners=True,  # its Interp layer
)

CONVENTIONS = {
  # DeepLab v1 and v2 as released.
  "caffe": _CAFFE,
  # v2's port, kazuto1011/deeplab-pytorch: F.interpolate as by default.
  "kazuto": _CAFFE._replace(align_corners=False),
  # tensorflow/models research/deeplab: core/feature_extractor.py
  # networks_map and extract_features, model.py extract_features.
  "tf_deeplab": Conventions(
    backbones={
      **dict.fromkeys(_XCEPTIONS, _XCEPTION),
      "resnet_v1_50_beta": _RESNET_BETA,
      "resnet_v1_101_beta": _RESNET_BETA,
      "resnet_v1_50": _RESNET,
      "resnet_v1_101": _RESNET,
      "mobilenet_v2": _MOBILENET_V2,
      "mobilenet_v3_large_seg": _MOBILENET_V2,
      "mobilenet_v3_small_seg": _MOBILENET_V2,
      "mobilenet_edgetpu": _MOBILENET_V2,
    },
    # The other settings are the defaults of `Style`.
    style=Style(norm=Norm(decay=0.9997, eps=FUSED_MIN_EPS)),
    # g3doc/faq.md, question 5.
    atrous_rates={**_RATES, 32: (3, 6, 9)},
    dropout=0.1,
    pooling_first=True,
    refine=False,
    align_corners=True,
  ),
  # torchvision models/segmentation and models/.
  "torchvision": _TORCHVISION,
  # segmentation_models_pytorch encoders/ and decoders/deeplabv3.
  "smp": _TORCHVISION._replace(
    backbones={
      "resnet50": _same(_RESNET_TORCH),
      "resnet101": _same(_RESNET_TORCH),
      "mobilenet_v2": _same(_MOBILENET_V2_TORCH),
      **_XCEPTIONS_TIMM,
    },
    # base/initialization.py.
    style=_drawn(
      Init("kaiming_uniform", 2.0),
      _TORCH_STYLE._replace(logits_init=Init("xavier_uniform")),
    ),
    align_corners=True,
  ),
  # timm: ImageNet networks, so only its backbones; a head on one is as smp's.
  "timm": _TORCHVISION._replace(
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
