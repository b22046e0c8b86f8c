"""Names in the authors' Caffe files of v1 and v2, and in the port of v2.

A .caffemodel has the layers' own names (`conv1_1`, `fc6`, `res2a_branch2a`,
`bn2a_branch2a`); kazuto1011/deeplab-pytorch has a state dict of its own. Both
take images in BGR: the first kernel's channels are turned round here.
"""

from typing import Any

from deeplax import errors
from deeplax.models import large_fov
from deeplax.models import resnet
from deeplax.models import vgg
from deeplax.pretrained import fully_connected
from deeplax.pretrained import rules
from deeplax.pretrained import torchvision

BGR = rules.Transform(
  lambda x: rules.OIHW.load(x)[:, :, ::-1],
  lambda x: rules.OIHW.save(x[:, :, ::-1]),
)
# The longest block whose units have letters; else a, b1, b2, ...
SPELT = {50: 6, 101: 3}
# Of a bottleneck: here, in Caffe, in the port.
_PARTS = (
  ("shortcut", "branch1", "shortcut"),
  ("conv1", "branch2a", "reduce"),
  ("conv2", "branch2b", "conv3x3"),
  ("conv3", "branch2c", "increase"),
)


def table(model: Any) -> rules.Table:
  """Return the table for the backbone and head of `model`.

  Raises:
    InputError: The authors' files have no such network.
  """
  if isinstance(model.backbone, vgg.VGG16):
    return _vgg16(model.head)
  backbone = model.backbone
  if isinstance(backbone, resnet.ResNet) and backbone.stride_in == "conv1":
    return _resnet(backbone.depth)
  raise errors.InputError(
    "source caffe has VGG-16 and the ResNet with strides in 1x1 convolutions: "
    "set model.backbone to 'vgg16' or 'resnet101' and model.conventions to "
    "'caffe'"
  )


def _vgg16(head: Any) -> rules.Table:
  """Return the layers; fc6 and fc7 of an ImageNet file are subsampled."""
  first, *others = (s.name for s in vgg.plan(32) if s.name.startswith("conv"))
  layers = [rules.Layer(f"backbone/{first}", first, kernel=BGR)]
  layers += [rules.Layer(f"backbone/{name}", name) for name in others]
  layers += [
    # v2's branches are numbered from 1; an ImageNet file has one for all.
    layer._replace(path=layer.path.replace("{branch}", "branch{n}"))
    for layer in fully_connected.layers(
      head, fc6="fc6{branch}", fc7="fc7{branch}", flat=False
    )
  ]
  if isinstance(head, large_fov.ASPPSum):
    layers.append(rules.Layer("head/logits{n}", "{fc8}{branch}"))
    forms = ({"fc8": "fc8_voc12", "branch": "_{n+1}"},)
    forms += ({"fc8": "fc8", "branch": ""},)
  else:
    layers.append(rules.Layer("logits", "{fc8}{branch}"))
    forms = ({"fc8": "fc8_voc12", "branch": ""}, {"fc8": "fc8", "branch": ""})
  return rules.Table(
    layers=tuple(layers),
    spellings=(torchvision.STATE_DICT,),
    left_out=(r"fc8.*",),
    forms=forms,
  )


def _resnet(depth: int) -> rules.Table:
  """Return the layers, each unit by what the two programs call it."""
  layers = [
    rules.Layer("backbone/conv1", "{conv1}", "{bn1}", kernel=BGR),
    rules.Layer("head/logits{n}", "{aspp}{n}"),
  ]
  caffe = {"conv1": "conv1", "bn1": "bn_conv1", "aspp": "fc1_voc12_c"}
  port = {"conv1": "layer1.conv1.conv", "bn1": "layer1.conv1.bn"}
  port["aspp"] = "aspp.c"
  for block, count in enumerate(resnet.DEPTHS[depth], 1):
    for unit in range(1, count + 1):
      letter = "abcdef"[unit - 1] if count <= SPELT[depth] else f"b{unit - 1}"
      letter = "a" if unit == 1 else letter
      for ours, theirs, ported in _PARTS:
        word = f"{block}_{unit}_{ours}"
        path = f"backbone/block{block}_unit{unit}/{ours}"
        layers.append(rules.Layer(path, f"{{{word}}}", f"{{norm_{word}}}"))
        place = f"{block + 1}{letter}_{theirs}"
        caffe |= {word: f"res{place}", f"norm_{word}": f"bn{place}"}
        place = f"layer{block + 1}.block{unit}.{ported}"
        port |= {word: f"{place}.conv", f"norm_{word}": f"{place}.bn"}
  return rules.Table(
    layers=tuple(layers),
    spellings=(torchvision.STATE_DICT,),
    left_out=(torchvision.COUNTERS, r"fc1.*", r".*_c(075|05)\..*"),
    forms=(
      caffe,
      port,
      # With v2's scales around it.
      {word: f"base.{name}" for word, name in port.items()},
    ),
  )
