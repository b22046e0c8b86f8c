"""Learning rates and optimizers of settings that differ from the defaults."""

from typing import Any

import optax

from deeplax.settings import defaults
from deeplax.training import optim


def learning_rate(*, total_steps: int, **changes: Any) -> optax.Schedule:
  settings = defaults.base().optim
  settings.update(changes)
  return optim.learning_rate(settings, total_steps=total_steps)


def build(lr: optax.Schedule, **changes: Any) -> optax.GradientTransformation:
  settings = defaults.base().optim
  settings.update(changes)
  return optim.build(lr, settings)
