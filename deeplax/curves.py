"""Trimap curves of runs in one plot: python -m deeplax.curves --out=DIR RUN RUN

It reads what `python -m deeplax.evaluate --trimap=1,2,5,10,20,40` has written.
Seeds of one design form a group, and two groups are subtracted:

  python -m deeplax.curves --out=DIR --group="none=runs/none_*" \\
    --group="decoder=runs/decoder_*"
"""

import argparse

from etils import epath

from deeplax import atomic
from deeplax import errors
from deeplax.reports import trimap_curves


def parser() -> argparse.ArgumentParser:
  """The command line."""
  parser = argparse.ArgumentParser(
    prog="python -m deeplax.curves",
    description="Trimap curves of several runs: mIoU and pixel accuracy by "
    "width of the band around boundaries, from what python -m deeplax.evaluate "
    "--trimap=... has written.",
    epilog='example: python -m deeplax.curves --out=curves --group="none='
    'runs/none_*" --group="decoder=runs/decoder_*"',
    allow_abbrev=False,
  )
  parser.add_argument(
    "runs", nargs="*", metavar="RUN", help="workdir, or a result's file"
  )
  parser.add_argument(
    "--group",
    action="append",
    default=[],
    metavar="NAME=RUN,RUN",
    help="several seeds as one curve with its spread; RUN may have * and ?; of "
    "two groups the second's gain over the first is shown",
  )
  parser.add_argument(
    "--result",
    default="*.json",
    metavar="NAME",
    help="of the files in eval/ where there are several, e.g. "
    "'val-*-os16-s1.0.json'",
  )
  parser.add_argument(
    "--out",
    required=True,
    metavar="DIR",
    help="for curves.svg, curves.md and curves.json",
  )
  return parser


@errors.command
def main(argv: list[str] | None = None) -> None:
  args = parser().parse_args(argv)
  results = {
    name: [trimap_curves.find(run, args.result) for run in runs]
    for name, runs in trimap_curves.groups(args).items()
  }
  trimap_curves.refuse_different(results)
  _, first = next(iter(results.values()))[0]
  fields = {key: first.get(key) for key in trimap_curves.SHARED}
  widths = [int(width) for width in first["trimap"]]
  curves = [trimap_curves.curve(name, found) for name, found in results.items()]
  text = trimap_curves.markdown(curves, widths, fields)
  out = epath.Path(args.out)
  try:
    atomic.write_json(
      out / "curves.json", trimap_curves.numbers(curves, widths, fields)
    )
    atomic.write_text(out / "curves.md", text)
    atomic.write_text(
      out / "curves.svg", trimap_curves.picture(curves, widths, fields)
    )
  except OSError as error:
    raise errors.InputError(f"cannot write --out={out}: {error}") from error
  print(f"{text}\n{out / 'curves.svg'}")


if __name__ == "__main__":
  main()
