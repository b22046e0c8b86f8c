"""The flags of a run: --config, --workdir, and those of several hosts."""

import os
import pathlib
import re
import socket
import sys
from typing import Any

from absl import flags
from ml_collections import config_flags
from ml_collections.config_flags import config_path

from deeplax import commands
from deeplax import errors
from deeplax import paths
from deeplax.settings import defaults
from deeplax.settings import find
from deeplax.settings import own

CONFIG = config_flags.DEFINE_config_file(
  "config",
  None,
  "The run, v3plus_xception or camvid:quick, or a file of your own.",
  lock_config=True,
)


class _Path(flags.ArgumentParser):
  """Parses the value of a flag that is a path."""

  def parse(self, argument: str) -> str:
    return paths.expanded(argument)


WORKDIR = flags.DEFINE(
  _Path(),
  "workdir",
  None,
  "Where the run is kept; default runs/<config>[_<argument>].",
)
MULTIHOST = flags.DEFINE_bool(
  "multihost",
  False,
  "One of several processes, which JAX finds on TPUs, Slurm and Open MPI.",
)
# Elsewhere each says who it is; the names are jax.distributed.initialize's.
PROCESS = (
  flags.DEFINE_string(
    "coordinator_address", None, "Of the first process, HOST:PORT."
  ),
  flags.DEFINE_integer(
    "num_processes", None, "How many there are.", lower_bound=1
  ),
  flags.DEFINE_integer(
    "process_id", None, "Which of them this is, from 0.", lower_bound=0
  ),
)
_FLAGS = ("config", "workdir", "multihost", *(flag.name for flag in PROCESS))


def process() -> dict[str, Any] | None:
  """Return what is known of this process; None: it is the only one.

  What no flag says, the variables JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES
  and JAX_PROCESS_ID may say.

  Raises:
    InputError: A variable is no number, or the first process's port is taken.
  """
  given: dict[str, Any] = {
    flag.name: flag.value for flag in PROCESS if flag.value is not None
  }
  if not given and not MULTIHOST.value:
    return None
  said = {name: f"--{name}" for name in given}
  for name in (flag.name for flag in PROCESS):
    variable = f"JAX_{name.upper()}"
    if name in given or not (text := os.environ.get(variable)):
      continue
    try:
      given[name] = flags.FLAGS[name].parser.parse(text)
    except ValueError as error:
      raise errors.InputError(
        f"{variable}={text}: {error}. Give it what --{name} takes"
      ) from error
    said[name] = variable
  if given.get("process_id") == 0 and "coordinator_address" in given:
    _refuse_taken(given["coordinator_address"], said["coordinator_address"])
  return given


def _refuse_taken(address: str, said: str) -> None:
  """Refuse an address whose port cannot be opened here: JAX would crash."""
  _, _, port = address.rpartition(":")
  try:
    with socket.socket() as probe:
      probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
      probe.bind(("", int(port)))
  except (OSError, OverflowError, ValueError) as error:
    raise errors.InputError(
      f"{said}={address}: this host cannot open that port "
      f"({error}). Give all processes HOST:PORT with a free one"
    ) from error


def parse(argv: list[str]) -> None:
  """Read the command line.

  Raises:
    InputError: An argument is wrong.
  """
  if {"--help", "-h"} & set(argv):
    print(_help())
    sys.exit(0)
  if "=" in argv:
    raise errors.InputError(
      f"unread arguments {argv[argv.index('=') :]}. "
      f"Write {argv[argv.index('=') - 1]}=value without spaces"
    )
  _refuse_repeated(argv)
  words, unset = _without_none(argv)
  try:
    rest = flags.FLAGS(_with_files(words))[1:]
  except (
    flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError
  ) as error:  # fmt: skip
    # ml_collections passes on the errors of config files and overrides.
    raise errors.InputError(
      f"{_one_line(error)}. Help: {commands.typed('main')} --help"
    ) from error
  if rest:
    raise errors.InputError(
      f"unread arguments {rest} after the flags. "
      "Write --config.name=value without spaces"
    )
  config = flags.FLAGS["config"].value
  if config is None:
    raise errors.InputError(
      "--config is missing, for example "
      "--config=configs/v3plus_xception.py, or configs/quickstart.py to see it "
      "work without data"
    )
  config.update_from_flattened_dict(dict.fromkeys(unset))
  for key in defaults.PATHS:
    if text := config_path.get_value(key, config):
      config.update_from_flattened_dict({key: paths.expanded(text)})
  own.with_whole_paths(config)


def _name(text: str) -> str:
  """Return the name that an argument sets, like config.seed; "": none."""
  match = re.match(rf"--?(?:no)?((?:{'|'.join(_FLAGS)})[\w.]*)", text)
  return match[1] if match else ""


def _refuse_repeated(argv: list[str]) -> None:
  """Refuse a flag that is given twice: two tuples would be joined to one.

  Raises:
    InputError: Naming both arguments.
  """
  earlier: dict[str, str] = {}
  for text in argv[1:]:
    name = _name(text)
    if name in earlier:
      raise errors.InputError(
        f"{earlier[name]} and {text} set the same: leave one of them out"
      )
    if name:
      earlier[name] = text


def _without_none(argv: list[str]) -> tuple[list[str], list[str]]:
  """Return the arguments without --config.KEY=None, and the keys of those.

  ml_collections would read "None" as a text.

  Raises:
    InputError: Such a key must have a value.
  """
  words, unset = [], []
  optional = defaults.base()
  for text in argv:
    flag, _, value = text.partition("=")
    key = _name(flag).removeprefix("config.")
    if value != "None" or "." not in _name(flag):
      words.append(text)
      continue
    try:
      default = config_path.get_value(key, optional)
    except (AttributeError, KeyError):
      words.append(text)  # ml_collections will list the valid keys
      continue
    if default is not None:
      raise errors.InputError(
        f"{text}: {key} always has a value, by default {default!r}. Leave this "
        "out, or give a value"
      )
    unset.append(key)
  return words, unset


def _with_files(argv: list[str]) -> list[str]:
  """Return the command line with configurations replaced by their files."""
  words = list(argv)
  for place, text in enumerate(argv):
    flag, equals, value = text.partition("=")
    if flag not in ("--config", "-config"):
      continue
    if equals:
      words[place] = f"{flag}={_file(value)}"
    elif place + 1 < len(argv):
      words[place + 1] = _file(argv[place + 1])
  return words


def _file(value: str) -> str:
  """Return FILE[:ARG] for the value of --config."""
  text, colon, argument = value.partition(":")
  text = paths.expanded(text)
  path = str(find.config(text))
  if path != str(pathlib.Path(text)):
    # On standard error, since a pod's other hosts print nothing on the other.
    print(f"--config={text} comes with deeplax: {path}", file=sys.stderr)
  return f"{path}{colon}{argument}"


def _help() -> str:
  """Return the text of --help."""
  program = commands.typed("main")
  lines = [
    f"usage: {program} --config=CONFIG [--config.KEY=VALUE ...]\n\n"
    "Train a model in a workdir, or resume there: the same command again goes\n"
    f"on. Example: {program} --config=v3plus_xception:debug\n"
  ]
  for name in _FLAGS:
    lines.append(f"  --{name:<21}{flags.FLAGS[name].help}")
  lines.append(
    "  --config.KEY           Any key of deeplax/settings/defaults.py, as in\n"
    "                         --config.train.total_steps=1000"
  )
  return "\n".join(lines)


def _one_line(error: Exception) -> str:
  """Return an error in one line; of a config file's traceback the last one."""
  # A KeyError shows its text as a Python literal.
  text = str(error).replace("\\n", " ").replace("\\'", "'").strip()
  lines = [line for line in text.splitlines() if line.strip()]
  return lines[-1] if "Traceback" in text else " ".join(lines)


def config_name() -> str:
  """Return the value of --config: a path, and an argument after a colon."""
  return config_flags.get_config_filename(flags.FLAGS["config"])


def default_workdir(config_path: str) -> str:
  """Return runs/<config name>[_<argument>]."""
  path, _, argument = config_path.partition(":")
  name = path.rsplit("/", 1)[-1].removesuffix(".py")
  return f"runs/{name}_{argument}" if argument else f"runs/{name}"
