"""Names in the authors' Caffe files of v1 and v2, and in the port of v2.

A .caffemodel gives the layers' own names (`conv1_1`, `fc6`, `res2a_branch2a`,
`bn2a_branch2a`), with a state dict's endings, `conv1_1.weight`, or the numbers
of Caffe's blobs, `conv1_1/0`. kazuto1011/deeplab-pytorch has a state dict of
its own. All of them take BGR images from which only the mean was subtracted, so
the channels of the first kernel are reversed here.
"""

import re
from typing import Any

import numpy as np

from deeplax import errors
from deeplax.models.backbones import resnet
from deeplax.models.backbones import vgg
from deeplax.models.heads import large_fov
from deeplax.pretrained import archives
from deeplax.pretrained import rules
from deeplax.pretrained import vgg_fc
from deeplax.pretrained.names import torchvision

BGR = rules.Transform(
  lambda x: rules.OIHW.load(x)[:, :, ::-1],
  lambda x: rules.OIHW.save(x[:, :, ::-1]),
)
# The most units of a block that are lettered, by depth; else a, b1, b2, ...
SPELLED = {50: 6, 101: 3}
# The layers of a bottleneck: names in deeplax, in Caffe and in the port.
_PARTS = (
  ("shortcut", "branch1", "shortcut"),
  ("conv1", "branch2a", "reduce"),
  ("conv2", "branch2b", "conv3x3"),
  ("conv3", "branch2c", "increase"),
)
# Endings for blobs 0 and 1 of a layer, and of a norm's first layer.
_BLOBS = (".weight", ".bias")
_STATISTICS = (".running_mean", ".running_var")


def table(model: Any) -> rules.Table:
  """Return the table for the backbone and head of `model`.

  Raises:
    InputError: The authors' files have no such network.
  """
  backbone = model.backbone
  is_vgg = isinstance(backbone, vgg.VGG16)
  is_resnet = isinstance(backbone, resnet.ResNet)
  if set(model.std) == {1.0} and is_vgg:
    return _vgg16(model.head)
  if is_resnet and backbone.stride_in == "conv1":
    return _resnet(backbone.depth, over_scales=bool(model.input_scales))
  raise errors.InputError(
    "source caffe has VGG-16 and the ResNet with strides in 1x1 convolutions, "
    "both of images with the mean subtracted: set model.backbone to 'vgg16' or "
    "'resnet101' and model.conventions to 'caffe'"
  )


def _vgg16(head: Any) -> rules.Table:
  """Return the table of VGG-16; an ImageNet file's fc6 and fc7 are reduced."""
  first, *others = (
    s.name for s in vgg.dilated_layers(32) if s.name.startswith("conv")
  )
  layers = [rules.Layer(f"backbone/{first}", first, kernel=BGR)]
  layers += [rules.Layer(f"backbone/{name}", name) for name in others]
  layers += [
    # v2's branches are numbered from 1; an ImageNet file has one for all.
    layer._replace(path=layer.path.replace("{branch}", "branch{n}"))
    for layer in vgg_fc.layers(
      head, fc6="fc6{branch}", fc7="fc7{branch}", flat=False
    )
  ]
  forms = [{"fc8": "fc8_voc12", "branch": ""}]
  if isinstance(head, large_fov.ASPPSum):
    layers.append(rules.Layer("head/logits{n}", "fc8_voc12_{n+1}"))
    forms.insert(0, {"branch": "_{n+1}"})
  else:
    layers.append(rules.Layer("logits", "{fc8}"))
    if vgg_fc.is_unreduced(head):
      forms.append({"fc8": "fc8", "branch": ""})
  return rules.Table(
    layers=tuple(layers),
    spellings=(torchvision.STATE_DICT,),
    left_out=(r"fc[678].*",),
    forms=tuple(forms),
    prepare=_state_dict,
    scores=vgg_fc.SCORES,
  )


def _resnet(depth: int, *, over_scales: bool) -> rules.Table:
  """Return the table of a ResNet, with a word for each name that differs."""
  layers = [
    rules.Layer("backbone/conv1", "{conv1}", "{bn1}", kernel=BGR),
    rules.Layer("head/logits{n}", "{aspp}{n}"),
  ]
  caffe = {"conv1": "conv1", "bn1": "bn_conv1", "aspp": "fc1_voc12_c"}
  port = {"conv1": "layer1.conv1.conv", "bn1": "layer1.conv1.bn"}
  port["aspp"] = "aspp.c"
  for block, count in enumerate(resnet.DEPTHS[depth], 1):
    for unit in range(1, count + 1):
      letter = "abcdef"[unit - 1] if count <= SPELLED[depth] else f"b{unit - 1}"
      letter = "a" if unit == 1 else letter
      for ours, theirs, ported in _PARTS:
        word = f"{block}_{unit}_{ours}"
        path = f"backbone/block{block}_unit{unit}/{ours}"
        layers.append(rules.Layer(path, f"{{{word}}}", f"{{norm_{word}}}"))
        place = f"{block + 1}{letter}_{theirs}"
        caffe |= {word: f"res{place}", f"norm_{word}": f"bn{place}"}
        place = f"layer{block + 1}.block{unit}.{ported}"
        port |= {word: f"{place}.conv", f"norm_{word}": f"{place}.bn"}
  # The port's names for a network inside v2's scales.
  based = {word: f"base.{name}" for word, name in port.items()}
  return rules.Table(
    layers=tuple(layers),
    spellings=(torchvision.STATE_DICT,),
    # Caffe's file has each layer again for the smaller scales: the same arrays.
    left_out=(torchvision.COUNTERS, r"fc1.*", r".*_res0(5|75)\..*"),
    forms=(based, port, caffe) if over_scales else (port, based, caffe),
    prepare=_state_dict,
  )


def _state_dict(arrays: archives.Weights) -> archives.Weights:
  """Return Caffe's numbered blobs by a state dict's names.

  A norm is two layers in Caffe: `bn...` has the mean and the variance, both
  times a third number, and `scale...` the scale and the offset. The matrix of a
  fully connected layer becomes the kernel of a 1x1 convolution.

  Raises:
    InputError: The names are torchvision's.
  """
  if any(name.startswith("features.") for name in arrays):
    raise errors.InputError(
      "these are torchvision's names, for RGB images divided by a deviation: "
      "--source=torchvision --config.model.conventions=torchvision"
    )
  state = {}
  for name, array in arrays.items():
    match = re.fullmatch(r"(.+)/([012])", name)
    if match:
      layer, place = match[1], int(match[2])
      if place == 2:
        continue
      is_norm = layer.startswith("bn")
      if is_norm and f"{layer}/2" in arrays:
        array = array / np.ravel(arrays[f"{layer}/2"])[0]
      endings = _STATISTICS if is_norm else _BLOBS
      name = re.sub(r"^scale", "bn", layer) + endings[place]
    if name.endswith(".weight") and array.ndim == 2:
      array = array[..., None, None]
    state[name] = array
  return state
