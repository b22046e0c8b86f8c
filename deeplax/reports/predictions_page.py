"""The page of all predictions of a command: OUT/index.html.

It shows each picture under its overlay, cut by a slider, and the share of each
class; a click on a class leaves the pictures that have it. Small copies lie
beside it, in index_files/, and are loaded as they come into view: a page that
held those of a thousand pictures would be 100 MB.
"""

import collections
from collections.abc import Iterable, Mapping, Sequence
import os
import pathlib
from typing import NamedTuple
import urllib.parse

import cv2
import numpy as np
from PIL import Image

from deeplax import atomic
from deeplax.data import walk
from deeplax.reports import found_pictures
from deeplax.reports import html
from deeplax.reports import shown_classes

SIDE = 480  # of a small copy, pixels at most
FIRST = 4  # classes that a picture names at first
_IMAGES = "img-src 'self' file:"
POLICY = (
  f"default-src 'none'; {_IMAGES}; style-src 'unsafe-inline'; "
  "script-src 'unsafe-inline'"
)


class Labeled(NamedTuple):
  """A picture that was labeled.

  Attributes:
    picture: The file, and the name of its outputs.
    size: (height, width).
    shares: The share of each class that it shows, the largest first.
  """

  picture: found_pictures.Picture
  size: tuple[int, int]
  shares: Mapping[int, float]


class Failure(NamedTuple):
  """A picture that could not be read, or whose outputs not be written."""

  picture: found_pictures.Picture
  text: str


class Outcome(NamedTuple):
  """What became of the pictures of a command, in any order."""

  pictures: Sequence[found_pictures.Picture]
  labeled: list[Labeled]
  failed: list[Failure]


def mean_shares(labeled: Sequence[Labeled]) -> dict[int, float]:
  """Return the mean share of each class in pictures, the largest first."""
  total = collections.Counter()
  for found in labeled:
    total.update(found.shares)
  return {label: share / len(labeled) for label, share in total.most_common()}


def small(image: np.ndarray) -> Image.Image:
  """Return a picture, RGB uint8, at the size of its small copy."""
  height, width = image.shape[:2]
  factor = min(1.0, SIDE / max(height, width))
  size = max(1, round(width * factor)), max(1, round(height * factor))
  # OpenCV takes no part of a wider array as it is.
  image = np.ascontiguousarray(image)
  return Image.fromarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))


def write(
  out: pathlib.Path,
  outcome: Outcome,
  *,
  shown: shown_classes.Shown,
  title: str,
) -> pathlib.Path:
  """Write the page, and return its path.

  Args:
    out: The folder of the outputs.
    outcome: What became of the pictures.
    shown: The classes to show.
    title: Of the page, such as the run's name and step.
  """
  order = {picture: i for i, picture in enumerate(outcome.pictures)}
  labeled = sorted(outcome.labeled, key=lambda found: order[found.picture])
  failed = sorted(outcome.failed, key=lambda failure: order[failure.picture])
  parts = [
    html.paragraph(_summary(outcome)),
    _legend(labeled, shown),
    '<div class="cards">',
    *(_card(found, out, shown) for found in labeled),
    "</div>",
    _failures(failed),
    _SCRIPT,
  ]
  head = html.policy(POLICY) + found_pictures.PAGE_MARK
  page = html.page(title, filter(None, parts), style=_STYLE, head=head)
  path = out / found_pictures.PAGE
  atomic.write_text(path, page)
  return path


def _summary(outcome: Outcome) -> str:
  total, done = len(outcome.pictures), len(outcome.labeled)
  failed = len(outcome.failed)
  text = "1 picture" if total == 1 else f"{total:,} pictures"
  if failed:
    text += f", {failed:,} of which could not be labeled: see below"
  if done + failed < total:
    text += f". The command was stopped: {total - done - failed:,} are missing"
  return text


def _legend(labeled: Sequence[Labeled], shown: shown_classes.Shown) -> str:
  """Return a button for each class, by its share of all pictures.

  A single picture has all of that below it.
  """
  if len(labeled) < 2:
    return ""
  images = collections.Counter(i for found in labeled for i in found.shares)
  buttons = [
    f'<button type="button" aria-pressed="false" value="{label}" '
    f'title="pictures that have it: {images[label]:,}">'
    f"{_patch(label, shown)}{html.escape(shown.spec.class_names[label])} "
    f"<small>{html.escape(shown_classes.percent(share))} "
    f"({images[label]:,})</small></button>"
    for label, share in mean_shares(labeled).items()
  ]
  return (
    '<div class="legend">'
    + "\n".join(buttons)
    + '<button type="button" id="all" hidden>show all</button>'
    '<output aria-live="polite"></output>'
    '<label>picture <input type="range" id="split" value="50" '
    'aria-label="how much of each overlay shows"> overlay</label></div>'
  )


def _card(found: Labeled, out: pathlib.Path, shown: shown_classes.Shown) -> str:
  """Return a picture with its slider, its classes and links to its files."""
  picture, (height, width) = found.picture, found.size
  name = html.escape(picture.name)
  copies = [
    f'<img src="{_address(picture.small(out, ending), out)}" alt="{alt}" '
    f'loading="lazy">'
    for ending, alt in (
      (found_pictures.SMALL_PICTURE, name),
      (found_pictures.SMALL_OVERLAY, ""),
    )
  ]
  bar = "".join(
    f'<i style="width:{share:.2%};background:{_css(label, shown)}" '
    f'title="{html.escape(shown.spec.class_names[label])}"></i>'
    for label, share in found.shares.items()
  )
  links = [
    f'<a href="{_address(path, out)}">{text}</a>'
    for text, path in (
      ("overlay", picture.output(out, found_pictures.OVERLAY)),
      ("overlay", picture.output(out, found_pictures.LONG_OVERLAY)),
      ("mask", picture.output(out, found_pictures.MASK)),
      ("picture", picture.path),
    )
    if path.exists()
  ]
  # Long pictures have empty sides: a card of 65,500 to 2 would be a line.
  ratio = min(max(width / height, 0.75), 3)
  labels = " ".join(map(str, found.shares))
  return (
    f'<figure data-classes="{labels}">'
    f'<div class="pair" style="aspect-ratio:{ratio:.4f}">{"".join(copies)}'
    f'<input type="range" value="50" aria-label="overlay of {name}"></div>'
    f'<div class="bar">{bar}</div>'
    f"<figcaption><b>{name}</b> <small>{width}x{height}</small>"
    f"{_classes(found.shares, shown)}"
    f"<nav>{' '.join(links)}</nav></figcaption></figure>"
  )


def _classes(shares: Mapping[int, float], shown: shown_classes.Shown) -> str:
  """Return the names and shares of a picture's classes; the rest unfolds."""
  texts = [
    f"<span>{_patch(label, shown)}"
    f"{html.escape(shown.spec.class_names[label])} "
    f"{html.escape(shown_classes.percent(share))}</span>"
    for label, share in shares.items()
  ]
  if not texts:
    return f'<div class="names">{html.escape(shown.line(shares))}</div>'
  first, rest = texts[:FIRST], texts[FIRST:]
  if len(rest) == 1:
    first, rest = texts, []
  more = f"<details><summary>{len(rest)} more</summary>{_join(rest)}</details>"
  return f'<div class="names">{_join(first)}{more if rest else ""}</div>'


def _join(texts: Iterable[str]) -> str:
  return " ".join(texts)


def _patch(label: int, shown: shown_classes.Shown) -> str:
  return f'<i class="patch" style="background:{_css(label, shown)}"></i>'


def _css(label: int, shown: shown_classes.Shown) -> str:
  if label in shown.untinted:
    return "#fff"
  red, green, blue = shown.spec.palette[label]
  return f"#{red:02x}{green:02x}{blue:02x}"


def _address(path: pathlib.Path, out: pathlib.Path) -> str:
  """Return a file's address, seen from the page."""
  seen = os.path.relpath(path, out)
  return urllib.parse.quote(os.fsencode(seen.replace(os.sep, "/")))


def _failures(failed: Sequence[Failure]) -> str:
  if not failed:
    return ""
  rows = [
    [walk.key(pathlib.PurePath(failure.picture.name)), _printable(failure.text)]
    for failure in failed
  ]
  lines = [("picture", "why"), *rows]
  return "<h2>Could not be labeled</h2>" + html.table(lines, kind="failures")


def _printable(text: str) -> str:
  """Return a message that a page can hold, whatever is in a file's name."""
  return os.fsencode(text).decode("utf-8", "backslashreplace")


_STYLE = """
body { margin: 1.5em; }
.legend { position: sticky; top: 0; z-index: 2; background: #fff;
  padding: 8px 0; display: flex; flex-wrap: wrap; gap: 6px;
  align-items: center; border-bottom: 1px solid #ddd; }
.legend button { font: inherit; padding: 3px 9px; border-radius: 14px;
  border: 1px solid #bbb; background: #fff; color: #222; cursor: pointer; }
.legend button:hover { border-color: #222; }
.legend button[aria-pressed=true] { background: #222; color: #fff; }
.legend small, figure small { opacity: .7; }
.legend label { margin-left: auto; white-space: nowrap; }
.legend label input { width: 110px; vertical-align: middle; }
.patch { display: inline-block; width: .8em; height: .8em; margin-right: .4em;
  border: 1px solid #999; vertical-align: -.05em; }
.cards { --split: 50%; display: grid; gap: 18px; margin: 18px 0;
  grid-template-columns: repeat(auto-fill, minmax(min(320px, 100%), 1fr)); }
.cards:has(figure:only-child) { grid-template-columns: minmax(0, 480px); }
figure { margin: 0; content-visibility: auto;
  contain-intrinsic-size: auto 340px; }
figure[hidden] { display: none; }
.pair { position: relative; overflow: hidden; background: #eee; }
.pair img { position: absolute; width: 100%; height: 100%;
  object-fit: contain; }
.pair img + img { clip-path: inset(0 0 0 var(--split)); }
.pair::after { content: ""; position: absolute; top: 0; bottom: 0;
  left: calc(var(--split) - 1px); width: 2px; background: #fff;
  box-shadow: 0 0 3px #000; pointer-events: none; }
.pair input { position: absolute; inset: 0; width: 100%; height: 100%;
  margin: 0; opacity: 0; cursor: ew-resize; touch-action: pan-y; z-index: 1; }
.pair:focus-within { outline: 2px solid #0b3d75; }
.bar { display: flex; height: 6px; background: #fff;
  border-bottom: 1px solid #ddd; }
figcaption { padding-top: 5px; overflow-wrap: anywhere; }
.names { margin: 3px 0; }
.names span { white-space: nowrap; margin-right: .7em; }
.names details { display: inline; }
.names summary { display: inline; cursor: pointer; color: #0b3d75; }
nav a { margin-right: .7em; color: #0b3d75; }
.failures td, .failures th { text-align: left; overflow-wrap: anywhere; }
.failures td:first-child { min-width: 8em; }
@media (max-width: 700px) { .legend { position: static; }
  .legend label { margin-left: 0; } body { margin: 1em; } }
"""

_SCRIPT = """<script>
const cards = document.querySelector(".cards");
const figures = [...cards.querySelectorAll("figure")];
const buttons = [...document.querySelectorAll(".legend button[value]")];
const all = document.getElementById("all");
const filter = () => {
  const wanted = buttons.filter((b) => b.ariaPressed === "true");
  let count = 0;
  for (const figure of figures) {
    const have = figure.dataset.classes.split(" ");
    figure.hidden = !wanted.every((b) => have.includes(b.value));
    count += !figure.hidden;
  }
  all.hidden = !wanted.length;
  document.querySelector("output").textContent =
    wanted.length ? `${count} of ${figures.length} pictures` : "";
};
if (all) {
  for (const button of buttons)
    button.addEventListener("click", () => {
      button.ariaPressed = button.ariaPressed !== "true";
      filter();
    });
  all.addEventListener("click", () => {
    for (const button of buttons) button.ariaPressed = "false";
    filter();
  });
}
cards.addEventListener("input", (event) => {
  event.target.parentElement.style.setProperty(
    "--split", `${event.target.value}%`);
});
document.getElementById("split")?.addEventListener("input", (event) => {
  const value = 100 - event.target.value;
  cards.style.setProperty("--split", `${value}%`);
  for (const pair of cards.querySelectorAll(".pair")) {
    pair.style.removeProperty("--split");
    pair.querySelector("input").value = value;
  }
});
</script>"""
