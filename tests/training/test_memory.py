"""What would fit is said only when it would."""

import types
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from deeplax import errors
from deeplax import parallel
from deeplax.ops import backend
from deeplax.settings import defaults
from deeplax.settings import find
from deeplax.training import inputs
from deeplax.training import loop
from deeplax.training import memory
from deeplax.training import parts as parts_lib
from deeplax.training import run as run_lib
from deeplax.training import state as state_lib
from deeplax.training import step as step_lib
from tests import processes

GB = 10**9


def refuse(
  monkeypatch, *, available, needed=10 * GB, state=1 * GB, mode="train"
):
  config = defaults.base()
  config.model.batch_norm.mode = mode
  config.train.memory_fraction = 1.0
  monkeypatch.setattr(parallel, "memory_free", lambda mesh: available)
  memory.refuse_too_large(config, needed, parallel.mesh(), state_bytes=state)


def test_what_fits_passes(monkeypatch):
  refuse(monkeypatch, available=10 * GB)


def test_the_device_with_the_least_decides_for_all_processes(monkeypatch):
  several = processes.Processes(monkeypatch, 2)
  mesh = parallel.mesh()
  config = defaults.base()
  config.train.memory_fraction = 1.0
  free = [12 * GB, 10 * GB]
  monkeypatch.setattr(
    parallel, "memory_free", lambda mesh: free[parallel.rank()]
  )

  def refusals(*needed):
    return several.run(
      lambda rank: memory.refuse_too_large(
        config, needed[rank], mesh, state_bytes=GB
      )
    )

  assert refusals(10 * GB, 9 * GB) == [None, None]
  for error in refusals(11 * GB, 9 * GB):
    assert isinstance(error, parallel.Told)
    assert "needs 11.0 GB and 10.0 GB of a device's" in str(error)


def test_half_the_activations_are_half_the_batch(monkeypatch):
  with pytest.raises(errors.InputError) as caught:
    refuse(monkeypatch, available=int(5.5 * GB))
  text = str(caught.value)
  assert "--config.train.batch_size=8 " in text
  assert "--config.data.crop_size='(353, 353)'" in text
  assert "--config.model.remat=True" in text


def test_no_batch_is_offered_when_the_state_alone_does_not_fit(monkeypatch):
  with pytest.raises(errors.InputError) as caught:
    refuse(monkeypatch, available=GB // 2)
  assert "--config" not in str(caught.value)
  assert "take a smaller model.backbone" in str(caught.value)


@pytest.mark.parametrize("mode", ["frozen", "fixed"])
def test_parts_of_the_batch_are_offered_where_norms_are_frozen(
  monkeypatch, mode
):
  # A third of the activations fits: of the divisors of 16, 4 parts.
  with pytest.raises(errors.InputError, match="--config.train.accumulate=4 "):
    refuse(monkeypatch, available=4 * GB, mode=mode)
  with pytest.raises(errors.InputError) as caught:
    refuse(monkeypatch, available=4 * GB)
  assert "accumulate" not in str(caught.value)


# What XLA says: libtpu 0.0.52 and one before; the allocators of GPUs and CPUs.
TPU = (
  "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the "
  "total memory required for HLO temporaries (10.00G) exceeds available HBM "
  "(5.50G). HLO module: jit_step."
)
OLDER = (
  "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in "
  "memory space hbm. Used 10.00G of 5.50G hbm. Exceeded hbm capacity by 4.50G."
)
GPU = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8.01GiB."
BYTES = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 500 bytes."
BOTH = (
  "RESOURCE_EXHAUSTED: Failed to allocate request for 176.00MiB (184549376B) "
  "on device ordinal 0"
)
NONE = "RESOURCE_EXHAUSTED: Ran out of memory on HBM."


def message(kind, text, *args, backbone="xception_65", **keywords):
  """Return what becomes of an error inside `refusals` or `exhaustion`."""
  config = defaults.base()
  config.model.backbone = backbone
  config.train.memory_fraction = 1.0
  with pytest.raises(errors.InputError) as caught:
    with kind(config, parallel.mesh(), *args, **keywords):
      raise jax.errors.JaxRuntimeError(text)
  return str(caught.value)


@pytest.mark.parametrize("text", [TPU, OLDER])
def test_a_compilers_refusal_gives_the_same_advice(text):
  said = message(memory.refusals, text, state_bytes=2**30)
  assert said.startswith("one step needs 10.7 GB and 5.9 GB of a device's")
  assert "Use --config.train.batch_size=8 or" in said
  assert "--config.data.crop_size='(353, 353)'" in said


def test_a_compiler_without_memory_gives_the_advice_of_half():
  said = message(memory.refusals, GPU, state_bytes=2**30)
  assert ", which asked for 8.6 GB more. End other programs" in said
  assert "--config.train.batch_size=8 or" in said


@pytest.mark.parametrize(
  ("text", "asked"),
  [(GPU, "8.6 GB"), (BYTES, "0.0 GB"), (BOTH, "0.2 GB"), (NONE, "")],
)
def test_memory_that_ends_while_training_tells_what_is_kept(text, asked):
  said = message(memory.exhaustion, text, lambda: 40)
  more = f", which asked for {asked} more" if asked else ""
  assert said == (
    f"training ran out of a device's memory{more}. The same command goes on "
    "from step 40 once other programs have left the device, or with "
    "--config.model.remat=True. Another run, in its own --workdir, takes about "
    "half the memory by --config.train.batch_size=8 or "
    "--config.data.crop_size='(353, 353)'"
  )
  said = message(memory.exhaustion, text, lambda: None, backbone="vgg16")
  assert "The same command begins anew once other" in said
  assert "remat" not in said


def test_other_errors_of_the_devices_pass():
  config, mesh = defaults.base(), parallel.mesh()
  text = "INTERNAL: out of memory while allocating"
  for context in (
    memory.refusals(config, mesh, state_bytes=1),
    memory.exhaustion(config, mesh, lambda: 1),
  ):
    with pytest.raises(RuntimeError, match="INTERNAL"), context:
      raise jax.errors.JaxRuntimeError(text)


def test_a_run_tells_both(tmp_path, monkeypatch, short):
  config = find.load(find.config("v3plus_mobilenet_v2")).get_config("debug")
  config.model.depth_multiplier = 0.1
  config.model.channels = config.model.decoder.channels = 8

  def raises(text):
    def run(*args, **keywords):
      raise jax.errors.JaxRuntimeError(text)

    return run

  workdir = tmp_path / "run"
  monkeypatch.setattr(memory, "compile_step", raises(TPU))
  with pytest.raises(errors.InputError, match="one step needs 10.7 GB"):
    run_lib.run(
      config, inputs.found(config, str(workdir)), workdir=str(workdir)
    )
  assert not (workdir / "config.json").exists()
  monkeypatch.setattr(memory, "compile_step", lambda *_: (print, 5))
  monkeypatch.setattr(loop, "loop", raises(GPU))
  with pytest.raises(errors.InputError, match="command begins anew once"):
    run_lib.run(
      config, inputs.found(config, str(workdir)), workdir=str(workdir)
    )


def compiler_options(
  monkeypatch, platform, *, deterministic=False, quick=False
):
  """Return what a step is compiled with for a platform that is not here."""
  config, given = defaults.base(), []
  config.train.deterministic = deterministic
  config.train.quick_compile = quick
  nothing: Any = None
  use = types.SimpleNamespace(
    temp_size_in_bytes=50,
    argument_size_in_bytes=20,
    output_size_in_bytes=12,
    alias_size_in_bytes=10,
  )

  class Lowered:
    def lower(self, state, batch):
      assert backend.ordered() == (deterministic and platform == "gpu")
      return self

    def compile(self, options):
      given.append(options)
      return types.SimpleNamespace(memory_analysis=lambda: use)

  for name in ("split", "replicated"):
    monkeypatch.setattr(parallel, name, lambda mesh: None)
  monkeypatch.setattr(parallel, "pmap", lambda step, mesh: Lowered())
  monkeypatch.setattr(step_lib, "make_train_step", lambda *_, **__: None)
  device = types.SimpleNamespace(platform=platform)
  mesh: Any = types.SimpleNamespace(size=1, devices=np.array([[device]]))
  parts = parts_lib.Parts(
    train_source=[{"image": np.zeros((2, 2, 3), np.uint8)}],  # pyright: ignore
    eval_source=nothing,
    model=types.SimpleNamespace(mean=(0, 0, 0)),  # pyright: ignore
    loss=nothing,
    lr=nothing,
    tx=nothing,
    batches=nothing,
    measure=nothing,
    mesh=mesh,
  )
  state = state_lib.create(
    {"params": {"a": jnp.zeros(2)}}, optax.sgd(0.1), seed=0
  )
  said = []
  _, needed = memory.compile_step(config, parts, state, said.append)
  assert needed == 72
  (options,) = given
  return options


def test_only_a_gpus_step_is_compiled_to_be_deterministic(monkeypatch):
  for platform in ("cpu", "tpu", "gpu"):
    options = compiler_options(monkeypatch, platform, deterministic=False)
    assert options is None
  for platform in ("cpu", "tpu"):
    options = compiler_options(monkeypatch, platform, deterministic=True)
    assert options is None
  options = compiler_options(monkeypatch, "gpu", deterministic=True)
  assert options == memory.DETERMINISTIC


def test_only_a_cpus_step_is_compiled_quickly(monkeypatch):
  for platform in ("gpu", "tpu"):
    assert compiler_options(monkeypatch, platform, quick=True) is None
  assert compiler_options(monkeypatch, "cpu", quick=True) == memory.QUICK
  assert defaults.base().train.quick_compile is False


def test_xla_has_these_options_and_its_cache_tells_them_apart(tmp_path):
  def entries(options):
    jax.jit(lambda x: x * 3 + 1).lower(jnp.ones(7)).compile(options)
    return len([*tmp_path.glob("*-cache")])

  settings: Any = jax.config
  changed = {
    "jax_compilation_cache_dir": str(tmp_path),
    "jax_persistent_cache_min_compile_time_secs": 0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
  }
  before = {key: settings.values[key] for key in changed}
  try:
    for key, value in changed.items():
      settings.update(key, value)
    compilation_cache.reset_cache()
    x = entries(None)
    assert entries(None) == x
    assert entries(memory.DETERMINISTIC) == x + 1
    assert entries(memory.QUICK) == x + 2
    with pytest.raises(RuntimeError, match="No such compile option"):
      entries({"xla_gpu_deterministic": True})
  finally:
    for key, value in before.items():
      settings.update(key, value)
    compilation_cache.reset_cache()
