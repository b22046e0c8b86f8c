"""What a message tells to write into classes.json is written, word by word.

After that the data set is checked again: nothing is found any more, and the
numbers have the labels that were meant.
"""

import json
import re

import numpy as np
from PIL import Image
import pytest

from deeplax import errors
from deeplax.data import folder
from deeplax.data import spec
from deeplax.data.checks import check
from tests.data import tiffs
from tests.data import trees

VOID = 255


def data_set(root, masks, *, classes=("ground", "cat", "dog"), **keys):
  """Write a data set whose masks are `masks`; wide ones as TIFF."""
  trees.folder(root, classes=classes, images=len(masks), **keys)
  for i, labels in enumerate(masks):
    path = root / f"labels/train/{i:02d}.png"
    if labels.dtype == np.uint8:
      trees.mask(path, labels)
    else:
      path.unlink()
      path.with_suffix(".tif").write_bytes(tiffs.encoded(labels[..., None]))
  return root


def said(root) -> str:
  """Return what is wrong with a data set."""
  with pytest.raises(errors.InputError) as error:
    check.check(folder.source(root, "train"))
  return str(error.value)


def written(text: str) -> list[dict]:
  """Return what a message has to be written into classes.json, in turn."""
  pieces = re.findall(
    r'(?:write|with|json:) ((?:"\w+": (?:\{[^}]*\}|\[[^]]*\]|\w+)(?:, )?)+)',
    text,
  )
  whole = [piece.rstrip(", ") for piece in pieces if "CLASS" not in piece]
  return [json.loads(f"{{{piece}}}") for piece in whole]


def follow(root, text: str, number: int = 0) -> np.ndarray:
  """Write what a message says into classes.json; return the first label."""
  path = root / "classes.json"
  keys = json.loads(path.read_text()) | written(text)[number]
  path.write_text(json.dumps(keys))
  source = folder.source(root, "train")
  check.check(source)
  return source[0]["label"]


def stripes(*values, dtype: type = np.uint8):
  return trees.labels(*values, dtype=dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
  "void", [-9999, np.nan, np.inf, -3.4028234663852886e38, -1, 65535]
)
def test_what_has_no_data_is_ignored(tmp_path, dtype, void):
  mask = trees.labels(0, 1, 2).astype(dtype)
  mask[:3] = void
  root = data_set(tmp_path, [mask, mask])
  text = said(root)
  assert '"no data" in many maps' in text and "class 0" not in text
  label = follow(root, text)
  assert (label[:3] == VOID).all()
  np.testing.assert_array_equal(label[3:], trees.labels(0, 1, 2)[3:])


@pytest.mark.parametrize(
  ("dtype", "void"),
  [
    (np.int16, -32768),
    (np.int8, -1),
    (np.uint16, 65535),
    (np.int32, 2**31 - 1),
    (np.uint32, 2**32 - 1),
  ],
)
def test_what_has_no_data_is_ignored_in_whole_numbers(tmp_path, dtype, void):
  root = data_set(tmp_path, [stripes(0, 1, void, dtype=dtype)])
  label = follow(root, said(root))
  np.testing.assert_array_equal(label, stripes(0, 1, VOID))


def test_several_numbers_of_no_data_are_mapped_at_once(tmp_path):
  masks = [stripes(0, 1, v, dtype=np.float32) for v in (-9999, np.nan, -1)]
  root = data_set(tmp_path, masks, ignore_label=9)
  masks[0][0] = 9
  text = said(root)
  assert written(text) == [
    {"label_map": {"9": 255, "-9999": 255, "-1": 255, "nan": 255}}
  ]
  follow(root, text)


def test_no_data_is_added_to_what_is_mapped_already(tmp_path):
  mask = stripes(0, 7, -9999, dtype=np.float32)
  root = data_set(tmp_path, [mask], label_map={"7": 2}, ignore_label=None)
  label = follow(root, said(root))
  np.testing.assert_array_equal(label, stripes(0, 2, VOID))


def test_numbers_between_the_classes_are_not_rounded(tmp_path):
  mask = stripes(0, 1.5, 2, dtype=np.float32)
  root = data_set(tmp_path, [mask])
  text = said(root)
  assert "has values 1.5" in text and "A class is a whole number" in text
  path = root / "classes.json"
  keys = {"names": ["a", "b", "c"], "label_map": {"1.5": 1}}
  path.write_text(json.dumps(keys))
  label = folder.source(root, "train")[0]["label"]
  np.testing.assert_array_equal(label, stripes(0, 1, 2))


def test_heights_are_not_taken_for_classes(tmp_path):
  heights = np.linspace(-5, 260, 600, dtype=np.float32).reshape(20, 30)
  root = data_set(tmp_path, [heights])
  assert "from which classes cannot be told" in said(root)


@pytest.mark.parametrize(
  ("ignore", "other"), [(255, 7), (9, 7), (None, 7), (9, 255), (None, 255)]
)
def test_an_undeclared_ignore_label_is_ignored(tmp_path, ignore, other):
  values = [0, 1, 2, other, *([ignore] if ignore is not None else [])]
  mask = stripes(*np.repeat(values, 5).tolist())  # broad: no blended edges
  root = data_set(tmp_path, [mask], ignore_label=ignore)
  label = follow(root, said(root))
  np.testing.assert_array_equal(label, np.where(mask < 3, mask, VOID))


@pytest.mark.parametrize("ignored", [False, True])
def test_classes_counted_from_one(tmp_path, ignored):
  values = (1, 2, 3, VOID) if ignored else (1, 2, 3)
  root = data_set(tmp_path, [stripes(*values)])
  text = said(root)
  label = follow(root, text)
  expected = stripes(0, 1, 2, VOID) if ignored else stripes(0, 1, 2)
  np.testing.assert_array_equal(label, expected)
  assert "add a class for 0 as the first name" in text
  trees.folder(root, classes=("else", "ground", "cat", "dog"), images=0)
  label = folder.source(root, "train")[0]["label"]
  np.testing.assert_array_equal(label, stripes(*values))


@pytest.mark.parametrize("ignore", [255, None])
@pytest.mark.parametrize("name", ["crack", "background", 'a "b" ü'])
def test_one_class_of_black_and_white_masks_gets_a_second(
  tmp_path, ignore, name
):
  masks = [stripes(0, 255), stripes(255), stripes(0)]
  root = data_set(tmp_path, masks, classes=(name,), ignore_label=ignore)
  text = said(root)
  np.testing.assert_array_equal(follow(root, text), stripes(0, 1))
  names = folder.spec(root).class_names
  assert names[1] == name and len({*names}) == 2
  # The other answer: white is what is around the class.
  np.testing.assert_array_equal(follow(root, text, 1), stripes(1, 0))


@pytest.mark.parametrize("values", [(0, 1), (0, 1, 255)])
def test_one_class_that_is_1_gets_a_second(tmp_path, values):
  root = data_set(tmp_path, [stripes(*values)], classes=("crack",))
  label = follow(root, said(root))
  np.testing.assert_array_equal(label, stripes(*values))
  assert folder.spec(root).class_names == ("background", "crack")


@pytest.mark.parametrize("ignore", [255, None])
def test_two_classes_of_black_and_white_masks(tmp_path, ignore):
  root = data_set(
    tmp_path, [stripes(0, 255)] * 2, classes=("a", "b"), ignore_label=ignore
  )
  text = said(root)
  assert "or divide the masks by 255" in text
  np.testing.assert_array_equal(follow(root, text), stripes(0, 1))
  trees.folder(root, classes=("a", "b"), images=0, ignore_label=ignore)
  trees.replace_masks(root, stripes(0, 255) // 255)
  check.check(folder.source(root, "train"))


@pytest.mark.parametrize("scaled", [(0, 257, 514), (0, 65535)])
def test_numbers_of_8_bit_scaled_to_16_are_divided(tmp_path, scaled):
  mask = stripes(*scaled, dtype=np.uint16)
  root = data_set(tmp_path, [mask])
  assert "Divide the masks by 257 and save 8 bit PNGs" in said(root)
  (root / "labels/train/00.tif").unlink()
  trees.mask(root / "labels/train/00.png", (mask // 257).astype(np.uint8))
  if 65535 in scaled:  # black and white, and that is told next
    np.testing.assert_array_equal(follow(root, said(root)), stripes(0, 1))
  check.check(folder.source(root, "train"))


def test_numbers_that_are_classes_are_named_or_mapped(tmp_path):
  root = data_set(tmp_path, [stripes(0, 1, 2, 3)])
  text = said(root)
  assert "then name it there, or map it" in text
  (found,) = re.findall(r'with ("label_map": \{"3": CLASS\})', text)
  keys = {"names": ["a", "b", "c"]}
  mapped = keys | json.loads(f"{{{found.replace('CLASS', '1')}}}")
  for keys in (mapped, {"names": ["a", "b", "c", "d"]}):
    (root / "classes.json").write_text(json.dumps(keys))
    check.check(folder.source(root, "train"))


def test_the_original_palette_passes(tmp_path):
  names = spec.VOC2012.class_names
  indices = Image.fromarray(trees.labels(0, 1, 2, 3, 255))
  indices.putpalette([v for c in spec.color_map(256) for v in c])
  root = data_set(tmp_path, [np.asarray(indices.convert("L"))], classes=names)
  assert "Use the original palette PNGs" in said(root)
  indices.save(root / "labels/train/00.png")
  check.check(folder.source(root, "train"))
