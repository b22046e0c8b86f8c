"""Fully connected CRFs, as in DeepLab v1 and v2; no compiler is needed."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from deeplax.crf.dense import dense_crf as dense_crf


def __getattr__(name: str) -> Any:
  """Load JAX only when `dense_crf` is used: `crf.search --help` is quick."""
  if name != "dense_crf":
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  from deeplax.crf import dense

  return dense.dense_crf
