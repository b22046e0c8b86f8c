"""Predict class probabilities and labels with a network and its variables."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # it brings JAX, and commands check their flags without
  from deeplax.inference.probabilities import predict_probabilities

__all__ = ["predict_probabilities"]


def __getattr__(name: str) -> Any:
  if name not in __all__:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  from deeplax.inference import probabilities

  return getattr(probabilities, name)
