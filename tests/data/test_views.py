"""Sources made of sources."""

import numpy as np

from deeplax.data import shapes
from deeplax.data import views


def test_indices_are_spread_evenly():
  assert views.evenly(101, 3) == [0, 33, 67]
  assert views.evenly(3, 9) == views.evenly(3, 0) == [0, 1, 2]
  assert views.evenly(0, 5) == []
  gaps = np.diff(views.evenly(1449, 200))
  assert {*gaps.tolist()} == {7, 8}


def test_a_subset_of_a_list_knows_where_its_examples_stand():
  source = shapes.Shapes("val", images=6, size=(9, 9))
  subset = views.Subset(views.Listed(source, [5, 4, 4, 0]), 2)
  assert [e["name"] for e in subset] == ["val_00005", "val_00004"]
  assert views.origin(subset, [0, 1]) == (source, [5, 4])
