"""`deeplax.model`: what a training starts from, and a loop of one's own."""

import functools

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest

import deeplax
from deeplax.workdir import checkpoint

SMALL = {
  "model.depth_multiplier": 0.1,
  "model.channels": 8,
  "model.decoder.channels": 8,
}


def _small(**changes):
  return deeplax.config("quickstart:debug", SMALL | changes)


def test_a_seed_draws_its_variables_and_init_checkpoint_gives_them(
  trained, short
):
  _, variables = deeplax.model(_small(seed=3), num_classes=8)
  _, others = deeplax.model(_small(seed=4), num_classes=8)
  kernel, other = (v["params"]["logits"]["kernel"] for v in (variables, others))
  assert kernel.shape == other.shape and (kernel != other).any()
  start = _small(**{"init.checkpoint": str(trained.workdir)})
  _, started = deeplax.model(start, num_classes=8)
  expected, _ = checkpoint.restore_variables(trained.workdir)
  jax.tree.map(np.testing.assert_array_equal, started, expected)


def test_a_loop_as_the_docstring_shows_it_learns(short):
  model, variables = deeplax.model(_small(), num_classes=5)
  images = np.zeros((2, 33, 33, 3), np.uint8)
  images[:, :, 16:] = 255
  labels = np.where(images[..., 0], 4, 1)
  tx = optax.sgd(0.5)

  @jax.jit
  def step(variables, state, key):
    def loss(params):
      logits, updates = model.apply(
        {**variables, "params": params},
        images,
        train=True,
        mutable=["batch_stats"],
        rngs={"dropout": key},
      )
      losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
      return losses.mean(), updates

    (value, updates), grads = jax.value_and_grad(loss, has_aux=True)(
      variables["params"]
    )
    change, state = tx.update(grads, state)
    params = optax.apply_updates(variables["params"], change)
    return {"params": params, **updates}, state, value

  state, values = tx.init(variables["params"]), []
  before = jax.tree.leaves(variables["batch_stats"])
  for key in jax.random.split(jax.random.key(0), 8):
    variables, state, value = step(variables, state, key)
    values.append(float(value))
  assert values[0] == pytest.approx(np.log(5), rel=0.1)
  assert values[-1] < 0.5 * values[0]
  after = jax.tree.leaves(variables["batch_stats"])
  assert any((a != b).any() for a, b in zip(before, after, strict=True))


class Sum(nn.Module):
  """A decoder of one convolution on the features at stride 4."""

  features: int

  @nn.compact
  def __call__(self, high, features, size, *, train):
    low = nn.Conv(self.features, (1, 1), name="low")(features["low4"])
    return low + jax.image.resize(high, low.shape, "bilinear")


def test_a_decoder_of_ones_own_takes_the_configured_ones_place(short):
  model, variables = deeplax.model(
    _small(), num_classes=5, decoder=Sum(features=8)
  )
  decoder = variables["params"]["decoder"]
  assert list(decoder) == ["low"]
  assert decoder["low"]["kernel"].shape[-1] == 8
  logits = jax.eval_shape(
    functools.partial(model.apply, train=False),
    variables,
    np.zeros((1, 33, 33, 3), np.uint8),
  )
  assert logits.shape == (1, 33, 33, 5)
  _, plain = deeplax.model(_small(), num_classes=5)
  jax.tree.map(
    np.testing.assert_array_equal,
    variables["params"]["backbone"],
    plain["params"]["backbone"],
  )


@pytest.mark.parametrize(
  "overrides, told",
  [
    ({"model.head": "asp"}, "model.head"),
    ({"model.output_stride": 5}, "output_stride 5"),
    ({"init.checkpoint": "nowhere"}, "nowhere"),
  ],
)
def test_what_is_wrong_is_told(overrides, told, short):
  with pytest.raises(deeplax.InputError, match=told):
    deeplax.model(_small(**overrides), num_classes=5)
