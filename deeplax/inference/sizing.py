"""How images of any size become images of the few sizes of the programs."""

import dataclasses
import math
from typing import Any

from deeplax.inference import windows as windows_lib
from deeplax.settings import defaults

# Sides of a bucket are 64 n + 1: aligned at every output stride up to 64.
BUCKET = 64


@dataclasses.dataclass(frozen=True)
class Sizing:
  """How images of any size become images of the few sizes of the programs.

  Attributes:
    sizes: "reference": the network sees the padding, as in the papers;
      "exact": it computes what it would without, see `ops.true_size`;
      "unpadded": there is none, and each size of image has its own program.
    pad_to: (height, width) that all images which fit are padded to. Larger
      ones, and all of them if it is None, are padded to the next multiple of
      64, plus 1, on each side.
    windows: Larger images are predicted in windows of this one size, which
      are blended; None: every image is predicted as a whole.

  Raises:
    ValueError: `sizes` is none of these.
  """

  sizes: str = "reference"
  pad_to: tuple[int, int] | None = None
  windows: windows_lib.Windows | None = None

  def __post_init__(self):
    if self.sizes not in defaults.SIZES:
      raise ValueError(f"sizes {self.sizes!r} not in {list(defaults.SIZES)}")

  def cuts(self, size: tuple[int, int]) -> bool:
    """Return whether an image of this (height, width) is cut into windows."""
    return self.windows is not None and self.windows.cut(size)

  def bucket(self, size: tuple[int, int]) -> tuple[int, int]:
    """Return the (height, width) that the network sees of such an image."""
    if self.windows is not None and self.windows.cut(size):
      return (self.windows.size, self.windows.size)
    if self.sizes == "unpadded":
      return size
    if self.pad_to and size[0] <= self.pad_to[0] and size[1] <= self.pad_to[1]:
      return (self.pad_to[0], self.pad_to[1])
    height, width = (max(-(-(d - 1) // BUCKET), 1) * BUCKET + 1 for d in size)
    return (height, width)

  def pieces(self, size: tuple[int, int]) -> int:
    """Return how often the network runs for an image of a (height, width)."""
    if self.windows is None or not self.windows.cut(size):
      return 1
    return math.prod(len(self.windows.starts(side)) for side in size)

  @property
  def fields(self) -> dict[str, Any]:
    """The fields of a result: "sizes" and "window"."""
    cut = self.windows
    window = [cut.size, cut.overlap] if cut else None
    return {"sizes": self.sizes, "window": window}

  @property
  def text(self) -> str:
    """What differs from the papers' way, to be appended to a line."""
    text = {"exact": ", exact sizes", "unpadded": ", unpadded"}
    text = text.get(self.sizes, "")
    if cut := self.windows:
      text += f", windows of {cut.size} pixels that share {cut.overlap}"
    return text
