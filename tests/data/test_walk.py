import os
import pathlib

import pytest

from deeplax import errors
from deeplax.data import walk


def write(root: pathlib.Path, *names: str) -> None:
  for name in names:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(name)


def found(root: pathlib.Path) -> list[str]:
  return [p.relative_to(root).as_posix() for p in walk.files(root)]


def test_all_files_are_found_in_order(tmp_path):
  write(tmp_path, "b.png", "a/c.png", "a/b/a.txt", "a.png")
  assert found(tmp_path) == ["a/b/a.txt", "a/c.png", "a.png", "b.png"]


def test_links_to_folders_and_files_are_followed(tmp_path):
  write(tmp_path, "store/1.png", "store/deep/2.png", "in/real/0.png")
  (tmp_path / "in" / "linked").symlink_to("../store")
  (tmp_path / "in" / "one.png").symlink_to("../store/1.png")
  (tmp_path / "whole").symlink_to("in")
  expected = ["linked/1.png", "linked/deep/2.png", "one.png", "real/0.png"]
  assert found(tmp_path / "in") == expected
  assert found(tmp_path / "whole") == expected


def test_a_link_may_lead_to_another_link(tmp_path):
  write(tmp_path, "far/1.png")
  (tmp_path / "hop").symlink_to("far")
  (tmp_path / "in").mkdir()
  (tmp_path / "in" / "a").symlink_to("../hop")
  assert found(tmp_path / "in") == ["a/1.png"]


def test_two_links_to_one_folder_are_two_folders(tmp_path):
  write(tmp_path, "store/1.png")
  (tmp_path / "in").mkdir()
  for name in ("a", "b"):
    (tmp_path / "in" / name).symlink_to("../store")
  assert found(tmp_path / "in") == ["a/1.png", "b/1.png"]


def test_links_that_lead_back_end(tmp_path):
  root = tmp_path / "in"
  write(root, "a.png", "deep/b.png")
  (root / "self").symlink_to(".")
  (root / "above").symlink_to("..")
  (root / "deep" / "back").symlink_to("../deep")
  (root / "deep" / "top").symlink_to(root)
  (root / "loop.png").symlink_to("loop.png")
  assert found(root) == ["a.png", "deep/b.png", "loop.png"]


def test_folders_that_lead_to_each_other_end(tmp_path):
  write(tmp_path, "in/a.png", "one/1.png", "two/2.png")
  (tmp_path / "in" / "one").symlink_to("../one")
  (tmp_path / "one" / "two").symlink_to("../two")
  (tmp_path / "two" / "one").symlink_to("../one")
  assert found(tmp_path / "in") == ["a.png", "one/1.png", "one/two/2.png"]


def test_a_link_that_leads_nowhere_is_found_so_that_reading_names_it(tmp_path):
  (tmp_path / "a.png").symlink_to("/nowhere/a.png")
  assert found(tmp_path) == ["a.png"]


def test_hidden_things_are_left_out(tmp_path):
  hidden = (
    *(".ipynb_checkpoints/a-checkpoint.png", "._a.png", ".DS_Store"),
    *("__MACOSX/._a.png", "__MACOSX/b/c.png", "@eaDir/a.png/thumb.jpg"),
    *("deep/.cache/a.png", "deep/Thumbs.db", "#recycle/old.png"),
  )
  write(tmp_path, *hidden, "a.png", "deep/b.png", "x@eaDir/c.png", "_d.png")
  assert found(tmp_path) == ["_d.png", "a.png", "deep/b.png", "x@eaDir/c.png"]


def test_what_lies_below_a_hidden_folder_that_is_asked_for_is_found(tmp_path):
  write(tmp_path, ".hidden/a.png")
  assert found(tmp_path / ".hidden") == ["a.png"]


def test_a_folder_called_like_a_picture_is_a_folder(tmp_path):
  write(tmp_path, "scene1.tif/1.png")
  assert found(tmp_path) == ["scene1.tif/1.png"]
  assert walk.folders(tmp_path) == ["scene1.tif"]


def test_pipes_are_no_files(tmp_path):
  os.mkfifo(tmp_path / "a.png")
  (tmp_path / "b.png").symlink_to("a.png")
  assert found(tmp_path) == []


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
  (tmp_path / "locked").mkdir()
  scandir = os.scandir

  def refuse(path):
    if pathlib.Path(path).name == "locked":  # root may list every folder
      raise PermissionError(13, "Permission denied")
    return scandir(path)

  monkeypatch.setattr(os, "scandir", refuse)
  with pytest.raises(errors.InputError, match="locked cannot be listed"):
    walk.files(tmp_path)


def test_folders_are_those_that_are_shown(tmp_path):
  write(tmp_path, "b/1.png", ".c/1.png", "__MACOSX/1.png", "file.png")
  (tmp_path / "a").symlink_to("b")
  assert walk.folders(tmp_path) == ["a", "b"]
  assert walk.folders(tmp_path / "none") == []


def test_matching_leaves_out_hidden_files_and_folders(tmp_path):
  write(tmp_path, "ulm/a.png", "ulm/._a.png", ".x/b.png", "@eaDir/c.png")
  (tmp_path / "bonn").symlink_to("ulm")
  paths = walk.matching(tmp_path, "*/*.png")
  names = [p.relative_to(tmp_path).as_posix() for p in paths]
  assert names == ["bonn/a.png", "ulm/a.png"]


def test_files_are_counted_by_suffix():
  paths = map(pathlib.Path, ("a.heic", "b.HEIC", "c", "d.txt", "e.heic"))
  assert walk.by_suffix(paths) == "3 .heic, 1 without a suffix, 1 .txt"
  assert walk.by_suffix([]) == ""


def test_names_are_matched_however_an_accent_is_stored():
  one, two = pathlib.PurePath("e\u0301/a"), pathlib.PurePath("\u00e9/a")
  assert walk.key(one) == walk.key(two)
