import argparse

import pytest

from benchmarks import saving
from deeplax.workdir import sealed


@pytest.mark.slow  # compiles a step
def test_a_tiny_round_saves_and_times_both_ways(tmp_path, short):
  args = argparse.Namespace(
    network="v3plus_mobilenet_v2:debug", size=33, images=2, steps=2, rounds=1
  )
  report = saving.measure(args, str(tmp_path))
  assert report["state MB"] > 0
  found = report["seconds"]
  assert found.keys() == {
    f"{way}, {what}" for way in saving.WAYS for what in ("still", "round")
  }
  for way in saving.WAYS:
    still, whole = (found[f"{way}, {x}"]["min"] for x in ("still", "round"))
    assert 0 < still < whole
  assert sealed.sound_step(tmp_path) == len(saving.WAYS)
