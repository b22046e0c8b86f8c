import pathlib

from PIL import Image
import pytest

from deeplax import errors
from deeplax.data import walk
from deeplax.reports import found_pictures


def write(root: pathlib.Path, *names: str) -> None:
  for name in names:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")


def masks(
  root: pathlib.Path, *inputs: str, progress=lambda line: None
) -> list[str]:
  """Return the masks that would be written, below the folder of outputs."""
  out = root / "out"
  found = found_pictures.find(
    [str(root / i) for i in inputs], out, progress=progress
  )
  paths = [picture.output(out, found_pictures.MASK) for picture in found]
  return [path.relative_to(out).as_posix() for path in paths]


def refused(root: pathlib.Path, *inputs: str) -> str:
  with pytest.raises(errors.InputError) as error:
    masks(root, *inputs)
  return str(error.value)


def test_links_are_followed_and_keep_their_names(tmp_path):
  write(tmp_path, "in/a.png", "store/b.png", "store/deep/c.png")
  (tmp_path / "in" / "far").symlink_to("../store")
  (tmp_path / "in" / "back").symlink_to("..")
  (tmp_path / "store" / "round").symlink_to("deep")
  expected = [
    *("a_mask.png", "far/b_mask.png", "far/deep/c_mask.png"),
    "far/round/c_mask.png",
  ]
  assert masks(tmp_path, "in") == expected
  assert masks(tmp_path, "in/**/*.png") == expected


def test_an_out_folder_that_is_linked_into_the_inputs_is_left_out(tmp_path):
  write(tmp_path, "in/a.png", "out/a_mask.png")
  (tmp_path / "in" / "predictions").symlink_to("../out")
  assert masks(tmp_path, "in") == ["a_mask.png"]


def test_hidden_things_are_left_out_unless_they_are_named(tmp_path):
  copies = (".ipynb_checkpoints/a-checkpoint.png", "@eaDir/a.png/s.jpg")
  write(tmp_path, "in/a.png", "in/._a.png", *(f"in/{name}" for name in copies))
  assert masks(tmp_path, "in") == ["a_mask.png"]
  assert masks(tmp_path, "in/**") == ["a_mask.png"]
  assert masks(tmp_path, "in/._a.png") == ["._a_mask.png"]
  (name,) = masks(tmp_path, f"in/{copies[0]}")
  assert name == "a-checkpoint_mask.png"


def test_every_kind_that_is_read_is_found(tmp_path):
  write(tmp_path, *(f"in/{kind[1:]}{kind}" for kind in walk.PICTURES))
  assert len(masks(tmp_path, "in")) == len(walk.PICTURES)
  for kind in (".jfif", ".jpe", ".jp2", ".avif", ".ppm"):
    assert kind in walk.PICTURES


def test_what_is_left_out_is_counted_by_suffix(tmp_path):
  write(tmp_path, "in/a.png", "in/b.heic", "in/deep/c.HEIC", "in/notes.txt")
  said = []
  assert masks(tmp_path, "in", progress=said.append) == ["a_mask.png"]
  assert said == [f"left out of {tmp_path}/in: 2 .heic, 1 .txt"]
  (tmp_path / "in" / "a.png").unlink()
  assert "and found 2 .heic, 1 .txt" in refused(tmp_path, "in")


def test_pictures_of_one_name_are_kept_apart(tmp_path):
  write(tmp_path, "in/a.jpg", "in/a.png", "in/b.png", "in/deep/a.png")
  said = []
  assert masks(tmp_path, "in", progress=said.append) == [
    *("a.jpg_mask.png", "a.png_mask.png", "b_mask.png", "deep/a_mask.png"),
  ]
  assert len(said) == 1 and "a.jpg_mask.png" in said[0]
  # As a shell hands on photos/*.
  names = masks(tmp_path, "in/a.jpg", "in/a.png")
  assert names == ["a.jpg_mask.png", "a.png_mask.png"]


def test_a_name_that_looks_like_one_kept_apart_is_kept_apart_too(tmp_path):
  write(tmp_path, "in/a.jpg", "in/a.png", "in/a.jpg.tif")
  assert sorted(masks(tmp_path, "in")) == [
    *("a.jpg.tif_mask.png", "a.jpg_mask.png", "a.png_mask.png"),
  ]


def test_the_same_name_in_two_folders_is_refused_and_the_advice_works(tmp_path):
  write(tmp_path, "in/x/a.png", "in/y/a.png")
  text = refused(tmp_path, "in/x", "in/y")
  assert "x/a.png" in text and "y/a.png" in text and "a_mask.png" in text
  assert "name the folder above" in text
  assert masks(tmp_path, "in") == ["x/a_mask.png", "y/a_mask.png"]


@pytest.mark.parametrize("name", ["set[1]", "set[1]/*.png", "set[1]/**/*.png"])
def test_brackets_in_a_folder_s_name_are_no_wildcard(tmp_path, name):
  write(tmp_path, "set[1]/a.png", "set1/b.png")
  assert masks(tmp_path, name) == ["a_mask.png"]


def test_brackets_are_a_wildcard_where_nothing_is_called_so(tmp_path):
  write(tmp_path, "set1/a.png", "set2/b.png", "set3/c.png", "p[1].png")
  assert masks(tmp_path, "set[12]/*.png") == [
    *("set1/a_mask.png", "set2/b_mask.png"),
  ]
  assert masks(tmp_path, "p[1].png") == ["p[1]_mask.png"]


@pytest.mark.parametrize(
  ("pattern", "count"),
  [
    ("*.png", 1),
    ("**", 3),
    ("**/*.png", 3),
    ("d*/**/*.png", 2),
    ("*/*.png", 1),
  ],
)
def test_globs_find_what_a_shell_finds(tmp_path, pattern, count):
  write(tmp_path, "in/a.png", "in/deep/b.png", "in/deep/er/c.png")
  assert len(masks(tmp_path, f"in/{pattern}")) == count


def test_a_folder_called_like_a_picture_is_searched(tmp_path):
  write(tmp_path, "in/scene1.tif/a.png")
  assert masks(tmp_path, "in") == ["scene1.tif/a_mask.png"]
  assert masks(tmp_path, "in/scene1.tif") == ["a_mask.png"]


def test_names_that_no_file_can_have_are_refused(tmp_path):
  for name in ("n" * 300, "n" * 300 + "*.png", f"none/{'n' * 300}/*.png"):
    assert "n" * 300 in refused(tmp_path, name)


def test_an_overlay_that_may_be_written_is_no_input(tmp_path):
  write(tmp_path, "out/a_overlay.png")
  Image.new("RGB", (9, 6)).save(tmp_path / "a.png")
  assert "is an input" in refused(tmp_path, "a.png", "out/a_overlay.png")
