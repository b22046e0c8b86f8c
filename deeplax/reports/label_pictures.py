"""Label picture files with a trained network: masks and overlays."""

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
from deeplax.reports import pictures as pictures_lib
from deeplax.workdir import checkpoint
from deeplax.workdir import results

UNREADABLE = (errors.InputError, OSError)
SAVE_BACKLOG = 16  # pictures waiting to be written, at most
JPEG_SIDE = 65_500  # libjpeg's JPEG_MAX_DIMENSION
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
  failed: list[str],
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
      _skip(image, failed)
    else:
      yield {"image": image, "picture": picture}


def _skip(error: Exception, failed: list[str]) -> None:
  failed.append(str(error))
  print(f"deeplax: skipped: {error}", file=sys.stderr)


def save(
  picture: found_pictures.Picture,
  image: np.ndarray,
  found: np.ndarray,
  *,
  out: pathlib.Path,
  palette: pictures_lib.Palette,
) -> None:
  """Write the outputs of one picture, each whole or not at all.

  Args:
    picture: Names them.
    image: As read; of other bands than RGB, something to see is made.
    found: Labels [h, w], or probabilities [h, w, k] to be written too.
    out: The folder.
    palette: Colors of the classes.
  """
  labels = found
  if found.ndim == 3:
    labels = found.argmax(-1).astype(np.uint16)
    # Half precision: an image of 500x375 with 21 classes is 8 MB so.
    half = found.astype(np.float16)
    with _writing(picture.output(out, "probs.npz")) as file:
      np.savez_compressed(file, probabilities=half)
  with _writing(picture.output(out, found_pictures.MASK)) as file:
    pictures_lib.index_png(file, labels, palette)
  shown = bands.to_show(image)
  mixed = Image.fromarray(pictures_lib.overlay(shown, labels, palette))
  if max(mixed.size) > JPEG_SIDE:
    with _writing(picture.output(out, found_pictures.LONG_OVERLAY)) as file:
      mixed.save(file, format="PNG")
    return
  with _writing(picture.output(out, found_pictures.OVERLAY)) as file:
    mixed.save(file, format="JPEG", quality=92)


def _saved(
  item_and_labels: tuple[dict[str, Any], np.ndarray],
  *,
  out: pathlib.Path,
  palette: pictures_lib.Palette,
) -> errors.InputError | None:
  """Write the outputs of one picture; return why they cannot be written.

  Raises:
    InputError: No other picture can be written either.
  """
  item, labels = item_and_labels
  try:
    save(item["picture"], item["image"], labels, out=out, palette=palette)
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
) -> int:
  """Label pictures into a folder; return the command's status.

  Args:
    args: The flags of `deeplax.predict`.
    asked: What they ask of the run.
    pictures: What they name.
    out: The folder.

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
  failed = predict(
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
    palette=opened.spec.palette,
    reader=bands.Reader(channels) if channels else decoding.decode_image,
    probabilities=args.probs,
    threads=opened.config.data.threads,
  )
  return 1 if failed else 0


def predict(
  predictor: predictor_lib.Predictor,
  pictures: list[found_pictures.Picture],
  *,
  out: pathlib.Path,
  palette: pictures_lib.Palette,
  reader: files.Reader = decoding.decode_image,
  probabilities: bool = False,
  threads: int = 4,
) -> list[str]:
  """Label pictures into a folder and say how fast.

  Args:
    predictor: Predicts.
    pictures: Of `find`.
    out: The folder.
    palette: Colors of the classes.
    reader: Of the pictures, the one of training.
    probabilities: Write them too.
    threads: For reading, and again for writing.

  Returns:
    A line about each picture that could not be read, or not be written.
  """
  sizes = [s for p in pictures if (s := size(p.path))]
  predictor.expect(sizes)
  # Pictures that need windows are too large to wait in memory for each other.
  huge = any(predictor.sizing.cuts(size) for size in sizes)
  failed: list[str] = []
  clock: dict[str, float] = {"load": 0.0, "compute": 0.0, "save": 0.0}
  report = clocks.Progress(
    len(pictures), print, name="labeled", now=predictor.clock
  )
  loaded = load(
    pictures,
    failed,
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
    functools.partial(_saved, out=out, palette=palette),
    labeled(),
    threads=threads,
    n=0 if huge else SAVE_BACKLOG,
    clock=clock,
    name="save",
  )
  for _, error in saved:
    if error:
      _skip(error, failed)
  clock["compute"] -= predictor.compile_seconds
  total = sum(clock.values()) or 1.0
  shares = "  ".join(f"{k} {v / total:.0%}" for k, v in clock.items())
  done = len(pictures) - len(failed)
  print(
    f"{done} of {len(pictures)} pictures in "
    f"{clocks.duration(report.seconds)} after "
    f"{clocks.duration(predictor.compile_seconds)} of compiling: "
    f"{done / report.seconds:.1f} images/s  ({shares})\n"
    f"masks and overlays are in {out}"
  )
  return failed
