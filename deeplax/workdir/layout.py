"""The files of a workdir by name, and the runs that lie near a path."""

from etils import epath

CONFIG = "config.json"
SPEC = "spec.json"
CONVERTED = "converted.json"  # of deeplax.convert: what came from where
METRICS = "metrics.jsonl"
ENVIRONMENT = "env.json"
TRAINING_DATA = "data.json"  # what the run began on
CLASS_COUNTS = "histogram.json"
CHECKPOINTS = "checkpoints"
LOCK = "lock.json"  # who trains there now
EVALUATIONS = "eval"
PICTURES = "pictures"


def checkpoint_steps(workdir: epath.PathLike) -> list[int]:
  """Return the steps that have a checkpoint, whole or not, in order."""
  folder = epath.Path(workdir) / CHECKPOINTS
  if not folder.is_dir():
    return []
  return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit())


def nearest_runs(workdir: epath.PathLike) -> str:
  """Say which runs, and which of their steps, lie near a path without one."""
  workdir = epath.Path(workdir)
  runs = []
  for folder in (workdir, workdir.parent):
    if folder.is_dir():
      for child in sorted(folder.iterdir()):
        if (child / CHECKPOINTS).is_dir():
          steps = ", ".join(map(str, checkpoint_steps(child))) or "none"
          runs.append(f"{child} (steps {steps})")
  if not runs:
    return "Train first: python -m deeplax.main --config=..."
  return "Nearest: " + "; ".join(runs[:5])
