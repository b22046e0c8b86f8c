"""The commands that a message gives for weights that do not fit as they are."""

import shlex
import sys

import pytest

from deeplax import convert
from deeplax.training import start_commands


def given(monkeypatch, *flags):
  monkeypatch.setattr(sys, "argv", ["main", *flags])


@pytest.mark.parametrize(
  ("path", "source"),
  [
    ("a b/model.ckpt-30000", "tf_deeplab"),
    ("w.npz", "tf_deeplab"),
    ("w.safetensors", "timm"),
    ("w.PTH", "torchvision"),
  ],
)
def test_a_file_is_converted_with_the_flags_of_the_command(
  monkeypatch, path, source
):
  given(monkeypatch, "--config", "my.py", "--config.seed=1", "--workdir=x")
  first, second, last = start_commands.for_file(path).splitlines()
  python, m, module, *words = shlex.split(first)
  assert (python, m, module) == ("python", "-m", "deeplax.convert")
  args, rest = convert.parser().parse_known_args(words)
  assert (args.source, args.checkpoint) == (source, path)
  assert (args.config, rest) == ("my.py", ["--config.seed=1"])
  assert not args.new
  assert shlex.split(second)[3:] == [
    *("--config=my.py", "--config.seed=1"),
    f"--config.init.checkpoint={args.workdir}",
  ]
  assert "caffe, smp, tf_deeplab, timm, torchvision" in last


@pytest.mark.parametrize(
  ("config", "shown"),
  [
    ("own_data", "own_data:pretrained"),
    ("configs/own_data.py", "configs/own_data.py:pretrained"),
    ("own_data:pretrained", "own_data:pretrained"),
  ],
)
def test_own_data_starts_from_the_backbone_by_its_own_configuration(
  monkeypatch, config, shown
):
  old = "--config.init.checkpoint=w.npz"
  given(monkeypatch, f"--config={config}", old, "--config.data.root=a b")
  first, second, _ = start_commands.for_file("w.npz").splitlines()
  for line in (first, second):
    assert f"--config={shown} " in line
    assert "'--config.data.root=a b'" in line and old not in line
  assert "--new=decoder --workdir=runs/w_as_start" in first


def test_keys_that_a_run_takes_over_stand_in_place_of_its_own(monkeypatch):
  given(monkeypatch, "--config=a", "--config.model.x=1", "--config.seed=1")
  change = "--config.model.x=2"
  text = start_commands.for_run("runs/old/", ["decoder", "head"], [change])
  flags = f"--config=a --config.seed=1 {change}"
  assert text.splitlines() == [
    ", or draw decoder and head anew, with what reads it, and start from the "
    "rest:",
    f"python -m deeplax.convert --source=deeplax --checkpoint=runs/old {flags} "
    "--new=decoder,head --workdir=runs/old_as_start",
    f"python -m deeplax.main {flags} "
    "--config.init.checkpoint=runs/old_as_start",
  ]
  text = start_commands.for_run("runs/old", [], [change])
  assert text.startswith(", or start from the rest:") and "--new" not in text
