"""A network of three layers, one of them stacked, and a table of its names."""

import flax.linen as nn
import numpy as np

from deeplax.models import layers
from deeplax.pretrained import rules

NORM = layers.Norm(decay=0.9, eps=0.1)  # large, so that its absence shows


class Toy(nn.Module):
  """Dense 3x3 with norm, two scanned depthwise 3x3 with norm, 1x1 with bias."""

  num_classes: int = 3

  @nn.compact
  def coarse(self, images, *, train: bool):
    conv = layers.ConvNorm(
      4, kernel=3, norm=NORM, activation="relu", name="stem"
    )
    x = conv(images.astype(np.float32), train=train)
    block = layers.ConvNorm(
      kernel=3, depthwise=True, norm=NORM, activation="relu", name="blocks"
    )
    scanned = nn.scan(
      lambda module, x: (module(x, train=train), None),
      variable_axes={"params": 0, "batch_stats": 0},
      split_rngs={"params": True},
      length=2,
    )
    x, _ = scanned(block, x)
    return layers.ConvNorm(self.num_classes, use_bias=True, name="logits")(
      x, train=train
    )


TORCH = {
  "kernel": rules.Leaf(".weight", rules.OIHW),
  "depthwise_kernel": rules.Leaf(".weight", rules.OIHW),
  "bias": rules.Leaf(".bias"),
  "scale": rules.Leaf(".weight"),
  "offset": rules.Leaf(".bias"),
  "mean": rules.Leaf(".running_mean"),
  "var": rules.Leaf(".running_var"),
}
TABLE = rules.Table(
  layers=(
    rules.Layer("stem", "net.conv1", norm="net.bn1"),
    rules.Layer("blocks", "net.{i+3}.conv", norm="net.{i+3}.bn"),
    rules.Layer("logits", "fc", kernel=rules.LINEAR),
  ),
  spellings=(TORCH,),
  left_out=(r".*\.num_batches_tracked",),
)


def arrays(num_classes: int = 3) -> dict[str, np.ndarray]:
  """Random arrays by the names of `TABLE`, in torch's layouts."""
  shapes: dict[str, tuple[int, ...]] = {"net.conv1.weight": (4, 3, 3, 3)}
  for i in (4, 5):
    shapes[f"net.{i}.conv.weight"] = (4, 1, 3, 3)
  for norm in ("net.bn1", "net.4.bn", "net.5.bn"):
    for leaf in ("weight", "bias", "running_mean", "running_var"):
      shapes[f"{norm}.{leaf}"] = (4,)
  shapes |= {"fc.weight": (num_classes, 4), "fc.bias": (num_classes,)}
  rng = np.random.default_rng(0)
  return {
    name: rng.uniform(0.5, 1.5, shape).astype(np.float32)
    for name, shape in shapes.items()
  }


def folded(seed: int = 0) -> dict[str, np.ndarray]:
  """The same with each norm folded into the convolution before it."""
  full = arrays()
  kept = {k: v for k, v in full.items() if ".weight" in k and "bn" not in k}
  rng = np.random.default_rng(seed)
  bias = {
    name.replace(".weight", ".bias"): rng.normal(size=len(value))
    for name, value in kept.items()
  }
  return kept | {name: v.astype(np.float32) for name, v in bias.items()}
