"""Backbones, heads and decoders of a user's own: made, and tried on shapes.

What is wrong with one is said in a message with the file and its line, before
anything is compiled: the network is traced once, without values.
"""

from collections.abc import Mapping, Sequence
import functools
import inspect
import pathlib
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from deeplax import errors
from deeplax.models import deeplab
from deeplax.settings import find
from deeplax.settings import own

# Every stride up to 32 has several positions on images of this size.
SIZE = (65, 65)
BATCH = 2
COLLECTIONS = ("params", "batch_stats")


class Part(NamedTuple):
  """A part of a network of a user's own.

  Attributes:
    name: backbone, head or decoder.
    label: What a message calls it.
    path: Of the file that it comes from.
    module: Its Flax module.
  """

  name: str
  label: str
  path: str
  module: Any

  @property
  def called(self) -> str:
    """What a message calls it, with the line of its `__call__`."""
    code = getattr(inspect.unwrap(type(self.module).__call__), "__code__", None)
    if code is None or code.co_filename != self.path:
      return self.label
    return f"{self.label}: line {code.co_firstlineno}"


def from_file(
  name: str, reference: own.Reference, offered: Mapping[str, Any]
) -> Part:
  """Return the part that a key of the configuration names.

  Args:
    name: backbone, head or decoder.
    reference: The class, or a function that returns a module.
    offered: Values that it gets if it has a field of that name.

  Raises:
    InputError: The file fails, or does not make a Flax module of it.
  """
  make, path = own.load(reference), pathlib.Path(reference.path)
  if not callable(make):
    raise errors.InputError(
      f"{reference}: it is a {type(make).__name__}; name a class or a function"
    )
  takes: Mapping[str, Any] = {}
  try:
    takes = inspect.signature(make).parameters
    given = {k: v for k, v in offered.items() if k in takes}
    module: Any = make(**{**given, **reference.keywords})
  except Exception as error:  # whatever a user's own file raises
    fields = ", ".join(k for k in takes if k not in ("parent", "name"))
    raise errors.InputError(
      f"{reference}: {find.where(error, path)}. It takes {fields or 'nothing'}"
    ) from error
  return _checked(Part(name, str(reference), reference.path, module))


def from_object(name: str, module: Any, offered: Mapping[str, Any]) -> Part:
  """Return a part given as a module; fields that are None get their values.

  Raises:
    InputError: It is not a Flax module, or cannot be hashed.
  """
  label = f"{name}={type(module).__name__}(...)"
  try:
    path = inspect.getfile(type(module))
  except (OSError, TypeError):  # from a prompt or a notebook
    path = "<unknown>"
  part = _checked(Part(name, label, path, module))
  unset = {
    field: value
    for field, value in offered.items()
    if hasattr(module, field) and getattr(module, field) is None
  }
  return part._replace(module=module.clone(**unset))


def _checked(part: Part) -> Part:
  if not isinstance(part.module, nn.Module):
    raise errors.InputError(
      f"{part.label}: it makes {type(part.module).__name__}, and a "
      f"{part.name} is a flax.linen.Module"
    )
  try:
    hash(part.module)
  except TypeError as error:
    raise errors.InputError(
      f"{part.label}: {error}. Fields have to be numbers, texts, tuples or "
      "modules, which can be hashed; a list or an array cannot"
    ) from error
  return part


@functools.lru_cache(maxsize=64)
def refuse_misfit(
  model: Any, parts: tuple[Part, ...], output_stride: int, moving: Sequence[str]
) -> None:
  """Trace a network and refuse parts that do not fit into it.

  Args:
    model: A `deeplab.DeepLab`.
    parts: Those of a user's own.
    output_stride: Of the features that the backbone is to give.
    moving: Parts whose running statistics move in training.

  Raises:
    InputError: Naming the part, its file, the line and what is wrong.
  """
  alone = deeplab.over(model, None)
  by_name = {part.name: part for part in parts}
  moved = set()

  def watch(call, args, kwargs, context):
    module, path = context.module, context.module.path
    if isinstance(module, nn.BatchNorm) and context.method_name == "__call__":
      still = kwargs.get("use_running_average")
      still = module.use_running_average if still is None else still
      if not (still or module.is_initializing()):
        moved.add(path[0])
    part = by_name.get(path[0]) if len(path) == 1 else None
    if part is None or context.method_name != "__call__":
      return call(*args, **kwargs)
    try:
      result = call(*args, **kwargs)
    except errors.InputError:
      raise
    except Exception as error:  # whatever a user's own file raises
      where = find.where(error, pathlib.Path(part.path))
      label = part.label if where.startswith("line ") else part.called
      raise errors.InputError(f"{label}: {where}") from error
    if part.name == "backbone":
      _refuse_features(part, result, output_stride)
      if model.auxiliary is not None and "middle" not in result:
        raise errors.InputError(
          f'{part.called}: it returns no "middle", which the auxiliary head '
          "reads. Return it, or set train.auxiliary_weight to 0"
        )
    else:
      _refuse_maps(part, result, args[0])
    return result

  def run(images):
    key = jax.random.key(0)
    rngs = {"params": key, "dropout": key}
    variables = alone.init(rngs, images, train=False, method="coarse")
    alone.apply(
      variables,
      images,
      train=True,
      method="coarse",
      mutable=["batch_stats"],
      rngs={"dropout": key},
    )
    return variables

  images = jax.ShapeDtypeStruct((BATCH, *SIZE, len(model.mean)), jnp.float32)
  with nn.intercept_methods(watch):
    variables: Any = jax.eval_shape(run, images)
  for part in parts:
    _refuse_variables(part, variables)
    has_some = part.name in variables.get("batch_stats", {})
    if has_some and not deeplab.norm_of(part.module):
      moved.add(part.name)
    if part.name in moved and part.name not in moving:
      raise errors.InputError(
        f"{part.called}: its running statistics would move in training, and "
        "they are to stay (model.batch_norm.mode, optim.trained). Declare the "
        "field norm or style and make its convolutions with that"
      )


def _refuse_features(part: Part, result: Any, output_stride: int) -> None:
  """Refuse a backbone's result unless its features lie at their strides."""
  if not isinstance(result, Mapping) or "high" not in result:
    have = sorted(result) if isinstance(result, Mapping) else _shape(result)
    raise errors.InputError(
      f"{part.called}: it returns {have}; a backbone returns a dictionary with "
      '"high", and "low4" and the like for a decoder'
    )
  strides = {"high": output_stride} | {
    name: int(name[3:])
    for name in result
    if name.startswith("low") and name[3:].isdigit()
  }
  for name, stride in strides.items():
    shape = _shape(result[name])
    fits = len(shape) == 4 and shape[0] == BATCH
    # A convolution without padding loses a row at the end, or some.
    if not fits or not all(
      n // stride - 1 <= have <= -(-n // stride)
      for n, have in zip(SIZE, shape[1:3], strict=True)
    ):
      raise errors.InputError(
        f'{part.called}: "{name}" has shape {shape} for {BATCH} images of '
        f"{SIZE[0]}x{SIZE[1]}; features at stride {stride} have "
        f"({BATCH}, {-(-SIZE[0] // stride)}, {-(-SIZE[1] // stride)}, c). The "
        "field output_stride, if it has one, says which stride is asked for"
      )


def _refuse_maps(part: Part, result: Any, features: jax.Array) -> None:
  """Refuse the result of a head or decoder unless it is features."""
  shape, size = _shape(result), (*features.shape[1:3],)
  fits = len(shape) == 4 and shape[0] == BATCH and min(shape) > 0
  if fits and part.name == "head":
    fits = shape[1:3] in (size, (1, 1))
  if not fits:
    height, width = size if part.name == "head" else ("h", "w")
    raise errors.InputError(
      f"{part.called}: it returns {shape} for features of {features.shape}; a "
      f"{part.name} returns ({BATCH}, {height}, {width}, c) for them"
    )


def _shape(value: Any) -> Any:
  return getattr(value, "shape", f"a {type(value).__name__}")


def _refuse_variables(part: Part, variables: Any) -> None:
  """Refuse variables that a run would not keep."""
  if other := sorted(
    name
    for name, tree in variables.items()
    if name not in COLLECTIONS and part.name in tree
  ):
    raise errors.InputError(
      f"{part.called}: it has variables in {', '.join(other)}; a run keeps "
      f"{' and '.join(COLLECTIONS)} alone"
    )
  if part.name == "backbone" and part.name not in variables["params"]:
    raise errors.InputError(f"{part.called}: it has no parameters")
