"""Networks by the keys of `config.model`: any, and one that is quick to run."""

from deeplax.models import build
from deeplax.settings import defaults


def config(**settings):
  c = defaults.base().model
  c.update_from_flattened_dict(
    {key.replace("__", "."): value for key, value in settings.items()}
  )
  return c


def network(num_classes=21, **settings):
  return build.from_config(config(**settings), num_classes=num_classes)


def small(**settings):
  return network(
    backbone="mobilenet_v2",
    depth_multiplier=0.1,
    channels=8,
    decoder__channels=8,
    **settings,
  )
