"""Values of a configuration that name a class in a user's own file."""

import os
import re

import pytest

from deeplax import errors
from deeplax.settings import defaults
from deeplax.settings import own

KEY = "model.decoder.kind"


def test_a_value_is_a_file_a_name_and_literal_keywords():
  found = own.parsed(KEY, 'my.py/a.py:D(width=[8, (4, 2)], name="x.py:Y()")')
  assert found.path == "my.py/a.py" and found.name == "D"
  assert found.keywords == {"width": (8, (4, 2)), "name": "x.py:Y()"}
  assert own.parsed(KEY, "a.py:D").keywords == {}
  assert str(found).startswith("model.decoder.kind my.py/a.py:D(width=")
  for name in ("concat", None, "my_decoder:MyDecoder"):
    assert not own.is_own(name)


@pytest.mark.parametrize(
  "value",
  [
    *("a.py:", "a.py:D(3)", "a.py:D(x=y)", "a.py:D(x=__import__('os'))"),
    *("a.py:D(x={1: 2})", "a.py:D(**x)", "a.py:D()()", "a.py:d.D"),
    *("a.py:D(x=1", "a.py:D(x=1)(y=2)", "a.py:pass"),
    *("a.py:D(x=1); E()", "a.py:D(x=1, x=2)"),
  ],
)
def test_other_forms_are_refused_and_nothing_is_evaluated(value):
  with pytest.raises(errors.InputError, match=r"write FILE.py:NAME, or with"):
    own.parsed(KEY, value)


def test_a_path_becomes_whole_from_the_folder_it_is_written_in(
  tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  assert own.absolute(KEY, "m.py:D(x=1)") == f"{tmp_path}/m.py:D(x=1)"
  assert own.absolute(KEY, "../m.py:D", "/a/b") == "/a/m.py:D"
  monkeypatch.setenv("HOME", "/house/me")
  assert own.absolute(KEY, "~/m.py:D") == "/house/me/m.py:D"
  assert own.short("/a/b.c/m.py:D(x=1)") == "m.py:D(x=1)"
  config = defaults.base().lock()
  config.model.head, config.train.loss = "h.py:H", "l.py:focal(gamma=2.0)"
  own.with_whole_paths(config)
  assert config.model.head == f"{tmp_path}/h.py:H"
  assert config.model.backbone == defaults.base().model.backbone
  keys = [r.key for r in own.references(config)]
  assert keys == ["model.head", "train.loss"]


EXAMINED = {
  "class D:\n  x = \n": "line 2: SyntaxError: invalid syntax",
  "class E: ...\ndef f(): ...\n": "m.py has no D; it has E, f",
  "import os": "m.py has no D; it has no class and no function",
  None: r"m.py cannot be read \(No such file or directory\)",
}


@pytest.mark.parametrize("text", EXAMINED)
def test_what_the_text_shows_is_told_before_anything_runs(text, tmp_path):
  path = tmp_path / "m.py"
  if text is not None:
    path.write_text(text)
  config = defaults.base()
  config.model.decoder.kind = f"{path}:D"
  with pytest.raises(errors.InputError, match=EXAMINED[text]) as caught:
    own.examine(config)
  assert str(caught.value).startswith(f"model.decoder.kind {path}:D: ")
  for fine in ("from m import D", "D = 3", "from m import *", "if 1:\n  D = 1"):
    path.write_text(fine)
    own.examine(config)


def test_a_file_runs_again_only_if_it_has_changed(tmp_path):
  path = tmp_path / "m.py"
  path.write_text("from __future__ import annotations\nclass D:\n  x: int = 1")
  reference = own.parsed(KEY, own.absolute(KEY, f"{path}:D"))
  first = own.load(reference)
  assert own.load(reference) is first and first.x == 1
  before = path.read_bytes()
  path.write_text("class D:\n  x = 2")
  assert own.text(reference) == before  # what was run
  assert own.load(reference).x == 2
  assert own.text(reference) == path.read_bytes()
  path.write_text("x = 1\nx.y\n")
  message = re.escape(f"{KEY} {path}:D: line 2: AttributeError: 'int'")
  with pytest.raises(errors.InputError, match=message):
    own.load(reference)


@pytest.mark.parametrize("path", [os.__file__, "/proc/self/cwd/evil.py"])
def test_a_file_that_only_a_workdir_names_is_not_run(
  path, tmp_path, monkeypatch
):
  monkeypatch.setattr(own, "_trusted", set())
  monkeypatch.chdir(tmp_path)
  (tmp_path / "evil.py").write_text("raise SystemExit\n")
  config = defaults.base()
  config.model.head = f"{path}:system(command='exit 1')"
  (reference,) = own.references(config)
  with pytest.raises(errors.InputError, match="if you have read .*--own_code"):
    own.load(reference)
  with pytest.raises(errors.InputError, match="the workdir names a program"):
    own.refuse_untrusted(config, part="model.")
  own.refuse_untrusted(config, part="train.")
  own.trust(config)
  own.refuse_untrusted(config)
