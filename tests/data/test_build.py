import numpy as np
import pytest

from configs import camvid
from configs import own_data
from deeplax import errors
from deeplax.data import build
from deeplax.data import loader
from deeplax.data import spec
from deeplax.settings import defaults
from tests.data import trees


@pytest.fixture
def places(tmp_path, monkeypatch):
  """Point each place that is searched at an empty folder of this test."""
  folders = {n: tmp_path / n for n in ("deeplax", "tfds", "home")}
  for path in folders.values():
    path.mkdir()
  monkeypatch.setenv("DEEPLAX_DATA", str(folders["deeplax"]))
  monkeypatch.setenv("TFDS_DATA_DIR", str(folders["tfds"]))
  monkeypatch.setenv("HOME", str(folders["home"]))
  return folders | {"home": folders["home"] / "tensorflow_datasets"}


def camvid_data():
  return camvid.get_config("").data


def camvid_tree(root, images):
  names = spec.CAMVID.class_names
  root.mkdir(exist_ok=True)
  trees.folder(root / "camvid", classes=names, images=images, splits=("train",))


def test_places_are_searched_in_their_order(places, tmp_path):
  data = camvid_data()
  for count, place in enumerate(("home", "tfds", "deeplax"), start=1):
    camvid_tree(places[place], count)
    assert len(build.source(data, "train")) == count
  root = tmp_path / "given"
  camvid_tree(root, 4)
  data.root = str(root)
  assert len(build.source(data, "train")) == 4
  data.root = str(root / "camvid")
  assert len(build.source(data, "train")) == 4


def test_a_given_root_is_the_only_place(places, tmp_path):
  camvid_tree(places["deeplax"], 1)
  data = camvid_data()
  data.root = str(tmp_path / "nowhere")
  with pytest.raises(errors.InputError) as error:
    build.source(data, "train")
  text = str(error.value)
  assert "nowhere (no such folder)" in text and "DEEPLAX_DATA" not in text


def test_no_data_says_where_it_looked_and_what_to_do(places):
  data = defaults.base().data
  with pytest.raises(errors.InputError) as error:
    build.source(data, data.train_split)
  text = str(error.value)
  for part in (
    "--config.data.root (not set)",
    f"$DEEPLAX_DATA = {places['deeplax']}",
    f"$TFDS_DATA_DIR = {places['tfds']}",
    f"~/tensorflow_datasets = {places['home']} (no such folder)",
    "host.robots.ox.ac.uk",
    "VOCtrainval_11-May-2012.tar",
    "SegmentationClassAug",
    "--config.data.root=DIR",
    "VOCdevkit",
    ":debug",
    "configs/own_data.py",
  ):
    assert part in text


@pytest.mark.parametrize("name", ["cityscapes", "ade20k", "camvid", "folder"])
def test_every_data_set_says_how_to_get_it(places, name):
  data = defaults.base().data
  data.name = name
  with pytest.raises(errors.InputError, match=f"no {name} data") as error:
    build.source(data, "train")
  assert "  1. " in str(error.value)


def test_unknown_data_set_lists_the_known_ones():
  data = defaults.base().data
  data.name = "pets"
  with pytest.raises(errors.InputError, match=r"'pets' not in \['ade20k', "):
    build.source(data, "train")
  with pytest.raises(errors.InputError, match="'pets'"):
    build.spec(data)


def test_own_data_brings_its_classes(places, tmp_path):
  data = own_data.get_config("").data
  data.root = str(trees.folder(tmp_path / "mine"))
  assert build.spec(data).class_names == ("ground", "cat", "dog")
  assert build.source(data, data.eval_split)[0]["name"] == "00"


def test_specs_of_published_data_need_no_files(places):
  assert build.spec(defaults.base().data) is spec.VOC2012


def test_own_data_without_classes_json_says_so(tmp_path):
  trees.folder(tmp_path)
  (tmp_path / "classes.json").unlink()
  data = own_data.get_config("").data
  data.root = str(tmp_path)
  with pytest.raises(errors.InputError, match=r"no .*classes\.json"):
    build.source(data, "train")
  with pytest.raises(errors.InputError, match=r"no .*classes\.json"):
    build.at(tmp_path, "train")


@pytest.mark.parametrize("module", [camvid, own_data])
def test_debug_trains_on_shapes(module):
  config = module.get_config("debug")
  source = build.source(config.data, config.data.train_split)
  assert source.spec is spec.SHAPES
  assert build.spec(config.data) is spec.SHAPES
  assert len(source) == config.data.shapes_train
  assert len(build.source(config.data, "val")) == config.data.shapes_eval
  batches = build.train_loader(config, source, pad_value=(127.5, 127.5, 127.5))
  crop = config.data.crop_size
  assert next(batches)["image"].shape == (config.train.batch_size, *crop, 3)


@pytest.mark.parametrize(
  "change",
  [{"crop_size": (0, 5)}, {"min_scale": 3.0}, {"scale_step": -1.0}],
)
def test_wrong_settings_are_refused(change):
  config = defaults.debug(defaults.base())
  config.data.update(change)
  source = build.source(config.data, "train")
  with pytest.raises(errors.InputError, match=next(iter(change))):
    build.train_loader(config, source, pad_value=(0.0, 0.0, 0.0))


def test_own_images_pass_through_the_loader(tmp_path):
  data = own_data.get_config("").data
  data.root = str(trees.folder(tmp_path))
  config = own_data.get_config("")
  config.data = data
  config.data.crop_size = (64, 64)
  source = build.source(data, "train")
  batch = next(build.train_loader(config, source, pad_value=(1.0, 2.0, 3.0)))
  assert set(np.unique(batch["label"])) <= {0, 1, 2, 255}
  names = [e["name"] for e in loader.examples(source, threads=2)]
  assert names == ["00", "01", "02"]
