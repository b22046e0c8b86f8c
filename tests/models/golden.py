"""The reference's outputs and the variables that made them.

The weights follow from each variable's name by a rule; `pretrained` knows
deeplax's paths for these names.
"""

import json
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import ml_collections
import numpy as np

from deeplax import pretrained
from deeplax.pretrained import rules
from deeplax.pretrained.names import tf_deeplab
from deeplax.settings import defaults
from tests import shared
from tests.fixtures import tf_rule


class Golden(NamedTuple):
  """One fixture: its manifest and its arrays."""

  manifest: dict[str, Any]
  arrays: dict[str, np.ndarray]


def load(name: str) -> Golden:
  """Return a fixture, or skip the test where there is none."""
  path = shared.path(f"golden/tf_deeplab/{name}.json")
  manifest = json.loads(path.read_text())
  arrays = {}
  if path.with_suffix(".npz").exists():
    with np.load(path.with_suffix(".npz")) as file:
      arrays = dict(file)
  return Golden(manifest, arrays)


def config(manifest: dict[str, Any]) -> ml_collections.ConfigDict:
  """Return the model config that the manifest's flags ask for."""
  flags = manifest["flags"]
  c: Any = defaults.base().model
  c.backbone = flags["model_variant"]
  c.output_stride = manifest["output_stride"]
  # None means no atrous branch to the reference's flag.
  c.atrous_rates = tuple(manifest["atrous_rates"] or ())
  c.depth_multiplier = flags.get("depth_multiplier", 1.0)
  c.multi_grid = tuple(flags.get("multi_grid", (1, 1, 1)))
  c.separable = flags.get("aspp_with_separable_conv", True)
  c.decoder.separable = flags.get("decoder_use_separable_conv", True)
  c.decoder.kind = "concat" if "decoder_output_stride" in flags else "none"
  known = {
    "model_variant",
    "depth_multiplier",
    "multi_grid",
    "aspp_with_separable_conv",
    "decoder_use_separable_conv",
    "decoder_output_stride",
  }
  assert set(flags) <= known, f"flags without a meaning: {set(flags) - known}"
  assert flags.get("decoder_output_stride", ["4"]) == ["4"]
  return c


def shapes(model: nn.Module) -> dict[str, Any]:
  """Return the model's variables as shapes, computing nothing."""
  image = jax.ShapeDtypeStruct((1, 65, 65, 3), np.float32)
  return jax.eval_shape(
    lambda key, x: model.init(key, x, train=False), jax.random.key(0), image
  )


def variables(model: nn.Module, golden: Golden) -> dict[str, Any]:
  """Return the variables the reference ran with.

  Every variable of the model is filled once and every one of the reference is
  used; anything else fails here.
  """
  gains = golden.manifest["gains"]
  arrays = {
    name: tf_rule.value(name, shape, **gains)
    for name, shape, _ in golden.manifest["variables"]
  }
  return pretrained.convert_arrays(arrays, "tf_deeplab", model=model)


def named(model: nn.Module, variables: dict[str, Any]) -> dict[str, np.ndarray]:
  """Return variables by the reference's names, in its layout."""
  arrays, nameless = rules.save(variables, tf_deeplab.table(model))
  assert not nameless
  return arrays


# Arrays of a fixture's first size: which output of deeplax they are.
INTERMEDIATES = {
  "encoder": ("backbone", "high"),
  "low_level": ("backbone", "low4"),
  "aspp_out": ("head",),
  "decoder_out": ("decoder",),
  "image_pooling.Relu": ("head", "image_pooling"),
  "aspp0.Relu": ("head", "aspp0"),
  "aspp1.Relu": ("head", "aspp1"),
  "aspp3.Relu": ("head", "aspp3"),
  "aspp1_pointwise.Relu": ("head", "aspp1"),
  "aspp3_pointwise.Relu": ("head", "aspp3"),
  "decoder.feature_projection0.Relu": ("decoder", "feature_projection0"),
}


def outputs(
  model: nn.Module, variables: dict[str, Any], image: np.ndarray
) -> dict[str, np.ndarray]:
  """Return "logits", "upsampled" and everything in INTERMEDIATES there is."""

  def wanted(module: nn.Module, method: str) -> bool:
    if method == "coarse":
      return True
    modules = {("backbone",), ("head",), *INTERMEDIATES.values()}
    return method == "__call__" and module.path in modules

  @jax.jit
  def run(variables, image):
    full, state = model.apply(
      variables,
      image,
      train=False,
      capture_intermediates=wanted,
      mutable=["intermediates"],
    )
    return full, state["intermediates"]

  full, captured = jax.tree.map(np.asarray, run(variables, image))
  found = {"upsampled": full, "logits": captured["coarse"][0]}
  for name, (module, *rest) in INTERMEDIATES.items():
    if module not in captured:
      continue
    if module == "backbone":
      found[name] = captured[module]["__call__"][0][rest[0]]
    elif not rest:
      found[name] = captured[module]["__call__"][0]
    elif rest[0] in captured[module]:
      found[name] = captured[module][rest[0]]["__call__"][0]
  return found
