"""What the test servers of VOC and Cityscapes read: archives of PNGs.

voc takes a .tar.gz of index PNGs with VOC's colors, results/VOC2012/
Segmentation/comp6_test_cls/ID.png (the VOC 2012 development kit's document, on
the submission of segmentations); cityscapes a .zip of gray PNGs of labelIds,
CITY_SEQUENCE_FRAME*.png (cityscapesScripts, helpers/labels.py and
evaluation/evalPixelLevelSemanticLabeling.py).
"""

import dataclasses

from deeplax.data import spec as spec_lib

# VOC 2012's segmentation images whose truth only the server has.
VOC_TEST = 1456
VOC_FOLDER = "results/VOC2012/Segmentation"


@dataclasses.dataclass(frozen=True)
class Server:
  """What a test server reads.

  Attributes:
    spec: The classes that are predicted.
    ids: By class, the number in the file.
    palette: Colors of the file's numbers; (): gray.
    suffixes: Of the archive; the first names the kind.
    images: In its test split.
  """

  spec: spec_lib.Spec
  ids: tuple[int, ...]
  palette: tuple[spec_lib.Color, ...]
  suffixes: tuple[str, ...]
  images: int


SERVERS = {
  "voc": Server(
    spec=spec_lib.VOC2012,
    ids=tuple(range(21)),
    palette=spec_lib.color_map(256),
    suffixes=(".tar.gz", ".tgz"),
    images=VOC_TEST,
  ),
  "cityscapes": Server(
    spec=spec_lib.CITYSCAPES,
    ids=tuple(spec_lib.CITYSCAPES_IDS),
    palette=(),
    suffixes=(".zip",),
    images=dict(spec_lib.CITYSCAPES.splits)["test"],
  ),
}


def member(server: Server, name: str, split: str, comp: int) -> str:
  """Return the path of an image's file in the archive."""
  if server.spec is spec_lib.VOC2012:
    return f"{VOC_FOLDER}/comp{comp}_{split}_cls/{name}.png"
  return f"{name}.png"
