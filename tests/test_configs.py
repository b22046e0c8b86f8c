"""Every configuration file builds, for each of its arguments."""

import ast
import importlib
import re
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplax.data import spec
from deeplax.models import build
from deeplax.models import cost
from deeplax.settings import defaults
from deeplax.settings import find
from deeplax.training import losses
from deeplax.training import optim
from tests.models import networks

NAMES = find.names()


def get(name, arg=""):
  return importlib.import_module(f"configs.{name}").get_config(arg)


def arguments(name):
  """Return what a configuration takes: refusing another one, it lists them."""
  try:
    get(name, "no such argument")
  except ValueError as error:
    listed = re.search(r"not in (\[.*\])", str(error), re.DOTALL)
    assert listed, f"configs/{name}.py lists no arguments: {error}"
    return ast.literal_eval(listed[1])
  raise AssertionError(f"configs/{name}.py takes any argument")


# tests/settings/test_published.py goes over the networks of published.py.
CELLS = [
  (name, arg)
  for name in NAMES
  for arg in arguments(name)
  if (name, arg == "debug") != ("published", False)
]


def network(name, arg, **settings) -> Any:
  config = get(name, arg)
  known = spec.SPECS.get(config.data.name)
  return build.from_config(
    config.model, num_classes=known.num_classes if known else 2, **settings
  )


def shapes(model):
  return cost.trace(model, networks.SIZE)[0]


def test_every_config_builds_for_each_argument_at_each_output_stride():
  for name, arg in CELLS:
    for stride in (None, *get(name, arg).eval.sweep.output_strides):
      assert network(name, arg, output_stride=stride), (name, arg)


def test_a_network_of_each_kind_fits_together(short):
  kinds = {}
  for cell in CELLS:
    model = get(*cell).model
    backbone = type(network(*cell).backbone)
    kinds.setdefault((backbone, model.head, model.decoder.kind), cell)
  for cell in kinds.values():
    assert shapes(network(*cell)), cell


# 35 s: the networks are deep, and the test above has one of each kind.
@pytest.mark.slow
@pytest.mark.parametrize(("name", "arg"), CELLS)
def test_every_network_fits_together(name, arg):
  assert shapes(network(name, arg))


def test_every_config_has_the_keys_of_the_base_and_no_other():
  def keys(config):
    return {
      (key, *rest)
      for key, value in config.items()
      for rest in (keys(value) if hasattr(value, "items") else [()])
    }

  for name, arg in CELLS:
    assert keys(get(name, arg)) == keys(defaults.base()), (name, arg)


def test_every_config_names_splits_that_exist():
  for name, arg in CELLS:
    data = get(name, arg).data
    if data.name == "folder":
      continue  # its splits are its own
    splits = dict(spec.SPECS[data.name].splits)
    if splits:
      used = {*data.train_split.split("+"), *data.eval_split.split("+")}
      assert used <= set(splits), (name, arg)


def test_every_config_says_how_to_run_it_and_what_to_expect():
  for name in NAMES:
    text = importlib.import_module(f"configs.{name}").__doc__
    assert text and "COMMAND:" in text, name
    assert f"configs/{name}.py" in text or "make" in text, name


def test_every_config_has_a_debug_run_without_data():
  for name in NAMES:
    config = get(name, "debug")
    assert config.data.name == "shapes", name
    assert config.train.total_steps <= 10, name


V3PLUS = ("v3plus_mobilenet_v2", "v3plus_resnet101", "v3plus_xception")


@pytest.mark.parametrize("name", V3PLUS)
def test_v3plus_on_voc_is_the_papers_protocol(name):
  # 1706.05587, 4.1, which 1802.02611, 4, follows.
  c = get(name)
  assert (c.data.name, c.data.train_split) == ("voc2012", "train_aug")
  assert c.data.crop_size == c.eval.pad_to == (513, 513)
  assert (c.data.min_scale, c.data.max_scale, c.data.scale_step) == (
    0.5, 2.0, 0.25,
  )  # fmt: skip
  assert c.data.flip and c.train.upsample_logits
  assert (c.train.batch_size, c.train.total_steps) == (16, 30_000)
  assert (c.optim.base_lr, c.optim.schedule, c.optim.power) == (
    0.007, "poly", 0.9,
  )  # fmt: skip
  assert c.optim.momentum == 0.9
  # research/deeplab/train.py: 1e-4 for ResNet, 4e-5 for the others.
  assert c.optim.weight_decay == (1e-4 if "resnet" in name else 4e-5)
  assert (c.model.output_stride, c.model.atrous_rates) == (16, None)
  assert (c.model.batch_norm.mode, c.model.batch_norm.decay) == ("train", None)
  decoder = c.model.decoder
  assert (decoder.kind, decoder.features, decoder.output_stride) == (
    "concat", (4,), 4,
  )  # fmt: skip
  assert (decoder.low_level_channels, decoder.convs, decoder.channels) == (
    48, 2, 256,
  )  # fmt: skip
  assert c.eval.sweep.scales == (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)


@pytest.mark.parametrize("name", V3PLUS)
def test_stage_2_freezes_norms_at_output_stride_8_from_stage_1(name, short):
  # 1706.05587, 4.1: official trainval, another 30K at 0.001.
  c = get(name, "stage2")
  assert c.init.checkpoint == f"runs/{name}"
  assert c.data.train_split == "trainval"
  assert (c.model.output_stride, c.model.batch_norm.mode) == (8, "frozen")
  assert (c.optim.base_lr, c.train.total_steps) == (0.001, 30_000)
  assert len(c.data.duplicate_classes) == 5
  assert set(c.data.duplicate_classes) < set(spec.SPECS["voc2012"].class_names)
  assert shapes(network(name, "")) == shapes(network(name, "stage2"))


@pytest.mark.parametrize("name", V3PLUS)
def test_cityscapes_is_the_papers_protocol(name):
  # 1706.05587, appendix B: 90K, crop 769, whole images.
  c = get(name, "cityscapes")
  assert (c.data.name, c.data.train_split) == ("cityscapes", "train")
  assert spec.SPECS["cityscapes"].num_classes == 19
  assert (c.data.crop_size, c.train.total_steps) == ((769, 769), 90_000)
  assert c.eval.pad_to == (1025, 2049)
  assert c.eval.sweep.scales == (0.75, 1.0, 1.25)


def test_networks_are_those_of_the_papers_tables():
  xception, resnet, mobilenet = (
    get(f"v3plus_{name}").model
    for name in ("xception", "resnet101", "mobilenet_v2")
  )
  assert (xception.backbone, xception.multi_grid) == ("xception_65", (1, 1, 1))
  assert xception.separable and xception.decoder.separable
  assert (resnet.backbone, resnet.multi_grid) == (
    "resnet_v1_101_beta", (1, 2, 4),
  )  # fmt: skip
  # Table 3's Multiply-Adds are of dense convolutions.
  assert not resnet.separable and not resnet.decoder.separable
  assert mobilenet.backbone == "mobilenet_v2" and mobilenet.separable


V1V2 = ("v1_vgg16_largefov", "v2_resnet101", "v2_vgg16")


def test_v1_drops_its_rate_every_2000_steps():
  c = get("v1_vgg16_largefov")
  rate, _ = optim.optimizer(c)
  # 1412.7062, 4.1.
  for step, expected in ((0, 1e-3), (1999, 1e-3), (2000, 1e-4), (4000, 1e-5)):
    assert float(rate(step)) == pytest.approx(expected)
  assert c.train.total_steps == 6000


@pytest.mark.parametrize("name", V1V2)
def test_class_scores_of_v1_and_v2_learn_ten_times_as_fast(name, short):
  c = get(name)
  params = shapes(network(name, ""))["params"]
  ones = jax.tree.map(lambda x: np.float32(1), params)
  c.optim.weight_decay = 0.0
  _, tx = optim.optimizer(c)
  steps, _ = tx.update(ones, tx.init(ones), ones)
  flat: Any = flax.traverse_util.flatten_dict(steps)
  for path, step in flat.items():
    scores = any(part.startswith("logits") for part in path)
    bias = 2.0 if path[-1] == "bias" else 1.0
    expected = -c.optim.base_lr * (10.0 if scores else 1.0) * bias
    assert float(step) == pytest.approx(expected), path


@pytest.mark.parametrize("name", V1V2)
def test_labels_of_v1_and_v2_are_brought_down_to_an_eighth(name, short):
  c = get(name)
  height, width = c.data.crop_size
  assert (height, width) == (321, 321) and not c.train.upsample_logits
  model = network(name, "").clone(input_scales=())
  coarse = jax.eval_shape(
    lambda images: model.init_with_output(
      jax.random.key(0), images, train=False, method="coarse"
    )[0],
    jax.ShapeDtypeStruct((1, height, width, 3), np.float32),
  )
  labels = np.random.default_rng(0).integers(0, 21, (1, height, width))
  logits = np.zeros((1, *coarse.shape[1:3], 1), np.float32)
  _, found = losses.match(
    jnp.asarray(logits),
    jnp.asarray(labels),
    losses.Settings(upsample_logits=False),
  )
  np.testing.assert_array_equal(found, labels[:, ::8, ::8])


def test_networks_of_v1_and_v2_are_those_of_the_papers_tables():
  # v2, table 1.
  for arg, kernel, channels in (
    ("7x7", 7, 4096),
    ("4x4", 4, 4096),
    ("", 3, 1024),
  ):
    head = network("v1_vgg16_largefov", arg).head
    assert (head.kernel, head.channels) == (kernel, channels)
  assert network("v2_vgg16", "aspp_s").head.rates == (2, 4, 8, 12)
  for name in ("v2_vgg16", "v2_resnet101"):
    assert network(name, "").head.rates == (6, 12, 18, 24)
  assert network("v2_resnet101", "").input_scales == (0.75, 0.5)
