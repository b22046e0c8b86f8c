"""What would fit is said only when it would."""

import pytest

from deeplax import errors
from deeplax import parallel
from deeplax.settings import defaults
from deeplax.training import memory

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
  assert "batch_size" not in str(caught.value)
  assert "crop_size" not in str(caught.value)


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
