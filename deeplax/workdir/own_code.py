"""Copies of a user's own files in a run's workdir, and what they guard.

A run keeps what it ran. Later commands load the user's file, not the copy, and
only if it is what the run ran; `settings.own` says when a file is run at all.
"""

import os
import pathlib
from typing import Any

from etils import epath

from deeplax import atomic
from deeplax import errors
from deeplax import text_files
from deeplax.settings import own
from deeplax.workdir import layout

_FIX = "train again, in another --workdir"


def keep(workdir: epath.PathLike, config: Any) -> None:
  """Copy the files that a configuration names into the workdir.

  Raises:
    InputError: One of them cannot be read.
  """
  folder, index = epath.Path(workdir) / layout.CODE, {}
  for reference in own.references(config):
    contents = own.text(reference)
    sha256, name = own.sha256(contents), os.path.basename(reference.path)
    # Files of one name in several folders.
    taken = {e["copy"]: e["sha256"] for e in index.values()}
    if taken.get(name, sha256) != sha256:
      name = f"{sha256[:8]}_{name}"
    folder.mkdir(parents=True, exist_ok=True)
    with atomic.writing(folder / name) as file:
      file.write(contents)
    index[reference.key] = {
      "file": reference.path,
      "copy": name,
      "sha256": sha256,
    }
  if index:
    atomic.write_json(folder / layout.CODE_INDEX, index)


def refuse_other(
  workdir: epath.PathLike, config: Any, *, part: str = ""
) -> None:
  """Refuse files of the user's that are not those that the run ran.

  Args:
    workdir: Of the run.
    config: The run's configuration.
    part: Beginning of the keys that matter, "model."; "": all.

  Raises:
    InputError: A file is gone or has changed.
  """
  folder = epath.Path(workdir) / layout.CODE
  for reference in own.references(config, part=part):
    index = text_files.read_json(folder / layout.CODE_INDEX, fix=_FIX)
    with text_files.contents(folder / layout.CODE_INDEX, fix=_FIX):
      copy = folder / os.path.basename(index[reference.key]["copy"])
      sha256 = str(index[reference.key]["sha256"])
    path = pathlib.Path(reference.path)
    if not path.is_file():
      raise errors.InputError(
        f"{reference}: {path} is gone, and this run needs it. {copy} is what "
        "it was; nothing runs that copy by itself. Read it, then put it at "
        f"{path}"
      )
    if own.sha256(path.read_bytes()) != sha256:
      raise errors.InputError(
        f"{reference}: {path} has changed since {workdir} was trained; {copy} "
        f"is what it was. Put that back at {path}, or train in another "
        "--workdir"
      )
