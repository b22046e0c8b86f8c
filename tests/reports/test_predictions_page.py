"""The page of all predictions, as text and in a browser."""

import html.parser
import pathlib
import re
import urllib.parse

import numpy as np
from PIL import Image
import pytest

from deeplax.data import spec as spec_lib
from deeplax.reports import found_pictures
from deeplax.reports import label_pictures
from deeplax.reports import predictions_page
from deeplax.reports import shown_classes
from tests import browser

SPEC = spec_lib.Spec(
  "own",
  ("background", "road & <rail>", "\u725b", "car"),
  ((0, 0, 0), (128, 64, 128), (0, 200, 0), (0, 0, 142)),
)
SHOWN = shown_classes.Shown(SPEC)
# Labels of the columns of each picture, by the name of its file.
PICTURES = {"a.png": (0, 1), "sub/b #1?%.png": (1, 1, 2), "c.png": (3, 2, 3)}


class Reader(html.parser.HTMLParser):
  """Collects addresses, and whether each element was closed."""

  def __init__(self, text: str):
    super().__init__()
    self.images, self.links, self.open = [], [], []
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    if tag == "img":
      self.images.append(dict(attrs)["src"])
    if tag == "a":
      self.links.append(dict(attrs)["href"])
    if tag not in ("img", "input", "meta"):
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag


def made(root: pathlib.Path, *, shown=SHOWN, failed=(), lacking=0):
  """Write predictions and their page; return it as text."""
  outcome = predictions_page.Outcome([], [], [])
  out, pictures = root / "out", []
  for name, columns in PICTURES.items():
    path = root / "in" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = np.repeat(np.array([columns], np.uint8), 50, 0).repeat(40, 1)
    image = np.full((*labels.shape, 3), 200, np.uint8)
    Image.fromarray(image).save(path)
    stem = pathlib.Path(name).with_suffix("")
    picture = found_pictures.Picture(path, stem)
    pictures.append(picture)
    found = label_pictures.save(picture, image, labels, out=out, shown=shown)
    outcome.labeled.insert(0, found)  # in another order than asked for
  for name in failed:
    picture = found_pictures.Picture(root / name, pathlib.Path(name))
    pictures.append(picture)
    text = f"{name} is <not> a picture"
    outcome.failed.append(predictions_page.Failure(picture, text))
  for i in range(lacking):
    path = pathlib.Path(f"lacking{i}")
    pictures.append(found_pictures.Picture(path, path))
  path = predictions_page.write(
    out, outcome._replace(pictures=pictures), shown=shown, title="run, step 9"
  )
  return path.read_text()


def test_the_page_has_each_picture_in_order_with_links_that_lead_on(tmp_path):
  text = made(tmp_path)
  reader = Reader(text)
  assert not reader.open
  assert re.findall(r"<b>(.*?)</b>", text) == [
    *("a.png", "sub/b #1?%.png", "c.png"),
  ]
  assert len(reader.images) == 6 and len(reader.links) == 9
  for address in (*reader.images, *reader.links):
    assert not address.startswith(("/", "http"))
    assert (tmp_path / "out" / urllib.parse.unquote(address)).is_file()
  assert "3 pictures</p>" in text and "stopped" not in text
  assert "Could not" not in text
  # Mean shares of the classes, and how many pictures have them.
  for part in ("road &amp; &lt;rail&gt; <small>38.9% (2)", "car <small>22.2%"):
    assert part in text
  assert 'data-classes="1 2"' in text and 'data-classes="3 2"' in text


def test_the_page_lists_failures_and_what_a_stop_has_left(tmp_path):
  text = made(tmp_path, failed=["x.png"], lacking=2)
  assert "6 pictures, 1 of which could not be labeled" in text
  assert "The command was stopped: 2 are missing" in text
  assert "<td>x.png is &lt;not&gt; a picture</td>" in text
  assert not Reader(text).open


def test_a_name_that_is_no_utf_8_is_shown_and_linked(tmp_path, monkeypatch):
  name = b"caf\xe9.png"
  monkeypatch.setitem(PICTURES, name.decode(errors="surrogateescape"), (1,))
  text = made(tmp_path, failed=["\udce9.png"])
  assert "<b>caf\\xe9.png</b>" in text
  assert "index_files/caf%E9_small.jpg" in text
  assert "\\xe9.png is &lt;not&gt;" in text


def test_of_few_classes_asked_for_others_are_not_named(tmp_path):
  text = made(tmp_path, shown=SHOWN._replace(kept=frozenset({2})))
  assert "none of the classes asked for" in text and "</i>car" not in text
  assert 'data-classes="2"' in text and 'data-classes=""' in text


def test_small_copies_are_small_and_have_no_legend():
  tall = np.zeros((2000, 100, 3), np.uint8)
  assert predictions_page.small(tall).size == (24, 480)
  assert predictions_page.small(tall[:90]).size == (100, 90)
  assert predictions_page.small(tall[:1, :1]).size == (1, 1)
  thin = np.zeros((2, 65_501, 3), np.uint8)
  assert predictions_page.small(thin).size == (480, 1)


def test_small_copies_lie_beside_the_page(tmp_path):
  made(tmp_path)
  for ending in ("small", "mixed"):
    path = tmp_path / f"out/index_files/sub/b #1?%_{ending}.jpg"
    with Image.open(path) as copy:
      assert copy.size == (120, 50)


@pytest.mark.slow  # a browser; that of the report is fast
def test_a_browser_shows_the_page_and_filters_it(tmp_path):
  text = made(tmp_path)
  page = tmp_path / "out" / "index.html"
  said, pixels = browser.shown(page, size="1400,900")
  assert not said
  # Left of the border is the picture, right of it the color over it.
  for color in ((200, 200, 200), (157, 118, 157), (80, 200, 80), (80, 80, 165)):
    assert (np.abs(pixels - np.array(color)).max(-1) < 6).sum() > 3000, color
  _, narrow = browser.shown(page, size="400,900")
  assert (narrow[:, -10:] == 255).all()  # nothing runs over
  click = "<script>document.querySelector('button[value=\"2\"]').click()"
  page.write_text(text.replace("</body>", f"{click}</script></body>"))
  document = browser.document(page)
  assert re.findall(r'<figure data-classes="([\d ]*)"( hidden)?', document) == [
    *(("0 1", " hidden"), ("1 2", ""), ("3 2", "")),
  ]
  assert "2 of 3 pictures</output>" in document
