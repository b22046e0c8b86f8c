"""Settings of a prediction, from flags and the configuration's `eval`."""

import argparse
from collections.abc import Mapping

from ml_collections import ConfigDict

from deeplax import errors
from deeplax import text_files
from deeplax.inference import mode as mode_lib
from deeplax.inference import sizing as sizing_lib
from deeplax.inference import windows as windows_lib
from deeplax.settings import defaults

_TOO_LARGE = 1_000_000_000  # no parameter of the CRF is as large


def crf_parameters(
  config: ConfigDict, args: argparse.Namespace
) -> dict[str, float | int] | None:
  """Return the keywords of `crf.dense_crf`; None if no flag asks for a CRF.

  Instead of a flag, `args.crf` may be a dictionary of those that differ.

  Raises:
    InputError: The run does not read RGB, or a parameter is missing or wrong.
  """
  if not (getattr(args, "crf", False) or getattr(args, "crf_file", None)):
    return None
  if config.data.channels is not None:
    raise errors.InputError(
      f"--crf compares colors, and this run reads the bands "
      f"data.channels={tuple(config.data.channels)}: leave --crf out"
    )
  parameters, where = config.eval.crf.to_dict(), "the config's eval.crf"
  if isinstance(args.crf, Mapping):
    where = "crf"
    if unknown := args.crf.keys() - parameters.keys():
      raise errors.InputError(
        f"crf has {sorted(unknown)}, which are no parameters of the dense CRF: "
        f"it has {', '.join(parameters)}"
      )
    parameters |= args.crf
  if args.crf_file:
    where = f"--crf_file={args.crf_file}"
    fix = (
      "it is no finished result of python -m deeplax.crf.search. Name the file "
      "that this has written"
    )
    result = text_files.read_json(args.crf_file, fix=fix)
    with text_files.contents(args.crf_file, fix=fix):
      for key in parameters:
        if key != "negligible":  # which is not searched
          parameters[key] = result["best"][key]
  if args.crf_negligible is not None:
    parameters["negligible"] = args.crf_negligible
  for key, value in parameters.items():
    # Features are divided by sigmas: with 0.1 they still fit into float32.
    least = 0.1 if key.startswith("sigma") else 0
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not least <= value < _TOO_LARGE:
      raise errors.InputError(
        f"{where}: {key} is {text_files.short(value)}; give a number of "
        f"{least} or more, below {_TOO_LARGE:,}"
      )
  if parameters["negligible"] >= 1:
    raise errors.InputError(
      f"the CRF's negligible marginal is {parameters['negligible']}: give less "
      "than 1, such as 0.01 (--crf_negligible or the config's "
      "eval.crf.negligible)"
    )
  return parameters


def sizing(
  config: ConfigDict, args: argparse.Namespace | None = None
) -> sizing_lib.Sizing:
  """Return how images are padded or cut into windows.

  Args:
    config: Of the run.
    args: Of `add_size_arguments`, which win; None: the config's values alone.

  Raises:
    InputError: A value is wrong.
  """
  values = {key: config.eval[key] for key in ("sizes", "window", "overlap")}
  flags = {key: getattr(args, key, None) for key in values}
  values |= {key: flag for key, flag in flags.items() if flag is not None}
  if values["sizes"] not in defaults.SIZES:
    raise errors.InputError(
      f"eval.sizes={values['sizes']!r} in the config must be one of "
      f"{', '.join(defaults.SIZES)}"
    )
  window, overlap = values["window"], values["overlap"]
  windows = None
  if window or flags["overlap"]:
    if not overlap and flags["overlap"] is None:
      overlap = window // 4
    try:
      windows = windows_lib.Windows(window, overlap)
    except ValueError as error:
      raise errors.InputError(
        f"{error}: see --window and --overlap, or the config's eval.window and "
        "eval.overlap"
      ) from error
  return sizing_lib.Sizing(values["sizes"], config.eval.pad_to, windows)


def batch(config: ConfigDict, args: argparse.Namespace | None = None) -> int:
  """Return how many images each device predicts at once; 0: as many as fit.

  Args:
    config: Of the run.
    args: Of `add_size_arguments`, which win; None: the config's value.

  Raises:
    InputError: It is no number of images.
  """
  flag = getattr(args, "batch", None)
  value = config.eval.batch if flag is None else flag
  if value < 0:
    where = "eval.batch in the config" if flag is None else "--batch"
    raise errors.InputError(
      f"{where} is {value}: give 1 or more images, or 0 for as many as make "
      "prediction faster and fit"
    )
  return value


def output_stride(config: ConfigDict, flag: int | None = None) -> int:
  """Return the output stride of a flag, else of the config's evaluations."""
  return flag or config.eval.output_stride or config.model.output_stride


def mode(config: ConfigDict, args: argparse.Namespace) -> mode_lib.Mode:
  """Return the scales and flip of the flags, or else of the config.

  Raises:
    InputError: A scale is wrong.
  """
  flip = config.eval.flip if args.flip is None else args.flip
  with errors.input_errors():
    return mode_lib.Mode(tuple(args.scales or config.eval.scales), flip)


def strides_and_modes(
  config: ConfigDict, args: argparse.Namespace
) -> tuple[tuple[int, ...], tuple[mode_lib.Mode, ...]]:
  """Return the output strides and modes that a command line asks for.

  Without flags these are the papers' rows for each output stride: one scale,
  all scales, all scales and flip. A flag that names a stride, scales or a flip
  asks for that one evaluation, and --sweep for the table with these values.

  Args:
    config: Of the run.
    args: With sweep, output_strides, scales and flip; None: not given.

  Raises:
    InputError: A scale is wrong.
  """
  single = (args.output_strides, args.scales, args.flip) != (None, None, None)
  strides = args.output_strides
  if args.sweep is False or (single and not args.sweep):
    return strides or (output_stride(config),), (mode(config, args),)
  swept = config.eval.sweep
  scales = tuple(args.scales or swept.scales)
  flips = swept.flip if args.flip is None else (args.flip,)
  with errors.input_errors():
    modes = [mode_lib.Mode(), *(mode_lib.Mode(scales, f) for f in flips)]
  # Without duplicates: a sweep of one scale without flip is the first row.
  return tuple(strides or swept.output_strides), tuple(dict.fromkeys(modes))
