"""The variables before step 0: drawn at random or from another workdir."""

from collections.abc import Mapping, Sequence
import functools
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import ml_collections
from ml_collections.config_flags import config_path

from deeplax import errors
from deeplax import parallel
from deeplax.data import build as data_build
from deeplax.models import conventions
from deeplax.models import variables as variables_lib
from deeplax.models.heads import large_fov
from deeplax.pretrained import partial
from deeplax.pretrained import rules
from deeplax.settings import own as own_lib
from deeplax.training import parts as parts_lib
from deeplax.training import start_commands
from deeplax.workdir import checkpoint
from deeplax.workdir import sealed
from deeplax.workdir import settings

Variables = dict[str, Any]
# Keys of config.model that say which backbone it is.
BACKBONE_KEYS = (
  *("backbone", "conventions", "depth_multiplier", "multi_grid"),
  *(f"xception.{x}" for x in ("after_depthwise", "downsample", "middle_units")),
)


def variables(
  config: ml_collections.ConfigDict, model: nn.Module, *, resumed: bool
) -> Variables:
  """Return the variables before step 0: drawn, or from `init.checkpoint`.

  Some are drawn anew where the networks differ: those with one entry per class,
  an auxiliary head, and v1's branches with the logits that read them. The first
  kernel of an RGB network is widened to the bands. A resumed run does not read
  `init.checkpoint`: its own variables follow.

  Raises:
    InputError: Other parameters differ; the message names them.
  """
  drawn = variables_lib.initial_variables(model, seed=config.seed)
  if config.init.checkpoint is None or resumed:
    return drawn
  start = config.init.checkpoint
  step = parallel.of_first(functools.partial(sealed.wanted_step, start))
  carry = functools.partial(_carried, config, model, _flat(drawn), step)
  return flax.traverse_util.unflatten_dict(parallel.agreed(carry))


def _carried(
  config: ml_collections.ConfigDict,
  model: nn.Module,
  new: dict[rules.Path, Any],
  step: int,
) -> dict[rules.Path, Any]:
  """Return `new` with what a step of `init.checkpoint` has in its place."""
  start = config.init.checkpoint
  theirs = checkpoint.read(start, step)
  theirs, note = _for_bands(config, model, theirs)
  old = _flat(theirs)
  sizes = {path: leaf.shape for path, leaf in old.items()}
  fresh, misfits, surplus = _differing(config, model, sizes)
  if misfits or surplus:
    raise errors.InputError(
      f"init.checkpoint {config.init.checkpoint} holds another network: "
      f"{_names(misfits[:8]) or f'{len(surplus)} parameters too many'}. "
      "Use the same config.model as that run"
      + _cure(config, model, sizes, [*misfits, *surplus])
    )
  if parallel.rank() == 0:
    print(
      f"init: {len(new) - len(fresh)} arrays from {start} step {step}, new: "
      f"{_names(fresh) or 'none'} ({model.num_classes} classes){note}"
    )
  # Through the host: an array bound to one device cannot be spread over those
  # of several processes.
  carried = {
    path: jnp.asarray(jax.device_get(old[path]))
    for path in new.keys() - set(fresh)
  }
  return new | carried


def _differing(
  config: ml_collections.ConfigDict,
  model: nn.Module,
  theirs: Mapping[rules.Path, rules.Shape],
) -> tuple[list[rules.Path], list[rules.Path], list[rules.Path]]:
  """Return in what a network differs from the parameters of another one.

  Args:
    config: Of the run.
    model: Its network.
    theirs: Shapes of the other network's arrays.

  Returns:
    fresh: Paths that the other network lacks or has in another shape.
    misfits: Those of them that are no reason to be drawn anew.
    surplus: Paths that this network lacks.
  """
  own = variables_lib.shapes(model)
  if model.auxiliary is None:
    # The auxiliary head only trains, so the new run may leave it out.
    theirs = {p: x for p, x in theirs.items() if p[1] != partial.TRAINING_ONLY}
  fresh = [path for path, shape in own.items() if theirs.get(path) != shape]
  surplus = [path for path in theirs if path not in own]
  classes = _of_classes(config, model) if fresh else set()
  may_differ = {partial.TRAINING_ONLY}
  if isinstance(model.decoder, large_fov.Branches):
    may_differ |= {"decoder", "logits"}  # v1 adds them to a trained network
  misfits = [p for p in fresh if p[1] not in may_differ and p not in classes]
  return sorted(fresh), sorted(misfits), sorted(surplus)


def _cure(
  config: ml_collections.ConfigDict,
  model: nn.Module,
  theirs: Mapping[rules.Path, rules.Shape],
  differing: Sequence[rules.Path],
) -> str:
  """Return commands that make the other run's weights fit; "" if none do.

  Args:
    config: Of the run.
    model: Its network.
    theirs: Shapes of the other network's arrays.
    differing: Paths of parameters that one of the networks lacks or has in
      another shape.
  """
  if config.data.channels is not None or config.model.given:
    return ""
  new, changes = _parts(model, differing), {}
  if partial.BACKBONE in new:
    # Another backbone: this run takes over that of the weights.
    changes = _backbone_keys(config)
    if own_lib.is_own(changes.get("backbone")):
      return ""
    other = config.copy_and_resolve_references()
    other.model.update_from_flattened_dict(changes)
    network = parts_lib.network(
      other, model.num_classes, auxiliary=model.auxiliary is not None
    )
    _, misfits, surplus = _differing(other, network, theirs)
    new = _parts(network, [*misfits, *surplus])
  if partial.BACKBONE in new:
    return ""
  return start_commands.for_run(
    config.init.checkpoint,
    sorted(new),
    [f"--config.model.{key}={value}" for key, value in changes.items()],
  )


def _parts(model: nn.Module, paths: Sequence[rules.Path]) -> set[str]:
  """Return the parts to draw anew where these parameters differ."""
  have = {path[1] for path in variables_lib.shapes(model)}
  # If this network lacks the part, its logits read another one.
  return {p[1] if p[1] in have else partial.ORDER[-1] for p in paths}


def _backbone_keys(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Return the keys of the backbone that differ in the other run's config."""
  old = settings.load_config(config.init.checkpoint).model
  value = config_path.get_value
  return {
    key: value(key, old)
    for key in BACKBONE_KEYS
    if value(key, old) != value(key, config.model)
  }


def _flat(variables: Variables) -> dict[rules.Path, Any]:
  """Return {("params", "logits", "kernel"): array, ...}, in order."""
  flat: Any = flax.traverse_util.flatten_dict(variables)
  return dict(sorted(flat.items()))


def _names(paths: Sequence[rules.Path]) -> str:
  return ", ".join("/".join(path) for path in paths)


def statistics_of(config: ml_collections.ConfigDict) -> str:
  """Return in words where the norms' statistics come from before step 0."""
  if config.init.checkpoint is None:
    return "random start"
  return f"statistics of {config.init.checkpoint}"


def _of_classes(
  config: ml_collections.ConfigDict, model: nn.Module
) -> set[rules.Path]:
  """Return the paths of the arrays with one entry per class."""
  if config.model.given:
    wider = model.clone(num_classes=model.num_classes + 1)
  else:
    wider = parts_lib.network(
      config, model.num_classes + 1, auxiliary=model.auxiliary is not None
    )
  return variables_lib.differing(model, wider)


def _for_bands(
  config: ml_collections.ConfigDict,
  model: nn.Module,
  theirs: Variables,
) -> tuple[Variables, str]:
  """Return another run's variables for this run's bands, and a note on them."""
  old = settings.load_config(config.init.checkpoint)
  before, now = (data_build.channels(c.data) for c in (old, config))
  note = ""
  if before is None and now is not None:
    theirs = variables_lib.inflate(theirs, model)
    note = (
      f"; first kernel {'/'.join(variables_lib.first_kernel(model))} from RGB "
      f"to bands {config.data.channels}"
    )
  elif old.data.channels != config.data.channels:
    note = f"; was trained on bands {old.data.channels}"
  row = conventions.get(old.model.conventions).backbone(old.model.backbone)
  before = before or (row.mean, row.std)
  if before != (model.mean, model.std):
    note += (
      f"; its input was normalized with mean {before[0]} and std {before[1]}, "
      f"now with {model.mean} and {model.std}"
    )
  return theirs, note
