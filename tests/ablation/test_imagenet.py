"""The command that counts ImageNet errors (v3+, table 4)."""

import json

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest

from deeplax.ablation import imagenet
from deeplax.ablation import imagenet_sources
from deeplax.ablation import imagenet_table
from deeplax.models import cost
from deeplax.models import variables as variables_lib
from deeplax.models.backbones import resnet
from deeplax.pretrained import files
from deeplax.pretrained import rules
from deeplax.pretrained import tables
from experiments import v3plus_table4
from tests import shared
from tests.models import networks


def plain_wrong(logits, labels, top):
  """Count the rows whose label is not among the first `top`."""
  wrong = 0
  for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
    order = sorted(range(len(row)), key=lambda k: (-row[k], k))
    wrong += label not in order[:top]
  return wrong


@pytest.mark.parametrize("top", [1, 5])
def test_errors_are_those_of_a_plain_count_with_ties(top):
  rng = np.random.default_rng(0)
  # Few values: nearly every row has ties, also for the first place.
  logits = rng.integers(0, 6, (500, 12)).astype(np.float32)
  labels = rng.integers(0, 12, 500).astype(np.int32)
  ranks = np.asarray(imagenet.ranks(jnp.asarray(logits), jnp.asarray(labels)))
  wrong = int((ranks >= top).sum())
  assert wrong == plain_wrong(logits, labels, top)
  assert 100 < wrong < 490


def test_the_first_of_equal_classes_wins_as_for_argmax():
  labels = jnp.arange(4, dtype=jnp.int32)
  ranks = imagenet.ranks(jnp.zeros((4, 4)), labels)
  np.testing.assert_array_equal(ranks, [0, 1, 2, 3])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_no_answer(value):
  logits = jnp.asarray([[0.0, value, 1.0], [0.0, 1.0, 2.0]])
  labels = jnp.asarray([1, 1], jnp.int32)
  np.testing.assert_array_equal(imagenet.ranks(logits, labels), [-1, 1])


def test_the_view_is_the_central_square_of_seven_eighths():
  rows, columns = np.mgrid[:64, :96].astype(np.uint8)
  image = np.stack([rows, columns, rows], axis=-1)
  # 56 of 64 rows: no resize, so the numbers are the positions.
  found = imagenet.view(image, 56)
  np.testing.assert_array_equal(found, image[4:60, 20:76])
  half = imagenet.view(image, 28).astype(float)
  plain = image[4:60, 20:76].reshape(28, 2, 28, 2, 3).mean((1, 3))
  assert np.abs(half - plain).max() <= 1


CLASSES = ("n01", "n02", "n03", "n04", "n05", "n06", "n07")
SIDE = 33


@pytest.fixture
def slim(short, monkeypatch):
  """ResNet-101 of one unit a block, whose answers differ by picture."""
  monkeypatch.setitem(resnet.DEPTHS, 101, (1, 1, 1, 1))


def whole(source, backbone, classes):
  """Return an ImageNet network."""
  return networks.network(
    classes,
    backbone=backbone,
    head="classifier",
    conventions=source,
    output_stride=32,
    decoder__kind="none",
  )


def network(source, backbone, classes):
  """Return a network whose answers differ from picture to picture."""
  model = whole(source, backbone, classes)
  rng = np.random.default_rng(3)
  variables = jax.tree.map(
    lambda x: (
      rng.uniform(-1, 1, x.shape).astype(np.float32)
      if x.ndim > 1
      else rng.uniform(0.5, 1.5, x.shape).astype(np.float32)
    ),
    variables_lib.initial_variables(model, seed=0),
  )
  return model, variables


def write(path, source, backbone, classes):
  """Write a network as another program's file; return it."""
  model, variables = network(source, backbone, classes)
  arrays, _ = rules.save(variables, tables.table(source, model=model))
  files.write(str(path), arrays)
  return model, variables


def pictures(root, sizes=((40, 60), (50, 41), (33, 33))):
  """Write pictures of noise in colors, and return them by file name."""
  rng = np.random.default_rng(5)
  found = {}
  for name in CLASSES:
    (root / name).mkdir(parents=True)
    for i, (height, width) in enumerate(sizes):
      low = rng.integers(0, 256, (4, 4, 3), np.uint8)
      image = Image.fromarray(low).resize((width, height))
      path = root / name / f"{i}.PNG"
      image.save(path)
      found[f"{name}/{i}.PNG"] = np.asarray(image)
  return found


def ended(*arguments):
  """Run the command; return its exit status."""
  with pytest.raises(SystemExit) as status:
    v3plus_table4.main([str(a) for a in arguments])
  return status.value.code


@pytest.mark.parametrize(
  ("source", "backbone", "extra"),
  [
    ("tf_deeplab", "resnet_v1_101_beta", 1),
    ("torchvision", "resnet101", 0),
  ],
)
def test_the_command_counts_what_the_network_says_of_each_picture(
  source, backbone, extra, slim, tmp_path, capsys
):
  images = pictures(tmp_path / "val")
  weights = tmp_path / "w.npz"
  model, variables = write(weights, source, backbone, len(CLASSES) + extra)
  out = tmp_path / "out"
  # 21 pictures in batches of 8: the last is not full.
  assert not ended(
    f"--images={tmp_path / 'val'}", f"--resnet={source}:{weights}",
    f"--out={out}", "--batch=8", f"--crop={SIDE}",
  )  # fmt: skip
  views = np.stack([imagenet.view(image, SIDE) for image in images.values()])
  labels = np.array([CLASSES.index(n.split("/")[0]) for n in images]) + extra
  run = jax.jit(lambda v, x: model.apply(v, x, train=False, method="coarse"))
  logits = np.asarray(run(variables, views))[:, 0, 0]
  assert len(np.unique(logits.argmax(1))) > 1
  known = json.loads((out / "table4.json").read_text())
  (row,) = known["rows"]
  assert (row["images"], row["backbone"]) == (21, backbone)
  for top in (1, 5):
    expected = 100 * plain_wrong(logits, labels, top) / 21
    np.testing.assert_allclose(row[f"top{top}_error"], expected, rtol=1e-12)
  assert row["parameters"] == cost.parameters(model)
  assert "top1_difference" not in row  # seven classes are not ImageNet's
  said, text = capsys.readouterr().out, (out / "table.md").read_text()
  assert text in said and "Reproduced ResNet-101" in text
  assert ("background first" in said) == bool(extra)
  assert {p.name for p in out.iterdir()} <= {
    "table4.json", "table.md", "compiled",
  }  # fmt: skip


def test_some_pictures_are_spread_evenly(slim, tmp_path, capsys):
  for name in pictures(tmp_path / "val"):
    if not name.endswith("/0.PNG"):
      (tmp_path / "val" / name).write_bytes(b"")  # it must not be read
  write(tmp_path / "w.npz", "torchvision", "resnet101", 7)
  assert not ended(
    f"--images={tmp_path / 'val'}", f"--out={tmp_path / 'out'}",
    f"--resnet=torchvision:{tmp_path / 'w.npz'}", f"--crop={SIDE}",
    "--max_images=7", "--batch=8",
  )  # fmt: skip
  known = json.loads((tmp_path / "out" / "table4.json").read_text())
  assert known["rows"][0]["images"] == 7
  assert "7 pictures of 21" in capsys.readouterr().out


@pytest.mark.parametrize(
  ("source", "backbone"),
  sorted({
    (source, backbone)
    for sources in imagenet_sources.BACKBONES.values()
    for source, backbones in sources.items()
    for backbone in backbones
  }),
)  # fmt: skip
def test_every_parameter_has_a_name_in_every_source(slim, source, backbone):
  model = whole(source, backbone, len(CLASSES) + (source == "tf_deeplab"))
  found = rules.load({}, tables.table(source, model=model), model=model)
  assert found.missing.keys() == variables_lib.shapes(model).keys()
  assert all(found.missing.values())


def test_the_row_of_1000_classes_is_beside_the_papers(monkeypatch):
  found = imagenet.Network("resnet101", "torchvision:w.pth", None, None, 0)
  ranks = np.array([0, 1, 4, 5])
  monkeypatch.setattr(cost, "parameters", lambda model: 44_549_160)
  monkeypatch.setattr(cost, "multiply_adds", lambda model, size: 7)
  row = imagenet_table.row(
    "Reproduced ResNet-101", found, ranks, crop=224, classes=1000
  )
  assert (row["top1_error"], row["top5_error"]) == (75, 25)
  assert (row["top1_paper"], row["top5_paper"]) == (22.4, 6.02)
  text = imagenet_table.markdown([row], images="val", classes=1000, crop=224)
  (line,) = [x for x in text.splitlines() if x.startswith("| Reproduced")]
  cells = [cell.strip() for cell in line.strip("|").split("|")]
  assert cells == [
    "Reproduced ResNet-101", "4", "75.0", "22.40", "+52.6",
    "25.0", "6.02", "+19.0", "44,549,160", "7",
  ]  # fmt: skip


def refused(capsys, *arguments):
  """Run the command on wrong input; return its one message."""
  assert ended(*arguments) == 2
  said = capsys.readouterr().err
  assert "Traceback" not in said
  return said


def test_wrong_folders_are_refused(tmp_path, capsys):
  flags = ("--resnet=torchvision:w.pth", f"--out={tmp_path / 'out'}")
  assert "missing is no folder" in refused(
    capsys, f"--images={tmp_path / 'missing'}", *flags
  )
  flat = tmp_path / "flat"
  flat.mkdir()
  Image.new("RGB", (9, 9)).save(flat / "a.png")
  assert "no subfolders" in refused(capsys, f"--images={flat}", *flags)
  (flat / "n01").mkdir()
  assert "n01 has no picture" in refused(capsys, f"--images={flat}", *flags)
  assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    ((), "give --resnet, --xception or both"),
    (("--resnet=w.pth",), "give a source of"),
    (("--xception=torchvision:w.pth",), "'tf_deeplab', 'timm'"),
    (("--resnet=torchvision:missing.pth",), "no file missing.pth"),
    (("--resnet=timm:w.pth", "--batch=0"), "must be 1 or more"),
    (("--resnet=timm:w.pth", "--max_images=x"), "must be 1 or more"),
  ],
)
def test_wrong_flags_are_refused(flags, message, tmp_path, capsys):
  pictures(tmp_path / "val", sizes=((9, 9),))
  assert message in refused(
    capsys, f"--images={tmp_path / 'val'}", f"--out={tmp_path / 'out'}", *flags
  )


def test_a_network_of_other_classes_or_another_kind_is_refused(
  slim, tmp_path, capsys
):
  pictures(tmp_path / "val", sizes=((9, 9),))
  flags = (f"--images={tmp_path / 'val'}", f"--out={tmp_path / 'out'}")
  weights = tmp_path / "w.npz"
  # One class more is background in TensorFlow's networks only.
  write(weights, "torchvision", "resnet101", 8)
  said = refused(capsys, *flags, f"--resnet=torchvision:{weights}")
  assert "7 class folders" in said and "8 classes" in said
  write(weights, "tf_deeplab", "resnet_v1_101", 9)
  said = refused(capsys, *flags, f"--resnet=tf_deeplab:{weights}")
  assert "9 classes" in said
  # The backbone alone.
  arrays = {
    k: v for k, v in files.read(str(weights)).items() if "logits" not in k
  }
  files.write(str(weights), arrays)
  said = refused(capsys, *flags, f"--resnet=tf_deeplab:{weights}")
  assert "resnet_v1_101/logits/weights" in said
  assert "with its classifier" in said.replace("\n", " ")


def test_a_missing_folder_is_not_taken_for_background(monkeypatch):
  model = cost  # of which only the number of classes is asked
  monkeypatch.setattr(model, "num_classes", 1000, raising=False)
  monkeypatch.setattr(files, "read", lambda path: {})
  monkeypatch.setattr(imagenet, "_convert", lambda *a: (model, {}))
  found = imagenet.network("resnet", "tf_deeplab:w.npz", 1000)
  assert found.first == 0
  with pytest.raises(imagenet.errors.InputError, match="999 class folders"):
    imagenet.network("resnet", "tf_deeplab:w.npz", 999)


def test_a_spoiled_picture_and_spoiled_weights_end_with_their_file(
  slim, tmp_path, capsys
):
  pictures(tmp_path / "val", sizes=((9, 9),))
  weights = tmp_path / "w.npz"
  write(weights, "torchvision", "resnet101", 7)
  flags = (
    f"--images={tmp_path / 'val'}", f"--out={tmp_path / 'out'}",
    f"--resnet=torchvision:{weights}", f"--crop={SIDE}", "--batch=8",
  )  # fmt: skip
  spoiled = tmp_path / "val" / "n05" / "0.PNG"
  whole = spoiled.read_bytes()
  spoiled.write_bytes(whole[:40])
  said = refused(capsys, *flags)
  assert str(spoiled) in said and "Replace it" in said
  assert not (tmp_path / "out" / "table4.json").exists()
  spoiled.write_bytes(whole)
  arrays = dict(files.read(str(weights)))
  arrays["fc.weight"] = np.full_like(arrays["fc.weight"], 1e38)
  files.write(str(weights), arrays)
  assert "not finite" in refused(capsys, *flags)


@pytest.mark.slow  # 20 s: MobileNetV2 at its real size
def test_published_weights_are_right_about_pictures(
  tmp_path, capsys, monkeypatch
):
  weights = shared.path("weights/mobilenet_v2_1.0_224_quant.npz")
  known = {"resnet": {"tf_deeplab": ("mobilenet_v2",)}}
  monkeypatch.setattr(imagenet_sources, "BACKBONES", known)
  root = tmp_path / "val"
  black = Image.new("RGB", (32, 32))
  for label in range(1000):
    folder = root / f"n{label:08d}"
    folder.mkdir(parents=True)
    # A chickadee and a Samoyed, which black is neither of.
    name = {19: "bird.bmp", 258: "dog_segmentation_256.bmp"}.get(label)
    if name:
      picture = Image.open(shared.path(f"weights/images/{name}"))
      picture.convert("RGB").save(folder / "a.JPEG")
    elif label % 500 == 7:
      black.save(folder / "a.JPEG")
    else:
      (folder / "a.JPEG").write_bytes(b"")
  found, folders = imagenet.pictures(root)
  assert (len(found), folders) == (1000, 1000)
  one = imagenet.network("resnet", f"tf_deeplab:{weights}", folders)
  assert one.first == 1
  chosen = [found[i] for i in (7, 19, 258, 507)]
  (ranks,) = imagenet.classify([one], chosen, crop=224, batch=4)
  np.testing.assert_array_equal(ranks[1:3], [0, 0])
  assert min(ranks[0], ranks[3]) >= 5
