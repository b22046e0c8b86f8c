"""Commands that make weights fit a run, with the flags that the user gave."""

from collections.abc import Sequence
import pathlib
import re
import shlex
import sys

from deeplax.settings import published

# Whose names the arrays of a file most likely have, by its ending; a TensorFlow
# checkpoint is named by its prefix.
_SOURCES = {".safetensors": "timm", ".pt": "torchvision", ".pth": "torchvision"}
_TENSORFLOW = "tf_deeplab"
# The configuration of own data has another one for published weights.
_OWN_DATA = re.compile(r"(--config=(?:.*/)?own_data(?:\.py)?)(?::pretrained)?")
_DECODER = "--new=decoder"


def for_run(
  workdir: str, new: Sequence[str], changes: Sequence[str] = ()
) -> str:
  """Return the end of a message: what makes another run's weights fit.

  Args:
    workdir: Of that run.
    new: Parts to draw anew.
    changes: Flags of keys that this run takes over from that one.
  """
  flags = shlex.join(_with(config_flags(sys.argv[1:]), changes))
  old = workdir.rstrip("/")
  start = f"{old}_as_start"
  drawn = f" --new={','.join(new)}" if new else ""
  what = f", or draw {' and '.join(new)} anew, with what reads it, and start"
  return (
    f"{what if new else ', or start'} from the rest:\n"
    "python -m deeplax.convert --source=deeplax "
    f"--checkpoint={shlex.quote(old)} {flags}{drawn} "
    f"--workdir={shlex.quote(start)}\n"
    f"python -m deeplax.main {flags} "
    f"--config.init.checkpoint={shlex.quote(start)}"
  )


def for_file(path: str) -> str:
  """Return the commands that make a workdir of a file and start from it."""
  flags = config_flags(sys.argv[1:])
  own = any(map(_OWN_DATA.fullmatch, flags))
  if own:
    flags = [_OWN_DATA.sub(r"\1:pretrained", flag) for flag in flags]
  source = _SOURCES.get(pathlib.Path(path).suffix.lower(), _TENSORFLOW)
  start = f"runs/{pathlib.Path(path).stem}_as_start"
  words = shlex.join(flags)
  return (
    f"python -m deeplax.convert --source={source} "
    f"--checkpoint={shlex.quote(path)} {words}{f' {_DECODER}' if own else ''} "
    f"--workdir={shlex.quote(start)}\n"
    f"python -m deeplax.main {words} "
    f"--config.init.checkpoint={shlex.quote(start)}\n"
    f"--source is the program that made it: {', '.join(published.SOURCES)}"
  )


def config_flags(arguments: Sequence[str]) -> list[str]:
  """Return the --config flags without that of init.checkpoint."""
  flags, words = [], iter(arguments)
  for word in words:
    if not word.startswith("--config"):
      continue
    if "=" not in word:
      word = f"{word}={next(words, '')}"
    if not word.startswith("--config.init.checkpoint="):
      flags.append(word)
  return flags or ["--config=CONFIG"]


def _with(flags: Sequence[str], changes: Sequence[str]) -> list[str]:
  """Return flags with others in place of those that set the same keys."""
  keys = {change.partition("=")[0] for change in changes}
  kept = [flag for flag in flags if flag.partition("=")[0] not in keys]
  return [*kept, *changes]
