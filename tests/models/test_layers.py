import os
import pathlib
import subprocess
import sys
from typing import Any

import flax.errors
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplax.models import dropout
from deeplax.models import layers

NORM = layers.Norm(decay=0.9, eps=1e-3)
ROOT = pathlib.Path(__file__).resolve().parents[2]


def random(*shape, seed=0):
  return np.random.default_rng(seed).normal(1, 2, shape).astype(np.float32)


def start(module, x):
  """Variables whose norms do something."""
  shapes = jax.eval_shape(
    lambda x: module.init(jax.random.key(0), x, train=False), x
  )
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda leaf: rng.uniform(0.25, 1.25, leaf.shape).astype(np.float32), shapes
  )


def infer(module, variables, x):
  return np.asarray(
    jax.jit(lambda v, x: module.apply(v, x, train=False))(variables, x)
  )


def train(module, variables, x):
  """Output and new statistics of a training step."""

  @jax.jit
  def run(variables, x):
    return module.apply(variables, x, train=True, mutable=["batch_stats"])

  y, updated = run(variables, x)
  return y, updated["batch_stats"]


def test_running_statistics_take_the_unbiased_variance():
  conv = layers.ConvNorm(3, norm=NORM)
  x = random(2, 3, 4, 3)
  ones, zeros = np.ones(3, np.float32), np.zeros(3, np.float32)
  kernel = np.eye(3, dtype=np.float32).reshape(1, 1, 3, 3)
  variables = {
    "params": {"kernel": kernel, "scale": ones, "offset": zeros},
    "batch_stats": {"mean": ones, "var": 2 * ones},
  }
  y, stats = train(conv, variables, x)
  values = x.reshape(-1, 3).astype(np.float64)
  mean, var = values.mean(0), values.var(0, ddof=1)
  np.testing.assert_allclose(stats["mean"], 0.9 + 0.1 * mean, rtol=1e-5)
  np.testing.assert_allclose(stats["var"], 1.8 + 0.1 * var, rtol=1e-5)
  # The output itself is normalized by the biased one.
  expected = (values - mean) / np.sqrt(values.var(0) + 1e-3)
  np.testing.assert_allclose(
    np.asarray(y).reshape(-1, 3), expected, rtol=1e-4, atol=1e-5
  )


@pytest.mark.parametrize("depthwise", [False, True])
def test_inference_folds_the_norm_into_the_kernel(depthwise):
  bare = layers.ConvNorm(5, kernel=3, depthwise=depthwise)
  conv = bare.clone(norm=NORM)
  x = random(1, 6, 7, 5)
  variables = start(conv, x)
  params, stats = variables["params"], variables["batch_stats"]
  kernel = {k: v for k, v in params.items() if k.endswith("kernel")}
  plain = infer(bare, {"params": kernel}, x)
  centered = plain.reshape(-1, 5) - stats["mean"].reshape(1, 5)
  factor = params["scale"] / np.sqrt(stats["var"] + 1e-3)
  expected = centered * factor.reshape(1, 5) + params["offset"].reshape(1, 5)
  y = infer(conv, variables, x).reshape(-1, 5)
  np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


def test_numpy_variables_work_without_jit():
  x = random(1, 4, 4, 2)
  for conv in (
    layers.ConvNorm(2, norm=NORM),
    layers.ConvNorm(2, use_bias=True),
  ):
    variables = start(conv, x)
    y = np.asarray(conv.apply(variables, x, train=False))
    np.testing.assert_allclose(y, infer(conv, variables, x), rtol=1e-5)


def test_given_parameters_are_read_without_drawing_others():
  drawn = []

  def init(key, shape, dtype=jnp.float32):
    drawn.append(shape)
    return jnp.ones(shape, dtype)

  stand_in: Any = init
  layer = layers.ConvNorm(4, kernel=3, kernel_init=stand_in)
  image = jnp.ones((1, 5, 5, 2))
  variables = layer.init(jax.random.key(0), image, train=False)
  assert drawn == [(3, 3, 2, 4)]
  layer.apply(variables, image, train=False)
  assert drawn == [(3, 3, 2, 4)]
  with pytest.raises(flax.errors.ScopeParamShapeError, match="kernel"):
    layer.apply(variables, jnp.ones((1, 5, 5, 3)), train=False)


def test_a_frozen_norm_leaves_its_statistics_but_trains_scale_and_offset():
  conv = layers.ConvNorm(4, norm=NORM._replace(mode="frozen"))
  x = random(2, 3, 3, 2)
  variables = start(conv, x)
  stats = {"batch_stats": variables["batch_stats"]}

  def loss(params):
    y, updated = conv.apply(
      {"params": params, **stats}, x, train=True, mutable=["batch_stats"]
    )
    return (y**2).sum(), (y, updated)

  grad = jax.jit(jax.grad(loss, has_aux=True))
  grads, (y, updated) = grad(variables["params"])
  np.testing.assert_allclose(y, infer(conv, variables, x), atol=1e-5)
  jax.tree.map(
    np.testing.assert_array_equal,
    updated["batch_stats"],
    variables["batch_stats"],
  )
  assert all(np.abs(leaf).min() > 0 for leaf in jax.tree.leaves(grads))


def test_one_value_per_channel_stops_training_with_the_ways_out():
  conv = layers.ConvNorm(4, norm=NORM)
  x = random(1, 1, 1, 3)
  variables = start(conv, x)
  with pytest.raises(ValueError, match="mode='frozen'"):
    train(conv, variables, x)
  infer(conv, variables, x)


def trained(norm, x):
  """Outputs and statistics of a norm under 4 mapped devices."""
  conv = layers.ConvNorm(3, norm=norm)
  variables = start(layers.ConvNorm(3, norm=NORM), x[0])

  def step(x):
    return conv.apply(variables, x, train=True, mutable=["batch_stats"])

  return jax.jit(jax.vmap(step, axis_name="batch"))(x)


def test_group_all_normalizes_over_every_device():
  x = random(4, 2, 3, 3, 3)
  norm = NORM._replace(axis_name="batch")
  y, updated = trained(norm, x)
  whole, expected = trained(NORM, x.reshape(1, 8, 3, 3, 3))
  np.testing.assert_allclose(
    y.reshape(whole.shape), whole, rtol=1e-4, atol=1e-4
  )
  for key, value in expected["batch_stats"].items():
    got = updated["batch_stats"][key]
    for device in range(4):
      np.testing.assert_allclose(got[device], value[0], rtol=1e-5)


def test_group_device_normalizes_each_by_itself():
  x = random(4, 2, 3, 3, 3)
  y, _ = trained(NORM._replace(axis_name="batch", group="device"), x)
  alone, _ = trained(NORM, x)
  np.testing.assert_allclose(y, alone, rtol=1e-5, atol=1e-5)


def over(group, devices=4):
  norm = NORM._replace(axis_name="batch", group=group)
  found = []
  jax.vmap(lambda x: found.append(norm.over()) or x, axis_name="batch")(
    jnp.zeros(devices)
  )
  return found[0]


def test_a_number_groups_consecutive_devices():
  assert over("2") == (("batch", ((0, 1), (2, 3))), 2)
  assert over("4") == (("batch", None), 4)
  assert over("1") == (None, 1)
  assert NORM._replace(group="2").over() == (None, 1)


def test_a_group_that_does_not_divide_the_devices_is_refused():
  with pytest.raises(ValueError, match="'3' does not divide the 4 .* '2', the"):
    over("3")
  with pytest.raises(ValueError, match="'8' does not divide the 6 .* '6', the"):
    over("8", devices=6)


@pytest.mark.parametrize("group", ["none", "0", "-2", "two"])
def test_a_group_that_is_no_number_is_refused(group):
  with pytest.raises(ValueError, match="'all', 'device'"):
    NORM._replace(group=group).over()


# vmap has no grouped collectives, and devices are counted once per process.
GROUPED = """
import jax, numpy as np
from jax.sharding import PartitionSpec as P
from deeplax import parallel
from deeplax.models import layers
x = np.random.default_rng(0).normal(1, 2, (4, 3, 3, 2)).astype(np.float32)
norm = layers.Norm(0.9, 1e-3)
plain = layers.ConvNorm(3, norm=norm)
variables = plain.init(jax.random.key(0), x, train=False)
def run(conv, x):
  return conv.apply(variables, x, train=True, mutable=["batch_stats"])
grouped = layers.ConvNorm(3, norm=norm._replace(axis_name="batch", group="2"))
step = jax.shard_map(
  lambda x: run(grouped, x)[0],
  mesh=parallel.mesh(), in_specs=P("batch"), out_specs=P("batch"),
  check_vma=False,
)
got = np.asarray(jax.jit(step)(x))
want = np.concatenate([run(plain, x[:2])[0], run(plain, x[2:])[0]])
assert len(jax.devices()) == 4
np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
"""


def test_two_groups_of_two_devices_normalize_like_two_batches():
  flags = "--xla_force_host_platform_device_count=4"
  done = subprocess.run(
    [sys.executable, "-c", GROUPED],
    cwd=ROOT,
    env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr


def test_bfloat16_computes_with_float32_parameters_and_statistics():
  pair = layers.SeparableConv(6, norm=NORM, dtype=jnp.bfloat16)
  x = random(2, 9, 9, 4)
  variables = start(pair, x)
  y, updated = train(pair, variables, x)
  assert y.dtype == jnp.bfloat16
  assert infer(pair, variables, x).dtype == jnp.bfloat16
  params = jax.eval_shape(
    lambda x: pair.init(jax.random.key(0), x, train=False), x
  )
  leaves = jax.tree.leaves((params, updated))
  assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}
  exact, _ = train(layers.SeparableConv(6, norm=NORM), variables, x)
  assert np.abs(np.asarray(y, np.float32) - exact).max() < 0.1


@pytest.mark.parametrize("size", [7, 8])
def test_symmetric_padding_keeps_every_second_output_at_any_size(size):
  x = random(1, size, size, 2)
  dense = layers.ConvNorm(3, kernel=3, padding="symmetric")
  variables = start(dense, x)
  strided = layers.ConvNorm(3, kernel=3, stride=2, padding="symmetric")
  np.testing.assert_allclose(
    infer(strided, variables, x),
    infer(dense, variables, x)[:, ::2, ::2],
    rtol=1e-4,
    atol=1e-5,
  )


def test_same_padding_keeps_the_odd_outputs_of_an_even_size():
  x = random(1, 8, 8, 2)
  dense = layers.ConvNorm(3, kernel=3)
  variables = start(dense, x)
  strided = layers.ConvNorm(3, kernel=3, stride=2)
  np.testing.assert_allclose(
    infer(strided, variables, x),
    infer(dense, variables, x)[:, 1::2, 1::2],
    rtol=1e-4,
    atol=1e-5,
  )


def test_a_separable_pair_activates_where_it_is_told():
  x = random(1, 5, 5, 3) - 1

  def run(**activations):
    pair = layers.SeparableConv(4, norm=NORM, **activations)
    variables = start(pair, x)
    variables["params"] = jax.tree.map(
      lambda leaf: leaf - 0.5, variables["params"]
    )
    return infer(pair, variables, x)

  plain = run()
  assert plain.min() < 0
  np.testing.assert_array_equal(run(activation="relu"), np.maximum(plain, 0))
  assert not np.allclose(run(pre_activation="relu"), plain)
  between = run(activation_between="relu")
  assert not np.allclose(between, plain)
  assert not np.allclose(between, run(pre_activation="relu"))


def test_without_a_norm_between_a_separable_pair_is_one_linear_map():
  """Equal to the dense kernel of the pair's products, with one norm."""
  x = random(2, 7, 7, 3)
  pair = layers.SeparableConv(
    4, norm=NORM, norm_between=False, activation="relu"
  )
  variables = start(pair, x)
  assert set(variables["params"]["depthwise"]) == {"depthwise_kernel"}
  params = variables["params"]
  kernel = (
    params["depthwise"]["depthwise_kernel"].transpose(0, 1, 3, 2)
    * params["pointwise"]["kernel"]
  )
  dense = layers.ConvNorm(4, kernel=3, norm=NORM, activation="relu")
  merged = {
    "params": {**params["pointwise"], "kernel": kernel},
    "batch_stats": variables["batch_stats"]["pointwise"],
  }
  np.testing.assert_allclose(
    infer(pair, variables, x), infer(dense, merged, x), rtol=1e-5, atol=1e-6
  )


def test_unknown_settings_are_refused_by_name():
  x = random(1, 3, 3, 2)
  for fields, message in [
    (dict(activation="swish"), "activation 'swish' not in"),
    (dict(padding="valid"), "padding 'valid' not in"),
    (dict(norm=NORM._replace(mode="off")), "batch_norm.mode 'off' not in"),
    (dict(kernel_init=layers.Init("he")), "initializer 'he' not in"),
  ]:
    with pytest.raises(ValueError, match=message):
      start(layers.ConvNorm(2, **fields), x)


def test_layers_with_equal_fields_are_equal_and_hash_alike():
  make = lambda: layers.ConvNorm(  # noqa: E731
    2, norm=layers.Norm(0.9, 1e-3), kernel_init=layers.Init("xavier_uniform")
  )
  assert make() == make()
  assert hash(make()) == hash(make())


def dropped(x, axis_name=None):
  layer = dropout.Dropout(0.25, axis_name)
  return layer.apply({}, x, train=True, rngs={"dropout": jax.random.key(3)})


def test_dropout_drops_the_same_values_on_one_and_on_four_devices():
  x = np.ones((8, 5, 5, 16), np.float32)
  one = np.asarray(jax.jit(dropped)(x))
  mapped = jax.vmap(lambda x: dropped(x, "batch"), axis_name="batch")
  four = jax.jit(mapped)(x.reshape(4, 2, 5, 5, 16))
  np.testing.assert_array_equal(np.asarray(four).reshape(x.shape), one)
  assert set(np.unique(one)) == {0, np.float32(1 / 0.75)}
  assert abs(one.mean() - 1) < 0.05
  assert len({example.tobytes() for example in one}) == 8


def test_dropout_does_nothing_outside_training():
  x = random(2, 3, 3, 2)
  np.testing.assert_array_equal(infer(dropout.Dropout(0.5), {}, x), x)


@pytest.mark.parametrize(
  ("init", "deviation", "largest"),
  [
    # Cut at two deviations a normal keeps 0.8796 of its deviation.
    (layers.Init("truncated_normal", 0.09), 0.0796 * 0.9941, 0.18),
    # sqrt(1.3 * 2 / (3 * 3 * 32)) = 0.0950
    (layers.Init("variance_scaling", 2.0), 0.0836, 0.19),
    # Limit sqrt(6 / (9 * (32 + 64))) = 0.0833
    (layers.Init("xavier_uniform"), 0.0481, 0.0834),
    # Limit sqrt(6 / (3 * 3 * 32)) = 0.1443
    (layers.Init("kaiming_uniform", 2.0), 0.0833, 0.1443),
  ],
)
def test_kernels_are_drawn_as_the_reference_draws_them(
  init, deviation, largest
):
  shape = (3, 3, 32, 64)
  for values in (
    init.draw(np.random.default_rng(0), shape),
    np.asarray(init(jax.random.key(0), shape)),
    # A stack of scanned kernels is drawn like its members.
    init.draw(np.random.default_rng(0), (2, *shape)),
  ):
    assert values.dtype == np.float32
    assert abs(values.mean()) < 0.01 * largest
    np.testing.assert_allclose(values.std(), deviation, rtol=0.02)
    assert 0.9 * largest < np.abs(values).max() <= largest * 1.01


def test_a_kaiming_normal_is_not_cut():
  init = layers.Init("kaiming_normal", 2.0)
  shape = (3, 3, 32, 64)
  deviation = 0.0589  # sqrt(2 / (3 * 3 * 64))
  for values in (
    init.draw(np.random.default_rng(0), shape),
    np.asarray(init(jax.random.key(0), shape)),
  ):
    np.testing.assert_allclose(values.std(), deviation, rtol=0.02)
    # 4.6% of a normal lie beyond two deviations.
    beyond = (np.abs(values) > 2 * deviation).mean()
    np.testing.assert_allclose(beyond, 0.046, rtol=0.1)
