"""How many images a program computes at once."""

import jax
import numpy as np
import pytest

from deeplax import parallel
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
    return parallel.memory_needed(programs._compiled[2.0, SIZE])

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
