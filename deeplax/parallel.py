"""Hosts and devices: functions mapped over all of them, and their arrays.

`pmap` does what `jax.pmap` has done since JAX 0.8: jit over shard_map on a mesh
of one axis. As there, `check_vma` is False: under the default the gradient of a
replicated parameter arrives already summed, and the step's own psum would count
it again.
"""

from collections.abc import Callable, Sequence
import os
import sys
from typing import Any

import jax
from jax.sharding import (
  AbstractMesh,
  AxisType,
  Mesh,
  NamedSharding,
  PartitionSpec,
)
import numpy as np
import psutil

from deeplax import errors

AXIS = "batch"


def join_hosts() -> None:
  """Connect the processes of all hosts.

  JAX finds them by itself on Cloud TPU, Slurm and the like. Elsewhere each host
  sets JAX_COORDINATOR_ADDRESS (host:port of the first), JAX_NUM_PROCESSES and
  JAX_PROCESS_ID (from 0).

  Raises:
    InputError: JAX found no other host and the variables are not set.
  """
  variables = {}
  for key in ("num_processes", "process_id"):
    if value := os.environ.get(f"JAX_{key.upper()}"):
      variables[key] = int(value)
  try:
    jax.distributed.initialize(**variables)
  except ValueError as error:
    raise errors.InputError(
      f"--multihost: {error} Set JAX_COORDINATOR_ADDRESS=host:port, "
      "JAX_NUM_PROCESSES and JAX_PROCESS_ID on every host"
    ) from error


def mesh(devices: Sequence[Any] | None = None) -> Mesh:
  """Return the mesh of `devices`, by default all of every process."""
  devices = jax.devices() if devices is None else devices
  # make_mesh's default, explicit axes, refuses NumPy arrays as inputs.
  return Mesh(np.asarray(devices), (AXIS,), axis_types=(AxisType.Auto,))


def pmap(step: Callable, *, mesh: Mesh | AbstractMesh) -> Any:
  """Map `step(state, batch)`, written for one device, over the mesh.

  Args:
    step: Uses the axis name `AXIS`; must return equal values on every device.
    mesh: Of one axis, from `mesh()`; an abstract one to trace for devices that
      are not there.

  Returns:
    A jitted function: replicated state, whose memory the new state takes over,
    and batch split along its first axis.
  """
  mapped = jax.shard_map(
    step,
    mesh=mesh,
    in_specs=(PartitionSpec(), PartitionSpec(AXIS)),
    out_specs=PartitionSpec(),
    check_vma=False,
  )
  return jax.jit(mapped, donate_argnums=0)


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
  """Return the sharding of arrays that every device holds whole."""
  return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh | AbstractMesh) -> NamedSharding:
  """Return the sharding of arrays whose rows are spread over the devices."""
  return NamedSharding(mesh, PartitionSpec(AXIS))


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


def memory_free(mesh: Mesh) -> int:
  """Return the bytes free on one device; CPU devices share the host's."""
  device = mesh.local_devices[0]
  if device.platform == "cpu":
    return psutil.virtual_memory().available // len(mesh.local_devices)
  stats = device.memory_stats() or {}
  return stats.get("bytes_limit", sys.maxsize) - stats.get("bytes_in_use", 0)
