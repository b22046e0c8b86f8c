"""The training step and the forward pass of a configuration, without its data.

They are what `deeplax.main` and `deeplax.predict` run. Arrays come in two
kinds: abstract ones, which are enough to compile, and made-up ones to run on.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh
import ml_collections
import numpy as np

from deeplax import errors
from deeplax import parallel
from deeplax.models import cost
from deeplax.models import variables as variables_lib
from deeplax.ops import backend
from deeplax.settings import find
from deeplax.training import class_balance
from deeplax.training import optim
from deeplax.training import parts
from deeplax.training import state as state_lib
from deeplax.training import step as step_lib

CLASSES = 21  # VOC 2012, with the background


def config(
  text: str,
  *,
  separable: bool = False,
  remat: bool = False,
  dtype: str = "bfloat16",
) -> ml_collections.ConfigDict:
  """Return a configuration for a benchmark.

  Args:
    text: A name or path as of --config, with its argument: "camvid:quick".
    separable: Make the head's and the decoder's 3x3 convolutions separable.
    remat: Compute the backbone's units twice, for less memory.
    dtype: Of the computation, bfloat16 or float32.

  Raises:
    InputError: There is no such configuration.
  """
  name, _, argument = text.partition(":")
  result = find.load(find.config(name)).get_config(argument)
  result.model.dtype, result.model.remat = dtype, remat
  if separable:
    result.model.separable = result.model.decoder.separable = True
  # Both would count the masks of a data set. The cost is the same without.
  result.train.class_weights = "none"
  result.data.duplicate_classes = ()
  return result


def forms(text: str) -> dict[str, str]:
  """Return the forms of a flag: {"resize": "gathers"} for "resize=gathers".

  Raises:
    InputError: There is no such operation, or no such form of it.
  """
  result = {}
  for pair in filter(None, text.split(",")):
    operation, _, form = pair.partition("=")
    if operation not in backend.FORMS:
      raise errors.InputError(
        f"--forms: {operation!r} not in {list(backend.FORMS)}; give "
        "OPERATION=FORM"
      )
    if form not in (known := backend.forms_of(operation)):
      raise errors.InputError(
        f"--forms: {operation} has no form {form!r}, but {known}"
      )
    result[operation] = form
  return result


def network(
  config: ml_collections.ConfigDict, *, classes: int = CLASSES
) -> nn.Module:
  """Return the network that the step trains, its norms over all devices."""
  return parts.network(
    config,
    classes,
    axis_name=parallel.AXIS,
    auxiliary=config.train.auxiliary_weight > 0,
  )


def step(
  config: ml_collections.ConfigDict,
  mesh: Mesh | AbstractMesh,
  *,
  classes: int = CLASSES,
) -> Any:
  """Return the jitted `(state, batch) -> (state, metrics)`; the state is lost.

  It is traced anew for each `backend.target` and `backend.chosen` around it.
  """
  model = network(config, classes=classes)
  loss = class_balance.loss_settings(config)._replace(
    align_corners=model.align_corners
  )
  return parallel.pmap(
    step_lib.make_train_step(
      model,
      optim.optimizer(config)[1],
      loss=loss,
      accumulate=config.train.accumulate,
      ema_decay=config.optim.ema_decay,
    ),
    mesh=mesh,
  )


def forward(
  config: ml_collections.ConfigDict, *, classes: int = CLASSES
) -> Callable[..., jax.Array]:
  """Return the jitted `(variables, images) -> classes`, [b, h, w] uint8."""
  model = network(config, classes=classes)

  @jax.jit
  def predict(variables: Any, images: jax.Array) -> jax.Array:
    logits: Any = model.apply(variables, images, train=False)
    return jnp.argmax(logits, -1).astype(jnp.uint8)

  return predict


def abstract_state(
  config: ml_collections.ConfigDict,
  mesh: Mesh | AbstractMesh,
  *,
  classes: int = CLASSES,
) -> state_lib.State:
  """Return shapes, types and shardings of the state before step 0."""
  model = network(config, classes=classes)
  variables, _ = cost.trace(model, cost.TRACE_SIZE)
  state = jax.eval_shape(lambda v: _create(config, v), variables)
  return _placed(state, parallel.replicated(mesh))


def abstract_batch(
  mesh: Mesh | AbstractMesh, *, images: int, size: int
) -> dict[str, jax.ShapeDtypeStruct]:
  """Return shapes, types and shardings of a batch.

  Args:
    images: Of each device.
    size: Side of the crops in pixels.
  """
  shape = (images * mesh.size, size, size)
  batch = {
    "image": jax.ShapeDtypeStruct((*shape, 3), jnp.uint8),
    "label": jax.ShapeDtypeStruct(shape, jnp.uint8),
  }
  return _placed(batch, parallel.split(mesh))


def state(
  config: ml_collections.ConfigDict,
  mesh: Mesh,
  *,
  classes: int = CLASSES,
) -> state_lib.State:
  """Return the state before step 0, random weights, on every device."""
  model = network(config, classes=classes)
  variables = variables_lib.initial_variables(model, config.seed)
  return parallel.replicate(_create(config, variables), mesh=mesh)


def batch(
  mesh: Mesh, *, images: int, size: int, classes: int = CLASSES
) -> dict[str, jax.Array]:
  """Return a batch of noise; the arguments are those of `abstract_batch`."""
  rng = np.random.default_rng(0)
  drawn = {
    key: rng.integers(0, 256 if key == "image" else classes, x.shape, x.dtype)
    for key, x in abstract_batch(mesh, images=images, size=size).items()
  }
  return parallel.shard(drawn, mesh=mesh)


def _create(config: ml_collections.ConfigDict, variables: Any) -> Any:
  tx, average = optim.optimizer(config)[1], config.optim.ema_decay > 0
  return state_lib.create(variables, tx, seed=config.seed, average=average)


def _placed(tree: Any, sharding: jax.sharding.NamedSharding) -> Any:
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
  )
