"""Train a model: python -m deeplax.main --config=configs/v3plus_xception.py

Everything goes to --workdir (default runs/<config>[_<argument>]); the same
command again resumes there.
"""

import sys

from absl import flags
from ml_collections import config_flags

from deeplax import errors

_CONFIG = config_flags.DEFINE_config_file(
  "config",
  None,
  "The run: configs/v3plus_xception.py, configs/camvid.py:quick, ...",
  lock_config=True,
)
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Where the run is kept; default runs/<config>[_<argument>]."
)
_MULTIHOST = flags.DEFINE_bool(
  "multihost",
  False,
  "One of several hosts of a pod: call jax.distributed.initialize().",
)


def parse(argv: list[str]) -> None:
  """Read the command line.

  Raises:
    InputError: Anything was not understood.
  """
  try:
    rest = flags.FLAGS(argv)[1:]
  except flags.Error as error:
    raise errors.InputError(
      f"{error}\nHelp: python -m deeplax.main --help"
    ) from error
  except (AttributeError, KeyError, TypeError, ValueError, OSError) as error:
    # ml_collections raises what the config file or an override raised.
    raise errors.InputError(f"--config: {error}") from error
  if rest:
    raise errors.InputError(
      f"unread arguments {rest} after the flags. "
      "Write --config.name=value without spaces"
    )
  if _CONFIG.value is None:
    raise errors.InputError(
      "--config is missing, for example "
      "--config=configs/v3plus_xception.py, or configs/quickstart.py to see it "
      "work without data"
    )


def default_workdir(config_path: str) -> str:
  """Return runs/<config name>[_<argument>]."""
  path, _, argument = config_path.partition(":")
  name = path.rsplit("/", 1)[-1].removesuffix(".py")
  return f"runs/{name}_{argument}" if argument else f"runs/{name}"


@errors.command
def main(argv: list[str] | None = None) -> None:
  parse(sys.argv if argv is None else argv)
  config = _CONFIG.value
  # The data is looked up before JAX starts: a missing data set is told at once.
  from deeplax.data import build as data_build

  data_build.source(config.data, config.data.train_split)

  from deeplax import launch

  given = config_flags.get_config_filename(flags.FLAGS["config"])
  launch.run(
    config,
    workdir=_WORKDIR.value or default_workdir(given),
    multihost=_MULTIHOST.value,
  )


if __name__ == "__main__":
  main()
