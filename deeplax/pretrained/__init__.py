"""Published weights in and out: `convert_arrays` and the tables behind it."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # it brings JAX, and files are checked without
  from deeplax.pretrained.tables import convert_arrays

__all__ = ["convert_arrays"]


def __getattr__(name: str) -> Any:
  if name not in __all__:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  from deeplax.pretrained import tables

  return getattr(tables, name)
