"""`deeplax.load`: what a run predicts is what the command writes."""

import functools
import json
from typing import Any

import jax
import numpy as np
from PIL import Image
import pytest

import deeplax
from deeplax import predict
from deeplax.api import run as run_lib
from deeplax.data import build as data_build
from deeplax.inference import asked
from deeplax.reports import pictures
from tests import commands


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
  """Two photographs, of two sizes."""
  folder = tmp_path_factory.mktemp("photos")
  rng = np.random.default_rng(0)
  for name, size in (("a", (56, 40)), ("b", (30, 33))):
    small = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    photo = Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)
    photo.save(folder / f"{name}.png")
  return [folder / "a.png", folder / "b.png"]


def _written(trained, photos, out, *flags):
  """Return the masks and the probabilities that deeplax.predict writes."""
  done = commands.command(
    "predict", f"--workdir={trained.workdir}", f"--out={out}", "--probs",
    *flags, *photos, short=True,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr[-3000:]
  masks = [np.array(Image.open(out / f"{p.stem}_mask.png")) for p in photos]
  files = [np.load(out / f"{p.stem}_probs.npz") for p in photos]
  return masks, [file["probabilities"] for file in files]


def _assert_equal(run, photos, masks, probabilities):
  found = run(photos)
  for one, photo, mask, shares in zip(
    found, photos, masks, probabilities, strict=True
  ):
    np.testing.assert_array_equal(one, mask)
    assert one.dtype == np.uint8
    own = run.probabilities(photo)
    assert own.dtype == np.float32
    # The files hold half precision.
    np.testing.assert_array_equal(own.astype(np.float16), shares)


def test_a_run_predicts_what_the_command_writes(
  trained, photos, tmp_path, short
):
  run = deeplax.load(trained.workdir)
  masks, probabilities = _written(trained, photos, tmp_path)
  _assert_equal(run, photos, masks, probabilities)
  image = np.asarray(Image.open(photos[0]))
  for same in (image, str(photos[0]), Image.fromarray(image)):
    np.testing.assert_array_equal(run(same), masks[0])
  assert run([]) == []
  height, width = masks[0].shape
  sheet = run.overlay(photos[0])
  with Image.open(tmp_path / "a_overlay.jpg") as written:
    assert sheet.size == written.size
    off = np.asarray(written, int) - np.asarray(sheet, int)
  assert np.abs(off).mean() < 3  # the file is a JPEG
  other = np.full(masks[0].shape, 3, np.uint8)
  shown = np.asarray(run.overlay(image, other))[:height, :width]
  expected = pictures.overlay(image, other, run.palette)
  np.testing.assert_array_equal(shown, expected)


@pytest.mark.slow  # 16 s: programs for two scales, and the CRF's
def test_scales_flips_windows_and_crf_are_those_of_the_command(
  trained, photos, tmp_path, short
):
  views = ("--scales=0.75,1.0", "--flip", "--output_stride=8")
  cases: list[tuple[tuple[str, ...], dict[str, Any]]] = [
    (views, {"scales": (0.75, 1.0), "flip": True, "output_stride": 8}),
    (("--window=33", "--overlap=9"), {"window": 33, "overlap": 9}),
    (("--crf", "--sizes=exact"), {"crf": True, "sizes": "exact"}),
  ]
  for flags, keywords in cases:
    written = _written(trained, photos, tmp_path / flags[0], *flags)
    run = deeplax.load(trained.workdir, **keywords)
    _assert_equal(run, photos, *written)


def test_a_run_tells_of_itself(trained, short):
  run = deeplax.load(trained.workdir, "best")
  assert run.classes[:2] == ("background", "disc") and len(run.classes) == 8
  assert run.palette[1] == (128, 0, 0)
  assert run.config.train.total_steps == 4 and run.step in (2, 4)
  assert run.workdir == str(trained.workdir)
  assert repr(run).endswith(f"step {run.step}, 8 classes>")
  images = np.zeros((1, 33, 33, 3), np.uint8)
  logits = jax.eval_shape(
    functools.partial(run.model.apply, train=False), run.variables, images
  )
  assert logits.shape == (1, 33, 33, 8)  # the variables fit


def test_scores_of_a_run_are_those_of_evaluate(trained, short):
  run = deeplax.load(trained.workdir)
  source = data_build.source(run.config.data, run.config.data.eval_split)
  examples = [source[index] for index in range(len(source))]
  found = run([example["image"] for example in examples])
  scores = deeplax.scores(found, [e["label"] for e in examples], run.classes)
  path = trained.workdir / "eval" / "val-00000004-os16-s1.0.json"
  evaluated = json.loads(path.read_text())
  for key in ("miou", "iou", "pixel_accuracy", "confusion_matrix", "images"):
    assert scores[key] == evaluated[key], key


ALL: dict[str, Any] = {
  "step": 2,
  "output_stride": 8,
  "scales": (0.5, 1.0),
  "flip": False,
  "crf": True,
  "sizes": "exact",
  "window": 65,
  "overlap": 0,
  "batch": 0,
}


class Opened(run_lib.Run):
  """Opens nothing."""

  def __init__(self, *_: Any):
    pass


def test_each_keyword_is_the_flag_of_its_name(monkeypatch, tmp_path):
  """Values that are 0 or False too, which differ from none."""
  asked_for: list[Any] = []
  monkeypatch.setattr(
    asked, "pictures", lambda args, model: asked_for.append(args)
  )
  monkeypatch.setattr(run_lib, "Run", Opened)
  flags = [
    *("--step=2", "--output_stride=8", "--scales=0.5,1.0", "--no-flip"),
    *("--crf", "--sizes=exact", "--window=65", "--overlap=0", "--batch=0"),
  ]
  for keywords, words in (({}, ()), (ALL, flags)):
    deeplax.load(tmp_path, **keywords)
    parsed = vars(
      predict.parser().parse_args(
        [f"--workdir={tmp_path}", "--out=out", *words, "a.jpg"]
      )
    )
    found = vars(asked_for.pop())
    assert {*keywords} < {*found}
    assert found == {key: parsed[key] for key in found}


@pytest.mark.parametrize(
  "keywords, told",
  [
    ({"step": "last"}, "step 'last' is neither a number nor \"best\""),
    ({"step": 3}, "no step 3"),
    ({"scales": (0,)}, "scales must be positive numbers"),
    ({"output_stride": 7}, "output_stride 7 not in"),
    ({"window": 9}, "window 9 must be"),
    ({"sizes": "any"}, "must be one of"),
    ({"batch": -1}, "batch is -1"),
    ({"crf": {"w3": 1}}, "crf has ['w3'], which are no parameters"),
    ({"crf": {"w1": -1}}, "crf: w1 is -1"),
  ],
)
def test_what_is_wrong_is_told_when_the_run_is_opened(
  trained, short, keywords, told
):
  with pytest.raises(deeplax.InputError) as error:
    deeplax.load(trained.workdir, **keywords)
  assert told in str(error.value)


def test_a_folder_without_a_run_is_refused(tmp_path):
  with pytest.raises(deeplax.InputError, match="no config.json"):
    deeplax.load(tmp_path)


def test_parameters_of_the_crf_replace_those_of_the_config(trained, short):
  run = deeplax.load(trained.workdir, crf={"w1": 7, "iterations": 1})
  before = run.config.eval.crf.to_dict()
  assert run._asked.crf == {**before, "w1": 7, "iterations": 1} != before
  assert deeplax.load(trained.workdir, crf=False)._asked.crf is None
