"""A network of one's own: trained, evaluated, resumed, never run unasked."""

import json
import pathlib
import shutil
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from configs import quickstart
from deeplax import errors
from deeplax.inference import open_run
from deeplax.models import build
from deeplax.settings import own
from deeplax.training import inputs
from deeplax.training import parts
from deeplax.training import run as run_lib
from deeplax.workdir import checkpoint
from deeplax.workdir import settings
from tests import commands
from tests import conftest
from tests import runs
from tests.models import networks

EXAMPLES = conftest.ROOT / "docs" / "examples"


@pytest.fixture
def decoder(tmp_path) -> pathlib.Path:
  path = tmp_path / "mine" / "my_decoder.py"
  path.parent.mkdir()
  return pathlib.Path(shutil.copy(EXAMPLES / "my_decoder.py", path))


WITHOUT_JAX = """\
import sys
from deeplax import evaluate, main
sys.argv = {arguments}
try:
  {name}.main()
finally:
  assert "jax" not in sys.modules
"""


def refused_without_jax(name: str, *arguments: object) -> str:
  """Return the message of a command that ends before JAX is loaded."""
  given = [name, *map(str, arguments)]
  code = WITHOUT_JAX.format(name=name, arguments=given)
  done = subprocess.run(
    [sys.executable, "-c", code],
    cwd=commands.ROOT,
    env=commands.environment(),
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 2, done.stderr
  return done.stderr


@pytest.mark.slow
def test_a_decoder_in_a_file_trains_and_resumes_and_is_evaluated(
  decoder, tmp_path
):
  kind = f"{decoder}:MyDecoder(channels=8)"
  flags = (f"--config.model.decoder.kind={kind}", "--config.seed=3")
  whole = runs.train(tmp_path / "whole", *flags)
  trained, _ = checkpoint.restore_variables(whole.workdir)
  assert trained["params"]["decoder"]["gate"]["kernel"].shape == (1, 1, 8, 1)
  kept = json.loads((whole.workdir / "config.json").read_text())
  assert kept["model"]["decoder"]["kind"] == kind
  copy = whole.workdir / "code" / "my_decoder.py"
  assert copy.read_bytes() == decoder.read_bytes()
  # The same bits from a run that stopped at step 2.
  half = shutil.copytree(whole.workdir, tmp_path / "half")
  shutil.rmtree(half / "checkpoints" / "4")
  resumed = runs.train(half, *flags)
  assert "resuming from step 2 of 4" in resumed.done.stdout
  runs.assert_same_parameters(whole.workdir, half)
  evaluated = ("evaluate", f"--workdir={half}", "--no-sweep", "--flip")
  assert "add --own_code" in refused_without_jax(*evaluated)
  done = commands.command(*evaluated, "--own_code", short=True)
  assert done.returncode == 0 and "mIoU" in done.stdout, done.stderr
  # Changed, it is another network; gone, its copy is not run.
  text = decoder.read_text()
  decoder.write_text(text.replace("sigmoid", "tanh"))
  done = commands.command(
    "main", *runs.SMALL, *flags, f"--workdir={half}", short=True
  )
  message = f"deeplax: model.decoder.kind {kind}: {decoder} has changed since"
  assert done.returncode == 2 and done.stderr.startswith(message), done.stderr
  decoder.unlink()
  message = refused_without_jax("evaluate", f"--workdir={half}", "--own_code")
  assert f"{half / 'code' / 'my_decoder.py'} is what it was" in message


def test_what_is_wrong_in_the_file_is_told_before_anything_is_written(
  decoder, tmp_path
):
  workdir = tmp_path / "run"
  flag = f"--config.model.decoder.kind={decoder}:MyDecoder(channels=8)"
  broken = {
    "def __call__(self, high": ("def __call__(self high", "line 17: Syn"),
    "class MyDecoder": ("class Mine", "has no MyDecoder; it has Mine"),
    "import jax\n": ("import jaxx\n", "No module named 'jaxx'"),
    "return refine(": ("return refine.x(", "AttributeError"),
  }
  text = decoder.read_text()
  for old, (new, message) in broken.items():
    assert old in text
    decoder.write_text(text.replace(old, new))
    arguments = (*runs.SMALL, flag, f"--workdir={workdir}")
    if "Syn" in message or "has no" in message:
      told = refused_without_jax("main", *arguments)
    else:
      told = commands.command("main", *arguments, short=True).stderr
    assert message in told and "Traceback" not in told, told
    assert told.startswith("deeplax: model.decoder.kind ")
    left = [p.name for p in workdir.glob("*") if p.name != "compiled"]
    assert not left


OWN = """\
import flax.linen as nn
import jax.numpy as jnp
import optax


class Backbone(nn.Module):
  output_stride: int
  kernel_init: object
  norm: object

  @nn.compact
  def __call__(self, x, *, train):
    sizes = {"low4": 4, "high": self.output_stride // 4}
    features = {}
    for name, stride in sizes.items():
      x = nn.Conv(8, (3, 3), strides=stride, kernel_init=self.kernel_init,
                  use_bias=False, name=name)(x)
      x = nn.BatchNorm(use_running_average=not train, momentum=0.5,
                       axis_name=self.norm.axis_name, name=f"{name}_norm")(x)
      features[name] = x = nn.relu(x)
    return features


class Head(nn.Module):
  num_classes: int
  rate: float = 0.1

  @nn.compact
  def __call__(self, high, *, train):
    x = nn.Dropout(self.rate, deterministic=not train)(high)
    return nn.Dense(4 * self.num_classes, name="mix")(x)


def smooth(logits, labels, *, ignore_label, by=0.1):
  k = logits.shape[-1]
  targets = optax.smooth_labels(jnp.eye(k)[labels], by)
  return optax.softmax_cross_entropy(logits, targets)
"""


@pytest.mark.slow  # 30 seconds
def test_backbone_head_and_loss_train_in_half_precision_and_resume(tmp_path):
  file = tmp_path / "own.py"
  file.write_text(OWN)
  flags = (
    f"--config.model.backbone={file}:Backbone",
    f"--config.model.head={file}:Head(rate=0.2)",
    f"--config.train.loss={file}:smooth(by=0.2)",
    *("--config.model.decoder.kind=none", "--config.model.dtype=bfloat16"),
    *("--config.model.depth_multiplier=1.0", "--config.model.remat=False"),
  )
  arguments = (commands.DEBUG, *flags)
  workdir = tmp_path / "whole"
  done = commands.command("main", *arguments, f"--workdir={workdir}")
  assert done.returncode == 0, done.stderr
  assert "own: smooth" in done.stdout
  half = shutil.copytree(workdir, tmp_path / "half")
  shutil.rmtree(half / "checkpoints" / "4")
  done = commands.command("main", *arguments, f"--workdir={half}")
  assert "resuming from step 2 of 4" in done.stdout, done.stderr
  runs.assert_same_parameters(workdir, half)
  found, _ = checkpoint.restore_variables(half)
  assert {*found["params"]} == {"backbone", "head", "logits"}
  moved = found["batch_stats"]["backbone"]["high_norm"]["mean"]
  assert np.abs(moved).max() > 0
  file.write_text(OWN.replace("by=0.1", "by=0.3"))
  # Predicting needs no loss, but this file has the network as well.
  done = commands.command("evaluate", f"--workdir={half}", "--own_code")
  assert "own.py has changed since" in done.stderr
  file.write_text(OWN)
  done = commands.command(
    *("evaluate", f"--workdir={half}", "--own_code"),
    *("--output_strides=16,8", "--no-sweep"),
  )
  assert done.returncode == 0, done.stderr
  assert len(list((half / "eval").glob("*os8*.json"))) >= 1


def small_config() -> Any:
  config = quickstart.get_config("debug")
  config.model.depth_multiplier = 0.1
  config.model.channels = 8
  return config


def made(config: Any, channels: int = 8, **keywords: Any) -> Any:
  """Return the network with the example's decoder, as an object."""
  config = config.model.copy_and_resolve_references()
  config.decoder.kind = (
    f"{EXAMPLES / 'my_decoder.py'}:MyDecoder(channels={channels})"
  )
  key = "model.decoder.kind"
  config.decoder.kind = own.absolute(key, config.decoder.kind)
  kind: Any = type(build.from_config(config, num_classes=8).decoder)
  return build.from_config(
    small_config().model,
    num_classes=8,
    decoder=kind(channels=channels),
    **keywords,
  )


def pixel_loss(logits, labels, *, ignore_label):
  import optax

  return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


@pytest.mark.slow  # 40 seconds
def test_objects_train_resume_and_predict(tmp_path):
  with networks.shorten():
    config, workdir = small_config(), tmp_path / "run"
    found = inputs.found(config, str(workdir))

    def train(model, **keywords):
      run_lib.run(config, found, workdir=str(workdir), model=model, **keywords)

    train(made(config), loss=pixel_loss)
    kept = settings.load_config(workdir)
    assert kept.model.given is True and kept.train.loss == "object"
    assert not config.model.given
    variables, step = checkpoint.restore_variables(workdir)
    assert step == 4 and "gate" in variables["params"]["decoder"]
    shutil.rmtree(workdir / "checkpoints" / "4")
    with pytest.raises(
      errors.InputError, match=r"decoder/reduce/kernel is .*, 8\) there"
    ):
      train(made(config, 4), loss=pixel_loss)
    with pytest.raises(errors.InputError, match=r"deeplax.load\(workdir, mod"):
      train(None)
    train(made(config), loss=pixel_loss)
    again, _ = checkpoint.restore_variables(workdir)
    for part in ("backbone", "decoder"):
      assert_equal(variables["params"][part], again["params"][part])
    with pytest.raises(errors.InputError, match=r"deeplax.load\(workdir, mod"):
      open_run.open_run(workdir, kept)
    opened = open_run.open_run(workdir, kept, made(config))
    predictor = opened.predictor(opened.network(), again)
    labels = predictor.labels(np.zeros((40, 50, 3), np.uint8))
    assert labels.shape == (40, 50)
    other = open_run.open_run(workdir, kept, made(config, 4))
    with pytest.raises(
      errors.InputError, match=r"not the run's: decoder/reduce/\w+ is \(4,\)"
    ):
      other.predictor(other.network(), again)
    with pytest.raises(errors.InputError, match="output stride 8: the network"):
      opened.network(8)
  told = refused_without_jax("evaluate", f"--workdir={workdir}")
  assert "was given as a Python object" in told


def assert_equal(one, other):
  import jax

  jax.tree.map(np.testing.assert_array_equal, one, other)


def test_an_object_has_to_fit_the_run():
  with networks.shorten():
    config = small_config()
    model = made(config)
    config.eval.output_stride = 8
    with pytest.raises(errors.InputError, match="output stride of evaluations"):
      parts.given(config, model, 8)
    config.eval.output_stride = None
    with pytest.raises(errors.InputError, match="its classes: 8, and the con"):
      parts.given(config, model, 4)
    with pytest.raises(
      errors.InputError, match=r"model=Tiny\(...\): give a ne"
    ):
      parts.given(config, networks.Tiny(), 8)
    config.optim.trained = ("decoder",)
    trained: Any = parts.given(config, model, 8)
    assert trained.backbone.norm.mode == "fixed"
    assert trained.decoder.style.norm.mode == "train"


@pytest.mark.slow  # 2 minutes
def test_the_examples_ablation_runs_and_is_reported(tmp_path):
  file, out = EXAMPLES / "my_decoder_ablation.py", tmp_path / "out"
  flags = ("--seeds=0", f"--out={out}")
  for name, further in (
    ("run", ("--only", "published", "mine-32")),
    ("report", ()),
  ):
    done = subprocess.run(
      [
        *(sys.executable, "-m", f"experiments.{name}", f"{file}:debug"),
        *(*flags, *further),
      ],
      cwd=commands.ROOT,
      env=commands.environment(),
      capture_output=True,
      text=True,
      check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
  lines = (out / "results.jsonl").read_text().splitlines()
  found = {line["row"]: line for line in map(json.loads, lines)}
  for row in ("published", "mine-32"):
    assert found[row]["status"] == "finished" and found[row]["miou"] > 0
  report = (out / "table.md").read_text()
  assert "mine-32" in report and "published" in report
  assert str(EXAMPLES) not in report  # of this computer
