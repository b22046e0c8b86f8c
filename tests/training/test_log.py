"""TensorBoard's copy of the metrics, and the page of pictures."""

import io
import json
from typing import Any

from etils import epath
import numpy as np
from PIL import Image
import pytest

from deeplax import atomic
from deeplax.reports import gallery
from deeplax.training import log as log_lib
from deeplax.training import scores


def sheet(value):
  return Image.fromarray(np.full((4, 6, 3), value, np.uint8))


def page_of_two(workdir):
  """Write two evaluations, and return the page of their pictures."""
  for step, miou in ((100, 0.25), (200, 0.5)):
    atomic.write_json(
      workdir / "eval" / f"val-{step:08d}-os16-s1.0.json", {"miou": miou}
    )
    gallery.add(workdir, "val", step, sheet(step))
  return (workdir / "pictures" / "index.html").read_text()


def test_the_page_shows_the_newest_evaluation_first(tmp_path):
  workdir = epath.Path(tmp_path / "a & b")
  page = page_of_two(workdir)
  assert page.index("step 200 val, mIoU 50.0%") < page.index("step 100 val")
  assert "mIoU 25.0%" in page and "<title>a &amp; b</title>" in page
  assert "http:" not in page and "https:" not in page
  with Image.open(workdir / "pictures" / "val-00000100.png") as picture:
    np.testing.assert_array_equal(np.asarray(picture), np.asarray(sheet(100)))
  names = sorted(p.name for p in (workdir / "pictures").iterdir())
  assert names == ["index.html", "val-00000100.png", "val-00000200.png"]


def test_sheets_of_steps_that_will_run_again_are_dropped(tmp_path):
  workdir = epath.Path(tmp_path)
  for step in (100, 200, 300):
    gallery.add(workdir, "val", step, sheet(0))
  path = workdir / "metrics.jsonl"
  log_lib.MetricLog(path, resume_step=100, write=False)
  assert len(gallery.sheets(workdir)) == 3  # another process's
  log_lib.MetricLog(path, resume_step=100, write=True)
  page = (workdir / "pictures" / "index.html").read_text()
  assert "step 100" in page
  assert "step 200" not in page and "step 300" not in page
  names = sorted(p.name for p in (workdir / "pictures").iterdir())
  assert names == ["index.html", "val-00000100.png"]


def test_a_run_without_pictures_gets_no_folder_for_them(tmp_path):
  log_lib.MetricLog(tmp_path / "metrics.jsonl", resume_step=0, write=True)
  assert not list(tmp_path.iterdir())


def steps_in(path):
  return [line["step"] for line in atomic.read_jsonl(path)]


def test_a_buckets_log_keeps_all_lines_and_is_written_now_and_then(
  bucket, monkeypatch
):
  path = epath.Path(bucket) / "run" / "metrics.jsonl"
  with path.open("a") as file:
    file.write("first")
  with path.open("a") as file:
    file.write("second")
  assert path.read_text() == "second"  # as buckets do; a test that can fail
  path.unlink()
  now = [0.0]
  monkeypatch.setattr(log_lib.time, "monotonic", lambda: now[0])
  log = log_lib.MetricLog(path, resume_step=0, write=True)
  log.write(1, {"loss": 0.5})
  assert not path.exists()
  now[0] = log_lib.BETWEEN
  log.write(2, {"loss": 0.25})
  assert steps_in(path) == [1, 2]
  log.write(3, {"loss": 0.125})
  assert steps_in(path) == [1, 2]
  log.flush()  # before a checkpoint
  assert steps_in(path) == [1, 2, 3]
  log.write(4, {"loss": 0.0625})
  log.close()
  assert steps_in(path) == [1, 2, 3, 4]
  # The run goes on behind step 2 and writes what it wrote, and one line anew.
  again = log_lib.MetricLog(path, resume_step=2, write=True)
  assert steps_in(path) == [1, 2]
  again.write(2, {"loss": 0.25})
  again.write(3, {"loss": 0.5})
  again.close()
  assert list(atomic.read_jsonl(path)) == [
    {"step": 1, "loss": 0.5},
    {"step": 2, "loss": 0.25},
    {"step": 3, "loss": 0.5},
  ]


def test_in_a_bucket_the_line_of_a_score_is_there_before_the_score(bucket):
  path = epath.Path(bucket) / "run" / "metrics.jsonl"
  path.parent.mkdir(parents=True)
  written = []

  class Checkpoints:
    def scored(self, step):
      return False

    def score(self, step, miou):
      written.append((path.read_text(), miou))

  log = log_lib.MetricLog(path, resume_step=0, write=True)
  kept: Any = Checkpoints()
  scores.Scores(lambda *_: 0.5, kept, log, print).add({}, 6)
  assert written == [('{"step": 6, "miou": 0.5}\n', 0.5)]


def test_a_buckets_pictures_and_results_are_written_and_cut(bucket):
  workdir = epath.Path(bucket) / "run"
  page = page_of_two(workdir)
  assert page.index("step 200 val, mIoU 50.0%") < page.index("step 100 val")
  log_lib.MetricLog(workdir / "metrics.jsonl", resume_step=100, write=True)
  names = sorted(p.name for p in (workdir / "pictures").iterdir())
  assert names == ["index.html", "val-00000100.png"]
  with (workdir / "pictures" / names[1]).open("rb") as file:
    with Image.open(file) as picture:
      np.testing.assert_array_equal(np.asarray(picture), np.asarray(sheet(100)))


def scalars(folder):
  """Return {name: [(step, value), ...]} of all event files."""
  from tensorboard.backend.event_processing import event_accumulator  # pyright: ignore
  from tensorboard.util import tensor_util  # pyright: ignore

  events = event_accumulator.EventAccumulator(
    str(folder), size_guidance={"tensors": 0}
  )
  events.Reload()
  found = {}
  for tag in events.Tags()["tensors"]:
    found[tag] = [
      (event.step, tensor_util.make_ndarray(event.tensor_proto))
      for event in events.Tensors(tag)
    ]
  return found


def hyperparameters(folder):
  """Return {name: value} of the run."""
  from tensorboard.backend.event_processing import event_accumulator  # pyright: ignore
  from tensorboard.plugins.hparams import plugin_data_pb2  # pyright: ignore

  events = event_accumulator.EventAccumulator(str(folder))
  events.Reload()
  tag = "_hparams_/session_start_info"
  content = events.SummaryMetadata(tag).plugin_data.content
  data = plugin_data_pb2.HParamsPluginData.FromString(content)
  values = data.session_start_info.hparams
  return {k: getattr(v, v.WhichOneof("kind")) for k, v in values.items()}


# What TensorFlow's and TensorBoard's own imports warn of is theirs.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow  # imports TensorFlow
def test_tensorboard_shows_the_log_also_after_a_resume(tmp_path):
  pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
  pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
  path = tmp_path / "metrics.jsonl"
  config = {"seed": 0, "model": {"dtype": "bfloat16", "rates": None}}
  atomic.write_json(tmp_path / "config.json", config)
  log = log_lib.MetricLog(path, resume_step=0, write=True, tensorboard=True)
  for step in (10, 20, 30):
    log.write(step, {"loss": 1.0 / step})
    if step > 10:
      picture = sheet(step)
      gallery.add(epath.Path(tmp_path), "val", step, picture)
      log.picture(step, "val", np.asarray(picture))
  log.close()
  log = log_lib.MetricLog(path, resume_step=20, write=True, tensorboard=True)
  log.write(30, {"loss": 0.5})
  log.picture(30, "val", np.asarray(sheet(31)))
  log.close()
  found = scalars(tmp_path / "tensorboard")
  assert [step for step, _ in found["loss"]] == [10, 20, 30]
  np.testing.assert_allclose(
    [float(v) for _, v in found["loss"]], [0.1, 0.05, 0.5]
  )
  assert [step for step, _ in found["val"]] == [20, 30]
  for (_, event), value in zip(found["val"], (20, 31), strict=True):
    with Image.open(io.BytesIO(event[2])) as shown:  # width, height, PNG
      np.testing.assert_array_equal(np.asarray(shown), np.asarray(sheet(value)))
  text = found["config"][0][1].item().decode()
  assert json.loads(text.strip("`")) == config
  assert hyperparameters(tmp_path / "tensorboard") == {
    "seed": 0.0,
    "model.dtype": "bfloat16",
    "model.rates": "None",
  }
  lines = [json.loads(line) for line in path.read_text().splitlines()]
  assert [line["step"] for line in lines] == [10, 20, 30]
