"""--config by name: what ml_collections then reads is a file."""

import itertools
import json
import socket
import subprocess
import sys

from absl.testing import flagsaver
import pytest

from deeplax import config_flag
from deeplax import errors
from tests import commands
from tests import conftest

FILE = conftest.ROOT / "configs" / "published.py"


@pytest.mark.parametrize("value", ["published", "configs/published.py"])
def test_a_name_becomes_its_file_and_keeps_its_argument(
  value, tmp_path, monkeypatch, capsys
):
  monkeypatch.chdir(tmp_path)
  rest = ["--config.seed=1", "--workdir=published"]
  for flag, argument in itertools.product(
    ("--config", "-config"), ("", ":debug", ":timm_xception41.tf_in1k")
  ):
    given, found = f"{value}{argument}", f"{FILE}{argument}"
    for before, after in (
      ([f"{flag}={given}"], [f"{flag}={found}"]),
      ([flag, given], [flag, found]),
    ):
      became = config_flag._with_files(["main", *before, *rest])
      assert became == ["main", *after, *rest], before
      said = f"--config={value} comes with deeplax: {FILE}\n"
      assert capsys.readouterr().err == said, before


def test_of_a_users_own_file_nothing_is_said(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "mine.py").write_text("")
  given = ["main", "--config=mine.py:x", "--config.a=b"]
  assert config_flag._with_files(given) == given
  assert not capsys.readouterr().err


def test_an_unknown_name_ends_before_anything_is_read():
  with pytest.raises(errors.InputError, match="no configuration 'nothing': "):
    config_flag.parse(["main", "--config=nothing:debug"])


@pytest.mark.parametrize(
  ("path", "workdir"),
  [
    (str(FILE), "runs/published"),
    ("mine.py:a.b", "runs/mine_a.b"),
    ("v3plus_xception:debug", "runs/v3plus_xception_debug"),
  ],
)
def test_the_workdir_is_named_after_configuration_and_argument(path, workdir):
  assert config_flag.default_workdir(path) == workdir


PARSE = """\
import json, sys
from deeplax import config_flag, errors

@errors.command
def main():
  config_flag.parse(sys.argv)
  print(config_flag.CONFIG.value.to_json())

main()
"""


def parsed(*flags: str) -> tuple[dict, str]:
  """Return the configuration that flags make, or the message."""
  done = subprocess.run(
    [sys.executable, "-c", PARSE, "--config=quickstart", *flags],
    cwd=commands.ROOT,
    env=commands.environment(),
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode in (0, 2), done.stderr
  return json.loads(done.stdout or "{}"), done.stderr


@pytest.mark.parametrize(
  ("first", "second"),
  [
    ("--config.eval.scales=(0.5,)", "--config.eval.scales=(1.0,)"),
    ("--config.seed=1", "--config.seed=1"),
    ("--config.data.flip", "--noconfig.data.flip"),
    ("-config.seed=1", "--config.seed=2"),
    ("--workdir=a", "--workdir=b"),
  ],
)
def test_a_key_given_twice_is_refused(first, second):
  message = parsed(first, "--config.optim.power=1", second)[1]
  assert f"deeplax: {first} and {second} set the same" in message
  for left in (first, second):  # what it advises
    assert parsed("--config.optim.power=1", left)[0]["optim"]["power"] == 1


def test_other_keys_that_begin_alike_are_not_the_same():
  config, message = parsed(
    *("--config.eval.crf.w1=1", "--config.eval.crf.w2=2"),
    *("--config.eval.sizes=exact", "--config.eval.scales=(2.0,)"),
    *("--config.optim.end_lr", "0", "--config.optim.base_lr", "0.5"),
  )
  assert config["eval"]["scales"] == [2.0] and "same" not in message


@pytest.mark.parametrize(
  "key",
  [
    *("data.root", "data.channels", "model.atrous_rates", "model.dropout"),
    *("eval.output_stride", "eval.pad_to", "init.checkpoint"),
  ],
)
def test_what_is_none_by_default_can_be_set_back_to_it(key):
  # The quickstart's data has pad_to, other keys are None there already.
  config, message = parsed(f"--config.{key}=None")
  part, name = key.split(".")
  assert config[part][name] is None, message


@pytest.mark.parametrize("key", ["seed", "eval.scales", "data.name"])
def test_what_always_has_a_value_cannot_be_none(key):
  message = parsed(f"--config.{key}=None")[1]
  assert f"--config.{key}=None: {key} always has a value, by defa" in message
  assert parsed()[0]  # left out


def test_none_of_an_unknown_key_is_an_unknown_key():
  assert 'Did you mean "scales"' in parsed("--config.eval.scale=None")[1]


def test_a_file_of_ones_own_is_named_from_the_current_folder():
  value = "my_decoder.py:MyDecoder(channels=64)"
  config, message = parsed(f"--config.model.decoder.kind={value}")
  assert config["model"]["decoder"]["kind"] == f"{commands.ROOT}/{value}", (
    message
  )
  assert "write FILE.py:NAME" in parsed("--config.model.head=h.py:H(3)")[1]


def test_a_port_that_the_first_process_cannot_open_is_refused():
  address, number = config_flag.PROCESS[0].name, config_flag.PROCESS[2].name
  with socket.create_server(("", 0)) as other:
    taken = f"10.0.0.1:{other.getsockname()[1]}"
    for text in (taken, "10.0.0.1:70000", "10.0.0.1"):
      with flagsaver.flagsaver(**{address: text, number: 0}):
        with pytest.raises(errors.InputError, match=f"={text}: this host"):
          config_flag.process()
    # The others do not open it.
    with flagsaver.flagsaver(**{address: taken, number: 1}):
      assert config_flag.process() == {address: taken, number: 1}
  with flagsaver.flagsaver(**{address: taken, number: 0}):
    assert config_flag.process() == {address: taken, number: 0}
  assert config_flag.process() is None


def test_variables_say_what_no_flag_says(monkeypatch):
  address, number = config_flag.PROCESS[0].name, config_flag.PROCESS[2].name
  with socket.create_server(("", 0)) as other:
    taken = f"10.0.0.1:{other.getsockname()[1]}"
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", taken)
    monkeypatch.setenv("JAX_PROCESS_ID", "0")
    assert config_flag.process() is None  # nothing asks for several
    with flagsaver.flagsaver(multihost=True):
      said = f"JAX_COORDINATOR_ADDRESS={taken}: this host"
      with pytest.raises(errors.InputError, match=said):
        config_flag.process()
    with flagsaver.flagsaver(**{number: 1}):
      assert config_flag.process() == {address: taken, number: 1}
  with flagsaver.flagsaver(multihost=True):
    for name, text in (("JAX_PROCESS_ID", "-1"), ("JAX_NUM_PROCESSES", "two")):
      monkeypatch.setenv(name, text)
      with pytest.raises(errors.InputError, match=f"^{name}={text}: "):
        config_flag.process()
      monkeypatch.delenv(name)
