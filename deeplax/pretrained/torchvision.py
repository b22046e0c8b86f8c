"""Names in torchvision's state dicts, and what all of PyTorch have in common.

A whole network calls its backbone `backbone`; an ImageNet file has the same
arrays without that word, and a classifier.
"""

from typing import Any

from deeplax import errors
from deeplax.models import heads
from deeplax.models import mobilenet
from deeplax.models import resnet
from deeplax.pretrained import rules

STATE_DICT = {
  "kernel": rules.Leaf(".weight", rules.OIHW),
  "depthwise_kernel": rules.Leaf(".weight", rules.OIHW),
  "bias": rules.Leaf(".bias"),
  "scale": rules.Leaf(".weight"),
  "offset": rules.Leaf(".bias"),
  "mean": rules.Leaf(".running_mean"),
  "var": rules.Leaf(".running_var"),
}
COUNTERS = r".*\.num_batches_tracked"


def table(model: Any) -> rules.Table:
  """Return the table for the backbone and head of `model`.

  Raises:
    InputError: torchvision has no such backbone.
  """
  forms = ({"scope": "backbone."}, {"scope": ""})
  if isinstance(model.backbone, resnet.ResNet):
    backbone, classifier = RESNET, "fc"
  elif isinstance(model.backbone, mobilenet.MobileNetV2):
    # Not the backbone of any whole network there.
    forms = ({"scope": ""},)
    backbone, classifier = mobilenet_v2(), "classifier.1"
  else:
    raise errors.InputError(
      "source torchvision has no names for the backbone "
      f"{type(model.backbone).__name__}"
    )
  if isinstance(model.head, heads.Classifier):
    forms = ({"scope": ""},)
    head = [rules.Layer("logits", classifier, kernel=rules.LINEAR)]
  else:
    head = [
      *aspp(model.head, "classifier.0"),
      rules.Layer("head/refine", "classifier.1", "classifier.2"),
      rules.Layer("logits", "classifier.4"),
      rules.Layer("auxiliary/conv", "aux_classifier.0", "aux_classifier.1"),
      rules.Layer("auxiliary/logits", "aux_classifier.4"),
    ]
  return rules.Table(
    layers=(*backbone, *head),
    spellings=(STATE_DICT,),
    left_out=(COUNTERS, r"aux_classifier\..*", rf"{classifier}\.\w+"),
    forms=forms,
  )


_UNIT = "{scope}layer{block}.{unit-1}."
RESNET = (
  rules.Layer("backbone/conv1", "{scope}conv1", "{scope}bn1"),
  rules.Layer(
    "backbone/block{block}_unit{unit}/shortcut",
    _UNIT + "downsample.0",
    _UNIT + "downsample.1",
  ),
  rules.Layer(
    "backbone/block{block}_unit{unit}/conv{n}",
    _UNIT + "conv{n}",
    _UNIT + "bn{n}",
  ),
)


def mobilenet_v2() -> list[rules.Layer]:
  """Return the layers, numbered in order of the network."""
  count = len(mobilenet.BLOCKS)
  layers = [
    rules.Layer("backbone/conv", *_pair("{scope}features.0", 0)),
    rules.Layer("backbone/conv_1", *_pair(f"{{scope}}features.{count + 1}", 0)),
  ]
  for index, block in enumerate(mobilenet.BLOCKS):
    path = f"backbone/{mobilenet.name(index)}"
    name = f"{{scope}}features.{index + 1}.conv"
    # Without an expansion the depthwise convolution is the first.
    place = 0 if block.expansion == 1 else 1
    layers += [
      rules.Layer(f"{path}/expand", *_pair(f"{name}.0", 0)),
      rules.Layer(f"{path}/depthwise", *_pair(f"{name}.{place}", 0)),
      rules.Layer(f"{path}/project", *_pair(name, place + 1)),
    ]
  return layers


def aspp(head: Any, scope: str) -> list[rules.Layer]:
  """Return the layers of the head up to its projection."""
  last = len(getattr(head, "rates", ())) + 1
  branch = scope + ".convs.{n}"
  return [
    rules.Layer("head/aspp{n}/depthwise", branch + ".0.0"),
    rules.Layer("head/aspp{n}/pointwise", branch + ".0.1", branch + ".1"),
    rules.Layer("head/aspp{n}", *_pair(branch, 0)),
    # After the pooling, which is place 0.
    rules.Layer("head/image_pooling", *_pair(f"{scope}.convs.{last}", 1)),
    rules.Layer("head/projection", *_pair(f"{scope}.project", 0)),
  ]


def _pair(scope: str, place: int) -> tuple[str, str]:
  """Return the names of a convolution and of the norm that follows it."""
  return f"{scope}.{place}", f"{scope}.{place + 1}"
