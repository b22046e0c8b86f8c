"""What comes from a file and what starts anew."""

import flax.traverse_util
import numpy as np
import pytest

from deeplax import errors
from deeplax.pretrained import partial
from deeplax.pretrained import rules
from deeplax.pretrained import summary

# Of a network of four parts, one array each but for the logits.
SHAPES = {
  ("params", "backbone", "conv", "kernel"): (1, 1, 3, 4),
  ("params", "head", "aspp0", "kernel"): (1, 1, 4, 4),
  ("params", "decoder", "conv0", "kernel"): (1, 1, 4, 4),
  ("params", "logits", "kernel"): (1, 1, 4, 3),
  ("params", "logits", "bias"): (3,),
}
CLASSES = {path for path in SHAPES if path[1] == "logits"}
AUXILIARY = ("params", "auxiliary", "conv", "kernel")
NAMES = ("road", "traffic sign", "Car")


def drawn(shapes=SHAPES):
  return flax.traverse_util.unflatten_dict(
    {path: np.zeros(shape, np.float32) for path, shape in shapes.items()}
  )


def found(*names, classes=3, unused=()):
  """What a file of these parts gives; its values count up from 1."""
  loaded = rules.Loaded(left_out=["global_step"], unused=list(unused))
  for path, shape in SHAPES.items():
    name = "/".join(path[1:])
    if path[1] not in names:
      loaded.missing[path] = (name,)
      continue
    if path in CLASSES:
      shape = (*shape[:-1], classes)
    value = np.arange(1, 1 + np.prod(shape), dtype=np.float32).reshape(shape)
    if shape == SHAPES[path]:
      loaded.values[path], loaded.names[path] = value, (name,)
    else:
      loaded.misfits.append(rules.Misfit(path, name, "is other", value))
  return loaded


ALL = ("backbone", "head", "decoder", "logits")


def start(loaded, **settings):
  return partial.start(
    loaded,
    settings.pop("drawn", drawn()),
    class_names=NAMES,
    class_paths=CLASSES,
    **settings,
  )


def new_parts(result):
  return {path[1] for path in result.new}


def test_a_whole_network_is_loaded_whole():
  result = start(found(*ALL))
  assert not result.new and len(result.loaded) == len(SHAPES)
  assert result.left_out == ["global_step"]
  np.testing.assert_array_equal(
    result.variables["params"]["logits"]["bias"], [1, 2, 3]
  )


def test_of_a_backbone_alone_the_rest_is_new():
  result = start(found("backbone"))
  assert new_parts(result) == {"head", "decoder", "logits"}
  assert [path[1] for path in result.loaded] == ["backbone"]
  assert (result.variables["params"]["head"]["aspp0"]["kernel"] == 0).all()


def test_another_number_of_classes_makes_the_logits_new():
  result = start(found(*ALL, classes=5))
  assert new_parts(result) == {"logits"}
  assert result.left_out == ["global_step", "logits/kernel", "logits/bias"]
  assert (result.variables["params"]["logits"]["bias"] == 0).all()


@pytest.mark.parametrize("classes", [4, 3])
def test_logits_are_carried_over_by_name(classes):
  there = ["car", "traffic-sign", "sky", "sea"][:classes]
  result = start(found(*ALL, classes=classes), source_classes=there)
  assert not result.new
  assert result.by_name == [
    ("road", False),
    ("traffic sign", True),
    ("Car", True),
  ]
  logits = result.variables["params"]["logits"]
  np.testing.assert_array_equal(logits["bias"], [0, 2, 1])
  kernel = np.arange(1, 1 + 4 * classes).reshape(4, classes)
  np.testing.assert_array_equal(logits["kernel"][0, 0, :, 2], kernel[:, 0])
  assert (logits["kernel"][0, 0, :, 0] == 0).all()
  text = summary.origins(result, seed=5)
  assert "2 by name: traffic sign, Car" in text
  assert "1: road" in text


def test_a_list_of_another_length_than_the_logits_is_refused():
  with pytest.raises(errors.InputError, match="2 names .* of 3 classes"):
    start(found(*ALL), source_classes=["road", "sky"])


def test_a_missing_decoder_is_no_accident_only_if_asked_for():
  loaded = found("backbone", "head", "logits")
  with pytest.raises(errors.InputError, match="--new=decoder") as raised:
    start(loaded)
  assert "missing (1): decoder/conv0/kernel" in str(raised.value)
  # The logits of the file were of the head's features.
  result = start(loaded, new=["decoder"])
  assert new_parts(result) == {"decoder", "logits"}
  assert result.left_out == ["global_step", "logits/kernel", "logits/bias"]
  # Unless the decoder hands these through.
  result = start(loaded, new=["decoder"], transparent=True)
  assert new_parts(result) == {"decoder"}


def test_parts_asked_anew_do_not_use_what_the_file_has():
  loaded = found(*ALL, unused=["decoder/other"])
  with pytest.raises(errors.InputError, match=r"unused \(1\): decoder/other"):
    start(loaded)
  result = start(loaded, new=["decoder", "logits"])
  assert new_parts(result) == {"decoder", "logits"}
  assert new_parts(start(loaded, new=["decoder"])) == {"decoder", "logits"}
  assert set(result.left_out) == {
    *("global_step", "decoder/other", "decoder/conv0/kernel"),
    *("logits/kernel", "logits/bias"),
  }
  with pytest.raises(errors.InputError, match=r"--new: \['tail'\] not in"):
    start(loaded, new=["tail"])


def test_a_file_without_the_auxiliary_head_is_whole():
  loaded = found(*ALL)
  loaded.missing[AUXILIARY] = ("aux/kernel",)
  result = start(loaded, drawn=drawn(SHAPES | {AUXILIARY: (1, 1, 4, 3)}))
  assert new_parts(result) == {"auxiliary"}


def test_another_backbone_is_refused_with_advice():
  loaded = found("head", unused=["xception_65/entry_flow/conv1_1/weights"])
  with pytest.raises(errors.InputError, match="model.backbone") as raised:
    start(loaded)
  assert "missing (4): backbone/conv/kernel" in str(raised.value)


def test_an_array_of_another_width_is_refused_even_in_the_logits():
  loaded = found(*ALL)
  path = ("params", "logits", "kernel")
  del loaded.values[path]
  loaded.misfits.append(rules.Misfit(path, "logits/kernel", "is narrower"))
  with pytest.raises(errors.InputError, match="logits/kernel is narrower"):
    start(loaded)


def test_the_table_counts_by_part_and_names_what_is_left_out():
  loaded = found("backbone")
  loaded.folded = [("backbone", "conv")]
  lines = summary.origins(start(loaded), seed=5).splitlines()
  assert lines[0].split() == ["loaded", "1", "arrays:", "backbone", "1"]
  left_out = lines[1].split(maxsplit=2)[2]
  assert left_out == "0 arrays; 1 counters of training steps"
  assert "head 1, decoder 1, logits 2, drawn from seed 5" in lines[2]
  assert "1 were folded" in lines[3]


def test_counters_are_no_weights_that_are_left_out():
  loaded = found(*ALL)
  loaded.prefix = "module."
  counters = [f"layer{i}.bn.num_batches_tracked" for i in range(54)]
  loaded.left_out = [*counters, "global_step", "fc.weight"]
  text = summary.origins(start(loaded), seed=5)
  assert "1 arrays: fc.weight; 55 counters of training steps" in text
  assert "num_batches_tracked" not in text
  assert "prefix      module. was taken off the names" in text


def test_variables_of_another_network_give_what_fits():
  own = drawn(SHAPES | {AUXILIARY: (1, 1, 4, 3)})
  assert not partial.of_variables(own, SHAPES).unused
  wanted = SHAPES | {
    ("params", "logits", "kernel"): (1, 1, 4, 5),
    ("params", "head", "aspp0", "kernel"): (3, 3, 4, 4),
    ("params", "head", "more", "bias"): (4,),
  }
  del wanted["params", "decoder", "conv0", "kernel"]
  loaded = partial.of_variables(own, wanted)
  assert {path[1] for path in loaded.values} == {"backbone", "logits"}
  assert [*loaded.missing.values()] == [("head/more/bias",)]
  assert [m.name for m in loaded.misfits] == [
    *("head/aspp0/kernel", "logits/kernel")
  ]
  assert partial.other_classes(loaded, CLASSES) == {3}
  assert loaded.unused == ["decoder/conv0/kernel"]
  assert loaded.left_out == ["auxiliary/conv/kernel"]
