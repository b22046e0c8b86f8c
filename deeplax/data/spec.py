"""The classes of a data set: names, colors, ignored label, sizes of splits.

A spec knows no files. A workdir keeps it as JSON, so that predicting needs no
data.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import math
from typing import Any

from deeplax.labels import IGNORE_LABEL

Color = tuple[int, int, int]
# Names, in small letters and without "_" around them, of what is no class of
# its own: overlays leave it untinted.
_BACKGROUNDS = {
  *("background", "bg", "backdrop", "void", "none", "nothing", "other"),
  *("others", "rest", "unknown", "unlabeled", "unlabelled", "unclassified"),
  *("ignore", "ignored"),
}


@dataclasses.dataclass(frozen=True)
class Spec:
  """A data set's classes.

  Attributes:
    name: For example voc2012.
    class_names: By label; unique, because results are keyed by them.
    palette: One (red, green, blue) per class.
    ignore_label: The label of ignored pixels, to which sources map the numbers
      in their files.
    splits: (split, number of images) as published; may be empty.
    label_map: (number in a mask, its label) for the numbers of own data that
      are not the class itself; None: unknown, or not for users to change.
  """

  name: str
  class_names: tuple[str, ...]
  palette: tuple[Color, ...]
  ignore_label: int = IGNORE_LABEL
  splits: tuple[tuple[str, int], ...] = ()
  # It belongs to the files, not to the classes: prepared data have none.
  label_map: tuple[tuple[int | float, int], ...] | None = dataclasses.field(
    default=None, compare=False
  )

  def __post_init__(self):
    if len(self.palette) != len(self.class_names):
      raise ValueError(
        f"{self.name}: {len(self.palette)} colors for "
        f"{len(self.class_names)} classes: give one per class"
      )
    if len(set(self.class_names)) != len(self.class_names):
      raise ValueError(f"{self.name}: class names repeat: {self.class_names}")

  @property
  def num_classes(self) -> int:
    return len(self.class_names)

  @property
  def backgrounds(self) -> frozenset[int]:
    """The labels of classes that are a background by their name."""
    names = enumerate(self.class_names)
    return frozenset(label for label, name in names if is_background(name))

  def to_json(self) -> dict[str, Any]:
    """Return the spec as dicts, lists, texts and numbers, for `from_json`."""
    return {
      "name": self.name,
      "class_names": list(self.class_names),
      "palette": [list(color) for color in self.palette],
      "ignore_label": self.ignore_label,
      "splits": dict(self.splits),
      "label_map": None if self.label_map is None else dict(self.label_map),
    }

  @classmethod
  def from_json(cls, obj: Mapping[str, Any]) -> "Spec":
    # Files of earlier versions have no "label_map".
    numbers = obj["label_map"] if "label_map" in obj else None
    return cls(
      name=obj["name"],
      class_names=tuple(obj["class_names"]),
      palette=tuple((r, g, b) for r, g, b in obj["palette"]),
      ignore_label=obj["ignore_label"],
      splits=tuple(obj["splits"].items()),
      label_map=None
      if numbers is None
      else tuple((_number(text), label) for text, label in numbers.items()),
    )


def _number(text: str) -> int | float:
  """Return the number that a key was; all NaN are one object, to be found."""
  try:
    return int(text)
  except ValueError:
    value = float(text)
    return math.nan if math.isnan(value) else value


def color_map(count: int) -> tuple[Color, ...]:
  """Return the first colors of PASCAL VOC's rule.

  Bits 0, 3, 6 of the label are the high bits of red, 1, 4, 7 of green and
  2, 5 of blue (VOCdevkit, VOClabelcolormap.m).
  """

  def channel(label: int, first: int) -> int:
    return sum((label >> 3 * j + first & 1) << 7 - j for j in range(3))

  return tuple(
    (channel(i, 0), channel(i, 1), channel(i, 2)) for i in range(count)
  )


def is_background(name: str) -> bool:
  """Return whether a class is a background, as void and other are."""
  return name.strip(" _").lower() in _BACKGROUNDS


def default_colors(names: Sequence[str]) -> tuple[Color, ...]:
  """Return a color for each class of own data; backgrounds are black.

  Forty are distinct from each other and on photographs, further ones less so.
  """
  free = iter(dict.fromkeys((*_DISTINCT, *color_map(256)[1:])))
  return tuple(
    (0, 0, 0) if is_background(name) else next(free) for name in names
  )


def _names(text: str) -> tuple[str, ...]:
  return tuple(" ".join(name.split()) for name in text.split(","))


def _colors(text: str) -> tuple[Color, ...]:
  triples = (bytes.fromhex(word) for word in text.split())
  return tuple((r, g, b) for r, g, b in triples)


# Each as far as possible in CIELAB, its chroma compressed, from those before,
# from black, white and gray, and from the color of ignored pixels.
_DISTINCT = _colors("""
  e02020 2020ff 008000 00c0ff ffa0e0 ffc000 00ffc0 a0ff00 806000 a02060
  2060a0 00a0a0 ffa080 e000e0 a0a0ff a0c080 006040 ff6080 60ffff a0a000
  e08000 40e060 a060a0 ff00a0 a06040 ffe0a0 6040a0 00a060 e0e040 c0a060
  a060ff 80c020 00a0ff c00040 60c0a0 406020 808040 e0c0ff 60e0ff 00a0c0""")

VOC2012 = Spec(
  name="voc2012",
  class_names=_names("""
    background, aeroplane, bicycle, bird, boat, bottle, bus, car, cat,
    chair, cow, diningtable, dog, horse, motorbike, person, pottedplant,
    sheep, sofa, train, tvmonitor"""),
  palette=color_map(21),
  # SBD adds 9,118 masks to train: 10,582 (Hariharan et al. 2011).
  splits=(
    ("train", 1464),
    ("train_aug", 10582),
    ("val", 1449),
    ("trainval", 2913),
  ),
)

# COCO with VOC's classes, to train on before VOC (v3, 4.1).
COCO = dataclasses.replace(VOC2012, name="coco", splits=())

# The 19 trainIds of cityscapesScripts, helpers/labels.py.
CITYSCAPES = Spec(
  name="cityscapes",
  class_names=_names("""
    road, sidewalk, building, wall, fence, pole, traffic light, traffic
    sign, vegetation, terrain, sky, person, rider, car, truck, bus, train,
    motorcycle, bicycle"""),
  palette=_colors("""
    804080 f423e8 464646 66669c be9999 999999 faaa1e dcdc00 6b8e23 98fb98
    4682b4 dc143c ff0000 00008e 000046 003c64 005064 0000e6 770b20"""),
  # The papers count 20,000 coarse annotations; the archive has 19,998.
  splits=(
    ("train", 2975),
    ("val", 500),
    ("test", 1525),
    ("train_extra", 19998),
  ),
)

# cityscapesScripts, helpers/labels.py: ids of the masks -> trainIds.
CITYSCAPES_IDS = dict(
  zip(
    (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33),
    range(19),
    strict=True,
  )
)

# objectInfo150.csv and color150.mat, first word of each name; the first of its
# two screens is the door.
ADE20K = Spec(
  name="ade20k",
  class_names=_names("""
    wall, building, sky, floor, tree, ceiling, road, bed, windowpane,
    grass, cabinet, sidewalk, person, earth, door, table, mountain, plant,
    curtain, chair, car, water, painting, sofa, shelf, house, sea, mirror,
    rug, field, armchair, seat, fence, desk, rock, wardrobe, lamp,
    bathtub, railing, cushion, base, box, column, signboard, chest,
    counter, sand, sink, skyscraper, fireplace, refrigerator, grandstand,
    path, stairs, runway, case, pool, pillow, screen door, stairway,
    river, bridge, bookcase, blind, coffee, toilet, flower, book, hill,
    bench, countertop, stove, palm, kitchen, computer, swivel, boat, bar,
    arcade, hovel, bus, towel, light, truck, tower, chandelier, awning,
    streetlight, booth, television, airplane, dirt, apparel, pole, land,
    bannister, escalator, ottoman, bottle, buffet, poster, stage, van,
    ship, fountain, conveyer, canopy, washer, plaything, swimming, stool,
    barrel, basket, waterfall, tent, bag, minibike, cradle, oven, ball,
    food, step, tank, trade, microwave, pot, animal, bicycle, lake,
    dishwasher, screen, blanket, sculpture, hood, sconce, vase, traffic,
    tray, ashcan, fan, pier, crt, plate, monitor, bulletin, shower,
    radiator, glass, clock, flag"""),
  palette=_colors("""
    787878 b47878 06e6e6 503232 04c803 787850 8c8c8c cc05ff e6e6e6 04fa07
    e005ff ebff07 96053d 787846 08ff33 ff0652 8fff8c ccff04 ff3307 cc4603
    0066c8 3de6fa ff0633 0b66ff ff0747 ff09e0 0907e6 dcdcdc ff095c 7009ff
    08ffd6 07ffe0 ffb806 0aff47 ff290a 07ffff e0ff08 6608ff ff3d06 ffc207
    ff7a08 00ff14 ff0829 ff0599 0633ff eb0cff a09614 00a3ff 8c8c8c fa0a0f
    14ff00 1fff00 ff1f00 ffe000 99ff00 0000ff ff4700 00ebff 00adff 1f00ff
    0bc8c8 ff5200 00fff5 003dff 00ff70 00ff85 ff0000 ffa300 ff6600 c2ff00
    008fff 33ff00 0052ff 00ff29 00ffad 0a00ff adff00 00ff99 ff5c00 ff00ff
    ff00f5 ff0066 ffad00 ff0014 ffb8b8 001fff 00ff3d 0047ff ff00cc 00ffc2
    00ff52 000aff 0070ff 3300ff 00c2ff 007aff 00ffa3 ff9900 00ff0a ff7000
    8fff00 5200ff a3ff00 ffeb00 08b8aa 8500ff 00ff5c b800ff ff001f 00b8ff
    00d6ff ff0070 5cff00 00e0ff 70e0ff 46b8a0 a300ff 9900ff 47ff00 ff00a3
    ffcc00 ff008f 00ffeb 85ff00 ff00eb f500ff ff007a fff500 0abed4 d6ff00
    00ccff 1400ff ffff00 0099ff 0029ff 00ffcc 2900ff 29ff00 ad00ff 00f5ff
    4700ff 7a00ff 00ffb8 005cff b8ff00 0085ff ffd600 19c2c2 66ff00 5c00ff"""),
  splits=(("train", 20210), ("val", 2000)),
)

# The 11 classes of SegNet (1511.00561), at 480x360.
CAMVID = Spec(
  name="camvid",
  class_names=_names("""
    Sky, Building, Pole, Road, Pavement, Tree, SignSymbol, Fence, Car,
    Pedestrian, Bicyclist"""),
  palette=_colors("""
    808080 800000 c0c080 804080 3c28de 808000 c08080 404080 400080 404000
    0080c0"""),
  splits=(("train", 367), ("val", 101), ("test", 233)),
)

# Made by deeplax.data.shapes.
SHAPES = Spec(
  name="shapes",
  class_names=_names("""
    background, disc, ring, small box, big box, triangle, striped disc,
    dotted disc"""),
  palette=color_map(8),
)

SPECS = {s.name: s for s in (VOC2012, COCO, CITYSCAPES, ADE20K, CAMVID, SHAPES)}
