"""Another program's names for the arrays of a model, for import and export.

A table gives one rule per kind of layer: `backbone/{block}/{part}` in deeplax
is `MobilenetV2/{block}/{part}` there. Names are made from deeplax's paths and
never parsed, so the same table imports and exports: every parameter of a model
has a name, and what a file holds besides is unused, or declared as left out.
"""

from collections.abc import Callable, Mapping
import dataclasses
import functools
from functools import partial
import re
from typing import Any, NamedTuple

import flax.linen as nn
import flax.traverse_util
import numpy as np

from deeplax import errors
from deeplax.models import variables as variables_lib
from deeplax.pretrained import archives
from deeplax.pretrained import norms
from deeplax.pretrained import prefixes

Path = tuple[str, ...]  # collection, modules, leaf
Shape = tuple[int, ...]


class Transform(NamedTuple):
  """From the source's layout to deeplax's, and back."""

  load: Callable[[np.ndarray], np.ndarray]
  save: Callable[[np.ndarray], np.ndarray]


def transpose(*axes: int) -> Transform:
  """Return the transform whose `load` is `transpose(axes)`."""
  back = tuple(int(i) for i in np.argsort(axes))
  return Transform(lambda x: x.transpose(axes), lambda x: x.transpose(back))


AS_IS = Transform(lambda x: x, lambda x: x)
# TensorFlow's depthwise kernel: [h, w, c, 1] <-> [h, w, 1, c].
DEPTHWISE = transpose(0, 1, 3, 2)
# torch: [o, i, h, w] <-> [h, w, i, o]; depthwise [c, 1, h, w] <-> [h, w, 1, c].
OIHW = transpose(2, 3, 1, 0)
# torch's fully connected layer: [o, i] <-> [1, 1, i, o].
LINEAR = Transform(lambda x: x.T[None, None], lambda x: x[0, 0].T)


class Layer(NamedTuple):
  """The names of a convolution and its norm in deeplax and in the source.

  `{word}` stands for a piece of a path without a slash. In the source's name it
  may have a number added, `{unit-1}`, and `{i}` counts the slices of a stacked
  parameter from 1.

  Attributes:
    path: Path of the module in deeplax.
    name: Name of the convolution in the source.
    norm: Name of its norm, where that differs.
    kernel: Layout of its kernel, where it is not the source's usual one.
    bias: Layout of its bias, likewise.
  """

  path: str
  name: str
  norm: str | None = None
  kernel: Transform | None = None
  bias: Transform | None = None

  def put(self, words: Mapping[str, str]) -> "Layer":
    """Return this layer with `words` put into the source's names."""
    name, norm = self.name, self.norm
    for word, value in words.items():
      name = name.replace(f"{{{word}}}", value)
      norm = norm and norm.replace(f"{{{word}}}", value)
    return self._replace(name=name, norm=norm)


class Leaf(NamedTuple):
  """The end of an array's name in the source, and the array's layout."""

  suffix: str
  transform: Transform = AS_IS


class Table(NamedTuple):
  """How one program names the arrays of a model.

  Attributes:
    layers: Rules; the first one whose path matches a module names its arrays.
    spellings: {leaf in deeplax: leaf in the source}, one for each form of file;
      the first is written. A form without norms has them in the kernels.
    left_out: Patterns of names, complete, that no parameter needs: counters, an
      optimizer's arrays, a classifier.
    forms: Values of further words in the layers' names, one mapping for each
      form of file; the first is written.
    prepare: Applied to the file's arrays before they are looked up.
    scores: Patterns of deeplax's modules that give class scores. A file without
      any of them, from an ImageNet network, is complete: they start anew.
  """

  layers: tuple[Layer, ...]
  spellings: tuple[Mapping[str, Leaf], ...]
  left_out: tuple[str, ...] = ()
  forms: tuple[Mapping[str, str], ...] = ({},)
  prepare: Callable[[archives.Weights], archives.Weights] = dict
  scores: tuple[str, ...] = ()

  def of_each_form(self) -> "list[Table]":
    """Return one table for each form and spelling, without further words."""
    return [
      self._replace(
        layers=tuple(layer.put(words) for layer in self.layers),
        spellings=(spelling,),
        forms=({},),
      )
      for words in self.forms
      for spelling in self.spellings
    ]


def no_names(source: str, backbone: nn.Module) -> errors.InputError:
  """Return the refusal of a backbone that a source does not have."""
  return errors.InputError(
    f"source {source} has no names for the backbone {type(backbone).__name__}"
  )


class Entry(NamedTuple):
  """One parameter of a model and its names in the source.

  `names` holds one name for each slice where `stacked`, and none where the
  table has no rule for the parameter.
  """

  path: Path
  shape: Shape
  names: tuple[str, ...] = ()
  stacked: bool = False
  transform: Transform = AS_IS


class Misfit(NamedTuple):
  """An array that cannot be what its name says.

  `value` is the array in deeplax's layout if only the length of its last axis
  differs, as for another number of classes, else None.
  """

  path: Path
  name: str
  reason: str
  value: np.ndarray | None = None


@dataclasses.dataclass
class Loaded:
  """The arrays of a file that fit a model, and those that do not.

  Attributes:
    values: In deeplax's layout and float32, by path.
    names: Names in the file of each of `values`; none where a norm was folded.
    missing: Names that the file should have, by path.
    misfits: Arrays of another shape or kind.
    left_out: Names in the file that the table leaves out.
    unused: Other names in the file that no parameter needs.
    folded: Modules whose norm was folded into the kernel.
    subsampled: Arrays of which a part was taken, with the shapes.
    scores: Paths of `missing` that may start anew, see `Table.scores`.
    prefix: The prefix that was taken off the names, see `prefixes`.
  """

  values: dict[Path, np.ndarray] = dataclasses.field(default_factory=dict)
  names: dict[Path, tuple[str, ...]] = dataclasses.field(default_factory=dict)
  missing: dict[Path, tuple[str, ...]] = dataclasses.field(default_factory=dict)
  misfits: list[Misfit] = dataclasses.field(default_factory=list)
  left_out: list[str] = dataclasses.field(default_factory=list)
  unused: list[str] = dataclasses.field(default_factory=list)
  folded: list[Path] = dataclasses.field(default_factory=list)
  subsampled: list[str] = dataclasses.field(default_factory=list)
  scores: list[Path] = dataclasses.field(default_factory=list)
  prefix: str = ""


def load(arrays: archives.Weights, table: Table, *, model: nn.Module) -> Loaded:
  """Return the arrays of a file for every parameter of `model`.

  Raises:
    InputError: `table.prepare` refuses the file, or it holds the network more
      than once.
  """
  wanted = variables_lib.shapes(model)
  tables = table.of_each_form()
  listings = [_entries(t, wanted) for t in tables]
  # All forms of file are tried; the one that names most parameters is taken.
  asked = {name for entries in listings for e in entries for name in e.names}
  arrays, prefix, outside = prefixes.without(arrays, asked)
  arrays = table.prepare(arrays)
  complete = [
    sum(bool(e.names) and arrays.keys() >= {*e.names} for e in entries)
    for entries in listings
  ]
  best = complete.index(max(complete))
  loaded = Loaded(prefix=prefix, left_out=outside)
  used: set[str] = set()
  table = tables[best]
  folded = _folded(arrays, table, model)
  for entry in listings[best]:
    module, leaf = entry.path[1:-1], entry.path[-1]
    if module not in folded or leaf not in norms.LEAVES:
      used.update(entry.names)
      _take(loaded, entry, arrays)
      continue
    # The source folded this norm: set one that leaves the convolution as it is.
    bias, eps = folded[module]
    if leaf == "offset" or not arrays.keys() >= {*bias.names}:
      used.update(bias.names)
      _take(loaded, bias._replace(path=entry.path), arrays)
    else:
      value = norms.neutral(eps)[leaf]
      loaded.values[entry.path] = np.full(entry.shape, value, np.float32)
      loaded.names[entry.path] = ()
  loaded.folded = [
    m for m in folded if ("params", *m, "offset") in loaded.values
  ]
  scores = _any_of(table.scores)
  loaded.scores = [p for p in wanted if scores.fullmatch("/".join(p[1:-1]))]
  if not loaded.missing.keys() >= {*loaded.scores}:
    loaded.scores = []
  # Names that no parameter used.
  left_out = _any_of(table.left_out)
  for name in arrays:
    if name not in used:
      out = left_out.fullmatch(name) is not None
      (loaded.left_out if out else loaded.unused).append(name)
  return loaded


def save(
  variables: Mapping[str, Any], table: Table
) -> tuple[dict[str, np.ndarray], list[Path]]:
  """Return arrays by the source's names, and the paths that have none.

  Where two parameters have one name (branches that start alike), the second
  has none.
  """
  flat: Any = flax.traverse_util.flatten_dict(variables)
  wanted = {path: np.shape(value) for path, value in flat.items()}
  arrays, nameless = {}, []
  for entry in _entries(table.of_each_form()[0], wanted):
    value = np.asarray(flat[entry.path])
    if not entry.names or not arrays.keys().isdisjoint(entry.names):
      nameless.append(entry.path)
      continue
    parts = value if entry.stacked else value[None]
    for name, part in zip(entry.names, parts, strict=True):
      arrays[name] = np.ascontiguousarray(entry.transform.save(part))
  return arrays, nameless


def _entries(table: Table, wanted: Mapping[Path, Shape]) -> list[Entry]:
  return [
    _entry(table, path, shape, leaf=path[-1]) for path, shape in wanted.items()
  ]


def _entry(table: Table, path: Path, shape: Shape, *, leaf: str) -> Entry:
  """Return the names of a leaf of the module that `path` is in.

  Args:
    table: Of one form.
    path: Of the parameter that the leaf is for.
    shape: Of that parameter.
    leaf: Its own, or the bias that stands for a folded norm.
  """
  (spelling,) = table.spellings
  module = "/".join(path[1:-1])
  for layer in table.layers:
    if (match := _pattern(layer.path).fullmatch(module)) is None:
      continue
    if leaf not in spelling:
      break
    suffix, transform = spelling[leaf]
    name = layer.norm if leaf in norms.LEAVES and layer.norm else layer.name
    if layer.kernel and leaf.endswith("kernel"):
      transform = layer.kernel
    if layer.bias and leaf == "bias":
      transform = layer.bias
    stacked = re.search(r"\{i\b", name) is not None
    words = match.groupdict()
    names = tuple(
      _fill(name, words | {"i": str(i)}) + suffix
      for i in range(1, shape[0] + 1 if stacked else 2)
    )
    return Entry(path, shape, names, stacked, transform)
  return Entry(path, shape)


def _any_of(patterns: tuple[str, ...]) -> re.Pattern:
  return re.compile("|".join(patterns) or r"(?!)")


@functools.cache
def _pattern(path: str) -> re.Pattern:
  """Turn backbone/{block}/{part} into a regular expression."""
  return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path))


def _fill(name: str, words: Mapping[str, str]) -> str:
  """Put words, and numbers counted from them, into a name."""
  return re.sub(r"\{(\w+?)([+-]\d+)?\}", partial(_word, words), name)


def _word(words: Mapping[str, str], match: re.Match) -> str:
  value, step = words[match[1]], match[2]
  return str(int(value) + int(step)) if step else value


def _folded(
  arrays: archives.Weights,
  table: Table,
  model: nn.Module,
) -> dict[Path, tuple[Entry, float]]:
  """Return bias and eps of each normed module that the source folded."""
  wanted = variables_lib.shapes(model)
  result = {}
  for conv, norm in norms.normed(model):
    module = tuple(conv.path)
    path: Path = ("params", *module, "offset")
    entry = partial(_entry, table, path, wanted[path])
    bias = entry(leaf="bias")
    names = [n for leaf in norms.LEAVES for n in entry(leaf=leaf).names]
    present = any(name in arrays for name in names)
    # A form of file without norms has folded all of them.
    has_norms = "scale" in table.spellings[0]
    absent = has_norms and not arrays.keys() >= {*bias.names}
    if bias.names and not present and not absent:
      result[module] = bias, norm.eps
  return result


def _take(loaded: Loaded, entry: Entry, arrays: archives.Weights) -> None:
  """Add the arrays of one parameter to the fields of `loaded`."""
  absent = tuple(name for name in entry.names if name not in arrays)
  if absent or not entry.names:
    loaded.missing[entry.path] = absent
    return
  needed = entry.shape[1:] if entry.stacked else entry.shape
  parts = []
  for name in entry.names:
    array = np.asarray(arrays[name])
    part, misfit = _fit(entry, name, array, needed)
    if misfit is not None:
      loaded.misfits.append(misfit)
    if part is None:
      continue
    parts.append(part)
    if array.size > part.size:
      theirs = entry.transform.save(part).shape
      loaded.subsampled.append(f"{name} {array.shape} to {theirs}")
  if len(parts) == len(entry.names):
    value = np.stack(parts) if entry.stacked else parts[0]
    loaded.values[entry.path] = np.ascontiguousarray(value)
    loaded.names[entry.path] = entry.names


def _fit(
  entry: Entry, name: str, array: np.ndarray, needed: Shape
) -> tuple[np.ndarray | None, Misfit | None]:
  """Return the array in deeplax's layout, or why it does not fit."""
  # A view without memory shows the shape in the source's layout.
  theirs = entry.transform.save(np.broadcast_to(np.float32(0), needed)).shape
  if array.ndim != len(theirs):
    reason = f"has shape {array.shape}, needs {theirs}"
    return None, Misfit(entry.path, name, reason)
  # bfloat16 is of kind "V" to NumPy.
  if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
    reason = f"holds {array.dtype.name}, needs floating-point numbers"
    return None, Misfit(entry.path, name, reason)
  value = entry.transform.load(array).astype(np.float32)
  if value.shape != needed:
    reason = f"has shape {array.shape}, needs {theirs}"
    near = value.shape[:-1] == needed[:-1] and not entry.stacked
    return None, Misfit(entry.path, name, reason, value if near else None)
  if not np.isfinite(value).all():
    reason = "holds numbers that are not finite"
    return None, Misfit(entry.path, name, reason)
  return value, None
