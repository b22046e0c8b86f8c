"""A configuration with a recipe, and with keys that no flag can set to None.

`--config='experiments/config.py:v3plus_resnet101@camvid'` is
configs/v3plus_resnet101.py as `deeplax.ablation.recipes` changes it for CamVid;
`@camvid-full` keeps the network. `quickstart:debug+eval.pad_to` sets a key to
None, which `--config.eval.pad_to=None` would take for text; keys are separated
by commas. `experiments.run` writes these.
"""

from deeplax.ablation import recipes
from deeplax.settings import find


def get_config(arg: str):
  """Return `<name>[:<argument>][@<data>[-full]][+<key>,<key>]`."""
  arg, _, keys = arg.partition("+")
  base, _, data = arg.partition("@")
  name, _, argument = base.partition(":")
  c = find.load(find.own(name)).get_config(argument)
  c.lock()
  if data:
    data, _, full = data.partition("-")
    found = recipes.settings(c, data, full_size=full == "full")
    if data != "voc2012":
      c.data.root = None
    c.update_from_flattened_dict(found)
  if keys:
    c.update_from_flattened_dict(dict.fromkeys(keys.split(",")))
  return c
