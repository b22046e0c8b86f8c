"""Evaluate a run and write its tables, pictures and pages."""

import argparse
from collections.abc import Iterator
import contextlib
from typing import Any, NamedTuple

from etils import epath
import flax.linen as nn

from deeplax import clocks
from deeplax import errors
from deeplax.data import files
from deeplax.inference import asked as asked_lib
from deeplax.inference import evaluate
from deeplax.inference import open_run
from deeplax.inference import sweep as sweep_lib
from deeplax.metrics import measures
from deeplax.reports import kept as kept_lib
from deeplax.reports import tables
from deeplax.workdir import checkpoint
from deeplax.workdir import results
from deeplax.workdir import settings

# Fields of a result that all rows of a table share.
SHARED = ("step", "images", "split_images", "crf", "init", "sizes", "window")


class Row(NamedTuple):
  """An evaluation that is done, and what its pictures and page need."""

  path: epath.Path
  result: dict[str, Any]
  cells: dict[str, Any] | None  # of the table, if there is one
  kept: kept_lib.Kept


def run(
  args: argparse.Namespace, asked: asked_lib.Asked, source: files.Source
) -> None:
  """Evaluate the run in `args.workdir`, each row of the table.

  Args:
    args: The flags of `deeplax.evaluate`.
    asked: What they ask of the run.
    source: The split's data.

  Raises:
    InputError: The network has no such output stride, or a file cannot be
      written.
  """
  opened, step, modes = asked.run, asked.step, asked.modes
  config = opened.config
  split = args.split or config.data.eval_split
  models = {stride: opened.network(stride) for stride in asked.strides}
  variables = checkpoint.read(args.workdir, step)
  what = f"{args.workdir} step {step} on {config.data.name} {split}"
  tabulated = args.html or len(models) * len(modes) > 1
  written = Written()
  rows: list[Row] = []
  for stride, model in models.items():
    print(
      f"{what}: output stride {stride}, {'; '.join(map(str, modes))}"
      + (f", CRF {asked.crf}" if asked.crf else "")
      + asked.sizing.text
    )
    sweep = sweep_lib.Sweep(
      opened.predictor(
        model,
        variables,
        sizing=asked.sizing,
        crf=asked.crf,
        batch=asked.batch,
      ),
      modes,
    )
    rows += _at_stride(
      opened,
      source,
      sweep,
      args,
      split=split,
      model=model if tabulated else None,
      step=step,
      output_stride=stride,
      written=written,
    )
  table = [row.cells for row in rows if row.cells is not None]
  if len(rows) == 1:
    print(measures.table(rows[0].result, opened.spec.class_names))
  else:
    path = results.result_path(args.workdir, split, "table", rows[0].result)
    print(f"\n{tables.markdown(table, what)}")
    shared = {key: rows[0].result[key] for key in SHARED}
    with written.file(path):
      tables.write(path, table, title=what, split=split, **shared)
      print(path)
  if warning := evaluate.collapse_warning([row.result for row in rows]):
    print(f"deeplax: {warning}")
  for row in rows:
    where = "" if row.path in written.lost else f"; {row.path}"
    print(f"{row.result['images']} images{where}")
    if args.html:
      page = row.path.with_suffix(".html")
      title = f"{what}, {tables.name(row.result)}"
      with written.file(page):
        row.kept.page(page, row.result, table, title=title)
        print(f"the worst of them on a page: {page}")
  written.refuse_lost(args.workdir)


class Written:
  """Goes on where a file cannot be written, and tells of it at the end."""

  def __init__(self):
    self.lost: dict[epath.Path, str] = {}  # and why

  @contextlib.contextmanager
  def file(self, path: epath.Path) -> Iterator[None]:
    """Write a file inside; what the disk refuses is noted."""
    try:
      yield
    except OSError as error:
      self.lost[path] = error.strerror or str(error)

  def refuse_lost(self, workdir: str) -> None:
    """Raise if a file is missing.

    Raises:
      InputError: Naming the first.
    """
    for path, reason in self.lost.items():
      more = f" and {len(self.lost) - 1} more" if len(self.lost) > 1 else ""
      raise errors.InputError(
        f"what is printed above is right, but could not be written: {path}"
        f"{more} ({reason}). Evaluate a copy where you may write: "
        f"cp -r {workdir} COPY, then --workdir=COPY"
      )


def _at_stride(
  opened: open_run.Run,
  source: files.Source,
  sweep: sweep_lib.Sweep,
  args: argparse.Namespace,
  *,
  split: str,
  model: nn.Module | None,
  written: Written,
  **fields: Any,
) -> Iterator[Row]:
  """Evaluate all modes at one output stride, and write each result.

  Args:
    opened: The run.
    source: What it is evaluated on.
    sweep: Predicts.
    args: Of the command.
    split: The name of what is evaluated.
    model: To count the costs of a table's row with; None: there is no table.
    written: What the files are written through.
    **fields: Of all results: step and output_stride.
  """
  kept = [kept_lib.Kept(source, args) for _ in sweep.modes]
  found = evaluate.evaluate_rows(
    sweep,
    source,
    max_images=args.max_images,
    threads=opened.config.data.threads,
    keep=lambda row, *prediction: kept[row].keep(*prediction),
    measured=measures.from_flags(args),
    crf=sweep.predictor.crf,
    init=settings.init_text(opened.config, args.workdir),
    **fields,
  )
  for mode, result, keep in zip(sweep.modes, found, kept, strict=True):
    result |= {"scales": list(mode.scales), "flip": mode.flip}
    path = results.row_path(args.workdir, split, result)
    with written.file(path):
      results.write_result(args.workdir, split, result)
      keep.draw(path.with_suffix(".png"), sweep.predictor.in_mode(mode))
    cells = None
    if model is not None:
      with clocks.ticking("counting Multiply-Adds", print):
        cells = tables.row(result, sweep, mode, model=model, file=path.name)
    yield Row(path, result, cells, keep)
