"""Small images and probabilities by rule, and what pydensecrf makes of them.

  pip install pydensecrf
  python -m tests.crf.golden

writes tests/fixtures/dense_crf.npz anew.
"""

import importlib
import pathlib
from typing import Any

import numpy as np

FILE = pathlib.Path(__file__).parents[1] / "fixtures" / "dense_crf.npz"
HEIGHT, WIDTH, CLASSES = 12, 16, 5
# dense_crf's parameters: of a v2 ResNet-101, and wide ones that mix a lot.
SETTINGS: dict[str, dict[str, Any]] = {
  "v2": {
    "w1": 4, "sigma_alpha": 67, "sigma_beta": 3, "w2": 3, "sigma_gamma": 1
  },
  "wide": {
    "w1": 5, "sigma_alpha": 30, "sigma_beta": 13, "w2": 3, "sigma_gamma": 3
  },
}  # fmt: skip


def image():
  """[h, w, 3]: a bright disc on a ramp, with texture."""
  y, x = np.mgrid[:HEIGHT, :WIDTH]
  disc = 120 * ((y - 5) ** 2 + (x - 9) ** 2 < 18)
  bands = [disc + 7 * x, disc + 9 * y, 130 - disc // 2 + (x * y) % 5]
  return np.stack(bands, axis=-1).astype(np.uint8)


def probabilities():
  """[h, w, k]: smooth, none below 1e-5, and no sure winner."""
  y, x, k = np.meshgrid(
    np.arange(HEIGHT), np.arange(WIDTH), np.arange(CLASSES), indexing="ij"
  )
  logits = np.cos(0.3 * y * (1 + k % 2) + k) + np.sin(0.25 * x * (1 + k % 3))
  shares = np.exp(2 * logits)
  return (shares / shares.sum(-1, keepdims=True)).astype(np.float32)


def by_pydensecrf(image, probabilities, *, iterations=10, **settings):
  """Return marginals [h, w, k]."""
  densecrf = importlib.import_module("pydensecrf.densecrf")
  height, width, classes = probabilities.shape
  crf = densecrf.DenseCRF2D(width, height, classes)
  unary = -np.log(probabilities).reshape(-1, classes).T
  crf.setUnaryEnergy(np.ascontiguousarray(unary, np.float32))
  crf.addPairwiseGaussian(sxy=settings["sigma_gamma"], compat=settings["w2"])
  crf.addPairwiseBilateral(
    sxy=settings["sigma_alpha"],
    srgb=settings["sigma_beta"],
    rgbim=np.ascontiguousarray(image),
    compat=settings["w1"],
  )
  found = np.array(crf.inference(iterations))
  return found.T.reshape(height, width, classes)


def main():
  found: dict[str, Any] = {
    name: by_pydensecrf(image(), probabilities(), **settings)
    for name, settings in SETTINGS.items()
  }
  FILE.parent.mkdir(exist_ok=True)
  np.savez_compressed(FILE, **found)


if __name__ == "__main__":
  main()
