"""The networks of v3+'s table 4, and their names where whole ones come from."""

from collections.abc import Mapping

# By flag of experiments.v3plus_table4: the paper's row, and what its network is
# called in the programs whose ImageNet files have a classifier; the first name
# that fits a file counts.
ROWS = {
  "resnet": "Reproduced ResNet-101",
  "xception": "Modified Xception",
}
BACKBONES: dict[str, Mapping[str, tuple[str, ...]]] = {
  "resnet": {
    "tf_deeplab": ("resnet_v1_101", "resnet_v1_101_beta"),
    "timm": ("resnet101",),
    "torchvision": ("resnet101",),
  },
  "xception": {"tf_deeplab": ("xception_65",), "timm": ("xception_65",)},
}
