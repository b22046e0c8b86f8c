"""classes.json: masks of colors, and what is wrong with their lists."""

import json

import numpy as np
from PIL import Image
import pytest

from deeplax import check_data
from deeplax import errors
from deeplax import score
from deeplax.data import build
from deeplax.data import classes_json
from deeplax.data import folder
from deeplax.data import spec as spec_lib
from deeplax.data.prepare import folder as prepare_folder
from tests.data import trees

COLORS = {"road": [128, 64, 128], "car": [[0, 0, 142], [0, 0, 70]]}
# The color of each label, 255 last.
PAINT = {0: (128, 64, 128), 1: (0, 0, 142), 2: (0, 0, 70), 255: (0, 0, 0)}


def write(path, **keys):
  path.write_text(json.dumps(keys))
  return path


def painted(root, **keys):
  """Own data whose masks are colors; "car" has two."""
  trees.folder(root, classes=("road", "car"))
  keys = {"colors": COLORS, "ignore_color": [0, 0, 0]} | keys
  write(root / "classes.json", **keys)
  numbers = trees.labels(0, 1, 2, 255)
  table = np.zeros((256, 3), np.uint8)
  for number, color in PAINT.items():
    table[number] = color
  for path in (root / "labels").rglob("*.png"):
    Image.fromarray(table[numbers]).save(path)
  return root, np.where(numbers == 2, 1, numbers)


def test_masks_of_colors_load_as_they_are(tmp_path):
  root, labels = painted(tmp_path)
  source = folder.source(root, "train")
  assert source.spec.class_names == ("road", "car")
  assert source.spec.palette == ((128, 64, 128), (0, 0, 142))
  np.testing.assert_array_equal(source[0]["label"], labels)
  # And as `data.build folder` writes them.
  prepared = prepare_folder.plan(root).splits["val"]
  np.testing.assert_array_equal(prepared[0]["label"], labels)
  joined = build.at(root, "train+val")
  assert len(joined) == 6
  np.testing.assert_array_equal(joined[5]["label"], labels)


def test_names_and_palette_come_first_and_hex_is_read(tmp_path):
  path = write(
    tmp_path / "classes.json",
    names=["car", "road"],
    colors={"road": "#804080", "car": ["#00008e", [0, 0, 70]]},
    palette=["#ff0000", [0, 255, 0]],
    ignore_color=[[0, 0, 0], "#ffffff"],
  )
  spec, table = classes_json.read(path)
  assert spec.class_names == ("car", "road")
  assert spec.palette == ((255, 0, 0), (0, 255, 0))
  assert table.colors is not None
  assert dict(table.colors.labels) == {
    **{0x00008E: 0, 0x000046: 0, 0x804080: 1},
    **{0x000000: 255, 0xFFFFFF: 255},
  }


def test_check_data_counts_colors_and_finds_unlisted_ones(tmp_path, capsys):
  root, _ = painted(tmp_path)
  with pytest.raises(SystemExit) as ended:
    check_data.main([str(root), "--full", "--split=train"])
  assert ended.value.code == 0
  text = capsys.readouterr().out
  assert "    1  car              50.00       3" in text
  assert "(ignored)" in text and "no fault found" in text
  write(root / "classes.json", colors=COLORS)
  with pytest.raises(SystemExit) as ended:
    check_data.main([str(root), "--split=train"])
  assert ended.value.code == 2
  text = capsys.readouterr().err
  assert "3 files" in text and "1 cause" in text
  assert "(0, 0, 0) in row 0, column 3; the nearest is (0, 0, 70), " in text
  assert '"ignore_color": [0, 0, 0]' in text


def test_check_data_tells_how_masks_of_colors_are_read(tmp_path, capsys):
  root, _ = painted(tmp_path)
  write(root / "classes.json", names=["road", "car"])
  with pytest.raises(SystemExit):
    check_data.main([str(root)])
  text = capsys.readouterr().err
  assert text.count('"colors": {"CLASS": [128, 64, 128], ...}') == 1
  assert "1 cause" in text


@pytest.mark.parametrize("colored", [False, True])
def test_masks_of_colors_are_scored(tmp_path, colored):
  root, labels = painted(tmp_path)
  out, val = tmp_path / "predictions", root / "labels" / "val"
  found = labels.copy()
  found[:, :6] = 0
  for i in range(3):
    path = out / f"{i:02d}_mask.png"
    trees.mask(path, found, spec_lib.color_map(256))
    if colored:  # classes of the ignored pixels do not count
      colors = np.array([PAINT[i] for i in found.ravel()], np.uint8)
      Image.fromarray(colors.reshape(*found.shape, 3)).save(path)
  result = tmp_path / "score.json"
  with pytest.raises(SystemExit) as ended:
    score.main([str(out), str(val), f"--out={result}"])
  assert ended.value.code == 0
  iou = json.loads(result.read_text())["iou"]
  # Of 30 columns, 8 are road, 15 car; 3 cars of the first six are called road.
  assert iou["road"] == pytest.approx(8 / 11)
  assert iou["car"] == pytest.approx(12 / 15)


@pytest.mark.parametrize(
  ("keys", "parts"),
  [
    (
      {"colors": {"road": [1, 2, 3], "car": [1, 2, 3]}},
      ("\"colors\" of 'car' has (1, 2, 3), as \"colors\" of 'road' has",),
    ),
    (
      {"colors": {"road": [[1, 2, 3], "#010203"], "car": [0, 0, 0]}},
      ("\"colors\" of 'road' has (1, 2, 3) twice: keep one",),
    ),
    (
      {"ignore_color": [0, 0, 142]},
      ('"ignore_color" has (0, 0, 142), as "colors" of \'car\'',),
    ),
    (
      {"names": ["road", "cart"]},
      (
        '"colors" has \'car\', which is none of the "names"',
        "is 'cart' meant?",
      ),
    ),
    ({"names": ["road", "car", "tree"]}, ("no color of 'tree'", "give each")),
    ({"label_map": {"255": 1}}, ('"label_map" is about numbers', "leave")),
    ({"ignore_label": 255}, ('"ignore_label" is about', '"ignore_color"')),
    (
      {"colors": [[0, 0, 0]], "names": ["a"]},
      ('"colors" is [[0, 0, 0]], not',),
    ),
    ({"colors": {"road": [], "car": [1, 1, 1]}}, ("'road' are none: give",)),
    ({"colors": {"a": [0, 0, 256]}}, ("has [0, 0, 256], not [0..255",)),
    ({"colors": {"a": [0.5, 0, 0]}}, ("has 0.5, not [0..255",)),
    ({"colors": {"a": "red"}}, ("has 'red', not [0..255", '"#rrggbb"')),
    ({"colors": {"a": None}}, ("'a' are none",)),
    ({"colors": {"a": 7}}, ("has 7, not [0..255",)),
    ({"colors": {}}, ("0 names, not 1 to 254",)),
    ({"ignore_color": "black"}, ("\"ignore_color\" has 'black', not [0..255",)),
  ],
)
def test_a_list_of_colors_that_is_wrong_is_told(tmp_path, keys, parts):
  path = write(tmp_path / "classes.json", **({"colors": COLORS} | keys))
  with pytest.raises(errors.InputError) as error:
    classes_json.read(path)
  for part in (str(path), *parts):
    assert part in str(error.value)


def test_a_color_twice_in_the_file_is_told(tmp_path):
  path = tmp_path / "classes.json"
  path.write_text('{"colors": {"a": [0, 0, 0], "a": [1, 1, 1]}}')
  with pytest.raises(errors.InputError, match="the key 'a' occurs twice"):
    classes_json.read(path)


def test_ignore_color_beside_numbers_is_a_note(tmp_path):
  path = write(tmp_path / "classes.json", names=["a"], ignore_color="none")
  assert classes_json.read(path)[1].colors is None
