"""What a workdir says of its run, and other runs that are refused there."""

import json

import pytest

from deeplax import atomic
from deeplax import errors
from deeplax.data import folder
from deeplax.data import spec as spec_lib
from deeplax.settings import defaults
from deeplax.workdir import settings
from tests.data import trees


def test_other_classes_than_the_runs_are_refused(tmp_path):
  spec = spec_lib.SPECS["shapes"]
  atomic.write_json(tmp_path / "spec.json", spec.to_json())
  settings.refuse_other_classes(tmp_path, spec)
  with pytest.raises(errors.InputError, match="trained on 8 classes"):
    settings.refuse_other_classes(tmp_path, spec_lib.SPECS["camvid"])


LABEL_MAPS = (
  # classes.json in training, now, what is told of the difference
  ({}, {"label_map": {"2": 1}}, "2 is 'dog', and .* now it is 'cat'"),
  ({"label_map": {"7": 1}}, {"label_map": {"7": 2}}, "7 is 'cat', .* 'dog'"),
  ({"label_map": {"255": 1}, "ignore_label": None}, {}, "255 is 'cat', .* ign"),
  ({}, {"label_map": {"0": 255}}, "0 is 'ground', and .* now it is ignored"),
  ({"label_map": {"0": 1, "1": 0}}, {}, "0 is 'cat', and .* it is 'ground'"),
)


@pytest.mark.parametrize(("then", "now", "told"), LABEL_MAPS)
def test_other_meanings_of_the_masks_numbers_are_refused(
  tmp_path, then, now, told
):
  data = tmp_path / "data"
  spec = folder.spec(trees.folder(data, images=1, **then))
  atomic.write_json(tmp_path / "spec.json", spec.to_json())
  changed = folder.spec(trees.folder(data, images=1, **now))
  with pytest.raises(errors.InputError, match=told):
    settings.refuse_other_classes(tmp_path, changed)
  # What it advises.
  restored = folder.spec(trees.folder(data, images=1, **then))
  settings.refuse_other_classes(tmp_path, restored)


@pytest.mark.parametrize(
  "now",
  [
    {"label_map": {"7": 255}},  # as check_data advises of a number of no class
    {"ignore_label": 7},
    {"ignore_label": None},
    {"palette": [[0, 0, 0], [1, 1, 1], [2, 2, 2]]},
  ],
)
def test_a_number_that_meant_nothing_may_get_a_meaning(tmp_path, now):
  data = tmp_path / "data"
  spec = folder.spec(trees.folder(data, images=1))
  atomic.write_json(tmp_path / "spec.json", spec.to_json())
  changed = folder.spec(trees.folder(data, images=1, **now))
  settings.refuse_other_classes(tmp_path, changed)


def test_of_an_earlier_run_the_masks_numbers_are_not_known(tmp_path):
  data = trees.folder(tmp_path / "data", images=1, label_map={"2": 1})
  text = folder.spec(trees.folder(tmp_path / "data", images=1)).to_json()
  del text["label_map"]
  atomic.write_json(tmp_path / "spec.json", text)
  settings.refuse_other_classes(tmp_path, folder.spec(data))


def test_classes_are_the_same_however_an_accent_is_stored(tmp_path):
  old, new = (
    spec_lib.Spec("own", (name, "car"), ((0, 0, 0), (9, 9, 9)), label_map=())
    for name in ("caf\u00e9", "cafe\u0301")
  )
  atomic.write_json(tmp_path / "spec.json", old.to_json())
  settings.refuse_other_classes(tmp_path, new)


def test_the_config_comes_back_with_its_types(tmp_path):
  text = json.loads(defaults.base().to_json())
  atomic.write_json(tmp_path / "config.json", text)
  config = settings.load_config(tmp_path)
  assert config.data.crop_size == (513, 513)
  # JSON holds lists in lists.
  assert config.model.cell == defaults.base().model.cell
  assert config.model.atrous_rates is None
  assert config.is_locked


def test_unknown_keys_of_a_config_are_refused(tmp_path):
  text = json.loads(defaults.base().to_json())
  text["model"]["outputstride"] = 8
  atomic.write_json(tmp_path / "config.json", text)
  with pytest.raises(errors.InputError, match="outputstride"):
    settings.load_config(tmp_path)


BROKEN = {
  "empty": b"",
  "zeros": bytes(200),
  "cut off": b'{\n  "model": {',
  "a list": b"[]",
  "another object": b'{"miou": 0.5}',
  "UTF-16": b"\xff\xfe{\0}\0",
}


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("name", ["config.json", "spec.json"])
def test_a_broken_file_of_a_run_is_named_with_its_fix(tmp_path, name, how):
  path = tmp_path / name
  path.write_bytes(BROKEN[how])
  read = {"config.json": settings.load_config, "spec.json": settings.read_spec}
  with pytest.raises(errors.InputError) as refused:
    read[name](tmp_path)
  assert str(path) in str(refused.value)
  if how != "UTF-16":
    assert len(str(refused.value).splitlines()) == 1


def test_a_broken_record_of_converted_weights_is_named(tmp_path):
  (tmp_path / "converted.json").write_text('{"source": "torchvision"}')
  with pytest.raises(errors.InputError, match="converted.json is not as"):
    settings.init_text(defaults.base(), tmp_path)
