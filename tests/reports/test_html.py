"""Pieces of pages: what is escaped, what is drawn."""

import base64
import io
import re
from xml.etree import ElementTree

from PIL import Image
import pytest

from deeplax.reports import html


def test_text_is_escaped_and_markup_is_not():
  link = html.link("a&b.html", "<1>")
  assert link == '<a href="a&amp;b.html">&lt;1&gt;</a>'
  text = html.table([["a<b"], [link], ["2"]], kind="text", marked=1)
  assert "<th>a&lt;b</th>" in text and f"<td>{link}</td>" in text
  assert '<tr class="this"><td>2</td></tr>' in text
  assert html.paragraph("a<b") == "<p>a&lt;b</p>"
  page = html.page("<t>", [link], style="p {}", head=html.policy(html.POLICY))
  assert page.count("&lt;t&gt;") == 2 and "<t>" not in page
  assert link in page and "p {}" in page and "default-src 'none'" in page


def test_what_holds_nothing_is_left_out():
  assert html.table([["title"]]) == html.paragraph("") == ""


@pytest.mark.parametrize(
  ("smooth", "kind", "factor", "size"),
  [
    (True, "jpeg", 0.5, (20, 1)),
    (False, "png", 0.5, (20, 1)),
    (False, "png", 3, (40, 2)),
  ],
)
def test_a_picture_is_made_smaller_and_never_larger(smooth, kind, factor, size):
  text = html.picture(Image.new("RGB", (40, 2)), factor, smooth=smooth)
  head, data = text.split(",")
  assert head == f"data:image/{kind};base64"
  with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
    assert picture.size == size and picture.format == kind.upper()


def test_a_heat_map_has_its_cells_and_leaves_others_empty():
  cells = {
    (0, 0): html.Cell(0.0, "a<b", name="here", link="#there"),
    (1, 1): html.Cell(1.0, "dark", "99"),
  }
  text = html.heat_map("t", ["r<1", "r2"], ["c1", "c2"], cells, size=(46, 24))
  root = ElementTree.fromstring(text)
  _, *rects = root.iter("{http://www.w3.org/2000/svg}rect")
  assert [rect.get("id") for rect in rects] == ["here", None]
  dark = f"rgb({','.join(map(str, html.DARK))})"
  assert [rect.get("fill") for rect in rects] == ["rgb(255,255,255)", dark]
  assert '<a href="#there"><rect' in text
  assert re.findall(">([^<]*)</text>", text) == [
    "c1",
    "c2",
    "r&lt;1",
    "r2",
    "99",
  ]
  left, right = (int(rect.get("x", "")) for rect in rects)
  assert right - left == 46
