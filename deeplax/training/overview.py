"""The table that a run prints before step 0."""

from typing import Any

from clu import parameter_overview
import ml_collections

from deeplax import parallel
from deeplax.models import cost
from deeplax.training import memory
from deeplax.training import parts as parts_lib
from deeplax.workdir import settings


def overview(
  config: ml_collections.ConfigDict,
  parts: parts_lib.Parts,
  *,
  workdir: str,
  params: Any,
  needed: int,
) -> dict[str, str]:
  """Return the table shown before step 0: {"data": "voc2012: ...", ...}.

  Args:
    workdir: As the user wrote it.
    needed: Bytes that one device needs for a step.
  """
  images, mesh = len(parts.train_source), parts.mesh
  data, norm = config.data, config.model.batch_norm
  names = sorted({d.device_kind for d in mesh.devices.flat})
  per_device = config.train.batch_size // mesh.size
  at_once = per_device // config.train.accumulate
  groups = {"all": mesh.size, "device": 1}
  group = groups.get(norm.group) or int(norm.group)
  height, width = data.crop_size
  images_seen = config.train.total_steps * config.train.batch_size
  epochs = images_seen / images
  operations = cost.multiply_adds(parts.model, (height, width))
  listed = "entries, some twice" if data.duplicate_classes else "images"
  return {
    "data": f"{data.name}: {data.train_split} {images} {listed}, "
    f"{data.eval_split} {len(parts.eval_source)}, "
    f"{parts.train_source.spec.num_classes} classes",
    "devices": f"{mesh.size} x {', '.join(names)}",
    "batch": f"{config.train.batch_size} ({per_device} per device"
    f"{_parts(config.train.accumulate)}), crop {height}x{width}",
    "norm": f"{norm.mode}, over {at_once * group} images",
    "parameters": f"{parameter_overview.count_parameters(params):,}",
    "Multiply-Adds": f"{operations / 1e9:.2f} billion per crop, forward",
    "memory": f"{memory.gigabytes(needed)} needed per device, "
    f"{memory.gigabytes(parallel.memory_free(mesh))} available",
    "steps": f"{config.train.total_steps:,} ({epochs:.0f} epochs)",
    "loss": parts.loss.describe(),
    "optimizer": _optimizer_text(config.optim),
    "init": settings.init_text(config, workdir),
    "workdir": workdir,
  }


def _parts(accumulate: int) -> str:
  return f" in {accumulate} parts" if accumulate > 1 else ""


def _optimizer_text(optim: ml_collections.ConfigDict) -> str:
  parts = [
    f"{optim.name} {optim.momentum:g}",
    f"{optim.schedule} from {optim.base_lr:g}",
    f"weight decay {optim.weight_decay:g}",
  ]
  if optim.trained:
    parts.append(f"only of {' and '.join(optim.trained)}")
  if optim.clip_norm:
    parts.append(f"clipped at {optim.clip_norm:g}")
  if optim.ema_decay:
    parts.append(f"averaged with {optim.ema_decay:g}")
  return ", ".join(parts)
