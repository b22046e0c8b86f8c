"""Where compiled programs are kept."""

import os

import jax
import pytest

from deeplax.workdir import environment


@pytest.fixture
def nowhere():
  """JAX without a place of its own, as outside the tests."""
  before = jax.config.values["jax_compilation_cache_dir"]
  jax.config.update("jax_compilation_cache_dir", None)
  yield
  jax.config.update("jax_compilation_cache_dir", before)


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
