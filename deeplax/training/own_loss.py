"""A loss of a user's own, from a file or as a function."""

from collections.abc import Callable
from functools import partial
import inspect
import pathlib
from typing import Any

import jax
import jax.numpy as jnp

from deeplax import errors
from deeplax.labels import IGNORE_LABEL
from deeplax.settings import find
from deeplax.settings import own

Loss = Callable[..., jax.Array]
SHAPE = (2, 5, 7)


def from_file(reference: own.Reference, num_classes: int) -> Loss:
  """Return the loss that `train.loss` names; a class is made an instance of.

  Raises:
    InputError: The file fails, or it is no loss.
  """
  made = own.load(reference)
  path = pathlib.Path(reference.path)
  try:
    if inspect.isclass(made):
      made = made(**reference.keywords)
    elif reference.keywords:
      made = partial(made, **reference.keywords)
  except Exception as error:  # whatever a user's own file raises
    raise errors.InputError(
      f"{reference}: {find.where(error, path)}"
    ) from error
  return checked(made, num_classes, label=str(reference), path=path)


def checked(
  loss: Any,
  num_classes: int,
  *,
  label: str = "loss=",
  path: pathlib.Path = pathlib.Path("<unknown>"),
) -> Loss:
  """Return a loss that has been tried on shapes.

  Args:
    loss: Takes logits [b, h, w, k], labels [b, h, w] and ignore_label, and
      returns the loss of each pixel, [b, h, w].
    num_classes: Background included.
    label: What a message calls it.
    path: Of its file.

  Raises:
    InputError: It fails, or returns something else.
  """
  try:
    result = jax.eval_shape(
      partial(loss, ignore_label=IGNORE_LABEL),
      jax.ShapeDtypeStruct((*SHAPE, num_classes), jnp.float32),
      jax.ShapeDtypeStruct(SHAPE, jnp.int32),
    )
  except Exception as error:  # whatever a user's own file raises
    raise errors.InputError(f"{label}: {find.where(error, path)}") from error
  shape = getattr(result, "shape", type(result).__name__)
  if shape != SHAPE or not jnp.issubdtype(result.dtype, jnp.floating):
    kind = getattr(result, "dtype", "no numbers")
    raise errors.InputError(
      f"{label}: it returns {shape} of {kind} for logits of "
      f"{(*SHAPE, num_classes)} and labels of {SHAPE}; a loss returns a "
      f"floating-point number for each pixel, {SHAPE}"
    )
  return loss
