from etils import epath
import pytest

from deeplax import atomic


@pytest.mark.parametrize("name", ["a.json", "n" * 255, "é" * 127, "n" * 246])
def test_a_file_of_any_name_is_written_whole_or_not_at_all(tmp_path, name):
  atomic.write_text(tmp_path / name, "one")
  with pytest.raises(OSError, match="disk full"):
    with atomic.writing(tmp_path / name) as file:
      file.write(b"half")
      raise OSError("disk full")
  assert [p.name for p in tmp_path.iterdir()] == [name]
  assert (tmp_path / name).read_text() == "one"


def test_files_of_long_names_are_written_beside_each_other(tmp_path):
  names = [f"{'n' * 250}{i}" for i in range(2)]
  with atomic.writing(tmp_path / names[0]) as one:
    with atomic.writing(tmp_path / names[1]) as two:
      one.write(b"one")
      two.write(b"two")
  assert [(tmp_path / name).read_text() for name in names] == ["one", "two"]


def test_a_text_in_a_bucket_replaces_the_one_before(bucket):
  path = f"{bucket}/run/a.json"
  for text in ("one and more", "two"):
    atomic.write_text(path, text)
    assert epath.Path(path).read_text() == text
  assert [p.name for p in epath.Path(path).parent.iterdir()] == ["a.json"]
