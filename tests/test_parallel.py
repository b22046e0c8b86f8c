"""The mapped step: 8 devices, one device and literal jax.pmap agree."""

import jax
import numpy as np
import pytest

from deeplax import errors
from deeplax import parallel
from tests import commands
from tests import processes


@pytest.fixture(scope="module")
def printed():
  """Return what eight_devices prints on so many CPU devices, by name."""
  lines = commands.on_devices(
    "tests.training.eight_devices", 8, flags=commands.COMPILER
  ).splitlines()
  pairs = (line.split(": ") for line in lines)
  return {name: float(value) for name, value in pairs}


def test_every_switch_gives_the_same_run_on_one_and_four_devices(printed):
  for name in ("weights, average and dropout", "parts", "hard"):
    # Rounding of three updates at a rate of 0.5.
    assert printed[name] < 1e-5, name


def test_eight_devices_equal_literal_pmap(printed):
  # The same program in two spellings: sums may be ordered differently.
  assert printed["pmap"] < 1e-5


def test_eight_devices_equal_one_with_uneven_ignored_pixels(printed):
  # Sums over 16 examples against sums of 8 sums, through three updates.
  assert printed["one"] < 1e-5
  assert printed["momentum"] < 1e-5


def test_a_checkpoint_of_eight_devices_opens_on_one(printed):
  assert printed["restored"] == 0


def test_losses_agree(printed):
  losses = [printed[f"loss of {name}"] for name in ("eight", "pmap", "one")]
  np.testing.assert_allclose(losses, losses[0], rtol=1e-5)


def test_arrays_of_all_are_stacked_with_every_bit(monkeypatch):
  several = processes.Processes(monkeypatch, 3)
  for array in (
    np.array([[2**40 + 3, -1]], np.int64),
    np.array([0.1], np.float64),
  ):
    for found in several.run(lambda rank, x=array: parallel.of_all(x + rank)):
      expected = np.stack([array + rank for rank in range(3)])
      np.testing.assert_array_equal(found, expected)
      assert found.dtype == expected.dtype
  numbers = several.run(lambda rank: parallel.gathered(2**40 + rank))
  assert numbers == [[2**40, 2**40 + 1, 2**40 + 2]] * 3
  sums = several.run(lambda rank: parallel.summed(np.array([rank, 2**60])))
  np.testing.assert_array_equal(sums[2], [3, 3 * 2**60])


def test_the_first_process_finds_for_all(monkeypatch):
  for found in (7, None, ["ä", 0.1, True]):
    assert parallel.of_first(lambda x=found: x) == found
  several, asked = processes.Processes(monkeypatch, 3), []

  def find():
    asked.append(parallel.rank())
    return ["ä", 0.1]

  assert several.run(lambda _: parallel.of_first(find)) == [["ä", 0.1]] * 3
  assert asked == [0]


def test_what_the_first_finds_wrong_all_raise(monkeypatch):
  def find():
    raise errors.InputError("/data/ä.png is cut off")

  several = processes.Processes(monkeypatch, 3)
  for error in several.run(lambda _: parallel.of_first(find)):
    assert isinstance(error, parallel.Told)
    assert str(error) == "/data/ä.png is cut off"


def test_each_keeps_its_own_result_unless_one_fails(monkeypatch):
  several = processes.Processes(monkeypatch, 3)

  def work(rank, broken):
    if rank in broken:
      raise errors.InputError(f"/data/{rank}.png is cut off")
    return rank

  def run(*broken):
    return several.run(lambda rank: parallel.agreed(lambda: work(rank, broken)))

  assert run() == [0, 1, 2]
  for error in run(1, 2):
    assert isinstance(error, parallel.Told)
    assert str(error).startswith("process 1 of 3 on ")
    assert str(error).endswith(": /data/1.png is cut off")


def test_what_all_find_alike_is_no_fault_of_one(monkeypatch):
  def work():
    raise errors.InputError("/data/ä.png is cut off")

  several = processes.Processes(monkeypatch, 3)
  for error in several.run(lambda _: parallel.agreed(work)):
    assert isinstance(error, parallel.Told)
    assert str(error) == "/data/ä.png is cut off"


@pytest.mark.parametrize("broken", [(0, 1), (1,)])
def test_what_one_finds_before_it_joins_is_said_once(
  monkeypatch, capsys, broken
):
  several = processes.Processes(monkeypatch, 2)
  monkeypatch.setattr(parallel, "join_hosts", lambda: None)
  monkeypatch.setattr(parallel, "LAST", 0.0)
  ends, left = [], SystemExit  # of a thread, in place of its process

  def end(status):
    ends.append(status)
    raise left

  monkeypatch.setattr(parallel.os, "_exit", end)

  def start(rank):
    error = errors.InputError(f"/data/{rank}.png is cut off")
    try:
      if rank in broken:
        parallel.end_all(error)
      with parallel.ended_together():
        parallel.agreed(lambda: None)
    except left:
      return

  several.run(start)
  assert ends == [2, 2]
  said = capsys.readouterr().err
  for rank in broken:
    line = f"deeplax: /data/{rank}.png is cut off\nWaiting for the other"
    assert said.count(line) == 1
  by_first = "deeplax: process 1 of 2 on "
  assert said.count(by_first) == (0 not in broken)
  assert said.count("is cut off") == 2


GONE = (
  "UNKNOWN: Gloo all-reduce failed: [external/gloo/gloo/transport/tcp/pair.cc:"
  "538] Read error [127.0.0.1]:46817: Connection reset by peer",
  "INTERNAL: NCCL operation ncclGroupEnd() failed: remote process exited or "
  "there was a network error. Last NCCL warning(error) log entry (may be "
  "unrelated) ''.",
  "UNAVAILABLE: Failed to send RPC to coordination service. Either the leader "
  "task was preempted/died/restarted unexpectedly",
)
OWN = (
  "INTERNAL: NCCL operation ncclCommInitRank(...) failed: invalid usage",
  "UNAVAILABLE: no kernel image for this device",
  "DEADLINE_EXCEEDED: the compiler took too long",
  "INVALID_ARGUMENT: gloo has no int4",
  "the connection closed",
)


@pytest.mark.parametrize("text", GONE)
def test_the_loss_of_another_process_is_one_message(monkeypatch, capsys, text):
  monkeypatch.setattr(jax, "process_count", lambda: 4)
  monkeypatch.setattr(jax, "process_index", lambda: 3)
  input_error = errors.InputError(text)
  input_error.__cause__ = ValueError(text)
  # As a checkpoint's, for whose other parts Orbax waits.
  timeout = TimeoutError("Timed out while waiting for a barrier")
  timeout.__cause__ = jax.errors.JaxRuntimeError(text)
  unsaved = errors.InputError("step 6 could not be saved. Make room there")
  unsaved.__cause__ = timeout
  for error in (
    jax.errors.JaxRuntimeError(text),
    ValueError(text),
    input_error,
    timeout,
    unsaved,
  ):
    status, said = parallel._last_words(error)
    assert status == 2 and said.startswith("process 3 of 4 on ")
    assert f"another one has ended or cannot be reached ({text[:30]}" in said
    assert "Make room" not in said
  assert not capsys.readouterr().err


@pytest.mark.parametrize("text", OWN)
def test_an_error_of_ones_own_is_shown_whole(capsys, text):
  for error in (jax.errors.JaxRuntimeError(text), OSError(GONE[0])):
    status, said = parallel._last_words(error)
    assert status == 2 and said.endswith(f": {error}")
    assert str(error) in capsys.readouterr().err


def test_last_words_are_said_once(monkeypatch, capsys):
  monkeypatch.setattr(jax, "process_count", lambda: 4)
  told = parallel.Told("1.png is cut off")
  assert parallel._last_words(told) == (2, "1.png is cut off")
  monkeypatch.setattr(jax, "process_index", lambda: 3)
  assert parallel._last_words(told) == (2, "")
  status, said = parallel._last_words(KeyboardInterrupt())
  assert status == 130 and said.endswith("stopped by Ctrl-C")
  _, said = parallel._last_words(errors.InputError("2.png is cut off"))
  assert said.startswith("process 3 of 4 on ")
  assert said.endswith(": 2.png is cut off")
  assert not capsys.readouterr().err


def test_a_process_that_knows_too_little_is_told_what_to_give(monkeypatch):
  for key in ("COORDINATOR_ADDRESS", "NUM_PROCESSES", "PROCESS_ID"):
    monkeypatch.delenv(f"JAX_{key}", raising=False)

  def initialize(**known):
    assert known == {"process_id": 1, "heartbeat_timeout_seconds": 30}
    raise ValueError("coordinator_address should be defined.")

  monkeypatch.setattr(jax.distributed, "initialize", initialize)
  with pytest.raises(errors.InputError, match="--coordinator_address=HOST"):
    parallel.join_hosts(process_id=1)


@pytest.mark.parametrize("on_host", ["", "SLURM_LOCALID"])
def test_a_cluster_is_asked_only_for_what_is_not_known(monkeypatch, on_host):
  known = {"coordinator_address": "a:1", "num_processes": 2, "process_id": 1}
  if on_host:
    monkeypatch.setenv(on_host, "1")  # which device is this process's
  calls = []
  monkeypatch.setattr(
    jax.distributed, "initialize", lambda **words: calls.append(words)
  )
  parallel.join_hosts(**known)
  method = calls[0].get("cluster_detection_method")
  assert method == (None if on_host else "deactivate")
  assert calls[0].items() >= known.items()
