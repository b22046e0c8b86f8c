"""Convert published weights into a workdir, and a workdir's into a file."""

import argparse
from collections.abc import Collection, Mapping, Sequence
import math
import shlex
from typing import Any

from etils import epath
import flax.linen as nn
import ml_collections

from deeplax import atomic
from deeplax import commands
from deeplax import errors
from deeplax.data import build as data_build
from deeplax.models import build as model_build
from deeplax.models import variables as variables_lib
from deeplax.pretrained import files
from deeplax.pretrained import folded_norms
from deeplax.pretrained import identity_decoder
from deeplax.pretrained import partial
from deeplax.pretrained import prefixes
from deeplax.pretrained import rules
from deeplax.pretrained import summary
from deeplax.pretrained import tables
from deeplax.settings import published
from deeplax.training import convertible
from deeplax.training import norm_statistics
from deeplax.training import optim
from deeplax.training import parts as parts_lib
from deeplax.training import state as state_lib
from deeplax.workdir import checkpoint
from deeplax.workdir import layout
from deeplax.workdir import lock
from deeplax.workdir import saves
from deeplax.workdir import settings


def run(
  config: ml_collections.ConfigDict | None,
  args: argparse.Namespace,
  found: convertible.Given | convertible.Exported,
  overrides: Sequence[str] = (),
) -> None:
  """Run `convert`, or `export` with --to, which needs no `config`."""
  if isinstance(found, convertible.Exported):
    export(args, found)
  else:
    assert config is not None
    convert(config, args, found, overrides)


def convert(
  config: ml_collections.ConfigDict,
  args: argparse.Namespace,
  given: convertible.Given,
  overrides: Sequence[str] = (),
) -> None:
  """Write a workdir whose network is the checkpoint's.

  Args:
    config: The network, and the data that it is for.
    args: The flags of `deeplax.convert`.
    given: What they name.
    overrides: The --config.KEY=VALUE flags, repeated in the advice at the end.

  Raises:
    InputError: The checkpoint cannot be read or belongs to another network.
      Nothing has been written then.
  """
  workdir, spec = epath.Path(args.workdir), given.spec
  arrays, under = _read(args, given)
  with errors.input_errors():
    model, wider = (
      model_build.from_config(
        config.model,
        num_classes=count,
        auxiliary=config.train.auxiliary_weight > 0,
      )
      for count in (spec.num_classes, spec.num_classes + 1)
    )
    _, tx = optim.optimizer(config)
  # Parts that the file lacks are drawn anew, or made to change nothing.
  drawn = variables_lib.initial_variables(model, seed=config.seed)
  new, opened = [part for part in args.new.split(",") if part], []
  if args.transparent_decoder:
    drawn, opened = identity_decoder.decoder(model, drawn)
    new.append(identity_decoder.DECODER)
  # Arrays with one entry per class: those that one more class makes wider.
  class_paths = variables_lib.differing(model, wider)
  try:
    loaded = _loaded(args, arrays, model)
    other_classes = partial.other_classes(loaded, class_paths)
    start = partial.start(
      loaded,
      drawn,
      class_names=spec.class_names,
      class_paths=class_paths,
      source_classes=_classes_there(args, given, other_classes),
      new=new,
      transparent=args.transparent_decoder,
    )
  except errors.InputError as error:
    raise errors.InputError(
      f"{args.checkpoint} ({args.source} names) does not fill the network of "
      f"config.model.\n{error}"
    ) from error
  start.prefix = under + start.prefix
  # Nothing can go wrong with the file any more: report, then write.
  print(f"{args.checkpoint}, {args.source} names, into {workdir}:")
  print(summary.origins(start, seed=config.seed))
  if args.statistics:
    start.variables = _measure(
      config, model, start, args.statistics, modules=[*start.folded, *opened]
    )
  state = state_lib.create(
    start.variables, tx, seed=config.seed, average=config.optim.ema_decay > 0
  )
  with lock.held(workdir):
    settings.write_run_files(workdir, config, spec, state.params, print)
    atomic.write_json(workdir / layout.CONVERTED, _record(args, start))
    saves.save_start(workdir, state)
  print(_next(args, start, other_classes, overrides))


def _read(
  args: argparse.Namespace, given: convertible.Given
) -> tuple[Mapping[str, Any], str]:
  """Return the arrays in --checkpoint, and the prefix that --under removed."""
  if given.step is not None:
    return checkpoint.read(args.checkpoint, given.step), ""
  arrays = given.read()
  if not args.under:
    return arrays, ""
  arrays, prefix, _ = prefixes.below(arrays, args.under)
  return arrays, prefix


def _loaded(
  args: argparse.Namespace, arrays: Mapping[str, Any], model: nn.Module
) -> rules.Loaded:
  """Return the arrays under this network's names."""
  if args.source == published.OWN:
    return partial.of_variables(arrays, variables_lib.shapes(model))
  return rules.load(arrays, tables.table(args.source, model=model), model=model)


def _measure(
  config: ml_collections.ConfigDict,
  model: nn.Module,
  start: partial.Start,
  images: int,
  *,
  modules: Sequence[rules.Path],
) -> dict[str, Any]:
  """Return the variables with statistics measured on training crops."""
  if images < 0 or not start.folded:
    raise errors.InputError(
      f"--statistics={images}: give the number of images, and only for a "
      f"checkpoint whose norms are folded; in this one "
      f"{len(start.folded)} are"
    )
  source = data_build.source(config.data, config.data.train_split)
  batches = parts_lib.batches(config, source)
  batch = config.train.batch_size
  count = math.ceil(images / batch)

  print(f"measuring {len(modules)} norms on {count * batch} crops ...")
  return folded_norms.with_statistics(
    model,
    start.variables,
    norm_statistics.counted(batches, count, print),
    modules=set(modules),
  )


def _classes_there(
  args: argparse.Namespace,
  given: convertible.Given,
  other_classes: Collection[int],
) -> Sequence[str] | None:
  """Return the file's classes: of --source_classes, or of its published row.

  The row's classes count only if the file has as many logits as was published.
  """
  row = published.of_config(args.config)
  if args.source_classes or row is None:
    return given.source_classes
  names = convertible.source_classes(row.source_classes, args.source) or ()
  return names if len(names) in other_classes else None


def _record(args: argparse.Namespace, start: partial.Start) -> dict[str, Any]:
  """Return the contents of converted.json."""
  return {
    "source": args.source,
    "checkpoint": args.checkpoint,
    "sha256": files.sums(args.checkpoint),
    "loaded": [summary.path(path) for path in start.loaded],
    "new": [summary.path(path) for path in start.new],
    "prefix": start.prefix,
    "left_out": start.left_out,
    "folded": ["/".join(module) for module in start.folded],
    "subsampled": start.subsampled,
    "classes_by_name": [name for name, known in start.by_name if known],
  }


def _next(
  args: argparse.Namespace,
  start: partial.Start,
  other_classes: Collection[int],
  overrides: Sequence[str],
) -> str:
  """Return advice on how to use the workdir."""
  loaded = {path[1] for path in start.loaded}
  new = {
    # v2's class scores lie in the head, whose other layers a file may hold.
    "/".join(path[1:-1]) if path[1] in loaded else path[1]
    for path in start.new
  }
  new -= {partial.TRAINING_ONLY}
  if args.transparent_decoder:
    new -= {identity_decoder.DECODER}
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
  if other_classes and not start.by_name and not args.new:
    count = max(other_classes)
    lines.append(
      f"The file has scores of {count} classes. To carry over those of the "
      "same name, convert with --source_classes=NAMES.json (a list of their "
      "names, in its order)"
    )
  if (row := published.of_config(args.config)) and not new:
    lines += published.figure_lines(row)
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
  return commands.as_typed("\n".join(lines))


def export(args: argparse.Namespace, found: convertible.Exported) -> None:
  """Write the weights of a workdir by another program's names.

  Args:
    args: The flags of `deeplax.convert`.
    found: What they name.

  Raises:
    InputError: A parameter has no name in that program, or the file cannot be
      written.
  """
  opened, step = found.run, found.step
  variables = checkpoint.read(args.workdir, step)
  model = opened.network(
    opened.config.model.output_stride,
    auxiliary=partial.TRAINING_ONLY in variables["params"],
  )
  arrays, nameless = rules.save(variables, tables.table(args.to, model=model))
  # The auxiliary head is for training alone and may be left out.
  nameless = [p for p in nameless if p[1] != partial.TRAINING_ONLY]
  if nameless:
    raise errors.InputError(
      f"--to={args.to} has no names for "
      f"{summary.names([summary.path(p) for p in nameless])}: that program "
      "does not build this network"
    )
  found.write(arrays)
  print(f"{args.workdir} step {step}: {len(arrays)} arrays in {args.out}")
