import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplax.models import layers
from deeplax.models import style as style_lib
from deeplax.models.heads import aspp as aspp_lib
from deeplax.models.heads import auxiliary

NORM = layers.Norm(decay=0.9, eps=1e-5)
STYLE = style_lib.Style(NORM)
FROZEN = style_lib.Style(NORM._replace(mode="frozen"))
WIDTH = 4


def features(batch=2, size=(9, 9), channels=6):
  rng = np.random.default_rng(0)
  x = rng.standard_normal((batch, *size, channels))
  return jnp.asarray(x, jnp.float32)


def aspp(**fields):
  return aspp_lib.ASPP(**{"style": STYLE, "channels": WIDTH, **fields})


def start(model, x):
  return model.init(jax.random.key(0), x, train=False)


drawn = jax.jit(start, static_argnums=0)


@functools.partial(jax.jit, static_argnums=0)
def evaluated(model, variables, x):
  return model.apply(variables, x, train=False)


@functools.partial(jax.jit, static_argnums=0)
def trained(model, variables, x):
  """Return the output of a training step."""
  y, _ = model.apply(
    variables,
    x,
    train=True,
    rngs={"dropout": jax.random.key(1)},
    mutable=["batch_stats"],
  )
  return y


def only_branch(variables, place):
  """The projection becomes the identity on one branch."""
  kernel = np.zeros(variables["params"]["projection"]["kernel"].shape)
  rows = slice(place * WIDTH, (place + 1) * WIDTH)
  kernel[0, 0, rows] = np.eye(WIDTH)
  projection = variables["params"]["projection"] | {
    "kernel": jnp.asarray(kernel, jnp.float32)
  }
  return variables | {
    "params": variables["params"] | {"projection": projection}
  }


def test_branches_are_concatenated_pooling_then_1x1_then_rates():
  model = aspp(rates=(1, 2), separable=False)
  x = features()
  variables = drawn(model, x)
  names = ("image_pooling", "aspp0", "aspp1", "aspp2")

  @jax.jit
  def run(variables):
    y, state = model.apply(
      variables,
      x,
      train=False,
      capture_intermediates=lambda module, _: module.name in names,
      mutable=["intermediates"],
    )
    return y, state["intermediates"]

  for place, name in enumerate(names):
    y, branches = run(only_branch(variables, place))
    branch = branches[name]["__call__"][0]
    # The projection's norm divides by sqrt(1 + eps).
    np.testing.assert_allclose(
      y, np.broadcast_to(branch, y.shape), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("image_pooling", [True, False])
def test_no_rates_leave_the_model_zoos_head(image_pooling):
  model = aspp(rates=(), image_pooling=image_pooling)
  shapes = jax.eval_shape(lambda: start(model, features()))
  expected = {"aspp0", "projection"}
  expected |= {"image_pooling"} if image_pooling else set()
  assert set(shapes["params"]) == expected


@pytest.mark.parametrize("separable", [True, False])
def test_parameters_do_not_depend_on_the_rates(separable):
  trees = [
    jax.eval_shape(
      lambda rates=rates: start(
        aspp(rates=rates, separable=separable), features()
      )
    )
    for rates in ((6, 12, 18), (12, 24, 36))
  ]
  assert trees[0] == trees[1]


def test_doubled_rates_on_twice_the_grid_give_the_same_features():
  fine = features(size=(17, 17))
  coarse = fine[:, ::2, ::2]
  one, two = (
    aspp(rates=rates, image_pooling=False) for rates in ((1, 3), (2, 6))
  )
  variables = drawn(one, coarse)
  np.testing.assert_allclose(
    evaluated(one, variables, coarse),
    evaluated(two, variables, fine)[:, ::2, ::2],
    rtol=1e-4,
    atol=1e-5,
  )


def test_image_pooling_is_the_same_everywhere_and_sees_everything():
  model = aspp(rates=())
  x = features()
  variables = only_branch(drawn(model, x), 0)
  y = np.asarray(evaluated(model, variables, x))
  np.testing.assert_array_equal(y, np.broadcast_to(y[:, :1, :1], y.shape))
  moved = jnp.roll(x, (4, 3), axis=(1, 2))
  np.testing.assert_allclose(
    y, evaluated(model, variables, moved), rtol=1e-4, atol=1e-5
  )


def test_training_image_pooling_on_one_image_is_refused_with_the_ways_out():
  model = aspp()
  x = features(batch=1)
  with pytest.raises(ValueError, match="image pooling") as error:
    jax.eval_shape(lambda: trained(model, start(model, x), x))
  for way_out in ("batch_size >= 2", "mode='frozen'", "image_pooling=False"):
    assert way_out in str(error.value)


@pytest.mark.parametrize(
  "fields", [{"style": FROZEN}, {"image_pooling": False}]
)
def test_each_way_out_trains_on_one_image(fields):
  model = aspp(**fields)
  x = features(batch=1)
  y = jax.eval_shape(lambda: trained(model, start(model, x), x))
  assert y.shape == (1, 9, 9, WIDTH)


def test_four_devices_train_as_one_does_dropout_included():
  x = features(batch=4)
  one = aspp(rates=(), dropout=0.5)
  four = one.clone(style=STYLE._replace(norm=NORM._replace(axis_name="batch")))
  variables = drawn(one, x)

  @jax.jit
  def on_devices(x):
    return jax.vmap(lambda x: trained(four, variables, x), axis_name="batch")(
      x[:, None]
    )

  whole = np.asarray(trained(one, variables, x))
  assert (whole == 0).mean() > 0.5
  split = on_devices(x)[:, 0]
  np.testing.assert_allclose(split, whole, rtol=1e-4, atol=1e-4)


def test_dropout_of_an_example_does_not_depend_on_the_batch_around_it():
  # A frozen norm, or the batch would count through its statistics.
  model = aspp(style=FROZEN, rates=(), image_pooling=False, dropout=0.5)
  x = features(batch=4)
  variables = drawn(model, x)
  whole = np.asarray(trained(model, variables, x))
  np.testing.assert_allclose(
    trained(model, variables, x[:2]), whole[:2], rtol=1e-5, atol=1e-6
  )
  assert ((whole == 0) != (whole[::-1] == 0)).any()


def test_the_auxiliary_head_is_3x3_norm_relu_1x1_with_bias():
  x = features(channels=8)
  model = auxiliary.Auxiliary(style=FROZEN, num_classes=3)
  rng = np.random.default_rng(1)
  variables = jax.tree.map(
    lambda leaf: rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32),
    jax.eval_shape(lambda: start(model, x)),
  )
  conv, logits = (variables["params"][name] for name in ("conv", "logits"))
  assert conv["kernel"].shape == (3, 3, 8, 2)
  stats = variables["batch_stats"]["conv"]
  padded = np.pad(np.asarray(x), ((0, 0), (1, 1), (1, 1), (0, 0)))
  windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
  y = np.einsum("bhwcij,ijck->bhwk", windows, conv["kernel"])
  y = y.reshape(-1, 2) - stats["mean"][None]
  y = y / np.sqrt(stats["var"][None] + NORM.eps) * conv["scale"][None]
  y = np.maximum(y + conv["offset"][None], 0)
  y = y @ logits["kernel"][0, 0] + logits["bias"][None]
  expected = y.reshape(2, 9, 9, 3)
  plain = model.clone(dropout=0.0)
  for found in (
    evaluated(model, variables, x),
    trained(plain, variables, x),
  ):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
  dropped = np.asarray(trained(model, variables, x))
  assert np.abs(dropped - expected).max() > 0.1
