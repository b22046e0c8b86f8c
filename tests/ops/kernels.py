"""Kernels for a card, run step by step on any machine."""

from collections.abc import Iterator
import contextlib

import pytest

from deeplax.ops import backend
from deeplax.ops import row_kernels
from deeplax.ops import sum_kernels

# Tiles for a card make ten times as much code, and small maps have one.
TILE = row_kernels.Tile(columns=1, channels=64, rows=2, warps=4)
SHARE = sum_kernels.Share(values=64, channels=16, loads=2, programs=6, warps=4)


@contextlib.contextmanager
def small_tiles() -> Iterator[None]:
  """Make kernels of a few values each."""
  with pytest.MonkeyPatch.context() as patch:
    for name in ("WALK", "REDUCE"):
      patch.setattr(row_kernels, name, TILE)
    patch.setattr(sum_kernels, "SHARE", SHARE)
    yield


@contextlib.contextmanager
def interpreted() -> Iterator[None]:
  """Trace for a GPU what can run here, in small tiles."""
  with small_tiles(), backend.target("gpu", interpreted=True):
    yield
