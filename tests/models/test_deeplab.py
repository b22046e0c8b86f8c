import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from deeplax.models import build
from deeplax.models import decoder
from deeplax.models import deeplab
from deeplax.models import heads
from deeplax.models import layers
from deeplax.ops import resize

NORM = layers.Norm(decay=0.9, eps=1e-5)
CLASSES = 3


class Backbone(nn.Module):
  """Two strided convolutions instead of sixty."""

  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, *, train):
    conv = layers.ConvNorm
    settings = {
      "features": 6, "kernel": 3, "stride": 4, "norm": NORM,
      "activation": "relu", "dtype": self.dtype,
    }  # fmt: skip
    low = conv(**settings, name="conv1")(x, train=train)
    high = conv(**settings, name="conv2")(low, train=train)
    return {"low4": low, "high": high}


def small(dtype=jnp.float32):
  return deeplab.DeepLab(
    backbone=Backbone(dtype=dtype),
    head=heads.ASPP(rates=(1, 2), channels=8, norm=NORM, dtype=dtype),
    decoder=decoder.Decoder(
      channels=8, low_level_channels=4, norm=NORM, dtype=dtype
    ),
    num_classes=CLASSES,
    dtype=dtype,
  )


def full(backbone="mobilenet_v2", **settings):
  c = common.base().model
  c.backbone = backbone
  c.update(settings)
  if backbone == "mobilenet_v2":
    c.depth_multiplier = 0.1
  c.channels = c.decoder.channels = 8
  return build.from_config(c, num_classes=CLASSES)


def picture(size=(33, 33), batch=2):
  rng = np.random.default_rng(0)
  return rng.integers(0, 256, (batch, *size, 3), np.uint8)


@pytest.fixture(scope="module")
def trained():
  """A small model, variables with statistics unlike the initial ones."""
  model = small()
  variables = build.initial_variables(model, 0)
  rng = np.random.default_rng(1)
  variables["batch_stats"] = jax.tree.map(
    lambda x: rng.uniform(0.5, 1.5, x.shape).astype(np.float32),
    variables["batch_stats"],
  )
  return model, variables


def test_bytes_and_floats_give_the_same_logits(trained):
  model, variables = trained
  images = picture()
  one = model.apply(variables, images, train=False)
  other = model.apply(variables, images.astype(np.float32), train=False)
  np.testing.assert_array_equal(one, other)
  assert one.dtype == jnp.float32


def test_normalisation_is_part_of_the_model(trained):
  model, variables = trained
  images = np.float32(picture())
  mean, std = (123.15, 115.9, 103.06), (2.0, 3.0, 4.0)
  same = (images - 127.5) / 127.5 * np.float32(std) + np.float32(mean)
  np.testing.assert_allclose(
    model.apply(variables, images, train=False),
    model.clone(mean=mean, std=std).apply(variables, same, train=False),
    rtol=1e-4,
    atol=1e-5,
  )


def test_logits_are_the_coarse_ones_resized_with_aligned_corners(trained):
  model, variables = trained
  images = picture((29, 34))
  coarse = model.apply(variables, images, train=False, method="coarse")
  assert coarse.shape == (2, *decoder.scaled((29, 34), 4), CLASSES)
  np.testing.assert_array_equal(
    model.apply(variables, images, train=False),
    resize.resize_bilinear(coarse, (29, 34)),
  )


def test_applying_twice_gives_equal_outputs_and_changes_no_statistics(trained):
  model, variables = trained
  images = picture()
  one, state = model.apply(
    variables, images, train=False, mutable=["batch_stats"]
  )
  np.testing.assert_array_equal(one, model.apply(variables, images, train=False))
  jax.tree.map(
    np.testing.assert_array_equal,
    state["batch_stats"],
    variables["batch_stats"],
  )


def test_an_example_does_not_depend_on_its_batch(trained):
  model, variables = trained
  images = picture(batch=3)
  together = model.apply(variables, images, train=False)
  alone = model.apply(variables, images[1:2], train=False)
  np.testing.assert_allclose(together[1:2], alone, rtol=1e-4, atol=1e-5)


def test_training_moves_every_running_statistic(trained):
  model, variables = trained
  _, state = model.apply(
    variables,
    picture(),
    train=True,
    rngs={"dropout": jax.random.key(0)},
    mutable=["batch_stats"],
  )
  moved = jax.tree.map(
    lambda old, new: not np.array_equal(old, new),
    variables["batch_stats"],
    state["batch_stats"],
  )
  assert all(jax.tree.leaves(moved)), moved


def test_dropout_of_an_example_does_not_depend_on_the_batch_around_it():
  model = small()
  frozen = NORM._replace(mode="frozen")
  model = model.clone(
    backbone=Backbone(), head=model.head.clone(norm=frozen, dropout=0.5)
  )
  images = picture(batch=4)
  variables = build.initial_variables(model, 0)
  # Only the head is frozen: feed it, not the whole network, in training mode.
  head = {name: tree["head"] for name, tree in variables.items()}
  features = np.random.default_rng(0).standard_normal((4, 3, 3, 6), np.float32)

  def run(x):
    rngs = {"dropout": jax.random.key(1)}
    return model.head.clone(parent=None).apply(head, x, train=True, rngs=rngs)

  np.testing.assert_allclose(
    run(features)[:2], run(features[:2]), rtol=1e-5, atol=1e-6
  )
  del images


def test_half_precision_keeps_parameters_and_logits_in_float32():
  half = small(jnp.bfloat16)
  variables = build.initial_variables(half, 0)
  assert {x.dtype for x in jax.tree.leaves(variables)} == {np.dtype("float32")}
  images = picture()
  logits = half.apply(variables, images, train=False)
  assert logits.dtype == jnp.float32
  exact = small().apply(variables, images, train=False)
  # bfloat16 keeps 8 bits.
  assert np.abs(logits - exact).max() < 0.05 * np.abs(exact).max()


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 3), (33, 65), (64, 96)])
@pytest.mark.parametrize(
  "backbone", ["mobilenet_v2", "resnet_v1_50_beta", "xception_41"]
)
def test_any_image_size_gives_logits_of_its_own_size(backbone, size):
  model = full(backbone)
  images = jax.ShapeDtypeStruct((2, *size, 3), jnp.uint8)

  def run(images):
    variables = model.init(jax.random.key(0), images, train=False)
    return model.apply(variables, images, train=False)

  logits = jax.eval_shape(run, images)
  assert (logits.shape, logits.dtype) == ((2, *size, CLASSES), jnp.float32)


def test_the_smallest_image_gives_finite_logits():
  model = full()
  variables = build.initial_variables(model, 0)
  apply = jax.jit(lambda v, x: model.apply(v, x, train=False))
  assert np.isfinite(apply(variables, picture((1, 1)))).all()


def test_mirrored_kernels_mirror_the_logits_of_an_odd_size():
  model = full()
  variables = build.initial_variables(model, 0)
  mirrored = jax.tree_util.tree_map_with_path(
    lambda path, x: x[:, ::-1] if "kernel" in path[-1].key else x, variables
  )
  apply = jax.jit(lambda v, x: model.apply(v, x, train=False))
  # Every stride finds an odd size: 65, 33, 17, 9, 5.
  images = picture((33, 65), batch=1)
  logits = np.asarray(apply(variables, images))
  flipped = np.asarray(apply(mirrored, images[:, :, ::-1]))
  scale = np.abs(logits).max()
  np.testing.assert_allclose(flipped[:, :, ::-1], logits, atol=1e-4 * scale)
  assert np.abs(flipped - logits).max() > 1e-3 * scale
