"""Train a model: python -m deeplax.main --config=configs/v3plus_xception.py

Everything goes to --workdir (default runs/<config>[_<argument>]); the same
command again resumes there.
"""

import sys

from deeplax import config_flag
from deeplax import errors


@errors.command
def main(argv: list[str] | None = None) -> None:
  config_flag.parse(sys.argv if argv is None else argv)
  config = config_flag.CONFIG.value

  # All that can be wrong without a network, before JAX is loaded.
  from deeplax.training import inputs

  workdir = config_flag.WORKDIR.value or config_flag.default_workdir(
    config_flag.config_name()
  )
  process = config_flag.process()
  try:
    found = inputs.found(config, workdir)
  except errors.InputError as error:
    if process is None:
      raise
    from deeplax import parallel

    parallel.end_all(error, **process)

  from deeplax.training import run

  run.run(config, found, workdir=workdir, process=process)


if __name__ == "__main__":
  main()
