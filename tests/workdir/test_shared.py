"""Several processes must see one workdir and the same data."""

import pytest

from deeplax import parallel
from deeplax.data import folder
from deeplax.data import shapes
from deeplax.workdir import shared
from tests import processes
from tests.data import trees


def refused(monkeypatch, *workdirs):
  """Return what a process with each of these is told; None: it goes on."""
  monkeypatch.setattr(shared, "OUT_OF_DATE", 0.3)
  found = processes.Processes(monkeypatch, len(workdirs)).run(
    lambda rank: shared.refuse_apart(workdirs[rank])
  )
  return [error and str(error) for error in found]


def test_one_folder_is_seen_by_all_and_left_as_it_was(tmp_path, monkeypatch):
  workdir = tmp_path / "run"
  assert refused(monkeypatch, *[workdir] * 3) == [None] * 3
  assert not [*workdir.iterdir()]


def test_another_folder_on_one_host_is_refused_by_all(tmp_path, monkeypatch):
  own = tmp_path / "own"
  workdirs = (tmp_path / "run", own, tmp_path / "run")
  said = refused(monkeypatch, *workdirs)
  for text in said:
    assert "1 of 0 to 2 do not see" in text
  assert not [*(tmp_path / "run").iterdir()]


def test_a_token_of_an_earlier_start_does_not_count(tmp_path, monkeypatch):
  own = tmp_path / "own"
  own.mkdir()
  (own / "token.txt").write_text("7")
  said = refused(monkeypatch, tmp_path / "run", own)
  assert all("1 of 0 to 1 do not see" in text for text in said)


@pytest.mark.parametrize("number", [0, 7, 2**31, 2**40 + 3])
def test_a_number_of_one_process_is_itself(number):
  assert parallel.gathered(number) == [number]


def test_hosts_with_other_images_are_refused_by_all(tmp_path, monkeypatch):
  roots = [tmp_path / name for name in ("a", "b", "more", "renamed")]
  for root in roots:
    trees.folder(root, classes=("x", "y"), images=5 + (root.name == "more"))
  for path in (
    roots[3] / "images/train/04.jpg",
    roots[3] / "labels/train/04.png",
  ):
    path.rename(path.with_stem("44"))
  several = processes.Processes(monkeypatch, 2)

  def told(*two):
    sources = [folder.source(root, "train") for root in two]
    found = several.run(lambda rank: shared.refuse_other_images(sources[rank]))
    assert str(found[0]) == str(found[1])
    return str(found[0])

  assert told(roots[0], roots[1]) == "None"
  assert "process 1 has 6 images and the first one 5. Give" in told(
    roots[0], roots[2]
  )
  assert "has 5 images and the first one 5, of other names" in told(
    roots[0], roots[3]
  )


def test_made_up_images_are_compared_by_their_number(monkeypatch):
  found = processes.Processes(monkeypatch, 3).run(
    lambda rank: shared.refuse_other_images(
      shapes.Shapes("val", images=5 + (rank == 2), size=(9, 9))
    )
  )
  assert all("process 2 has 6 images" in str(error) for error in found)
