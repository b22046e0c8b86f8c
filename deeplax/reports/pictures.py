"""Pictures of label maps: palette PNGs, overlays, sheets with a legend."""

from collections.abc import Collection, Sequence
import os
from typing import IO

from jaxtyping import Integer, UInt8
import numpy as np
from PIL import Image
from PIL import ImageDraw
from PIL import ImageFont

from deeplax.data import bands
from deeplax.data import files
from deeplax.data import spec as spec_lib
from deeplax.labels import IGNORE_LABEL

Palette = Sequence[Sequence[int]]
Labels = Integer[np.ndarray, "h w"]

# The color of void in VOC's own masks.
IGNORE_COLOR = (224, 224, 192)
GAP = 6  # pixels between the pictures of a strip
BAND = 256  # rows that are computed at a time
LINE = 18  # pixels of a text line


def color_table(palette: Palette, *, size: int = 256) -> np.ndarray:
  """Return the color of each label, uint8 [size, 3].

  Labels beyond the palette are gray, and 255 has the color of void in VOC.
  """
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
  untinted: Collection[int] = (),
  out: UInt8[np.ndarray, "h w 3"] | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
  """Return an image under the colors of its labels.

  Args:
    image: RGB.
    labels: One for each pixel.
    palette: The color of each class.
    opacity: Of the colors.
    untinted: Labels whose pixels stay as they are, such as a data set's
      `backgrounds`.
    out: Where to write the result; None: a new array.
  """
  result = np.empty_like(image) if out is None else out
  # In bands of rows: a 10000x10000 image in float64 takes 2.4 GB.
  for top in range(0, image.shape[0], BAND):
    rows = slice(top, top + BAND)
    color = colors(labels[rows], palette)
    mixed = image[rows] * (1 - opacity) + color * opacity
    colored = ~np.isin(labels[rows], [*untinted])[..., None]
    result[rows] = np.where(colored, np.rint(mixed), image[rows])
  return result


def index_png(
  path: str | os.PathLike[str] | IO[bytes], labels: Labels, palette: Palette
) -> None:
  """Write labels as a PNG of class indices with a palette.

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
  examples: Sequence[files.Example],
  predictions: Sequence[Integer[np.ndarray, "_ _"]],
  spec: spec_lib.Spec,
  *,
  width: int = 240,
) -> Image.Image:
  """Return a sheet: a row of image, truth and prediction each, and a legend.

  Args:
    examples: With images of any sizes and bands.
    predictions: Labels of each.
    spec: Names and colors of the classes; the legend shows those that occur.
    width: Pixels of one picture on the sheet.
  """
  rows = [
    (bands.to_show(example["image"]), example["label"], labels)
    for example, labels in zip(examples, predictions, strict=True)
  ]
  heights = [max(round(x.shape[0] * width / x.shape[1]), 1) for x, _, _ in rows]
  used = {n for row in rows for x in row[1:] for n in np.unique(x).tolist()}
  names = dict(enumerate(spec.class_names)) | {IGNORE_LABEL: "ignored"}
  legend = sorted(used & names.keys())
  total = 3 * width + 4 * GAP
  columns = max(total // 160, 1)
  bottom = sum(heights) + GAP * (len(rows) + 1) + LINE
  lines = -(-len(legend) // columns)
  sheet = Image.new("RGB", (total, bottom + lines * LINE + GAP), "white")
  draw = ImageDraw.Draw(sheet)
  for column, title in enumerate(("image", "truth", "prediction")):
    _text(draw, (GAP + column * (width + GAP), 2), title)
  top = LINE + GAP
  for (image, *maps), height in zip(rows, heights, strict=True):
    shown = [image, *(colors(labels, spec.palette) for labels in maps)]
    for column, pixels in enumerate(shown):
      # Labels have no values between them.
      kind = Image.Resampling.NEAREST if column else Image.Resampling.BILINEAR
      picture = Image.fromarray(pixels).resize((width, height), kind)
      sheet.paste(picture, (GAP + column * (width + GAP), top))
    top += height + GAP
  table = color_table(spec.palette)
  for place, label in enumerate(legend):
    x = GAP + place % columns * 160
    y = bottom + place // columns * LINE
    color = tuple(table[label].tolist())
    draw.rectangle((x, y + 2, x + 12, y + 14), fill=color, outline="black")
    _text(draw, (x + 18, y + 1), names[label])
  return sheet


def _text(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str) -> None:
  # Pillow's own font has only Latin letters, and raises on others.
  text = text.encode("latin-1", "replace").decode("latin-1")
  draw.text(place, text[:22], fill="black", font=ImageFont.load_default())
