"""What differs between ecosystems, one row each: numbers, not code.

A row is chosen by `model.conventions`; `build.py` hands its values down. Rows
exist once a test holds them against the original.
"""

from collections.abc import Mapping
import dataclasses

from deeplax.models import layers

Init = layers.Init

# tf.nn.fused_batch_norm raises a smaller epsilon to this; the reference's
# scopes ask for 1e-5.
FUSED_MIN_EPS = 1.001e-5


@dataclasses.dataclass(frozen=True)
class Backbone:
  """What follows from the backbone.

  Attributes:
    mean: RGB mean of the raw image, 0..255; images are padded with it.
    std: What the centred image is divided by.
    eps: Of its norms.
    decay: Of its norms' running statistics.
    kernel_init: How its kernels are drawn.
    weight_decay: What the reference advises (train.py --weight_decay); the
      config decides.
  """

  mean: tuple[float, float, float]
  std: tuple[float, float, float]
  eps: float
  decay: float
  kernel_init: Init
  weight_decay: float


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
  """

  backbones: Mapping[str, Backbone]
  head_eps: float
  head_decay: float
  conv_init: Init
  depthwise_init: Init
  pointwise_init: Init
  logits_init: Init

  def backbone(self, name: str) -> Backbone:
    """Return the row of `name`.

    Raises:
      ValueError: On a backbone these conventions do not know.
    """
    if name not in self.backbones:
      raise ValueError(f"backbone {name!r} not in {sorted(self.backbones)}")
    return self.backbones[name]


# feature_extractor.py _preprocess_zero_mean_unit_range: 2 x / 255 - 1.
UNIT_RANGE = {"mean": (127.5, 127.5, 127.5), "std": (127.5, 127.5, 127.5)}
# feature_extractor.py _MEAN_RGB.
SUBTRACT_MEAN = {"mean": (123.15, 115.90, 103.06), "std": (1.0, 1.0, 1.0)}

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

CONVENTIONS = {
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
