"""Names in torchvision's state dicts, and rules that all PyTorch files share.

A whole network calls its backbone `backbone`; an ImageNet file has the same
arrays without that word (MobileNets: `features`), and a classifier.
"""

from typing import Any

from deeplax import errors
from deeplax.models.backbones import mobilenet_v2
from deeplax.models.backbones import mobilenet_v3
from deeplax.models.backbones import resnet
from deeplax.models.backbones import vgg
from deeplax.models.heads import classifier as classifier_lib
from deeplax.pretrained import rules
from deeplax.pretrained import vgg_fc

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
# Of ImageNet files: ResNet's, MobileNetV2's and V3's.
_CLASSIFIERS = (r"fc\.\w+", r"classifier\.[0136]\.(weight|bias)")


def table(model: Any) -> rules.Table:
  """Return the table for the backbone and head of `model`.

  Raises:
    InputError: torchvision has no such network.
  """
  if isinstance(model.backbone, vgg.VGG16):
    return _vgg16(model)
  whole = "backbone."
  classifies = isinstance(model.head, classifier_lib.Classifier)
  if isinstance(model.backbone, resnet.ResNet):
    backbone, bare, classifier = resnet_layers(model.backbone), "", "fc"
  elif isinstance(model.backbone, mobilenet_v2.MobileNetV2):
    backbone, bare = mobilenet_v2_layers(), "features."
    classifier = "classifier.1"
  elif isinstance(model.backbone, mobilenet_v3.MobileNetV3):
    if classifies:
      raise errors.InputError(
        "torchvision's MobileNetV3 classifies by two layers, model.head "
        "'classifier' by one: load its backbone into another head"
      )
    backbone, bare, classifier = _mobilenet_v3(model.backbone), "features.", ""
  else:
    raise rules.no_names("torchvision", model.backbone)
  if classifies:
    whole = bare
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
    left_out=(COUNTERS, r"aux_classifier\..*", *_CLASSIFIERS),
    forms=({"scope": whole}, {"scope": bare}),
  )


def _vgg16(model: Any) -> rules.Table:
  """Return the table of VGG-16, with fc6 and fc7 by `vgg_fc`.

  Raises:
    InputError: The network is Caffe's, whose images are in another range.
  """
  if model.backbone.pool != 2:
    raise errors.InputError(
      "torchvision's VGG-16 pools 2x2 and takes images divided by a deviation: "
      "set model.conventions to 'torchvision', or load Caffe's own file with "
      "--source=caffe"
    )
  layers, place = [], 0
  for step in vgg.dilated_layers(32):
    if step.name.startswith("pool"):
      place += 1
      continue
    layers.append(rules.Layer(f"backbone/{step.name}", f"features.{place}"))
    place += 2  # the ReLU has a number too
  layers += vgg_fc.layers(
    model.head, fc6="classifier.0", fc7="classifier.3", flat=True
  )
  if vgg_fc.is_unreduced(model.head):
    layers.append(rules.Layer("logits", "classifier.6", kernel=rules.LINEAR))
  return rules.Table(
    layers=tuple(layers),
    spellings=(STATE_DICT,),
    left_out=_CLASSIFIERS,
    scores=vgg_fc.SCORES,
  )


def resnet_layers(backbone: Any) -> list[rules.Layer]:
  """Return the layers of a ResNet.

  Raises:
    InputError: The network is TensorFlow's: equal arrays, but another function.
  """
  if backbone.strided != "first":
    raise errors.InputError(
      "PyTorch's ResNets have the stride in the first unit of a block, this "
      "network has it in the last: set model.backbone to 'resnet50' or "
      "'resnet101' and model.conventions to 'torchvision', 'smp' or 'timm'"
    )
  path, name = "backbone/block{b}_unit{u}", "{scope}layer{b}.{u-1}."
  return [
    rules.Layer("backbone/conv1", "{scope}conv1", "{scope}bn1"),
    rules.Layer(f"{path}/shortcut", *_pair(name + "downsample", 0)),
    rules.Layer(f"{path}/conv{{n}}", name + "conv{n}", name + "bn{n}"),
  ]


def mobilenet_v2_layers() -> list[rules.Layer]:
  """Return the layers, numbered in order of the network."""
  count = len(mobilenet_v2.BLOCKS)
  layers = [
    rules.Layer("backbone/conv", *_pair("{scope}0", 0)),
    rules.Layer("backbone/conv_1", *_pair(f"{{scope}}{count + 1}", 0)),
  ]
  for index, block in enumerate(mobilenet_v2.BLOCKS):
    path = f"backbone/{mobilenet_v2.name(index)}"
    name = f"{{scope}}{index + 1}.conv"
    # Without an expansion the depthwise convolution is the first.
    place = 0 if block.expansion == 1 else 1
    layers += [
      rules.Layer(f"{path}/expand", *_pair(f"{name}.0", 0)),
      rules.Layer(f"{path}/depthwise", *_pair(f"{name}.{place}", 0)),
      rules.Layer(f"{path}/project", *_pair(name, place + 1)),
    ]
  return layers


def _mobilenet_v3(backbone: Any) -> list[rules.Layer]:
  """Return the layers; the parts that a block has are numbered in order."""
  blocks = mobilenet_v3.VARIANTS[backbone.variant].blocks
  layers = [
    rules.Layer("backbone/conv", *_pair("{scope}0", 0)),
    rules.Layer("backbone/conv_1", *_pair(f"{{scope}}{len(blocks) + 1}", 0)),
  ]
  for index, block in enumerate(blocks):
    path = f"backbone/{mobilenet_v2.name(index)}"
    name = f"{{scope}}{index + 1}.block"
    parts = ["depthwise", "project"]
    if index:
      parts.insert(0, "expand")
    if block.squeeze:
      parts.insert(-1, "squeeze_excite")
    for place, part in enumerate(parts):
      if part == "squeeze_excite":
        layers += [
          rules.Layer(f"{path}/{part}/squeeze", f"{name}.{place}.fc1"),
          rules.Layer(f"{path}/{part}/excite", f"{name}.{place}.fc2"),
        ]
      else:
        layers.append(
          rules.Layer(f"{path}/{part}", *_pair(f"{name}.{place}", 0))
        )
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
