"""The padded sizes that images share."""

import pytest

from deeplax.inference import sizing
from deeplax.inference import windows


@pytest.mark.parametrize(
  ("size", "pad_to", "expected"),
  [
    ((1, 1), None, (65, 65)),
    ((65, 66), None, (65, 129)),
    ((375, 500), None, (385, 513)),
    ((375, 500), (513, 513), (513, 513)),
    ((513, 513), (513, 513), (513, 513)),
    ((514, 100), (513, 513), (577, 129)),
  ],
)
def test_buckets(size, pad_to, expected):
  assert sizing.Sizing(pad_to=pad_to).bucket(size) == expected


def test_an_image_cut_into_windows_runs_the_network_for_each():
  cut = sizing.Sizing(windows=windows.Windows(65, 16))
  assert cut.pieces((65, 65)) == 1
  # 65 and 49 more are 114: two windows high, three wide.
  assert cut.pieces((114, 115)) == 2 * 3
  assert sizing.Sizing().pieces((1000, 1000)) == 1
