"""Processes that start together: who is who, and what one finds wrong."""

import shutil
import signal

import pytest

from tests import pod
from tests import runs
from tests.data import trees

pytestmark = pytest.mark.slow  # processes start JAX

UNEVEN = (*runs.SMALL, "--config.train.batch_size=12")


@pytest.fixture
def start(tmp_path):
  """Return a function that starts processes, all of which end with the test."""
  pods = []

  def start(count, *arguments, **keywords):
    arguments = (*arguments, f"--workdir={tmp_path / 'run'}")
    pods.append(
      pod.Pod(tmp_path / f"{len(pods)}", count, "main", *arguments, **keywords)
    )
    return pods[-1]

  yield start
  for started in pods:
    started.kill()


def assert_one_message(started, words, rank=0):
  """Assert that all have ended by a message, and one of them says why."""
  count = len(started.processes)
  assert started.ended(60) == [2] * count, started.said(rank)
  for other in range(count):
    messages = [x for x in started.said(other).splitlines() if words in x]
    assert len(messages) == (other == rank), started.said(other)
    assert "Traceback" not in started.said(other)


def test_a_batch_that_the_devices_do_not_divide_is_told_once(start):
  assert_one_message(
    start(4, *UNEVEN, devices=2),
    "train.batch_size 12 does not divide over 8 devices; use 8 or 16",
  )


def slurm(rank, port):
  return {
    "SLURM_JOB_ID": "71",
    "SLURM_STEP_NODELIST": "127.0.0.1",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": f"{rank}",
    "SLURM_LOCALID": f"{rank}",
    "JAX_COORDINATOR_PORT": f"{port}",
  }


def open_mpi(rank, port):
  return {
    "OMPI_MCA_orte_hnp_uri": "4096.0;tcp://127.0.0.1:7",
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_RANK": f"{rank}",
    "OMPI_COMM_WORLD_LOCAL_RANK": f"{rank}",
    "JAX_COORDINATOR_PORT": f"{port}",
  }


def kubernetes(rank, port):
  """As a container of the manifest of docs/pods.md has it."""
  return {
    "KUBERNETES_SERVICE_HOST": "127.0.0.1",
    "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
    "JAX_NUM_PROCESSES": "2",
    "JAX_PROCESS_ID": f"{rank}",
  }


@pytest.mark.parametrize("known", [slurm, open_mpi, kubernetes])
def test_the_environment_of_a_cluster_tells_who_is_who(start, known):
  words = "train.batch_size 3 does not divide over 2 devices; use 2 or 4"
  run = (*runs.SMALL, "--config.train.batch_size=3")
  started = start(2, *run, known=known)
  assert_one_message(started, words)
  # Nor does JAX miss its package of that name.
  assert "Kubernetes" not in started.said(0) + started.said(1)


def own_data(tmp_path, images=6):
  """Return two equal copies of a data set, and the flags of a run on it."""
  first = trees.folder(tmp_path / "first", images=images)
  second = shutil.copytree(first, tmp_path / "second")
  run = (
    *runs.SMALL,
    "--config.data.name=folder",
    "--config.train.total_steps=200",
    "--config.checkpoint.every=100",
  )
  return run, (first, second)


def roots(folders):
  return lambda rank: [f"--config.data.root={folders[rank]}"]


def test_data_that_one_host_lacks_ends_all(start, tmp_path):
  run, (first, second) = own_data(tmp_path)
  second.rename(tmp_path / "elsewhere")
  started = start(2, *run, own=roots((first, second)))
  assert started.ended(60) == [2, 2], started.said(0)
  assert "second" in started.said(1)
  assert "process 1 of 2" in started.said(0) and "second" in started.said(0)


def test_other_data_on_one_host_is_told_once(start, tmp_path):
  run, folders = own_data(tmp_path)
  for kind in ("images/train/05.jpg", "labels/train/05.png"):
    (folders[1] / kind).unlink()
  assert_one_message(
    start(2, *run, own=roots(folders)), "process 1 has 5 images and the first"
  )


def test_a_mask_in_one_process_share_is_named_once(start, tmp_path):
  run, folders = own_data(tmp_path)
  trees.mask(folders[1] / "labels/train/03.png", trees.labels(0, 77))
  rule = "--config.train.class_weights=median_frequency"
  assert_one_message(
    start(2, *run, rule, own=roots(folders)), "labels/train/03.png"
  )


def test_an_image_that_one_cannot_read_in_training_ends_all(start, tmp_path):
  run, folders = own_data(tmp_path, images=40)
  path = folders[1] / "images/train/07.jpg"
  path.write_bytes(path.read_bytes()[:200])
  started = start(2, *run, own=roots(folders))
  started.wait_for("step 1/")
  assert started.ended(120) == [2, 2], started.said(0) + started.said(1)
  assert "images/train/07.jpg is not a whole picture" in started.said(1)
  assert "another one has ended" in started.said(0)
  assert "Traceback" not in started.said(0) + started.said(1)


def test_ctrl_c_before_training_ends_all(start):
  started = start(2, *runs.SMALL)
  started.wait_for("compiling the training step")
  started.send(1, signal.SIGINT)
  first, second = started.ended(60)
  assert second == 130 and "stopped by Ctrl-C" in started.said(1)
  assert first == 2 and "another one has ended" in started.said(0)
