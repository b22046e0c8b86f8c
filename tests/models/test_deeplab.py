import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplax.models import build
from deeplax.models import cost
from deeplax.models import decoder
from deeplax.models import deeplab
from deeplax.models import layers
from deeplax.models import style as style_lib
from deeplax.models import variables as variables_lib
from deeplax.models.heads import aspp
from deeplax.ops import resize
from tests.models import networks

NORM = layers.Norm(decay=0.9, eps=1e-5)
CLASSES = 3


def small(dtype=jnp.float32):
  style = style_lib.Style(NORM, dtype=dtype)
  return deeplab.DeepLab(
    backbone=networks.Tiny(dtype=dtype),
    head=aspp.ASPP(style, rates=(1, 2), channels=8),
    decoder=decoder.Decoder(style, channels=8, low_level_channels=4),
    num_classes=CLASSES,
    dtype=dtype,
  )


@functools.partial(jax.jit, static_argnums=0)
def evaluated(model, variables, images):
  return model.apply(variables, images, train=False)


def picture(size=(33, 33), batch=2):
  rng = np.random.default_rng(0)
  return rng.integers(0, 256, (batch, *size, 3), np.uint8)


@pytest.fixture(scope="module")
def trained():
  """A small model, variables with statistics unlike the initial ones."""
  model = small()
  variables = variables_lib.initial_variables(model, 0)
  rng = np.random.default_rng(1)
  variables["batch_stats"] = jax.tree.map(
    lambda x: jnp.asarray(rng.uniform(0.5, 1.5, x.shape), jnp.float32),
    variables["batch_stats"],
  )
  return model, variables


def test_bytes_and_floats_give_the_same_logits(trained):
  model, variables = trained
  images = picture()
  one = evaluated(model, variables, images)
  other = evaluated(model, variables, images.astype(np.float32))
  np.testing.assert_array_equal(one, other)
  assert one.dtype == jnp.float32


def test_normalization_is_part_of_the_model(trained):
  model, variables = trained
  images = np.float32(picture())
  mean, std = (123.15, 115.9, 103.06), (2.0, 3.0, 4.0)
  same = (images - 127.5) / 127.5 * np.array(std) + np.array(mean)
  np.testing.assert_allclose(
    evaluated(model, variables, images),
    evaluated(model.clone(mean=mean, std=std), variables, np.float32(same)),
    rtol=1e-4,
    atol=1e-5,
  )


def test_logits_are_the_coarse_ones_resized_with_aligned_corners(trained):
  model, variables = trained
  images = picture((29, 34))
  coarse, whole = jax.jit(
    lambda v, x: [
      model.apply(v, x, train=False, method=method)
      for method in ("coarse", "__call__")
    ]
  )(variables, images)
  assert coarse.shape == (2, *decoder.scaled((29, 34), 4), CLASSES)
  np.testing.assert_allclose(
    whole, resize.resize_bilinear(coarse, (29, 34)), rtol=1e-5, atol=1e-6
  )


def test_applying_twice_gives_equal_outputs_and_changes_no_statistics(trained):
  model, variables = trained
  images = picture()
  run = jax.jit(
    lambda v, x: model.apply(v, x, train=False, mutable=["batch_stats"])
  )
  (one, state), (other, _) = (run(variables, images) for _ in range(2))
  np.testing.assert_array_equal(one, other)
  jax.tree.map(
    np.testing.assert_array_equal,
    state["batch_stats"],
    variables["batch_stats"],
  )


def test_an_example_does_not_depend_on_its_batch(trained):
  model, variables = trained
  images = picture()
  together = evaluated(model, variables, images)
  alone = evaluated(model, variables, images[1:2])
  np.testing.assert_allclose(together[1:2], alone, rtol=1e-4, atol=1e-5)


def test_training_moves_every_running_statistic(trained):
  model, variables = trained

  @jax.jit
  def updated(variables, images):
    _, state = model.apply(
      variables,
      images,
      train=True,
      rngs={"dropout": jax.random.key(0)},
      mutable=["batch_stats"],
    )
    return state["batch_stats"]

  moved = jax.tree.map(
    lambda old, new: not np.array_equal(old, new),
    variables["batch_stats"],
    updated(variables, picture()),
  )
  assert all(jax.tree.leaves(moved)), moved


def test_half_precision_keeps_parameters_and_logits_in_float32():
  half = small(jnp.bfloat16)
  variables = variables_lib.initial_variables(half, 0)
  assert {x.dtype for x in jax.tree.leaves(variables)} == {np.dtype("float32")}
  images = picture()
  logits = evaluated(half, variables, images)
  assert logits.dtype == jnp.float32
  exact = evaluated(small(), variables, images)
  # bfloat16 keeps 8 bits.
  assert np.abs(logits - exact).max() < 0.05 * np.abs(exact).max()


SIZES = ((1, 1), (64, 96), (1, 7), (2, 3), (33, 65))  # (height, width)


@pytest.mark.parametrize(
  ("backbone", "sizes"),
  [
    ("mobilenet_v2", SIZES),
    pytest.param("resnet_v1_50", SIZES[:2], marks=networks.SLOW),
    ("xception_41", SIZES[:2]),
  ],
)
def test_any_image_size_gives_logits_of_its_own_size(backbone, sizes, short):
  model, _ = with_auxiliary(backbone=backbone)
  variables, _ = cost.trace(model, networks.SIZE)

  for size in sizes:
    images = jax.ShapeDtypeStruct((2, *size, 3), jnp.uint8)
    logits = jax.eval_shape(
      functools.partial(model.apply, train=False), variables, images
    )
    wanted = (2, *size, CLASSES), jnp.float32
    assert (logits.shape, logits.dtype) == wanted, size


@pytest.mark.parametrize("size", [(1, 1), (1, 7)])
def test_any_image_size_gives_finite_logits(trained, size):
  model, variables = trained
  logits = evaluated(model, variables, picture(size))
  assert logits.shape == (2, *size, CLASSES)
  assert np.isfinite(logits).all()


def test_mirrored_kernels_mirror_the_logits_of_an_odd_size(short):
  model = networks.small()
  variables = variables_lib.initial_variables(model, 0)
  mirrored = jax.tree_util.tree_map_with_path(
    lambda path, x: x[:, ::-1] if "kernel" in path[-1].key else x, variables
  )
  # Every stride finds an odd size: 65, 33, 17, 9, 5.
  images = picture((33, 65), batch=1)
  logits = np.asarray(evaluated(model, variables, images))
  flipped = np.asarray(evaluated(model, mirrored, images[:, :, ::-1]))
  scale = np.abs(logits).max()
  np.testing.assert_allclose(flipped[:, :, ::-1], logits, atol=1e-4 * scale)
  assert np.abs(flipped - logits).max() > 1e-3 * scale


def with_auxiliary(**settings) -> list[Any]:
  return [
    build.from_config(
      networks.config(channels=8, decoder__channels=8, **settings),
      num_classes=CLASSES,
      auxiliary=auxiliary,
    )
    for auxiliary in (False, True)
  ]


@pytest.mark.parametrize(
  ("backbone", "channels"),
  [("resnet_v1_50_beta", 16), ("xception_41", 8), ("mobilenet_v2", 96)],
)
def test_the_auxiliary_head_sits_on_the_stage_before_the_last(
  backbone, channels, short
):
  check_auxiliary(backbone, channels)


@pytest.mark.slow  # 6 s: the above without the cut
@pytest.mark.parametrize(
  ("backbone", "channels"), [("resnet_v1_50_beta", 1024), ("xception_41", 728)]
)
def test_the_auxiliary_head_is_a_quarter_as_wide_as_what_it_reads(
  backbone, channels
):
  check_auxiliary(backbone, channels)


def check_auxiliary(backbone, channels):
  plain, extended = with_auxiliary(backbone=backbone)
  paths = [set(variables_lib.shapes(model)) for model in (plain, extended)]
  assert {path[1] for path in paths[1] - paths[0]} == {"auxiliary"}
  assert paths[0] < paths[1]
  variables = cost.trace(extended, networks.SIZE)[0]
  kernel = variables["params"]["auxiliary"]["conv"]["kernel"]
  assert kernel.shape == (3, 3, channels, channels // 4)
  # At output stride 16 it has the stride of the stage it follows.
  logits, auxiliary = jax.eval_shape(
    lambda v, x: extended.apply(
      v, x, train=False, method="coarse_and_auxiliary"
    ),
    variables,
    jax.ShapeDtypeStruct((1, 65, 65, 3), "uint8"),
  )
  assert logits.shape == (1, 17, 17, 3) and auxiliary.shape == (1, 5, 5, 3)


def test_the_auxiliary_head_changes_no_prediction():
  plain, extended = (
    model.clone(backbone=networks.Tiny())
    for model in with_auxiliary(backbone="mobilenet_v2")
  )
  variables = variables_lib.initial_variables(extended, 0)
  image = np.full((1, 33, 33, 3), 7, np.uint8)
  np.testing.assert_array_equal(
    *(
      jax.jit(lambda v, x, m=model: m.apply(v, x, train=False))(
        variables, image
      )
      for model in (plain, extended)
    )
  )
  assert cost.field_of_view(plain) == cost.field_of_view(extended)
