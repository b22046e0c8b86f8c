"""data.json: the training data as they were when a run began.

A run resumes exactly only on the same data. Names and sizes of files are
compared; no file is read.
"""

from collections.abc import Callable
import hashlib
from typing import Any

from etils import epath

from deeplax import atomic
from deeplax import errors
from deeplax import text_files
from deeplax.data import files
from deeplax.data import views
from deeplax.workdir import layout


def refuse_other(
  folder: epath.Path, source: files.Source, progress: Callable[[str], None]
) -> None:
  """Refuse to resume on other images; report it if only sizes differ.

  A mended mask has another size, so sizes may differ. A run without a
  checkpoint, or of an earlier version without data.json, takes any data.

  Args:
    folder: The workdir.
    source: The training split.
    progress: Receives a line about files of another size.

  Raises:
    InputError: There are more or fewer images, or others by name.
  """
  path = folder / layout.TRAINING_DATA
  if not path.exists() or not layout.checkpoint_steps(folder):
    return
  if (now := _described(source)) is None:
    return
  fix = f"remove {path} to resume with the data as they are now"
  then = text_files.read_json(path, fix=fix)
  with text_files.contents(path, fix=fix):
    # A prepared data set holds the same images in other files.
    alike = then["prepared"] == now["prepared"]
    what = ""
    if then["images"] != now["images"]:
      what = f"{then['images']} images, and the data now has {now['images']}"
    elif alike and then["names"] != now["names"]:
      what = "images of other names than the data has now"
    resized = alike and then["sizes"] != now["sizes"]
  if what:
    raise errors.InputError(
      f"{folder} was trained on {what}: resuming would not continue the same "
      "run. Give the data its old images; or train in another --workdir, "
      f"from this one's parameters by --config.init.checkpoint={folder}; or "
      f"{fix}"
    )
  if resized:
    progress(
      "deeplax: some training files have another size than when this run "
      "began; it resumes with them, but not exactly as it would have"
    )


def write(folder: epath.Path, source: files.Source, *, resumed: bool) -> None:
  """Write data.json, unless a resumed run has it already.

  Args:
    folder: The workdir.
    source: The training examples; repeated images are counted once.
    resumed: Whether the run resumes from a checkpoint.
  """
  path = folder / layout.TRAINING_DATA
  if resumed and path.exists():
    return
  if described := _described(source):
    atomic.write_json(path, described)


def _described(source: files.Source) -> dict[str, Any] | None:
  """Return data.json's contents; None: the images are made up, not on disk."""
  source, _ = views.origin(source, [])
  if not isinstance(source, files.Decoded):
    return None
  names, sizes = hashlib.sha256(), hashlib.sha256()
  for name, size in source.contents():
    names.update(f"{name}\n".encode())
    sizes.update(f"{size}\n".encode())
  return {
    "split": source.split,
    "images": len(source),
    "prepared": source.prepared,
    "names": names.hexdigest(),
    "sizes": sizes.hexdigest(),
  }
