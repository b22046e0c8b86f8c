import contextlib
from functools import partial
import math
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType, PartitionSpec
import numpy as np
import pytest

from deeplax.ops import backend
from deeplax.ops import norm
from tests.ops import kernels

EPS = 1e-3
FORMS = ("two_passes", "one_pass", "kernels")


@contextlib.contextmanager
def form(name):
  """Statistics of this form; kernels step by step."""
  context = kernels.interpreted if name == "kernels" else contextlib.nullcontext
  with context(), backend.chosen(statistics=name):
    yield


def problem(shape=(3, 5, 4, 6), mean=3.0):
  rng = np.random.default_rng(0)
  x, dy = rng.normal(size=shape) + mean, rng.normal(size=shape)
  scale, offset = rng.normal(size=(2, shape[-1]))
  return [np.asarray(a, np.float32) for a in (x, dy, scale, offset)]


def batch_norm(x, scale, offset, **keywords):
  of = norm.normed(x, scale, offset, **keywords)
  return norm.applied(of), of.mean, of.var


def with_gradients(form, x, dy, scale, offset, **settings):
  def loss(x, scale, offset):
    y, _, _ = form(x, scale, offset, eps=EPS, **settings)
    return jnp.sum(y * dy), y

  gradients, y = jax.grad(loss, (0, 1, 2), has_aux=True)(x, scale, offset)
  return y, *gradients


def in_float64(x, dy, scale, offset, *, limit=None):
  """The same of the plain form, bounded by `limit`."""

  def bounded(*args, **settings):
    y, *rest = norm.batch_norm_plain(*args, **settings)
    return y if limit is None else jnp.clip(y, 0, limit), *rest

  with jax.enable_x64(True):
    arrays = [jnp.asarray(a, jnp.float64) for a in (x, dy, scale, offset)]
    values = with_gradients(bounded, *arrays)
    return [np.asarray(value) for value in values]


def close(got, want, tolerance):
  """Compare to the largest value of each array."""
  names = ("y", "x", "scale", "offset")
  for name, g, w in zip(names, got, want, strict=True):
    atol = tolerance * np.abs(w).max()
    np.testing.assert_allclose(g, w, rtol=0, atol=atol, err_msg=name)


def far_from_zero():
  """A problem of mean 100 and deviation 0.01, and a shift near the mean."""
  x, dy, scale, offset = problem(mean=0)
  x = (100 + 0.01 * x).astype(np.float32)
  return [x, dy, scale, offset], np.full(x.shape[-1], 100.01, np.float32)


def test_moments_equal_numpy():
  x, *_ = problem()
  mean, var = norm.moments(x)
  wide = x.astype(np.float64).reshape(-1, x.shape[-1])
  np.testing.assert_allclose(mean, wide.mean(0), rtol=1e-6)
  np.testing.assert_allclose(var, wide.var(0), rtol=1e-5)


@pytest.mark.parametrize("limit", [None, 1.0, math.inf])
@pytest.mark.parametrize("name", FORMS)
def test_batch_norm_and_its_gradients_equal_those_in_float64(name, limit):
  x, dy, scale, offset = problem()
  with form(name):
    settings = {"limit": limit, "shift": offset}
    got = with_gradients(batch_norm, x, dy, scale, offset, **settings)
  close(got, in_float64(x, dy, scale, offset, limit=limit), 1e-5)


@pytest.mark.parametrize("name", FORMS)
def test_variance_keeps_its_digits_when_the_mean_is_large(name):
  (x, *_), shift = far_from_zero()
  want = x.astype(np.float64).reshape(-1, x.shape[-1])
  with form(name):
    mean, var = norm.moments(x, shift=shift)
  np.testing.assert_allclose(mean, want.mean(0), rtol=1e-6)
  np.testing.assert_allclose(var, want.var(0), rtol=1e-4)


@pytest.mark.parametrize("name", ["one_pass", "kernels"])
def test_one_pass_loses_the_digits_of_the_variance_without_a_shift(name):
  (x, *_), _ = far_from_zero()
  want = x.astype(np.float64).reshape(-1, x.shape[-1]).var(0)
  with form(name):
    _, var = norm.moments(x)
  assert (np.abs(var - want) > want / 2).any()
  assert (np.asarray(var) >= 0).all()


@pytest.mark.parametrize("name", FORMS)
def test_gradients_keep_their_digits_when_the_mean_is_large(name):
  arrays, shift = far_from_zero()
  with form(name):
    got = with_gradients(batch_norm, *arrays, shift=shift)
  # The last bit of a mean of 100 is 8e-6, some 2e-4 of a normalized value. A
  # sum of values around 100 has lost it, one around the shift has it.
  close(got, in_float64(*arrays), 2e-3 if name == "two_passes" else 2e-4)


@pytest.mark.parametrize("name", FORMS)
def test_known_sums_are_taken_in_every_form(name):
  x, *_, shift = problem()
  moved = x - shift
  axes = (0, 1, 2)
  sums = jnp.stack([moved.sum(axes), (moved**2).sum(axes)])
  want_mean, want_var = norm.moments(x)
  with form(name):
    mean, var = norm.moments(x, shift=shift, sums=sums)
    doubled, _ = norm.moments(x, shift=shift, sums=2 * sums)
  np.testing.assert_allclose(mean, want_mean, rtol=1e-5)
  np.testing.assert_allclose(var, want_var, rtol=1e-5)
  np.testing.assert_allclose(doubled - shift, 2 * (mean - shift), rtol=1e-4)


def test_a_constant_channel_has_no_variance_and_a_finite_gradient():
  x, dy, scale, offset = problem()
  x = np.full_like(x, 0.1)
  y, dx, dscale, _ = with_gradients(batch_norm, x, dy, scale, offset)
  wanted = np.broadcast_to(offset.reshape(1, 1, 1, -1), y.shape)
  np.testing.assert_allclose(y, wanted, atol=1e-5)
  assert np.isfinite(dx).all() and np.isfinite(dscale).all()


def test_half_precision_keeps_float32_statistics():
  arrays = problem()
  x = jnp.asarray(arrays[0], jnp.bfloat16)
  y, mean, var = batch_norm(x, *arrays[2:], eps=EPS)
  assert (y.dtype, mean.dtype, var.dtype) == (
    jnp.bfloat16,
    jnp.float32,
    jnp.float32,
  )
  want_mean, want_var = norm.moments(x.astype(jnp.float32))
  np.testing.assert_array_equal(mean, want_mean)
  np.testing.assert_array_equal(var, want_var)


DEVICES = """
from functools import partial
import sys

import jax
from jax.sharding import AxisType, PartitionSpec as P
import numpy as np

from deeplax.ops import backend
from deeplax.ops import norm

rng = np.random.default_rng(0)
x, dy = (rng.normal(size=(4, 2, 3, 2, 5)).astype("f4") + m for m in (3, 0))
scale, offset = rng.normal(size=(2, 5)).astype("f4")
mesh = jax.make_mesh((4,), ("batch",), axis_types=(AxisType.Auto,))


def step(x, dy, scale, offset, *, form, axis_name=None, groups=None):
  def loss(x, scale, offset):
    over = axis_name and norm.Over(axis_name, groups)
    y, mean, var = form(x, scale, offset, eps=1e-3, over=over)
    return (y * dy).sum(), (y, mean, var)

  return jax.grad(loss, (0, 1, 2), has_aux=True)(x, scale, offset)


def batch_norm(x, scale, offset, **keywords):
  of = norm.normed(x, scale, offset, **keywords)
  return norm.applied(of), of.mean, of.var


def one_device(group):
  \"\"\"The devices of a group as one batch.\"\"\"
  n = len(group)
  (dx, *rest), (y, *stats) = jax.jit(partial(step, form=norm.batch_norm_plain))(
    x[group].reshape(-1, *x.shape[2:]), dy[group].reshape(-1, *x.shape[2:]),
    scale, offset,
  )
  split = lambda a: a.reshape(n, -1, *a.shape[1:])
  return (split(dx), *rest), (split(y), *stats)


def pmapped(step):
  return jax.pmap(step, axis_name="batch", in_axes=(0, 0, None, None))


def sharded(step):
  def per_device(x, dy, scale, offset):
    out = step(x[0], dy[0], scale, offset)
    return jax.tree.map(lambda a: jax.numpy.asarray(a)[None], out)

  specs = (P("batch"), P("batch"), P(), P())
  return jax.jit(jax.shard_map(
    per_device, mesh=mesh, in_specs=specs, out_specs=P("batch"),
    check_vma=False,
  ))


def check(mapped, groups):
  run = partial(step, form=batch_norm, axis_name="batch", groups=groups)
  gradients, values = mapped(run)(x, dy, scale, offset)
  for group in groups or ((0, 1, 2, 3),):
    group = list(group)
    (dx, *summed), (y, *stats) = one_device(group)
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    close(gradients[0][np.array(group)], dx)
    close(values[0][np.array(group)], y)
    for got, want in zip(gradients[1:], summed, strict=True):
      close(np.asarray(got)[group].sum(0), want)
    for got, want in zip(values[1:], stats, strict=True):
      for device in group:
        close(np.asarray(got)[device], want)


for form in ("two_passes", "one_pass"):
  with backend.chosen(statistics=form):
    for groups in (None, ((0, 1), (2, 3))):
      for mapped in (pmapped, sharded):
        check(mapped, groups)
with backend.target("gpu", interpreted=True):
  check(sharded, ((0, 1), (2, 3)))
"""


def all_reduces(name, run, *shapes):
  """Count what waits for all of four devices, which need not be there."""
  mesh = AbstractMesh((4,), ("batch",), axis_types=(AxisType.Auto,))
  mapped = jax.shard_map(
    run,
    mesh=mesh,
    in_specs=PartitionSpec(),
    out_specs=PartitionSpec(),
    check_vma=False,
  )
  with form(name):
    text = str(jax.make_jaxpr(mapped)(*(jnp.zeros(shape) for shape in shapes)))
  return text.count("= psum")


@pytest.mark.parametrize(
  ("name", "expected"), [("two_passes", 2), ("one_pass", 1), ("kernels", 1)]
)
def test_one_pass_waits_once_for_the_devices_each_way(name, expected):
  settings = {"eps": EPS, "over": norm.Over("batch")}

  def forward(x, scale, shift):
    return batch_norm(x, scale, shift, shift=shift, **settings)

  def both(x, scale, shift):
    y, vjp = jax.vjp(partial(forward, shift=shift), x, scale)
    return vjp(y)

  shapes = (2, 3, 3, 4), (4,), (4,)
  assert all_reduces(name, forward, *shapes) == expected
  assert all_reduces(name, both, *shapes) == expected + 1


def test_mapped_devices_normalize_their_groups_as_one_batch():
  # An own process, because the number of devices is fixed at JAX's start.
  env = dict(os.environ, XLA_FLAGS="--xla_force_host_platform_device_count=4")
  done = subprocess.run(
    [sys.executable, "-c", DEVICES], env=env, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr[-3000:]
