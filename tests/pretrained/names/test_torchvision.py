"""The names in PyTorch's state dicts: torchvision, timm and smp."""

import numpy as np
import pytest

from deeplax import errors
from deeplax import pretrained
from deeplax.models import build
from deeplax.models import variables
from deeplax.pretrained import rules
from deeplax.pretrained import tables
from tests.models import networks
from tests.models import torch_golden
from tests.pretrained.numbered import assert_bit_equal
from tests.pretrained.numbered import numbered

V3 = {"decoder__kind": "none", "separable": False}
V3PLUS = {"decoder__convs": 1}
CLASSIFIER = {"head": "classifier", "decoder__kind": "none"}
# Every rule of the tables is in one of these.
NETWORKS = [
  ("torchvision", "resnet50", V3),
  pytest.param("torchvision", "resnet50", CLASSIFIER, marks=networks.SLOW),
  ("torchvision", "mobilenet_v2", CLASSIFIER),
  ("torchvision", "mobilenet_v3_large", V3),
  ("timm", "resnet50", CLASSIFIER),
  pytest.param("timm", "xception_41", CLASSIFIER, marks=networks.SLOW),
  ("smp", "resnet50", V3),
  pytest.param(
    "smp", "resnet50", {"separable": False, **V3PLUS}, marks=networks.SLOW
  ),
  ("smp", "mobilenet_v2", V3PLUS),
  ("smp", "xception_71", V3PLUS),
]


def network(conventions, backbone, settings, *, auxiliary=False):
  config = networks.config(
    conventions=conventions,
    backbone=backbone,
    channels=8,
    decoder__channels=8,
    **settings,
  )
  return build.from_config(config, num_classes=21, auxiliary=auxiliary)


def saved(model, source):
  table = tables.table(source, model=model)
  arrays, nameless = rules.save(numbered(model), table)
  assert not nameless
  return arrays


@pytest.mark.parametrize(("source", "backbone", "settings"), NETWORKS)
def test_names_written_are_read_back_bit_equal(
  short, source, backbone, settings
):
  auxiliary = source == "torchvision" and settings is V3
  model = network(source, backbone, settings, auxiliary=auxiliary)
  arrays = saved(model, source)
  found = pretrained.convert_arrays(arrays, source, model=model)
  assert_bit_equal(found, numbered(model))


# Of these, the others have all names but those of a classifier or of a block's
# number, and other strides.
ALIKE = {
  "kazuto_deeplabv2_resnet101_msc",
  "tv_resnet101",
  "smp_deeplabv3plus_xception65_os8",
  "timm_xception65_os16",
}


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=[networks.SLOW] if name in ALIKE else [])
    for name in torch_golden.NETWORKS
  ],
)
def test_names_and_shapes_written_are_the_originals(name):
  expected = {
    key: tuple(shape)
    for key, shape, kind in torch_golden.load(name).manifest["state_dict"]
    if kind != "counter"
  }
  arrays = saved(torch_golden.model(name), torch_golden.NETWORKS[name].source)
  assert {key: value.shape for key, value in arrays.items()} == expected


@pytest.mark.parametrize("backbone", ["resnet50", "mobilenet_v3_large"])
def test_an_imagenet_file_is_a_backbone_without_that_word(short, backbone):
  model = network("torchvision", backbone, V3)
  bare = "" if backbone == "resnet50" else "features."
  arrays = {
    key.replace("backbone.", bare, 1): value
    for key, value in saved(model, "torchvision").items()
    if key.startswith("backbone.")
  }
  arrays |= {
    "fc.weight": np.zeros((1000, 2048), np.float32),
    "classifier.3.bias": np.zeros(1000, np.float32),
    f"{bare}bn.num_batches_tracked": np.zeros((), np.int64),
  }
  table = tables.table("torchvision", model=model)
  found = rules.load(arrays, table, model=model)
  assert not found.unused and not found.misfits and len(found.left_out) == 3
  assert {path[1] for path in found.values} == {"backbone"}
  assert {path[1] for path in found.missing} == {"head", "logits"}
  backbones = [p for p in variables.shapes(model) if p[1] == "backbone"]
  assert len(found.values) == len(backbones)


def test_a_torchvision_backbone_can_start_a_network_of_smp(short):
  """Their encoders are torchvision's: the source is of the file's names."""
  model = network("smp", "mobilenet_v2", V3PLUS)
  bare = network("torchvision", "mobilenet_v2", CLASSIFIER)
  arrays = saved(bare, "torchvision")
  table = tables.table("torchvision", model=model)
  found = rules.load(arrays, table, model=model)
  assert {path[1] for path in found.missing} == {"head", "decoder", "logits"}


def test_the_second_head_of_a_file_is_left_out_of_a_network_without_one(short):
  whole = network("torchvision", "mobilenet_v3_large", V3, auxiliary=True)
  model = network("torchvision", "mobilenet_v3_large", V3)
  arrays = saved(whole, "torchvision")
  assert "aux_classifier.4.bias" in arrays
  found = pretrained.convert_arrays(arrays, "torchvision", model=model)
  assert "auxiliary" not in found["params"]


def test_names_of_smp_before_its_release_0_6_are_read_too(short):
  model = network("smp", "mobilenet_v2", V3)
  arrays = saved(model, "smp")
  old = {}
  for key, value in arrays.items():
    for new, name in (("aspp", "0"), ("conv", "1"), ("bn", "2")):
      key = key.replace(f"decoder.{new}.", f"decoder.{name}.")
    old[key] = value
  assert old.keys() != arrays.keys()
  found = pretrained.convert_arrays(old, "smp", model=model)
  assert_bit_equal(found, numbered(model))


@pytest.mark.parametrize(
  ("source", "conventions", "backbone", "settings", "message"),
  [
    ("smp", "tf_deeplab", "resnet_v1_50", V3, "set model.backbone to 'resnet5"),
    ("timm", "smp", "mobilenet_v2", V3PLUS, "no names .* MobileNetV2"),
    ("torchvision", "timm", "xception_65", V3PLUS, "no names .* Xception"),
    ("smp", "torchvision", "mobilenet_v3_large", V3, "no names .* MobileNetV3"),
    ("torchvision", "torchvision", "mobilenet_v3_large", CLASSIFIER,
     "classifies by two layers"),
  ],
)  # fmt: skip
def test_a_network_that_the_peer_does_not_have_is_refused(
  short, source, conventions, backbone, settings, message
):
  model = network(conventions, backbone, settings)
  with pytest.raises(errors.InputError, match=message):
    tables.table(source, model=model)
