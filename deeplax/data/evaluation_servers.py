"""The archives of PNGs that the test servers of VOC and Cityscapes read.

voc takes a .tar.gz of index PNGs with VOC's colors, results/VOC2012/
Segmentation/comp6_test_cls/ID.png (the VOC 2012 development kit's document, on
the submission of segmentations); cityscapes a .zip of gray PNGs of labelIds,
CITY_SEQUENCE_FRAME*.png (cityscapesScripts, helpers/labels.py and
evaluation/evalPixelLevelSemanticLabeling.py).
"""

import dataclasses

from deeplax.data import spec as spec_lib

# VOC 2012's segmentation images of which only the server has the truth.
VOC_TEST = 1456
VOC_FOLDER = "results/VOC2012/Segmentation"


@dataclasses.dataclass(frozen=True)
class Server:
  """The archive that a test server reads.

  Attributes:
    spec: The classes that are predicted.
    ids: The number of each class in the files.
    palette: The colors of the numbers in the files; (): gray.
    suffixes: The suffixes of the archive; the first names its kind.
    images: The number of images in the test split.
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
