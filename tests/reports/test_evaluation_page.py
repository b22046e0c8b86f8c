"""The page of an evaluation, read as a browser would."""

import base64
import collections
import html.parser
import io
import re

from etils import epath
import numpy as np
from PIL import Image
import pytest

from deeplax.data import spec as spec_lib
from deeplax.metrics import confusion
from deeplax.metrics import measures
from deeplax.reports import evaluation_page
from deeplax.reports import html as html_lib
from deeplax.reports import worst_images
from tests import browser

SPEC = spec_lib.Spec(
  "toy", ("sky", "<b>&sheep", "cow"), ((9, 9, 90), (0, 200, 0), (90, 0, 0))
)
MEASURED = measures.Measures(trimap=(1, 7), boundary=True, objects=True)
VOID = ("br", "img", "link", "meta")


class Reader(html.parser.HTMLParser):
  """Collects what the page holds, and refuses tags that do not nest."""

  def __init__(self):
    super().__init__()
    self.open, self.ids, self.links, self.images = [], [], [], []
    self.tags, self.inside = collections.Counter(), ""
    self.cells, self.text = {}, ""

  def handle_starttag(self, tag, attrs):
    found = dict(attrs)
    self.tags[tag] += 1
    if "id" in found:
      self.ids.append(found["id"])
    if tag == "a":
      self.links.append((found["href"], self.open.count("svg")))
    if tag == "rect" and self.open[-1] == "a":
      self.cells[found["id"]] = self.links[-1][0]
    if tag == "img":
      self.images.append((found["alt"], found["src"]))
    if tag not in VOID:
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.inside += data


class Source:
  """Four images, the later ones worse; the last is ignored throughout."""

  spec, split = SPEC, "val"

  def __len__(self):
    return 4

  def __getitem__(self, index):
    rng = np.random.default_rng(index)
    image = rng.integers(0, 256, (30, 40 + index, 3), np.uint8)
    label = rng.integers(0, 3, image.shape[:2]).astype(np.uint8)
    label[:3] = 255
    if index == 3:
      label[:] = 255
    return {"image": image, "label": label, "name": f"a<{index}>.png"}


def _predicted(index):
  labels = Source()[index]["label"].copy()
  labels[labels == 255] = 0
  # Of image 1 some sheep are cows, of image 2 many more and some sky too.
  some = labels[:10] if index == 1 else labels
  if index:
    some[some == 1] = 2
  if index == 2:
    labels[labels == 0] = 2
  return labels


def _keep(keeper, index):
  labels = _predicted(index)
  matrix = confusion.count(Source()[index]["label"], labels, 3)
  keeper.keep(index, labels, matrix)


@pytest.fixture
def made(tmp_path):
  source = Source()
  keeper = worst_images.Worst(2)
  matrix = np.zeros((3, 3), np.int64)
  counts = measures.empty(3, MEASURED)
  for i in (2, 0, 3, 1):
    pair = source[i]["label"], _predicted(i), 3
    _keep(keeper, i)
    matrix += confusion.count(*pair)
    counts = measures.add(counts, measures.count(*pair, MEASURED))
  result = confusion.scores(matrix, SPEC.class_names)
  result |= measures.scores(counts, SPEC.class_names, MEASURED)
  rows = [
    {
      **{key: result[key] for key in ("miou", "pixel_accuracy")},
      **{"output_stride": stride, "scales": [1.0], "flip": False},
      **{"multiply_adds": 10**9, "multiply_adds_paper": 2 * 10**9},
      "images_per_second": None,
      "file": f"val-{stride}.json",
    }
    for stride in (16, 8)
  ]
  path = epath.Path(tmp_path) / "val-8.html"
  seen = keeper.unpack(source)
  evaluation_page.write(
    path, result, rows, spec=SPEC, worst=seen, title="run <1> & more"
  )
  reader = Reader()
  reader.text = path.read_text()
  reader.feed(reader.text)
  reader.close()
  return reader, result, seen


def test_the_worst_images_are_kept_worst_first():
  source, keeper = Source(), worst_images.Worst(3)
  for i in (1, 3, 0, 2):
    _keep(keeper, i)
  seen = keeper.unpack(source)
  # The fourth has no labeled pixel.
  assert [s.name for s in seen] == ["a<2>.png", "a<1>.png", "a<0>.png"]
  assert seen[2].miou == 1.0 and seen[2].pixel_accuracy == 1.0
  for i, image in zip((2, 1, 0), seen, strict=True):
    np.testing.assert_array_equal(image.labels, _predicted(i))
    scores = confusion.scores(
      confusion.count(source[i]["label"], _predicted(i), 3), SPEC.class_names
    )
    assert image.miou == pytest.approx(scores["miou"])
  truth, found = source[2]["label"], _predicted(2)
  sheep, sky = ((truth == k).sum() for k in (1, 0))
  assert confusion.largest_errors(seen[0].matrix, 9) == sorted(
    [(sheep, 1, 2), (sky, 0, 2)], reverse=True
  )
  assert (found[truth == 1] == 2).all()


def test_of_equally_bad_images_the_first_are_kept():
  source, keeper = Source(), worst_images.Worst(2)
  labels = np.zeros((30, 40), np.uint8)
  for i in (5, 1, 7, 3, 0):
    keeper.keep(i, labels, confusion.count(source[0]["label"], labels, 3))
  assert sorted(-entry[1] for entry in keeper._heap) == [0, 1]


def test_the_page_needs_nothing_from_elsewhere(made):
  reader, _, _ = made
  assert not reader.open
  assert not reader.tags["script"] and not reader.tags["link"]
  assert "default-src 'none'" in reader.text
  # The name of a format is no address that is fetched.
  rest = reader.text.replace('xmlns="http://www.w3.org/2000/svg"', "")
  assert not re.search(
    r"https?:|//|@import|url\(", re.sub(r"data:\S+", "", rest)
  )
  for _, source in reader.images:
    head, data = source.split(",")
    assert head in ("data:image/jpeg;base64", "data:image/png;base64")
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
      picture.load()


def test_every_link_leads_somewhere(made):
  reader, _, _ = made
  assert len(reader.ids) == len(set(reader.ids))
  inside = [href[1:] for href, _ in reader.links if href.startswith("#")]
  outside = [href for href, _ in reader.links if not href.startswith("#")]
  assert set(inside) <= set(reader.ids)
  assert outside == ["val-16.html"]


def test_a_cell_leads_to_the_image_with_most_of_its_error(made):
  reader, _, seen = made
  assert [s.name for s in seen] == ["a<2>.png", "a<1>.png"]
  assert sum(name.startswith("cell-") for name in reader.ids) == 9
  # Sheep called cow: both images, the first more. The diagonal is no error.
  assert reader.cells == {"cell-1-2": "#image-0", "cell-0-2": "#image-0"}


def test_the_page_shows_the_numbers(made):
  reader, result, seen = made
  matrix = np.array(result["confusion_matrix"])
  share = matrix[1, 2] / matrix[1].sum()
  assert (
    f"<b>&sheep called cow: {share:.1%}, {matrix[1, 2]:,} pixels"
    in reader.inside
  )
  for key in ("precision", "recall", "iou"):
    assert f"{result[key]['cow']:.1%}" in reader.inside
  for key in ("boundary_f_class", "boundary_iou_class"):
    assert f"{result[key]['cow']:.1%}" in reader.inside
  for key in ("trimap", "trimap_accuracy"):
    assert f"{result[key]['7']:.1%}" in reader.inside
  small = result["objects"][0]
  assert small["objects"] > 100
  for key in ("miou", "mean_recall"):
    assert f"{small[key]:.1%}" in reader.inside
  assert "run <1> & more" in reader.inside
  assert f"a<2>.png: mIoU {seen[0].miou:.1%}" in reader.inside
  assert "<b>&sheep" not in reader.text


def test_each_image_is_shown_with_truth_prediction_and_error(made):
  reader, _, seen = made
  kinds = ["image", "truth", "prediction", "error"]
  assert [kind for kind, _ in reader.images] == kinds * 2
  for place, labels in ((1, seen[0].truth), (2, seen[0].labels)):
    data = base64.b64decode(reader.images[place][1].split(",")[1])
    with Image.open(io.BytesIO(data)) as picture:
      pixels = np.asarray(picture.convert("RGB"))
    for label, color in enumerate(SPEC.palette):
      assert (pixels[labels == label] == color).all()


def test_the_error_picture_marks_wrong_pixels_red():
  image = np.full((1, 3, 3), 90, np.uint8)
  truth, labels = np.array([[0, 1, 255]]), np.array([[0, 0, 0]])
  right, wrong, ignored = worst_images.error_picture(image, truth, labels)[
    0
  ].tolist()
  assert right[0] == right[1] == right[2]
  assert wrong == [214, 20, 20] and ignored == [224, 224, 192]


def test_a_page_without_errors_or_images_is_whole(tmp_path):
  result = confusion.scores(np.diag([3, 0, 5]), SPEC.class_names)
  path = epath.Path(tmp_path) / "a.html"
  row = result | {"output_stride": 8, "scales": [1.0], "flip": True}
  row |= {"multiply_adds": 1, "multiply_adds_paper": 1, "file": "a.json"}
  row["images_per_second"] = 2.5
  evaluation_page.write(path, result, [row], spec=SPEC, worst=[], title="run")
  reader = Reader()
  reader.feed(path.read_text())
  assert not reader.open and not reader.links


def _pixels_of(pixels, color):
  return (pixels == color).all(-1).sum()


@pytest.mark.slow  # a browser; that of the report is fast
def test_a_browser_shows_the_page_and_its_console_is_clean(made, tmp_path):
  said, led = browser.shown(tmp_path / "val-8.html", "#image-1")
  assert not said
  # The diagonal of the matrix, and the labels of the images below.
  for color in (html_lib.DARK, *SPEC.palette):
    assert _pixels_of(led, color) > 50
  # What the page forbids is told: the console is read.
  broken = tmp_path / "broken.html"
  broken.write_text(made[0].text + '<img src="https://none.example/a.png">')
  said, pixels = browser.shown(broken)
  assert said
  # An error led to an image, which was then framed in red.
  red = (214, 20, 20)
  assert _pixels_of(led, red) > _pixels_of(pixels, red) + 1000
