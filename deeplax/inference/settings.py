"""What flags and the config's `eval` ask of a prediction."""

import argparse
from collections.abc import Sequence
from typing import Any

from deeplax import errors
from deeplax import text_files
from deeplax.inference import averaging
from deeplax.inference import windows as windows_lib
from deeplax.settings import defaults

_TOO_LARGE = 1_000_000_000  # for a parameter of the CRF


def crf_parameters(
  config: Any, args: argparse.Namespace
) -> dict[str, float | int] | None:
  """Return the keywords of `crf.dense_crf` that the flags ask for, or None.

  Raises:
    InputError: The run reads no RGB, or a parameter is missing or wrong.
  """
  if not (args.crf or args.crf_file):
    return None
  if config.data.channels is not None:
    raise errors.InputError(
      f"--crf compares colors, and this run reads the bands "
      f"data.channels={tuple(config.data.channels)}: leave --crf out"
    )
  known, where = config.eval.crf.to_dict(), "the config's eval.crf"
  found = known
  if args.crf_file:
    where = f"--crf_file={args.crf_file}"
    fix = (
      "it is no finished result of python -m deeplax.crf.search. Name the file "
      "that this has written"
    )
    found = text_files.read_json(args.crf_file, fix=fix)
    kept = {"negligible": known["negligible"]}  # no search is about it
    with text_files.contents(args.crf_file, fix=fix):
      best = found["best"]
      found = {key: best[key] for key in known if key not in kept} | kept
  if args.crf_negligible is not None:
    found = found | {"negligible": args.crf_negligible}
  for key, value in found.items():
    # Features of a tenth of a pixel or gray level still fit into float32.
    least = 0.1 if key.startswith("sigma") else 0
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not least <= value < _TOO_LARGE:
      raise errors.InputError(
        f"{where}: {key} is {text_files.short(value)}; give a number of "
        f"{least} or more, below {_TOO_LARGE:,}"
      )
  if found["negligible"] >= 1:
    raise errors.InputError(
      f"the CRF's negligible marginal is {found['negligible']}: give less than "
      "1, such as 0.01 (--crf_negligible or the config's eval.crf.negligible)"
    )
  return found


def sizing(
  config: Any, args: argparse.Namespace | None = None
) -> dict[str, Any]:
  """Return the keywords of `Predictor` about sizes.

  Args:
    config: Of the run.
    args: Of `add_size_arguments`; None: the config's values alone.

  Raises:
    InputError: A value is wrong.
  """
  known = config.eval
  sizes = (args and args.sizes) or known.sizes
  if sizes not in defaults.SIZES:
    raise errors.InputError(
      f"eval.sizes={sizes!r} in the config must be one of "
      f"{', '.join(defaults.SIZES)}"
    )
  given = {"window": known.window, "overlap": known.overlap}
  for name in given:
    if args is not None and getattr(args, name) is not None:
      given[name] = getattr(args, name)
  window, overlap = given["window"], given["overlap"]
  found = None
  if window or (args is not None and args.overlap):
    if not overlap and (args is None or args.overlap is None):
      overlap = window // 4
    try:
      found = windows_lib.Windows(window, overlap)
    except ValueError as error:
      raise errors.InputError(
        f"{error}: see --window and --overlap, or the config's eval.window and "
        "eval.overlap"
      ) from error
  return {"pad_to": known.pad_to, "sizes": sizes, "windows": found}


def sizing_text(sizing: dict[str, Any]) -> str:
  """Return what of `sizing` is not as the papers did it, for a line."""
  sizes = {"exact": ", exact sizes", "unpadded": ", unpadded"}
  text = sizes.get(sizing["sizes"], "")
  if found := sizing["windows"]:
    text += f", windows of {found.size} pixels that share {found.overlap}"
  return text


def scales_and_flip(
  config: Any, args: argparse.Namespace
) -> tuple[Sequence[float], bool]:
  """Return the scales and flip of the flags, or else of the config."""
  flip = config.eval.flip if args.flip is None else args.flip
  return args.scales or config.eval.scales, flip


def strides_and_modes(
  config: Any, args: argparse.Namespace
) -> tuple[tuple[int, ...], tuple[averaging.Mode, ...]]:
  """Return the output strides and modes that a command line asks for.

  Without flags these are the papers' rows for each output stride: one scale,
  all scales, all scales and flip. A flag that names a stride, scales or a flip
  asks for that one evaluation, and --sweep for the table with these values.

  Args:
    config: Of the run.
    args: With sweep, output_strides, scales and flip; None: not given.

  Raises:
    ValueError: A scale is wrong.
  """
  one = (args.output_strides, args.scales, args.flip) != (None, None, None)
  strides, scales = args.output_strides, args.scales
  if args.sweep is False or (one and not args.sweep):
    stride = config.eval.output_stride or config.model.output_stride
    scales, flip = scales_and_flip(config, args)
    return strides or (stride,), (averaging.Mode(tuple(scales), flip),)
  swept = config.eval.sweep
  flips = swept.flip if args.flip is None else (args.flip,)
  modes = [averaging.Mode()]
  modes += [averaging.Mode(tuple(scales or swept.scales), f) for f in flips]
  # Each once: a sweep of one scale without flip is the first row again.
  return tuple(strides or swept.output_strides), tuple(dict.fromkeys(modes))
