"""The predict command: inputs of every kind, outputs at their own sizes."""

import errno
import io
import json
import re
import types

import ml_collections
import numpy as np
from PIL import Image
import pytest

from deeplax import crf
from deeplax import errors
from deeplax import predict
from deeplax.data import spec as spec_lib
from deeplax.models import build
from deeplax.reports import found_pictures
from deeplax.reports import label_pictures
from deeplax.reports import pictures
from deeplax.settings import defaults
from deeplax.workdir import checkpoint
from deeplax.workdir import sealed
from deeplax.workdir import settings as settings_lib
from tests.data import tiffs
from tests.inference import toy

PALETTE = ((0, 0, 0), (128, 0, 0), (0, 128, 0))


@pytest.fixture
def run(tmp_path, monkeypatch):
  """A function that runs the command on a stand-in for a trained run."""
  workdir = tmp_path / "run"
  workdir.mkdir()
  spec = spec_lib.Spec("toy", ("red", "green", "blue"), PALETTE)
  (workdir / "spec.json").write_text(json.dumps(spec.to_json()))
  config = defaults.base()
  monkeypatch.setattr(settings_lib, "load_config", lambda _: config)
  monkeypatch.setattr(sealed, "wanted_step", lambda _, step: step or 400)
  monkeypatch.setattr(checkpoint, "read", lambda *_: {})
  monkeypatch.setattr(build, "from_config", lambda *_, **__: toy.Brightest())

  def command(*arguments):
    with pytest.raises(SystemExit) as ended:
      predict.main(
        [f"--workdir={workdir}", f"--out={tmp_path / 'out'}", *arguments]
      )
    return ended.value.code

  return types.SimpleNamespace(
    command=command, workdir=workdir, out=tmp_path / "out", config=config
  )


def _photo(path, size=(6, 9), seed=0, **settings):
  path.parent.mkdir(parents=True, exist_ok=True)
  pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
  Image.fromarray(pixels).save(path, **settings)
  return pixels


def _mask(path):
  with Image.open(path) as picture:
    assert picture.mode == "P"
    return np.asarray(picture)


def _overlay_size(path, size):
  """Return whether there is room for a legend below the picture of a size."""
  with Image.open(path) as overlay:
    return overlay.width >= size[1] and overlay.height > size[0] + 10


def test_folders_files_and_globs_keep_sub_folders_and_sizes(
  run, tmp_path, capsys
):
  folder = tmp_path / "photos"
  sizes = {"a": (1, 1), "deep/er/a": (70, 33), "deep/b.c": (5, 90)}
  pixels = {
    stem: _photo(folder / f"{stem}.png", size, seed=i)
    for i, (stem, size) in enumerate(sizes.items())
  }
  (folder / "notes.txt").write_text("no picture")
  pixels["single"] = _photo(tmp_path / "single.PNG", (40, 20))
  pixels["x/1"] = _photo(tmp_path / "more" / "x" / "1.png", (8, 8))
  assert (
    run.command(
      str(folder), str(tmp_path / "single.PNG"), f"{tmp_path}/more/**/*.png"
    )
    == 0
  )
  for stem, image in pixels.items():
    mask = _mask(run.out / f"{stem}_mask.png")
    np.testing.assert_array_equal(mask, image.argmax(-1), err_msg=stem)
    assert _overlay_size(run.out / f"{stem}_overlay.jpg", mask.shape)
  written = [p for p in run.out.rglob("*") if p.is_file()]
  assert len(written) == 4 * len(pixels) + 1
  text = capsys.readouterr().out
  assert "step 400, mIoU not evaluated" in text
  assert "3 classes: red, green, blue" in text
  assert "of at most" in text
  assert "5 of 5 pictures" in text and "images/s" in text
  assert "load" in text and "compute" in text and "save" in text


def test_large_pictures_are_labeled_in_windows(run, tmp_path, capsys):
  names = {"large": (70, 101), "larger": (140, 40), "small": (20, 31)}
  images = {
    name: _photo(tmp_path / "photos" / f"{name}.png", size)
    for name, size in names.items()
  }
  flags = ("--window=65", "--overlap=16", "--sizes=exact")
  assert run.command(*flags, str(tmp_path / "photos")) == 0
  for name, image in images.items():
    mask = _mask(run.out / f"{name}_mask.png")
    np.testing.assert_array_equal(mask, image.argmax(-1), err_msg=name)
  assert capsys.readouterr().out.count("compiled 65x65 for exact sizes") == 1


def test_masks_and_probabilities_are_refined_by_the_dense_crf(run, tmp_path):
  image = _photo(tmp_path / "a.png", (20, 30))
  assert run.command("--crf", "--probs", str(tmp_path / "a.png")) == 0
  logits = image.astype(np.float64)
  shares = np.exp(logits - logits.max(-1, keepdims=True))
  shares = (shares / shares.sum(-1, keepdims=True)).astype(np.float32)
  expected = np.asarray(crf.dense_crf(image, shares))
  with np.load(run.out / "a_probs.npz") as stored:
    found = stored["probabilities"]
  np.testing.assert_allclose(found, expected, atol=2e-3)
  mask = _mask(run.out / "a_mask.png")
  np.testing.assert_array_equal(mask, found.argmax(-1))
  assert (mask != image.argmax(-1)).any()
  # Without --probs the classes are taken from the same marginals.
  assert run.command("--crf", str(tmp_path / "a.png")) == 0
  np.testing.assert_array_equal(_mask(run.out / "a_mask.png"), mask)


def test_a_crf_on_bands_is_refused(run, tmp_path, capsys):
  run.config.data.channels = (2, 1, 0)
  run.config.data.channel_mean = (1.0, 1.0, 1.0)
  run.config.data.channel_std = (1.0, 1.0, 1.0)
  _photo(tmp_path / "a.png")
  text = _refused(run, capsys, "--crf", str(tmp_path / "a.png"))
  assert "--crf compares colors" in text and "(2, 1, 0)" in text


def test_the_workdir_tells_the_miou_of_the_step(run, tmp_path, capsys):
  (run.workdir / "eval").mkdir()
  for name, miou in (
    ("val-00000400-os16-s1.0", 0.715),
    ("val-00000400-os16-s1.0-flip", 0.8),
    ("val-00000300-os16-s1.0", 0.1),
    ("val-00000400-os8-s1.0", 0.2),
  ):
    path = run.workdir / "eval" / f"{name}.json"
    path.write_text(json.dumps({"miou": miou}))
  _photo(tmp_path / "a.png")
  assert run.command(str(tmp_path / "a.png")) == 0
  text = capsys.readouterr().out
  assert "step 400, mIoU 71.5% (val-00000400-os16-s1.0)" in text


def test_a_photo_on_its_side_is_labeled_upright(run, tmp_path):
  exif = Image.Exif()
  exif[274] = 6
  path = tmp_path / "a.jpg"
  _photo(path, (20, 30), exif=exif)
  assert label_pictures.size(path) == (30, 20)
  assert run.command(str(path)) == 0
  assert _mask(run.out / "a_mask.png").shape == (30, 20)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "CMYK", "I;16"])
def test_pictures_of_every_mode_are_labeled(run, tmp_path, mode):
  path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
  if mode == "I;16":
    Image.fromarray(np.full((6, 9), 40000, np.uint16)).save(path)
  else:
    Image.new("RGB", (9, 6), (9, 200, 9)).convert(mode).save(path)
  assert run.command(str(path)) == 0
  assert _mask(run.out / "a_mask.png").shape == (6, 9)


def test_files_of_many_bands_are_labeled_by_the_bands_of_the_run(
  run, tmp_path, capsys
):
  run.config.data.channels = (4, 0, 2)
  run.config.data.channel_mean = (3.0, 3.0, 3.0)
  run.config.data.channel_std = (1.0, 1.0, 1.0)
  folder = tmp_path / "images"
  folder.mkdir()
  rng = np.random.default_rng(0)
  image = rng.integers(0, 60_000, (6, 9, 5)).astype(np.uint16)
  np.save(folder / "a.npy", image)
  np.savez(folder / "b.npz", image)
  (folder / "c.tif").write_bytes(tiffs.encoded(image, photometric=1))
  np.save(folder / "d.npy", image[..., :4])
  assert run.command(str(folder)) == 1
  for name in "abc":
    mask = _mask(run.out / f"{name}_mask.png")
    np.testing.assert_array_equal(mask, image[..., (4, 0, 2)].argmax(-1))
    assert _overlay_size(run.out / f"{name}_overlay.jpg", (6, 9))
  captured = capsys.readouterr()
  assert "d.npy has 4 bands of uint16, so there is no band 4" in captured.err
  assert "3 of 4 pictures" in captured.out
  assert "1 of at most 1" in captured.out  # the size was read beforehand


def test_a_run_whose_bands_have_no_statistics_is_refused(run, tmp_path, capsys):
  run.config.data.channels = (0, 1, 2)
  _photo(tmp_path / "a.png")
  assert "channel_mean" in _refused(run, capsys, str(tmp_path / "a.png"))


def test_an_unreadable_file_is_named_and_the_others_go_on(
  run, tmp_path, capsys
):
  folder = tmp_path / "photos"
  _photo(folder / "a.png")
  (folder / "b.png").write_bytes(b"no picture")
  (folder / "c.jpg").write_bytes(b"")
  _photo(folder / "d.png")
  assert run.command(str(folder)) == 1
  captured = capsys.readouterr()
  assert "b.png" in captured.err and "c.jpg" in captured.err
  assert "2 of 4 pictures" in captured.out
  assert (run.out / "a_mask.png").exists() and (run.out / "d_mask.png").exists()
  assert not list(run.out.glob("b*"))
  page = (run.out / "index.html").read_text()
  assert "4 pictures, 2 of which could not be labeled" in page
  assert f"<td>{folder}/c.jpg is not a whole picture (0 bytes" in page


def test_a_run_that_is_stopped_leaves_a_page_of_what_was_done(
  run, tmp_path, capsys, monkeypatch
):
  run.config.data.threads = 1
  for name in "abc":
    _photo(tmp_path / "photos" / f"{name}.png")
  save = label_pictures.save

  def stopped(picture, *arguments, **keywords):
    if picture.name == "b.png":
      raise KeyboardInterrupt
    return save(picture, *arguments, **keywords)

  monkeypatch.setattr(label_pictures, "save", stopped)
  assert run.command(str(tmp_path / "photos")) == 130
  page = (run.out / "index.html").read_text()
  assert "<b>a.png</b>" in page and "<b>b.png</b>" not in page
  assert "The command was stopped: 2 are missing" in page


def test_a_page_of_another_program_is_not_replaced(run, tmp_path, capsys):
  _photo(tmp_path / "a.png")
  run.out.mkdir()
  page = run.out / "index.html"
  page.write_text("<h1>home</h1>")
  text = _refused(run, capsys, str(tmp_path / "a.png"))
  assert f"{page} is no page of predictions" in text
  page.unlink()
  for _ in range(2):
    assert run.command(str(tmp_path / "a.png")) == 0
  assert f"all on one page: {page}" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["m" * 247, "m" * 244, "\u6f22" * 82])
def test_a_name_too_long_for_an_output_is_skipped(run, tmp_path, capsys, name):
  folder = tmp_path / "photos"
  for stem in ("a", name, "z"):
    _photo(folder / f"{stem}.png")
  assert run.command(str(folder)) == 1
  captured = capsys.readouterr()
  assert captured.err.count("\n") == 1
  assert f"cannot write {run.out / name}" in captured.err
  assert "File name too long" in captured.err
  assert "2 of 3 pictures" in captured.out
  for stem in "az":
    assert (run.out / f"{stem}_overlay.jpg").exists()


def test_a_name_that_only_just_fits_is_written(run, tmp_path):
  stem = "m" * (255 - len("_overlay.jpg"))
  _photo(tmp_path / "photos" / f"{stem}.png")
  assert run.command(str(tmp_path / "photos")) == 0
  assert sorted(p.name for p in run.out.iterdir()) == [
    *("index.html", "index_files"),
    f"{stem}_mask.png",
    f"{stem}_overlay.jpg",
  ]


@pytest.mark.parametrize("size", [(2, 65_501), (65_501, 2)])
def test_a_side_too_long_for_jpeg_gets_a_png_overlay(
  run, tmp_path, capsys, size
):
  config = run.config
  config.eval.sizes = "exact"
  folder = tmp_path / "photos"
  _photo(folder / "a.png")
  pixels = _photo(folder / "m.png", size)
  _photo(folder / "z.png")
  window = ("--window=65", "--overlap=16", "--sizes=exact")
  assert run.command(*window, str(folder)) == 0
  assert "3 of 3 pictures" in capsys.readouterr().out
  np.testing.assert_array_equal(
    _mask(run.out / "m_mask.png"), pixels.argmax(-1)
  )
  assert _overlay_size(run.out / "m_overlay.png", size)
  assert not (run.out / "m_overlay.jpg").exists()


def test_an_output_whose_place_is_taken_is_skipped(run, tmp_path, capsys):
  for name in ("a", "deep/b", "z"):
    _photo(tmp_path / "photos" / f"{name}.png")
  (run.out / "a_mask.png").mkdir(parents=True)
  (run.out / "deep").write_text("a file where a folder must be")
  assert run.command(str(tmp_path / "photos")) == 1
  captured = capsys.readouterr()
  assert captured.err.count("skipped: cannot write") == 2
  assert "1 of 3 pictures" in captured.out


@pytest.mark.parametrize("out", ["file/out", "/proc/out", "n" * 300])
def test_an_out_that_cannot_be_written_is_told_before_the_work(
  run, tmp_path, capsys, monkeypatch, out
):
  _photo(tmp_path / "a.png")
  (tmp_path / "file").write_text("")
  monkeypatch.chdir(tmp_path)
  assert run.command(f"--out={out}", str(tmp_path / "a.png")) == 2
  captured = capsys.readouterr()
  assert f"--out={out} cannot be written" in captured.err
  assert "classes" not in captured.out
  assert run.command("--out=another", str(tmp_path / "a.png")) == 0


def test_a_full_disk_ends_the_run(run, tmp_path, capsys, monkeypatch):
  for name in ("a", "b"):
    _photo(tmp_path / "photos" / f"{name}.png")

  def full(*arguments):
    raise OSError(errno.ENOSPC, "No space left on device")

  monkeypatch.setattr(pictures, "index_png", full)
  assert run.command(str(tmp_path / "photos")) == 2
  captured = capsys.readouterr()
  assert "a_mask.png: No space left" in captured.err
  assert captured.err.count("\n") == 1


def test_probabilities_are_written_on_request(run, tmp_path):
  pixels = _photo(tmp_path / "a.png", (7, 8))
  assert run.command("--probs", str(tmp_path / "a.png")) == 0
  with np.load(run.out / "a_probs.npz") as arrays:
    probabilities = arrays["probabilities"]
  assert probabilities.shape == (7, 8, 3)
  np.testing.assert_allclose(probabilities.sum(-1), 1.0, atol=2e-3)
  mask = _mask(run.out / "a_mask.png")
  np.testing.assert_array_equal(mask, pixels.argmax(-1))


def test_each_picture_has_a_line_and_a_legend_of_its_classes(
  run, tmp_path, capsys
):
  for name, rows in (("a", 4), ("deep/b", 10)):
    pixels = np.zeros((10, 300, 3), np.uint8)
    pixels[:rows, :, 1], pixels[rows:, :, 2] = 255, 255
    path = tmp_path / "photos" / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
  assert run.command(str(tmp_path / "photos")) == 0
  text = capsys.readouterr().out
  assert "\na.png: blue 60.0%, green 40.0%\ndeep/b.png: green 100.0%\n" in text
  assert "\non average: green 70.0%, blue 30.0%\n" in text
  with Image.open(run.out / "deep/b_overlay.jpg") as overlay:
    found = np.asarray(overlay.convert("RGB")).astype(int)
  # The color of the class over the picture's, and its patch below.
  assert np.abs(found[:8] - (77, 102, 0)).max() < 12
  close = np.abs(found[10:] - PALETTE[1]).max(-1) < 30
  assert close.sum() > 80


def test_many_pictures_get_a_summary_alone(run, tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(label_pictures, "LINES", 2)
  for name in "abc":
    _photo(tmp_path / "photos" / f"{name}.png")
  assert run.command(str(tmp_path / "photos")) == 0
  text = capsys.readouterr().out
  assert "a.png:" not in text and "\non average: " in text


def test_classes_keeps_some_and_leaves_the_rest_untinted(run, tmp_path, capsys):
  pixels = _photo(tmp_path / "a.png", (40, 60))
  assert run.command("--classes=Blue,red", str(tmp_path / "a.png")) == 0
  best = pixels.argmax(-1)
  expected = np.where(best == 1, 255, best)
  np.testing.assert_array_equal(_mask(run.out / "a_mask.png"), expected)
  (line,) = re.findall("a.png: .*", capsys.readouterr().out)
  assert "blue" in line and "red" in line and "green" not in line


def test_a_class_that_the_run_has_not_is_told_before_the_work(
  run, tmp_path, capsys
):
  _photo(tmp_path / "a.png")
  text = _refused(run, capsys, "--classes=blu", str(tmp_path / "a.png"))
  assert "no class 'blu' (did you mean 'blue'?)" in text


def _refused(run, capsys, *arguments):
  assert run.command(*arguments) == 2
  assert not run.out.exists() or not list(run.out.rglob("*_mask.png"))
  return capsys.readouterr().err


def test_two_inputs_with_one_output_are_refused_before_anything_runs(
  run, tmp_path, capsys
):
  _photo(tmp_path / "x" / "a.png")
  _photo(tmp_path / "y" / "a.png")
  text = _refused(run, capsys, str(tmp_path / "x"), str(tmp_path / "y"))
  assert "x/a.png" in text and "y/a.png" in text and "a_mask.png" in text


def test_pictures_that_differ_in_their_suffix_only_are_both_labeled(
  run, tmp_path, capsys
):
  pixels = {
    name: _photo(tmp_path / "x" / name, seed=i)
    for i, name in enumerate(("a.bmp", "a.png"))
  }
  assert run.command(str(tmp_path / "x")) == 0
  for name, image in pixels.items():
    mask = _mask(run.out / f"{name}_mask.png")
    np.testing.assert_array_equal(mask, image.argmax(-1))
  assert "a.bmp and a.png differ in their suffix only" in (
    capsys.readouterr().out
  )


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".jp2", ".avif", ".ppm"])
def test_pictures_of_every_kind_that_is_read_are_labeled(
  run, tmp_path, capsys, suffix
):
  _photo(tmp_path / "x" / f"a{suffix}", (12, 18))
  (tmp_path / "x" / "b.heic").write_bytes(b"")
  assert run.command(str(tmp_path / "x")) == 0
  assert _mask(run.out / "a_mask.png").shape == (12, 18)
  assert f"left out of {tmp_path}/x: 1 .heic" in capsys.readouterr().out


def test_a_file_named_twice_is_one_input(run, tmp_path, capsys):
  _photo(tmp_path / "a.png")
  assert run.command(str(tmp_path / "a.png"), f"{tmp_path}/*.png") == 0
  assert "1 of 1 pictures" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["nothing.png", "*.png", "empty"])
def test_inputs_that_match_nothing_are_refused(run, tmp_path, capsys, name):
  (tmp_path / "empty").mkdir()
  assert name in _refused(run, capsys, str(tmp_path / name))


def test_outputs_never_replace_or_become_inputs(run, tmp_path, capsys):
  _photo(run.out / "a.png")
  text = _refused(run, capsys, str(run.out))
  assert "predictions" in text
  _photo(tmp_path / "a.png")
  before = _photo(run.out / "a_mask.png")
  with pytest.raises(errors.InputError, match="is an input"):
    found_pictures.find(
      [str(tmp_path / "a.png"), str(run.out / "a_mask.png")], run.out
    )
  with Image.open(run.out / "a_mask.png") as picture:
    np.testing.assert_array_equal(np.asarray(picture), before)


def test_an_out_folder_inside_the_inputs_is_left_out(tmp_path):
  _photo(tmp_path / "a.png")
  _photo(tmp_path / "out" / "a_mask.png")
  found = found_pictures.find([str(tmp_path)], tmp_path / "out")
  assert [p.path.name for p in found] == ["a.png"]


def test_out_must_not_be_a_file(run, tmp_path, capsys):
  _photo(tmp_path / "a.png")
  run.out.write_text("")
  assert run.command(str(tmp_path / "a.png")) == 2
  assert "is a file" in capsys.readouterr().err


def test_a_run_without_its_spec_is_refused(run, tmp_path, capsys):
  _photo(tmp_path / "a.png")
  (run.workdir / "spec.json").unlink()
  assert "spec.json" in _refused(run, capsys, str(tmp_path / "a.png"))


@pytest.mark.parametrize(
  "flag", ["--scales=0", "--scales=1,x", "--step=-1", "--flop", "--scale=1"]
)
def test_misread_flags_end_with_2(run, tmp_path, capsys, flag):
  _photo(tmp_path / "a.png")
  assert flag.partition("=")[0] in _refused(
    run, capsys, flag, str(tmp_path / "a.png")
  )


def test_a_wrong_output_stride_is_told(run, tmp_path, capsys, monkeypatch):
  def refuse(config: ml_collections.ConfigDict, **settings):
    raise ValueError(f"output_stride {settings['output_stride']} not in (8,)")

  monkeypatch.setattr(build, "from_config", refuse)
  _photo(tmp_path / "a.png")
  text = _refused(run, capsys, "--output_stride=5", str(tmp_path / "a.png"))
  assert "output_stride 5 not in" in text


def test_a_failed_write_leaves_nothing_half_done(tmp_path):
  (tmp_path / "a.png").write_bytes(b"before")
  with pytest.raises(errors.InputError, match="disk full"):
    with label_pictures._writing(tmp_path / "a.png") as file:
      file.write(b"half")
      raise OSError("disk full")
  assert (tmp_path / "a.png").read_bytes() == b"before"
  assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_lists_and_standard_input_name_files(
  run, tmp_path, capsys, monkeypatch
):
  names = ("x/a.png", "x/deep/a.png", "y/b c.png")
  for i, name in enumerate(names):
    _photo(tmp_path / name, seed=i)
  monkeypatch.chdir(tmp_path)
  (tmp_path / "list.txt").write_text("x/a.png\r\n\nx/deep/a.png\n")
  names_of_b = b"y/b c.png\ny/b c.png\nout/y/b c_overlay.jpg\n"
  for _ in range(2):  # the second time, it has found an output
    (run.out / "y").mkdir(parents=True, exist_ok=True)
    (run.out / "y" / "b c_overlay.jpg").touch()
    stdin = io.TextIOWrapper(io.BytesIO(names_of_b))
    monkeypatch.setattr("sys.stdin", stdin)
    assert run.command("--list=list.txt", "-") == 0
  text = capsys.readouterr().out
  assert (
    text.count(f"left out of the list, since they lie in {run.out}: 1\n") == 2
  )
  assert text.count("3 of 3 pictures") == 2
  masks = {p.relative_to(run.out).as_posix() for p in run.out.rglob("*.png")}
  assert masks == {"a_mask.png", "deep/a_mask.png", "b c_mask.png"}


def test_nothing_to_label_is_told(run, capsys):
  assert "nothing to label" in _refused(run, capsys)
