"""Variables that can be told apart, for names that are written and read."""

from typing import Any

import flax.linen as nn
import flax.traverse_util
import numpy as np

from deeplax.models import variables


def numbered(model: nn.Module) -> dict[str, Any]:
  """Variables with a number of its own in each slice, of almost no memory."""
  flat = {}
  for place, (path, shape) in enumerate(variables.shapes(model).items()):
    start = np.arange(shape[0]) / 1000 + place
    start = start.reshape(-1, *(len(shape) - 1) * (1,)).astype(np.float32)
    flat[path] = np.broadcast_to(start, shape)
  return {"batch_stats": {}} | flax.traverse_util.unflatten_dict(flat)


def assert_bit_equal(found: dict[str, Any], expected: dict[str, Any]) -> None:
  """Assert that variables are the same arrays at the same paths."""
  ours: Any = flax.traverse_util.flatten_dict(found)
  theirs: Any = flax.traverse_util.flatten_dict(expected)
  assert ours.keys() == theirs.keys()
  for path, value in ours.items():
    assert np.array_equal(value, theirs[path]), path
