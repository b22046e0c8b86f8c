"""The dense CRF of DeepLab v1 and v2 on one image."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, UInt8
import numpy as np

from deeplax.crf import lattice as lattice_lib
from deeplax.crf import mean_field as mean_field_lib

Arrays = Array | np.ndarray
Lattice = lattice_lib.Lattice

# A probability of 0 would be an infinite energy that no neighbour can outweigh;
# pydensecrf's unary_from_softmax has the same floor.
FLOOR = 1e-5
# Of the smoothness kernel, which depends on the size alone. 20 MB for 375x500.
CACHED_SIZES = 8


def dense_crf(
  image: UInt8[np.ndarray, "h w 3"],
  probabilities: Float[Arrays, "h w k"],
  *,
  w1: Any = 4,
  sigma_alpha: float = 67,
  sigma_beta: float = 3,
  w2: Any = 3,
  sigma_gamma: float = 1,
  iterations: int = 10,
  compatibility: Float[Arrays, "k k"] | None = None,
  mask: Bool[np.ndarray, "h w"] | None = None,
) -> Float[Array, "h w k"]:
  """Return class probabilities that follow the edges of the image.

  DeepLab v1 (1412.7062, eq. 3): w1 weighs an appearance kernel of position and
  colour, w2 a smoothness kernel of position. The defaults are those of a v2
  ResNet-101 (kazuto1011/deeplab-pytorch, configs/voc12.yaml).

  Differentiable with respect to the probabilities, w1, w2 and compatibility.

  Args:
    image: RGB.
    probabilities: Of a network. Below 1e-5 they count as 1e-5.
    w1: Of the appearance kernel.
    sigma_alpha: Its standard deviation in pixels ...
    sigma_beta: ... and in colour, of 0..255.
    w2: Of the smoothness kernel.
    sigma_gamma: Its standard deviation in pixels.
    iterations: Of mean field; the papers' 10.
    compatibility: See `mean_field`.
    mask: Where False, a pixel is padding: it keeps its probabilities, and the
      others are as if it were not there.
  """
  height, width, classes = probabilities.shape
  if image.shape[:2] != (height, width):
    raise ValueError(
      f"image is {image.shape[0]}x{image.shape[1]} and probabilities are "
      f"{height}x{width}: both must be the same size"
    )
  lattices = kernels(
    image,
    sigma_alpha=sigma_alpha,
    sigma_beta=sigma_beta,
    sigma_gamma=sigma_gamma,
    mask=mask,
  )
  marginals = mean_field_lib.mean_field(
    log_probabilities(probabilities, lattices[0].corners.shape[1]),
    lattices,
    (w1, w2),
    iterations=iterations,
    compatibility=compatibility,
  )
  return marginals[: height * width].reshape(height, width, classes)


def kernels(
  image: UInt8[np.ndarray, "h w 3"],
  *,
  sigma_alpha: float,
  sigma_beta: float,
  sigma_gamma: float,
  mask: Bool[np.ndarray, "h w"] | None = None,
) -> tuple[Lattice, Lattice]:
  """Return the lattices of the appearance and the smoothness kernel.

  They serve any number of calls of `mean_field`, with any weights.
  """
  return (
    appearance(
      image, sigma_alpha=sigma_alpha, sigma_beta=sigma_beta, mask=mask
    ),
    smoothness(image.shape[:2], sigma_gamma=sigma_gamma, mask=mask),
  )


def appearance(image, *, sigma_alpha, sigma_beta, mask=None):
  """Return the lattice of the appearance kernel."""
  _check("sigma_alpha", sigma_alpha)
  _check("sigma_beta", sigma_beta)
  colours = image.reshape(-1, 3).T.astype(np.float32) / np.float32(sigma_beta)
  features = np.concatenate([_positions(image.shape[:2], sigma_alpha), colours])
  return _on_device(lattice_lib.build(features, mask=_flat(mask)))


def smoothness(size, *, sigma_gamma, mask=None):
  """Return the lattice of the smoothness kernel; kept for the next image."""
  _check("sigma_gamma", sigma_gamma)
  if mask is None:
    return _smoothness(*size, float(sigma_gamma))
  features = _positions(size, sigma_gamma)
  return _on_device(lattice_lib.build(features, mask=_flat(mask)))


@functools.lru_cache(maxsize=CACHED_SIZES)
def _smoothness(height: int, width: int, sigma: float) -> Lattice:
  return _on_device(lattice_lib.build(_positions((height, width), sigma)))


def _positions(size, sigma):
  y, x = np.indices(size, np.float32).reshape(2, -1)
  return np.stack([x, y]) / np.float32(sigma)


def _flat(mask):
  return None if mask is None else mask.ravel()


def _on_device(lattice: Lattice) -> Lattice:
  return jax.tree.map(jnp.asarray, lattice)


def _check(name: str, sigma: float) -> None:
  if not 0 < sigma < float("inf"):
    raise ValueError(f"{name} {sigma} must be a positive number")


def log_probabilities(
  probabilities: Float[Arrays, "h w k"], rows: int
) -> Float[Array, "n k"]:
  """Return what `mean_field` starts from, padded to a lattice's pixels."""
  return _log(jnp.asarray(probabilities, jnp.float32), rows)


@functools.partial(jax.jit, static_argnums=1)
def _log(probabilities, rows):
  flat = probabilities.reshape(-1, probabilities.shape[-1])
  flat = jnp.log(jnp.clip(flat, FLOOR, 1))
  return jnp.pad(flat, ((0, rows - flat.shape[0]), (0, 0)))
