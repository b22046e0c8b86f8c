"""Published weights in and out: python -m deeplax.convert --source=tf_deeplab
--checkpoint=model.ckpt-30000 --config=configs/v3plus_xception.py --workdir=OUT

--source says whose names the arrays have, the file's extension who reads it,
--config which network it is. The workdir then is as of a run at step 0, for
evaluate, predict and --config.init.checkpoint.
"""

import argparse
from collections.abc import Iterator, Sequence
import itertools
import json
import math
import pathlib
import shlex
import sys
from typing import Any

from absl import flags
from etils import epath
import numpy as np

from deeplax import checkpoint
from deeplax import commands
from deeplax import errors
from deeplax import launch
from deeplax import logs
from deeplax import main as main_command
from deeplax import preflight
from deeplax import state as state_lib
from deeplax.data import build as data_build
from deeplax.data import folder as folder_lib
from deeplax.data import spec as spec_lib
from deeplax.models import build as model_build
from deeplax.pretrained import files
from deeplax.pretrained import parts
from deeplax.pretrained import report
from deeplax.pretrained import rules
from deeplax.pretrained import statistics
from deeplax.pretrained import tables
from deeplax.pretrained import transparent

_UNLABELLED_FIRST = ("tf_deeplab", "ade20k")


def parser() -> argparse.ArgumentParser:
  """The command line, without the flags of the configuration."""
  parser = argparse.ArgumentParser(
    prog="python -m deeplax.convert",
    description="Load another program's weights into a workdir, or write a "
    "workdir's weights by another program's names.",
    epilog="examples: python -m deeplax.convert --source=tf_deeplab "
    "--checkpoint=model.ckpt-30000 --config=configs/v3plus_xception.py "
    "--workdir=runs/published; python -m deeplax.convert --to=tf_deeplab "
    "--workdir=runs/published --out=weights.npz",
    allow_abbrev=False,
  )
  known = sorted(tables.TABLES)
  parser.add_argument(
    "--workdir", required=True, metavar="DIR", help="to write, or to read"
  )
  into = parser.add_argument_group("into a workdir")
  into.add_argument(
    "--source", choices=known, help="whose names the arrays have"
  )
  into.add_argument(
    "--checkpoint",
    metavar="FILE",
    help="TensorFlow checkpoint prefix, .pth, .pt, .safetensors or .npz",
  )
  into.add_argument(
    "--config",
    metavar="CONFIG[:ARG]",
    help="the network; any --config.KEY=VALUE as for deeplax.main",
  )
  into.add_argument(
    "--classes",
    metavar="FILE",
    help="classes.json, for own data that is not here (default: the "
    "classes of the config's data)",
  )
  into.add_argument(
    "--source_classes",
    metavar="NAME|FILE",
    help="classes of the checkpoint, to carry logits over by name: "
    f"{', '.join(sorted(spec_lib.SPECS))}, or a JSON list",
  )
  into.add_argument(
    "--new",
    default="",
    metavar="PART,PART",
    help="parts to draw anew whatever the file holds; those that read them "
    "are new too (head, decoder, logits)",
  )
  into.add_argument(
    "--transparent_decoder",
    action="store_true",
    help="for a file without a decoder: the new one at first hands the head's "
    "features through, so that the file's logits stay good",
  )
  into.add_argument(
    "--statistics",
    type=int,
    default=0,
    metavar="N",
    help="measure the running statistics of folded norms on N training images "
    "of the config's data, so that norms can train (default: 0, none)",
  )
  out = parser.add_argument_group("out of a workdir")
  out.add_argument("--to", choices=known, help="whose names to write")
  out.add_argument(
    "--out", metavar="FILE", help=".npz, .safetensors, .pth or .ckpt"
  )
  out.add_argument("--step", type=int, help="default: the newest checkpoint")
  return parser


@errors.command
def main(argv: list[str] | None = None) -> None:
  args, rest = parser().parse_known_args(argv)
  wanted = ("to", "out") if args.to else ("source", "checkpoint", "config")
  for name in wanted:
    if getattr(args, name) is None:
      raise errors.InputError(
        f"--{name} is missing. Give --source, --checkpoint and --config to "
        "load weights, or --to and --out to write them"
      )
  if args.to:
    if rest:
      raise errors.InputError(f"unread arguments {rest}")
    return export(args)
  main_command.parse([sys.argv[0], f"--config={args.config}", *rest])
  run(flags.FLAGS["config"].value, args, rest)


def run(
  config: Any, args: argparse.Namespace, overrides: Sequence[str] = ()
) -> None:
  """Write a workdir whose network is the checkpoint's.

  Args:
    config: Of the run.
    args: Of `parser`.
    overrides: The flags that `config` differs by from its file, to be shown.

  Raises:
    InputError: The checkpoint cannot be read or is not of this network, or the
      workdir holds a run. Nothing has been written then.
  """
  workdir = epath.Path(args.workdir)
  if (step := checkpoint.sound_step(workdir)) is not None:
    raise errors.InputError(
      f"--workdir={workdir} holds a run at step {step}; give another one"
    )
  spec = _spec(config, args.classes)
  if config.data.channels is not None:
    raise errors.InputError(
      f"data.channels {config.data.channels}: published weights are RGB. "
      "Convert without it, then train with the bands and "
      "--config.init.checkpoint"
    )
  with preflight.input_errors():
    model, wider = (
      model_build.from_config(
        config.model,
        num_classes=count,
        auxiliary=config.train.auxiliary_weight > 0,
      )
      for count in (spec.num_classes, spec.num_classes + 1)
    )
    _, tx = launch.optimizer(config)
  drawn = model_build.initial_variables(model, seed=config.seed)
  new, opened = [part for part in args.new.split(",") if part], []
  if args.transparent_decoder:
    drawn, opened = transparent.decoder(model, drawn)
    new.append(transparent.DECODER)
  table = tables.table(args.source, model=model)
  arrays = files.read(args.checkpoint)
  try:
    start = parts.start(
      rules.load(arrays, table, model=model),
      drawn,
      class_names=spec.class_names,
      class_paths=rules.differing(model, wider),
      source_classes=source_classes(args.source_classes, args.source),
      new=new,
      transparent=args.transparent_decoder,
    )
  except errors.InputError as error:
    raise errors.InputError(
      f"{args.checkpoint} ({args.source} names) and config.model are not the "
      f"same network.\n{error}"
    ) from error
  print(f"{args.checkpoint}, {args.source} names, into {workdir}:")
  print(report.table(start, seed=config.seed))
  if args.statistics:
    start.variables = _measure(
      config, model, start, args.statistics, modules=[*start.folded, *opened]
    )
  state = state_lib.create(
    start.variables, tx, seed=config.seed, average=config.optim.ema_decay > 0
  )
  preflight.write_run_files(workdir, config, spec, state.params, print)
  logs.write_json(workdir / commands.CONVERTED, _record(args, start))
  checkpoints = checkpoint.Checkpoints(workdir, keep=config.checkpoint.keep)
  checkpoints.discard_after(-1)  # one whose writing was interrupted
  checkpoints.save(0, state, _FirstBatch())
  checkpoints.close()
  print(_next(args, start, overrides))


def _measure(
  config: Any,
  model: Any,
  start: parts.Start,
  images: int,
  *,
  modules: Sequence[rules.Path],
) -> dict[str, Any]:
  """Return the variables with the modules' statistics of training crops."""
  if images < 0 or not start.folded:
    raise errors.InputError(
      f"--statistics={images}: give the number of images, and only for a "
      f"checkpoint whose norms are folded; in this one "
      f"{len(start.folded)} are"
    )
  source = data_build.source(config.data, config.data.train_split)
  batches = data_build.train_loader(
    config, source, pad_value=model_build.mean_pixel(config.model)
  )
  batch = config.train.batch_size
  count = math.ceil(images / batch)

  def crops() -> Iterator[np.ndarray]:
    yield next(batches)["image"]
    # Started here: the first batch compiles, which says nothing of the others.
    progress = commands.Progress((count - 1) * batch, print, name="measured")
    for example in itertools.islice(batches, count - 1):
      yield example["image"]
      for _ in range(batch):
        progress.step()

  print(f"measuring {len(modules)} norms on {count * batch} crops ...")
  return statistics.measured(
    model, start.variables, crops(), modules=set(modules)
  )


class _FirstBatch:
  """Stands for a training iterator that has given nothing yet."""

  def get_state(self) -> dict[str, int]:
    return {"next_index": 0}


def _spec(config: Any, classes: str | None) -> spec_lib.Spec:
  """Return the classes: those of --classes, or of the config's data."""
  if classes is None:
    return data_build.spec(config.data)
  if config.data.name != data_build.FOLDER:
    raise errors.InputError(
      f"--classes is for own data; config.data.name {config.data.name!r} has "
      "its own classes"
    )
  path = pathlib.Path(classes).expanduser()
  return folder_lib.spec(path.parent if path.is_file() else path)


def source_classes(text: str | None, source: str) -> Sequence[str] | None:
  """Return the names that --source_classes stands for, by place.

  Args:
    text: A data set's name, or a file with a JSON list; None for None.
    source: Whose logits they are.

  Raises:
    InputError: It is neither.
  """
  if text is None:
    return None
  if text in spec_lib.SPECS:
    names = spec_lib.SPECS[text].class_names
    # research/deeplab datasets/data_generator.py: 151 classes, the first is
    # what has no label.
    return ("", *names) if (source, text) == _UNLABELLED_FIRST else names
  try:
    names = json.loads(pathlib.Path(text).expanduser().read_text())
  except (OSError, ValueError) as error:
    raise errors.InputError(
      f"--source_classes={text} is none of {sorted(spec_lib.SPECS)} and no "
      f"JSON file: {error}"
    ) from error
  if isinstance(names, dict):
    names = names.get("names")
  if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
    raise errors.InputError(
      f'--source_classes={text} has to hold a list, ["road", "car"]'
    )
  return names


def _record(args: argparse.Namespace, start: parts.Start) -> dict[str, Any]:
  """Return what commands.CONVERTED says of a conversion."""
  return {
    "source": args.source,
    "checkpoint": args.checkpoint,
    "sha256": files.sums(args.checkpoint),
    "loaded": [report.path(path) for path in start.loaded],
    "new": [report.path(path) for path in start.new],
    "left_out": start.left_out,
    "folded": ["/".join(module) for module in start.folded],
    "subsampled": start.subsampled,
    "classes_by_name": [name for name, known in start.by_name if known],
  }


def _next(
  args: argparse.Namespace, start: parts.Start, overrides: Sequence[str]
) -> str:
  """Say what the workdir is good for."""
  loaded = {path[1] for path in start.loaded}
  new = {
    # v2's scores are in the head, whose other layers a file may have.
    "/".join(path[1:-1]) if path[1] in loaded else path[1]
    for path in start.new
  }
  new -= {parts.TRAINING_ONLY}
  if args.transparent_decoder:
    new -= {transparent.DECODER}
  tune = " ".join(
    [
      f"python -m deeplax.main --config={args.config}",
      *map(shlex.quote, overrides),
      f"--config.init.checkpoint={args.workdir} --workdir=NEW",
    ]
  )
  lines = []
  if start.folded and not args.statistics:
    lines.append(
      "The folded norms have no running statistics: before training, convert "
      "with --statistics=64, or train with "
      "--config.model.batch_norm.mode=frozen"
    )
  if new:
    lines.append(
      f"Drawn at random: {', '.join(sorted(new))}. It predicts noise until it "
      f"is trained: {tune}"
    )
  else:
    lines.append(
      f"Next: python -m deeplax.evaluate --workdir={args.workdir}, python -m "
      f"deeplax.predict --workdir={args.workdir} --out=DIR IMAGE..., or {tune}"
    )
  return "\n".join(lines)


def export(args: argparse.Namespace) -> None:
  """Write the weights of a workdir by another program's names.

  Raises:
    InputError: There are none, a parameter has no name there, or the file
      cannot be written.
  """
  config = checkpoint.load_config(args.workdir)
  path = epath.Path(args.workdir) / "spec.json"
  spec = spec_lib.Spec.from_json(json.loads(path.read_text()))
  variables, step = checkpoint.restore_variables(args.workdir, args.step)
  with preflight.input_errors():
    model = model_build.from_config(
      config.model,
      num_classes=spec.num_classes,
      auxiliary=parts.TRAINING_ONLY in variables["params"],
      channels=data_build.channels(config.data),
    )
  arrays, nameless = rules.save(variables, tables.table(args.to, model=model))
  # What only training has may stay behind.
  nameless = [p for p in nameless if p[1] != parts.TRAINING_ONLY]
  if nameless:
    raise errors.InputError(
      f"--to={args.to} has no names for "
      f"{report.names([report.path(p) for p in nameless])}: that program does "
      "not build this network"
    )
  files.write(args.out, arrays)
  print(f"{args.workdir} step {step}: {len(arrays)} arrays in {args.out}")


if __name__ == "__main__":
  main()
