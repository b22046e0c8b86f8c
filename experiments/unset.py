"""A configuration with keys set to None, which no flag can say.

`--config.eval.pad_to=None` is the text "None" to ml_collections, or a tuple of
it. `--config='experiments/unset.py:quickstart:debug+eval.pad_to'` is what
`experiments.run` writes instead; keys are separated by commas.
"""

import importlib


def get_config(arg: str):
  """Return configuration `<name>[:<argument>]` without `+<key>,<key>`."""
  config, _, keys = arg.partition("+")
  name, _, argument = config.partition(":")
  c = importlib.import_module(f"configs.{name}").get_config(argument)
  c.lock()
  c.update_from_flattened_dict(dict.fromkeys(keys.split(",")))
  return c
