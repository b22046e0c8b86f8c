"""How many images a program computes at once."""

import jax
import numpy as np
import pytest

from deeplax import errors
from deeplax import parallel
from deeplax.inference import groups
from deeplax.inference import mode as mode_lib
from deeplax.inference import predictor as predictor_lib
from deeplax.inference import programs as programs_lib
from tests.inference import toy

SIZE = (65, 65)


@pytest.fixture
def accelerator(monkeypatch):
  """Treat the CPU as a device that several images keep busy."""
  monkeypatch.setattr(programs_lib, "BUSY_WITH_ONE", ())


def _programs(*, batch=0, progress=toy.silent, exact=False):
  return programs_lib.Programs(
    toy.Brightest(),
    mesh=parallel.mesh(jax.local_devices()[:1]),
    channels=3,
    batch=batch,
    exact=exact,
    progress=progress,
  )


def _at_once(programs, size=SIZE, scales=(1.0,)):
  programs.compile({}, size, set(scales))
  return programs.at_once(size)


def test_a_cpu_computes_one_image_at_a_time_unless_told_otherwise():
  assert _at_once(_programs()) == 1
  assert _at_once(_programs(batch=3)) == 3


def test_accelerators_compute_as_many_as_keep_them_busy_and_come(accelerator):
  assert _at_once(_programs()) == programs_lib.BATCH
  few = _programs()
  few.images = 5
  assert _at_once(few) == 5
  sizes = _programs()
  sizes.expected = {SIZE: 2, (65, 129): 100}
  assert _at_once(sizes) == 2
  assert _at_once(sizes, (65, 129)) == programs_lib.BATCH


def test_large_images_are_fewer_at_once(accelerator, monkeypatch):
  monkeypatch.setattr(programs_lib, "BATCH_PIXELS", 3 * 65 * 65 + 1)
  assert _at_once(_programs()) == 3
  assert _at_once(_programs(), (129, 129)) == 1


@pytest.mark.parametrize("fitting", [1, 5, 11])
def test_half_of_the_free_memory_is_enough(accelerator, monkeypatch, fitting):
  lines = []

  def needed(batch):
    programs = _programs(batch=batch)
    programs.compile({}, SIZE, {2.0})
    program = programs._compiled[2.0, SIZE]
    # Results of so many groups may wait on the devices.
    waiting = programs_lib.WAITING * batch * 65 * 65 * 3 * 4
    return parallel.memory_needed(program) + waiting

  free = 2 * needed(fitting)
  monkeypatch.setattr(parallel, "memory_free", lambda mesh: free)
  programs = _programs(progress=lines.append)
  # The larger scale decides for both.
  chosen = _at_once(programs, scales=(0.5, 2.0))
  assert fitting // 2 < chosen <= fitting
  images = np.random.default_rng(0).uniform(0, 255, (chosen, *SIZE, 3))
  images = images.astype(np.float32)
  for scale in (0.5, 2.0):
    logits = programs.run(
      {}, programs.put(images), np.zeros(chosen, bool), size=SIZE, scale=scale
    )
    assert logits.shape == images.shape
  at_once = f" for {chosen} images at once" if chosen > 1 else ""
  assert lines[0].startswith(f"compiled 65x65{at_once} at 2 scales in ")
  # A size that was chosen stays.
  assert _at_once(programs, scales=(1.0,)) == chosen


REFUSED = (
  "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in "
  "memory space hbm. Used 20.50G of 15.75G hbm."
)


class _Refusing:
  """Compiles for few images alone, as a TPU's compiler does."""

  def __init__(self, lowered, most):
    self._lowered, self._most = lowered, most

  def __call__(self, variables, size, scale, batch):
    if batch > self._most:
      raise RuntimeError(REFUSED)
    return self._lowered(variables, size, scale, batch)


@pytest.mark.parametrize("most", [1, 5])
def test_what_the_compiler_refuses_is_tried_with_fewer(accelerator, most):
  programs = _programs()
  programs._lowered = _Refusing(programs._lowered, most)
  assert _at_once(programs) in (most, most - 1)


def test_other_errors_of_the_compiler_are_raised(accelerator):
  programs = _programs()
  programs._lowered = _Refusing(programs._lowered, 0)
  with pytest.raises(RuntimeError, match="Ran out of memory"):
    _at_once(programs)


def _predictor(**keywords):
  return predictor_lib.Predictor(
    toy.Brightest(),
    {},
    pad_value=(127.5,) * 3,
    progress=toy.silent,
    **keywords,
  )


@pytest.mark.parametrize(
  ("batch", "scale", "message"),
  [
    (4, 1.0, "4 images of 1025x513 at once needs more memory than a device "
     "has free. Give --batch=2, which takes half of it or less, or set "
     "eval.batch=2 in the config"),
    (1, 1.5, "an image of 1025x513 at scale 1.5 needs more memory than a "
     "device has free. Give --window=513, which"),
  ],
)  # fmt: skip
@pytest.mark.parametrize("moment", ["compile", "run", "result"])
def test_a_lack_of_memory_is_told_with_what_helps(
  moment, batch, scale, message, monkeypatch
):
  def fail(*_, **__):
    raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to "
                       "allocate 8589934592 bytes.")  # fmt: skip

  predictor = _predictor(batch=batch, mode=mode_lib.Mode((scale,)))
  if moment == "compile":
    predictor._programs._lowered = fail
  elif moment == "run":
    predictor._programs.run = fail
  else:
    monkeypatch.setattr(groups.Group, "result", fail)
  with pytest.raises(errors.InputError) as refused:
    predictor.labels(np.zeros((1000, 500, 3), np.uint8))
  assert f"predicting {message}" in str(refused.value)
