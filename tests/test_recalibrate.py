"""Norm statistics measured anew, against plain counts."""

from etils import epath
import jax
import numpy as np
import pytest

from configs import quickstart
from deeplax import parallel
from deeplax.data import spec as spec_lib
from deeplax.models import build
from deeplax.models import variables as variables_lib
from deeplax.training import norm_statistics
from deeplax.training import optim
from deeplax.training import state as state_lib
from deeplax.workdir import checkpoint
from deeplax.workdir import saves
from deeplax.workdir import settings
from tests import runs
from tests.commands import command
from tests.models import networks


@pytest.fixture(scope="module", autouse=True)
def _short():
  with networks.shorten():
    yield


def batches(count=3, size=(4, 33, 33, 3)):
  rng = np.random.default_rng(0)
  return [
    rng.integers(0, 256, size).astype(np.uint8) // (1 + i) for i in range(count)
  ]


@pytest.fixture(scope="module")
def measured():
  config = networks.config(**networks.SMALL)
  norm_statistics.keep_one_batch(config.batch_norm)
  model = build.from_config(config, num_classes=3)
  variables = variables_lib.initial_variables(model, seed=0)
  return model, variables, norm_statistics.measured(model, variables, batches())


def test_the_first_norm_has_the_statistics_of_all_pixels(measured):
  _, variables, stats = measured
  kernel = variables["params"]["backbone"]["conv"]["kernel"]
  outputs = np.concatenate(
    [
      jax.lax.conv_general_dilated(
        x.astype(np.float32) / 127.5 - 1,
        kernel,
        (2, 2),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
      )
      for x in batches()
    ]
  )
  found = stats["backbone"]["conv"]
  np.testing.assert_allclose(
    found["mean"], outputs.mean((0, 1, 2)), rtol=1e-4, atol=1e-5
  )
  # Each batch's variance is the unbiased one: n / (n - 1) of 1,156 pixels.
  np.testing.assert_allclose(
    found["var"], outputs.var((0, 1, 2)), rtol=2e-3, atol=1e-6
  )


def test_evaluation_agrees_with_training_on_the_measured_batch(measured):
  model, variables, _ = measured
  (batch,) = batches(count=1)
  stats = norm_statistics.measured(model, variables, [batch])
  one = {**variables, "batch_stats": stats}

  @jax.jit
  def outputs(variables):
    rngs = {"dropout": jax.random.key(0)}
    trained, _ = model.apply(
      variables,
      batch,
      train=True,
      method=lambda m, x, train: m._features(x, train=train)["low4"],
      mutable=["batch_stats"],
      rngs=rngs,
    )
    evaluated = model.apply(
      variables,
      batch,
      train=False,
      method=lambda m, x, train: m._features(x, train=train)["low4"],
    )
    return trained, evaluated

  trained, evaluated = outputs(one)
  # Training divides by the biased variance, evaluation by the unbiased one:
  # at 4 x 9 x 9 values per channel 0.3 % in each norm, more further down.
  scale = np.abs(trained).max()
  np.testing.assert_allclose(trained, evaluated, atol=0.03 * scale)
  before = outputs(variables)
  assert np.abs(before[0] - before[1]).max() > 0.3 * scale


def test_the_norms_that_moved_farthest_come_first():
  old = {n: {"mean": np.zeros(2), "var": np.ones(2)} for n in ("a", "b", "c")}
  new = {n: dict(v) for n, v in old.items()}
  new["b"]["mean"] = np.full(2, 3.0)
  new["c"]["var"] = np.full(2, 4.0)
  rows = norm_statistics.moved(old, new)
  assert [name for name, _, _ in rows] == ["b", "c", "a"]
  np.testing.assert_allclose(rows[0][1:], [3.0, 1.0], rtol=1e-5)
  np.testing.assert_allclose(rows[1][1:], [0.0, 2.0], rtol=1e-5)


@pytest.mark.parametrize(
  ("seconds", "first"), [(2.0, "ETA 2:12"), (15.0, "ETA 17:00")]
)
def test_the_time_left_is_known_from_the_first_line_on(seconds, first):
  # 70 batches of 8; the first takes 60 s more, to compile.
  clock, said = [0.0], []
  given = ({"image": np.zeros((8, 1, 1, 3))} for _ in range(100))
  lengths = []
  for images in norm_statistics.counted(
    given, 70, said.append, now=lambda: clock[0]
  ):
    lengths.append(len(images))
    clock[0] += seconds + 60 * (len(lengths) == 1)
  assert lengths == [8] * 70
  assert first in said[0], said[0]
  left = [line for line in said if "ETA 0 s" in line]
  assert left == [said[-1]] and said[-1].startswith("measured 552/552 images")


@pytest.mark.slow  # trains
def test_training_can_go_on_in_what_was_written(tmp_path):
  config = quickstart.get_config("debug")
  config.model = networks.config(**networks.SMALL)
  config.optim.ema_decay = 0.9
  spec = spec_lib.Spec("toy", ("a", "b"), ((0, 0, 0), (9, 9, 9)))
  model = build.from_config(config.model, num_classes=2)
  variables = variables_lib.initial_variables(model, seed=0)
  workdir, out = epath.Path(tmp_path / "run"), epath.Path(tmp_path / "new")
  settings.write_run_files(workdir, config, spec, {}, lambda _: None)
  stats = jax.tree.map(lambda x: x + 1, variables["batch_stats"])
  given = {**variables, "batch_stats": stats}
  norm_statistics.save(str(workdir), out, given, 3)

  found, step = checkpoint.restore_variables(out)
  assert step == 3
  jax.tree.map(np.testing.assert_array_equal, found, given)
  _, tx = optim.optimizer(config)
  fresh = state_lib.create(variables, tx, seed=0, average=True)

  class Data:
    def set_state(self, value):
      self.value = value

  data = Data()
  state = saves.Checkpoints(out, keep=2).restore(
    3, fresh, data, sharding=parallel.replicated(parallel.mesh())
  )
  assert int(state.step) == 3 and data.value == {"next_index": 0}
  jax.tree.map(np.testing.assert_array_equal, state.trained, given)
  jax.tree.map(np.testing.assert_array_equal, state.variables, given)


@pytest.mark.slow  # 10 s: two commands, each tracing a network
def test_the_command_writes_a_workdir_of_its_own(trained_copy):
  workdir = trained_copy
  out = workdir.with_name(f"{workdir.name}_recalibrated")
  before = checkpoint.restore_variables(workdir)[0]
  flags = f"--workdir={workdir}", "--batches=2"
  done = command("recalibrate", *flags, short=True)
  assert done.returncode == 0, done.stderr
  assert f"--workdir={out}" in done.stdout
  again = checkpoint.restore_variables(workdir)[0]
  jax.tree.map(np.testing.assert_array_equal, before, again)
  after, step = checkpoint.restore_variables(out)
  assert step == runs.TOTAL_STEPS
  jax.tree.map(np.testing.assert_array_equal, before["params"], after["params"])
  old, new = before["batch_stats"], after["batch_stats"]
  assert norm_statistics.moved(old, new)[-1][1] > 0
  scored = command("evaluate", f"--workdir={out}", short=True)
  assert scored.returncode == 0 and "mIoU" in scored.stdout
  refused = command("recalibrate", *flags)
  assert refused.returncode == 2 and "holds a run already" in refused.stderr


@pytest.mark.parametrize(
  ("out", "told"),
  [
    ("file", "is a file; name a folder"),
    ("file/below", "cannot be written: Not a directory. Name a folder of"),
  ],
)
def test_a_folder_that_cannot_be_written_is_told_before_the_work(
  trained, tmp_path, out, told
):
  (tmp_path / "file").touch()
  flags = (f"--workdir={trained.workdir}", f"--out={tmp_path / out}")
  done = command("recalibrate", *flags, short=True)
  assert done.returncode == 2
  assert f"--out={tmp_path / out} {told}" in done.stderr
  assert "batches" not in done.stdout
