"""env.json (versions, devices, command) and the cache of compiled programs."""

import os
import pathlib
import subprocess
import sys
from typing import Any

from etils import epath

from deeplax import machine

# The shortest compilation, in seconds, whose program JAX keeps.
SECONDS = "jax_persistent_cache_min_compile_time_secs"


def compilation_cache(workdir: epath.PathLike) -> None:
  """Keep compiled programs in the workdir unless JAX is given another place.

  The small ones too, so that a second start compiles nothing: by itself JAX
  keeps what took a second. A limit in JAX's own variable is kept.
  """
  import jax

  if SECONDS.upper() not in os.environ:
    jax.config.update(SECONDS, 0.0)
  if jax.default_backend() != "gpu":
    # A cache of GPUs' timings, whose path would be a part of every program's
    # key: a run that is moved or copied would compile anew.
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")

  elsewhere = jax.config.values["jax_compilation_cache_dir"] is not None
  # In a read-only folder JAX would warn about each program.
  local = "://" not in os.fspath(workdir) and os.path.exists(workdir)
  if not elsewhere and not (local and not os.access(workdir, os.W_OK)):
    folder = epath.Path(workdir) / "compiled"
    jax.config.update("jax_compilation_cache_dir", str(folder))


def environment() -> dict[str, Any]:
  """Return exact versions, devices, commit and command of this run."""
  import jax

  root = pathlib.Path(__file__).parents[2]
  try:
    commit = subprocess.run(
      ["git", "-C", str(root), "describe", "--always", "--dirty"],
      capture_output=True,
      text=True,
      check=False,
    ).stdout.strip()
  except OSError:  # no git here
    commit = ""
  return {
    "command": sys.argv,
    "commit": commit or None,
    "python": sys.version.split()[0],
    "packages": machine.versions(),
    "devices": [str(d) for d in jax.devices()],
  }
