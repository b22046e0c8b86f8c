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
  # Before JAX starts, so that a missing data set is reported at once.
  from deeplax.data import build as data_build

  data_build.source(config.data, config.data.train_split)

  from deeplax.training import run

  run.run(
    config,
    workdir=config_flag.WORKDIR.value
    or config_flag.default_workdir(config_flag.config_name()),
    multihost=config_flag.MULTIHOST.value,
  )


if __name__ == "__main__":
  main()
