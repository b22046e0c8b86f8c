"""A workdir in a bucket: all but the arrays, which TensorStore writes there."""

import importlib.util

from etils import epath
import jax
from jax._src import compilation_cache
import pytest

from deeplax import paths
from deeplax.settings import defaults
from deeplax.workdir import checkpoint
from deeplax.workdir import environment
from deeplax.workdir import layout
from deeplax.workdir import results
from deeplax.workdir import sealed
from deeplax.workdir import settings
from tests.inference import toy


@pytest.fixture
def workdir(bucket):
  return epath.Path(paths.expanded(f"{bucket}/runs/a"))


def test_the_files_of_a_run_come_back(workdir):
  config = defaults.base()
  config.seed = 7
  settings.write_run_files(
    workdir, config, toy.SPEC, {"conv": {"kernel": jax.numpy.ones(2)}}, print
  )
  assert settings.load_config(workdir).seed == 7
  assert settings.read_spec(workdir).class_names == toy.SPEC.class_names
  assert "conv/kernel" in (workdir / "parameters.txt").read_text()
  result = {
    **{"miou": 0.5, "step": 4, "output_stride": 16, "scales": [1.0]},
    **{"flip": False, "images": 2, "split_images": 2},
  }
  results.write_result(workdir, "val", result)
  assert "mIoU 50.0%" in results.known_miou(workdir, 4, 16)
  # Nothing is left beside them.
  names = sorted(path.name for path in workdir.iterdir())
  assert names == [
    *(layout.CONFIG, layout.ENVIRONMENT, layout.EVALUATIONS),
    *("parameters.txt", layout.SPEC),
  ]


def test_checkpoints_lie_in_the_bucket_and_a_broken_one_is_passed_over(
  workdir,
):
  folder = checkpoint.folder_of(workdir)
  assert str(folder) == "gs://bucket/runs/a/checkpoints"
  for step in (2, 4):
    (folder / f"{step}" / "state").mkdir(parents=True)
    (folder / f"{step}" / "state" / "array").write_bytes(bytes([step]) * 9)
    sealed.seal(folder / f"{step}")
  sealed.write_score(folder / "2", 0.5)
  (folder / "6" / "state").mkdir(parents=True)
  (folder / "6" / "state" / "array").write_bytes(b"half")
  assert layout.checkpoint_steps(workdir) == [2, 4, 6]
  assert sealed.sound_step(workdir) == 4
  assert sealed.best_step(workdir) == 2
  (folder / "4" / "state" / "array").write_bytes(b"other")
  assert sealed.sound_step(workdir) == 2
  (folder / "2").rmtree()
  assert layout.checkpoint_steps(workdir) == [4, 6]


def test_compiled_programs_are_kept_there(workdir, monkeypatch):
  before = jax.config.values["jax_compilation_cache_dir"]
  seconds = jax.config.values[environment.SECONDS]
  monkeypatch.delenv(environment.SECONDS.upper(), raising=False)
  try:
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    environment.compilation_cache(workdir)
    jax.jit(lambda x: x * 3 + 41)(jax.numpy.ones(3))
    kept = [path.name for path in (workdir / "compiled").iterdir()]
    assert any(name.startswith("jit__lambda") for name in kept), kept
  finally:
    jax.config.update("jax_compilation_cache_dir", before)
    jax.config.update(environment.SECONDS, seconds)
    compilation_cache.reset_cache()


def test_without_gcsfs_there_is_no_bucket(monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  with pytest.raises(Exception, match=r"gs://b/a needs the package gcsfs"):
    paths.expanded("gs://b/a")
