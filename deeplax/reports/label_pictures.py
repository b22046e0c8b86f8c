"""Label picture files with a trained network: masks, overlays, a summary."""

import argparse
from collections.abc import Iterator
import contextlib
import errno
import functools
import pathlib
import sys
from typing import IO, Any

import numpy as np
from PIL import Image

from deeplax import ahead
from deeplax import atomic
from deeplax import clocks
from deeplax import errors
from deeplax.data import bands
from deeplax.data import decoding
from deeplax.data import files
from deeplax.inference import asked as asked_lib
from deeplax.inference import predictor as predictor_lib
from deeplax.reports import found_pictures
from deeplax.reports import legend
from deeplax.reports import pictures as pictures_lib
from deeplax.reports import predictions_page
from deeplax.reports import shown_classes
from deeplax.workdir import checkpoint
from deeplax.workdir import results

UNREADABLE = (errors.InputError, OSError)
SAVE_BACKLOG = 16  # pictures waiting to be written, at most
JPEG_SIDE = 65_500  # libjpeg's JPEG_MAX_DIMENSION
LINES = 20  # pictures that get a line each; of more, a summary says enough
# The disk will take no other picture either.
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


def size(path: pathlib.Path) -> tuple[int, int] | None:
  """Return (height, width) from a file's header, None if it has none."""
  try:
    with path.open("rb") as file:
      return decoding.image_header(file, str(path)).size
  except UNREADABLE:
    return None


def load(
  pictures: list[found_pictures.Picture],
  failed: list[predictions_page.Failure],
  *,
  reader: files.Reader,
  threads: int,
  n: int,
) -> Iterator[dict[str, Any]]:
  """Yield pictures in order, `n` read ahead; `failed` gets the unreadable."""

  def read(picture: found_pictures.Picture) -> np.ndarray | Exception:
    try:
      return reader(picture.path.read_bytes(), str(picture.path))
    except UNREADABLE as error:
      return error

  for picture, image in ahead.in_threads(read, pictures, threads=threads, n=n):
    if isinstance(image, Exception):
      _skip(picture, image, failed)
    else:
      yield {"image": image, "picture": picture}


def _skip(
  picture: found_pictures.Picture,
  error: Exception,
  failed: list[predictions_page.Failure],
) -> None:
  failed.append(predictions_page.Failure(picture, str(error)))
  print(f"deeplax: skipped: {error}", file=sys.stderr)


def save(
  picture: found_pictures.Picture,
  image: np.ndarray,
  found: np.ndarray,
  *,
  out: pathlib.Path,
  shown: shown_classes.Shown,
) -> predictions_page.Labeled:
  """Write the outputs of one picture, each whole or not at all.

  Args:
    picture: Names them.
    image: As read; of other bands than RGB, something to see is made.
    found: Labels [h, w], or probabilities [h, w, k] to be written too.
    out: The folder.
    shown: The classes to show.
  """
  labels = found
  if found.ndim == 3:
    labels = found.argmax(-1).astype(np.uint16)
    # Half precision: an image of 500x375 with 21 classes is 8 MB so.
    half = found.astype(np.float16)
    with _writing(picture.output(out, "probs.npz")) as file:
      np.savez_compressed(file, probabilities=half)
  labels = shown.filtered(labels)
  with _writing(picture.output(out, found_pictures.MASK)) as file:
    pictures_lib.index_png(file, labels, shown.spec.palette)
  height, width = labels.shape
  shares = shown.shares(labels)
  rgb = bands.to_show(image)
  sheet = legend.overlaid(rgb, labels, shares, shown)
  mixed = Image.fromarray(sheet)
  if max(mixed.size) > JPEG_SIDE:
    with _writing(picture.output(out, found_pictures.LONG_OVERLAY)) as file:
      mixed.save(file, format="PNG")
  else:
    with _writing(picture.output(out, found_pictures.OVERLAY)) as file:
      mixed.save(file, format="JPEG", quality=92)
  for ending, pixels in (
    (found_pictures.SMALL_PICTURE, rgb),
    (found_pictures.SMALL_OVERLAY, sheet[:height, :width]),
  ):
    with _writing(picture.small(out, ending)) as file:
      predictions_page.small(pixels).save(file, format="JPEG", quality=85)
  return predictions_page.Labeled(picture, (height, width), shares)


def _saved(
  item_and_labels: tuple[dict[str, Any], np.ndarray],
  *,
  out: pathlib.Path,
  shown: shown_classes.Shown,
) -> predictions_page.Labeled | errors.InputError:
  """Write the outputs of one picture, as `save`, or return why it cannot.

  Raises:
    InputError: No other picture can be written either.
  """
  item, labels = item_and_labels
  try:
    return save(item["picture"], item["image"], labels, out=out, shown=shown)
  except errors.InputError as error:
    if getattr(error.__cause__, "errno", None) in NO_SPACE:
      raise
    return error


@contextlib.contextmanager
def _writing(path: pathlib.Path) -> Iterator[IO[bytes]]:
  try:
    with atomic.writing(path) as file:
      yield file
  except OSError as error:
    raise errors.InputError(
      f"cannot write {path}: {error.strerror or error}"
    ) from error


def label(
  args: argparse.Namespace,
  asked: asked_lib.Asked,
  pictures: list[found_pictures.Picture],
  out: pathlib.Path,
  shown: shown_classes.Shown,
) -> int:
  """Label pictures into a folder; return the command's status.

  Args:
    args: The flags of `deeplax.predict`.
    asked: What they ask of the run.
    pictures: What they name.
    out: The folder.
    shown: The classes that they ask for.

  Raises:
    InputError: The network has no such output stride, or the disk is full.
  """
  opened, step = asked.run, asked.step
  (stride,), (mode,) = asked.strides, asked.modes
  model = opened.network(stride)
  variables = checkpoint.read(args.workdir, step)
  names = opened.spec.class_names
  print(
    f"{args.workdir} step {step}, "
    f"{results.known_miou(args.workdir, step, stride)}\n"
    f"{len(names)} classes: {', '.join(names)}"
  )
  channels = opened.config.data.channels
  outcome = predict(
    opened.predictor(
      model,
      variables,
      mode=mode,
      sizing=asked.sizing,
      crf=asked.crf,
      batch=asked.batch,
    ),
    pictures,
    out=out,
    shown=shown,
    reader=bands.Reader(channels) if channels else decoding.decode_image,
    probabilities=args.probs,
    threads=opened.config.data.threads,
    title=f"Predictions of {args.workdir}, step {step}",
  )
  return 1 if outcome.failed else 0


def predict(
  predictor: predictor_lib.Predictor,
  pictures: list[found_pictures.Picture],
  *,
  out: pathlib.Path,
  shown: shown_classes.Shown,
  reader: files.Reader = decoding.decode_image,
  probabilities: bool = False,
  threads: int = 4,
  title: str = "Predictions",
) -> predictions_page.Outcome:
  """Label pictures into a folder, and say what is in them and how fast.

  Args:
    predictor: Predicts.
    pictures: Of `find`.
    out: The folder.
    shown: The classes to show.
    reader: Of the pictures, the one of training.
    probabilities: Write them too.
    threads: For reading, and again for writing.
    title: Of the page, which is written even if the pass is stopped.
  """
  sizes = [s for p in pictures if (s := size(p.path))]
  predictor.expect(sizes)
  # Pictures that need windows are too large to wait in memory for each other.
  huge = any(predictor.sizing.cuts(size) for size in sizes)
  outcome = predictions_page.Outcome(pictures, [], [])
  clock: dict[str, float] = {"load": 0.0, "compute": 0.0, "save": 0.0}
  report = clocks.Progress(
    len(pictures), print, name="labeled", now=predictor.clock
  )
  loaded = load(
    pictures,
    outcome.failed,
    reader=reader,
    threads=threads,
    n=0 if huge else 2 * threads,
  )
  submit = functools.partial(
    predictor.submit, kind="probabilities" if probabilities else "labels"
  )
  stream = predictor_lib.stream(
    submit, loaded, n=0 if huge else predictor.look_ahead, clock=clock
  )

  def labeled() -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    for item_and_labels in stream:
      yield item_and_labels
      report.step()

  saved = ahead.in_threads(
    functools.partial(_saved, out=out, shown=shown),
    labeled(),
    threads=threads,
    n=0 if huge else SAVE_BACKLOG,
    clock=clock,
    name="save",
  )
  write = functools.partial(
    predictions_page.write, out, outcome, shown=shown, title=title
  )
  try:
    for (item, _), result in saved:
      _tell(item["picture"], result, outcome, shown)
  except BaseException:
    # Nothing is worth hiding what has stopped the pass.
    with contextlib.suppress(OSError):
      write()
    raise
  page = out / found_pictures.PAGE
  with errors.disk_errors(f"cannot write {page}", "make room there"):
    write()
  _tell_average(outcome, shown)
  _tell_speed(outcome, clock, report.seconds, predictor.compile_seconds)
  print(f"masks and overlays are in {out}; all on one page: {page}")
  return outcome


def _tell_speed(
  outcome: predictions_page.Outcome,
  clock: dict[str, float],
  seconds: float,
  compiling: float,
) -> None:
  """Say how fast it went, and what took the time."""
  clock["compute"] -= compiling
  total = sum(clock.values()) or 1.0
  parts = "  ".join(f"{k} {v / total:.0%}" for k, v in clock.items())
  done = len(outcome.labeled)
  print(
    f"{done} of {len(outcome.pictures)} pictures in "
    f"{clocks.duration(seconds)} after {clocks.duration(compiling)} of "
    f"compiling: {done / seconds:.1f} images/s  ({parts})"
  )


def _tell(
  picture: found_pictures.Picture,
  result: predictions_page.Labeled | errors.InputError,
  outcome: predictions_page.Outcome,
  shown: shown_classes.Shown,
) -> None:
  """Add what became of a picture to the outcome, and say it."""
  if isinstance(result, errors.InputError):
    _skip(picture, result, outcome.failed)
    return
  outcome.labeled.append(result)
  if len(outcome.pictures) <= LINES:
    print(f"{picture.name}: {shown.line(result.shares)}", flush=True)


def _tell_average(
  outcome: predictions_page.Outcome, shown: shown_classes.Shown
) -> None:
  """Print the mean share of each class in several pictures."""
  done = len(outcome.labeled)
  if done > 1:
    shares = predictions_page.mean_shares(outcome.labeled)
    print(f"on average: {shown.line(shares)}")
