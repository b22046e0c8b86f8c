"""Starting from another workdir: what is carried over, what is new."""

import shlex
import sys

from etils import epath
import flax.traverse_util
import numpy as np
import pytest

from configs import lraspp_mobilenet_v3
from configs import v1_vgg16_largefov
from deeplax import errors
from deeplax import parallel
from deeplax.data import spec as spec_lib
from deeplax.models import build
from deeplax.models import variables as variables_lib
from deeplax.training import initial
from deeplax.training import optim
from deeplax.training import state as state_lib
from deeplax.workdir import checkpoint
from deeplax.workdir import saves
from deeplax.workdir import settings
from tests import commands
from tests import processes
from tests import runs
from tests.models import networks

pytestmark = pytest.mark.usefixtures("short")


def config():
  """LR-ASPP, whose class scores come from three places; made tiny."""
  c = lraspp_mobilenet_v3.get_config("debug")
  c.model.backbone = "mobilenet_v2"
  c.model.depth_multiplier = 0.1
  return c


def flat(variables):
  return {
    "/".join(path): np.asarray(value)
    for path, value in flax.traverse_util.flatten_dict(variables).items()
  }


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  """Return the workdir of a network of three classes, and its variables."""
  with networks.shorten():
    return save_run(tmp_path_factory.mktemp("start") / "run", config())


def save_run(folder, c):
  """Save drawn variables of three classes as a run; return them too."""
  model = build.from_config(c.model, num_classes=3)
  variables = variables_lib.initial_variables(model, seed=7)
  _, tx = optim.optimizer(c)
  state = state_lib.create(variables, tx, seed=0)
  saves.save_start(folder, state)
  spec = spec_lib.Spec("three", ("a", "b", "c"), spec_lib.color_map(3))
  settings.write_run_files(
    epath.Path(folder), c, spec, state.params, lambda line: None
  )
  return folder, flat(variables)


def test_the_same_classes_carry_everything_over(workdir):
  folder, old = workdir
  c = config()
  c.init.checkpoint = str(folder)
  model = build.from_config(c.model, num_classes=3)
  new = flat(initial.variables(c, model, resumed=False))
  assert new.keys() == old.keys()
  for path, value in new.items():
    np.testing.assert_array_equal(value, old[path])
  # A resumed run restores its own.
  drawn = flat(variables_lib.initial_variables(model, seed=c.seed))
  resumed = flat(initial.variables(c, model, resumed=True))
  kernel = "params/backbone/conv/kernel"
  np.testing.assert_array_equal(resumed[kernel], drawn[kernel])
  assert (drawn[kernel] != old[kernel]).any()


def test_with_other_classes_only_what_has_one_entry_for_each_is_new(
  workdir, capsys
):
  folder, old = workdir
  c = config()
  c.init.checkpoint = str(folder)
  model = build.from_config(c.model, num_classes=5)
  new = flat(initial.variables(c, model, resumed=False))
  of_classes = {
    f"params/{part}/{leaf}"
    for part in ("decoder/conv0", "decoder/feature_projection0")
    for leaf in ("kernel", "bias")
  }
  changed = {p for p in new if new[p].shape != old[p].shape}
  assert changed == of_classes
  for path in new.keys() - changed:
    np.testing.assert_array_equal(new[path], old[path])
  said = capsys.readouterr().out
  assert "(5 classes)" in said
  for path in changed:
    assert path in said


def test_another_network_is_refused_naming_its_parameters(workdir):
  folder, _ = workdir
  c = config()
  c.init.checkpoint = str(folder)
  c.model.channels = 48
  model = build.from_config(c.model, num_classes=5)
  with pytest.raises(errors.InputError, match="holds another network") as error:
    initial.variables(c, model, resumed=False)
  assert "params/head" in str(error.value)
  assert "decoder/conv0/bias" not in str(error.value)


def test_another_network_is_told_by_all_processes_alike(workdir, monkeypatch):
  folder, _ = workdir
  theirs, _ = checkpoint.restore_variables(folder)
  # Orbax asks other processes, which are threads here.
  monkeypatch.setattr(checkpoint, "read", lambda start, step: theirs)
  c = config()
  c.init.checkpoint = str(folder)
  c.model.channels = 48
  model = build.from_config(c.model, num_classes=5)
  several = processes.Processes(monkeypatch, 2)
  for error in several.run(
    lambda _: initial.variables(c, model, resumed=False)
  ):
    assert isinstance(error, parallel.Told)
    assert str(error).startswith(f"init.checkpoint {folder} holds another")


@pytest.mark.parametrize(
  ("changes", "new"),
  [
    ({"channels": 48}, "head"),
    ({"decoder.kind": "none"}, "logits"),
    ({"decoder.kind": "none", "head": "aspp"}, "head,logits"),
  ],
)
def test_another_network_comes_with_the_commands_that_make_it_fit(
  workdir, monkeypatch, changes, new
):
  folder, _ = workdir
  c = config()
  c.init.checkpoint = f"{folder}/"
  c.model.update_from_flattened_dict(changes)
  arguments = ["main", "--config", "a b.py", "--config.seed=1", "--workdir=x"]
  monkeypatch.setattr(sys, "argv", [*arguments, "--config.init.checkpoint=y"])
  model = build.from_config(c.model, num_classes=5)
  with pytest.raises(errors.InputError, match="another network") as error:
    initial.variables(c, model, resumed=False)
  flags = "'--config=a b.py' --config.seed=1"
  assert str(error.value).splitlines()[1:] == [
    f"python -m deeplax.convert --source=deeplax --checkpoint={folder} {flags} "
    f"--new={new} --workdir={folder}_as_start",
    f"python -m deeplax.main {flags} "
    f"--config.init.checkpoint={folder}_as_start",
  ]


def test_another_backbone_is_taken_over_by_the_commands(workdir, monkeypatch):
  folder, _ = workdir
  c = config()
  c.init.checkpoint = str(folder)
  c.model.depth_multiplier = 0.5
  # The head reads as many channels as the other backbone has: it fits then.
  c.model.channels = 48
  flag = "--config.model.depth_multiplier=0.5"
  monkeypatch.setattr(sys, "argv", ["main", "--config=a", flag, "--workdir=x"])
  model = build.from_config(c.model, num_classes=5)
  with pytest.raises(errors.InputError, match="holds another") as error:
    initial.variables(c, model, resumed=False)
  flags = "--config=a --config.model.depth_multiplier=0.1"
  assert str(error.value).splitlines()[1:] == [
    f"python -m deeplax.convert --source=deeplax --checkpoint={folder} {flags} "
    f"--new=head --workdir={folder}_as_start",
    f"python -m deeplax.main {flags} "
    f"--config.init.checkpoint={folder}_as_start",
  ]
  assert c.model.depth_multiplier == 0.5


def test_a_backbone_that_no_key_explains_comes_with_no_command(
  workdir, monkeypatch
):
  folder, _ = workdir
  c = config()
  c.init.checkpoint = str(folder)
  c.model.depth_multiplier = 0.5
  monkeypatch.setattr(initial, "BACKBONE_KEYS", ())
  model = build.from_config(c.model, num_classes=5)
  with pytest.raises(errors.InputError, match="holds another") as error:
    initial.variables(c, model, resumed=False)
  assert "convert" not in str(error.value)


@pytest.mark.slow  # 20 s: four commands
@pytest.mark.parametrize(
  "change", ["model.channels=16", "model.decoder.kind=none"]
)
def test_the_commands_of_the_message_start_a_run(
  trained_copy, tmp_path, change
):
  key = f"--config.{change.partition('=')[0]}="
  flags = [text for text in runs.SMALL if not text.startswith(key)]
  flags += [f"--config.{change}", f"--workdir={tmp_path / 'new'}"]
  start = f"--config.init.checkpoint={trained_copy}"
  done = commands.command("main", *flags, start, short=True)
  assert done.returncode == 2
  for line in done.stderr.splitlines()[1:]:
    python, m, module, *arguments = shlex.split(line)
    assert (python, m) == ("python", "-m")
    if module == "deeplax.main":
      arguments.append(f"--workdir={tmp_path / 'new'}")
    name = module.removeprefix("deeplax.")
    done = commands.command(name, *arguments, short=True)
    assert done.returncode == 0, done.stderr
  assert "new: none" in done.stdout
  old, _ = checkpoint.restore_variables(trained_copy)
  converted, _ = checkpoint.restore_variables(f"{trained_copy}_as_start")
  kept = flat(converted["params"]["backbone"])
  for path, value in flat(old["params"]["backbone"]).items():
    np.testing.assert_array_equal(kept[path], value)


@pytest.fixture
def plain_run(tmp_path):
  """Return the workdir of v1 as its plain configuration trains it."""
  c = v1_vgg16_largefov.get_config("debug")
  return save_run(tmp_path / "run", c), c


def test_v1s_branches_start_from_the_plain_run(plain_run, capsys):
  (folder, old), c = plain_run
  msc = v1_vgg16_largefov.get_config("msc")
  assert msc.init.checkpoint == "runs/v1_vgg16_largefov"
  c.init.checkpoint = str(folder)
  c.model.decoder.kind = msc.model.decoder.kind
  c.optim.trained = msc.optim.trained
  model = build.from_config(c.model, num_classes=3)
  new = flat(initial.variables(c, model, resumed=False))
  fresh = flat(variables_lib.initial_variables(model, seed=c.seed))
  parts = {"params/decoder", "params/logits"}
  for path, value in new.items():
    part = "/".join(path.split("/")[:2])
    source = fresh if part in parts else old
    np.testing.assert_array_equal(value, source[path])
  assert "decoder/pool4_conv2/kernel" in capsys.readouterr().out
  # Only these train: the others have no step.
  _, tx = optim.optimizer(c)
  params = {
    part: {"kernel": np.ones((1, 1, 2, 2), np.float32)}
    for part in ("backbone", "head", "decoder", "logits")
  }
  steps, _ = tx.update(params, tx.init(params), params)
  moved = {part for part, step in steps.items() if step["kernel"].any()}
  assert moved == {"decoder", "logits"}


def test_a_run_without_v1s_head_is_no_start_for_its_branches(plain_run):
  (folder, _), c = plain_run
  c.init.checkpoint = str(folder)
  c.model.decoder.kind = "branches"
  c.model.channels = 16
  model = build.from_config(c.model, num_classes=3)
  with pytest.raises(errors.InputError, match="params/head/fc6") as error:
    initial.variables(c, model, resumed=False)
  assert "decoder" not in str(error.value)
