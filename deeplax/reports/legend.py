"""The legend below an overlay: color, name and share of each class in it."""

from collections.abc import Mapping
import math

from jaxtyping import Integer, UInt8
import numpy as np
from PIL import Image
from PIL import ImageDraw
from PIL import ImageFont

from deeplax.reports import pictures
from deeplax.reports import shown_classes

# Pixels of a letter: of small pictures, of large ones, and how it grows with
# the side of a square picture.
SMALLEST, LARGEST, GROWTH = 13, 64, 1 / 45
_INK, _FAINT = (34, 34, 34), (150, 150, 150)


def overlaid(
  image: UInt8[np.ndarray, "h w 3"],
  labels: Integer[np.ndarray, "h w"],
  shares: Mapping[int, float],
  shown: shown_classes.Shown,
) -> UInt8[np.ndarray, "H W 3"]:
  """Return an image under the colors of its labels, above a legend.

  The upper left h rows and w columns are the image.

  Args:
    image: RGB.
    labels: Of its pixels, `shown.filtered`.
    shares: Of the classes in them, `shown.shares`.
    shown: Names, colors, and which classes are not tinted.
  """
  height, width = labels.shape
  sheet = below((height, width), shares, shown)
  pictures.overlay(
    image,
    labels,
    shown.spec.palette,
    untinted=shown.untinted,
    out=sheet[:height, :width],
  )
  return sheet


def below(
  size: tuple[int, int],
  shares: Mapping[int, float],
  shown: shown_classes.Shown,
) -> UInt8[np.ndarray, "h w 3"]:
  """Return a white sheet with a legend at its foot.

  Its upper left part is free for the picture, of which nothing is hidden. It is
  wider than a picture that is narrower than a name.

  Args:
    size: (height, width) of the picture.
    shares: The share of each class in it, in the order of the legend.
    shown: Names, colors, and which classes are not tinted.
  """
  height, width = size
  letter = round(math.sqrt(height * width) * GROWTH)
  letter = min(max(letter, SMALLEST), LARGEST)
  font = ImageFont.load_default(letter)
  patch, gap, line = letter, letter // 2, round(letter * 1.6)
  names = shown.spec.class_names
  texts = [
    f"{_latin(names[i])} {shown_classes.percent(s)}" for i, s in shares.items()
  ] or [shown.line(shares)]
  widths = [patch + gap + math.ceil(font.getlength(t)) for t in texts]
  total = max(width, max(widths) + 2 * gap)
  # Entries follow each other as words do.
  places, x, row = [], gap, 0
  for wide in widths:
    if x > gap and x + wide + gap > total:
      x, row = gap, row + 1
    places.append((x, row))
    x += wide + 2 * gap
  foot = (row + 1) * line + gap
  strip = Image.new("RGB", (total, foot), "white")
  draw = ImageDraw.Draw(strip)
  for text, (x, row), label in zip(
    texts, places, [*shares] or [None], strict=True
  ):
    y = gap // 2 + row * line + (line - patch) // 2
    if label is not None:
      untinted = label in shown.untinted
      draw.rectangle(
        (x, y, x + patch, y + patch),
        fill=None if untinted else tuple(shown.spec.palette[label]),
        outline=_FAINT,
      )
      x += patch + gap
    middle = y + patch // 2
    draw.text((x, middle), text, fill=_INK, font=font, anchor="lm")
  sheet = np.full((height + foot, total, 3), 255, np.uint8)
  sheet[height:] = np.asarray(strip)
  return sheet


def _latin(text: str) -> str:
  """Return a text in the letters that Pillow's own font has."""
  return text.encode("latin-1", "replace").decode("latin-1")
