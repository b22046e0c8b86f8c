"""`deeplax.config`: a configuration by its name, with other values."""

from collections.abc import Mapping
import difflib
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_flags import config_path

from deeplax import errors
from deeplax import paths
from deeplax.settings import defaults
from deeplax.settings import find
from deeplax.settings import own
from deeplax.workdir import settings


def config(name: str, overrides: Mapping[str, Any] | None = None) -> ConfigDict:
  """Return the configuration that `deeplax train --config=NAME` reads.

      config = deeplax.config(
        "own_data", {"data.root": "my_data", "train.total_steps": 2000}
      )

  Its keys are those of deeplax/settings/defaults.py, each with its unit there;
  it is locked, so that a mistyped key is an error.

  Args:
    name: "v3plus_xception", "v3plus_xception:debug", or a file of your own,
      "my_config.py:argument".
    overrides: {"model.output_stride": 8, ...}: values by dotted key.

  Raises:
    InputError: No configuration has this name, or a key or the type of its
      value is wrong.
  """
  text, colon, argument = name.partition(":")
  path = find.config(paths.expanded(text))
  with errors.input_errors():
    found = find.load(path).get_config(*([argument] if colon else []))
  return changed(found, overrides or {})


def given(config_or_name: str | ConfigDict) -> ConfigDict:
  """Return a copy of a configuration, or the one of a name.

  Raises:
    InputError: It is neither.
  """
  if isinstance(config_or_name, str):
    return config(config_or_name)
  if not isinstance(config_or_name, ConfigDict):
    raise errors.InputError(
      f"the configuration is a {type(config_or_name).__name__}: give a name, "
      "as 'v3plus_xception', or what deeplax.config returns"
    )
  return changed(config_or_name.copy_and_resolve_references(), None)


def changed(
  found: ConfigDict, overrides: Mapping[str, Any] | None
) -> ConfigDict:
  """Return a configuration, locked, with other values and whole paths.

  Without `overrides`, None, it may be that of another's workdir and name any
  program: then only files are taken that the user has named before.

  Raises:
    InputError: A key or the type of its value is wrong, or it lacks one.
  """
  found.lock()
  usual, flat = settings.flatten(defaults.base()), settings.flatten(found)
  if odd := sorted(usual.keys() ^ flat.keys()):
    what = "lacks the key" if odd[0] in usual else "has a key of its own,"
    raise errors.InputError(
      f"the configuration {what} {odd[0]}: begin with deeplax.config or "
      "defaults.base(), and change values alone"
    )
  if overrides is None:
    own.refuse_untrusted(found)
  for key, value in (overrides or {}).items():
    if key not in flat:
      near = difflib.get_close_matches(key, flat, n=1)
      hint = f"did you mean {near[0]!r}? " if near else ""
      raise errors.InputError(
        f"no key {key!r} in a configuration: {hint}"
        "deeplax/settings/defaults.py has them all"
      )
    if value is None and usual.get(key) is not None:
      raise errors.InputError(
        f"{key} is None and always has a value, by default {usual[key]!r}. "
        "Leave it out, or give a value"
      )
    value = tuple(value) if isinstance(value, list) else value
    try:
      found.update_from_flattened_dict({key: value})
    except (TypeError, ValueError) as error:
      raise errors.InputError(f"{key}={value!r}: {error}") from error
  for key in defaults.PATHS:
    if text := config_path.get_value(key, found):
      found.update_from_flattened_dict({key: paths.expanded(text)})
  own.with_whole_paths(found)
  return found
