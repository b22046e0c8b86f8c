import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np

from deeplax.ops import norm

EPS = 1e-3


def problem(shape=(3, 5, 4, 6), mean=3.0):
  rng = np.random.default_rng(0)
  x, dy = rng.normal(size=shape) + mean, rng.normal(size=shape)
  scale, offset = rng.normal(size=(2, shape[-1]))
  return [np.asarray(a, np.float32) for a in (x, dy, scale, offset)]


def with_gradients(form, x, dy, scale, offset):
  """Values and gradients of a loss that also depends on the statistics."""

  def loss(x, scale, offset):
    y, mean, var, _ = form(x, scale, offset, eps=EPS)
    y = y.astype(jnp.float32)
    return jnp.sum(y * dy) + jnp.sum(jnp.sin(mean)) + jnp.sum(var**2), y

  gradients, y = jax.grad(loss, (0, 1, 2), has_aux=True)(x, scale, offset)
  return y, *gradients


def test_moments_equal_numpy_and_count_every_position():
  x, *_ = problem()
  mean, var, count = norm.moments(x)
  wide = x.astype(np.float64).reshape(-1, x.shape[-1])
  np.testing.assert_allclose(mean, wide.mean(0), rtol=1e-6)
  np.testing.assert_allclose(var, wide.var(0), rtol=1e-5)
  assert count == 3 * 5 * 4


def test_batch_norm_and_its_gradients_equal_those_of_the_plain_form():
  arrays = problem()
  got, want = (
    jax.jit(lambda *a, f=form: with_gradients(f, *a))(*arrays)
    for form in (norm.batch_norm, norm.batch_norm_plain)
  )
  for g, w in zip(got, want, strict=True):
    np.testing.assert_allclose(g, w, rtol=1e-5, atol=1e-5)


def test_variance_keeps_its_digits_when_the_mean_is_large():
  # In one pass, E[x^2] - E[x]^2, float32 leaves nothing of a variance of 1
  # beside a squared mean of 10^8.
  x, _, scale, offset = problem(mean=1e4)
  y, _, var, _ = norm.batch_norm(x, scale, offset, eps=EPS)
  want = x.astype(np.float64).reshape(-1, x.shape[-1]).var(0)
  np.testing.assert_allclose(var, want, rtol=1e-3)
  assert np.isfinite(y).all()


def test_a_constant_channel_has_no_variance_and_a_finite_gradient():
  x, dy, scale, offset = problem()
  x = np.full_like(x, 0.1)
  y, dx, dscale, _ = with_gradients(norm.batch_norm, x, dy, scale, offset)
  wanted = np.broadcast_to(offset.reshape(1, 1, 1, -1), y.shape)
  np.testing.assert_allclose(y, wanted, atol=1e-5)
  assert np.isfinite(dx).all() and np.isfinite(dscale).all()


def test_half_precision_keeps_float32_statistics():
  arrays = problem()
  x = jnp.asarray(arrays[0], jnp.bfloat16)
  y, mean, var, _ = norm.batch_norm(x, *arrays[2:], eps=EPS)
  assert (y.dtype, mean.dtype, var.dtype) == (
    jnp.bfloat16,
    jnp.float32,
    jnp.float32,
  )
  want_mean, want_var, _ = norm.moments(x.astype(jnp.float32))
  np.testing.assert_array_equal(mean, want_mean)
  np.testing.assert_array_equal(var, want_var)


DEVICES = """
from functools import partial
import sys

import jax
from jax.sharding import AxisType, PartitionSpec as P
import numpy as np

from deeplax.ops import norm

rng = np.random.default_rng(0)
x, dy = (rng.normal(size=(4, 2, 3, 2, 5)).astype("f4") + m for m in (3, 0))
scale, offset = rng.normal(size=(2, 5)).astype("f4")
mesh = jax.make_mesh((4,), ("batch",), axis_types=(AxisType.Auto,))


def step(x, dy, scale, offset, *, form, axis_name=None, groups=None):
  def loss(x, scale, offset):
    y, mean, var, count = form(
      x, scale, offset, eps=1e-3, axis_name=axis_name,
      axis_index_groups=groups,
    )
    assert type(count) is int
    return (y * dy).sum(), (y, mean, var, np.float32(count))

  return jax.grad(loss, (0, 1, 2), has_aux=True)(x, scale, offset)


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


for groups in (None, ((0, 1), (2, 3))):
  for mapped in (pmapped, sharded):
    run = partial(
      step, form=norm.batch_norm, axis_name="batch", groups=groups
    )
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
"""


def test_mapped_devices_normalize_their_groups_as_one_batch():
  # An own process, because the number of devices is fixed at JAX's start.
  env = dict(os.environ, XLA_FLAGS="--xla_force_host_platform_device_count=4")
  done = subprocess.run(
    [sys.executable, "-c", DEVICES], env=env, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr[-3000:]
