"""The configuration and the classes of a run, as its workdir keeps them.

The only reader of config.json and spec.json. The same configuration on the same
classes resumes the run, another one is refused.
"""

from collections.abc import Callable, Iterator
import contextlib
import itertools
import json
import shlex
from typing import Any

from etils import epath
import ml_collections

from deeplax import atomic
from deeplax import errors
from deeplax import paths
from deeplax import text_files
from deeplax.data import files
from deeplax.data import spec as spec_lib
from deeplax.settings import defaults
from deeplax.settings import own
from deeplax.workdir import environment
from deeplax.workdir import layout
from deeplax.workdir import own_code
from deeplax.workdir import training_data

# Keys without influence on the results of a run: resuming may change them.
# Those in the first row change the rounding.
FREE_KEYS = (
  *("model.remat", "train.quick_compile"),
  *("data.root", "data.threads", "data.check_images"),
  *("train.memory_fraction", "train.profile", "checkpoint.keep"),
  *("eval.batch", "eval.pictures", "log.every", "log.tensorboard"),
  *("eval.sweep.output_strides", "eval.sweep.scales", "eval.sweep.flip"),
)
# Keys that the first start of a run fills in if they are None.
FILLED_KEYS = ("data.channel_mean", "data.channel_std")
# Training resumes from the checkpoints without either file, and writes both.
_WRITE_ANEW = (
  "delete it and run the command that trained here again, which writes it anew"
)
RANDOM_INIT = "random (the papers start from ImageNet; expect far less)"


def load_config(workdir: epath.PathLike) -> ml_collections.ConfigDict:
  """Return the configuration a workdir was trained with.

  Raises:
    InputError: config.json is missing or has keys that deeplax does not know.
  """
  path = epath.Path(workdir) / layout.CONFIG
  if not path.exists():
    raise errors.InputError(
      f"no {layout.CONFIG} in {workdir}. {layout.nearest_runs(workdir)}"
    )
  config = defaults.base().lock()
  flat = ml_collections.ConfigDict(text_files.read_json(path, fix=_WRITE_ANEW))
  try:
    config.update_from_flattened_dict(flatten(flat))
  except (KeyError, TypeError, ValueError) as error:
    raise errors.InputError(
      f"{path} is not a configuration of this version: {error}"
    ) from error
  return config


def flatten(config: Any) -> dict[str, Any]:
  """Return {"model.output_stride": 16, ...}; sequences as tuples.

  Args:
    config: A ConfigDict, whose keys come sorted, or its JSON as a dictionary.
  """
  flat = {}
  for key, value in config.items():
    if isinstance(value, ml_collections.ConfigDict | dict):
      for inner, leaf in flatten(value).items():
        flat[f"{key}.{inner}"] = leaf
    else:
      flat[key] = _tuples(value)
  return flat


def _tuples(value: Any) -> Any:
  """Return a sequence, and those in it, as tuples, where JSON has lists."""
  if isinstance(value, list | tuple):
    return tuple(_tuples(item) for item in value)
  return value


def read_spec(workdir: epath.PathLike) -> spec_lib.Spec:
  """Return the class names and colors a run was trained with.

  Raises:
    InputError: spec.json is missing or broken.
  """
  path = epath.Path(workdir) / layout.SPEC
  if not path.exists():
    raise errors.InputError(
      f"no {layout.SPEC} in {workdir}; training writes it there beside "
      f"{layout.CONFIG}"
    )
  obj = text_files.read_json(path, fix=_WRITE_ANEW)
  with text_files.contents(path, fix=_WRITE_ANEW):
    return spec_lib.Spec.from_json(obj)


def init_text(
  config: ml_collections.ConfigDict, workdir: epath.PathLike | None = None
) -> str:
  """Return in words where the parameters come from, as results quote it."""
  if workdir is not None:
    path = epath.Path(workdir) / layout.CONVERTED
    if path.exists():
      fix = "convert the weights again, into another workdir"
      made = text_files.read_json(path, fix=fix)
      with text_files.contents(path, fix=fix):
        return f"{made['source']} {made['checkpoint']}"
  return config.init.checkpoint or RANDOM_INIT


def refuse_other_run(
  config: ml_collections.ConfigDict,
  folder: epath.Path,
  source: files.Source,
  progress: Callable[[str], None],
) -> None:
  """Refuse a workdir that holds a run of another configuration or other data.

  Args:
    config: The new configuration.
    folder: The workdir.
    source: The training split.
    progress: Receives a line if sizes of files differ.

  Raises:
    InputError: Naming each key with its old and new value, or the difference in
      the classes or images.
  """
  if not (folder / layout.CONFIG).exists():
    return
  old = flatten(load_config(folder))
  new = flatten(config)
  if old["model.given"] and not new["model.given"]:
    raise errors.InputError(f"{folder}: {own.FROM_PYTHON}")
  for key, name in (("model.given", "model"), ("train.loss", "loss")):
    objects = [values[key] in (True, own.OBJECT) for values in (old, new)]
    if objects[0] != objects[1]:
      has, lacks, how = "has", "lacks", f"with deeplax.train(..., {name}=...)"
      if not objects[0]:
        has, lacks, how = "lacks", "has", f"without {name}="
      raise errors.InputError(
        f"{folder} holds another run: it {has} a {name} given as a Python "
        f"object, which this one {lacks}. Give this one its own --workdir, or "
        f"go on with that one {how}"
      )
  different = [
    key
    for key in new
    if key not in FREE_KEYS
    and old[key] != new[key]
    and not (key in FILLED_KEYS and new[key] is None)
  ]
  if different:
    shown = "; ".join(f"{k}: {old[k]} there, {new[k]} now" for k in different)
    flags = shlex.join(f"--config.{key}={old[key]}" for key in different)
    raise errors.InputError(
      f"{folder} holds another run ({shown}). Give this one its own --workdir, "
      f"or resume that one: {flags}"
    )
  own_code.refuse_other(folder, config)
  refuse_other_classes(folder, source.spec)
  training_data.refuse_other(folder, source, progress)


def refuse_other_classes(workdir: epath.PathLike, spec: spec_lib.Spec) -> None:
  """Refuse data of other classes than a run was trained on.

  Raises:
    InputError: Naming the first class, or number in the masks, that differs.
  """
  if not (epath.Path(workdir) / layout.SPEC).exists():
    return
  trained = read_spec(workdir)
  old, new = (
    [text_files.composed(name) for name in names]
    for names in (trained.class_names, spec.class_names)
  )
  if old != new:
    pairs = itertools.zip_longest(old, new)
    place, (was, now) = next(
      (i, pair) for i, pair in enumerate(pairs) if pair[0] != pair[1]
    )
    raise errors.InputError(
      f"{workdir} was trained on {len(old)} classes and the data now has "
      f"{len(new)}; the first that differs is number {place}: {was!r} there, "
      f"{now!r} now. Give the data its old classes, or train in another "
      "--workdir"
    )
  before, after = _meanings(trained), _meanings(spec)
  for number in sorted(before.keys() & after.keys()):
    if before[number] != after[number]:
      raise errors.InputError(
        f"{workdir} was trained on masks whose {number} is {before[number]}, "
        f"and with the classes.json of now it is {after[number]}. Give its "
        "label_map and ignore_label their old values, or train in another "
        "--workdir"
      )


def _meanings(spec: spec_lib.Spec) -> dict[int | float, str]:
  """Return the meaning of each number in the masks; {}: it is not known.

  Other numbers have no meaning; they trained nothing and may get one later.
  """
  if spec.label_map is None:
    return {}
  composed = [repr(text_files.composed(name)) for name in spec.class_names]
  names = dict(enumerate(composed))
  names[spec.ignore_label] = "ignored"
  labels = {n: n for n in range(spec.num_classes)} | dict(spec.label_map)
  return {number: names[label] for number, label in labels.items()}


def _kept(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Return config.json's contents, with an absolute path of the data."""
  contents = json.loads(config.to_json())
  if root := contents["data"]["root"]:
    contents["data"]["root"] = paths.absolute(root)
  return contents


def write_run_files(
  folder: epath.Path,
  config: ml_collections.ConfigDict,
  spec: spec_lib.Spec,
  params: Any,
  progress: Callable[..., None],
) -> None:
  """Write config.json, spec.json, env.json and parameters.txt.

  Raises:
    InputError: The folder cannot be written.
  """
  # Imported here, because it loads JAX, which readers of a workdir do without.
  from clu import parameter_overview

  text = parameter_overview.get_parameter_overview(params)
  write_config_and_classes(folder, config, spec)
  with _writable(folder):
    atomic.write_json(folder / layout.ENVIRONMENT, environment.environment())
    (folder / "parameters.txt").write_text(text + "\n")
  progress(f"parameters by name: {folder / 'parameters.txt'}")


def write_lost(
  folder: epath.Path, config: ml_collections.ConfigDict, spec: spec_lib.Spec
) -> None:
  """Write config.json and spec.json anew if one of them is missing.

  Raises:
    InputError: The folder cannot be written.
  """
  if not all((folder / name).exists() for name in (layout.CONFIG, layout.SPEC)):
    write_config_and_classes(folder, config, spec)


def write_config_and_classes(
  folder: epath.Path, config: ml_collections.ConfigDict, spec: spec_lib.Spec
) -> None:
  """Write config.json and spec.json, behind copies of the user's own files.

  Raises:
    InputError: The folder cannot be written.
  """
  with _writable(folder):
    own_code.keep(folder, config)
    atomic.write_json(folder / layout.CONFIG, _kept(config))
    atomic.write_json(folder / layout.SPEC, spec.to_json())


@contextlib.contextmanager
def _writable(folder: epath.Path) -> Iterator[None]:
  """Turn an error of the disk into a message that names the workdir."""
  try:
    yield
  except OSError as error:
    raise errors.InputError(f"--workdir={folder}: {error}") from error
