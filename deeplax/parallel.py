"""Hosts and devices: functions mapped over all of them, and their arrays.

`pmap` does what `jax.pmap` has done since JAX 0.8: jit over shard_map on a mesh
of one axis. As there, `check_vma` is False: under the default the gradient of a
replicated parameter arrives already summed, and the step's own psum would count
it again.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import json
import os
import re
import socket
import sys
import time
import traceback
from typing import Any, NoReturn, TypeVar

import jax
from jax.experimental import multihost_utils
from jax.sharding import (
  AbstractMesh,
  AxisType,
  Mesh,
  NamedSharding,
  PartitionSpec,
)
import numpy as np
import psutil

from deeplax import commands
from deeplax import errors

T = TypeVar("T")
AXIS = "batch"
# Seconds of silence after which a process counts as gone.
HEARTBEAT = 30
# Where JAX reads which of its host's devices are a process's own.
_ON_HOST = {"SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK"}
# Seconds that the first process outlives its last message.
LAST = 1.0
# What JAX, Gloo and NCCL say of one that is, and of no other error.
_GONE = re.compile(
  r"[A-Z_]+: .*(?:connection (?:closed|reset|refused)|broken pipe|timed out"
  r"|socket closed|remote process exited|heartbeat|coordination service)",
  re.IGNORECASE | re.DOTALL,
)
# An array that every device holds whole, and one whose rows they share.
WHOLE, ROWS = PartitionSpec(), PartitionSpec(AXIS)


def join_hosts(**known: Any) -> None:
  """Connect the processes of all hosts.

  JAX finds what is not known on Cloud TPU, Slurm, Open MPI and the like.

  Args:
    **known: coordinator_address (host:port of the first), num_processes,
      process_id (from 0), as `config_flag.process` returns them.

  Raises:
    InputError: JAX found no other host and too little is known.
  """
  if len(known) == 3 and not _ON_HOST & os.environ.keys():
    # Nothing is missing, and in a pod of Kubernetes without a token JAX fails
    # when it looks for more.
    known["cluster_detection_method"] = "deactivate"
  try:
    jax.distributed.initialize(**known, heartbeat_timeout_seconds=HEARTBEAT)
  except ValueError as error:
    raise errors.InputError(
      f"--multihost: {error} Give --coordinator_address=HOST:PORT, "
      "--num_processes and --process_id on every host, or set "
      "JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID"
    ) from error
  except RuntimeError as error:
    if not _gone(error):
      raise
    raise errors.InputError(
      f"--multihost: the other processes did not answer ({error}). Start the "
      "same command on every host, with the address of the first"
    ) from error


def end_all(error: errors.InputError, **known: Any) -> NoReturn:
  """End all processes with what one has found before it joined them.

  Args:
    error: Printed here at once: the others may never come.
    **known: See `join_hosts`.
  """
  _tell(f"{error}\nWaiting for the other processes, to end them too")

  def fail() -> None:
    raise error

  join_hosts(**known)
  with ended_together():
    if processes() > 1:
      try:
        agreed(fail)
      except Told:
        raise Told("") from None  # the first process has told its own error
  sys.exit(2)


class Told(errors.InputError):
  """Wrong input that all processes know of; the first one says it."""


def stop_together(call: int) -> bool:
  """Return whether all of several processes are to stop here.

  SIGTERM to one of them reaches all; they agree on a call that none of them has
  made yet, without waiting for each other.

  Args:
    call: The number of this call, from 1. All processes call at the same places
      of the run, however they share the work between two of them.
  """
  return multihost_utils.reached_preemption_sync_point(call)


@contextlib.contextmanager
def ended_together() -> Iterator[None]:
  """End a process of several at once when the block fails.

  Otherwise it would wait, at its end, for the others, who wait for it in a sum
  over all devices. They fail when it is gone; an error that says so becomes one
  message.
  """
  try:
    yield
  except BaseException as error:
    if jax.process_count() == 1 or isinstance(error, SystemExit):
      raise
    status, text = _last_words(error)
    if text:
      _tell(text)
    sys.stdout.flush()
    if rank() == 0:
      # JAX ends the others with a screen of its own when the first is gone.
      time.sleep(LAST)
    os._exit(status)


def _tell(text: str) -> None:
  print(f"deeplax: {commands.as_typed(text)}", file=sys.stderr, flush=True)


def _last_words(error: BaseException) -> tuple[int, str]:
  """Return the exit status of a process that fails, and its message."""
  if isinstance(error, KeyboardInterrupt):
    return errors.INTERRUPTED, f"{_name()}: stopped by Ctrl-C"
  if isinstance(error, Told):
    return 2, str(error) if rank() == 0 else ""
  if gone := _gone(error):
    return 2, (
      f"{_name()}: another one has ended or cannot be reached "
      f"({gone.splitlines()[0][:200]}); its own output says more. Start "
      "all of them again: the same command goes on from the last checkpoint, "
      "on any number of processes"
    )
  if not isinstance(error, errors.InputError):
    traceback.print_exception(error)
  return 2, f"{_name()}: {error}"


def _gone(error: BaseException | None) -> str:
  """Return what an error or a cause of it says of a lost process, or ""."""
  # JAX raises either; Orbax and `errors.input_errors` raise others from them.
  kinds = jax.errors.JaxRuntimeError | ValueError
  while error is not None:
    if isinstance(error, kinds) and _GONE.match(str(error)):
      return str(error)
    error = error.__cause__
  return ""


def _name() -> str:
  """Return what tells this process from the others, for messages."""
  return f"process {rank()} of {jax.process_count()} on {socket.gethostname()}"


def rank() -> int:
  """Return this process's number, 0 for the first."""
  return jax.process_index()


def processes() -> int:
  """Return the number of processes."""
  return jax.process_count()


def of_all(array: np.ndarray) -> np.ndarray:
  """Return the arrays of all processes, stacked; all of them call this.

  Args:
    array: Of one shape and type on all.
  """
  if jax.process_count() == 1:
    return array[None]
  # As bytes, since JAX cuts 64 bits to 32.
  own = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
  found = np.asarray(multihost_utils.process_allgather(own))
  rows = np.frombuffer(found.tobytes(), array.dtype)
  return rows.reshape(jax.process_count(), *array.shape)


def summed(counts: np.ndarray) -> np.ndarray:
  """Return the sum of the counts of all processes; all of them call this."""
  return of_all(counts).sum(axis=0)


def gathered(number: int) -> list[int]:
  """Return a number from 0 to 2^63 of every process; all of them call this."""
  return of_all(np.array([number], np.int64))[:, 0].tolist()


def of_first(find: Callable[[], T]) -> T:
  """Return what `find` returns on the first process, on all of them.

  Args:
    find: Is called on the first process alone; returns what JSON can hold.

  Raises:
    InputError: Raised by `find`, on all processes.
  """
  if jax.process_count() == 1:
    return find()
  text = ""
  if rank() == 0:
    try:
      text = json.dumps({"found": find()})
    except errors.InputError as error:
      text = json.dumps({"wrong": str(error)})
  told = json.loads(_text_of(0, text))
  if "wrong" in told:
    raise Told(told["wrong"])
  return told["found"]


def agreed(work: Callable[[], T]) -> T:
  """Return what `work` returns here, or fail on all processes.

  Args:
    work: This process's share of some work; exchanges nothing.

  Raises:
    InputError: Raised by `work` on the first process where it was, which is
      named unless all have raised the same.
  """
  if jax.process_count() == 1:
    return work()
  result: Any = None
  wrong = ""
  try:
    result = work()
  except errors.InputError as error:
    wrong = str(error)
  failed = [r for r, does in enumerate(gathered(bool(wrong))) if does]
  if failed:
    text, name = (_text_of(failed[0], own) for own in (wrong, _name()))
    raise Told(text if all(gathered(wrong == text)) else f"{name}: {text}")
  return result


def _text_of(source: int, text: str) -> str:
  """Return the text of one process on all of them."""
  size = gathered(len(text.encode()))[source]
  data = np.zeros(size, np.uint8)
  if rank() == source:
    data[:] = np.frombuffer(text.encode(), np.uint8)
  data = multihost_utils.broadcast_one_to_all(data, rank() == source)
  return bytes(np.asarray(data)).decode()


def mesh(devices: Sequence[Any] | None = None) -> Mesh:
  """Return the mesh of `devices`, by default all of every process."""
  devices = jax.devices() if devices is None else devices
  # make_mesh's default, explicit axes, refuses NumPy arrays as inputs.
  return Mesh(np.asarray(devices), (AXIS,), axis_types=(AxisType.Auto,))


def mapped(
  function: Callable,
  *,
  mesh: Mesh | AbstractMesh,
  inputs: Sequence[PartitionSpec],
  outputs: PartitionSpec,
) -> Callable:
  """Return `function`, written for one device, mapped over the mesh.

  Args:
    function: Of arrays, or trees of them.
    mesh: Of one axis, from `mesh()`; an abstract one to trace for devices that
      are not there.
    inputs: WHOLE or ROWS for each argument; under WHOLE all devices get it all.
    outputs: WHOLE if the function returns equal values on every device, or
      ROWS.
  """
  return jax.shard_map(
    function,
    mesh=mesh,
    in_specs=tuple(inputs),
    out_specs=outputs,
    check_vma=False,
  )


def pmap(step: Callable, *, mesh: Mesh | AbstractMesh) -> Any:
  """Map `step(state, batch)`, written for one device, over the mesh.

  Args:
    step: Uses the axis name `AXIS`; must return equal values on every device.
    mesh: See `mapped`.

  Returns:
    A jitted function: replicated state, whose memory the new state takes over,
    and batch split along its first axis.
  """
  step = mapped(step, mesh=mesh, inputs=(WHOLE, ROWS), outputs=WHOLE)
  return jax.jit(step, donate_argnums=0)


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
  """Return the sharding of arrays that every device holds whole."""
  return NamedSharding(mesh, WHOLE)


def split(mesh: Mesh | AbstractMesh) -> NamedSharding:
  """Return the sharding of arrays whose rows are spread over the devices."""
  return NamedSharding(mesh, ROWS)


def replicate(tree: Any, *, mesh: Mesh) -> Any:
  """Copy a host tree, equal on every process, to every device."""
  return jax.device_put(tree, replicated(mesh))


def shard(batch: dict[str, np.ndarray], *, mesh: Mesh) -> dict[str, jax.Array]:
  """Return global arrays made of this process's rows of the batch."""
  return {
    key: jax.make_array_from_process_local_data(split(mesh), rows)
    for key, rows in batch.items()
  }


def local(tree: Any) -> Any:
  """Return one device's copy of a replicated tree."""
  return jax.tree.map(lambda x: x.addressable_data(0), tree)


def on_own_devices(tree: Any, *, mesh: Mesh) -> Any:
  """Return arrays that each device of a mesh of this process holds whole.

  Args:
    tree: Host arrays, or arrays replicated over any devices; copies that a
      device of the mesh has are used as they are.
    mesh: Of devices of this process.
  """
  everywhere, devices = replicated(mesh), set(mesh.devices.flat)

  def placed(x: Any) -> jax.Array:
    if not isinstance(x, jax.Array):
      return jax.device_put(x, everywhere)
    copies = {s.device: s.data for s in x.addressable_shards}
    if devices <= copies.keys():
      return jax.make_array_from_single_device_arrays(
        x.shape, everywhere, [copies[d] for d in mesh.devices.flat]
      )
    return jax.device_put(x.addressable_data(0), everywhere)

  return jax.tree.map(placed, tree)


def memory_needed(compiled: Any) -> int:
  """Return the bytes that one device needs to run a compiled program."""
  use = compiled.memory_analysis()
  # Results that take over the memory of arguments count once.
  return (
    use.temp_size_in_bytes
    + use.argument_size_in_bytes
    + use.output_size_in_bytes
    - use.alias_size_in_bytes
  )


def memory_free(mesh: Mesh) -> int:
  """Return the bytes free on one device; CPU devices share the host's."""
  device = mesh.local_devices[0]
  if device.platform == "cpu":
    return psutil.virtual_memory().available // len(mesh.local_devices)
  stats = device.memory_stats() or {}
  return stats.get("bytes_limit", sys.maxsize) - stats.get("bytes_in_use", 0)
