"""metrics.jsonl, and TensorBoard's copy of it."""

import json
import os
import time
from typing import Any

from etils import epath
import numpy as np
from PIL import Image

from deeplax import atomic
from deeplax.reports import gallery
from deeplax.workdir import layout
from deeplax.workdir import settings

# Nothing can be appended to a file of a bucket: it is written whole. Google's
# take one write of a file a second; so many seconds lie between two.
BETWEEN = 10.0


class MetricLog:
  """Writes metrics.jsonl, a line for each measurement.

  In a bucket (gs://) lines are written together, see `flush`. TensorBoard shows
  the same numbers if it is asked for.
  """

  def __init__(
    self,
    path: epath.PathLike,
    *,
    resume_step: int,
    write: bool,
    tensorboard: bool = False,
  ):
    """Open the log and cut it, and the pictures, back to `resume_step`.

    Steps after the restored checkpoint will run again and write their lines
    again.

    Args:
      path: The file, metrics.jsonl.
      resume_step: The last step to keep.
      write: False in all processes but one.
      tensorboard: Also write tensorboard/ beside it.

    Raises:
      InputError: TensorBoard is asked for and not installed.
    """
    self._path = epath.Path(path)
    self._write = write
    self._whole = "://" in os.fspath(path)  # cannot be appended to
    self._flushed = time.monotonic()
    self._tensorboard = None
    lines = []
    if write and self._path.exists():
      lines = [
        line
        for line in atomic.read_jsonl(self._path)
        if line["step"] <= resume_step
      ]
      # Written even if only a torn last line goes: the next would join it.
      atomic.write_text(self._path, _text(lines))
    # All lines, of which so many are written; in a bucket alone.
    self._lines, self._written = lines, len(lines)
    self._kept = [line for line in lines if line["step"] == resume_step]
    if write:
      gallery.cut(self._path.parent, resume_step)
    if write and tensorboard:
      self._tensorboard = _tensorboard(self._path.parent, lines)

  def write(self, step: int, values: dict[str, Any]) -> None:
    """Append one line, unless the run wrote the same before it was resumed."""
    line = {"step": step, **values}
    if self._write and line not in self._kept:
      if self._whole:
        self._lines.append(line)
        if time.monotonic() - self._flushed >= BETWEEN:
          self.flush()
      else:
        with self._path.open("a") as file:
          file.write(_text([line]))
    if self._tensorboard:
      self._tensorboard.write_scalars(step, values)
      self._tensorboard.flush()

  def flush(self) -> None:
    """Write all lines, before a checkpoint behind which a run resumes."""
    if len(self._lines) > self._written:
      atomic.write_text(self._path, _text(self._lines))
      self._written = len(self._lines)
      self._flushed = time.monotonic()

  def picture(self, step: int, name: str, image: np.ndarray) -> None:
    """Show a uint8 [h, w, 3] picture in TensorBoard if it is asked for."""
    if self._tensorboard:
      self._tensorboard.write_images(step, {name: image[None]})
      self._tensorboard.flush()

  def close(self) -> None:
    """Finish both files."""
    self.flush()
    if self._tensorboard:
      self._tensorboard.close()


def _text(lines: list[dict[str, Any]]) -> str:
  return "".join(json.dumps(line) + "\n" for line in lines)


def _tensorboard(workdir: epath.Path, lines: list[dict[str, Any]]) -> Any:
  """Return a writer of tensorboard/ that has written the log up to now.

  Events cannot be taken back, and clu passes no purge step on to TensorFlow, so
  a resumed run writes the folder anew from metrics.jsonl and pictures/.
  """
  folder = workdir / "tensorboard"
  if folder.exists():
    folder.rmtree()
  writer = metric_writers().SummaryWriter(str(folder))
  config = workdir / layout.CONFIG
  if config.exists():
    text = config.read_text()
    writer.write_texts(0, {"config": f"```\n{text}\n```"})
    flat = settings.flatten(json.loads(text))
    plain = bool | int | float | str  # what TensorBoard can hold
    writer.write_hparams(
      {k: v if isinstance(v, plain) else str(v) for k, v in flat.items()}
    )
  for line in lines:
    values = {key: value for key, value in line.items() if key != "step"}
    writer.write_scalars(line["step"], values)
  for step, split, path in gallery.sheets(workdir):
    with path.open("rb") as file, Image.open(file) as picture:
      writer.write_images(step, {split: np.asarray(picture)[None]})
  writer.flush()
  return writer


def metric_writers() -> Any:
  """Return `clu.metric_writers`, which needs TensorFlow and TensorBoard."""
  from clu import metric_writers
  import tensorflow  # pyright: ignore

  # Otherwise TensorFlow takes all of a GPU's memory to write a few numbers.
  tensorflow.config.set_visible_devices([], "GPU")
  return metric_writers
