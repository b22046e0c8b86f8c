"""Archives for test servers: what is in them, and what is refused."""

import io
import json
import tarfile
import zipfile

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest

from deeplax import errors
from deeplax import submit
from deeplax.data import archives
from deeplax.data import evaluation_servers
from deeplax.data import spec as spec_lib
from deeplax.models import build as model_build
from deeplax.reports import pictures
from deeplax.reports import submission
from deeplax.settings import defaults
from deeplax.workdir import checkpoint
from deeplax.workdir import sealed
from deeplax.workdir import settings

# cityscapesScripts, helpers/labels.py: the id of each trainId.
LABEL_IDS = (
  *(7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28),
  *(31, 32, 33),
)
VOC_IDS = ("2008_000006", "2008_000011")
CITY_IDS = ("berlin_000000_000019", "bonn_000001_000019")
OUT = {"voc": "results.tar.gz", "cityscapes": "results.zip"}
each_server = pytest.mark.parametrize("server", OUT)


def _command(*arguments):
  with pytest.raises(SystemExit) as ended:
    submit.main([str(a) for a in arguments])
  return ended.value.code


def _image(path, size, seed):
  path.parent.mkdir(parents=True, exist_ok=True)
  rng = np.random.default_rng(seed)
  Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(path)


@pytest.fixture
def tree(tmp_path):
  """Both servers' published trees, of two small test images each."""
  voc = tmp_path / "tree" / "VOCdevkit" / "VOC2012"
  lists = voc / "ImageSets" / "Segmentation"
  lists.mkdir(parents=True)
  (lists / "test.txt").write_text("\n".join(VOC_IDS) + "\n")
  for seed, name in enumerate(VOC_IDS):
    _image(voc / "JPEGImages" / f"{name}.jpg", (20 + seed, 30), seed)
  for seed, name in enumerate(CITY_IDS):
    folder = tmp_path / "tree" / "leftImg8bit" / "test" / name.split("_")[0]
    _image(folder / f"{name}_leftImg8bit.png", (16, 32 + seed), seed)
  return tmp_path / "tree"


@pytest.fixture
def masks(tree, tmp_path):
  """Predictions as deeplax.predict names them, and as arrays by name."""
  arrays = {}
  for path in sorted(tree.rglob("*.*g")):
    name = path.stem.removesuffix("_leftImg8bit")
    k = 21 if name in VOC_IDS else 19
    size = _read(path)[1].shape[:2]
    # Every class occurs.
    arrays[name] = (np.arange(size[0] * size[1]).reshape(size) % k).astype(
      np.uint8
    )
    kind = "voc" if name in VOC_IDS else "cityscapes"
    folder = tmp_path / "masks" / kind / name[:4]
    folder.mkdir(parents=True, exist_ok=True)
    palette = spec_lib.color_map(k)
    pictures.index_png(folder / f"{path.stem}_mask.png", arrays[name], palette)
  return tmp_path / "masks", arrays


def _read(file):
  """Return the mode, the numbers and the colors of a PNG, or its bytes."""
  file = io.BytesIO(file) if isinstance(file, bytes) else file
  with Image.open(file) as picture:
    colors = np.array(picture.getpalette() or []).reshape(-1, 3)
    return picture.mode, np.asarray(picture), colors.tolist()


def _flags(server, tree, masks, out):
  return (
    f"--server={server}",
    f"--predictions={masks[0] / server}",
    f"--images={tree}",
    f"--out={out}",
  )


def test_voc_gets_indices_with_its_colors_under_its_names(
  tree, masks, tmp_path
):
  out = tmp_path / "new" / "results.tar.gz"
  assert _command(*_flags("voc", tree, masks, out)) == 0
  with tarfile.open(out) as tar:
    files = {m.name: tar.extractfile(m) for m in tar}
    data = {name: file.read() for name, file in files.items() if file}
  folder = "results/VOC2012/Segmentation/comp6_test_cls"
  assert list(data) == [f"{folder}/{name}.png" for name in VOC_IDS]
  for name in VOC_IDS:
    mode, numbers, colors = _read(data[f"{folder}/{name}.png"])
    assert mode == "P"
    np.testing.assert_array_equal(numbers, masks[1][name])
    assert colors[1] == [128, 0, 0] and colors[20] == [0, 64, 128]
  assert [p.name for p in out.parent.iterdir()] == [out.name]


def test_voc_has_two_competitions(tree, masks, tmp_path):
  out = tmp_path / "results.tgz"
  assert _command(*_flags("voc", tree, masks, out), "--comp=5") == 0
  with tarfile.open(out) as tar:
    assert all("/comp5_test_cls/" in name for name in tar.getnames())


def test_cityscapes_gets_label_ids_as_gray(tree, masks, tmp_path, capsys):
  out = tmp_path / "results.zip"
  assert _command(*_flags("cityscapes", tree, masks, out)) == 0
  with zipfile.ZipFile(out) as zipped:
    assert zipped.namelist() == [f"{name}.png" for name in CITY_IDS]
    for name in CITY_IDS:
      mode, numbers, _ = _read(zipped.read(f"{name}.png"))
      assert mode == "L"
      expected = np.array(LABEL_IDS)[masks[1][name]]
      np.testing.assert_array_equal(numbers, expected)
  said = capsys.readouterr().out
  assert "2 images of test" in said and "has 1525 test images" in said


class Brightest(nn.Module):
  """The class is the strongest color channel."""

  def coarse(self, images, *, train: bool):
    images = images.astype(jnp.float32)
    rest = jnp.zeros((*images.shape[:-1], 18), jnp.float32)
    return jnp.concatenate([images, rest], axis=-1)


@pytest.fixture
def workdir(tree, tmp_path, monkeypatch):
  config = defaults.base()
  config.data.name = "voc2012"
  config.data.root = str(tree)
  monkeypatch.setattr(settings, "load_config", lambda _: config)
  monkeypatch.setattr(sealed, "wanted_step", lambda _, step: 400)
  monkeypatch.setattr(checkpoint, "read", lambda *_: {})
  monkeypatch.setattr(model_build, "from_config", lambda *_, **__: Brightest())
  path = tmp_path / "run"
  path.mkdir()
  (path / "spec.json").write_text(json.dumps(spec_lib.VOC2012.to_json()))
  return path


def test_a_run_labels_the_test_images_of_its_data(workdir, tree, tmp_path):
  out = tmp_path / "results" / "voc.tar.gz"
  arguments = (f"--workdir={workdir}", f"--out={out}", "--flip")
  assert _command("--server=voc", *arguments) == 0
  with tarfile.open(out) as tar:
    for name, member in zip(VOC_IDS, tar, strict=True):
      file = tar.extractfile(member)
      assert file
      path = tree / "VOCdevkit" / "VOC2012" / "JPEGImages" / f"{name}.jpg"
      same = (_read(file)[1] == _read(path)[1].argmax(-1)).mean()
      assert same > 0.95  # decoders differ by a gray level here and there
  # What was predicted on the way is gone.
  assert [p.name for p in out.parent.iterdir()] == [out.name]


def test_a_run_whose_data_has_moved_is_told_where_it_is(
  workdir, tree, tmp_path, capsys
):
  now = tree.rename(tmp_path / "now")
  flags = ("--server=voc", f"--workdir={workdir}")
  assert _command(*flags, f"--out={tmp_path / 'a.tar.gz'}") == 2
  assert "--images=DIR, that holds a VOCdevkit" in capsys.readouterr().err
  for flag in ("--images", "--data_root"):
    out = tmp_path / f"{flag}.tar.gz"
    assert _command(*flags, f"{flag}={now}", f"--out={out}") == 0
    assert out.exists()


def test_a_run_on_other_classes_is_refused(workdir, tmp_path, capsys):
  (workdir / "spec.json").write_text(json.dumps(spec_lib.CAMVID.to_json()))
  out = f"--out={tmp_path / 'voc.tar.gz'}"
  assert _command("--server=voc", f"--workdir={workdir}", out) == 2
  assert "11 classes (Sky, ...), not on the 21" in capsys.readouterr().err


@pytest.mark.parametrize("extra", ["--fliip", "photo.jpg"])
def test_flags_that_predict_does_not_know_are_refused(
  extra, workdir, tmp_path, capsys
):
  out = f"--out={tmp_path / 'voc.tar.gz'}"
  assert _command("--server=voc", f"--workdir={workdir}", out, extra) == 2
  assert extra in capsys.readouterr().err
  assert not (tmp_path / "voc.tar.gz").exists()


def test_a_run_on_other_data_must_be_told_the_images(workdir, tmp_path, capsys):
  out = f"--out={tmp_path / 'city.zip'}"
  assert _command("--server=cityscapes", f"--workdir={workdir}", out) == 2
  assert "--images=DIR, that holds leftImg8bit/" in capsys.readouterr().err


def _save(path, array):
  Image.fromarray(array).save(path)


def _lose(folder, tree):
  (folder / "2008" / "2008_000011_mask.png").unlink()


def _twice(folder, tree):
  _save(folder / "2008_000011.png", np.zeros((21, 30), np.uint8))


def _resize(folder, tree):
  _save(folder / "2008" / "2008_000011_mask.png", np.zeros((9, 9), np.uint8))


def _void(folder, tree):
  path = folder / "2008" / "2008_000011_mask.png"
  _save(path, np.full((21, 30), 255, np.uint8))


def _colors(folder, tree):
  path = folder / "2008" / "2008_000011_mask.png"
  _save(path, np.full((21, 30, 3), (9, 8, 7), np.uint8))


def _lose_image(folder, tree):
  (tree / "VOCdevkit/VOC2012/JPEGImages/2008_000011.jpg").unlink()


def _lose_list(folder, tree):
  (tree / "VOCdevkit/VOC2012/ImageSets/Segmentation/test.txt").unlink()


@pytest.mark.parametrize(
  "spoil, words",
  [
    (_lose, "has no mask of 1 of 2 images, of 2008_000011"),
    (_twice, "are both predictions of 2008_000011"),
    (_resize, "_mask.png is 9x9 (height x width)"),
    (_void, "has values [255]; the classes of voc2012 are 0 to 20"),
    (_colors, "has 3 channels (mode RGB) and holds colors"),
    (_lose_image, "2008_000011.jpg is missing"),
    (_lose_list, "no split 'test'"),
  ],
)
def test_predictions_that_cannot_be_sent_end_with_one_message(
  spoil, words, tree, masks, tmp_path, capsys
):
  out = tmp_path / "out" / "results.tar.gz"
  spoil(masks[0] / "voc", tree)
  assert _command(*_flags("voc", tree, masks, out)) == 2
  error = capsys.readouterr().err
  assert error.startswith("deeplax: ") and error.count("\n") == 1
  assert words in error
  # Neither an archive nor half of one.
  assert not out.parent.exists() or not list(out.parent.iterdir())


@pytest.mark.parametrize(
  "server, flags, words",
  [
    ("voc", ("--out=a.zip",), "--out=a.zip must end in .tar.gz or .tgz"),
    ("cityscapes", ("--out=a.tgz",), "must end in .zip"),
    ("voc", ("--flip",), "--flip: no flag of deeplax.submit"),
    ("voc", ("--images=.",), "--images=. is not a VOCdevkit"),
    ("cityscapes", ("--images=.",), "is not leftImg8bit/ and gtFine/"),
    ("cityscapes", ("--split=val",), "leftImg8bit.png: unpack"),
    ("ade20k", (), "invalid choice: 'ade20k'"),
    ("voc", ("--workdir=run",), "not allowed with"),
  ],
)
def test_wrong_flags_end_with_2(
  server, flags, words, tree, masks, tmp_path, capsys, monkeypatch
):
  (tmp_path / "empty").mkdir()
  monkeypatch.chdir(tmp_path / "empty")
  out = tmp_path / OUT.get(server, "a.zip")
  assert _command(*_flags(server, tree, masks, out), *flags) == 2
  assert words in capsys.readouterr().err


def test_without_images_predictions_are_refused(masks, tmp_path, capsys):
  arguments = (f"--predictions={masks[0]}", f"--out={tmp_path / 'a.tgz'}")
  assert _command("--server=voc", *arguments) == 2
  assert "--images=DIR, that holds a VOCdevkit" in capsys.readouterr().err


@pytest.fixture
def packed(request, tree, masks, tmp_path):
  """A server, what is to be packed for it, and the archive's path."""
  name = request.param
  server = evaluation_servers.SERVERS[name]
  wanted = submission.images(server, tree, "test")
  found = {
    evaluation_servers.member(server, n, "test", 6): (mask, wanted[n])
    for n, mask in submission.masks(masks[0] / name, wanted).items()
  }
  return server, found, tmp_path / OUT[name]


packed_each = pytest.mark.parametrize("packed", OUT, indirect=True)


@packed_each
def test_the_check_accepts_what_was_written(packed):
  server, found, path = packed
  archives.write(server, path, found)
  archives.check(server, path, found)


@packed_each
def test_the_check_finds_a_file_that_is_missing(packed):
  server, found, path = packed
  archives.write(server, path, dict(list(found.items())[:1]))
  with pytest.raises(errors.InputError, match=r"is missing \(1 of 2\)"):
    archives.check(server, path, found)


@packed_each
def test_the_check_finds_a_file_too_many(packed):
  server, found, path = packed
  archives.write(server, path, found)
  with pytest.raises(errors.InputError, match="or is no test image"):
    archives.check(server, path, dict(list(found.items())[:1]))


@packed_each
def test_the_check_finds_exchanged_files(packed):
  server, found, path = packed
  archives.write(server, path, found)
  names, files = list(found), list(found.values())
  exchanged = dict(zip(names, files[::-1], strict=True))
  with pytest.raises(errors.InputError, match="numbers or another size"):
    archives.check(server, path, exchanged)


@packed_each
def test_the_check_finds_a_cut_archive(packed):
  server, found, path = packed
  archives.write(server, path, found)
  path.write_bytes(path.read_bytes()[:-60])
  with pytest.raises(errors.InputError, match="Write it again"):
    archives.check(server, path, found)


def _without_palette(server, classes):
  buffer = io.BytesIO()
  Image.fromarray(classes).save(buffer, format="PNG")
  return buffer.getvalue()


def _other_palette(server, classes):
  buffer = io.BytesIO()
  picture = Image.fromarray(classes)
  picture.putpalette([v for c in spec_lib.color_map(256)[::-1] for v in c])
  picture.save(buffer, format="PNG")
  return buffer.getvalue()


@pytest.mark.parametrize(
  "packed, encode, words",
  [
    ("voc", _without_palette, "is PNG of mode L, not PNG of P"),
    ("voc", _other_palette, "has not the colors of voc2012"),
    ("cityscapes", _without_palette, "has other numbers"),  # trainIds
    ("cityscapes", _other_palette, "is PNG of mode P, not PNG of L"),
  ],
  indirect=["packed"],
)
def test_the_check_finds_what_a_server_would_misread(
  packed, encode, words, monkeypatch
):
  server, found, path = packed
  with monkeypatch.context() as patch:
    patch.setattr(archives, "encode", encode)
    archives.write(server, path, found)
  with pytest.raises(errors.InputError, match=words):
    archives.check(server, path, found)


@each_server
def test_a_full_disk_leaves_no_archive(
  server, tree, masks, tmp_path, monkeypatch, capsys
):
  def full(*_):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(archives, "encode", full)
  out = tmp_path / "out" / OUT[server]
  assert _command(*_flags(server, tree, masks, out)) == 2
  assert "No space left on device" in capsys.readouterr().err
  assert not list(out.parent.iterdir())
