"""The dense CRF of DeepLab v1 and v2, for an image or a batch."""

from collections.abc import Callable
import functools
from typing import Any

import jax
from jax import core
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, UInt8
import numpy as np

from deeplax.arrays import Arrays
from deeplax.crf import lattice as lattice_lib
from deeplax.crf import negligible as negligible_lib
from deeplax.crf import program
from deeplax.crf import room

Lattice = lattice_lib.Lattice

# So many smoothness kernels are cached: they depend on the image's size alone.
# One for 375x500 takes 20 MB.
CACHED_SIZES = 8


def dense_crf(
  image: UInt8[np.ndarray, "*b h w 3"],
  probabilities: Float[Arrays, "*size k"],
  *,
  w1: Any = 4,
  sigma_alpha: float | int = 67,
  sigma_beta: float | int = 3,
  w2: Any = 3,
  sigma_gamma: float | int = 1,
  iterations: int = 10,
  compatibility: Float[Arrays, "k k"] | None = None,
  mask: Bool[np.ndarray, "*b h w"] | None = None,
  negligible: float | int = 0.0,
  compiled: Callable[[float], None] | None = None,
) -> Float[Array, "*size k"]:
  """Return class probabilities that follow the edges of an image.

  DeepLab v1 (1412.7062, eq. 3): w1 weighs an appearance kernel of position and
  color, w2 a smoothness kernel of position. The defaults are those of a v2
  ResNet-101 (kazuto1011/deeplab-pytorch, configs/voc12.yaml).

  Differentiable with respect to the probabilities, w1, w2 and compatibility.
  The image's lattice is built on the host, so that the image cannot be traced:
  a jitted training step takes `appearance` and `smoothness` as arguments and
  calls `mean_field`. The first image compiles a program that serves others of
  many sizes; see `room`.

  Marginals are pydensecrf's to float32 if the number of pixels is a multiple of
  four. Otherwise pydensecrf adds pixels, whose vertices change a few marginals
  by up to 0.02; no label changed in the images compared.

  Args:
    image: RGB, one or a batch of equal size.
    probabilities: The network's. Below 1e-5 they count as 1e-5.
    w1: Weight of the appearance kernel.
    sigma_alpha: Its standard deviation in pixels ...
    sigma_beta: ... and in color, of 0..255.
    w2: Weight of the smoothness kernel.
    sigma_gamma: Its standard deviation in pixels.
    iterations: Updates of mean field; the papers' 10.
    compatibility: See `mean_field.mean_field`.
    mask: Where False, a pixel is padding: it keeps its probabilities and does
      not change those of other pixels.
    negligible: Classes whose marginals stay below it in every pixel send no
      messages, which saves their time; see `negligible.split`. 0: all
      classes send messages.
    compiled: Receives the seconds that it took to compile a program, each time.

  Raises:
    ValueError: Sizes differ, a sigma is not positive or too small, or
      `negligible` is not below 1 or does not go with a learned compatibility.
  """
  size, classes = image.shape[:-1], probabilities.shape[-1]
  if probabilities.shape[:-1] != size:
    raise ValueError(
      f"image of size {size} and probabilities of size "
      f"{probabilities.shape[:-1]}: both must be the same"
    )
  sigmas = {"sigma_alpha": sigma_alpha, "sigma_beta": sigma_beta}
  if len(size) == 2 and mask is None:
    lattices = kernels(image, **sigmas, sigma_gamma=sigma_gamma)
  else:
    lattices = (
      appearance(image, **sigmas, mask=mask),
      smoothness(size[-2:], sigma_gamma=sigma_gamma, mask=mask),
    )
  traced = _traced(probabilities, w1, w2, compatibility)
  weights, order, active = [w1, w2], None, None
  if negligible:
    if compatibility is not None or not 0 < negligible < 1:
      raise ValueError(
        f"negligible {negligible} must be from 0 to 1, and 0 with a learned "
        "compatibility"
      )
    peaks = (jnp if traced else np).max(
      probabilities, axis=(*range(len(size)),)
    )
    split = negligible_lib.split(
      peaks.clip(program.FLOOR), lattices, weights, negligible=negligible
    )
    if split.rest.size:
      order, active = np.concatenate(split), len(split.active)
  padded = _padded(probabilities, lattices[0].corners.shape[-1])
  if not traced:
    weights = [np.asarray(weight, np.float32) for weight in weights]
    if compatibility is not None:
      compatibility = np.asarray(compatibility, np.float32)
  given = padded, lattices, weights, compatibility, order
  options = {"iterations": iterations, "active": active}
  pixels = size[-2] * size[-1]
  if not traced:
    given = jax.device_put(given)
  # Where anything is traced, so is what is put on a device.
  if traced or _traced(*jax.tree.leaves(given)):
    marginals: Any = program.marginals(*given, **options)
    return marginals[..., :pixels, :].reshape(*size, classes)
  marginals = np.asarray(program.run(*given, **options, compiled=compiled))
  return jax.device_put(marginals[..., :pixels, :].reshape(*size, classes))


def kernels(
  image: UInt8[np.ndarray, "h w 3"],
  *,
  sigma_alpha: float | int,
  sigma_beta: float | int,
  sigma_gamma: float | int,
) -> tuple[Lattice, Lattice]:
  """Return both kernels of an image, of lengths that serve other images too.

  See `appearance`, `smoothness` and `room`.
  """
  near = _appearance(image, None, sigma_alpha, sigma_beta, room.lengths)
  _check("sigma_gamma", sigma_gamma)
  pixels = near.corners.shape[1]
  height, width, _ = image.shape
  return near, _smoothness(height, width, float(sigma_gamma), pixels)


def appearance(
  image: UInt8[np.ndarray, "*b h w 3"],
  *,
  sigma_alpha: float | int,
  sigma_beta: float | int,
  mask: Bool[np.ndarray, "*b h w"] | None = None,
) -> Lattice:
  """Return the kernel of position and color, for `mean_field.mean_field`.

  It depends neither on the weights nor on the probabilities.
  """
  build = functools.partial(
    _appearance,
    alpha=sigma_alpha,
    beta=sigma_beta,
    lengths=lattice_lib.shortest,
  )
  if image.ndim == 3:
    return build(image, mask)
  masks = [None] * len(image) if mask is None else mask
  lattices = [build(*pair) for pair in zip(image, masks, strict=True)]
  return _on_device(lattice_lib.stack(lattices))


def _appearance(image, mask, alpha, beta, lengths) -> Lattice:
  _check("sigma_alpha", alpha)
  _check("sigma_beta", beta)
  colors = image.reshape(-1, 3).T.astype(np.float32)
  features = [_positions(image.shape[:2], alpha), colors / np.float32(beta)]
  lattice = lattice_lib.build(
    np.concatenate(features),
    mask=None if mask is None else mask.ravel(),
    lengths=lengths,
  )
  return _on_device(lattice)


def smoothness(
  size: tuple[int, ...],
  *,
  sigma_gamma: float | int,
  mask: Bool[np.ndarray, "*b h w"] | None = None,
) -> Lattice:
  """Return the kernel of position; without a mask it is cached.

  Args:
    size: (height, width).
    sigma_gamma: In pixels.
    mask: See `dense_crf`.
  """
  _check("sigma_gamma", sigma_gamma)
  if mask is None:
    height, width = size
    pixels = lattice_lib.bucket(height * width)
    return _smoothness(height, width, float(sigma_gamma), pixels)
  features = _positions(size, sigma_gamma)
  masks = mask.reshape(-1, features.shape[1])
  lattices = [lattice_lib.build(features, mask=m, raster=True) for m in masks]
  single = mask.ndim == 2
  return _on_device(lattices[0] if single else lattice_lib.stack(lattices))


@functools.lru_cache(maxsize=CACHED_SIZES)
def _smoothness(height: int, width: int, sigma: float, pixels: int) -> Lattice:
  lattice = lattice_lib.build(
    _positions((height, width), sigma),
    raster=True,
    lengths=functools.partial(room.of_positions, sigma=sigma, pixels=pixels),
  )
  return _on_device(lattice)


def _positions(
  size: tuple[int, ...], sigma: float | int
) -> Float32[np.ndarray, "2 n"]:
  y, x = np.indices(size, np.float32).reshape(2, -1)
  return np.stack([x, y]) / np.float32(sigma)


def _on_device(lattice: Lattice) -> Lattice:
  # Not by jnp.asarray, which compiles a program for each new shape; and never
  # traced, since it may be cached.
  with jax.ensure_compile_time_eval():
    return jax.device_put(lattice)


def _check(name: str, sigma: float | int) -> None:
  if not 0 < sigma < float("inf"):
    raise ValueError(f"{name} {sigma} must be a positive number")


def log_probabilities(
  probabilities: Float[Arrays, "*b h w k"], lattice: Lattice
) -> Float[Array, "*b n k"]:
  """Return log probabilities for `mean_field`, padded to a lattice's pixels."""
  return _log(_padded(probabilities, lattice.corners.shape[-1]))


_log = jax.jit(program.log)


def _traced(*values: Any) -> bool:
  return any(isinstance(x, core.Tracer) for x in values)


def _padded(
  probabilities: Float[Arrays, "*size k"], rows: int
) -> Float[Arrays, "*b n k"]:
  """Return probabilities padded to so many pixels, on the host if possible."""
  *batch, height, width, classes = probabilities.shape
  pixels = height * width
  shape = (*batch, pixels, classes)
  if _traced(probabilities):
    flat = jnp.reshape(jnp.asarray(probabilities, jnp.float32), shape)
    ends = [(0, 0)] * len(batch) + [(0, rows - pixels), (0, 0)]
    return jnp.pad(flat, ends)
  padded = np.zeros((*batch, rows, classes), np.float32)
  padded[..., :pixels, :] = np.reshape(probabilities, shape)
  return padded
