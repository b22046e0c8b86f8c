"""The report of an experiment: python -m experiments.report v3plus_table1

report.html is one page that needs no network, table.md its table, report.csv
every row and seed, and the page's plots are SVG files beside it; all from
results.jsonl and from what the trainings left. The page shows images of the
data set, which may not be passed on: `--no-pictures` leaves them out.
`--costs-only` needs no training: costs.html, costs.md, costs.csv.
"""

import argparse
from collections.abc import Sequence

from deeplax import errors
from deeplax.ablation import experiment
from deeplax.ablation import flags


def parser() -> argparse.ArgumentParser:
  """The command line."""
  parser = argparse.ArgumentParser(
    prog=experiment.command("report"),
    description="A page, a table and a CSV of an experiment. Give the flags "
    "that it was run with.",
    epilog="example: %(prog)s v3plus_table1 --data=camvid",
    allow_abbrev=False,
  )
  flags.add_arguments(parser)
  parser.add_argument(
    "--costs-only",
    action="store_true",
    help="Multiply-Adds and parameters of each row; nothing need have run",
  )
  parser.add_argument(
    "--pictures",
    action=argparse.BooleanOptionalAction,
    default=True,
    help="images of the data set on the page; --no-pictures for a page that "
    "goes elsewhere than the data may",
  )
  return parser


@errors.command
def main(argv: Sequence[str] | None = None) -> None:
  """Write the report on the command line and print its table."""
  args = parser().parse_args(argv)
  experiment, out = flags.loaded(args)
  from deeplax.ablation import report

  text = report.write(
    experiment,
    out,
    seeds=args.seeds,
    costs_only=args.costs_only,
    pictures=args.pictures,
  )
  print(text)
  print(out / ("costs.html" if args.costs_only else "report.html"))


if __name__ == "__main__":
  main()
