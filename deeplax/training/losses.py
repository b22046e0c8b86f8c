"""The training loss: cross entropy over the labeled pixels.

Class weights and hard pixels follow utils/train_utils.py of tensorflow/models
research/deeplab.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from deeplax.labels import IGNORE_LABEL
from deeplax.ops import cross_entropy
from deeplax.ops import resize


class Settings(NamedTuple):
  """The settings of the loss; the defaults are the papers'.

  Attributes:
    upsample_logits: False resizes the labels to the logits instead.
    ignore_label: Label of the pixels that count nowhere.
    class_weights: Factor of each class's cross entropy; None: 1 for all. The
      divisor stays the number of pixels, as in the reference.
    hard_pixels: Share of all pixels, those of the largest loss, that count.
    hard_pixel_steps: Steps in which the share falls from 1 to `hard_pixels`.
    auxiliary_weight: Weight of the auxiliary head's loss (PSPNet, 1612.01105,
      3.2), in which all pixels count alike; 0: there is no such head.
    per_scale: Whether each scale of a network's `input_scales` has a loss of
      its own besides the fused one, all with weight 1 (v2, 1606.00915).
    align_corners: How logits are resized, as in the network; False: half-pixel.
    own: In place of the cross entropy, everywhere: (logits, labels,
      ignore_label=) -> the loss of each pixel [b, h, w]. What is above still
      applies to it.
  """

  upsample_logits: bool = True
  ignore_label: int = IGNORE_LABEL
  class_weights: tuple[float, ...] | None = None
  hard_pixels: float = 1.0
  hard_pixel_steps: int = 0
  auxiliary_weight: float = 0.0
  per_scale: bool = False
  align_corners: bool = True
  own: Callable[..., jax.Array] | None = None

  def describe(self) -> str:
    """Return the loss in words."""
    parts = [self._name()]
    if self.class_weights is not None:
      low, high = min(self.class_weights), max(self.class_weights)
      parts.append(f"class weights {low:.3g} to {high:.3g}")
    if self.hard_pixels < 1:
      parts.append(f"hardest {self.hard_pixels:.0%} of each device's pixels")
    if self.auxiliary_weight:
      parts.append(f"{self.auxiliary_weight:g} x the auxiliary head's")
    if self.per_scale:
      parts.append("one more for each input scale")
    if not self.upsample_logits:
      parts.append("labels down to the logits")
    return ", ".join(parts)

  def _name(self) -> str:
    if self.own is None:
      return "cross entropy"
    function = getattr(self.own, "func", self.own)  # of a partial
    return f"own: {getattr(function, '__name__', type(function).__name__)}"


PLAIN = Settings()


class PixelSums(NamedTuple):
  """Sums over one device's pixels, divided only after all are added up.

  Attributes:
    loss: Summed loss of the pixels that count.
    counted: Pixels that count in `loss`: its divisor.
    valid: Pixels with a legal label.
    illegal: Pixels whose label is neither a class nor the ignore label.
    correct: Valid pixels whose largest logit is the label's.
  """

  loss: jax.Array
  counted: jax.Array
  valid: jax.Array
  illegal: jax.Array
  correct: jax.Array

  @classmethod
  def zero(cls) -> "PixelSums":
    """Return the sums over no pixels."""
    none = jnp.int32(0)
    return cls(jnp.float32(0), none, none, none, none)


def match(
  logits: Float[Array, "b h w k"],
  labels: Int[Array, "b H W"],
  settings: Settings,
) -> tuple[jax.Array, jax.Array]:
  """Bring logits and labels to one size.

  The papers upsample the logits and keep every label (v3, section 4.1: 1.2
  points better); the other way is table 8's "no upsampling".
  """
  if settings.upsample_logits:
    return _resized(logits, labels, settings), labels
  return logits, resize.resize_nearest(labels, _size(logits))


def _resized(
  logits: jax.Array, labels: jax.Array, settings: Settings
) -> jax.Array:
  """Return logits of the labels' size."""
  return resize.resize_bilinear(
    logits, _size(labels), align_corners=settings.align_corners
  )


def _size(x: jax.Array) -> tuple[int, int]:
  return x.shape[1], x.shape[2]


def pixel_sums(
  logits: Float[Array, "b h w k"],
  labels: Int[Array, "b h w"],
  settings: Settings = PLAIN,
  *,
  hard_share: float | Float[Array, ""] | None = None,
) -> PixelSums:
  """Sum the loss and the counts of one device's pixels.

  Ignored and illegal labels are mapped to class 0 before the cross entropy and
  masked after it: an illegal one would silently give NaN, or wrap around to the
  last class.

  Args:
    logits: Class scores at the labels' size.
    labels: Classes.
    settings: Whose ignore label and class weights are used.
    hard_share: Share of this device's pixels, ignored ones included, that may
      count; pixels without a loss do not. None: all valid ones count.
  """
  # Three kinds of pixels: valid, ignored, illegal.
  is_class = (labels >= 0) & (labels < logits.shape[-1])
  ignored = labels == settings.ignore_label
  valid = is_class & ~ignored
  safe = jnp.where(valid, labels, 0)
  if settings.own is None:
    entropy, best = cross_entropy.with_best(logits, safe)
  else:
    entropy, best = _own(logits, labels, valid, settings)
  if settings.class_weights is not None:
    weights = jnp.asarray(settings.class_weights, jnp.float32)
    entropy = entropy * weights[safe]
  entropy = jnp.where(valid, entropy, 0.0)
  counting = valid
  if hard_share is not None:
    counting = _hardest(entropy, hard_share)
  return PixelSums(
    loss=jnp.sum(jnp.where(counting, entropy, 0.0)),
    counted=jnp.sum(counting, dtype=jnp.int32),
    valid=jnp.sum(valid, dtype=jnp.int32),
    illegal=jnp.sum(~is_class & ~ignored, dtype=jnp.int32),
    correct=jnp.sum(valid & (best == labels), dtype=jnp.int32),
  )


def _own(
  logits: jax.Array, labels: jax.Array, valid: jax.Array, settings: Settings
) -> tuple[jax.Array, jax.Array]:
  """Return each pixel's loss by a user's own function, and its best class.

  Logits of pixels that do not count are 0 in it, so that they have no gradient
  whatever it makes of them: NaN, for a label that is no class.
  """
  assert settings.own is not None
  best = jnp.argmax(logits, axis=-1)
  logits = jnp.where(valid[..., None], logits, 0.0)
  targets = jnp.where(valid, labels, settings.ignore_label)
  loss = settings.own(logits, targets, ignore_label=settings.ignore_label)
  return loss.astype(jnp.float32), best


def _hardest(
  entropy: Float[Array, "b h w"], share: float | Float[Array, ""]
) -> Bool[Array, "b h w"]:
  """Return a mask of the pixels with the largest losses: `share` of them all.

  Pixels of loss 0 are left out, and those that tie with the last one included.
  """
  flat = jnp.sort(jax.lax.stop_gradient(entropy).ravel())
  allowed = (jnp.float32(share) * flat.size).astype(jnp.int32)
  last = flat[jnp.clip(flat.size - allowed, 0, flat.size - 1)]
  return (entropy >= last) & (entropy > 0) & (allowed > 0)


def hard_share(
  settings: Settings, step: Int[Array, ""]
) -> Float[Array, ""] | None:
  """Return the share of the pixels that count in a step; None: all."""
  if settings.hard_pixels == 1.0:
    return None
  done = 1.0
  if settings.hard_pixel_steps:
    done = jnp.minimum(1.0, step / settings.hard_pixel_steps)
  return jnp.float32(1.0 - done * (1.0 - settings.hard_pixels))


def of_batch(
  logits: Float[Array, "b h w k"],
  auxiliary: Float[Array, "b p q k"] | tuple[jax.Array, ...] | None,
  labels: Int[Array, "b H W"],
  settings: Settings,
  *,
  step: Int[Array, ""],
  over_devices: Callable[[jax.Array], jax.Array] = lambda x: x,
) -> tuple[jax.Array, PixelSums]:
  """Return the loss times the valid pixels, and the sums behind it.

  Divided by the valid pixels of all devices and batches, the first is the mean
  over the pixels that count, plus the weighted mean of the auxiliary loss.

  Args:
    logits: The network's, at any stride.
    auxiliary: Logits of the auxiliary head, at any stride, or of each input
      scale; None without either.
    labels: Classes, at full size.
    step: Number of updates so far.
    over_devices: Sums a number over the devices.
  """
  logits, targets = match(logits, labels, settings)
  share = hard_share(settings, step)
  sums = pixel_sums(logits, targets, settings, hard_share=share)
  loss = sums.loss
  if share is not None:
    # Chosen on each device, the hardest pixels are averaged over all devices.
    counted = jnp.maximum(over_devices(sums.counted), 1)
    loss = loss * (over_devices(sums.valid) / counted)
  if isinstance(auxiliary, tuple):
    loss = loss + _of_scales(auxiliary, labels, settings, sums, over_devices)
  elif settings.auxiliary_weight and auxiliary is not None:
    resized = _resized(auxiliary, targets, settings)
    further = pixel_sums(resized, targets, settings)
    loss = loss + settings.auxiliary_weight * further.loss
  return loss, sums


def _of_scales(
  parts: tuple[jax.Array, ...],
  labels: jax.Array,
  settings: Settings,
  sums: PixelSums,
  over_devices: Callable[[jax.Array], jax.Array],
) -> jax.Array:
  """Return the sum of the scales' mean losses times the valid pixels."""
  total = jnp.float32(0)
  for logits in parts:
    own = pixel_sums(*match(logits, labels, settings), settings)
    # Labels resized to a scale have another number of valid pixels.
    valid = jnp.maximum(over_devices(own.valid), 1)
    total = total + own.loss * (over_devices(sums.valid) / valid)
  return total
