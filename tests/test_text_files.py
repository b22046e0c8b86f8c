import codecs
import re
import shutil
import subprocess

from etils import epath
import pytest

from deeplax import errors
from deeplax import text_files

FIX = "write it anew"


def refused(read, path, *parts: str, **keywords) -> str:
  with pytest.raises(errors.InputError) as error:
    read(path, fix=FIX, **keywords)
  text = str(error.value)
  assert str(path) in text, text
  for part in parts:
    assert part in text, text
  return text


@pytest.mark.parametrize(
  ("text", "part"),
  [
    ("", "is empty"),
    (" \n", "is empty"),
    ('{"a": 1', "is not JSON (line 1, column 8"),
    ('{\n"a": 1,}', "line 2, column 8"),
    ("[1]", "holds a list, [...], not an object, {...}"),
    ("3", "holds a number"),
    ("null", "holds null"),
    ('{"a": 1, "b": 2, "a": 3}', "the key 'a' occurs twice"),
    ('{"a": {"b": 1, "b": 1}}', "the key 'b' occurs twice"),
    ("[" * 100_000, "nested too deeply"),
    ('{"a":' * 100_000, "nested too deeply"),
    ('{"a": "\\ud800"}', "half a character, \\ud800"),
    ('{"\\uDFFF": 1}', "half a character, \\udfff"),
    ('{"a": ' + "9" * 5000 + "}", "4300"),
  ],
)
def test_json_that_cannot_be_read_is_one_message(tmp_path, text, part):
  path = tmp_path / "a.json"
  path.write_text(text)
  assert refused(text_files.read_json, path, part).endswith(FIX)


def test_json_may_hold_another_kind_where_that_is_wanted(tmp_path):
  path = tmp_path / "a.json"
  path.write_text("[1]")
  assert text_files.read_json(path, fix=FIX, kind=list) == [1]
  assert text_files.read_json(path, fix=FIX, kind=object) == [1]


def test_whole_characters_beyond_16_bit_are_read(tmp_path):
  path = tmp_path / "a.json"
  path.write_text('["\\ud83d\\ude00"]')
  assert text_files.read_json(path, fix=FIX, kind=list) == ["\U0001f600"]


def test_the_mark_of_utf_8_is_read_over(tmp_path):
  path = epath.Path(tmp_path / "a.json")
  path.write_bytes(codecs.BOM_UTF8 + '{"a": "Straße"}'.encode())
  assert text_files.read_json(path, fix=FIX) == {"a": "Straße"}


@pytest.mark.parametrize(
  "encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"]
)
def test_another_encoding_is_refused_and_the_advice_works(tmp_path, encoding):
  path, new = tmp_path / "names.txt", tmp_path / "NEW"
  path.write_bytes("Straße\nAuto\n".encode(encoding))
  text = refused(text_files.read_lines, path, "Save it as UTF-8")
  if encoding == "utf-16" or encoding == "cp1252":
    found = re.search(r"iconv .* FILE > NEW", text)
    assert found and shutil.which("iconv")
    order = found[0].replace("FILE", str(path)).replace("NEW", str(new))
    subprocess.run(order, shell=True, check=True)
    assert text_files.read_lines(new, fix=FIX) == ["Straße", "Auto"]


def test_the_line_that_is_no_utf_8_is_named(tmp_path):
  path = tmp_path / "names.txt"
  path.write_bytes(b"a\nb\nStra\xdfe\n")
  refused(text_files.read_lines, path, "line 3 has the byte 0xdf")


def test_what_is_no_file_is_said(tmp_path):
  refused(text_files.read_json, tmp_path / "a.json", "no /", FIX)
  refused(text_files.read_json, tmp_path, "is not a file", FIX)
  refused(text_files.read_json, tmp_path / ("a" * 300), "no /", FIX)


def test_lines_are_read_as_they_are(tmp_path):
  path = tmp_path / "names.txt"
  path.write_bytes("a b.c\r\n\r\n  d \r\ne\u2028f\x0bg".encode())
  found = text_files.read_lines(path, fix=FIX)
  assert found == ["a b.c", "  d ", "e\u2028f\x0bg"]


def test_a_list_of_nothing_is_refused(tmp_path):
  path = tmp_path / "names.txt"
  path.write_text("\n \n")
  refused(text_files.read_lines, path, "is empty", FIX)


@pytest.mark.parametrize(
  "take", [lambda o: o["b"], lambda o: o["a"]["c"], lambda o: o["a"].items()]
)
def test_contents_of_another_kind_are_one_message(take):
  with pytest.raises(errors.InputError, match=r"x\.json is not as .*anew"):
    with text_files.contents("x.json", fix=FIX):
      take({"a": 1})


def test_an_accent_is_compared_however_it_is_stored():
  assert text_files.composed("cafe\u0301") == text_files.composed("caf\u00e9")
  assert text_files.composed("cafe") != text_files.composed("caf\u00e9")
