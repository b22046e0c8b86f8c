"""A decoder that starts as if it were not there."""

import jax
import numpy as np
import pytest

from deeplax import errors
from deeplax.models import build
from deeplax.models import variables as variables_lib
from deeplax.pretrained import identity_decoder
from deeplax.settings import defaults


def network(**settings):
  config = defaults.base().model
  config.backbone = "mobilenet_v2"
  config.depth_multiplier = 0.5
  config.atrous_rates = ()
  config.channels = config.decoder.channels = 16
  config.update_from_flattened_dict(settings)
  model = build.from_config(config, num_classes=3)
  variables = variables_lib.initial_variables(model, seed=1)
  # Before any training the norms leave the features as small as they come.
  variables["params"]["head"]["projection"]["scale"] *= 1e11
  return model, variables


def parts(model, variables, image):
  """Return what head and decoder give."""

  def wanted(module, method):
    return method == "__call__" and module.path in (("head",), ("decoder",))

  _, state = jax.jit(
    lambda v, x: model.apply(
      v,
      x,
      train=False,
      capture_intermediates=wanted,
      mutable=["intermediates"],
    )
  )(variables, image)
  captured = state["intermediates"]
  return [captured[name]["__call__"][0] for name in ("head", "decoder")]


@pytest.mark.parametrize("separable", [True, False])
def test_it_gives_the_heads_features_at_its_own_size(separable):
  model, drawn = network(**{"decoder.separable": separable})
  variables, modules = identity_decoder.decoder(model, drawn)
  image = np.random.default_rng(0).integers(0, 256, (1, 33, 49, 3), np.uint8)
  head, decoder = parts(model, variables, image)
  resized = model.resize(head, decoder.shape[1:3])
  assert decoder.shape[1:3] == (9, 13)
  np.testing.assert_allclose(decoder, resized, rtol=1e-5, atol=1e-6)
  assert np.asarray(decoder).std() > 1e-3
  assert len(modules) == (4 if separable else 2)
  # The drawn one is no identity, and other parts are left alone.
  assert not np.allclose(parts(model, drawn, image)[1], resized, atol=1e-3)
  for name in ("backbone", "head", "logits"):
    jax.tree.map(
      np.testing.assert_array_equal,
      dict(variables["params"][name]),
      dict(drawn["params"][name]),
    )


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"decoder.kind": "none"}, "concat, not none"),
    ({"decoder.kind": "sum"}, "concat, not sum"),
    ({"decoder.channels": 8}, "16 channels and model.decoder.channels is 8"),
  ],
)
def test_a_decoder_that_cannot_be_transparent_is_refused(settings, message):
  with pytest.raises(errors.InputError, match=message):
    identity_decoder.decoder(*network(**settings))
