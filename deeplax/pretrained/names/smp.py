"""Names in the state dicts of segmentation_models_pytorch.

Networks are `encoder`, `decoder` and `segmentation_head`; the encoders are
torchvision's, or timm's (`tu-...`). ImageNet files come from those two.
"""

from typing import Any

from deeplax.models.backbones import mobilenet_v2
from deeplax.models.backbones import resnet
from deeplax.models.backbones import xception
from deeplax.pretrained import rules
from deeplax.pretrained.names import timm
from deeplax.pretrained.names import torchvision

# Names of v3's decoder since release 0.6, and before.
_V3 = (
  {"aspp": "decoder.aspp", "conv": "decoder.conv", "bn": "decoder.bn"},
  {"aspp": "decoder.0", "conv": "decoder.1", "bn": "decoder.2"},
)


def table(model: Any) -> rules.Table:
  """Return the table for the backbone and decoder of `model`.

  Raises:
    InputError: The program has no such backbone.
  """
  words = {"scope": "encoder."}
  if isinstance(model.backbone, resnet.ResNet):
    backbone = torchvision.resnet_layers(model.backbone)
  elif isinstance(model.backbone, mobilenet_v2.MobileNetV2):
    backbone = torchvision.mobilenet_v2_layers()
    words = {"scope": "encoder.features."}
  elif isinstance(model.backbone, xception.Xception):
    backbone = timm.aligned_xception(model.backbone.depth)
    # timm's feature extractors flatten sequences.
    words = {"scope": "encoder.model.", "dot": "_"}
  else:
    raise rules.no_names("smp", model.backbone)
  if model.decoder is None:
    head = torchvision.aspp(model.head, "{aspp}")
    head += [rules.Layer("head/refine", "{conv}", "{bn}")]
    forms = [words | form for form in _V3]
  else:
    head = [*torchvision.aspp(model.head, "decoder.aspp.0"), *_V3PLUS]
    forms = [words]
  logits = rules.Layer("logits", "segmentation_head.0")
  return rules.Table(
    layers=(*backbone, *head, logits),
    spellings=(torchvision.STATE_DICT,),
    left_out=(torchvision.COUNTERS, r"classification_head\..*"),
    forms=tuple(forms),
  )


_V3PLUS = (
  rules.Layer("head/refine/depthwise", "decoder.aspp.1.0"),
  rules.Layer("head/refine/pointwise", "decoder.aspp.1.1", "decoder.aspp.2"),
  rules.Layer(
    "decoder/feature_projection0", "decoder.block1.0", "decoder.block1.1"
  ),
  rules.Layer("decoder/conv0/depthwise", "decoder.block2.0.0"),
  rules.Layer(
    "decoder/conv0/pointwise", "decoder.block2.0.1", "decoder.block2.1"
  ),
)
