"""Outputs of the PyTorch networks and the variables that made them.

The weights follow from each variable's name by a rule; `deeplax.pretrained`
brings them into deeplax's form.
"""

import json
from typing import Any, NamedTuple
import zlib

import jax
import ml_collections
import numpy as np

from deeplax import pretrained
from deeplax.models import build
from deeplax.settings import defaults
from tests import shared
from tests.fixtures import torch_rule


class Network(NamedTuple):
  """What a fixture is of, in deeplax's words.

  Attributes:
    source: Table of names, and conventions if they have its name.
    settings: Of `config.model`, apart from defaults.
    num_classes: Of its output.
    out: What its output is: "full" logits, those at the head's stride, or of
      these the one that sees a whole image of 224 pixels.
    bgr: Whether its images have the channels turned round.
    auxiliary: Whether there is a second head.
    taps: Its intermediate tensors: a path into the captured outputs.
  """

  source: str
  settings: dict[str, Any]
  num_classes: int
  taps: dict[str, tuple[str, ...]]
  auxiliary: bool = False
  out: str = "full"
  bgr: bool = False


LOW, HIGH = ("backbone", "low4"), ("backbone", "high")
SMP_V3PLUS = {"decoder.convs": 1}
V3 = {"decoder.kind": "none", "separable": False}
CLASSIFIER = {"head": "classifier", "decoder.kind": "none"}
XCEPTION_TAPS = {
  "encoder.model.stem_1": ("backbone", "entry_flow_conv1_2"),
  # Before the ReLU that the decoder sees it after.
  "encoder.model.blocks_1.stack.conv2": ("backbone", "entry_flow_block2", "1"),
  "encoder.model.blocks_2": ("backbone", "entry_flow_block3", "0"),
  "encoder.model.blocks_20": HIGH,
  "decoder.aspp.0": ("head", "projection"),
  "decoder.aspp": ("head",),
  "decoder": ("decoder",),
  "segmentation_head.0": ("coarse",),
}

V2_RESNET = {
  "conventions": "kazuto",
  "backbone": "resnet101",
  "output_stride": 8,
  "head": "aspp_sum",
  "channels": 0,
  "decoder.kind": "none",
}

NETWORKS = {
  "kazuto_deeplabv2_resnet101": Network(
    "caffe",
    V2_RESNET,
    21,
    {"layer2": LOW, "layer5": HIGH},
    out="coarse",
    bgr=True,
  ),
  "kazuto_deeplabv2_resnet101_msc": Network(
    "caffe",
    {**V2_RESNET, "input_scales": (0.5, 0.75)},
    21,
    {},
    out="coarse",
    bgr=True,
  ),
  "tv_vgg16": Network(
    "torchvision",
    {
      "backbone": "vgg16",
      "output_stride": 32,
      "head": "large_fov",
      "fc6_kernel": 7,
      "channels": 4096,
      "decoder.kind": "none",
    },
    1000,
    {
      "features.4": ("backbone", "pool1"),
      "features.9": ("backbone", "pool2"),
      "features.16": ("backbone", "pool3"),
      "features.23": ("backbone", "pool4"),
      "features.30": HIGH,
    },
    out="center",
  ),
  "tv_deeplabv3_resnet101": Network(
    "torchvision",
    {"backbone": "resnet101", "output_stride": 8, **V3},
    21,
    {
      "backbone.layer1": LOW,
      "backbone.layer4": HIGH,
      "classifier.0": ("head", "projection"),
      "classifier": ("coarse",),
    },
    auxiliary=True,
  ),
  "tv_deeplabv3_mobilenet_v3_large": Network(
    "torchvision",
    {"backbone": "mobilenet_v3_large", "output_stride": 16, **V3},
    21,
    {
      "backbone.4": ("backbone", "middle"),
      "backbone.16": HIGH,
      "classifier.0": ("head", "projection"),
      "classifier": ("coarse",),
    },
    auxiliary=True,
  ),
  "tv_resnet101": Network(
    "torchvision",
    {"backbone": "resnet101", "output_stride": 32, **CLASSIFIER},
    1000,
    {
      "layer1": LOW,
      "layer2": ("backbone", "low8"),
      "layer3": ("backbone", "block3_unit23", "0"),
      "layer4": HIGH,
    },
  ),
  "tv_mobilenet_v2": Network(
    "torchvision",
    {"backbone": "mobilenet_v2", "output_stride": 32, **CLASSIFIER},
    1000,
    {
      "features.0": ("backbone", "conv"),
      "features.3": LOW,
      "features.17": ("backbone", "expanded_conv_16", "0"),
      "features.18": HIGH,
    },
  ),
  "smp_deeplabv3_resnet101_os8": Network(
    "smp",
    {"backbone": "resnet101", "output_stride": 8, **V3},
    21,
    {
      "encoder.layer4": HIGH,
      "decoder.aspp": ("head", "projection"),
      "decoder": ("head",),
      "segmentation_head.0": ("coarse",),
    },
  ),
  "smp_deeplabv3plus_mobilenet_v2_os16": Network(
    "smp",
    {"backbone": "mobilenet_v2", "output_stride": 16, **SMP_V3PLUS},
    21,
    {
      "encoder.features.3": LOW,
      "encoder.features.18": HIGH,
      "decoder.aspp": ("head",),
      "decoder": ("decoder",),
      "segmentation_head.0": ("coarse",),
    },
  ),
  "smp_deeplabv3plus_xception65_os16": Network(
    "smp",
    {"backbone": "xception_65", "output_stride": 16, **SMP_V3PLUS},
    21,
    XCEPTION_TAPS,
  ),
  "smp_deeplabv3plus_xception65_os8": Network(
    "smp",
    {"backbone": "xception_65", "output_stride": 8, **SMP_V3PLUS},
    21,
    XCEPTION_TAPS,
  ),
  "timm_xception65": Network(
    "timm",
    {"backbone": "xception_65", "output_stride": 32, **CLASSIFIER},
    1000,
    {
      "stem": ("backbone", "entry_flow_conv1_2"),
      "blocks.0": ("backbone", "entry_flow_block1", "0"),
      "blocks.1": ("backbone", "entry_flow_block2", "0"),
      "blocks.2": ("backbone", "entry_flow_block3", "0"),
      "blocks.19": ("backbone", "exit_flow_block1", "0"),
      "blocks.20": HIGH,
    },
  ),
  "timm_xception65_os16": Network(
    "timm",
    {"backbone": "xception_65", "output_stride": 16, **CLASSIFIER},
    1000,
    {
      "blocks.19": ("backbone", "exit_flow_block1", "0"),
      "blocks.20": HIGH,
    },
  ),
}
# Where NETWORKS has no path for it: a pooling is no module (of Caffe's ResNet
# it ends layer1), block 10 is inside the scan.
UNSEEN = {"maxpool", "blocks.10", "layer1"}


class Golden(NamedTuple):
  """One fixture: its manifest and its arrays."""

  manifest: dict[str, Any]
  arrays: dict[str, np.ndarray]


def load(name: str) -> Golden:
  """Return a fixture, or skip the test where there is none."""
  path = shared.path(f"golden/torch/{name}.json")
  manifest = json.loads(path.read_text())
  with np.load(path.with_suffix(".npz")) as file:
    return Golden(manifest, dict(file))


def config(name: str) -> ml_collections.ConfigDict:
  """Return the model config of a fixture."""
  c: Any = defaults.base().model
  c.conventions = NETWORKS[name].source
  c.update_from_flattened_dict(NETWORKS[name].settings)
  return c


def model(name: str) -> Any:
  """Return the network; the fixtures' images are normalized already."""
  network = build.from_config(
    config(name),
    num_classes=NETWORKS[name].num_classes,
    auxiliary=NETWORKS[name].auxiliary,
  )
  return network.clone(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def arrays(golden: Golden) -> dict[str, np.ndarray]:
  """Return the state dict that the original ran with."""
  gain = golden.manifest["gain2"]
  return {
    key: _large(key, shape, gain)
    if np.prod(shape) > 1e7
    else torch_rule.value(key, shape, gain2=gain, kind=kind)
    for key, shape, kind in golden.manifest["state_dict"]
  }


def _large(key: str, shape: list[int], gain: float) -> np.ndarray:
  """Return a matrix by the rule, in parts: whole it would need 4 GB."""
  stream = np.random.PCG64(zlib.crc32(key.encode("utf8")))
  rows, columns = shape
  value = np.empty(shape, np.float32)
  for first in range(0, rows, 256):
    part = value[first : first + 256]
    numbers = torch_rule.near_normal(stream.random_raw(part.size))
    numbers *= np.sqrt(gain / columns)
    part[:] = numbers.astype(np.float32).reshape(part.shape)
  return value


def variables(name: str, network: Any, golden: Golden) -> dict[str, Any]:
  """Return them as deeplax's; every array is used and every one is set."""
  return pretrained.convert_arrays(
    arrays(golden), NETWORKS[name].source, model=network
  )


def outputs(
  name: str, network: Any, variables: dict[str, Any], image: np.ndarray
) -> dict[str, np.ndarray]:
  """Return "out", "aux" and each tap, by its name in the fixture."""
  taps = {f"tap:{tap}": path for tap, path in NETWORKS[name].taps.items()}
  parts = {("backbone",), ("head",), ("decoder",), ("auxiliary",)}

  def wanted(module: Any, method: str) -> bool:
    if method == "coarse":
      return True
    seen = {path[:2] for path in taps.values()} | parts
    return method == "__call__" and module.path in seen

  @jax.jit
  def run(variables, image):
    full, state = network.apply(
      variables,
      image,
      train=False,
      capture_intermediates=wanted,
      mutable=["intermediates"],
    )
    captured = state["intermediates"]
    if network.auxiliary is not None:
      full = full, network.resize(_output(captured["auxiliary"]), size)
    return full, captured

  size = (image.shape[1], image.shape[2])
  full, captured = jax.tree.map(np.asarray, run(variables, image))
  found = {"out": full}
  if network.auxiliary is not None:
    found["out"], found["aux"] = full
  if NETWORKS[name].out != "full":
    found["out"] = captured["coarse"][0]
  if NETWORKS[name].out == "center":
    # fc6 is a convolution here, and pads: only there it meets no zeros.
    found["out"] = found["out"][:, 3:4, 3:4]
  for tap, path in taps.items():
    value = captured
    for key in path:
      value = _child(value, key)
    found[tap] = value if isinstance(value, np.ndarray) else _output(value)
  return found


def _child(value: Any, key: str) -> Any:
  """Return a submodule's captures, or a part of this module's output."""
  if isinstance(value, dict) and key in value:
    captured = value[key]
    return captured[0] if key == "coarse" else captured
  output = _output(value)
  return output[int(key)] if isinstance(output, tuple) else output[key]


def _output(value: Any) -> Any:
  return value["__call__"][0]
