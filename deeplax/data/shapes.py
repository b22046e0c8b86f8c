"""A data set of drawn shapes, to train without any data.

Discs, rings, boxes and triangles, bright on a dark textured ground. Colors are
random, so none tells a class. Disc, ring, triangle, small and big box differ in
shape and extent alone; the disc, the striped and the dotted disc in texture
alone, with a period longer than the 7 pixels that three 3x3 convolutions see.
Picture i depends on (seed, split, i) only.
"""

import argparse
import dataclasses
import math

import cv2
import numpy as np
from PIL import Image

from deeplax import commands
from deeplax import errors
from deeplax import paths
from deeplax.data import files
from deeplax.data import spec as spec_lib
from deeplax.labels import IGNORE_LABEL

SPLITS = ("train", "val")

DISC, RING, SMALL_BOX, BIG_BOX, TRIANGLE, STRIPED, DOTTED = range(1, 8)

# Ranges of the radius (discs, ring, triangle's circumcircle) or half the side
# (boxes), in pixels. Scaling by 0.75 to 1.25 keeps the two boxes apart.
_RADII = {
  DISC: (10, 16),
  RING: (10, 16),
  SMALL_BOX: (6, 7.5),
  BIG_BOX: (14, 20),
  TRIANGLE: (13, 19),
  STRIPED: (11, 17),
  DOTTED: (11, 17),
}
_DRAWN = (*_RADII, SMALL_BOX)  # twice, because it covers the fewest pixels
_PERIOD = (8.0, 10.0)  # of stripes and dots, in pixels
# Ranges of the colors: objects of every class are brighter than the ground.
_GROUND = (40, 120)
_OBJECT = (150, 240)
_MARKS = (10, 60)  # stripes and dots
_AREA_PER_OBJECT = 97 * 97 / len(_DRAWN)
_SUBPIXEL = 4  # bits of a drawn coordinate after the point


@dataclasses.dataclass(frozen=True)
class Placed:
  """An object: its class, center, radius as in _RADII, and turn in radians."""

  label: int
  x: float
  y: float
  radius: float
  turn: float

  @property
  def reach(self) -> float:
    """The radius of the circle around it."""
    box = self.label in (SMALL_BOX, BIG_BOX)
    return self.radius * (math.sqrt(2) if box else 1)


class Shapes:
  """A split of drawn pictures.

  Attributes:
    images: The number of pictures.
    size: (height, width) of each, in pixels.
    seed: The seed of the pictures, which is not that of training.
  """

  spec = spec_lib.SHAPES

  def __init__(
    self, split: str, *, images: int, size: tuple[int, int], seed: int = 0
  ):
    if split not in SPLITS:
      raise errors.InputError(f"no split {split!r} of shapes: {list(SPLITS)}")
    if images < 1 or min(size) < 1:
      raise errors.InputError(
        f"shapes: {images} pictures of {size}: give at least 1 of 1x1"
      )
    self.split = split
    self.size = (int(size[0]), int(size[1]))
    self._images = images
    self._seed = seed

  def __len__(self) -> int:
    return self._images

  def __getitem__(self, index: int) -> files.Example:
    if not 0 <= index < self._images:
      raise IndexError(f"picture {index} of {self._images}")
    rng = np.random.default_rng(
      [self._seed, SPLITS.index(self.split), int(index)]
    )
    image = _ground(rng, self.size)
    label = np.zeros(self.size, np.uint8)
    for item in _place(rng, self.size):
      _draw(rng, image, label, item)
    name = f"{self.split}_{index:05d}"
    image = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    return {"image": image, "label": label, "name": name}


def _ground(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
  """Return a ground of soft blobs of two dark colors, with noise."""
  h, w = size
  colors = rng.uniform(*_GROUND, (2, 3)).astype(np.float32)
  cells = rng.random((h // 16 + 2, w // 16 + 2), dtype=np.float32)
  blobs = cv2.resize(cells, (w, h), interpolation=cv2.INTER_CUBIC)[..., None]
  image = colors[0] + blobs * (colors[1] - colors[0])
  return image + 14 * rng.standard_normal((h, w, 1), dtype=np.float32)


def _place(rng: np.random.Generator, size: tuple[int, int]) -> list[Placed]:
  """Return objects that do not touch, placed from the largest to the smallest.

  The small ones still find room between the others; one without room is left
  out.
  """
  h, w = size
  count = max(1, round(h * w / _AREA_PER_OBJECT))
  labels = rng.permutation(_DRAWN)[np.arange(count) % len(_DRAWN)]
  drawn = [
    Placed(
      label=int(label),
      x=0.0,
      y=0.0,
      radius=rng.uniform(*_RADII[int(label)]),
      turn=rng.uniform(0, 2 * math.pi),
    )
    for label in labels
  ]
  placed: list[Placed] = []
  for item in sorted(drawn, key=lambda d: -d.reach):
    reach = item.reach
    # A part of an object may lie outside the picture.
    room = (max(w - 1 - 1.4 * reach, 0), max(h - 1 - 1.4 * reach, 0))
    for x, y in (0.7 * reach + rng.random((12, 2)) * room).tolist():
      if all(
        math.hypot(x - o.x, y - o.y) > reach + o.reach + 3 for o in placed
      ):
        placed.append(dataclasses.replace(item, x=x, y=y))
        break
  return placed


def _draw(
  rng: np.random.Generator,
  image: np.ndarray,
  label: np.ndarray,
  item: Placed,
) -> None:
  """Paint an object into image and label, inside its own window only."""
  h, w = label.shape
  reach = math.ceil(item.reach) + 3
  x0, y0 = max(int(item.x) - reach, 0), max(int(item.y) - reach, 0)
  x1, y1 = min(int(item.x) + reach + 1, w), min(int(item.y) + reach + 1, h)
  window = np.s_[y0:y1, x0:x1]
  x, y = item.x - x0, item.y - y0
  cover = _outline((y1 - y0, x1 - x0), item, x, y)
  color = rng.uniform(*_OBJECT, 3).astype(np.float32)
  if item.label in (STRIPED, DOTTED):
    yy, xx = np.mgrid[0 : y1 - y0, 0 : x1 - x0].astype(np.float32)
    marks = _marks(rng, xx - x, yy - y, dotted=item.label == DOTTED)
    dark = rng.uniform(*_MARKS, 3).astype(np.float32)
    color = color + marks[..., None] * (dark - color)
  alpha = cover[..., None] * np.float32(1 / 255)
  image[window] += alpha * (color - image[window])

  inside = (cover > 127).astype(np.uint8)
  kernel = np.ones((3, 3), np.uint8)
  border = cv2.dilate(inside, kernel) - cv2.erode(inside, kernel)
  target = label[window]
  target[inside == 1] = item.label
  # A pixel on either side of an outline is ignored, as in VOC.
  target[border == 1] = IGNORE_LABEL


def _outline(
  size: tuple[int, int], item: Placed, x: float, y: float
) -> np.ndarray:
  """Return how much of each pixel an object covers, 0 to 255."""
  cover = np.zeros(size, np.uint8)
  unit = 1 << _SUBPIXEL

  def circle(radius: float, value: int) -> None:
    center = (round(x * unit), round(y * unit))
    cv2.circle(
      cover, center, round(radius * unit), value, -1, cv2.LINE_AA, _SUBPIXEL
    )

  corners = {SMALL_BOX: 4, BIG_BOX: 4, TRIANGLE: 3}.get(item.label)
  if corners:
    angles = item.turn + np.arange(corners) * (2 * math.pi / corners)
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1) * item.reach
    points = np.rint((points + [x, y]) * unit).astype(np.int32)
    cv2.fillConvexPoly(cover, points, 255, cv2.LINE_AA, _SUBPIXEL)
  else:
    circle(item.radius, 255)
  if item.label == RING:
    circle(item.radius * 0.5, 0)
  return cover


def _marks(
  rng: np.random.Generator, x: np.ndarray, y: np.ndarray, *, dotted: bool
) -> np.ndarray:
  """Return 1 on stripes or dots and 0 between them, at a random turn."""
  turn, phase = rng.uniform(0, 2 * math.pi, 2)
  wave = 2 * math.pi / rng.uniform(*_PERIOD)
  c, s = math.cos(turn) * wave, math.sin(turn) * wave
  along = np.sin(c * x + s * y + phase)
  if not dotted:
    return np.clip(0.5 + 2 * along, 0, 1)
  across = np.sin(c * y - s * x + phase)
  return np.clip(2 * (along + across) - 0.5, 0, 1)


@errors.command
def main(argv: list[str] | None = None) -> None:
  """Write validation pictures as PNG files, for `deeplax.predict`."""
  parser = argparse.ArgumentParser(
    prog=commands.typed("data.shapes"),
    description="Write some of the built-in pictures to a folder.",
    epilog="example: %(prog)s --out=runs/samples",
  )
  parser.add_argument("--out", required=True, type=paths.local, metavar="DIR")
  parser.add_argument("--images", type=int, default=6, metavar="N")
  parser.add_argument(
    "--size", type=int, default=97, help="height and width, pixels"
  )
  args = parser.parse_args(argv)
  pictures = Shapes("val", images=args.images, size=(args.size, args.size))
  what = f"--out={args.out} cannot be written"
  with errors.disk_errors(what, "name another folder"):
    args.out.mkdir(parents=True, exist_ok=True)
    for index in range(len(pictures)):
      picture = pictures[index]
      file = args.out / f"{picture['name']}.png"
      Image.fromarray(np.asarray(picture["image"])).save(file)
  print(f"{len(pictures)} pictures in {args.out}")


if __name__ == "__main__":
  main()
