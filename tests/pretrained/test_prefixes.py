"""What stands in front of names is taken off, and only that."""

import numpy as np
import pytest

from deeplax import errors
from deeplax.pretrained import prefixes
from deeplax.pretrained import rules
from tests.pretrained import toy

ONE = np.ones(1, np.float32)
WANTED = {"conv.weight", "conv.bias", "fc.weight"}


def arrays(*starts, others=()):
  names = [f"{start}{name}" for start in starts for name in sorted(WANTED)]
  return dict.fromkeys([*names, *others], ONE)


@pytest.mark.parametrize(
  "prefix",
  [
    *("module.", "model.", "_orig_mod.", "module._orig_mod.", "net."),
    *("state_dict.", "model_state_dict.module.", "ema.", "scope/a/"),
  ],
)
def test_a_prefix_that_all_names_share_is_taken_off(prefix):
  found = prefixes.without(arrays(prefix), WANTED)
  assert found == (arrays(""), prefix, [])


def test_what_does_not_begin_so_is_left_out_and_named():
  others = ("criterion.weight", "optimizer.rate", "epoch")
  found = prefixes.without(arrays("model.", others=others), WANTED)
  assert found == (arrays(""), "model.", [*others])


def test_names_that_are_asked_for_stay_as_they_are():
  for given in (
    arrays(""),
    arrays("", "ema."),
    arrays("", others=("module.conv.weight",)),
    # Of another network: hardly a name is asked for.
    arrays(others=("a.conv.weight", "a.x", "a.y")),
    {},
  ):
    assert prefixes.without(given, WANTED) == (given, "", [])


def test_the_shorter_prefix_wins_where_a_table_knows_both():
  wanted = WANTED | {f"base.{name}" for name in WANTED}
  given = arrays("module.base.")
  assert prefixes.without(given, wanted).prefix == "module."


def test_of_two_networks_one_has_to_be_named_as_the_message_says():
  given = arrays("model.", "model_ema.module.", others=("epoch",))
  with pytest.raises(errors.InputError, match="more than once") as raised:
    prefixes.without(given, WANTED)
  said = str(raised.value)
  assert "model. (3 arrays), model_ema.module. (3 arrays)" in said
  for word in said.split():
    if word.startswith("--under="):
      one = prefixes.below(given, word.removeprefix("--under="))
      assert one.arrays == arrays("")
      assert len(one.outside) == 4
  assert said.count("--under=") == 2


def test_a_name_that_no_array_begins_with_is_refused_with_those_there():
  with pytest.raises(errors.InputError, match=r"--under=ema: .* model\., net/"):
    prefixes.below(arrays("model.a.", "net/"), "ema")
  with pytest.raises(errors.InputError, match="no word and dot"):
    prefixes.below({"x": ONE}, "ema")


def test_a_table_reads_names_behind_a_prefix():
  plain = rules.load(toy.arrays(), toy.TABLE, model=toy.Toy())
  counter = {"module.net.bn1.num_batches_tracked": np.asarray(3)}
  given = {f"module.{name}": value for name, value in toy.arrays().items()}
  found = rules.load(given | counter, toy.TABLE, model=toy.Toy())
  assert found.prefix == "module." and not plain.prefix
  assert found.left_out == ["net.bn1.num_batches_tracked"]
  assert not found.missing and not found.unused
  for path, value in plain.values.items():
    np.testing.assert_array_equal(found.values[path], value)
  # Folded norms, whose biases no parameter asks for.
  given = {f"net2.{name}": value for name, value in toy.folded().items()}
  found = rules.load(given, toy.TABLE, model=toy.Toy())
  assert found.prefix == "net2." and not found.missing and not found.unused
