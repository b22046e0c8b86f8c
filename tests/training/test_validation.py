"""What each evaluation of a training run leaves."""

from etils import epath
import numpy as np
from PIL import Image
import pytest

from deeplax.models import build as model_build
from deeplax.settings import defaults
from deeplax.training import log as log_lib
from deeplax.training import validation
from tests.inference import toy


def test_training_leaves_pictures_and_scores_of_each_evaluation(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(
    model_build, "from_config", lambda *_, **__: toy.Brightest()
  )
  config = defaults.base()
  config.eval.pictures = 2
  workdir, source = epath.Path(tmp_path), toy.Toy(4)
  measure = validation.evaluator(config, source, workdir, toy.silent)
  log = log_lib.MetricLog(tmp_path / "metrics.jsonl", resume_step=0, write=True)
  for step in (10, 20):
    miou = measure({}, step, log=log, stopped=lambda: False)
    assert miou == pytest.approx(toy.by_hand(source, range(4))["miou"])
  names = sorted(p.name for p in (tmp_path / "pictures").iterdir())
  assert names == ["index.html", "val-00000010.png", "val-00000020.png"]
  page = (tmp_path / "pictures" / "index.html").read_text()
  assert page.index("step 20 val, mIoU") < page.index("step 10 val, mIoU")
  with Image.open(tmp_path / "pictures" / "val-00000020.png") as picture:
    np.testing.assert_array_equal(
      np.asarray(picture), toy.as_drawn(source, [0, 2])
    )
