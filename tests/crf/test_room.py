"""Lengths that serve many images: few of them, and none far too long."""

import pytest

from deeplax.crf import lattice
from deeplax.crf import room

Lengths = lattice.Lengths


@pytest.fixture(autouse=True)
def _nothing_chosen(monkeypatch):
  monkeypatch.setattr(room, "_chosen", [])
  monkeypatch.setattr(room, "_of_positions", {})


def fits(used, into):
  return all(x <= y for x, y in zip(used, into, strict=True))


def test_two_lengths_serve_photographs_of_many_sizes():
  found = set()
  for height, width in ((375, 500), (500, 333), (500, 500), (513, 513)):
    for vertices, chunks in ((0.7, 0.5), (0.3, 0.4), (1.3, 0.55)):
      pixels = height * width
      used = Lengths(pixels, int(pixels * vertices), int(pixels * chunks))
      chosen = room.lengths(used)
      assert fits(used, chosen)
      found.add(chosen)
  assert len(found) == 2


def test_an_image_takes_the_shortest_lengths_it_fits_into():
  first = room.lengths(Lengths(10_000, 8_000, 5_000))
  later = room.lengths(Lengths(15_000, 8_000, 5_000))
  assert first != later and fits(first, later)
  assert room.lengths(Lengths(9_000, 4_000, 4_500)) == first
  assert room.lengths(Lengths(9_000, 11_000, 4_500)) == later


def test_a_small_image_does_not_have_the_lengths_of_a_large_one():
  large = room.lengths(Lengths(200_000, 150_000, 90_000))
  small = room.lengths(Lengths(10_000, 8_000, 5_000))
  assert sum(small) < 1.5 * 23_000 < sum(large)
  assert room.lengths(Lengths(200_000, 150_000, 90_000)) == large


def test_a_kernel_of_positions_has_room_for_as_many_as_its_pixels():
  first = room.of_positions(Lengths(5_000, 6_000, 0), sigma=1, pixels=20_000)
  assert first.pixels == 20_000 and first.chunks == 0
  assert 24_000 <= first.vertices <= 27_000
  largest = Lengths(20_000, 23_500, 0)
  assert room.of_positions(largest, sigma=1, pixels=20_000) == first
  wide = room.of_positions(Lengths(5_000, 600, 700), sigma=3, pixels=20_000)
  assert wide.vertices < 5_000 and wide.chunks >= 2_800
