"""configs/published.py: each network is the one that its file is of."""

import math

import flax.traverse_util
import numpy as np
import pytest

from configs import published
from configs import v2_resnet101
from deeplax.data import spec
from deeplax.models import build
from deeplax.models import cost
from deeplax.models import variables
from deeplax.pretrained import convert_arrays
from deeplax.pretrained import rules
from deeplax.pretrained import tables
from deeplax.settings import defaults
from deeplax.settings import published as published_lib
from tests.models import networks

# Of the state dicts, counted in PyTorch; the second head included.
PARAMETERS = {
  "torchvision_deeplabv3_resnet50": 42_004_074,
  "torchvision_deeplabv3_resnet101": 60_996_202,
  "torchvision_deeplabv3_mobilenet_v3_large": 11_029_328,
  "kazuto_deeplabv2_resnet101": 44_048_532,
  "smp_deeplabv3_resnet101": 58_630_997,
  "smp_deeplabv3plus_resnet101": 45_674_853,
  "smp_deeplabv3plus_mobilenet_v2": 4_383_653,
  "smp_deeplabv3plus_xception65": 41_042_005,
  "smp_deeplabv3plus_xception71": 43_464_429,
}
# The zoo's column, in billions, for one image at one scale. MobileNetV3's
# two are left out: they are near twice the Multiply-Adds, and not equal.
MULTIPLY_ADDS = {
  "mobilenetv2_dm05_coco_voc_trainaug": 0.88,
  "mobilenetv2_dm05_coco_voc_trainval": 2.84,
  "mobilenetv2_coco_voc_trainaug": 2.75,
  "xception65_coco_voc_trainaug": 54.17,
  "mobilenetv2_coco_cityscapes_trainfine": 21.27,
  "xception65_cityscapes_trainfine": 418.64,
  "xception71_dpc_cityscapes_trainfine": 502.07,
}
# The cheapest of a source and backbone; those of ResNet and Xception take some
# seconds each.
FAST = (
  "mobilenetv2_dm05_coco_voc_trainaug",
  "mobilenetv3_small_cityscapes_trainfine",
  "smp_deeplabv3plus_mobilenet_v2",
)


def each(names):
  """Networks by name; all but a few are slow tests."""
  return [
    pytest.param(name, marks=[] if name in FAST else networks.SLOW)
    for name in names
  ]


def network(name, **settings):
  config = published.get_config(name)
  return build.from_config(
    config.model,
    num_classes=spec.SPECS[config.data.name].num_classes,
    auxiliary=config.train.auxiliary_weight > 0,
    **settings,
  )


@pytest.mark.parametrize("name", each(published_lib.NETWORKS))
def test_a_file_of_all_its_names_is_the_whole_network(name):
  model, source = network(name), published_lib.NETWORKS[name].source
  table = tables.table(source, model=model)
  wanted = flax.traverse_util.unflatten_dict(
    {
      # One number in memory, whatever the shape.
      path: np.broadcast_to(np.float32(0.5), shape)
      for path, shape in variables.shapes(model).items()
    }
  )
  arrays, nameless = rules.save(wanted, table)
  backbone_only = published_lib.NETWORKS[name].data is None
  if not backbone_only:
    assert not nameless
    convert_arrays(arrays, source, model=model)
  elif source == "timm":
    assert {path[1] for path in nameless} == {"head", "decoder", "logits"}


@pytest.mark.parametrize("name", each(PARAMETERS))
def test_its_parameters_are_as_many_as_there(name):
  shapes = variables.shapes(network(name))
  sizes = (math.prod(x) for path, x in shapes.items() if path[0] == "params")
  assert sum(sizes) == PARAMETERS[name]


@pytest.mark.parametrize("name", each(MULTIPLY_ADDS))
def test_its_multiply_adds_are_the_reported_ones(name):
  config = published.get_config(name)
  found = cost.multiply_adds(
    network(name, output_stride=config.eval.output_stride),
    config.eval.pad_to,
    convention="paper",
  )
  assert found / 1e9 == pytest.approx(MULTIPLY_ADDS[name], rel=0.015)


def test_its_configuration_has_the_keys_of_the_base():
  for name in published_lib.NETWORKS:
    assert keys(published.get_config(name)) == keys(defaults.base()), name


def test_it_is_evaluated_as_what_is_reported_of_it():
  for name, row in published_lib.NETWORKS.items():
    config = published.get_config(name)
    figures = row.reported
    first = figures[0].output_stride if figures else None
    assert config.eval.output_stride == first, name
    for reported in figures:
      assert 30 < reported.miou < 90, name
      strides = config.eval.sweep.output_strides
      assert reported.output_stride in strides, name


def test_every_row_has_a_logit_for_each_class_or_says_whose_they_are():
  for name, row in published_lib.NETWORKS.items():
    # What TensorFlow's networks of ADE20K have besides: no label.
    more = row.source == "tf_deeplab" and row.data == "ade20k"
    assert row.source_classes == ("ade20k" if more else None), name


def test_a_row_is_found_by_what_the_flag_says():
  row = published_lib.NETWORKS["mobilenetv2_ade20k_train"]
  for text in ("configs/published.py", "published", "/a/configs/published.py"):
    assert published_lib.of_config(f"{text}:mobilenetv2_ade20k_train") is row
  for text in ("published", "configs/published.py:debug", "own.py:x", ""):
    assert published_lib.of_config(text) is None


def test_pytorchs_networks_are_evaluated_unpadded_or_say_otherwise():
  for name, row in published_lib.NETWORKS.items():
    evaluation = published.get_config(name).eval
    if row.reported and row.source in ("caffe", "torchvision"):
      assert (evaluation.sizes, evaluation.pad_to) == ("unpadded", None), name
    else:
      assert evaluation.sizes == "reference", name
    resized = row.source == "torchvision"
    for line in published_lib.figure_lines(row):
      assert ("520 pixels; deeplax evaluates VOC's" in line) == resized, name
  (line,) = published_lib.figure_lines(
    published_lib.NETWORKS["kazuto_deeplabv2_resnet101"]
  )
  assert line == "Reported: 76.65 mIoU (val, output stride 8, scales 1.0)"


def test_v2_trains_of_its_norms_what_the_configuration_of_its_source_does():
  row = published.get_config("kazuto_deeplabv2_resnet101").model
  assert row.batch_norm == v2_resnet101.get_config().model.batch_norm


def keys(config):
  return {
    (key, *rest)
    for key, value in config.items()
    for rest in (keys(value) if hasattr(value, "items") else [()])
  }


def test_an_unknown_network_is_refused_with_the_known_ones():
  with pytest.raises(ValueError, match="published:resnet9000.*xception65"):
    published.get_config("resnet9000")
