"""A decoder that starts as if it were not there."""

import jax
import numpy as np
import pytest

from deeplax import errors
from deeplax.models import variables as variables_lib
from deeplax.pretrained import identity_decoder
from tests.models import networks

pytestmark = pytest.mark.usefixtures("short")


def network(**settings):
  given = {"atrous_rates": (), "channels": 16, "decoder__channels": 16}
  model = networks.small(**given | settings)
  variables = variables_lib.initial_variables(model, seed=1)
  # Before any training the norms leave the features as small as they come.
  variables["params"]["head"]["projection"]["scale"] *= 1e14
  return model, variables


def parts(model):
  """Return a function of variables and image: what head and decoder give."""

  def wanted(module, method):
    return method == "__call__" and module.path in (("head",), ("decoder",))

  @jax.jit
  def run(variables, image):
    _, state = model.apply(
      variables,
      image,
      train=False,
      capture_intermediates=wanted,
      mutable=["intermediates"],
    )
    captured = state["intermediates"]
    return [captured[name]["__call__"][0] for name in ("head", "decoder")]

  return run


@pytest.mark.parametrize("separable", [True, False])
def test_it_gives_the_heads_features_at_its_own_size(separable):
  model, drawn = network(decoder__separable=separable)
  variables, modules = identity_decoder.decoder(model, drawn)
  image = np.random.default_rng(0).integers(0, 256, (1, 33, 49, 3), np.uint8)
  run = parts(model)
  head, decoder = run(variables, image)
  resized = model.resize(head, decoder.shape[1:3])
  assert decoder.shape[1:3] == (9, 13)
  np.testing.assert_allclose(decoder, resized, rtol=1e-5, atol=1e-6)
  assert np.asarray(decoder).std() > 1e-3
  assert len(modules) == (4 if separable else 2)
  # The drawn one is no identity, and other parts are left alone.
  assert not np.allclose(run(drawn, image)[1], resized, atol=1e-3)
  for name in ("backbone", "head", "logits"):
    jax.tree.map(
      np.testing.assert_array_equal,
      dict(variables["params"][name]),
      dict(drawn["params"][name]),
    )


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"decoder__kind": "none"}, "concat, not none"),
    ({"decoder__kind": "sum"}, "concat, not sum"),
    ({"decoder__channels": 8}, "16 channels and model.decoder.channels is 8"),
  ],
)
def test_a_decoder_that_cannot_be_transparent_is_refused(settings, message):
  with pytest.raises(errors.InputError, match=message):
    identity_decoder.decoder(*network(**settings))
