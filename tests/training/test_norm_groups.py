"""A step whose norms share statistics within groups of devices."""

from tests import commands


def test_groups_of_devices_are_batches_of_their_own_and_the_state_is_one():
  said = commands.on_devices(
    "tests.training.norm_groups", 4, flags=commands.COMPILER
  )
  assert said == "checked\n"
