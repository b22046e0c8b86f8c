"""Costs of a row without training: Multiply-Adds, parameters, field of view.

Multiply-Adds are of one image, over all scales and flips of its evaluation, and
in two conventions: true counts, and as the papers counted (see `models.cost`).
"""

from collections.abc import Callable, Mapping
import functools
from typing import Any

import flax.linen as nn
import ml_collections

from deeplax import clocks
from deeplax.ablation import experiment as experiment_lib
from deeplax.data import spec
from deeplax.inference import mode as mode_lib
from deeplax.inference import sweep
from deeplax.models import build
from deeplax.models import cost
from deeplax.settings import own

Costs = dict[str, Any]
# Largest relative difference that counts as agreement with a published number.
TOLERANCE = 0.003
# Columns of `savings`, and the keys that they compare.
SAVED = {
  "Multiply-Adds": "multiply_adds",
  "as the papers count": "multiply_adds_paper",
  "published": "published",
  "parameters": "parameters",
  "images/s": "images_per_second",
  "memory of a step": "step_memory",
}


@functools.cache
def _parameters(model: nn.Module) -> int:
  return cost.parameters(model)


def network(config: ml_collections.ConfigDict, output_stride: int) -> nn.Module:
  """Return a row's network at an output stride."""
  return build.from_config(
    config.model,
    num_classes=spec.SPECS[config.data.name].num_classes,
    output_stride=output_stride,
  )


def of_row(row: experiment_lib.Row, *, field_of_view: bool = False) -> Costs:
  """Return a row's costs; empty if no network here is that of the row.

  Returns:
    multiply_adds, multiply_adds_paper: Of an image.
    parameters: The number that is trained.
    size: (height, width) of the image.
    field_of_view: In pixels, if asked for; for VGG-16 as v1 counts it, and
      not of a network with parts of a user's own.
  """
  config = row.config
  if config is None or row.why.startswith("output strides"):
    return {}
  model = network(config, row.evaluation.output_stride)
  size = tuple(config.eval.pad_to or config.data.crop_size)
  mode = mode_lib.Mode(row.evaluation.scales, row.evaluation.flip)
  operations = sweep.multiply_adds(model, size, mode)
  costs = {
    "multiply_adds": operations["true"],
    "multiply_adds_paper": operations["paper"],
    "parameters": _parameters(model),
    "size": list(size),
  }
  mine = [r for r in own.references(config) if r.key.startswith("model.")]
  if field_of_view and not mine:
    vgg = config.model.backbone == "vgg16"
    costs["field_of_view"] = cost.field_of_view(model, zero_padded=vgg)
  return costs


def of(
  experiment: experiment_lib.Experiment,
  progress: Callable[[str], None] = lambda line: None,
) -> dict[str, Costs]:
  """Return the costs of each row, by its name."""
  costs = {}
  report = clocks.Progress(
    *(len(experiment.rows), progress), name="counted costs of", unit="rows"
  )
  for row in experiment.rows:
    costs[row.name] = of_row(row, field_of_view=experiment.field_of_view)
    report.step()
  return costs


def against_paper(row: experiment_lib.Row, costs: Costs) -> float | None:
  """Return the relative difference from the published Multiply-Adds, or None.

  Only of the paper's own network at its own size.
  """
  if row.multiply_adds is None or not costs:
    return None
  return costs["multiply_adds_paper"] / 1e9 / row.multiply_adds - 1


def verdicts(
  experiment: experiment_lib.Experiment, costs: dict[str, Costs]
) -> list[str]:
  """Return sentences that compare Multiply-Adds with the paper's."""
  paper = experiment.paper
  if experiment.data or not (paper and paper.multiply_adds):
    return []
  wrong = paper.inconsistent
  lines, near, largest = [], 0, 0.0
  for row in experiment.rows:
    share = against_paper(row, costs[row.name])
    if share is None:
      continue
    if row.multiply_adds in wrong:
      lines.append(
        f"{row.name}: the paper's {row.multiply_adds:.2f}B contradicts its "
        "other numbers of the same network; here "
        f"{costs[row.name]['multiply_adds_paper'] / 1e9:.2f}B ({share:+.2%})"
      )
    elif abs(share) > TOLERANCE:
      rest = costs[row.name]["multiply_adds_paper"] / 1e9 - row.multiply_adds
      lines.append(
        f"{row.name}: {share:+.2%} ({rest:+.2f}B) from the paper's, whose "
        "profiler counted a little more than convolutions"
      )
    else:
      near += 1
      largest = max(largest, abs(share))
  first = (
    f"Multiply-Adds of {near} rows are within {TOLERANCE:.1%} of the paper's, "
    f"at most {largest:.2%} off."
  )
  return [first, *lines]


def savings(
  experiment: experiment_lib.Experiment,
  costs: dict[str, Costs],
  measured: Mapping[str, Mapping[str, float | None]],
) -> list[list[str]]:
  """Return a table of the savings of the second row of each pair.

  Args:
    experiment: With the pairs.
    costs: By row.
    measured: Means over the seeds, by row: "images_per_second",
      "step_memory".
  """
  if not experiment.savings:
    return []
  values = {
    row.name: {
      **costs[row.name],
      "published": row.multiply_adds,
      **measured.get(row.name, {}),
    }
    for row in experiment.rows
  }
  lines = [["from", "to", *SAVED]]
  for old, new in experiment.savings:
    changes = (
      _change(values[old].get(key), values[new].get(key))
      for key in SAVED.values()
    )
    lines.append([old, new, *changes])
  return lines


def _change(old: float | int | None, new: float | int | None) -> str:
  return "" if not old or not new else f"{new / old - 1:+.1%}"
