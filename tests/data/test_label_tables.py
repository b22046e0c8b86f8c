import math

import numpy as np
import pytest

from deeplax.data import label_tables

FLOATS = [-9999.0, math.nan, math.inf, -3.4028234663852886e38, 0.5, 65535.0]


@pytest.mark.parametrize("value", [0, 255, -1, 10**15, *FLOATS])
def test_a_number_is_read_as_it_is_written(value):
  text = label_tables.written(value)
  found = label_tables.number(text)
  assert found == value or (math.isnan(found) and math.isnan(value))
  assert label_tables.written(found) == text
  assert isinstance(found, int) == (math.isfinite(value) and value % 1 == 0
                                    and abs(value) < 2**53)  # fmt: skip


@pytest.mark.parametrize("text", ["", "x", "1_0", "0x1", "1e", "--1", "9" * 99])
def test_other_text_is_no_number(text):
  with pytest.raises(ValueError, match="no number"):
    label_tables.number(text)


@pytest.mark.parametrize("value", FLOATS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_number_of_floating_point_has_the_label_of_its_table(value, dtype):
  raw = np.array([[0, 1, value, 2, 7]], dtype)
  plain = label_tables.plain(3)
  np.testing.assert_array_equal(
    label_tables.apply(raw, plain), [[0, 1, 254, 2, 254]]
  )
  number = label_tables.number(label_tables.written(value))
  table = label_tables.from_labels(plain.items() | {number: 255})
  np.testing.assert_array_equal(
    label_tables.apply(raw, table), [[0, 1, 255, 2, 254]]
  )


@pytest.mark.parametrize("dtype", ["i1", "i2", "u2", "i4", "u4", "i8", "u8"])
def test_wide_integers_have_the_label_of_their_table(dtype):
  limits = np.iinfo(dtype)
  raw = np.array([[limits.min, 1, limits.max]], dtype)
  values = {1: 1, limits.max: 255, -9999: 0} | (
    {limits.min: 2} if limits.min else {}
  )
  found = label_tables.apply(raw, label_tables.from_labels(values))
  assert found.tolist() == [[2 if limits.min else 254, 1, 255]]


def test_tables_of_the_same_labels_are_equal():
  one, other = (
    label_tables.from_labels({0: 0, label_tables.number("nan"): 255})
    for _ in range(2)
  )
  assert one == other != label_tables.from_labels({0: 0})
