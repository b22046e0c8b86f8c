"""Evaluate a run: python -m deeplax.evaluate --workdir=runs/v3plus_xception

Labels are compared at their own size, and mIoU is counted over the data set.
"""

import argparse
from collections.abc import Callable
from typing import Any

from etils import epath
import jax
from jax.experimental import multihost_utils
import numpy as np
from PIL import Image

from deeplax import checkpoint
from deeplax import commands
from deeplax import errors
from deeplax import inference
from deeplax import logs
from deeplax import visualize
from deeplax.data import bands
from deeplax.data import build as data_build
from deeplax.data import files
from deeplax.data import loader
from deeplax.metrics import confusion
from deeplax.metrics import measures
from deeplax.models import build as model_build

# A class with more of the predicted pixels, but not of the true ones, means
# that the network has learned nothing else.
COLLAPSED = 0.99


class Subset:
  """Some examples of a source, spread evenly over it.

  The first ones would be one street or one class of a sorted data set.
  """

  def __init__(self, source: files.Source, images: int):
    self.spec, self.split, self._source = source.spec, source.split, source
    count = min(images, len(source)) if images > 0 else len(source)
    self._indices = np.arange(count) * len(source) // max(count, 1)

  def __len__(self) -> int:
    return len(self._indices)

  def __getitem__(self, index: int) -> files.Example:
    return self._source[self.index(index)]

  def index(self, index: int) -> int:
    """Return where an example stands in the source."""
    return int(self._indices[index])


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
  """Return the scores of a predictor on a source.

  Args:
    predictor: Predicts at each image's size.
    source: Examples with "image", "label" (255 is ignored) and "name", and the
      spec that names the classes.
    max_images: Only so many, spread evenly; 0: all.
    progress: Receives progress lines and the warning about a collapsed output.
    threads: Reading ahead while the device computes.
    keep: Receives (index in `source`, prediction) of each image.
    measured: What to measure besides the confusion matrix.
    **fields: Added to the result: step, output_stride, scales, flip, ...

  With several processes each takes its share of the images, and all return the
  same result.

  Returns:
    The fields of `confusion.scores` and `measures.scores`, "images" (counted),
    "split_images" (in the source) and `fields`.

  Raises:
    InputError: No image, no labelled pixel, or a label that is no class.
  """
  names = source.spec.class_names
  chosen = Subset(source, max_images)
  if not len(chosen):
    raise errors.InputError(f"no image to evaluate in {source.spec.name}")
  matrix = np.zeros((len(names), len(names)), np.int64)
  counts = measures.empty(len(names), measured)
  rank, ranks = jax.process_index(), jax.process_count()
  mine = len(range(rank, len(chosen), ranks))
  report = commands.Progress(
    mine, progress, name="evaluated", now=predictor.clock
  )
  examples = loader.examples(
    chosen, threads=threads, process_index=rank, process_count=ranks
  )
  found = inference.stream(predictor, examples)
  for place, (example, labels) in enumerate(found):
    matrix = confusion.add(matrix, _count(example, labels, len(names)))
    counts = measures.add(
      counts, measures.count(example["label"], labels, len(names), measured)
    )
    if keep:
      keep(chosen.index(rank + place * ranks), labels)
    report.step()
  if ranks > 1:
    matrix = sum_over_processes(matrix)
    counts = {k: sum_over_processes(counts[k]) for k in sorted(counts)}
  try:
    result = confusion.scores(matrix, names)
  except ValueError as error:
    raise errors.InputError(
      f"evaluating {source.spec.name}: {error}"
    ) from error
  result |= measures.scores(counts, names, measured)
  result |= {"images": len(chosen), "split_images": len(source), **fields}
  if warning := collapse_warning(result):
    progress(f"deeplax: {warning}")
  return result


def _count(example: dict[str, Any], labels: np.ndarray, k: int) -> np.ndarray:
  if example["label"].shape != labels.shape:
    raise errors.InputError(
      f"{example['name']}: the label is {example['label'].shape} and the image "
      f"{labels.shape}; both must have the same height and width"
    )
  try:
    return confusion.count(example["label"], labels, k)
  except ValueError as error:
    raise errors.InputError(f"{example['name']}: {error}") from error


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
  name = f"{split}-{result['step']:08d}-os{result['output_stride']}-s{scales}"
  if result["flip"]:
    name += "-flip"
  if result.get("crf"):
    name += "-crf"
  # Part of a split must not stand for, or overwrite, the whole.
  if result["images"] < result["split_images"]:
    name += f"-n{result['images']}"
  path = epath.Path(workdir) / "eval" / f"{name}.json"
  logs.write_json(path, {"split": split, **result})
  return path


def parser() -> argparse.ArgumentParser:
  """The command line; the config's eval values hold where it is silent."""
  parser = argparse.ArgumentParser(
    prog="python -m deeplax.evaluate",
    description="mIoU of a trained network on a split, per class.",
    epilog="example: python -m deeplax.evaluate "
    "--workdir=runs/v3plus_xception --output_strides=16,8 --flip",
    allow_abbrev=False,
  )
  commands.add_arguments(parser)
  commands.add_crf_arguments(parser)
  commands.add_measure_arguments(parser)
  parser.add_argument(
    "--output_strides",
    type=commands.numbers(int),
    metavar="OS,OS",
    help="e.g. 16,8: one evaluation each (default: the config's)",
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
  return parser


class Sheet:
  """The same few images of a source, each time with what is predicted now."""

  def __init__(self, source: files.Source, images: int):
    """Choose so many images, spread evenly over the source."""
    self._chosen = Subset(source, images)
    self._wanted = [self._chosen.index(i) for i in range(len(self._chosen))]
    self._predicted: dict[int, np.ndarray] = {}

  def keep(self, index: int, labels: np.ndarray) -> None:
    """Keep a prediction that is shown; for `evaluate`."""
    if index in self._wanted:
      self._predicted[index] = labels

  def draw(self, predictor: inference.Predictor) -> Image.Image:
    """Return image, truth and prediction of each, and forget the predictions.

    What `evaluate` did not come across, because of its max_images or because
    it was another process's, is predicted here.
    """
    predicted, self._predicted = self._predicted, {}
    examples = [self._chosen[i] for i in range(len(self._chosen))]
    labels = [
      predicted[index]
      if index in predicted
      else predictor.labels(example["image"])
      for index, example in zip(self._wanted, examples, strict=True)
    ]
    spec = self._chosen.spec
    return visualize.strip(
      [bands.to_show(example["image"]) for example in examples],
      [example["label"] for example in examples],
      labels,
      spec.palette,
      spec.class_names,
    )


@errors.command
def main(argv: list[str] | None = None) -> None:
  args = parser().parse_args(argv)
  run(checkpoint.load_config(args.workdir), args)


def run(config: Any, args: argparse.Namespace) -> None:
  """Evaluate the run in `args.workdir` once for each output stride."""
  commands.compilation_cache(args.workdir)
  split = args.split or config.data.eval_split
  strides = args.output_strides or (
    config.eval.output_stride or config.model.output_stride,
  )
  scales = args.scales or config.eval.scales
  flip = config.eval.flip if args.flip is None else args.flip
  crf = commands.crf_parameters(config, args)
  try:
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
  for stride, model in models.items():
    print(
      f"{args.workdir} step {step} on {config.data.name} {split}: "
      f"output stride {stride}, scales {', '.join(map(str, scales))}"
      + (", flip" if flip else "")
      + (f", CRF {crf}" if crf else "")
    )
    predictor = inference.Predictor(
      model,
      variables,
      pad_value=model_build.mean_pixel(config.model, channels),
      scales=scales,
      flip=flip,
      pad_to=config.eval.pad_to,
      crf=crf,
    )
    count = min(args.pictures, len(source))
    sheet = Sheet(source, count) if count > 0 else None
    result = evaluate(
      predictor,
      source,
      max_images=args.max_images,
      threads=config.data.threads,
      keep=sheet.keep if sheet else None,
      step=step,
      output_stride=stride,
      scales=list(scales),
      flip=flip,
      measured=commands.chosen_measures(args),
      crf=crf,
      init=commands.init_text(config, args.workdir),
    )
    path = write(args.workdir, split, result)
    print(measures.table(result, source.spec.class_names))
    print(f"{result['images']} images; {path}")
    if sheet:
      picture = path.with_suffix(".png")
      with picture.open("wb") as file:
        sheet.draw(predictor).save(file, format="PNG")
      print(f"{count} of them as pictures: {picture}")


if __name__ == "__main__":
  main()
