"""Search the dense CRF's parameters: a coarse grid, then finer ones."""

import argparse
from collections.abc import Iterable, Mapping
import itertools
import json
from typing import Any

from etils import epath
from jaxtyping import Int64
import numpy as np

from deeplax import atomic
from deeplax import clocks
from deeplax import commands
from deeplax import errors
from deeplax import text_files
from deeplax.crf import dense
from deeplax.crf import mean_field
from deeplax.data import files
from deeplax.inference import asked as asked_lib
from deeplax.inference import predictor as predictor_lib
from deeplax.metrics import confusion
from deeplax.metrics import printed
from deeplax.settings import protocols
from deeplax.workdir import checkpoint

NAMES = ("w1", "sigma_alpha", "sigma_beta")
FIXED = ("w2", "sigma_gamma", "iterations")
Setting = tuple[float, ...]  # of NAMES
Grid = Mapping[str, Iterable[float | int]]


def first_grid(grid: Grid) -> list[Setting]:
  """Return the settings of the coarse round."""
  values = [sorted({float(v) for v in grid[name]}) for name in NAMES]
  return list(itertools.product(*values))


def finer_grid(grid: Grid, best: Setting, finer: int) -> list[Setting]:
  """Return the settings around the best.

  Args:
    grid: The coarse round's. A parameter of one value there is fixed.
    best: The best setting so far.
    finer: The coarse round's steps are divided by 2 to the power of this.
  """
  values = []
  for name, middle in zip(NAMES, best, strict=True):
    steps = np.diff(sorted({float(v) for v in grid[name]}))
    step = float(steps.min()) / 2**finer if steps.size else 0.0
    around = {middle - step, middle, middle + step}
    values.append(sorted(v for v in around if v > 0))
  return list(itertools.product(*values))


def class_pixels(
  labels: np.ndarray, predictions: np.ndarray, num_classes: int
) -> Int64[np.ndarray, "3 k"]:
  """Return the right, true and predicted pixels of each class of an image."""
  matrix = confusion.count(labels, predictions, num_classes)
  return np.stack([np.diagonal(matrix), matrix.sum(axis=1), matrix.sum(axis=0)])


def miou(pixels: Int64[np.ndarray, "3 k"]) -> float:
  """Return mIoU, over the classes that occur or are predicted.

  Args:
    pixels: Of `class_pixels`, added over the images.

  Raises:
    InputError: No pixel has a label.
  """
  score = confusion.mean(confusion.iou(*pixels))
  if score is None:
    raise errors.InputError(
      "no pixel to score: every label is the ignore label"
    )
  return score


def count_image(
  example: files.Example,
  probabilities: np.ndarray,
  settings: list[Setting],
  *,
  w2: float,
  sigma_gamma: float,
  iterations: int,
) -> Int64[np.ndarray, "n 3 k"]:
  """Return the class pixels of an image without CRF and with each setting.

  A lattice serves all weights: it is built once for each pair of sigmas.
  """
  image, label = example["image"], example["label"]
  size, classes = label.shape, probabilities.shape[-1]
  pixels = np.empty((1 + len(settings), 3, classes), np.int64)
  pixels[0] = class_pixels(label, probabilities.argmax(-1), classes)
  order = sorted(range(len(settings)), key=lambda i: settings[i][1:])
  for sigmas, group in itertools.groupby(order, lambda i: settings[i][1:]):
    alpha, beta = sigmas
    kernels = dense.kernels(
      image, sigma_alpha=alpha, sigma_beta=beta, sigma_gamma=sigma_gamma
    )
    unary = dense.log_probabilities(probabilities, kernels[0])
    for i in group:
      marginals = mean_field.mean_field(
        unary,
        kernels,
        (settings[i][0], w2),
        iterations=iterations,
      )
      labels = np.asarray(marginals.argmax(-1))[: label.size].reshape(size)
      pixels[1 + i] = class_pixels(label, labels, classes)
  return pixels


def search(
  predictor: predictor_lib.Predictor,
  source: files.Source,
  path: epath.Path,
  *,
  fields: dict[str, Any],
) -> dict[str, Any]:
  """Run the rest of a search; return its result, the contents of the file.

  Args:
    predictor: Without a CRF.
    source: RGB images and their labels.
    path: The result's file, which is also written after each image.
    fields: The part of the result that the search depends on: grid, rounds,
      w2, sigma_gamma, iterations, and where the predictions come from.

  Raises:
    InputError: The file belongs to another search, or no pixel has a label.
  """
  state = _resume(path, fields)
  fixed = {key: fields[key] for key in FIXED}
  for number in range(fields["rounds"]):
    if number < state["rounds_done"]:
      continue
    tried = {_setting(trial) for trial in state["trials"]}
    settings = (
      finer_grid(fields["grid"], _setting(_best(state)), number)
      if number
      else first_grid(fields["grid"])
    )
    settings = [setting for setting in settings if setting not in tried]
    if settings:
      _round(predictor, source, path, state, settings=settings, fixed=fixed)
    state["rounds_done"] = number + 1
    atomic.write_json(path, state)
    print(f"round {number + 1} of {fields['rounds']}: {_summary(state)}")
  if state["best"] is None:
    best = _best(state)
    state["best"] = {**{name: best[name] for name in NAMES}, **fixed}
    atomic.write_json(path, state)
  return state


def _round(
  predictor: predictor_lib.Predictor,
  source: files.Source,
  path: epath.Path,
  state: dict[str, Any],
  *,
  settings: list[Setting],
  fixed: dict[str, Any],
) -> None:
  """Score settings on all images, and write the state after each image."""
  progress = state["progress"] or {"images": 0, "counts": 0}
  done, pixels = progress["images"], np.asarray(progress["counts"], np.int64)
  pairs = len({setting[1:] for setting in settings})
  print(
    f"{len(settings)} settings on {len(source)} images, with "
    f"{pairs} lattices for each" + (f"; {done} are done" if done else "")
  )
  report = None
  for index in range(done, len(source)):
    example = source[index]
    try:
      probabilities = predictor(example["image"])
      pixels = pixels + count_image(example, probabilities, settings, **fixed)
    except ValueError as error:
      raise errors.InputError(f"{example['name']}: {error}") from error
    state["progress"] = {"images": index + 1, "counts": pixels.tolist()}
    atomic.write_json(path, state)
    if report is None:
      # From the second image on: the first one compiles the network and CRF.
      report = clocks.Progress(
        len(source), print, name="searched", done=index + 1, now=predictor.clock
      )
    else:
      report.step()
  state["without_crf"] = miou(pixels[0])
  state["trials"] += [
    {**dict(zip(NAMES, setting, strict=True)), "miou": miou(of_setting)}
    for setting, of_setting in zip(settings, pixels[1:], strict=True)
  ]
  state["progress"] = None


def _resume(path: epath.Path, fields: dict[str, Any]) -> dict[str, Any]:
  """Return the state in a file, or the state of a search not yet begun."""
  fields = json.loads(json.dumps(fields))
  if not path.exists():
    state = {"without_crf": None, "best": None, "rounds_done": 0}
    return {**fields, **state, "trials": [], "progress": None}
  fix = "move it away to start the search anew"
  state = text_files.read_json(path, fix=fix)
  with text_files.contents(path, fix=fix):
    differing = [key for key in fields if state[key] != fields[key]]
  if differing:
    key = differing[0]
    raise errors.InputError(
      f"{path} is of a search with {key}={state[key]}, and now it is "
      f"{fields[key]}: give the same flags to go on, or move the file away"
    )
  return state


def _best(state: dict[str, Any]) -> dict[str, float]:
  """Return the best trial, of equal ones the first: the smallest values."""
  return max(state["trials"], key=lambda trial: trial["miou"])


def _setting(trial: Mapping[str, float]) -> Setting:
  return tuple(trial[name] for name in NAMES)


def _summary(state: dict[str, Any]) -> str:
  best = _best(state)
  words = ", ".join(f"{name} {best[name]:g}" for name in NAMES)
  return (
    f"best {words}: mIoU {printed.score(best['miou'])}, without CRF "
    f"{printed.score(state['without_crf'])}"
  )


def run(
  args: argparse.Namespace, asked: asked_lib.Asked, source: files.Source
) -> None:
  """Search parameters for the run in `args.workdir`.

  Args:
    args: The flags of `deeplax.crf.search`.
    asked: What they ask of the run.
    source: The images to search on.

  Raises:
    InputError: The network has no such output stride, or a file is of another
      search.
  """
  (stride,), (mode,) = asked.strides, asked.modes
  step, split = asked.step, args.split or asked.run.config.data.eval_split
  model = asked.run.network(stride)
  predictor = asked.run.predictor(
    model,
    checkpoint.read(args.workdir, step),
    mode=mode,
    sizing=asked.sizing,
  )
  first = protocols.CRF_GRIDS[args.grid]
  grid = {name: getattr(args, name) or first[name] for name in NAMES}
  fields = {
    "split": split,
    "step": step,
    "output_stride": stride,
    "scales": list(mode.scales),
    "flip": mode.flip,
    "images": len(source),
    "grid": grid,
    **{name: getattr(args, name) for name in ("rounds", *FIXED)},
  }
  scales = "_".join(map(str, mode.scales)) + ("-flip" if mode.flip else "")
  name = f"{split}-{step:08d}-os{stride}-s{scales}"
  path = epath.Path(args.workdir) / "crf" / f"{name}-n{len(source)}.json"
  result = search(predictor, source, path, fields=fields)
  print(f"{_summary(result)}\n{path}")
  print(
    f"Next: {commands.typed('evaluate')} --workdir={args.workdir} "
    f"--crf_file={path}"
  )
