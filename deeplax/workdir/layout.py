"""The names of a workdir's files, and the runs near a path."""

from etils import epath

CONFIG = "config.json"
SPEC = "spec.json"
CONVERTED = "converted.json"  # by deeplax.convert: the source of the weights
METRICS = "metrics.jsonl"
ENVIRONMENT = "env.json"
TRAINING_DATA = "data.json"  # the training data when the run began
CLASS_COUNTS = "histogram.json"
CHECKPOINTS = "checkpoints"
LOCK = "lock.json"  # the process that trains there now
TOKEN = "token.txt"  # of the first process, for a moment, for all to read
EVALUATIONS = "eval"
PICTURES = "pictures"
CODE = "code"  # copies of a user's own files
CODE_INDEX = "own.json"  # in there: where each one lies, and its SHA-256
PROFILE = "profile"  # traces of jax.profiler, a folder for each


def checkpoint_steps(workdir: epath.PathLike) -> list[int]:
  """Return the steps that have a checkpoint, sound or damaged, in order."""
  folder = epath.Path(workdir) / CHECKPOINTS
  if not folder.is_dir():
    return []
  return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit())


def nearest_runs(workdir: epath.PathLike) -> str:
  """Return a hint where a path has no run: nearby runs and their steps."""
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
