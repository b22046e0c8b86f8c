"""The tables by the name of their program, and the loading of a network."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.traverse_util

from deeplax import errors
from deeplax.pretrained import archives
from deeplax.pretrained import rules
from deeplax.pretrained import summary
from deeplax.pretrained.names import caffe
from deeplax.pretrained.names import smp
from deeplax.pretrained.names import tf_deeplab
from deeplax.pretrained.names import timm
from deeplax.pretrained.names import torchvision

TABLES: dict[str, Callable[[Any], rules.Table]] = {
  "caffe": caffe.table,
  "smp": smp.table,
  "tf_deeplab": tf_deeplab.table,
  "timm": timm.table,
  "torchvision": torchvision.table,
}


def table(source: str, *, model: nn.Module) -> rules.Table:
  """Return the table of `source` for `model`.

  Raises:
    InputError: On an unknown source.
  """
  if source not in TABLES:
    raise errors.InputError(f"source {source!r} not in {sorted(TABLES)}")
  return TABLES[source](model)


def convert_arrays(
  arrays: archives.Weights, source: str, *, model: nn.Module
) -> dict[str, Any]:
  """Return {"params", "batch_stats"} of `model` from another program's arrays.

  Every parameter is set and every array used exactly once, except those that
  the table leaves out: counters, an optimizer's arrays, a classifier. Where a
  norm was folded into the convolution (kernel and bias), the norm is set so
  that the function is the same.

  Args:
    arrays: By the source's names, in its layout.
    source: The program that named them, a key of `TABLES`.
    model: As `models.build.from_config` returns it.

  Raises:
    InputError: Naming what is missing, of another shape, or unused.
  """
  loaded = rules.load(arrays, table(source, model=model), model=model)
  if wrong := summary.differences(loaded):
    raise errors.InputError(f"not {source}'s arrays of this network:\n{wrong}")
  variables = flax.traverse_util.unflatten_dict(loaded.values)
  return {"batch_stats": {}, **variables}
