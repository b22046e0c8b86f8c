"""Pictures of label maps: palette PNGs, overlays, strips for a report."""

from collections.abc import Sequence
import os
from typing import IO

from jaxtyping import Integer, Shaped, UInt8
import numpy as np
from PIL import Image
from PIL import ImageDraw
from PIL import ImageFont

from deeplax.labels import IGNORE_LABEL

Palette = Sequence[Sequence[int]]
Labels = Integer[np.ndarray, "h w"]

# The color of void in VOC's own masks.
IGNORE_COLOR = (224, 224, 192)
GAP = 6  # pixels between the pictures of a strip
BAND = 256  # rows that are computed at a time
LINE = 18  # pixels of a text line
# Percentiles of a band that are shown black and white: a few odd pixels would
# else darken the rest.
STRETCH = (2, 98)


def as_rgb(image: Shaped[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "h w 3"]:
  """Return how to show an image of any number of bands and any numbers.

  RGB bytes stay as they are. Of anything else the first three bands, or the
  first alone if there are fewer, are stretched: each from its own STRETCH
  percentiles to 0 and 255. What is no finite number is black.
  """
  if image.dtype == np.uint8 and image.shape[2] == 3:
    return image
  shown = np.zeros((*image.shape[:2], 3), np.uint8)
  count = 3 if image.shape[2] >= 3 else 1
  for band in range(count):
    values = image[..., band].astype(np.float64)
    finite = np.isfinite(values)
    if not finite.any():
      continue
    low, high = np.percentile(values[finite], STRETCH)
    # A band of one value has no range to stretch: mid gray.
    scaled = np.full(values.shape, 0.5)
    if high > low:
      scaled = ((values - low) / (high - low)).clip(0, 1)
    scaled = np.where(finite, scaled, 0)
    shown[..., band] = np.rint(scaled * 255)
  if count == 1:
    shown[..., 1:] = shown[..., :1]
  return shown


def color_table(palette: Palette, *, size: int = 256) -> np.ndarray:
  """Return uint8 [size, 3]: the palette, then gray, and 255 as in VOC."""
  table = np.full((max(size, len(palette)), 3), 128, np.uint8)
  table[: len(palette)] = np.asarray(palette, np.uint8).reshape(-1, 3)
  if len(palette) <= IGNORE_LABEL < len(table):
    table[IGNORE_LABEL] = IGNORE_COLOR
  return table


def colors(labels: Labels, palette: Palette) -> UInt8[np.ndarray, "h w 3"]:
  """Return each label's color."""
  return color_table(palette, size=max(256, int(labels.max()) + 1))[labels]


def overlay(
  image: UInt8[np.ndarray, "h w 3"],
  labels: Labels,
  palette: Palette,
  *,
  opacity: float = 0.6,
) -> UInt8[np.ndarray, "h w 3"]:
  """Lay the labels' colors over an image.

  A class that is black in the palette (VOC's background) leaves the image as
  it is.
  """
  found = np.empty_like(image)
  # In bands: the float64 of a whole image of 10000x10000 are 2.4 GB.
  for top in range(0, image.shape[0], BAND):
    rows = slice(top, top + BAND)
    color = colors(labels[rows], palette)
    mixed = image[rows] * (1 - opacity) + color * opacity
    shown = color.any(axis=-1, keepdims=True)
    found[rows] = np.where(shown, np.rint(mixed), image[rows])
  return found


def index_png(
  path: str | os.PathLike[str] | IO[bytes], labels: Labels, palette: Palette
) -> None:
  """Write labels as a PNG of class indices with colors to look at.

  A palette PNG holds 256 classes; more are written as 16-bit gray without
  colors.
  """
  if int(labels.max(initial=0)) > 255:
    picture = Image.fromarray(labels.astype(np.uint16))
  else:
    picture = Image.fromarray(labels.astype(np.uint8, copy=False))
    picture.putpalette(color_table(palette)[:256].tobytes())
  picture.save(path, format="PNG")


def strip(
  images: Sequence[Shaped[np.ndarray, "_ _ _"]],
  truths: Sequence[Integer[np.ndarray, "_ _"] | None],
  predictions: Sequence[Integer[np.ndarray, "_ _"]],
  palette: Palette,
  names: Sequence[str],
  *,
  width: int = 240,
) -> Image.Image:
  """Return a sheet: a row of image, truth and prediction each, and a legend.

  Args:
    images: Of any sizes, shown by `as_rgb`.
    truths: Labels, 255 where ignored; None leaves the place empty.
    predictions: Labels.
    palette: Colors of the classes.
    names: Of the classes; the legend shows those that occur.
    width: Of one picture on the sheet, pixels.
  """
  rows = list(zip(images, truths, predictions, strict=True))
  heights = [
    max(round(image.shape[0] * width / image.shape[1]), 1)
    for image, _, _ in rows
  ]
  legend = _legend(rows, names)
  total = 3 * width + 4 * GAP
  columns = max(total // 160, 1)
  bottom = sum(heights) + GAP * (len(rows) + 1) + LINE
  lines = -(-len(legend) // columns)
  sheet = Image.new("RGB", (total, bottom + lines * LINE + GAP), "white")
  draw = ImageDraw.Draw(sheet)
  for column, title in enumerate(("image", "truth", "prediction")):
    _text(draw, (GAP + column * (width + GAP), 2), title)
  top = LINE + GAP
  for (image, truth, prediction), height in zip(rows, heights, strict=True):
    pictures = [
      _shown(image, (width, height)),
      None if truth is None else _small(truth, palette, (width, height)),
      _small(prediction, palette, (width, height)),
    ]
    for column, picture in enumerate(pictures):
      if picture is not None:
        sheet.paste(picture, (GAP + column * (width + GAP), top))
    top += height + GAP
  for place, label in enumerate(legend):
    x = GAP + place % columns * 160
    y = bottom + place // columns * LINE
    color = tuple(color_table(palette)[label].tolist())
    draw.rectangle((x, y + 2, x + 12, y + 14), fill=color, outline="black")
    _text(
      draw, (x + 18, y + 1), names[label] if label < len(names) else "ignored"
    )
  return sheet


def _legend(rows: list[tuple], names: Sequence[str]) -> list[int]:
  found = set()
  for _, truth, prediction in rows:
    for labels in (truth, prediction):
      if labels is not None:
        found.update(np.unique(labels).tolist())
  return sorted(
    label for label in found if label < len(names) or label == IGNORE_LABEL
  )


def _shown(image: np.ndarray, size: tuple[int, int]) -> Image.Image:
  return Image.fromarray(as_rgb(image)).resize(size, Image.Resampling.BILINEAR)


def _small(
  labels: np.ndarray, palette: Palette, size: tuple[int, int]
) -> Image.Image:
  picture = Image.fromarray(colors(labels, palette))
  return picture.resize(size, Image.Resampling.NEAREST)


def _text(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str) -> None:
  # Pillow's own font has Latin letters only, and raises on others.
  text = text.encode("latin-1", "replace").decode("latin-1")
  draw.text(place, text[:22], fill="black", font=ImageFont.load_default())
