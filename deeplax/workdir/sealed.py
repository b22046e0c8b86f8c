"""The seals of a run's checkpoints, and which of its steps are sound.

A finished checkpoint has a `sha256.json`, written last. One without it, or with
another sum, is skipped with a message. Nothing here needs JAX: commands look
for a checkpoint before they load it.
"""

from collections.abc import Callable, Iterable, Mapping
import hashlib
import json

from etils import epath

from deeplax import atomic
from deeplax import clocks
from deeplax import errors
from deeplax.workdir import layout
from deeplax.workdir import results

SUMS = "sha256.json"
CHUNK = 1 << 24  # bytes that are hashed at once
SCORE = "metrics/metrics"  # Orbax's name for it


def seal(folder: epath.Path) -> None:
  """Write the sums of a finished checkpoint, without a word of progress."""
  atomic.write_json(folder / SUMS, _sums(folder, progress=_silent))


def write_score(folder: epath.Path, miou: float) -> None:
  """Write the validation mIoU of a sealed checkpoint into it."""
  known = json.loads((folder / SUMS).read_bytes())  # first: it may not be there
  atomic.write_json(folder / SCORE, {"miou": miou})
  known |= sums({SCORE: folder / SCORE})
  atomic.write_json(folder / SUMS, known)


def _silent(*_: object) -> None:
  """Print nothing: a run goes on meanwhile and prints lines of its own."""


def _sums(
  folder: epath.Path, progress: Callable[[str], None] = print
) -> dict[str, str]:
  """Return the SHA-256 of every file below a checkpoint, by relative name."""
  found = {}
  stack = [folder]
  while stack:
    for path in stack.pop().iterdir():
      if path.is_dir():
        stack.append(path)
      elif path.name != SUMS:
        found[path.relative_to(folder).as_posix()] = path
  return sums(found, progress)


def sums(
  found: Mapping[str, epath.Path], progress: Callable[[str], None] = print
) -> dict[str, str]:
  """Return the SHA-256 of files by name, telling how far it is if that lasts.

  Args:
    found: The files by name.
    progress: Receives lines.
  """
  total = sum(path.stat().length for path in found.values())
  report = clocks.Progress(
    *(total, progress), name="hashed", unit="MB", scale=1e6
  )
  done = {}
  for name, path in found.items():
    digest = hashlib.sha256()
    with path.open("rb") as file:
      while part := file.read(CHUNK):
        digest.update(part)
        report.step(len(part))
    done[name] = digest.hexdigest()
  return done


def damage(folder: epath.Path) -> str | None:
  """Return in words how a checkpoint is damaged; None: it is sound."""
  if not (folder / SUMS).exists():
    return f"it has no {SUMS}: writing it was interrupted, or still goes on"
  try:
    expected = dict(json.loads((folder / SUMS).read_bytes()))
  except (ValueError, TypeError):
    return f"its {SUMS} is damaged"
  actual = _sums(folder)
  wrong = [k for k in expected if actual.get(k) != expected[k]]
  return f"{wrong[0]} is missing or changed on disk" if wrong else None


def sound_step(workdir: epath.PathLike, step: int | None = None) -> int | None:
  """Return `step`, or by default the newest undamaged one; None: none exists.

  Raises:
    InputError: `step` was asked for and does not exist or is damaged.
  """
  folder = epath.Path(workdir) / layout.CHECKPOINTS
  steps = layout.checkpoint_steps(workdir)
  if step is not None:
    if step not in steps:
      raise errors.InputError(f"no step {step} in {folder}; steps: {steps}")
    if found := damage(folder / str(step)):
      raise errors.InputError(f"checkpoint {folder / str(step)}: {found}")
    return step
  for candidate in reversed(steps):
    found = damage(folder / str(candidate))
    if found is None:
      return candidate
    print(f"deeplax: skipping checkpoint {folder / str(candidate)}: {found}")
  sealed = [s for s in steps if (folder / str(s) / SUMS).exists()]
  if sealed:  # one whose writing was interrupted does not count
    raise errors.InputError(
      f"none of the checkpoints {sealed} in {folder} is whole. Restore that "
      "folder from a copy, or start anew in another --workdir"
    )
  return None


def wanted_step(workdir: epath.PathLike, step: int | str | None = None) -> int:
  """Return the step of a sound checkpoint to read.

  Args:
    workdir: Of a training run.
    step: A number, "best" (by validation mIoU) or None for the newest.

  Raises:
    InputError: There is no such checkpoint; the message lists the nearest.
  """
  wanted = best_step(workdir) if step == "best" else step
  assert not isinstance(wanted, str), wanted
  sound = sound_step(workdir, wanted)
  if sound is None:
    raise errors.InputError(
      f"no checkpoint in {epath.Path(workdir) / layout.CHECKPOINTS}. "
      f"{layout.nearest_runs(workdir)}. deeplax never runs on random weights"
    )
  return sound


def best_step(workdir: epath.PathLike) -> int:
  """Return the step with the best validation mIoU among those on disk.

  Raises:
    InputError: No checkpoint on disk has been evaluated.
  """
  folder = epath.Path(workdir) / layout.CHECKPOINTS
  steps = layout.checkpoint_steps(workdir)
  known = scores(folder, steps)
  if not known:
    raise errors.InputError(
      f"no evaluated checkpoint in {folder}; steps: {steps}"
    )
  return max(known, key=lambda s: (known[s], s))


def miou(workdir: epath.PathLike, step: int) -> float | None:
  """Return a checkpoint's validation mIoU; None: it was not evaluated."""
  return scores(epath.Path(workdir) / layout.CHECKPOINTS, [step]).get(step)


def scores(folder: epath.Path, steps: Iterable[int]) -> dict[int, float]:
  """Return the validation mIoU of those steps that have one."""
  # A damaged score counts as none: its checkpoint is not sound either.
  known = {s: results.miou_in(folder / str(s) / SCORE) for s in steps}
  return {step: miou for step, miou in known.items() if miou is not None}
