import pytest

from deeplax import errors
from deeplax.data import name_lists


def read(tmp_path, text, known):
  path = tmp_path / "list.txt"
  path.write_text(text)
  return name_lists.read(path, known, lambda line: (line.removesuffix(".png"),))


def test_a_name_as_it_stands_goes_before_another_reading(tmp_path):
  known = {"a", "a.png", " b", "b"}
  assert read(tmp_path, "a.png\na\n b\nb \n", known) == [
    "a.png",
    "a",
    " b",
    "b",
  ]


def test_another_reading_counts_where_there_is_no_such_name(tmp_path):
  assert read(tmp_path, "a.png\n c.d \n", {"a", "c.d"}) == ["a", "c.d"]


def test_what_is_not_known_is_returned_for_the_caller_s_message(tmp_path):
  assert read(tmp_path, "a.png\nx y\n", {"a"}) == ["a", "x y"]


def test_the_advice_about_a_name_twice_works(tmp_path):
  text = "b\na.png\na\nb\nb\n"
  with pytest.raises(
    errors.InputError, match=r"'b' more .*and 1 others.*one line"
  ):
    read(tmp_path, text, {"a", "b"})
  assert read(tmp_path, "b\na.png\n", {"a", "b"}) == ["b", "a"]
