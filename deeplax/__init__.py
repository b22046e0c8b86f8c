"""deeplax: the DeepLab line (v1, v2, v3, v3+) in JAX and Flax.

    run = deeplax.load("runs/first")        a trained run
    labels = run("street.jpg")              [h, w]
    deeplax.train("quickstart", "runs/b")   as `deeplax train`
    deeplax.model("v3plus_xception", num_classes=21)   a network and variables
    deeplax.config("own_data", {"data.root": "data"})  a configuration
    deeplax.scores(predictions, labels, run.classes)   mIoU and more

What is wrong with the input is a `deeplax.InputError`. Nothing is loaded before
one of these names is used.
"""

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from deeplax.api.config import config as config
  from deeplax.api.model import model as model
  from deeplax.api.run import load as load
  from deeplax.api.scores import scores as scores
  from deeplax.api.train import train as train
  from deeplax.errors import InputError as InputError

__version__ = "0.1.0"

_MODULES = {
  "InputError": "errors",
  "config": "api.config",
  "load": "api.run",
  "model": "api.model",
  "scores": "api.scores",
  "train": "api.train",
}
__all__ = ["InputError", "config", "load", "model", "scores", "train"]

# So Python calls a command, `python -m deeplax.NAME`, until it has found it.
if sys.argv[:1] == ["-m"]:
  from deeplax import errors

  errors.tell_interrupts()


def __getattr__(name: str) -> Any:
  """Load what has a name only when it is used."""
  if name not in _MODULES:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  import importlib

  module = importlib.import_module(f"{__name__}.{_MODULES[name]}")
  return getattr(module, name)


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})
