"""The step and its loop, without a data set."""

import jax
import numpy as np
import pytest

from deeplax import errors
from deeplax import logs
from deeplax import state as state_lib
from deeplax import train


def test_periodic_things_happen_on_time_and_at_the_end():
  assert [s for s in range(1, 8) if train.due(s, 3, 7)] == [3, 6, 7]
  assert [s for s in range(1, 8) if train.due(s, 0, 7)] == [7]


@pytest.mark.parametrize(
  ("values", "message"),
  [
    ({"illegal": 3.0, "loss": 1.0}, "steps 1 to 10: 3 pixels per batch have"),
    ({"illegal": 0.0, "loss": float("nan")}, "the loss is nan. Lower"),
    ({"illegal": 0.0, "loss": float("inf")}, "the loss is inf"),
  ],
)
def test_illegal_labels_and_lost_runs_stop_with_the_steps(values, message):
  with pytest.raises(errors.InputError, match=message):
    train.check(values, first=1, last=10)


def test_step_metrics_average_over_steps():
  metrics = [
    train.StepMetrics.single_from_model_output(
      loss=jax.numpy.float32(x), pixel_accuracy=0.5, illegal=0
    )
    for x in (1.0, 3.0)
  ]
  values = metrics[0].merge(metrics[1]).compute()
  np.testing.assert_allclose(values["loss"], 2.0)


def test_durations_read_as_clocks():
  assert logs.duration(45.2) == "45 s"
  assert logs.duration(725.0) == "12:05"
  assert logs.duration(11525.0) == "3:12:05"
  assert logs.duration(float("inf")) == "?"


def test_the_log_is_cut_back_to_the_restored_step(tmp_path):
  path = tmp_path / "metrics.jsonl"
  log = logs.MetricLog(path, resume_step=0, write=True)
  for step in (10, 20, 30):
    log.write(step, {"loss": 1.0 / step})
  with path.open("a") as file:
    file.write('{"step": 40, "lo')  # killed while writing
  logs.MetricLog(path, resume_step=20, write=True)
  assert [line["step"] for line in logs.read_jsonl(path)] == [10, 20]


def test_a_torn_line_does_not_swallow_the_next(tmp_path):
  path = tmp_path / "metrics.jsonl"
  path.write_text('{"step": 10}\n{"step": 20}\n{"step": 30, "lo')
  log = logs.MetricLog(path, resume_step=20, write=True)
  log.write(30, {})
  log.write(40, {})
  assert [line["step"] for line in logs.read_jsonl(path)] == [10, 20, 30, 40]


def test_parameters_that_are_not_finite_are_not_saved():
  state = state_lib.State(
    step=1,
    params={"a": jax.numpy.ones(2), "b": jax.numpy.array([1.0, jax.numpy.nan])},
    batch_stats={},
    opt_state=(),
    rng=None,
  )
  with pytest.raises(errors.InputError, match="step 7: some parameters"):
    train.refuse_lost(state, step=7)


def test_json_is_written_whole_or_not_at_all(tmp_path):
  path = tmp_path / "a" / "b.json"
  logs.write_json(path, {"miou": 0.5})
  with pytest.raises(TypeError):
    logs.write_json(path, {"miou": object()})
  assert "0.5" in path.read_text()
  assert [p.name for p in path.parent.iterdir()] == ["b.json"]
