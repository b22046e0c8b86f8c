"""Lists of pictures: their names, and what is wrong with them."""

import io
import os
import pathlib

import pytest

from deeplax import errors
from deeplax.reports import picture_lists


@pytest.fixture
def here(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for name in ("in/a.jpg", "in/deep/a.b.jpg", " odd .png", "in/x/c.png"):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
  return tmp_path


def stems(*lines: str) -> list[str]:
  pairs, _ = picture_lists.files("list", lines, pathlib.Path("out"))
  assert all(path.is_file() for path, _ in pairs)
  return [stem.as_posix() for _, stem in pairs]


def refused(*lines: str) -> str:
  with pytest.raises(errors.InputError) as error:
    picture_lists.files("my.txt", lines, pathlib.Path("out"))
  return str(error.value)


def test_names_are_below_the_folder_that_has_all_files(here):
  assert stems("in/a.jpg", "", "in/deep/a.b.jpg") == ["a", "deep/a.b"]
  assert stems("in/deep/a.b.jpg") == ["a.b"]
  assert stems("in/deep/a.b.jpg", "in/x/c.png") == ["deep/a.b", "x/c"]
  assert stems("in/x/../a.jpg", str(here / "in/x/c.png")) == ["a", "x/c"]
  # A file in the current folder is above them all.
  assert stems("in/a.jpg ", " odd .png") == ["in/a", " odd "]


def test_a_line_that_names_no_file_is_told_with_its_number(here):
  text = refused("in/a.jpg", "", "in/none.jpg", "nor this")
  assert text.startswith("my.txt, line 3: 'in/none.jpg' is no file (2 lines")
  assert f"as seen from {here}" in text
  assert "my.txt, line 1: 'in' is a folder" in refused("in")
  assert "line 1: 'nnn" in refused("n" * 5000)
  assert "line 2: 'a\\x00b' is no file" in refused("in/a.jpg", "a\0b")


def test_an_empty_list_is_told(here):
  for lines in ((), ("", "  ")):
    assert "my.txt is empty: each line must name" in refused(*lines)


def test_outputs_are_left_out_of_a_list(here):
  (here / "out").mkdir()
  (here / "out" / "a_overlay.jpg").touch()
  lines = ("in/a.jpg", "out/a_overlay.jpg")
  pairs, left_out = picture_lists.files("-", lines, pathlib.Path("out"))
  assert [path.name for path, _ in pairs] == ["a.jpg"] and left_out == 1
  with pytest.raises(errors.InputError, match="all files of standard input"):
    picture_lists.files("-", lines[1:], pathlib.Path("out"))


def test_lines_come_from_a_file_or_standard_input(here, monkeypatch):
  (here / "list.txt").write_text("\ufeffa.jpg\r\nb \u725b.jpg\n")
  assert picture_lists.lines("list.txt") == ["a.jpg", "b \u725b.jpg", ""]
  names = b"caf\xe9.jpg\nb.jpg"
  monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(names)))
  first, second = picture_lists.lines("-")
  assert os.fsencode(first) == b"caf\xe9.jpg" and second == "b.jpg"
  with pytest.raises(errors.InputError, match=r"no none\.txt: each line"):
    picture_lists.lines("none.txt")
