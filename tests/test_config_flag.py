"""--config by name: what ml_collections then reads is a file."""

import itertools

import pytest

from deeplax import config_flag
from deeplax import errors
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
