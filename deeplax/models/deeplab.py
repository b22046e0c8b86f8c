"""The whole network: normalization, backbone, head, decoder, logits."""

import contextlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Num
import numpy as np

from deeplax.models import layers
from deeplax.ops import resize


class DeepLab(nn.Module):
  """DeepLab v3 (no decoder) or v3+ (arXiv:1706.05587, arXiv:1802.02611).

  With `input_scales` it is v2's (arXiv:1606.00915, 4.1.2) over several scales:
  the same network sees the image at each, and a pixel's score is the largest.

  Attributes:
    backbone: Normalized images -> {"high", "low4", ...}.
    head: "high" -> features of the same size, or 1x1 to classify an image;
      such logits are spread over the whole image.
    decoder: Refines the head's output; None for v3.
    auxiliary: "middle" -> logits for a second loss; None without one.
    decoder_logits: Whether the decoder gives the logits itself (LR-ASPP).
    head_logits: Whether the head gives them (v2's ASPP).
    input_scales: Scales of the image besides 1.
    align_corners: How logits are resized to the images; False: half-pixel.
    num_classes: Background included.
    mean: Mean of each channel of the images, which is subtracted; RGB is
      0..255.
    std: Deviation of each channel, by which the difference is divided.
    logits_init: How the last kernel is drawn (model.py: deviation 0.01).
    dtype: Compute dtype of the features; logits are float32.
    precision: Of products of float32 values, a name that
      `jax.default_matmul_precision` takes; None: that of the surroundings.
  """

  backbone: nn.Module
  head: nn.Module
  decoder: nn.Module | None
  num_classes: int
  mean: tuple[float, ...] = (127.5, 127.5, 127.5)
  std: tuple[float, ...] = (127.5, 127.5, 127.5)
  decoder_logits: bool = False
  head_logits: bool = False
  input_scales: tuple[float, ...] = ()
  align_corners: bool = True
  auxiliary: nn.Module | None = None
  logits_init: layers.Init = layers.Init("truncated_normal", 0.01)
  dtype: DTypeLike = jnp.float32
  precision: str | None = None

  def __call__(
    self, images: Num[Array | np.ndarray, "b h w c"], *, train: bool
  ) -> Float[Array, "b h w k"]:
    """Return float32 logits at the images' size. Any size from 1x1 works."""
    logits = self.coarse(images, train=train)
    return self.resize(logits, (images.shape[1], images.shape[2]))

  @nn.nowrap
  def resize(
    self, logits: Float[Array, "b h w k"], size: tuple[int, int]
  ) -> Float[Array, "b H W k"]:
    """Return logits at another size; it needs no variables."""
    return resize.resize_bilinear(
      logits, size, align_corners=self.align_corners
    )

  def coarse(
    self, images: Num[Array | np.ndarray, "b h w c"], *, train: bool
  ) -> Float[Array, "b H W k"]:
    """Return float32 logits at the decoder's (or head's) own stride."""
    return self.coarse_and_auxiliary(images, train=train)[0]

  def coarse_and_auxiliary(
    self, images: Num[Array | np.ndarray, "b h w c"], *, train: bool
  ) -> tuple[Float[Array, "b H W k"], Any]:
    """Return float32 logits and those of further losses, each at its stride.

    The second value is the logits of the auxiliary head, or None without one.
    With `input_scales` it is a tuple: the logits of scale 1 and of each other
    scale.
    """
    # A product keeps its precision, so that its gradients have it, too.
    with (
      jax.default_matmul_precision(self.precision)
      if self.precision
      else contextlib.nullcontext()
    ):
      if self.input_scales:
        return self._of_scales(jnp.asarray(images), train=train)
      features = self._features(images, train=train)
      logits = self._logits(images, features, train=train)
      if self.auxiliary is None:
        return logits, None
      return logits, self.auxiliary(features["middle"], train=train)

  def _of_scales(
    self, images: jax.Array, *, train: bool
  ) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """Return the largest logits over the scales, and those of each."""
    images = images.astype(jnp.float32)
    parts = []
    # Scale 1 first: its size is that of the result (v2, section 4.1.2).
    for scale in (1.0, *self.input_scales):
      scaled = self._scaled(images, scale)
      features = self._features(scaled, train=train)
      parts.append(self._logits(scaled, features, train=train))
    size = parts[0].shape[1], parts[0].shape[2]
    fused = parts[0]
    for logits in parts[1:]:
      fused = jnp.maximum(fused, self.resize(logits, size))
    return fused, tuple(parts)

  @nn.nowrap
  def _scaled(self, images: jax.Array, scale: float) -> jax.Array:
    """Return the images resized by `scale`.

    With aligned corners 129 pixels become 65 at 1/2; else, as by PyTorch's
    scale_factor, 64, of which pixel i lies at (i + 1/2) / scale - 1/2: the rows
    and columns at the end that fill no pixel are left out.
    """
    if scale == 1.0:
      return images
    size = images.shape[1], images.shape[2]
    if self.align_corners:
      rows, columns = (resize.scale_dimension(n, scale) for n in size)
      return self.resize(images, (rows, columns))
    rows, columns = (max(int(n * scale), 1) for n in size)
    images = images[:, : round(rows / scale), : round(columns / scale)]
    return self.resize(images, (rows, columns))

  def _features(self, images: Array | np.ndarray, *, train: bool) -> dict:
    if images.shape[-1] != len(self.mean):
      raise ValueError(
        f"images of {images.shape[-1]} channels for a network of "
        f"{len(self.mean)}"
      )
    x = jnp.asarray(images, jnp.float32)
    x = (x - _channels(self.mean)) / _channels(self.std)
    x = x.astype(self.dtype)
    return {"image": x, **self.backbone(x, train=train)}

  @nn.compact
  def _logits(
    self, images: Array | np.ndarray, features: dict, *, train: bool
  ) -> Array:
    x = self.head(features["high"], train=train)
    if self.head_logits:
      return x
    if self.decoder is not None:
      size = (images.shape[1], images.shape[2])
      x = self.decoder(x, features, size, train=train)
      if self.decoder_logits:
        return x
    # In float32: argmax and the loss need the digits that bfloat16 drops.
    return layers.ConvNorm(
      features=self.num_classes,
      use_bias=True,
      kernel_init=self.logits_init,
      name="logits",
    )(x, train=train)


def norms(model: nn.Module) -> dict[str, layers.Norm]:
  """Return the settings of the norms in each part that has some, by name."""
  parts = ("backbone", "head", "decoder", "auxiliary")
  found = {name: norm_of(getattr(model, name, None)) for name in parts}
  return {name: norm for name, norm in found.items() if norm}


def norm_of(part: Any) -> layers.Norm | None:
  """Return the settings of a part's norms; None: it has no such field."""
  # Backbones have the norm as a field, the other parts in their style.
  for owner in (getattr(part, "style", None), part):
    if norm := getattr(owner, "norm", None):
      return norm
  return None


def with_norm(part: Any, norm: layers.Norm) -> Any:
  """Return a part of a network with other settings of its norms."""
  fields = {}
  if getattr(part, "style", None):
    fields["style"] = part.style._replace(norm=norm)
  if getattr(part, "norm", None):
    fields["norm"] = norm
  return part.clone(**fields)


def over(model: DeepLab, axis_name: str | None) -> DeepLab:
  """Return a network whose norms share their statistics over an axis."""
  return model.clone(
    **{
      name: with_norm(getattr(model, name), norm._replace(axis_name=axis_name))
      for name, norm in norms(model).items()
    }
  )


def _channels(values: tuple[float, ...]) -> jnp.ndarray:
  """Return [c] as [1, 1, 1, c]."""
  return jnp.array(values, jnp.float32).reshape(1, 1, 1, -1)
