import argparse
import importlib.util
import time
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding
import pytest

from benchmarks import aot
from benchmarks import steps
from benchmarks import tpu_program
from deeplax import errors
from deeplax import parallel
from deeplax.models import cost
from deeplax.ops import backend
from deeplax.training import losses

needs_libtpu = pytest.mark.skipif(
  importlib.util.find_spec("libtpu") is None,
  reason='needs a TPU\'s compiler, pip install -e ".[aot]"',
)


def test_without_libtpu_the_command_tells_what_to_install(monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  with pytest.raises(errors.InputError, match="pip install"):
    aot.devices("v5e:2x2")


def test_a_compilation_ticks(monkeypatch, capsys):
  monkeypatch.setattr(aot, "TICK", 0.01)
  with aot.ticking("xception: compiling"):
    time.sleep(0.1)
  first = capsys.readouterr().out.splitlines()[0]
  assert first == "xception: compiling, 0 s"


def arguments(**changes):
  """Return the command's flags, four chips."""
  args = dict(topology="v5e:2x2", images=8, size=513, separable=False)
  args |= dict(remat=False, group="all", programs=None)
  return argparse.Namespace(**args | changes)


def test_a_program_that_was_kept_is_not_compiled_again(monkeypatch, tmp_path):
  compiled = []

  def compile_case(case, args, mesh):
    compiled.append((case.title, args.group))
    return {"config": case.config}, f"ENTRY {case.title}"

  monkeypatch.setattr(aot, "compile_case", compile_case)
  cases = aot.Case("xception", {}), aot.Case("xception", {"resize": "gathers"})
  mesh: Any = None
  for _ in range(2):
    for case in cases:
      for group in ("all", "16"):
        args = arguments(group=group, programs=str(tmp_path / "programs"))
        row, text = aot.kept(case, args, mesh)
        assert (row, text) == ({"config": "xception"}, f"ENTRY {case.title}")
  wanted = [(case.title, group) for case in cases for group in ("all", "16")]
  assert compiled == wanted
  aot.kept(cases[0], arguments(), mesh)
  assert len(compiled) == 5


@needs_libtpu
@pytest.mark.slow  # 1 s
def test_an_unknown_topology_is_refused():
  with pytest.raises(errors.InputError, match="v5e:2x2"):
    aot.devices("v5e:none")


@needs_libtpu
@pytest.mark.slow  # 40 s
def test_the_profile_of_a_small_network(short, tmp_path):
  path = tmp_path / "small.py"
  path.write_text(
    "from deeplax.settings import defaults\n"
    "def get_config(arg=''):\n"
    "  c = defaults.base()\n"
    "  c.model.backbone = 'mobilenet_v2'\n"
    "  c.model.depth_multiplier = 0.25\n"
    "  c.model.channels = c.model.decoder.channels = 16\n"
    "  return c\n"
  )
  mesh = parallel.mesh(aot.devices("v5e:2x2"))
  args = arguments(images=2, size=65, programs=None)
  row = aot.profile(aot.Case(str(path), {}), args, mesh)
  kinds, layers = row["by_kind"], row["by_layer"]
  for way in ("forward", "input gradient", "kernel gradient"):
    assert kinds[f"convolution, {way}"] > 0
    assert kinds[f"depthwise, {way}"] > 0
  assert kinds["resize"] > 0 and kinds["loss"] > 0
  assert layers["backbone/expanded_conv_1"] > 0 and layers["logits"] > 0
  assert sum(kinds.values()) == pytest.approx(row["mega_cycles"], abs=0.05)
  assert sum(layers.values()) == pytest.approx(row["mega_cycles"], abs=0.05)
  assert row["unknown_loops"] == 0
  # One for each norm each way, its two sums together, and the gradients'; those
  # of parallel branches are joined.
  model = steps.network(steps.config(str(path)))
  variables, _ = cost.trace(model, cost.TRACE_SIZE)
  norms = len(jax.tree.leaves(variables["batch_stats"])) // 2
  assert norms < row["collectives"]["all-reduce"]["count"] < 2 * norms + 4
  assert row["ms"] == pytest.approx(row["mega_cycles"] / 1.5)


@needs_libtpu
@pytest.mark.slow  # 20 s
def test_the_forms_for_a_tpu_are_cheaper_at_the_logits_end():
  device = aot.devices("v5e:2x2")[0]
  here = SingleDeviceSharding(device)
  logits, labels = (
    jax.ShapeDtypeStruct(shape, dtype, sharding=here)
    for shape, dtype in (
      ((2, 65, 65, 21), jnp.float32),
      ((2, 257, 257), jnp.int32),
    )
  )

  def loss(logits, labels):
    step = jnp.int32(0)
    return losses.of_batch(logits, None, labels, losses.PLAIN, step=step)

  def cycles(**forms):
    gradient = jax.value_and_grad(loss, has_aux=True)
    with backend.target("tpu"), backend.chosen(**forms):
      compiled = aot.compile_anew(jax.jit(gradient).lower(logits, labels))
    return tpu_program.Program(compiled.as_text()).cycles()

  best = cycles()
  assert best < 0.8 * cycles(cross_entropy="passes")
  assert best < 0.8 * cycles(resize="gathers")
