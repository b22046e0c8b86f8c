"""Scoring folders of masks: the numbers of evaluate, and what is refused."""

import codecs
import json
import re

import numpy as np
from PIL import Image
import pytest

from deeplax import evaluate
from deeplax import predict
from deeplax import score
from deeplax.data import build as data_build
from deeplax.data import folder
from deeplax.metrics import measures
from deeplax.models import build as model_build
from deeplax.settings import defaults
from deeplax.workdir import checkpoint
from deeplax.workdir import sealed
from deeplax.workdir import settings
from tests import shared
from tests.inference import toy
from tests.metrics import pairs

MEASURES = ("--trimap=1,2,5,10,20,40", "--boundary", "--objects")
# What evaluate knows of the run, and masks do not tell.
OF_THE_RUN = {
  *("split", "step", "output_stride", "scales", "flip", "crf", "init"),
  *("sizes", "window"),
}


def _command(*arguments):
  with pytest.raises(SystemExit) as ended:
    score.main([str(a) for a in arguments])
  return ended.value.code


def _read(path):
  with Image.open(path) as picture:
    return np.asarray(picture)


def _save(path, array):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(array).save(path)


@pytest.fixture
def data(tmp_path):
  """Own data of three classes, of several sizes, in sub-folders."""
  root = tmp_path / "data"
  for seed, name in enumerate(("a", "deep/b", "deep/c")):
    labels, predicted = pairs.blobs(seed, (40 + seed, 60), 3, void=0.1)
    image = np.random.default_rng(seed).integers(0, 200, (*labels.shape, 3))
    np.put_along_axis(image, predicted[..., None].astype(int), 255, axis=-1)
    _save(root / "images" / "val" / f"{name}.png", image.astype(np.uint8))
    _save(root / "labels" / "val" / f"{name}.png", labels)
  names = {"names": ["red", "green", "blue"], "ignore_label": 255}
  (root / "classes.json").write_text(json.dumps(names))
  return root


@pytest.fixture
def workdir(data, tmp_path, monkeypatch):
  """A stand-in for a trained run, for evaluate and predict alike."""
  config = defaults.base()
  spec = folder.spec(data)
  monkeypatch.setattr(settings, "load_config", lambda _: config)
  monkeypatch.setattr(sealed, "wanted_step", lambda _, step: 400)
  monkeypatch.setattr(checkpoint, "read", lambda _, step: {})
  monkeypatch.setattr(
    model_build, "from_config", lambda *_, **__: toy.Brightest()
  )
  monkeypatch.setattr(
    data_build, "source", lambda _, split, flag: folder.source(data, split)
  )
  path = tmp_path / "run"
  path.mkdir()
  (path / "spec.json").write_text(json.dumps(spec.to_json()))
  return path


@pytest.mark.parametrize("mode", [(), ("--scales=0.5,1", "--flip")])
def test_all_fields_are_those_of_evaluate(
  mode, workdir, data, tmp_path, capsys
):
  with pytest.raises(SystemExit) as ended:
    evaluate.main([f"--workdir={workdir}", "--no-sweep", *mode, *MEASURES])
  assert ended.value.code == 0
  table = capsys.readouterr().out
  out, masks = tmp_path / "scores.json", tmp_path / "masks"
  with pytest.raises(SystemExit) as ended:
    predict.main([
      *(f"--workdir={workdir}", f"--out={masks}", *mode),
      str(data / "images" / "val"),
    ])  # fmt: skip
  assert ended.value.code == 0
  capsys.readouterr()
  labels = data / "labels" / "val"
  assert _command(masks, labels, *MEASURES, f"--out={out}") == 0

  (path,) = (workdir / "eval").glob("*.json")
  evaluated, scored = json.loads(path.read_text()), json.loads(out.read_text())
  assert evaluated.keys() - scored.keys() == OF_THE_RUN
  assert scored == {k: v for k, v in evaluated.items() if k not in OF_THE_RUN}
  assert 0 < scored["miou"] < 1 and scored["images"] == 3
  assert scored["trimap"].keys() == {"1", "2", "5", "10", "20", "40"}
  assert scored["boundary_f"] < 1 and scored["boundary_iou"] < 1
  assert sum(row["objects"] for row in scored["objects"]) > 10
  printed = measures.table(scored, folder.spec(data).class_names)
  assert printed in table and printed in capsys.readouterr().out


@pytest.fixture
def masks(data, tmp_path):
  """Right predictions of the data, as deeplax.predict names them."""
  for path in (data / "labels" / "val").rglob("*.png"):
    labels = _read(path)
    inner = path.relative_to(data / "labels" / "val").parent
    name = tmp_path / "masks" / inner / f"{path.stem}_mask.png"
    _save(name, np.where(labels == 255, 1, labels))
  return tmp_path / "masks"


@pytest.mark.parametrize("threads", [1, 3])
def test_right_masks_are_scored_as_right(data, masks, threads, tmp_path):
  out = tmp_path / "scores.json"
  status = _command(
    *(masks, data / "labels" / "val", f"--out={out}"),
    *(*MEASURES, f"--threads={threads}"),
  )
  assert status == 0
  scores = json.loads(out.read_text())
  assert scores["miou"] == scores["boundary_f"] == scores["boundary_iou"] == 1
  assert set(scores["trimap"].values()) == {1.0}


def test_overlays_beside_the_masks_are_not_scored(data, masks, tmp_path):
  _save(masks / "a_overlay.png", np.zeros((40, 60, 3), np.uint8))
  labels, out = data / "labels" / "val", tmp_path / "scores.json"
  assert _command(masks, labels, f"--out={out}") == 0
  assert json.loads(out.read_text())["images"] == 3
  # By itself it is a mask of that name.
  _save(masks / "z_overlay.png", np.zeros((40, 60), np.uint8))
  assert _command(masks, labels) == 2


def test_linked_sub_folders_are_scored(data, masks, tmp_path):
  labels, out = data / "labels" / "val", tmp_path / "scores.json"
  for root in (labels, masks):
    store = tmp_path / f"store of {root.name}"
    (root / "deep").rename(store)
    (root / "deep").symlink_to(store)
  (labels / "deep" / "up").symlink_to("..")  # and back
  assert _command(masks, labels, f"--out={out}") == 0
  assert json.loads(out.read_text())["images"] == 3


def test_hidden_copies_are_not_scored(data, masks, tmp_path):
  labels, out = data / "labels" / "val", tmp_path / "scores.json"
  wrong = np.zeros((40, 60), np.uint8)
  for root, name in ((labels, "a-checkpoint"), (masks, "a-checkpoint_mask")):
    _save(root / ".ipynb_checkpoints" / f"{name}.png", wrong)
    _save(root / "__MACOSX" / f"{name}.png", wrong)
  assert _command(masks, labels, f"--out={out}") == 0
  assert json.loads(out.read_text())["miou"] == 1


def test_widths_are_sorted_and_measured_once(data, masks, tmp_path):
  labels, out = data / "labels" / "val", tmp_path / "scores.json"
  assert _command(masks, labels, "--trimap=5,1,5", f"--out={out}") == 0
  assert list(json.loads(out.read_text())["trimap"]) == ["1", "5"]


def test_without_flags_only_the_confusion_matrix_is_scored(
  data, masks, tmp_path
):
  out = tmp_path / "scores.json"
  assert _command(masks, data / "labels" / "val", f"--out={out}") == 0
  fields = json.loads(out.read_text()).keys()
  assert not fields & {"trimap", "boundary_f", "boundary_iou", "objects"}


def _lose_prediction(masks, labels):
  (masks / "deep" / "b_mask.png").unlink()


def _lose_label(masks, labels):
  (labels / "a.png").unlink()


def _shrink(masks, labels):
  path = masks / "a_mask.png"
  _save(path, _read(path)[:-1])


def _gray_palette(masks, labels):
  path = masks / "a_mask.png"
  _save(path, (_read(path) * 38).astype(np.uint8))


def _colors(masks, labels):
  _save(masks / "a_mask.png", np.full((40, 60, 3), (200, 10, 10), np.uint8))


def _unknown_label(masks, labels):
  _save(labels / "a.png", np.full((40, 60), 9, np.uint8))


def _twice(masks, labels):
  _save(masks / "a.png", np.zeros((40, 60), np.uint8))


def _all_void(masks, labels):
  for path in labels.rglob("*.png"):
    _save(path, np.full_like(_read(path), 255))


def _cut_off(masks, labels):
  path = masks / "a_mask.png"
  path.write_bytes(path.read_bytes()[:50])


def _no_classes(masks, labels):
  (labels.parents[1] / "classes.json").unlink()


def _empty(masks, labels):
  for path in masks.rglob("*.png"):
    path.unlink()


@pytest.mark.parametrize(
  "spoil, words",
  [
    (_lose_prediction, ("1 without a prediction in", "deep/b.png")),
    (_lose_label, ("1 without a label in", "a_mask.png")),
    (_shrink, ("a_mask.png is 39x60", "a.png is 40x60")),
    (_gray_palette, ("a_mask.png has values 38, 76", "0 to 2", "palette")),
    (_colors, ("a_mask.png has 3 channels", "(200, 10, 10)")),
    (_unknown_label, ("a.png has values 9 (100.0% of its pixels)",)),
    (_twice, ("a.png and", "a_mask.png are both predictions of 'a'")),
    (_all_void, ("every label is the ignore label",)),
    (_cut_off, ("a_mask.png is not a readable mask",)),
    (_no_classes, ("no classes.json in", "--dataset=voc2012")),
    (_empty, ("holds no *.png",)),
  ],
)
def test_masks_that_cannot_be_scored_end_with_one_message(
  spoil, words, data, masks, capsys
):
  labels = data / "labels" / "val"
  spoil(masks, labels)
  assert _command(masks, labels) == 2
  error = capsys.readouterr().err
  assert error.startswith("deeplax: ") and error.count("\n") == 1
  for word in words:
    assert word in error


@pytest.mark.parametrize(
  "flags, words",
  [
    (("--list=none.txt",), "no file --list=none.txt"),
    (("--classes=none.json",), "no none.json"),
    (("--dataset=voc",), "invalid choice: 'voc'"),
    (("--trimap=0,2",), "must be positive numbers"),
    (("--dataset=voc2012", "--classes=a"), "not allowed with"),
  ],
)
def test_wrong_flags_end_with_2(flags, words, data, masks, capsys):
  assert _command(masks, data / "labels" / "val", *flags) == 2
  assert words in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--list", "--classes", ""])
def test_a_name_longer_than_any_file_s_is_one_line(flag, data, masks, capsys):
  labels, name = data / "labels" / "val", "n" * 300
  arguments = [masks, labels, f"{flag}={name}"] if flag else [name, labels]
  assert _command(*arguments) == 2
  error = capsys.readouterr().err
  assert name in error and error.count("\n") == 1


def test_what_is_wrong_where_the_truth_is_void_does_not_matter(data, masks):
  labels = data / "labels" / "val"
  truth = _read(labels / "a.png")
  _save(masks / "a_mask.png", np.where(truth == 255, 255, truth))
  assert _command(masks, labels) == 0


def test_a_list_scores_only_its_names(data, masks, tmp_path):
  names, out = tmp_path / "val.txt", tmp_path / "scores.json"
  names.write_text("a\n")
  (masks / "deep" / "b_mask.png").unlink()
  labels = data / "labels" / "val"
  assert _command(masks, labels, f"--list={names}", f"--out={out}") == 0
  assert json.loads(out.read_text())["images"] == 1


def test_a_list_of_missing_names_is_refused(data, masks, tmp_path, capsys):
  names = tmp_path / "val.txt"
  names.write_text("a\nz\n")
  assert _command(masks, data / "labels" / "val", f"--list={names}") == 2
  assert "is called 'z' (1 of 2 names)" in capsys.readouterr().err


@pytest.fixture
def named(tmp_path):
  """Folders `masks`, all wrong but that of im.1, and `labels`; a command."""
  (tmp_path / "classes.json").write_text('{"names": ["a", "b"]}')
  for name in ("im", "im.1", "im 2", "sub/im", "\u00e9", "im.png"):
    truth = np.array([[0, 1, 1]], np.uint8)
    _save(tmp_path / "labels" / f"{name}.png", truth)
    predicted = truth if name == "im.1" else 1 - truth
    _save(tmp_path / "masks" / f"{name}_mask.png", predicted)

  def run(text):
    listed = tmp_path / "list.txt"
    data = text if isinstance(text, bytes) else text.encode()
    listed.write_bytes(data)
    out = tmp_path / "scores.json"
    out.unlink(missing_ok=True)
    status = _command(
      *(tmp_path / "masks", tmp_path / "labels", f"--list={listed}"),
      *(f"--classes={tmp_path / 'classes.json'}", f"--out={out}"),
    )
    if status:
      return status
    scores = json.loads(out.read_text())
    return scores["images"], scores["pixel_accuracy"]

  return run


@pytest.mark.parametrize(
  ("text", "images", "accuracy"),
  [
    ("im.1\n", 1, 1.0),  # not im
    ("im 2\n", 1, 0.0),  # not im
    ("sub/im\nim.1", 2, 0.5),
    ("im.1.png\n", 1, 1.0),
    ("im.png\nim\n", 2, 0.0),  # a name, though it looks like the other's file
    ("sub/im.png\n", 1, 0.0),
    ("im.1  \r\n\r\n\tim\r\n", 2, 0.5),
    (codecs.BOM_UTF8 + b"im.1\n", 1, 1.0),
    ("e\u0301\n", 1, 0.0),
  ],
)
def test_a_line_of_a_list_is_one_whole_name(named, text, images, accuracy):
  assert named(text) == (images, accuracy)


@pytest.mark.parametrize(
  ("text", "part"),
  [
    ("im\nim.1\nim\n", "list.txt names 'im' more than once"),
    ("im.1\nim.1.png\n", "names 'im.1' more than once, which"),
    ("im 1\nim -1\n", "is called 'im 1' (2 of 2 names)"),
    ("im.2\n", "is called 'im.2' (1 of 1 names)"),
    ("other/im\n", "is called 'other/im'"),
    ("\n\n", "list.txt is empty"),
    ("im\n".encode("utf-16"), "list.txt is not UTF-8 but UTF-16"),
    ("stra\u00dfe\n".encode("cp1252"), "line 1 has the byte 0xdf"),
  ],
)
def test_a_list_that_names_something_else_is_refused(named, text, part, capsys):
  assert named(text) == 2
  error = capsys.readouterr().err
  assert part in error and error.count("\n") == 1


def test_the_name_that_the_message_shows_can_be_scored(named, capsys):
  assert named("nothing\n") == 2
  found = re.search(r"with its sub-folder, as '(.*)'$", capsys.readouterr().err)
  assert found
  assert named(f"{found[1]}\n") == (1, 0.0)


@pytest.mark.parametrize("kind", ["labelIds", "labelTrainIds"])
def test_cityscapes_is_scored_by_its_own_names_and_ids(kind, tmp_path):
  # road, car and void; the files that cityscapesScripts adds are left alone.
  numbers = {"labelIds": (7, 26, 0), "labelTrainIds": (0, 13, 255)}[kind]
  road, car, void = numbers
  truth = np.array([[road, road, car, car, void]], np.uint8)
  city = tmp_path / "gtFine" / "ulm"
  _save(city / f"ulm_000000_000019_gtFine_{kind}.png", truth)
  _save(
    city / "ulm_000000_000019_gtFine_color.png", np.zeros((1, 5, 4), np.uint8)
  )
  _save(
    tmp_path / "masks" / "ulm" / "ulm_000000_000019_leftImg8bit_mask.png",
    np.array([[0, 0, 13, 0, 5]], np.uint8),
  )
  out = tmp_path / "scores.json"
  assert _command(
    *(tmp_path / "masks", tmp_path / "gtFine", "--dataset=cityscapes"),
    f"--out={out}",
  ) == 0  # fmt: skip
  scores = json.loads(out.read_text())
  assert scores["pixel_accuracy"] == 0.75
  assert scores["iou"]["car"] == 0.5 and scores["iou"]["road"] == 2 / 3


def test_real_masks_of_voc_have_a_void_border(tmp_path):
  root = shared.path("data/voc_samples/VOCdevkit/VOC2012/SegmentationClass")
  for name in ("2007_000129", "vainf_1"):
    raw = _read(root / f"{name}.png")
    _save(tmp_path / "labels" / f"{name}.png", raw)
    _save(tmp_path / "masks" / f"{name}_mask.png", np.where(raw == 255, 0, raw))
  out = tmp_path / "scores.json"
  assert _command(
    *(tmp_path / "masks", tmp_path / "labels", "--dataset=voc2012"),
    *(*MEASURES, f"--out={out}"),
  ) == 0  # fmt: skip
  scores = json.loads(out.read_text())
  assert scores["trimap_kind"] == "void"
  assert set(scores["trimap"].values()) == {1.0} and scores["miou"] == 1


def test_real_masks_of_camvid_have_class_boundaries(tmp_path):
  labels = shared.path("data/camvid") / "labels" / "val"
  names = sorted(p.name for p in labels.glob("*.png"))[:3]
  for name in names:
    raw = _read(labels / name)
    moved = np.roll(np.where(raw == 11, 0, raw), 2, axis=1)
    _save(tmp_path / "masks" / name, moved.astype(np.uint8))
  listed = tmp_path / "val.txt"
  listed.write_text("\n".join(n.removesuffix(".png") for n in names))
  out = tmp_path / "scores.json"
  assert _command(
    *(tmp_path / "masks", labels, f"--list={listed}"),
    *(*MEASURES, f"--out={out}"),
  ) == 0  # fmt: skip
  scores = json.loads(out.read_text())
  assert scores["trimap_kind"] == "class"
  # Two pixels beside the truth: wrong at the boundary, and less so further off.
  curve = list(scores["trimap"].values())
  assert curve == sorted(curve) and curve[0] < 0.5 < curve[-1]
