import re

import jax
from jax.sharding import AbstractMesh, AxisType
import numpy as np
import pytest

from benchmarks import steps
from deeplax import errors
from deeplax import parallel
from deeplax.ops import backend

pytestmark = pytest.mark.usefixtures("short")


def small():
  config = steps.config("v3plus_mobilenet_v2:debug")
  config.model.depth_multiplier = 0.1
  config.model.channels = config.model.decoder.channels = 8
  return config


def shapes(tree):
  return jax.tree.map(lambda x: (x.shape, x.dtype, x.sharding), tree)


@pytest.mark.slow  # 30 s, the compilation
def test_abstract_arrays_are_those_of_the_step_that_runs():
  config, mesh = small(), parallel.mesh()
  state = steps.state(config, mesh)
  batch = steps.batch(mesh, images=2, size=33)
  assert shapes(steps.abstract_state(config, mesh)) == shapes(state)
  abstract = steps.abstract_batch(mesh, images=2, size=33)
  assert shapes(abstract) == shapes(batch)
  assert int(batch["label"].max()) == steps.CLASSES - 1
  before = jax.tree.map(np.asarray, state.params)
  after, metrics = steps.step(config, mesh)(state, batch)
  # Scores of a fresh network are near 0: the loss is near log(21).
  loss = metrics.compute()["loss"]
  np.testing.assert_allclose(loss, np.log(steps.CLASSES), rtol=0.1)
  moved = jax.tree.map(lambda a, b: (a != b).any(), before, after.params)
  assert moved["logits"]["kernel"]


def test_forward_gives_a_class_for_each_pixel():
  config, mesh = small(), parallel.mesh()
  state = steps.state(config, mesh)
  batch = steps.batch(mesh, images=1, size=33)
  classes = steps.forward(config)(state.trained, batch["image"])
  assert classes.shape == (1, 33, 33) and classes.dtype == np.uint8
  assert len(np.unique(classes)) > 1


def test_a_configuration_computes_in_half_precision_and_can_be_separable():
  plain = steps.config("v3plus_resnet101")
  assert plain.model.dtype == "bfloat16" and not plain.model.separable
  both = steps.config("v3plus_resnet101", separable=True, dtype="float32")
  assert both.model.separable and both.model.decoder.separable
  assert both.model.dtype == "float32"


def test_forms_are_those_of_the_table():
  assert steps.forms("") == {}
  assert steps.forms("resize=gathers,depthwise=fused") == {
    "resize": "gathers",
    "depthwise": "fused",
  }
  with pytest.raises(errors.InputError, match="resize has no form 'nearest'"):
    steps.forms("resize=nearest")
  with pytest.raises(errors.InputError, match="'size' not in .'depthwise', "):
    steps.forms("size=gathers")


def norms_sums(group):
  """Return the norms of a pod's step, their sums over chips and over groups."""
  config = small()
  config.model.batch_norm.group = group
  mesh = AbstractMesh((256,), (parallel.AXIS,), axis_types=(AxisType.Auto,))
  state = steps.abstract_state(config, mesh)
  with backend.target("tpu"):
    traced = steps.step(config, mesh).trace(
      state, steps.abstract_batch(mesh, images=2, size=33)
    )
  # Each has two values a channel; gradients and statistics have other shapes.
  found = re.findall(r"f32\[2,\d+\] = psum\[(.*?)\]", str(traced.jaxpr), re.S)
  every = len([one for one in found if "axis_index_groups=None" in one])
  norms = len(jax.tree.leaves(state.batch_stats)) // 2
  return norms, every, len(found) - every


def test_a_norm_sums_once_each_way_over_a_pod_and_groups_over_theirs():
  norms, every, grouped = norms_sums("all")
  assert (every, grouped) == (2 * norms, 0)
  assert norms_sums("16") == (norms, 0, 2 * norms)
