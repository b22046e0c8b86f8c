"""Results in a workdir's eval/: their paths, and writing and reading them."""

import json
from typing import Any

from etils import epath

from deeplax import atomic
from deeplax.metrics import printed
from deeplax.workdir import layout


def row_path(
  workdir: epath.PathLike, split: str, result: dict[str, Any]
) -> epath.Path:
  """Return the path in eval/ of a result; see `write_result`."""
  scales = "_".join(str(float(s)) for s in result["scales"])
  what = f"os{result['output_stride']}-s{scales}"
  if result["flip"]:
    what += "-flip"
  return result_path(workdir, split, what, result)


def write_result(
  workdir: epath.PathLike, split: str, result: dict[str, Any]
) -> epath.Path:
  """Write a result to the workdir's eval/ and return the path.

  Args:
    split: Name of the split that was evaluated.
    result: As `evaluate` returns it, with step, output_stride, scales, flip
      and, after a CRF, its parameters as "crf".
  """
  path = row_path(workdir, split, result)
  atomic.write_json(path, {"split": split, **result})
  return path


def result_path(
  workdir: epath.PathLike, split: str, what: str, result: dict[str, Any]
) -> epath.Path:
  """Return the path in eval/ of a result with step, crf, images, split_images.

  Exact sizes and windows are part of the name, so that these results do not
  replace those of the papers' way.
  """
  name = f"{split}-{result['step']:08d}-{what}"
  if result.get("crf"):
    name += "-crf"
  if (sizes := result.get("sizes", "reference")) != "reference":
    name += f"-{sizes}"
  if result.get("window"):
    name += "-w{}_{}".format(*result["window"])
  # The result of a part of a split must not replace that of the whole.
  if result["images"] < result["split_images"]:
    name += f"-n{result['images']}"
  return epath.Path(workdir) / layout.EVALUATIONS / f"{name}.json"


def known_miou(workdir: epath.PathLike, step: int, output_stride: int) -> str:
  """Return a step's mIoU in words, as far as the workdir's eval/ has it."""
  folder = epath.Path(workdir) / layout.EVALUATIONS
  wanted = f"*-{step:08d}-os{output_stride}-*.json"
  paths = list(folder.glob(wanted)) if folder.exists() else []
  if not paths:
    return "mIoU not evaluated"
  # The shortest name is the plain one: single scale, no flip, whole split.
  plain = min(paths, key=lambda p: (len(p.name), p.name))
  miou = miou_in(plain)
  shown = "not known, broken file" if miou is None else printed.score(miou)
  return f"mIoU {shown} ({plain.name.removesuffix('.json')})"


def miou_in(path: epath.PathLike) -> float | None:
  """Return the mIoU in a result's file; None: the file is broken.

  For lines that only mention it, which must not end a command.
  """
  try:
    return float(json.loads(epath.Path(path).read_bytes())["miou"])
  except (OSError, ValueError, LookupError, TypeError):
    return None
