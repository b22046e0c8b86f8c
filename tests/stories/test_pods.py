"""A run of several processes: stopped together, killed, gone on with."""

import json
import signal

import pytest

from tests import pod
from tests import runs

pytestmark = pytest.mark.slow  # processes start JAX and compile

STEPS = 20
RUN = (
  *runs.SMALL,
  "--config.train.batch_size=4",
  f"--config.train.total_steps={STEPS}",
  "--config.checkpoint.every=5",
  "--config.log.every=1",
)


def losses(workdir):
  lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
  return {line["step"]: line["loss"] for line in lines if "loss" in line}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
  """The run of two processes that nobody stops."""
  folder = tmp_path_factory.mktemp("undisturbed")
  started = pod.Pod(folder, 2, "main", *RUN, f"--workdir={folder / 'run'}")
  assert started.ended() == [0, 0], started.said(0)[-3000:]
  # The first process alone talks; Gloo, which carries sums, does so as well.
  lines = started.said(1).splitlines()
  assert not [line for line in lines if not line.startswith("[Gloo]")]
  return folder / "run"


def test_a_notice_to_one_process_saves_and_ends_all(undisturbed, tmp_path):
  workdir = tmp_path / "run"
  started = pod.Pod(tmp_path, 2, "main", *RUN, f"--workdir={workdir}")
  started.wait_for("step 7/")
  started.send(1, signal.SIGTERM)
  assert started.ended() == [0, 0], started.said(0)[-3000:]
  assert "the same command goes on from there" in started.said(0)
  again = pod.Pod(tmp_path / "2", 2, "main", *RUN, f"--workdir={workdir}")
  assert again.ended() == [0, 0], again.said(0)[-3000:]
  assert "resuming from step" in again.said(0)
  assert losses(workdir) == losses(undisturbed)
  runs.assert_same_parameters(workdir, undisturbed)


def test_when_one_is_killed_the_others_end_with_one_message(
  undisturbed, tmp_path
):
  workdir = tmp_path / "run"
  started = pod.Pod(tmp_path, 2, "main", *RUN, f"--workdir={workdir}")
  started.wait_for("step 7/")
  started.send(1, signal.SIGKILL)
  first, second = started.ended(60)
  assert (first, second) == (2, -signal.SIGKILL)
  told = [s for s in started.said(0).splitlines() if s.startswith("deeplax: ")]
  assert "another one has ended or cannot be reached" in told[-1]
  assert "Traceback" not in started.said(0)
  # On another number of processes: the same losses to rounding, at first.
  again = pod.Pod(tmp_path / "1", 1, "main", *RUN, f"--workdir={workdir}")
  assert again.ended() == [0], again.said(0)[-3000:]
  expected, found = losses(undisturbed), losses(workdir)
  assert found.keys() == expected.keys()
  for step in (6, 7):
    assert found[step] == pytest.approx(expected[step], rel=1e-3), step
