"""Whole ImageNet networks: how they rank the right class of pictures."""

from collections.abc import Sequence
import pathlib
from typing import Any, NamedTuple

import grain
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from deeplax import clocks
from deeplax import errors
from deeplax import pretrained
from deeplax.ablation import imagenet_sources
from deeplax.data import decoding
from deeplax.data import files as data_files
from deeplax.data import walk
from deeplax.models import build
from deeplax.pretrained import archives
from deeplax.pretrained import files
from deeplax.pretrained import rules
from deeplax.pretrained import tables
from deeplax.settings import defaults

CLASSES = 1000  # of ImageNet
CENTRAL = 0.875  # of the short side; see v3plus_table4
THREADS = 8  # that read
# A picture and its class.
Labeled = tuple[pathlib.Path, int]


class Network(NamedTuple):
  """A network, its file as <source>:<path>, and the first folder's class."""

  backbone: str
  file: str
  model: Any
  variables: Any
  first: int


def pictures(root: pathlib.Path) -> tuple[list[Labeled], int]:
  """Return the pictures in a folder's subfolders, and how many those are.

  Raises:
    InputError: There are none, or a subfolder is empty.
  """
  if not root.is_dir():
    raise errors.InputError(f"--images={root} is no folder")
  folders = [root / name for name in walk.folders(root)]
  labeled = []
  for label, folder in enumerate(folders):
    inside = [
      (path, label)
      for path in walk.files(folder)
      if path.suffix.lower() in walk.PICTURES
    ]
    if not inside:
      raise errors.InputError(
        f"--images={root}: {folder} has no picture: unpack the rest of the "
        "data set, or remove a folder that is no class"
      )
    labeled += inside
  if not labeled:
    raise errors.InputError(
      f"--images={root} has no subfolders: put the pictures of each class into "
      "one of its name, as n01440764/ILSVRC2012_val_00000293.JPEG"
    )
  return labeled, len(folders)


def network(flag: str, text: str, folders: int) -> Network:
  """Return the network of `--<flag>=<source>:<file>`.

  Raises:
    InputError: It is not written so, or the file is of no such network, or of
      one that has not a class for each of `folders`.
  """
  source, _, path = text.partition(":")
  sources = imagenet_sources.BACKBONES[flag]
  if source not in sources or not path:
    raise errors.InputError(
      f"--{flag}={text}: give a source of {sorted(sources)} and a file, as "
      f"--{flag}={min(sources)}:FILE"
    )
  arrays, wrong = files.read(path), []
  for backbone in sources[source]:
    try:
      model, variables = _convert(arrays, source, backbone)
    except errors.InputError as error:
      wrong.append(f"as {backbone}: {error}")
      continue
    first = model.num_classes - folders
    # TensorFlow's have background; of just 1000 classes none is.
    background = source == "tf_deeplab" and model.num_classes != CLASSES
    if first in ((0, 1) if background else (0,)):
      return Network(backbone, text, model, variables, first)
    raise errors.InputError(
      f"--images has {folders} class folders and {path} {model.num_classes} "
      "classes: give a folder for each, except background, the first of "
      f"TensorFlow's {CLASSES + 1}"
    )
  raise errors.InputError(
    f"--{flag}={text} is not this whole network; give the file of one with its "
    "classifier.\n" + "\n".join(wrong)
  )


def _convert(
  arrays: archives.Weights, source: str, backbone: str
) -> tuple[Any, Any]:
  """Return a network of as many classes as the file's, and its variables."""
  c: Any = defaults.base().model
  c.update({"backbone": backbone, "head": "classifier", "conventions": source})
  c.output_stride, c.decoder.kind = 32, "none"
  model = build.from_config(c, num_classes=CLASSES)
  loaded = rules.load(arrays, tables.table(source, model=model), model=model)
  for misfit in loaded.misfits:
    if misfit.path[1] == "logits" and misfit.value is not None:
      model = build.from_config(c, num_classes=misfit.value.shape[-1])
  variables = pretrained.convert_arrays(arrays, source, model=model)
  return model, jax.tree.map(jnp.asarray, variables)


def view(image: np.ndarray, crop: int) -> np.ndarray:
  """Return the central square, CENTRAL of the short side, as `crop` pixels."""
  height, width = image.shape[:2]
  side = CENTRAL * min(height, width)
  left, top = (width - side) / 2, (height - side) / 2
  box = left, top, left + side, top + side
  kind = Image.Resampling.BILINEAR  # smooths what it makes smaller
  return np.asarray(Image.fromarray(image).resize((crop, crop), kind, box))


def ranks(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Return how many classes come before the right one; -1: not finite.

  Of equal logits the first comes first, as for argmax.

  Args:
    logits: [n, k].
    labels: [n].
  """
  own = jnp.take_along_axis(logits, labels[:, None], axis=1)
  earlier = jnp.arange(logits.shape[1])[None] < labels[:, None]
  before = (logits > own) | ((logits == own) & earlier)
  return jnp.where(jnp.isfinite(logits).all(1), before.sum(1), -1)


def classify(
  networks: Sequence[Network],
  labeled: Sequence[Labeled],
  *,
  crop: int,
  batch: int,
) -> list[np.ndarray]:
  """Return the `ranks` by each network, in one pass over the pictures.

  Raises:
    InputError: A picture cannot be read, or a network gives no numbers.
  """
  images = np.zeros((batch, crop, crop, 3), np.uint8)
  labels = np.zeros(batch, np.int32)
  with clocks.ticking("compiling the networks", print):
    programs = [
      jax.jit(_ranks_by(n)).lower(n.variables, images, labels).compile()
      for n in networks
    ]
  kept_ranks: list[list[np.ndarray]] = [[] for _ in networks]
  report = clocks.Progress(len(labeled), print, name="classified")

  def read(one: Labeled) -> tuple[np.ndarray, int]:
    path, label = one
    image = decoding.decode_image(data_files.read_bytes(path), str(path))
    return view(image, crop), label

  ahead = grain.ReadOptions(THREADS, prefetch_buffer_size=2 * batch)
  views = grain.MapDataset.source(labeled).map(read).to_iter_dataset(ahead)
  for some, wanted in views.batch(batch):
    count = len(some)
    # The rest of a short last batch keeps older pictures, which are ignored.
    images[:count], labels[:count] = some, wanted
    answers = [
      program(n.variables, images, labels)
      for program, n in zip(programs, networks, strict=True)
    ]
    for n, kept, values in zip(networks, kept_ranks, answers, strict=True):
      kept.append(np.asarray(values)[:count])
      if kept[-1].min() < 0:
        raise errors.InputError(
          f"{n.file} gives numbers that are not finite as {n.backbone}: get "
          "the file anew"
        )
    for _ in some:
      report.step()
  return [np.concatenate(kept) for kept in kept_ranks]


def _ranks_by(network: Network) -> Any:
  def run(variables, images, labels):
    logits = network.model.apply(
      variables, images, train=False, method="coarse"
    )
    return ranks(logits[:, 0, 0], labels + network.first)

  return run
