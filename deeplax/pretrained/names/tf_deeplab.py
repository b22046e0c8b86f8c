"""Names in checkpoints of tensorflow/models research/deeplab (and slim).

A file may also be the frozen form of one: layers named the same, norms folded
into `<layer>/kernel` and `<layer>/bias`, depthwise kernels [h, w, 1, c].
"""

from typing import Any

from deeplax.models.backbones import mobilenet_v2
from deeplax.models.backbones import mobilenet_v3
from deeplax.models.backbones import resnet
from deeplax.models.backbones import xception
from deeplax.models.heads import cascade
from deeplax.models.heads import classifier as classifier_lib
from deeplax.models.heads import dpc
from deeplax.pretrained import rules

CHECKPOINT = {
  "kernel": rules.Leaf("/weights"),
  "depthwise_kernel": rules.Leaf("/depthwise_weights", rules.DEPTHWISE),
  "bias": rules.Leaf("/biases"),
  "scale": rules.Leaf("/BatchNorm/gamma"),
  "offset": rules.Leaf("/BatchNorm/beta"),
  "mean": rules.Leaf("/BatchNorm/moving_mean"),
  "var": rules.Leaf("/BatchNorm/moving_variance"),
}
FROZEN = {
  "kernel": rules.Leaf("/kernel"),
  "depthwise_kernel": rules.Leaf("/kernel"),
  "bias": rules.Leaf("/bias"),
}
# Arrays that training saves with the weights (slim, train.py --optimizer).
_TRAINING = (
  "global_step",
  "beta[12]_power",
  r".*/(Momentum|Adam(_1)?|RMSProp(_1)?|ExponentialMovingAverage)",
)


def table(model: Any) -> rules.Table:
  """Return the table for the backbone, head and decoder of `model`.

  Raises:
    InputError: The program has no such backbone.
  """
  backbone, scope, classifier = _backbone(model.backbone)
  classifies = isinstance(model.head, classifier_lib.Classifier)
  logits = rules.Layer(
    "logits", classifier if classifies else "logits/semantic"
  )
  return rules.Table(
    layers=(
      *backbone,
      *_head(model.head, scope),
      *_decoder(model.decoder),
      logits,
    ),
    spellings=(CHECKPOINT, FROZEN),
    # The layers after an ImageNet network's features, and the mean pixel that
    # slim's ResNets carry.
    left_out=(
      *_TRAINING,
      rf"{scope}/(Conv_[12]|[lL]ogits)/.*",
      rf"{scope}/mean_rgb",
    ),
  )


def _backbone(backbone: Any) -> tuple[list[rules.Layer], str, str]:
  """Return the rules of a backbone, its scope, and its classifier's name."""
  if isinstance(backbone, xception.Xception):
    scope = f"xception_{backbone.depth}"
    classifier = f"{scope}/logits"
    rows = _xception(scope)
  elif isinstance(backbone, resnet.ResNet):
    scope = f"resnet_v1_{backbone.depth}"
    classifier = f"{scope}/logits"
    unit = scope + "/{block}/unit_{unit}/bottleneck_v1/{conv}"
    rows = [
      ("backbone/{conv}", scope + "/{conv}"),
      ("backbone/{block}_unit{unit}/{conv}", unit),
    ]
  else:
    scope = _mobile_scope(backbone)
    classifier = f"{scope}/Logits/Conv2d_1c_1x1"
    squeeze = scope + "/{block}/squeeze_excite"
    rows = [
      ("backbone/conv", f"{scope}/Conv"),
      ("backbone/conv_1", f"{scope}/Conv_1"),
      ("backbone/{block}/{part}", scope + "/{block}/{part}"),
      ("backbone/{block}/squeeze_excite/squeeze", f"{squeeze}/Conv"),
      ("backbone/{block}/squeeze_excite/excite", f"{squeeze}/Conv_1"),
    ]
  return [rules.Layer(*row) for row in rows], scope, classifier


def _xception(scope: str) -> list[tuple[str, str]]:
  flow = scope + "/{flow}_flow/{block}/unit_1/xception_module"
  middle = scope + "/middle_flow/block1/unit_{i}/xception_module"
  return [
    ("backbone/entry_flow_{conv}", scope + "/entry_flow/{conv}"),
    ("backbone/middle_flow/{conv}/{half}", middle + "/{conv}_{half}"),
    ("backbone/{flow}_flow_{block}/shortcut", flow + "/shortcut"),
    ("backbone/{flow}_flow_{block}/{conv}/{half}", flow + "/{conv}_{half}"),
  ]


def _mobile_scope(backbone: Any) -> str:
  if isinstance(backbone, mobilenet_v2.MobileNetV2):
    return "MobilenetV2"
  if isinstance(backbone, mobilenet_v3.MobileNetV3):
    edge = backbone.variant == "edgetpu"
    return "MobilenetEdgeTPU" if edge else "MobilenetV3"
  raise rules.no_names("tf_deeplab", backbone)


def _head(head: Any, scope: str) -> list[rules.Layer]:
  """Return the rules of a head; `scope` is the backbone's."""
  if isinstance(head, cascade.Cascade):
    # The program has no such head: it is named as slim names block4.
    unit = scope + "/{block}/unit_{unit}/bottleneck_v1/{conv}"
    return [rules.Layer("head/{block}_unit{unit}/{conv}", unit)]
  within = "meta_architecture/" if isinstance(head, dpc.DPC) else ""
  rows = [
    ("head/projection", "concat_projection"),
    ("head/{branch}/{half}", "{branch}_{half}"),
    ("head/{branch}", "{branch}"),
  ]
  return [rules.Layer(path, within + name) for path, name in rows]


def _decoder(decoder: Any) -> list[rules.Layer]:
  """Return the rules of a decoder, later stages marked by `_1`, `_2`, ..."""
  scope = "decoder/decoder_"
  rows = [
    ("decoder/feature_{name}", "decoder/feature_{name}"),
    ("decoder/{conv}/{half}", scope + "{conv}_{half}"),
  ]
  if getattr(decoder, "kind", None) == "sum":
    rows += [("decoder/{conv}", scope + "{conv}")]
  else:
    # slim.repeat: one scope for the stage, its convolutions numbered from 1.
    stage = "conv0_{stage}/decoder_conv0_{stage}_{place+1}"
    rows += [
      ("decoder/conv{place}_{stage}", scope + stage),
      ("decoder/conv{place}", scope + "conv0/decoder_conv0_{place+1}"),
    ]
  return [rules.Layer(*row) for row in rows]
