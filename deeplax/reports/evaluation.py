"""Evaluate a run and write its tables, pictures and pages."""

import argparse
from typing import Any

from etils import epath

from deeplax import errors
from deeplax.data import build as data_build
from deeplax.inference import evaluate as evaluate_lib
from deeplax.inference import predictor as predictor_lib
from deeplax.inference import settings as settings_lib
from deeplax.inference import sweep as sweep_lib
from deeplax.metrics import measures
from deeplax.models import build as model_build
from deeplax.reports import kept as kept_lib
from deeplax.reports import tables
from deeplax.workdir import checkpoint
from deeplax.workdir import environment
from deeplax.workdir import results as results_lib
from deeplax.workdir import settings


def run(config: Any, args: argparse.Namespace) -> None:
  """Evaluate the run in `args.workdir`, each row of the table."""
  environment.compilation_cache(args.workdir)
  split = args.split or config.data.eval_split
  crf = settings_lib.crf_parameters(config, args)
  sizing = settings_lib.sizing(config, args)
  try:
    strides, modes = settings_lib.strides_and_modes(config, args)
    source = data_build.source(config.data, split)
    settings.refuse_other_classes(args.workdir, source.spec)
    channels = data_build.channels(config.data)
    models = {
      stride: model_build.from_config(
        config.model,
        num_classes=source.spec.num_classes,
        output_stride=stride,
        channels=channels,
      )
      for stride in strides
    }
  except ValueError as error:
    raise errors.InputError(str(error)) from error
  variables, step = checkpoint.restore_variables(args.workdir, args.step)
  what = f"{args.workdir} step {step} on {config.data.name} {split}"
  tabulated = args.html or len(models) * len(modes) > 1
  rows, evaluated = [], []
  for stride, model in models.items():
    print(
      f"{what}: output stride {stride}, {'; '.join(map(str, modes))}"
      + (f", CRF {crf}" if crf else "")
      + settings_lib.sizing_text(sizing)
    )
    predictor = predictor_lib.Predictor(
      model,
      variables,
      pad_value=model_build.mean_pixel(config.model, channels),
      **sizing,
      crf=crf,
    )
    sweep = sweep_lib.Sweep(predictor, modes)
    kept = [kept_lib.Kept(source, args) for _ in modes]
    results = evaluate_lib.evaluate_rows(
      sweep,
      source,
      max_images=args.max_images,
      threads=config.data.threads,
      keep=lambda row, index, counted, kept=kept: kept[row].keep(
        index, counted.labels, counted.counts["matrix"]
      ),
      step=step,
      output_stride=stride,
      measured=measures.from_flags(args),
      crf=crf,
      init=settings.init_text(config, args.workdir),
    )
    for mode, result, keep in zip(modes, results, kept, strict=True):
      result |= {"scales": list(mode.scales), "flip": mode.flip}
      path = results_lib.write_result(args.workdir, split, result)
      keep.draw(path.with_suffix(".png"), predictor.in_mode(mode))
      if tabulated:
        rows.append(
          tables.row(result, sweep, mode, model=model, file=path.name)
        )
      evaluated.append((path, result, keep))
  if len(evaluated) == 1:
    print(measures.table(evaluated[0][1], source.spec.class_names))
  else:
    path = results_lib.result_path(
      args.workdir, split, "table", evaluated[0][1]
    )
    _write_table(path, rows, evaluated[0][1], title=what, split=split)
  for path, result, keep in evaluated:
    print(f"{result['images']} images; {path}")
    if args.html:
      page = path.with_suffix(".html")
      name = tables.name(result)
      keep.page(page, result, rows, title=f"{what}, {name}")
      print(f"the worst of them on a page: {page}")


def _write_table(
  path: epath.Path,
  rows: list[dict[str, Any]],
  result: dict[str, Any],
  *,
  title: str,
  split: str,
) -> None:
  """Write the table with what all rows share, and print it."""
  shared = ("step", "images", "split_images", "crf", "init")
  shared += ("sizes", "window")
  fields = {key: result[key] for key in shared}
  tables.write(path, rows, title=title, split=split, **fields)
  print(f"\n{path.with_suffix('.md').read_text()}\n{path}")
