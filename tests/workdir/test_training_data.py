"""A run goes on with the data that it began on, or says so."""

import json

from etils import epath
import numpy as np
import pytest

from deeplax import errors
from deeplax.data import folder as folder_lib
from deeplax.data import shapes
from deeplax.data import views
from deeplax.workdir import training_data
from tests.data import trees


@pytest.fixture
def data(tmp_path):
  return trees.folder(tmp_path / "data")


@pytest.fixture
def workdir(tmp_path, data):
  """A workdir with a checkpoint of a run on `data`."""
  run = epath.Path(tmp_path / "run")
  (run / "checkpoints" / "2").mkdir(parents=True)
  training_data.write(run, folder_lib.source(data, "train"), resumed=False)
  return run


def said(workdir, source) -> list[str]:
  lines: list[str] = []
  training_data.refuse_other(workdir, source, lines.append)
  return lines


def test_the_same_data_elsewhere_are_the_same(workdir, data, tmp_path):
  assert said(workdir, folder_lib.source(data, "train")) == []
  moved = data.rename(tmp_path / "moved")
  assert said(workdir, folder_lib.source(moved, "train")) == []
  # As they are trained on: some images twice.
  listed = views.Listed(folder_lib.source(moved, "train"), np.array([0, 0, 1]))
  assert said(workdir, views.Subset(listed, 2)) == []


def remove(data):
  for path in data.glob("*/train/02.*"):
    path.unlink()


def add(data):
  trees.image(data / "images" / "train" / "03.jpg")
  trees.mask(data / "labels" / "train" / "03.png", trees.labels(0, 1))


def rename(data):
  for path in [*data.glob("*/train/02.*")]:
    path.rename(path.with_stem("99"))


@pytest.mark.parametrize(
  ("change", "told"),
  [
    (remove, "trained on 3 images, and the data now has 2"),
    (add, "trained on 3 images, and the data now has 4"),
    (rename, "trained on images of other names"),
  ],
)
def test_other_images_are_refused_until_the_file_is_removed(
  workdir, data, change, told
):
  change(data)
  source = folder_lib.source(data, "train")
  with pytest.raises(errors.InputError, match=told) as error:
    said(workdir, source)
  path = workdir / "data.json"
  advice = f"or remove {path} to resume with the data as they are now"
  assert str(error.value).endswith(advice)
  path.unlink()
  assert said(workdir, source) == []
  training_data.write(workdir, source, resumed=True)  # from now on known
  assert said(workdir, source) == []
  assert path.exists()


def test_a_mended_mask_is_said(workdir, data):
  mask = data / "labels" / "train" / "01.png"
  trees.mask(mask, np.zeros(trees.SIZE, np.uint8))
  (line,) = said(workdir, folder_lib.source(data, "train"))
  assert "another size than when this run began; it resumes" in line
  # What it began on stays.
  before = (workdir / "data.json").read_text()
  source = folder_lib.source(data, "train")
  training_data.write(workdir, source, resumed=True)
  assert (workdir / "data.json").read_text() == before


def test_a_run_without_a_checkpoint_begins_anew(workdir, data):
  (workdir / "checkpoints" / "2").rmdir()
  remove(data)
  source = folder_lib.source(data, "train")
  assert said(workdir, source) == []
  training_data.write(workdir, source, resumed=False)
  assert json.loads((workdir / "data.json").read_text())["images"] == 2


def test_an_earlier_run_and_made_up_data_have_no_such_file(tmp_path, data):
  run = epath.Path(tmp_path)
  (run / "checkpoints" / "2").mkdir(parents=True)
  assert said(run, folder_lib.source(data, "train")) == []
  source = shapes.Shapes("train", images=2, size=(33, 33))
  training_data.write(run, source, resumed=False)
  assert not (run / "data.json").exists()
  assert said(run, source) == []


@pytest.mark.parametrize("text", ["", "{", "{}", "[]"])
def test_a_broken_file_is_told_with_the_way_out(workdir, data, text):
  path = workdir / "data.json"
  path.write_text(text)
  source = folder_lib.source(data, "train")
  with pytest.raises(errors.InputError, match=f"{path}.*: remove {path} to"):
    said(workdir, source)
  path.unlink()
  assert said(workdir, source) == []


def test_images_that_were_prepared_since_are_counted(workdir, data, tmp_path):
  pytest.importorskip("array_record")
  from deeplax.data import prepared
  from deeplax.data.prepare import folder
  from deeplax.data.prepare import write

  path = write.write(
    folder.plan(data), tmp_path / "out", progress=lambda _: None
  )
  source = prepared.Prepared(prepared.spec(path), path, "train")
  assert len([*source.contents()]) == 1
  assert said(workdir, source) == []
  training_data.write(workdir, source, resumed=False)
  assert said(workdir, source) == []
  assert json.loads((workdir / "data.json").read_text())["prepared"]
  # And the other way round, also where several splits are joined.
  assert said(workdir, folder_lib.source(data, "train")) == []
  training_data.write(workdir, views.Joined([source]), resumed=False)
  assert said(workdir, folder_lib.source(data, "train")) == []
