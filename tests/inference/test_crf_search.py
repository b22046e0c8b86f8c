"""The search: what it tries and finds, and that it goes on where it stopped."""

import functools
import json

from etils import epath
import numpy as np
import pytest

from deeplax import clocks
from deeplax import crf
from deeplax import errors
from deeplax.crf import search
from deeplax.data import build as data_build
from deeplax.data import spec as spec_lib
from deeplax.inference import crf_search
from deeplax.inference import predictor as predictor_lib
from deeplax.metrics import confusion
from deeplax.models import build as model_build
from deeplax.settings import defaults
from deeplax.settings import protocols
from deeplax.workdir import checkpoint
from deeplax.workdir import sealed
from deeplax.workdir import settings
from tests.inference import toy

SPEC = spec_lib.Spec(
  "toy", ("dark", "bright"), ((0, 0, 0), (255, 255, 255)), ignore_label=255
)
GRID = {"w1": [1.0, 4.0], "sigma_alpha": [10.0], "sigma_beta": [4.0, 12.0]}
FIELDS = {
  "grid": GRID,
  "rounds": 2,
  "w2": 3.0,
  "sigma_gamma": 3.0,
  "iterations": 2,
}


class Halves:
  """A dark and a bright half, with texture."""

  spec, split = SPEC, "val"

  def __init__(self, fails_at=None, images=3):
    self.fails_at, self.read, self._images = fails_at, [], images

  def __len__(self):
    return self._images

  def __getitem__(self, index):
    if index == self.fails_at:
      raise KeyboardInterrupt
    self.read.append(index)
    rng = np.random.default_rng(index)
    label = np.zeros((8, 10), np.uint8)
    label[:, 4 + index :] = 1
    image = (label[..., None] * 90 + 50).repeat(3, -1)
    image = (image + rng.integers(0, 30, image.shape)).astype(np.uint8)
    label[0] = 255
    return {"image": image, "label": label, "name": f"{index}.png"}


class Unsure(predictor_lib.Predictor):
  """Predicts the right class a little more often than not."""

  def __init__(self):
    pass

  def clock(self):
    return 0.0

  def __call__(self, image):
    rng = np.random.default_rng(int(image.sum()))
    bright = (image[..., 0] > 100) + rng.normal(size=image.shape[:2])
    share = 1 / (1 + np.exp(-2 * (bright - 0.5)))
    return np.stack([1 - share, share], axis=-1).astype(np.float32)


def scored(source, **parameters):
  matrix, predictor = np.zeros((2, 2), np.int64), Unsure()
  for i in range(len(source)):
    example = source[i]
    found = predictor(example["image"])
    if parameters:
      found = crf.dense_crf(example["image"], found, **parameters)
    labels = np.asarray(found).argmax(-1)
    matrix += confusion.count(example["label"], labels, 2)
  return confusion.scores(matrix, SPEC.class_names)["miou"]


def run(path, source=None, **changes):
  return crf_search.search(
    Unsure(),
    source or Halves(),
    epath.Path(path),
    fields={**FIELDS, **changes},
  )


def test_every_setting_is_scored_as_dense_crf_alone_would_be(tmp_path):
  # Each image compiles for each lattice: two of two are enough.
  source = Halves(images=2)
  result = run(tmp_path / "crf" / "a.json", source, rounds=1)
  assert len(result["trials"]) == 4
  assert result["without_crf"] == pytest.approx(scored(source))
  fixed = {"w2": 3.0, "sigma_gamma": 3.0, "iterations": 2}
  for trial in result["trials"]:
    parameters = {name: trial[name] for name in crf_search.NAMES}
    assert trial["miou"] == pytest.approx(scored(source, **parameters, **fixed))
  best = max(result["trials"], key=lambda trial: trial["miou"])
  assert best["miou"] > result["without_crf"]
  assert result["best"] == fixed | {n: best[n] for n in crf_search.NAMES}
  assert json.loads((tmp_path / "crf" / "a.json").read_text()) == result


def test_no_setting_is_tried_twice_and_finer_ones_surround_the_best(tmp_path):
  result = run(tmp_path / "a.json")
  tried = [tuple(t[n] for n in crf_search.NAMES) for t in result["trials"]]
  assert len(tried) == len(set(tried))
  assert tried[:4] == [
    (1.0, 10.0, 4.0), (1.0, 10.0, 12.0), (4.0, 10.0, 4.0), (4.0, 10.0, 12.0)
  ]  # fmt: skip
  coarse = max(result["trials"][:4], key=lambda trial: trial["miou"])
  for w1, alpha, beta in tried[4:]:
    # Half of the coarse steps, 3 and 8; what had one value is fixed.
    assert abs(w1 - coarse["w1"]) in (0, 1.5)
    assert alpha == 10 and abs(beta - coarse["sigma_beta"]) in (0, 4)


def test_values_stay_above_zero():
  grid = {"w1": (1, 2), "sigma_alpha": (5,), "sigma_beta": (3, 4)}
  around = crf_search.finer_grid(grid, (0.5, 5.0, 3.0), 1)
  assert sorted({w1 for w1, _, _ in around}) == [0.5, 1.0]
  assert sorted({beta for _, _, beta in around}) == [2.5, 3.0, 3.5]


def test_the_first_grids_are_those_of_the_papers():
  sizes = {
    name: len(crf_search.first_grid(g))
    for name, g in protocols.CRF_GRIDS.items()
  }
  assert sizes == {"v1": 6 * 6 * 8, "v2": 4 * 8 * 4}


@pytest.mark.parametrize("fails_at", [0, 2])
def test_a_stopped_search_goes_on_to_the_same_result(tmp_path, fails_at):
  expected = run(tmp_path / "whole.json")
  path = tmp_path / "stopped.json"
  with pytest.raises(KeyboardInterrupt):
    run(path, Halves(fails_at))
  again = Halves()
  assert run(path, again) == expected
  # Of the first round what was left, of the second all.
  assert again.read == [*range(fails_at, 3), 0, 1, 2]
  finished = Halves()
  assert run(path, finished) == expected
  assert not finished.read


def test_the_time_left_leaves_out_the_first_images_compilation(
  tmp_path, monkeypatch, capsys
):
  took, now = iter([100.0, 2.0, 2.0]), 0.0

  def count(example, probabilities, settings, **_):
    nonlocal now
    now += next(took)
    return np.ones((1 + len(settings), 3, 2), np.int64)

  monkeypatch.setattr(crf_search, "count_image", count)
  monkeypatch.setattr(Unsure, "clock", lambda _: now)
  often = functools.partial(clocks.Progress, every=0.0)
  monkeypatch.setattr(clocks, "Progress", often)
  run(tmp_path / "result.json", rounds=1)
  lines = capsys.readouterr().out.splitlines()
  assert [line for line in lines if line.startswith("searched")] == [
    "searched 2/3 images  0.5 images/s  ETA 2 s",
    "searched 3/3 images  0.5 images/s  ETA 0 s",
  ]


def test_another_search_does_not_go_on_in_the_file(tmp_path):
  path = tmp_path / "a.json"
  run(path, rounds=1)
  with pytest.raises(errors.InputError, match=r"a\.json .*w2=3.0, .* 2.0"):
    run(path, rounds=1, w2=2.0)
  path.write_text("{}")
  with pytest.raises(errors.InputError, match="to start the search anew"):
    run(path)


@pytest.fixture
def command(tmp_path, monkeypatch):
  """A function that runs the command on a stand-in for a trained run."""
  config = defaults.base()
  monkeypatch.setattr(settings, "load_config", lambda _: config)
  monkeypatch.setattr(sealed, "wanted_step", lambda _, step: step or 400)
  monkeypatch.setattr(checkpoint, "read", lambda *_: {})
  monkeypatch.setattr(
    model_build, "from_config", lambda *_, **__: toy.Brightest()
  )
  monkeypatch.setattr(data_build, "source", lambda *_: toy.Toy())

  def command(*arguments):
    with pytest.raises(SystemExit) as ended:
      search.main([f"--workdir={tmp_path}", *arguments])
    return ended.value.code

  command.config = config
  return command


SMALL = (
  *("--images=2", "--rounds=1", "--iterations=1"),
  *("--w1=1,2", "--sigma_alpha=20", "--sigma_beta=5"),
)


def test_the_command_writes_its_result_into_the_workdir(
  command, tmp_path, capsys
):
  assert command(*SMALL, "--flip") == 0
  path = tmp_path / "crf" / "val-00000400-os16-s1.0-flip-n2.json"
  result = json.loads(path.read_text())
  assert result["images"] == 2 and result["flip"] is True
  assert [t["w1"] for t in result["trials"]] == [1.0, 2.0]
  assert result["best"]["sigma_beta"] == 5.0
  assert result["best"]["sigma_gamma"] == 3.0 and result["best"]["w2"] == 3.0
  text = capsys.readouterr().out
  assert "2 settings on 2 images, with 1 lattices for each" in text
  assert f"--crf_file={path}" in text
  assert "best w1" in text and "without CRF" in text


@pytest.mark.parametrize(
  ("flag", "words"),
  [
    ("--images=0", "--images=0"),
    ("--w2=-1", "--w2=-1"),
    ("--rounds=0", "--rounds=0"),
    ("--w1=0", "--w1"),
    ("--grid=v3", "v3"),
    ("--sigma_alpha=a", "sigma_alpha"),
  ],
)
def test_misread_command_lines_end_with_2(
  command, tmp_path, capsys, flag, words
):
  assert command(*SMALL, flag) == 2
  assert words in capsys.readouterr().err
  assert not (tmp_path / "crf").exists()


def test_a_run_on_bands_is_refused(command, capsys):
  command.config.data.channels = (3, 2, 1)
  assert command(*SMALL) == 2
  assert "colors" in capsys.readouterr().err
