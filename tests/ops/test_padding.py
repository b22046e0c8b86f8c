import itertools

import numpy as np

from deeplax.ops import padding


def test_same_gives_one_output_per_stride_and_puts_the_odd_row_behind():
  assert padding.same((33, 33), kernel=3, stride=2, rate=1) == (
    (1, 1),
    (1, 1),
  )
  assert padding.same((32, 33), kernel=3, stride=2, rate=1) == (
    (0, 1),
    (1, 1),
  )
  assert padding.same((32, 5), kernel=3, stride=2, rate=2) == ((1, 2), (2, 2))
  assert padding.same((7, 4), kernel=1, stride=2, rate=1) == ((0, 0), (0, 0))


def test_each_axis_is_padded_for_its_own_rate():
  size, rate = (9, 16), (2, 5)
  rows, columns = (
    padding.same(size, kernel=3, stride=1, rate=r)[axis]
    for axis, r in enumerate(rate)
  )
  found = padding.same(size, kernel=3, stride=1, rate=rate)
  assert found == (rows, columns) == ((2, 2), (5, 5))
  assert padding.symmetric(kernel=3, rate=rate) == found


def test_symmetric_padding_does_not_depend_on_the_size():
  assert padding.symmetric(kernel=3, rate=12) == ((12, 12), (12, 12))
  assert padding.symmetric(kernel=2, rate=1) == ((0, 1), (0, 1))
  assert padding.symmetric(kernel=7, rate=1) == ((3, 3), (3, 3))


def test_taps_read_what_a_padded_map_would_give_them():
  for size, rate, stride in itertools.product(
    (1, 2, 9, 16), (1, 2, 12, 36), (1, 2)
  ):
    case = f"size {size}, rate {rate}, stride {stride}"
    pads = padding.same((size, size), kernel=3, stride=stride, rate=rate)[0]
    x = np.arange(1, size + 1)
    padded = np.pad(x, pads)
    out, taps = padding.taps(
      size, kernel=3, stride=stride, rate=rate, padding=pads
    )
    assert out == -(-size // stride), case
    live = {tap.index: tap for tap in taps}
    for index in range(3):
      want = padded[index * rate :][: (out - 1) * stride + 1 : stride]
      got = np.zeros(out)
      if index in live:
        tap = live[index]
        got = np.pad(x[tap.reads], (tap.before, tap.behind))
        assert x[tap.reads].size > 0, case
      np.testing.assert_array_equal(got, want, case)
