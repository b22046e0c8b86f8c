"""Class weights and repeated images, both from counts of the masks' pixels."""

from collections.abc import Callable

from etils import epath
import ml_collections

from deeplax.data import files
from deeplax.data import views
from deeplax.data.checks import class_counts
from deeplax.settings import own
from deeplax.training import losses
from deeplax.training import own_loss
from deeplax.workdir import layout


def examples_and_loss(
  config: ml_collections.ConfigDict,
  source: files.Source,
  folder: epath.Path | None,
  progress: Callable[..., None],
) -> tuple[files.Source, losses.Settings]:
  """Return the examples as they are trained on, and the loss.

  Both may need every mask counted. The counts are kept in the workdir `folder`;
  without one (None) they are made each time.
  """
  rule = config.train.class_weights
  by_count = rule in class_counts.RULES
  weights = None
  if not by_count and rule != "none":
    weights = class_counts.parse_weights(rule, source.spec.num_classes)
  if by_count or config.data.duplicate_classes:
    counted = class_counts.count(
      source,
      threads=config.data.threads,
      progress=progress,
      cache=folder / layout.CLASS_COUNTS if folder else None,
    )
    if by_count:
      weights = class_counts.weights(counted, rule, progress=progress)
    if config.data.duplicate_classes:
      indices = class_counts.duplicated(counted, config.data.duplicate_classes)
      source = views.Listed(source, indices)
  loss = loss_settings(config, weights)
  if own.is_own(config.train.loss):
    reference = own.parsed("train.loss", config.train.loss)
    mine = own_loss.from_file(reference, source.spec.num_classes)
    loss = loss._replace(own=mine)
  return source, loss


def loss_settings(
  config: ml_collections.ConfigDict,
  class_weights: tuple[float, ...] | None = None,
) -> losses.Settings:
  """Return the loss that a configuration describes, its weights apart."""
  return losses.Settings(
    upsample_logits=config.train.upsample_logits,
    class_weights=class_weights,
    hard_pixels=config.train.hard_pixels,
    hard_pixel_steps=config.train.hard_pixel_steps,
    auxiliary_weight=config.train.auxiliary_weight,
    per_scale=len(config.model.input_scales) > 0,
  )
