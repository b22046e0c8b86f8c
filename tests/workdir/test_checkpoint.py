"""Saving, sealing, passing over damage, reading back."""

import functools
import hashlib
import json
import shutil

from etils import epath
import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from deeplax import atomic
from deeplax import clocks
from deeplax import errors
from deeplax import parallel
from deeplax.settings import defaults
from deeplax.training import state as state_lib
from deeplax.workdir import checkpoint
from deeplax.workdir import saves
from deeplax.workdir import sealed
from deeplax.workdir import settings


def make_state(value=0.0):
  variables = {
    "params": {"conv": {"kernel": jnp.full((2, 3), value)}},
    "batch_stats": {"conv": {"mean": jnp.full((3,), value)}},
  }
  state = state_lib.create(variables, optax.sgd(0.1, momentum=0.9), seed=7)
  return parallel.replicate(state, mesh=parallel.mesh())


def make_iterator():
  return iter(grain.MapDataset.range(100).to_iter_dataset())


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
  """A workdir with checkpoints 1..4; step 2 is the best."""
  folder = tmp_path_factory.mktemp("saved")
  atomic.write_json(
    folder / "config.json", json.loads(defaults.base().to_json())
  )
  checkpoints = saves.Checkpoints(folder, keep=2)
  iterator = make_iterator()
  for step, miou in ((1, 0.1), (2, 0.9), (3, None), (4, 0.3)):
    next(iterator)
    state = make_state(float(step)).replace(step=jnp.int32(step))
    checkpoints.save(step, state, iterator.get_state())
    if miou is not None:
      checkpoints.score(step, miou)
  checkpoints.close()
  return folder


@pytest.fixture
def run(saved, tmp_path):
  """A copy of that workdir, and its checkpoints."""
  shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
  checkpoints = saves.Checkpoints(tmp_path, keep=2)
  yield tmp_path, checkpoints
  checkpoints.close()


def test_the_newest_two_and_the_best_are_kept(run):
  folder, _ = run
  kept = {p.name for p in (folder / "checkpoints").iterdir() if p.is_dir()}
  assert kept == {"2", "3", "4"}


def test_checkpoints_without_a_score_do_not_pile_up(tmp_path):
  checkpoints = saves.Checkpoints(tmp_path, keep=2)
  iterator = make_iterator()
  for step, miou in ((1, 0.1), (2, None), (3, None), (4, None)):
    next(iterator)
    state = make_state().replace(step=jnp.int32(step))
    checkpoints.save(step, state, iterator.get_state())
    if miou is not None:
      checkpoints.score(step, miou)
  checkpoints.close()
  kept = {p.name for p in (tmp_path / "checkpoints").iterdir() if p.is_dir()}
  assert kept == {"1", "3", "4"}


def test_state_and_data_position_come_back(run):
  _, checkpoints = run
  iterator = make_iterator()
  everywhere = parallel.replicated(parallel.mesh())
  state = checkpoints.restore(4, make_state(), iterator, sharding=everywhere)
  assert int(state.step) == 4
  np.testing.assert_array_equal(state.params["conv"]["kernel"], 4.0)
  assert next(iterator) == 4


@pytest.mark.parametrize(("step", "value"), [(None, 4), ("best", 2), (3, 3)])
def test_variables_are_read_without_the_optimizer(run, step, value):
  variables, found = checkpoint.restore_variables(run[0], step)
  assert found == value and set(variables) == {"params", "batch_stats"}
  np.testing.assert_array_equal(variables["params"]["conv"]["kernel"], value)


def test_a_flipped_bit_is_passed_over_with_a_message(run, capsys):
  folder, _ = run
  files = [
    p
    for p in (folder / "checkpoints" / "4" / "state").rglob("*")
    if p.is_file()
  ]
  largest = max(files, key=lambda p: p.stat().st_size)
  data = bytearray(largest.read_bytes())
  data[len(data) // 2] ^= 1
  largest.write_bytes(bytes(data))
  assert sealed.sound_step(folder) == 3
  assert "skipping checkpoint" in capsys.readouterr().out
  with pytest.raises(errors.InputError, match="missing or changed on disk"):
    checkpoint.restore_variables(folder, 4)


def damages(path):
  """Yield what may become of a file, each written in its place."""
  whole = path.read_bytes()
  middle = len(whole) // 2
  yield path.unlink()
  for data in (
    b"",
    whole[:middle],
    whole[:-1],
    whole + b"\0",
    bytes([whole[0] ^ 1]) + whole[1:],
    whole[:middle] + bytes([whole[middle] ^ 0x80]) + whole[middle + 1 :],
    whole[:-1] + bytes([whole[-1] ^ 1]),
  ):
    yield path.write_bytes(data)
  path.write_bytes(whole)


def test_damage_to_any_file_is_found_told_and_passed_over(run, capsys):
  folder, _ = run
  newest = folder / "checkpoints" / "4"
  files = sorted(
    p for p in newest.rglob("*") if p.is_file() and p.stat().st_size
  )
  assert len(files) > 8 and newest / sealed.SCORE in files
  for path in files:
    for number, _ in enumerate(damages(path)):
      if path.name == sealed.SUMS and number == 3:
        continue  # a seal without its last line break says the same
      assert sealed.sound_step(folder) == 3, (path, number)
      assert f"skipping checkpoint {newest}" in capsys.readouterr().out
      with pytest.raises(errors.InputError, match=r"checkpoints.4"):
        checkpoint.restore_variables(folder, 4)
  assert sealed.sound_step(folder) == 4


def test_a_sound_checkpoint_that_appeared_meanwhile_is_not_deleted(run):
  folder, checkpoints = run
  with pytest.raises(errors.InputError, match="another process trains there"):
    checkpoints.discard_damaged(after=3)
  assert sealed.sound_step(folder) == 4


def test_a_score_goes_in_after_the_step_and_is_sealed_too(run):
  folder, checkpoints = run
  checkpoints.save(5, make_state(5.0), make_iterator().get_state())
  checkpoints.settle()
  assert sealed.miou(folder, 5) is None
  checkpoints.score(5, 0.95)
  checkpoints.settle()
  assert sealed.miou(folder, 5) == 0.95
  assert sealed.best_step(folder) == 5
  kept = {p.name for p in (folder / "checkpoints").iterdir() if p.is_dir()}
  assert kept == {"4", "5"}  # 2 was the best


def test_an_unsealed_checkpoint_is_passed_over_and_written_again(run):
  folder, checkpoints = run
  (folder / "checkpoints" / "4" / sealed.SUMS).unlink()
  assert sealed.sound_step(folder) == 3
  checkpoints.discard_damaged(after=3)
  checkpoints.save(4, make_state(40.0), make_iterator().get_state())
  checkpoints.settle()
  variables, step = checkpoint.restore_variables(folder)
  assert step == 4
  np.testing.assert_array_equal(variables["params"]["conv"]["kernel"], 40.0)


def test_a_save_between_the_sound_and_a_damaged_step_is_kept(run):
  folder, checkpoints = run
  (folder / "checkpoints" / "4" / sealed.SUMS).unlink()
  (folder / "checkpoints" / "3" / sealed.SUMS).unlink()
  checkpoints.discard_damaged(after=2)
  checkpoints.save(3, make_state(30.0), make_iterator().get_state())
  checkpoints.settle()
  variables, step = checkpoint.restore_variables(folder)
  assert step == 3
  np.testing.assert_array_equal(variables["params"]["conv"]["kernel"], 30.0)


def test_a_run_whose_checkpoints_are_all_damaged_does_not_start_anew(run):
  folder, _ = run
  for seal in (folder / "checkpoints").glob(f"*/{sealed.SUMS}"):
    seal.write_text('{"state/manifest.ocdbt": "0"}')
  with pytest.raises(errors.InputError, match="none of the checkpoints"):
    sealed.sound_step(folder)


def test_an_interrupted_first_checkpoint_is_as_good_as_none(tmp_path):
  (tmp_path / "checkpoints" / "2").mkdir(parents=True)
  assert sealed.sound_step(tmp_path) is None


def test_relative_workdirs_are_read(run, monkeypatch):
  monkeypatch.chdir(run[0].parent)
  _, step = checkpoint.restore_variables(run[0].name)
  assert step == 4


def test_no_checkpoint_is_an_error_that_lists_the_nearest(run, tmp_path):
  elsewhere = run[0].parent / "other"
  with pytest.raises(errors.InputError, match=r"steps 2, 3, 4"):
    checkpoint.restore_variables(elsewhere)
  with pytest.raises(errors.InputError, match="no step 9"):
    checkpoint.restore_variables(run[0], 9)
  with pytest.raises(errors.InputError, match=r"no config.json in .*Nearest"):
    settings.load_config(elsewhere)


def test_variables_equal_on_any_device(run):
  variables, _ = checkpoint.restore_variables(run[0])
  leaf = jax.tree.leaves(variables)[0]
  assert leaf.sharding.device_set == {jax.local_devices()[0]}


def test_hashing_a_large_checkpoint_tells_how_long_it_takes_yet(
  tmp_path, monkeypatch, capsys
):
  start = functools.partialmethod(clocks.Progress.__init__, every=0.0)
  monkeypatch.setattr(clocks.Progress, "__init__", start)
  monkeypatch.setattr(sealed, "CHUNK", 1_000_000)
  content = bytes(range(256)) * 10_000
  (tmp_path / "a").write_bytes(content)
  found = sealed.sums({"name": epath.Path(tmp_path / "a")})
  assert found == {"name": hashlib.sha256(content).hexdigest()}
  lines = capsys.readouterr().out.splitlines()
  assert [line.split()[:3] for line in lines] == [
    ["hashed", part, "MB"] for part in ("1/3", "2/3", "3/3")
  ]
