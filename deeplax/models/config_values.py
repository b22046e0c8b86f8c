"""Checks of single values of `config.model`."""

from collections.abc import Iterable
from typing import Any


def positive(name: str, value: int) -> int:
  if value < 1:
    raise ValueError(f"{name} {value} is not 1 or more")
  return value


def height_width(name: str, value: Iterable[Any]) -> tuple[int, int]:
  """Return (rows, columns), both 1 or more."""
  pair = as_tuple(name, value)
  if len(pair) != 2 or min(pair) < 1:
    raise ValueError(f"{name} {pair} is not two numbers of 1 or more")
  return pair


def fraction(name: str, value: float) -> float:
  if not 0 <= value < 1:
    raise ValueError(f"{name} {value} is not in [0, 1)")
  return value


def as_tuple(name: str, value: Iterable[Any]) -> tuple[int, ...]:
  """Return integers as a tuple, which hashes as a module's field must."""
  values = tuple(value)
  if not all(isinstance(v, int) for v in values):
    raise ValueError(f"{name} {values} are not whole numbers")
  return values
