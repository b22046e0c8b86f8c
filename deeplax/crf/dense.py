"""The dense CRF of DeepLab v1 and v2, for an image or a batch."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, UInt8
import numpy as np

from deeplax.arrays import Arrays
from deeplax.crf import lattice as lattice_lib
from deeplax.crf import mean_field
from deeplax.crf import negligible as negligible_lib

Lattice = lattice_lib.Lattice

# A probability of 0 would be an infinite energy, which no neighbor outweighs.
# pydensecrf's unary_from_softmax has the same floor.
FLOOR = 1e-5
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
) -> Float[Array, "*size k"]:
  """Return class probabilities that follow the edges of an image.

  DeepLab v1 (1412.7062, eq. 3): w1 weighs an appearance kernel of position and
  color, w2 a smoothness kernel of position. The defaults are those of a v2
  ResNet-101 (kazuto1011/deeplab-pytorch, configs/voc12.yaml).

  Differentiable with respect to the probabilities, w1, w2 and compatibility.
  The image's lattice is built on the host, so that the image cannot be traced:
  a jitted training step takes `appearance` and `smoothness` as arguments and
  calls `mean_field`.

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
  lattices = (
    appearance(
      image, sigma_alpha=sigma_alpha, sigma_beta=sigma_beta, mask=mask
    ),
    smoothness(size[-2:], sigma_gamma=sigma_gamma, mask=mask),
  )
  unary, weights = log_probabilities(probabilities, lattices[0]), (w1, w2)
  if negligible:
    if compatibility is not None or not 0 < negligible < 1:
      raise ValueError(
        f"negligible {negligible} must be from 0 to 1, and 0 with a learned "
        "compatibility"
      )
    marginals = negligible_lib.mean_field(
      unary,
      lattices,
      weights,
      peaks=jnp.max(probabilities, axis=range(len(size))).clip(FLOOR),
      negligible=negligible,
      iterations=iterations,
    )
  else:
    marginals = mean_field.mean_field(
      unary,
      lattices,
      weights,
      iterations=iterations,
      compatibility=compatibility,
    )
  pixels = size[-2] * size[-1]
  return marginals[..., :pixels, :].reshape(*size, classes)


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
  _check("sigma_alpha", sigma_alpha)
  _check("sigma_beta", sigma_beta)
  positions = _positions(image.shape[-3:-1], sigma_alpha)

  def build(image, mask):
    colors = image.reshape(-1, 3).T.astype(np.float32)
    features = [positions, colors / np.float32(sigma_beta)]
    return lattice_lib.build(np.concatenate(features), mask=mask)

  if image.ndim == 3:
    return _on_device(build(image, None if mask is None else mask.ravel()))
  masks = [None] * len(image) if mask is None else mask.reshape(len(mask), -1)
  lattices = [build(*pair) for pair in zip(image, masks, strict=True)]
  return _on_device(lattice_lib.stack(lattices))


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
    return _smoothness(*size, float(sigma_gamma))
  features = _positions(size, sigma_gamma)
  masks = mask.reshape(-1, features.shape[1])
  lattices = [lattice_lib.build(features, mask=m, raster=True) for m in masks]
  single = mask.ndim == 2
  return _on_device(lattices[0] if single else lattice_lib.stack(lattices))


@functools.lru_cache(maxsize=CACHED_SIZES)
def _smoothness(height: int, width: int, sigma: float) -> Lattice:
  features = _positions((height, width), sigma)
  return _on_device(lattice_lib.build(features, raster=True))


def _positions(
  size: tuple[int, ...], sigma: float | int
) -> Float32[np.ndarray, "2 n"]:
  y, x = np.indices(size, np.float32).reshape(2, -1)
  return np.stack([x, y]) / np.float32(sigma)


def _on_device(lattice: Lattice) -> Lattice:
  return jax.tree.map(jnp.asarray, lattice)


def _check(name: str, sigma: float | int) -> None:
  if not 0 < sigma < float("inf"):
    raise ValueError(f"{name} {sigma} must be a positive number")


def log_probabilities(
  probabilities: Float[Arrays, "*b h w k"], lattice: Lattice
) -> Float[Array, "*b n k"]:
  """Return log probabilities for `mean_field`, padded to a lattice's pixels."""
  rows = lattice.corners.shape[-1]
  return _log(jnp.asarray(probabilities, jnp.float32), rows)


@functools.partial(jax.jit, static_argnums=1)
def _log(probabilities, rows):
  *batch, height, width, classes = probabilities.shape
  flat = jnp.reshape(probabilities, (*batch, height * width, classes))
  flat = jnp.log(jnp.clip(flat, FLOOR, 1))
  ends = [(0, 0)] * len(batch) + [(0, rows - height * width), (0, 0)]
  return jnp.pad(flat, ends)
