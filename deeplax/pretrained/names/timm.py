"""Names in timm's state dicts: ImageNet networks with a classifier."""

from typing import Any

from deeplax.models.backbones import resnet
from deeplax.models.backbones import xception
from deeplax.models.heads import classifier as classifier_lib
from deeplax.pretrained import rules
from deeplax.pretrained.names import torchvision


def table(model: Any) -> rules.Table:
  """Return the table for the backbone of `model`.

  Raises:
    InputError: The program has no such backbone.
  """
  if isinstance(model.backbone, resnet.ResNet):
    backbone = torchvision.resnet_layers(model.backbone)
    classifier = "fc"
  elif isinstance(model.backbone, xception.Xception):
    backbone, classifier = aligned_xception(model.backbone.depth), "head.fc"
  else:
    raise rules.no_names("timm", model.backbone)
  head = []
  if isinstance(model.head, classifier_lib.Classifier):
    head = [rules.Layer("logits", classifier, kernel=rules.LINEAR)]
  return rules.Table(
    layers=(*backbone, *head),
    spellings=(torchvision.STATE_DICT,),
    left_out=(torchvision.COUNTERS, rf"{classifier}\.\w+"),
    forms=({"scope": "", "dot": "."},),
  )


def aligned_xception(depth: int) -> list[rules.Layer]:
  """Return the layers; `{dot}` joins a sequence and an index in it."""
  variant = xception.DEPTHS[depth]
  # deeplax has the middle flow as one block.
  entry = len(variant.blocks) - 3
  last = entry + variant.middle
  stem = "{scope}stem{dot}{n-1}."
  layers = [rules.Layer("backbone/entry_flow_conv1_{n}", *_pair(stem))]
  for flow, place in (
    ("entry_flow_block{n}", "{n-1}"),
    ("middle_flow", f"{{i{entry - 1:+}}}"),
    ("exit_flow_block{n}", f"{{n{last - 1:+}}}"),
  ):
    path, block = f"backbone/{flow}", f"{{scope}}blocks{{dot}}{place}."
    convs, stack = f"{path}/separable_conv{{m}}", f"{block}stack.conv{{m}}."
    layers += [
      rules.Layer(f"{path}/shortcut", *_pair(block + "shortcut.")),
      rules.Layer(f"{convs}/depthwise", *_pair(stack, "_dw")),
      rules.Layer(f"{convs}/pointwise", *_pair(stack, "_pw")),
    ]
  return layers


def _pair(scope: str, which: str = "") -> tuple[str, str]:
  """Return the names of a convolution and of its norm."""
  return f"{scope}conv{which}", f"{scope}bn{which}"
