"""Where compiled programs are kept."""

import os

import jax
import pytest

from deeplax.workdir import environment


@pytest.fixture
def nowhere(monkeypatch):
  """JAX without settings of its own, as outside the tests."""
  changed = {"jax_compilation_cache_dir": None, environment.SECONDS: 1.0}
  before = {key: jax.config.values[key] for key in changed}
  monkeypatch.delenv(environment.SECONDS.upper(), raising=False)
  for values in (changed, before):
    for key, value in values.items():
      jax.config.update(key, value)
    if values is changed:
      yield


@pytest.mark.usefixtures("nowhere")
@pytest.mark.parametrize(
  ("name", "writable", "kept"),
  [
    ("run", True, True),
    ("run", False, False),
    ("new", False, True),  # it will be made, or that is told
    ("gs://bucket/run", False, True),
  ],
)
def test_programs_are_kept_in_a_workdir_that_one_may_write_in(
  tmp_path, monkeypatch, name, writable, kept
):
  (tmp_path / "run").mkdir()
  monkeypatch.setattr(os, "access", lambda path, mode: writable)
  workdir = name if "://" in name else str(tmp_path / name)
  environment.compilation_cache(workdir)
  place = jax.config.values["jax_compilation_cache_dir"]
  assert place == (f"{workdir}/compiled" if kept else None)


@pytest.mark.usefixtures("nowhere")
@pytest.mark.parametrize(("given", "seconds"), [(None, 0.0), ("5", 1.0)])
def test_small_programs_are_kept_too_unless_the_user_has_a_limit(
  tmp_path, monkeypatch, given, seconds
):
  if given:
    monkeypatch.setenv(environment.SECONDS.upper(), given)
  environment.compilation_cache(tmp_path)
  assert jax.config.values[environment.SECONDS] == seconds
