"""How a backbone runs its units in training."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn


def runner(*, remat: bool, train: bool) -> Callable[[nn.Module, Any], Any]:
  """Return (unit, x) -> unit(x, train=train).

  Args:
    remat: Keep nothing of a unit but its input and output for the backward
      pass, which computes the rest once more.
  """

  def run(unit: nn.Module, x: Any) -> Any:
    return unit(x, train=train)  # pyright: ignore

  return nn.remat(run) if remat else run
