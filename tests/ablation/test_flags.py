"""The commands' flags: what they mean, what is refused, what they load."""

import argparse
import subprocess
import sys

import pytest

from deeplax.ablation import flags
from experiments import run as run_door


def test_the_report_that_is_named_at_the_end_is_of_the_same_run():
  parser = argparse.ArgumentParser()
  flags.add_arguments(parser)
  text = "v3_table9 --data=camvid --full_size --steps=5 --seeds=0,4 --set=a=b"
  text += " --out=somewhere/else"
  args = parser.parse_args(text.split())
  assert flags.report_command(args) == f"python -m experiments.report {text}"


@pytest.mark.parametrize(
  ("arguments", "said"),
  [
    (["v3plus_table9"], "v3plus_table1"),
    (["nothing.py"], "nothing.py"),
    (["v3plus_table1", "--only", "channels=7"], "low_level_channels=48"),
    (["v3plus_table1", "--shard=5/4"], "5/4"),
    (["v3plus_table1", "--seeds=0,0"], "0,0"),
    (["v3plus_table1", "--steps=0"], "1 or more"),
    (["v3plus_table1", "--full_size"], "--data"),
    (["v3plus_table1:debug", "--data=camvid"], "choose one"),
    (["v3plus_table1:nothing"], "nothing"),
    (["v3plus_table1", "--set", "nothing"], "data.root"),
    (["v3plus_table1", "--set", "data.rot=/a"], "rot"),
  ],
)
def test_bad_input_ends_with_a_message(arguments, said, capsys, tmp_path):
  with pytest.raises(SystemExit) as ended:
    run_door.main([*arguments, "--dry_run", f"--out={tmp_path}"])
  assert ended.value.code == 2
  assert said in capsys.readouterr().err


@pytest.mark.parametrize("door", ["run", "report", "v3plus_table4"])
@pytest.mark.parametrize(("flag", "status"), [("--help", 0), ("--wrong", 2)])
def test_help_and_a_wrong_flag_answer_without_jax(door, flag, status):
  code = (
    f"import sys; from experiments import {door} as door\n"
    f"try: door.main(['{flag}'])\n"
    "finally: assert not {'jax', 'flax', 'grain'} & set(sys.modules)"
  )
  ended = subprocess.run(
    [sys.executable, "-c", code], check=False, capture_output=True, text=True
  )
  assert ended.returncode == status, ended.stderr
  assert "usage" in ended.stdout + ended.stderr
