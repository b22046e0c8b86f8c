"""The parts of which the kernels are made, interpreted."""

import jax
from jax.experimental import pallas as pl
import jax.numpy as jnp
import numpy as np

from deeplax.ops import backend
from deeplax.ops import kernel_parts


def run(body, grid, outs, *arrays):
  shapes = [jax.ShapeDtypeStruct(out, jnp.float32) for out in outs]
  with backend.target("gpu", interpreted=True):
    arrays = [jnp.asarray(array) for array in arrays]
    return kernel_parts.call(body, grid, shapes, "test", 4, arrays)


def test_a_strip_reads_zeros_off_the_map_and_stores_nothing_there():
  # Columns -1 to 2 of a row of 3, channels 0 to 3 of which it has 2.
  row = np.arange(1, 7, dtype=np.float32)

  def body(row_ref, out_ref):
    block = kernel_parts.Block.number(0, 4, 2)
    offsets, mask = block.strip(jnp.arange(4) - 1, 3)
    kernel_parts.store(
      out_ref,
      jnp.arange(16).reshape(4, 4),
      mask,
      10 * kernel_parts.load(row_ref, offsets, mask),
    )
    kernel_parts.store(
      out_ref,
      16 + jnp.arange(16).reshape(4, 4),
      ~mask,
      kernel_parts.load(row_ref, offsets, mask) + 1,
    )

  (out,) = run(body, (1,), [(32,)], row)
  stored, off = np.asarray(out[:16]).reshape(4, 4), np.asarray(out[16:])
  np.testing.assert_array_equal(stored[1:, :2], 10 * row.reshape(3, 2))
  # What the mask left out was read as 0.
  off = off.reshape(4, 4)
  assert (off[0] == 1).all() and (off[:, 2:] == 1).all()


def test_each_program_finds_its_image_walk_and_strip():
  # 2 images, 3 walks, 4 strips.
  def body(out_ref):
    part = pl.program_id(0)
    rest, strip = kernel_parts.split(part, 4)
    image, walk = kernel_parts.split(rest, 3)
    code = 100.0 * image + 10 * walk + strip + jnp.zeros(1)
    kernel_parts.store(out_ref, part + jnp.arange(1), jnp.full(1, True), code)

  (out,) = run(body, (24,), [(24,)])
  images, walks, strips = np.indices((2, 3, 4))
  want = (100 * images + 10 * walks + strips).ravel()
  np.testing.assert_array_equal(out, want)


def test_a_read_scales_and_bounds_the_map_but_not_what_lies_off_it():
  x = np.array([-4, 1, 2, 9], np.float32)
  factor, bias = jnp.full(1, 2.0), jnp.full(1, 3.0)

  def result(read, *vectors):
    def body(x_ref, *refs):
      *affine, out_ref = refs
      block = kernel_parts.Block.number(0, 1, 1)
      mask = (jnp.arange(4) < 3)[:, None]
      offsets = jnp.arange(4)[:, None]
      value = kernel_parts.load(x_ref, offsets, mask)
      value = read.clamp(affine, block)(value, mask)
      kernel_parts.store(out_ref, offsets, jnp.full((4, 1), True), value)

    return list(np.asarray(run(body, (1,), [(4,)], x, *vectors)[0]))

  vectors = (factor, bias)
  assert result(kernel_parts.Read()) == [-4, 1, 2, 0]
  assert result(kernel_parts.Read(6.0)) == [0, 1, 2, 0]
  # Off the map lies a zero, and not the bias.
  assert result(kernel_parts.Read(None, vectors), *vectors) == [-5, 5, 7, 0]
  assert result(kernel_parts.Read(6.0, vectors), *vectors) == [0, 5, 6, 0]
