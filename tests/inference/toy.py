"""A network and pictures small enough to count its scores by hand."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from deeplax.data import spec as spec_lib
from deeplax.inference import mode as mode_lib
from deeplax.inference import predictor as predictor_lib
from deeplax.inference import sizing as sizing_lib
from deeplax.metrics import confusion
from deeplax.reports import pictures

SPEC = spec_lib.Spec(
  "toy", ("red", "green", "blue"), ((9, 0, 0), (0, 9, 0), (0, 0, 9))
)


class Brightest(nn.Module):
  """The class is the strongest color channel."""

  def coarse(self, images, *, train: bool):
    return images.astype(jnp.float32)


class Weighted(nn.Module):
  """The logits are one weight for each of three classes, everywhere."""

  @nn.compact
  def coarse(self, images, *, train: bool):
    weights = self.param("weights", nn.initializers.zeros, (3,))
    return jnp.broadcast_to(weights, (*images.shape[:3], 3))

  @staticmethod
  def best(label):
    return {"params": {"weights": np.eye(3, dtype=np.float32)[label]}}


class Toy:
  """Random pictures of different sizes; every fourth pixel is ignored."""

  spec, split = SPEC, "val"

  def __init__(self, images=7, constant=None):
    self._images, self._constant = images, constant

  def __len__(self):
    return self._images

  def __getitem__(self, index):
    rng = np.random.default_rng(index)
    size = (20 + index, 30 - index)
    image = rng.integers(0, 256, (*size, 3), np.uint8)
    label = rng.integers(0, 3, size).astype(np.uint8)
    label[rng.random(size) < 0.25] = 255
    if self._constant is not None:
      image[..., self._constant] = 255
      image[..., self._constant - 1] //= 2
    return {"image": image, "label": label, "name": f"{index}"}


def predictor(
  *, pad_to=None, scales=(1.0,), flip=False
) -> predictor_lib.Predictor:
  return predictor_lib.Predictor(
    Brightest(),
    {},
    pad_value=(127.5,) * 3,
    mode=mode_lib.Mode(scales, flip),
    sizing=sizing_lib.Sizing(pad_to=pad_to),
    progress=lambda _: None,
  )


def silent(_):
  pass


def by_hand(source, indices):
  matrix = np.zeros((3, 3), np.int64)
  for index in indices:
    example = source[index]
    valid = example["label"] != 255
    predicted = example["image"].argmax(-1)[valid]
    np.add.at(matrix, (example["label"][valid], predicted), 1)
  return confusion.scores(matrix, SPEC.class_names)


def as_drawn(source, indices, spoil=None):
  """The sheet of these images as strip draws it, `spoil` changing one."""
  examples = [source[i] for i in indices]
  predictions = [e["image"].argmax(-1).astype(np.uint8) for e in examples]
  if spoil is not None:
    predictions[spoil] = predictions[spoil] * 0
  return np.asarray(pictures.strip(examples, predictions, SPEC))
