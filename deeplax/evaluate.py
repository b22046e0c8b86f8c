"""Evaluate a run: python -m deeplax.evaluate --workdir=runs/v3plus_xception

It makes the papers' table: every output stride, one scale and several, with and
without flips. What rows share of an image is computed once; see `averaging`.
Labels are compared at their own size, and mIoU is counted over the data set.
"""

import argparse
import collections
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any, NamedTuple

from etils import epath
import jax
from jax.experimental import multihost_utils
import numpy as np

from deeplax import checkpoint
from deeplax import commands
from deeplax import errors
from deeplax import inference
from deeplax import logs
from deeplax import shown
from deeplax import sweep as sweep_lib
from deeplax.data import build as data_build
from deeplax.data import files
from deeplax.data import loader
from deeplax.data import spec as spec_lib
from deeplax.data import subset
from deeplax.metrics import confusion
from deeplax.metrics import measures
from deeplax.models import build as model_build

# A class with more of the predicted pixels, but not of the true ones, means
# that the network has learned nothing else.
COLLAPSED = 0.99

# Images that may wait to be counted while the device works on the next ones.
COUNTING = 2


class Counted(NamedTuple):
  """A prediction of an image, and what was counted in it.

  Attributes:
    example: Of the source.
    labels: Prediction.
    counts: The confusion matrix as "matrix", and those of `measures.count`.
  """

  example: dict[str, Any]
  labels: np.ndarray
  counts: measures.Counts


def evaluate(
  predictor: inference.Predictor,
  source: files.Source,
  *,
  max_images: int = 0,
  progress: Callable[[str], None] = print,
  threads: int = 4,
  keep: Callable[[int, np.ndarray], None] | None = None,
  measured: measures.Chosen = measures.NOTHING,
  **fields: Any,
) -> dict[str, Any]:
  """Return the scores of a predictor on a source; see `evaluate_rows`.

  Args:
    predictor: Predicts, in its own mode.
    source: See `evaluate_rows`.
    max_images: See `evaluate_rows`.
    progress: See `evaluate_rows`.
    threads: See `evaluate_rows`.
    keep: Receives (index in `source`, prediction) of each image.
    measured: See `evaluate_rows`.
    **fields: Added to the result: step, output_stride, scales, flip, ...
  """

  def keep_one(row: int, index: int, counted: Counted) -> None:
    if keep:
      keep(index, counted.labels)

  (result,) = evaluate_rows(
    sweep_lib.Sweep(predictor, timed=False),
    source,
    max_images=max_images,
    progress=progress,
    threads=threads,
    keep=keep_one,
    measured=measured,
    **fields,
  )
  return result


def evaluate_rows(
  sweep: sweep_lib.Sweep,
  source: files.Source,
  *,
  max_images: int = 0,
  progress: Callable[[str], None] = print,
  threads: int = 4,
  keep: Callable[[int, int, Counted], None] | None = None,
  measured: measures.Chosen = measures.NOTHING,
  clock: dict[str, float] | None = None,
  **fields: Any,
) -> list[dict[str, Any]]:
  """Return the scores of each mode of a sweep, all from one pass.

  Args:
    sweep: Predicts at each image's size.
    source: Examples with "image", "label" (255 is ignored) and "name", and the
      spec that names the classes.
    max_images: Only so many, spread evenly; 0: all.
    progress: Receives progress lines and the warning about a collapsed output.
    threads: Reading ahead, and as many counting, while the device computes.
    keep: Receives (place of the mode, index in `source`, `Counted`) of each
      image and mode, in order.
    measured: What to measure besides the confusion matrix.
    clock: See `inference.stream`; also the seconds waited under "count".
    **fields: Added to each result: step, output_stride, ...

  With several processes each takes its share of the images, and all return the
  same results.

  Returns:
    For each mode the fields of `confusion.scores` and `measures.scores`,
    "images" (counted), "split_images" (in the source) and `fields`.

  Raises:
    InputError: No image, no labelled pixel, or a label that is no class.
  """
  names = source.spec.class_names
  chosen = subset.Subset(source, max_images)
  if not len(chosen):
    raise errors.InputError(f"no image to evaluate in {source.spec.name}")
  rows = [_no_counts(len(names), measured) for _ in sweep.modes]
  rank, ranks = jax.process_index(), jax.process_count()
  mine = len(range(rank, len(chosen), ranks))
  report = commands.Progress(
    mine, progress, name="evaluated", now=sweep.predictor.clock
  )
  examples = loader.examples(
    chosen, threads=threads, process_index=rank, process_count=ranks
  )
  clock = {} if clock is None else clock
  predicted = inference.stream(sweep, examples, clock=clock)
  for place, found in enumerate(
    _counted(predicted, len(names), measured, threads=threads, clock=clock)
  ):
    for row, counted in enumerate(found):
      rows[row] = measures.add(rows[row], counted.counts)
      if keep:
        keep(row, chosen.index(rank + place * ranks), counted)
    report.step()
  fields = {"images": len(chosen), "split_images": len(source), **fields}
  fields |= sweep.predictor.sizing
  return [
    _result(counts, source.spec, measured, fields, progress) for counts in rows
  ]


def _counted(
  predicted: Iterator[tuple[dict[str, Any], list[np.ndarray]]],
  k: int,
  measured: measures.Chosen,
  *,
  threads: int,
  clock: dict[str, float],
) -> Iterator[list[Counted]]:
  """Yield each image's predictions, counted by threads, in order."""
  waiting = collections.deque()
  pool = futures.ThreadPoolExecutor(max(threads, 1))

  def first() -> list[Counted]:
    example, found, counts = waiting.popleft()
    with commands.timed(clock, "count"):
      return [
        Counted(example, labels, job.result())
        for labels, job in zip(found, counts, strict=True)
      ]

  try:
    for example, found in predicted:
      counts = [pool.submit(_count, example, x, k, measured) for x in found]
      waiting.append((example, found, counts))
      if len(waiting) > COUNTING:
        yield first()
    while waiting:
      yield first()
  finally:
    pool.shutdown(cancel_futures=True)


def _no_counts(k: int, measured: measures.Chosen) -> measures.Counts:
  matrix = np.zeros((k, k), np.int64)
  return {"matrix": matrix, **measures.empty(k, measured)}


def _count(
  example: dict[str, Any],
  labels: np.ndarray,
  k: int,
  measured: measures.Chosen,
) -> measures.Counts:
  """Count an image: its confusion matrix as "matrix", and what is measured."""
  truth = example["label"]
  if truth.shape != labels.shape:
    raise errors.InputError(
      f"{example['name']}: the label is {truth.shape} and the image "
      f"{labels.shape}; both must have the same height and width"
    )
  try:
    matrix = confusion.count(truth, labels, k)
    return {"matrix": matrix, **measures.count(truth, labels, k, measured)}
  except ValueError as error:
    raise errors.InputError(f"{example['name']}: {error}") from error


def _result(
  counts: measures.Counts,
  spec: spec_lib.Spec,
  measured: measures.Chosen,
  fields: dict[str, Any],
  progress: Callable[[str], None],
) -> dict[str, Any]:
  """Sum a row's counts over the processes and return its scores."""
  if jax.process_count() > 1:
    # Sorted: each process must take part in the same order.
    counts = {key: sum_over_processes(counts[key]) for key in sorted(counts)}
  try:
    result = confusion.scores(counts["matrix"], spec.class_names)
  except ValueError as error:
    raise errors.InputError(f"evaluating {spec.name}: {error}") from error
  result |= measures.scores(counts, spec.class_names, measured)
  result |= fields
  if warning := collapse_warning(result):
    progress(f"deeplax: {warning}")
  return result


def sum_over_processes(
  matrix: np.ndarray,
  gather: Callable[[np.ndarray], Any] = multihost_utils.process_allgather,
) -> np.ndarray:
  """Return the sum of every process's counts."""
  # Halves: JAX would cut int64 to int32, and a data set has more pixels.
  halves = np.ascontiguousarray(matrix).view(np.uint32)
  return np.ascontiguousarray(gather(halves)).view(np.int64).sum(axis=0)


def collapse_warning(result: dict[str, Any]) -> str | None:
  """Say so when nearly all pixels are predicted as one class."""
  for name, (true, predicted) in result["pixel_share"].items():
    if predicted > COLLAPSED >= true:
      step = f" step {result['step']}" if "step" in result else ""
      return (
        f"eval{step}: {predicted:.1%} of predicted pixels are {name!r} (truth "
        f"{true:.0%}). Usual causes: too few steps, optim.base_lr too high, "
        "norm statistics not adapted yet (model.batch_norm.decay too near 1 "
        "for so few steps), masks almost empty. Next: python -m "
        "deeplax.overfit_check --config=... tells which"
      )
  return None


def write(
  workdir: epath.PathLike, split: str, result: dict[str, Any]
) -> epath.Path:
  """Write a result to the workdir's eval/ and return the path.

  Args:
    workdir: Of the run.
    split: The name of what was evaluated.
    result: Of `evaluate`, with step, output_stride, scales, flip and, if there
      was a CRF, its parameters as "crf".
  """
  scales = "_".join(str(float(s)) for s in result["scales"])
  what = f"os{result['output_stride']}-s{scales}"
  if result["flip"]:
    what += "-flip"
  path = result_path(workdir, split, what, result)
  logs.write_json(path, {"split": split, **result})
  return path


def result_path(
  workdir: epath.PathLike, split: str, what: str, result: dict[str, Any]
) -> epath.Path:
  """Return the path in eval/ of what has step, crf, images, split_images.

  Those with exact sizes or windows stand beside the papers' way.
  """
  name = f"{split}-{result['step']:08d}-{what}"
  if result.get("crf"):
    name += "-crf"
  if result.get("sizes") == "exact":
    name += "-exact"
  if result.get("window"):
    name += "-w{}_{}".format(*result["window"])
  # Part of a split must not stand for, or overwrite, the whole.
  if result["images"] < result["split_images"]:
    name += f"-n{result['images']}"
  return epath.Path(workdir) / "eval" / f"{name}.json"


def parser() -> argparse.ArgumentParser:
  """The command line; the config's eval values hold where it is silent."""
  parser = argparse.ArgumentParser(
    prog="python -m deeplax.evaluate",
    description="mIoU of a trained network on a split, per class: the papers' "
    "table of output strides, scales and flips, config.eval.sweep. With one of "
    "--output_strides, --scales and --flip only that evaluation.",
    epilog="example: python -m deeplax.evaluate "
    "--workdir=runs/v3plus_xception --output_strides=16,8 --flip",
    allow_abbrev=False,
  )
  commands.add_arguments(parser)
  commands.add_crf_arguments(parser)
  commands.add_measure_arguments(parser)
  commands.add_size_arguments(parser)
  parser.add_argument(
    "--output_strides",
    type=commands.numbers(int),
    metavar="OS,OS",
    help="e.g. 16,8: one evaluation each (default: the config's)",
  )
  parser.add_argument(
    "--sweep",
    action=argparse.BooleanOptionalAction,
    help="the whole table, with the strides, scales and flip that are given; "
    "--no-sweep: only the evaluation of training, config.eval (default: the "
    "table if none of them is given)",
  )
  parser.add_argument("--split", help="default: the config's data.eval_split")
  parser.add_argument(
    "--max_images",
    type=int,
    default=0,
    metavar="N",
    help="only N images, spread evenly over the split (default: all)",
  )
  parser.add_argument(
    "--pictures",
    type=int,
    default=0,
    metavar="N",
    help="also write a sheet of N images, truths and predictions (default: 0)",
  )
  parser.add_argument(
    "--html",
    action="store_true",
    help="also write a page with the table, the confusion matrix and the worst "
    "images, for each evaluation; it needs no network",
  )
  parser.add_argument(
    "--worst",
    type=int,
    default=20,
    metavar="N",
    help="images on that page (default: 20)",
  )
  return parser


@errors.command
def main(argv: list[str] | None = None) -> None:
  args = parser().parse_args(argv)
  run(checkpoint.load_config(args.workdir), args)


def run(config: Any, args: argparse.Namespace) -> None:
  """Evaluate the run in `args.workdir`, each row of the table."""
  commands.compilation_cache(args.workdir)
  if args.worst < 1:
    raise errors.InputError(f"--worst={args.worst}: give 1 or more")
  split = args.split or config.data.eval_split
  crf = commands.crf_parameters(config, args)
  sizing = commands.sizing(config, args)
  try:
    strides, modes = sweep_lib.chosen(config, args)
    source = data_build.source(config.data, split)
    checkpoint.refuse_other_classes(args.workdir, source.spec)
    channels = data_build.channels(config.data)
    models = {
      stride: model_build.from_config(
        config.model,
        num_classes=source.spec.num_classes,
        output_stride=stride,
        channels=channels,
      )
      for stride in strides
    }
  except ValueError as error:
    raise errors.InputError(str(error)) from error
  variables, step = checkpoint.restore_variables(args.workdir, args.step)
  what = f"{args.workdir} step {step} on {config.data.name} {split}"
  tabulated = args.html or len(models) * len(modes) > 1
  rows, evaluated = [], []
  for stride, model in models.items():
    print(
      f"{what}: output stride {stride}, {'; '.join(map(str, modes))}"
      + (f", CRF {crf}" if crf else "")
      + commands.sizing_text(sizing)
    )
    predictor = inference.Predictor(
      model,
      variables,
      pad_value=model_build.mean_pixel(config.model, channels),
      **sizing,
      crf=crf,
    )
    sweep = sweep_lib.Sweep(predictor, modes)
    kept = [shown.Kept(source, args) for _ in modes]
    results = evaluate_rows(
      sweep,
      source,
      max_images=args.max_images,
      threads=config.data.threads,
      keep=lambda row, index, counted, kept=kept: kept[row].keep(
        index, counted.labels, counted.counts["matrix"]
      ),
      step=step,
      output_stride=stride,
      measured=commands.chosen_measures(args),
      crf=crf,
      init=commands.init_text(config, args.workdir),
    )
    for mode, result, keep in zip(modes, results, kept, strict=True):
      result |= {"scales": list(mode.scales), "flip": mode.flip}
      path = write(args.workdir, split, result)
      keep.draw(path.with_suffix(".png"), predictor.in_mode(mode))
      if tabulated:
        rows.append(
          sweep_lib.row(result, sweep, mode, model=model, file=path.name)
        )
      evaluated.append((path, result, keep))
  if len(evaluated) == 1:
    print(measures.table(evaluated[0][1], source.spec.class_names))
  else:
    path = result_path(args.workdir, split, "table", evaluated[0][1])
    _write_table(path, rows, evaluated[0][1], title=what, split=split)
  for path, result, keep in evaluated:
    print(f"{result['images']} images; {path}")
    if args.html:
      page = path.with_suffix(".html")
      name = sweep_lib.name(result)
      keep.page(page, result, rows, title=f"{what}, {name}")
      print(f"the worst of them on a page: {page}")


def _write_table(
  path: epath.Path,
  rows: list[dict[str, Any]],
  result: dict[str, Any],
  *,
  title: str,
  split: str,
) -> None:
  """Write the table with what all rows share, and print it."""
  shared = ("step", "images", "split_images", "crf", "init")
  shared += ("sizes", "window")
  fields = {key: result[key] for key in shared}
  sweep_lib.write(path, rows, title=title, split=split, **fields)
  print(f"\n{path.with_suffix('.md').read_text()}\n{path}")


if __name__ == "__main__":
  main()
