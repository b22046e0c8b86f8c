import json
import sys

import jax
import jax.numpy as jnp
import pytest

from benchmarks import remat
from benchmarks import steps
from deeplax.ops import backend
from tests.commands import ROOT

SIZE = 33


def test_what_is_kept_is_counted_once_and_without_arguments():
  x = jnp.ones((100,))

  def twice(x):
    return jnp.sin(jnp.sin(x)).sum()

  # The cosines of both.
  assert remat.kept(twice, x) == 2 * x.nbytes
  assert remat.kept(jax.checkpoint(twice), x) == 0
  # Of a product one factor, which is an argument.
  assert remat.kept(lambda x, y: (x * y).sum(), x, x) == 0


@pytest.mark.parametrize(
  "platform",
  ["tpu", pytest.param("gpu", marks=pytest.mark.slow)],  # 4 s
)
def test_a_network_keeps_less_with_remat(short, platform):
  kept = {}
  for way, remats in remat.WAYS.items():
    config = steps.config("v3plus_mobilenet_v2:debug", remat=remats)
    with backend.target(platform):
      kept[way] = remat.kept_by_network(config, images=2, size=SIZE)
  pixels = 2 * SIZE**2
  assert 0 < kept["remat"] < 0.8 * kept["kept"]
  assert kept["kept"] > 21 * 4 * pixels  # the logits


def test_the_documents_have_the_recorded_figures():
  text = (ROOT / "docs" / "performance.md").read_text().replace("**", "")
  results = ROOT / "benchmarks" / "results"
  plain, remats, traced = (
    json.loads((results / f"{name}.json").read_text())
    for name in ("aot", "aot_remat", "remat")
  )
  pairs = zip(plain["programs"], remats["programs"], strict=True)
  for without, using in pairs:
    assert without["config"] == using["config"]
    gb = [row["gb"]["temporaries"] for row in (without, using)]
    cycles = [row["mega_cycles"] for row in (without, using)]
    assert f" {gb[0]:.2f}, {gb[1]:.2f} GB |" in text
    more = cycles[1] / cycles[0] - 1
    assert f" {cycles[0]:.1f}, {cycles[1]:.1f} (+{more:.0%}) |" in text
  for row in traced["networks"]:
    found = [*row["kept_gb"].values()]
    found += [row["cpu"]["temporaries_gb"]] if "cpu" in row else []
    for gb in found:
      assert f" {gb['kept']:.2f}, {gb['remat']:.2f} GB |" in text


@pytest.mark.slow  # 60 s: two steps compile
def test_the_command_times_both_in_turn(short, tmp_path, monkeypatch, capsys):
  out = tmp_path / "remat.json"
  flags = "--config=v3plus_mobilenet_v2:debug --images=2 --size=33 --rounds=2"
  flags += f" --cpu_size=33 --out={out}"
  monkeypatch.setattr(sys, "argv", ["remat", *flags.split()])
  with pytest.raises(SystemExit) as ended:
    remat.main()
  assert not ended.value.code
  (row,) = json.loads(out.read_text())["networks"]
  assert len(row["cpu"]["seconds"]["remat"]["all"]) == 2
  assert row["cpu"]["temporaries_gb"]["kept"] > 0
  assert "remat takes " in capsys.readouterr().out
