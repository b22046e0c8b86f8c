"""`deeplax.model`: a network and its first variables."""

from typing import Any

import flax.linen as nn
from ml_collections import ConfigDict

from deeplax import errors
from deeplax.api import config as config_lib
from deeplax.training import initial
from deeplax.training import parts


def model(
  config: str | ConfigDict,
  *,
  num_classes: int,
  backbone: nn.Module | None = None,
  head: nn.Module | None = None,
  decoder: nn.Module | None = None,
) -> tuple[nn.Module, dict[str, Any]]:
  """Return a network and its initial variables, for a training loop of yours.

      model, variables = deeplax.model("v3plus_xception", num_classes=21)
      logits, updates = model.apply(
        variables, images, train=True, mutable=["batch_stats"],
        rngs={"dropout": jax.random.key(0)},
      )
      logits = model.apply(variables, images, train=False)

  Both belong inside `jax.jit`, which computes them many times as fast. `images`
  [b, h, w, 3] are RGB of 0..255, uint8 or float, of any size: the network
  normalizes them. `logits` [b, h, w, num_classes] are float32 at the size of
  the images; with `method="coarse"` they are at the network's own stride.
  `updates["batch_stats"]` are the norms' new running statistics.

  Args:
    config: A name, as "v3plus_xception", or what `deeplax.config` returns:
      `deeplax.config("v3plus_xception", {"model.output_stride": 8})`. Of it
      `model` is read, and `seed`, `init.checkpoint`, `optim.trained` and
      `data.channels`, as by a training.
    num_classes: Background included.
    backbone: A Flax module of yours in place of the configured one;
      docs/own_network.md says what it receives and returns.
    head: The same for the head.
    decoder: The same for the decoder.

  Returns:
    A Flax module, and {"params", "batch_stats"} as nested dictionaries: what
    `deeplax.train` starts from with the same seed, at random or from the run
    that `init.checkpoint` names.

  Raises:
    InputError: There is no such configuration, a value of it is impossible, or
      the weights do not fit.
  """
  found = config_lib.given(config)
  objects = {"backbone": backbone, "head": head, "decoder": decoder}
  with errors.input_errors():
    network = parts.network(found, num_classes, **objects)
  if any(part is not None for part in objects.values()):
    found.model.given = True  # the configuration alone cannot build it again
  return network, initial.variables(found, network, resumed=False)
