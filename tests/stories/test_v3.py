"""The configurations of v3: their protocol, their published sizes, a run."""

import math
from typing import Any

import jax
import pytest

from configs import v3_mobilenet_v2
from configs import v3_resnet101
from deeplax.models import build
from deeplax.models import cost
from deeplax.models import variables
from deeplax.models.backbones import resnet
from tests.commands import command
from tests.models import networks


def network(config) -> Any:
  return build.from_config(config.model, num_classes=21)


@pytest.mark.parametrize("name", ["v3_resnet101", "v3_resnet101_cascade"])
def test_v3_trains_at_16_with_its_norms_then_at_8_with_frozen_ones(name, short):
  # 1706.05587, 4.1.
  _, _, variant = name.partition("v3_resnet101_")
  first = v3_resnet101.get_config(variant)
  prefix = f"{variant}_" if variant else ""
  second = v3_resnet101.get_config(f"{prefix}stage2")
  assert first.data.crop_size == second.data.crop_size == (513, 513)
  for c, stride, mode, rate in (
    (first, 16, "train", 0.007),
    (second, 8, "frozen", 0.001),
  ):
    assert (c.model.output_stride, c.model.batch_norm.mode) == (stride, mode)
    assert (c.optim.schedule, c.optim.base_lr) == ("poly", rate)
    assert (c.train.batch_size, c.train.total_steps) == (16, 30_000)
  assert second.init.checkpoint == f"runs/{name}"
  one, two = (variables.shapes(network(c)) for c in (first, second))
  assert one == two


def test_the_cascade_is_that_of_table_4(monkeypatch):
  # Widths matter here, and of the backbone only its last one.
  monkeypatch.setitem(resnet.DEPTHS, 101, (3, 4, 1, 3))
  config = v3_resnet101.get_config("cascade")
  c = config.model
  assert (c.head, c.cascade_blocks, c.multi_grid) == ("cascade", 3, (1, 2, 1))
  model = network(config)
  assert model.decoder is None
  # Three units of 2048 -> 512 -> 512 -> 2048 channels in each of three blocks,
  # with a scale and an offset behind each kernel, then the logits.
  unit = 2 * 2048 * 512 + 9 * 512**2 + 2 * (512 + 512 + 2048)
  c.cascade_blocks = 0
  counts = [
    sum(math.prod(shape) for path, shape in shapes.items() if "params" in path)
    for shapes in map(variables.shapes, (model, network(config)))
  ]
  assert counts[0] - counts[1] == 9 * unit


# MobileNetV2, 1801.04381, table 7: millions of parameters, billions of
# Multiply-Adds, each to the digits that it shows.
@pytest.mark.parametrize(
  ("config", "parameters", "multiply_adds"),
  [
    (v3_mobilenet_v2.get_config(), "2.11", 2.75),
    pytest.param(
      *(v3_mobilenet_v2.get_config("aspp"), "4.52", 5.8), marks=networks.SLOW
    ),
    (v3_resnet101.get_config(), "58.16", 81.0),
  ],
)
def test_v3_networks_have_the_sizes_of_table_7(
  config, parameters, multiply_adds
):
  model = network(config)
  traced, _ = cost.trace(model, (513, 513))
  count = sum(leaf.size for leaf in jax.tree.leaves(traced["params"]))
  assert f"{count / 1e6:.2f}" == parameters
  found = cost.multiply_adds(model, (513, 513), convention="paper")
  # One or two decimals, and the profiler counted additions as well.
  assert found / 1e9 == pytest.approx(multiply_adds, rel=0.01)


@pytest.mark.slow  # each compiles a step and a predictor
@pytest.mark.parametrize(
  "config",
  [
    "v3_resnet101.py:debug",
    "v3_resnet101.py:cascade_debug",
    "v3_mobilenet_v2.py:debug",
  ],
)
def test_debug_runs_without_data(config, tmp_path):
  done = command(
    "main",
    f"--config=configs/{config}",
    f"--workdir={tmp_path / 'run'}",
    short=True,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  assert "finished" in done.stdout
