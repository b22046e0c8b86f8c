"""pydensecrf's marginals: same labels everywhere, same values to float32."""

import importlib.util
import json

import numpy as np
import pytest

from deeplax import crf
from tests import shared
from tests.crf import golden

KEYS = {
  "w1": "bi_w",
  "sigma_alpha": "bi_xy",
  "sigma_beta": "bi_rgb",
  "w2": "pos_w",
  "sigma_gamma": "pos_xy",
}


@pytest.mark.parametrize("name", list(golden.SETTINGS))
def test_marginals_are_those_of_pydensecrf(name):
  expected = np.load(golden.FILE)[name]
  found = np.asarray(
    crf.dense_crf(
      golden.image(), golden.probabilities(), **golden.SETTINGS[name]
    )
  )
  np.testing.assert_array_equal(found.argmax(-1), expected.argmax(-1))
  error = np.abs(found - expected)
  assert error.mean() < 1e-6 and error.max() < 2e-5
  # The CRF does something here: this is no comparison of what went in.
  changed = golden.probabilities().argmax(-1) != expected.argmax(-1)
  assert 0.1 < changed.mean() < 0.9


@pytest.mark.parametrize(
  ("case", "setting"),
  [
    ("synth_48x64", "v2res101"),
    ("astronaut_48x64", "v1largefov"),
    ("astronaut_321x321", "v1largefov"),
    *(
      pytest.param(*case, marks=pytest.mark.slow)
      for case in (
        ("synth_48x64", "v1largefov"),
        ("astronaut_48x64", "v2res101"),
        ("astronaut_321x321", "v2res101"),
      )
    ),
  ],
)
def test_marginals_are_those_of_pydensecrf_on_photographs(case, setting):
  folder = shared.path("golden/crf")
  spec = importlib.util.spec_from_file_location("rule", folder / "rule.py")
  assert spec and spec.loader
  rule = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(rule)
  manifest = json.loads((folder / "manifest.json").read_text())
  stored = np.load(folder / f"{case}.npz")
  h, w, k = (manifest["cases"][case][key] for key in ("h", "w", "classes"))
  probabilities = np.exp(-rule.unary(h, w, k)).reshape(h, w, k)
  parameters = manifest["params"][setting]
  found = np.asarray(
    crf.dense_crf(
      stored["image"],
      probabilities,
      **{ours: parameters[theirs] for ours, theirs in KEYS.items()},
    )
  )
  np.testing.assert_array_equal(found.argmax(-1), stored[f"label_{setting}_10"])
  expected = stored[f"q_{setting}_10"].reshape(-1, k)
  # Of the largest, every eighth pixel is stored, in half precision.
  step = 8 if case == "astronaut_321x321" else 1
  sampled = found[::step, ::step].reshape(-1, k).astype(expected.dtype)
  error = np.abs(sampled.astype(np.float64) - expected)
  assert error.mean() < 1e-6
  np.testing.assert_allclose(found.sum(-1), 1, atol=1e-6)
  if f"exact_{setting}_10" in stored:
    # The sum over all pairs: what is left is the lattice's own error, 0.979 to
    # 0.987 of the labels for pydensecrf.
    exact = stored[f"exact_{setting}_10"].astype(np.float32).argmax(-1)
    assert (found.argmax(-1).ravel() == exact).mean() > 0.975
