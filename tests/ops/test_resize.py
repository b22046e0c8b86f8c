import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplax.ops import backend
from deeplax.ops import resize
from tests import shared
from tests.ops import truth

SIZES = [
  ((7, 9), (13, 17)),  # a whole ratio
  ((7, 9), (33, 20)),
  ((7, 9), (4, 5)),  # smaller, a whole ratio
  ((13, 16), (6, 9)),  # smaller
  ((5, 8), (5, 3)),  # one side kept
  ((1, 1), (5, 7)),  # the image pooling's
  ((1, 6), (4, 1)),
  ((5, 7), (1, 1)),
  ((2, 3), (80, 131)),  # each pixel spreads over more than MAX_GATHERS
  ((33, 3), (17, 129)),
]


FORMS = ("gathers", "products")
ALIGNMENTS = {True: truth.align_corners, False: truth.half_pixel}


def with_gradient(x, dy, size, align_corners):
  y, vjp = jax.vjp(
    lambda x: resize.resize_bilinear(x, size, align_corners=align_corners), x
  )
  return y, *vjp(dy)


def problems():
  rng = np.random.default_rng(0)
  for old, new in SIZES:
    x, dy = (rng.normal(size=(2, *size, 3)) for size in (old, new))
    yield x.astype(np.float32), dy.astype(np.float32), new


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("align_corners", ALIGNMENTS)
def test_bilinear_and_its_gradient_equal_linear_interpolation(
  align_corners, form
):
  sizes = [new for _, new in SIZES]
  arrays = [(x, dy) for x, dy, _ in problems()]
  run = jax.jit(
    lambda arrays: [
      with_gradient(x, dy, size, align_corners)
      for (x, dy), size in zip(arrays, sizes, strict=True)
    ]
  )
  with backend.chosen(resize=form):
    results = run(arrays)
  for (y, dx), (x, dy) in zip(results, arrays, strict=True):
    rows, columns = (
      ALIGNMENTS[align_corners](x.shape[axis], dy.shape[axis])
      for axis in (1, 2)
    )
    want = np.einsum("Hh,bhwc,Ww->bHWc", rows, x, columns)
    want_dx = np.einsum("Hh,bHWc,Ww->bhwc", rows, dy, columns)
    message = f"{x.shape} to {y.shape}"
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=2e-6, err_msg=message)
    np.testing.assert_allclose(
      dx, want_dx, rtol=1e-5, atol=2e-5, err_msg=message
    )


@pytest.mark.parametrize("align_corners", ALIGNMENTS)
def test_gradient_equals_that_of_the_plain_form(align_corners):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, 6, 9, 3)).astype(np.float32)

  def gradient(form):
    def total(x):
      return jnp.sum(jnp.sin(form(x, (21, 25), align_corners=align_corners)))

    return jax.jit(jax.grad(total))(x)

  np.testing.assert_allclose(
    gradient(resize.resize_bilinear),
    gradient(resize.resize_bilinear_plain),
    rtol=1e-5,
    atol=1e-5,
  )


@pytest.mark.parametrize("align_corners", ALIGNMENTS)
def test_the_gradient_holds_no_scatter(align_corners):
  x, dy = np.zeros((1, 9, 9, 2), np.float32), np.zeros((1, 40, 33, 2))
  jaxpr = jax.make_jaxpr(
    lambda x, dy: with_gradient(x, dy, (40, 33), align_corners)
  )(x, dy.astype(np.float32))
  assert "scatter" not in str(jaxpr)


@pytest.mark.parametrize("form", FORMS)
def test_bilinear_keeps_half_precision_and_rounds_once(form):
  x = np.random.default_rng(0).normal(size=(1, 7, 9, 3))
  x = jnp.asarray(x, jnp.bfloat16)
  with backend.chosen(resize=form):
    y = jax.jit(lambda x: resize.resize_bilinear(x, (20, 20)))(x)
  assert y.dtype == jnp.bfloat16
  want = resize.resize_bilinear(x.astype(jnp.float32), (20, 20))
  # One rounding to 8 bits: 2^-9 of the value.
  np.testing.assert_allclose(y.astype(jnp.float32), want, rtol=2**-8, atol=1e-6)


def test_forms_differ_in_what_they_compute_with():
  x = np.zeros((1, 5, 5, 2), np.float32)
  resized = lambda x: resize.resize_bilinear(x, (9, 9))  # noqa: E731
  for form, products in zip(FORMS, (0, 2), strict=True):
    with backend.chosen(resize=form):
      jaxpr = str(jax.make_jaxpr(resized)(x))
    assert jaxpr.count("dot_general") == products
    assert ("gather" in jaxpr) == (products == 0)


def test_a_tpu_multiplies_in_more_than_one_pass():
  # A product of float32 in one pass has 8 bits there; the loss needs more.
  with backend.target("tpu"):
    jaxpr = jax.make_jaxpr(lambda x: resize.resize_bilinear(x, (9, 9)))(
      np.zeros((1, 5, 5, 2), np.float32)
    )
  products = [e for e in jaxpr.eqns if e.primitive.name == "dot_general"]
  assert len(products) == 2
  for product in products:
    assert product.params["precision"] == (jax.lax.Precision.HIGH,) * 2


def test_nearest_rounds_halves_up():
  labels = np.arange(4).reshape(1, 4, 1)
  y = resize.resize_nearest(labels, (7, 1))
  np.testing.assert_array_equal(y[0, :, 0], [0, 1, 1, 2, 2, 3, 3])


def test_nearest_of_one_pixel_and_to_one_pixel():
  labels = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
  one = resize.resize_nearest(labels, (1, 1))
  assert one.tolist() == [[[0]]] and one.dtype == np.uint8
  np.testing.assert_array_equal(
    resize.resize_nearest(labels[:, 1:, 2:], (3, 2)), np.full((1, 3, 2), 5)
  )


@pytest.mark.parametrize(
  "size, scale, want",
  [(513, 1 / 4, 129), (513, 1 / 16, 33), (513, 0.5, 257), (514, 0.25, 129)],
)
def test_scaled_sides_keep_their_corners(size, scale, want):
  assert resize.scale_dimension(size, scale) == want


@pytest.mark.parametrize("shape", [(13, 17), (4, 5), (33, 20), (1, 1), (6, 9)])
def test_resizes_equal_those_of_tensorflow(shape):
  golden = np.load(shared.path("golden/tf_deeplab/ops.npz"))
  size = "{}x{}".format(*shape)
  y = resize.resize_bilinear(golden["resize/x"], shape)
  np.testing.assert_allclose(y, golden[f"resize/bilinear_ac_{size}"], atol=1e-6)
  y = resize.resize_nearest(golden["resize/label"][..., 0], shape)
  np.testing.assert_array_equal(y, golden[f"resize/nearest_ac_{size}"][..., 0])
