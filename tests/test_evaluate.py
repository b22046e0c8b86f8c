"""Evaluation: the same numbers as a count by hand, and the files it leaves."""

import json
import os
import pathlib
import socket
import subprocess
import sys

from etils import epath
import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest

from deeplax import crf
from deeplax import errors
from deeplax import evaluate as evaluate_lib
from deeplax.data import build as data_build
from deeplax.data import spec as spec_lib
from deeplax.inference import averaging
from deeplax.inference import evaluate
from deeplax.inference import predictor as predictor_lib
from deeplax.inference import sweep
from deeplax.metrics import confusion
from deeplax.metrics import measures
from deeplax.models import build as model_build
from deeplax.reports import picture_sheet
from deeplax.reports import pictures
from deeplax.settings import defaults
from deeplax.training import log as log_lib
from deeplax.training import state as state_lib
from deeplax.training import validation
from deeplax.workdir import checkpoint
from deeplax.workdir import results as results_lib
from deeplax.workdir import settings as settings_lib
from tests import conftest

SPEC = spec_lib.Spec(
  "toy", ("red", "green", "blue"), ((9, 0, 0), (0, 9, 0), (0, 0, 9))
)


class Brightest(nn.Module):
  """The class is the strongest colour channel."""

  def coarse(self, images, *, train: bool):
    return images.astype(jnp.float32)


class Toy:
  """Random pictures of different sizes; every fourth pixel is ignored."""

  spec, split = SPEC, "val"

  def __init__(self, images=7, constant=None):
    self._images, self._constant = images, constant

  def __len__(self):
    return self._images

  def __getitem__(self, index):
    rng = np.random.default_rng(index)
    size = (20 + index, 30 - index)
    image = rng.integers(0, 256, (*size, 3), np.uint8)
    label = rng.integers(0, 3, size).astype(np.uint8)
    label[rng.random(size) < 0.25] = 255
    if self._constant is not None:
      image[..., self._constant] = 255
      image[..., self._constant - 1] //= 2
    return {"image": image, "label": label, "name": f"{index}"}


def _predictor(**settings):
  return predictor_lib.Predictor(
    Brightest(), {}, pad_value=(127.5,) * 3, log=lambda _: None, **settings
  )


def _silent(_):
  pass


def _by_hand(source, indices):
  matrix = np.zeros((3, 3), np.int64)
  for index in indices:
    example = source[index]
    valid = example["label"] != 255
    predicted = example["image"].argmax(-1)[valid]
    np.add.at(matrix, (example["label"][valid], predicted), 1)
  return confusion.scores(matrix, SPEC.class_names)


def test_scores_equal_a_count_by_hand_over_all_images():
  source = Toy()
  result = evaluate.evaluate(
    _predictor(), source, progress=_silent, step=4, flip=False
  )
  expected = _by_hand(source, range(7))
  for key, value in expected.items():
    assert result[key] == value
  assert result["images"] == result["split_images"] == 7
  assert result["step"] == 4 and result["flip"] is False


class Three:
  """Three images whose scores are worked out on paper."""

  spec, split = SPEC, "val"
  # (truth, prediction) by pixel; 255 is ignored.
  PIXELS = (
    ([[0, 0], [1, 1]], [[0, 1], [1, 1]]),
    ([[2, 2, 255]], [[2, 0, 1]]),
    ([[1]], [[1]]),
  )

  def __len__(self):
    return 3

  def __getitem__(self, index):
    truth, predicted = map(np.array, self.PIXELS[index])
    image = np.eye(3, dtype=np.uint8)[predicted] * np.uint8(200)
    return {"image": image, "label": truth.astype(np.uint8), "name": f"{index}"}


def test_three_images_have_the_scores_worked_out_on_paper():
  result = evaluate.evaluate(_predictor(), Three(), progress=_silent)
  assert result["confusion_matrix"] == [[1, 1, 0], [0, 3, 0], [1, 0, 1]]
  # Right over (truth + predicted - right): 1/(2+2-1), 3/(3+4-3), 1/(2+1-1).
  iou = {"red": 1 / 3, "green": 3 / 4, "blue": 1 / 2}
  assert result["iou"] == pytest.approx(iou)
  assert result["miou"] == pytest.approx(19 / 36)
  assert result["pixel_accuracy"] == pytest.approx(5 / 7)


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_any_number_of_threads_gives_the_same_scores(threads):
  result = evaluate.evaluate(
    _predictor(), Toy(), progress=_silent, threads=threads
  )
  assert result["miou"] == _by_hand(Toy(), range(7))["miou"]


def test_some_images_are_spread_evenly_over_the_split():
  source = Toy(9)
  result = evaluate.evaluate(
    _predictor(), source, max_images=3, progress=_silent
  )
  assert result["miou"] == _by_hand(source, [0, 3, 6])["miou"]
  assert (result["images"], result["split_images"]) == (3, 9)
  more = evaluate.evaluate(
    _predictor(), source, max_images=99, progress=_silent
  )
  assert more["images"] == 9


def test_padding_to_one_size_gives_the_same_scores():
  first, second = (
    evaluate.evaluate(_predictor(pad_to=pad_to), Toy(), progress=_silent)
    for pad_to in (None, (97, 97))
  )
  assert first == second


def test_a_collapsed_prediction_is_told():
  lines = []
  source = Toy(2, constant=1)
  evaluate.evaluate(_predictor(), source, progress=lines.append, step=2000)
  assert len(lines) == 1
  assert lines[0].startswith("deeplax: eval step 2000: ")
  assert "of predicted pixels are 'green' (truth 3" in lines[0]
  assert "Next: python -m deeplax.overfit_check --config=" in lines[0]


def test_a_data_set_that_is_nearly_all_one_class_is_no_collapse():
  matrix = np.diag([9_980, 10, 10])
  result = confusion.scores(matrix, SPEC.class_names)
  assert evaluate.collapse_warning(result) is None


def _as_drawn(source, indices, spoil=None):
  """The sheet of these images as strip draws it, `spoil` changing one."""
  examples = [source[i] for i in indices]
  predictions = [e["image"].argmax(-1).astype(np.uint8) for e in examples]
  if spoil is not None:
    predictions[spoil] = predictions[spoil] * 0
  return np.asarray(
    pictures.strip(
      [e["image"] for e in examples],
      [e["label"] for e in examples],
      predictions,
      SPEC.palette,
      SPEC.class_names,
    )
  )


def _counting(predictor):
  """Let a predictor count the images that it is given."""
  submit, given = predictor.submit_modes, []

  def counted(image, modes, **settings):
    given.append(image.shape)
    return submit(image, modes, **settings)

  predictor.submit_modes = counted
  return given


def test_a_sheet_shows_what_evaluation_predicted_without_predicting_again():
  source, predictor = Toy(9), _predictor()
  given = _counting(predictor)
  sheet = picture_sheet.PictureSheet(source, 3)
  for _ in range(2):
    given.clear()
    evaluate.evaluate(predictor, source, progress=_silent, keep=sheet.keep)
    assert len(given) == 9
    drawn = np.asarray(sheet.draw(predictor))
    assert len(given) == 9
    np.testing.assert_array_equal(drawn, _as_drawn(source, [0, 3, 6]))
  assert not np.array_equal(drawn, _as_drawn(source, [0, 3, 6], spoil=1))


def test_a_sheet_shows_the_same_images_however_many_are_evaluated():
  source, predictor = Toy(9), _predictor()
  sheet = picture_sheet.PictureSheet(source, 3)
  given = _counting(predictor)
  evaluate.evaluate(
    predictor, source, max_images=2, progress=_silent, keep=sheet.keep
  )
  assert len(given) == 2  # images 0 and 4; 3 and 6 are shown as well
  drawn = np.asarray(sheet.draw(predictor))
  assert len(given) == 4
  np.testing.assert_array_equal(drawn, _as_drawn(source, [0, 3, 6]))


def test_training_leaves_pictures_and_scores_of_each_evaluation(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(model_build, "from_config", lambda *_, **__: Brightest())
  config = defaults.base()
  config.eval.pictures = 2
  workdir, source = epath.Path(tmp_path), Toy(4)
  measure = validation.evaluator(config, source, workdir, _silent)
  log = log_lib.MetricLog(tmp_path / "metrics.jsonl", resume_step=0, write=True)
  state = state_lib.State(
    step=0, params={}, batch_stats={}, opt_state=(), rng=None
  )
  for step in (10, 20):
    assert measure(state, step, log=log) == pytest.approx(
      _by_hand(source, range(4))["miou"]
    )
  names = sorted(p.name for p in (tmp_path / "pictures").iterdir())
  assert names == ["index.html", "val-00000010.png", "val-00000020.png"]
  page = (tmp_path / "pictures" / "index.html").read_text()
  assert page.index("step 20 val, mIoU") < page.index("step 10 val, mIoU")
  with Image.open(tmp_path / "pictures" / "val-00000020.png") as picture:
    np.testing.assert_array_equal(
      np.asarray(picture), _as_drawn(source, [0, 2])
    )


class Broken(Toy):
  """One example with something wrong."""

  def __init__(self, label):
    super().__init__(1)
    self._label = label

  def __getitem__(self, index):
    return super().__getitem__(index) | {"label": self._label, "name": "m.png"}


@pytest.mark.parametrize(
  ("label", "words"),
  [
    (np.full((20, 30), 38, np.uint8), r"m\.png: .*\[38\]"),
    (np.zeros((20, 31), np.uint8), r"m\.png: the label is \(20, 31\)"),
    (np.full((20, 30), 255, np.uint8), "every label is the ignore label"),
  ],
)
def test_labels_that_cannot_be_evaluated_are_named(label, words):
  with pytest.raises(errors.InputError, match=words):
    evaluate.evaluate(_predictor(), Broken(label), progress=_silent)


def test_counts_of_processes_add_up_beyond_32_bits():
  matrix = np.array([[2**40 + 3, 1], [0, 2**33]], np.int64)

  def gather(halves):
    assert halves.dtype == np.uint32
    return np.stack([halves, halves, halves])

  total = evaluate.sum_over_processes(matrix, gather)
  np.testing.assert_array_equal(total, 3 * matrix)


def _in_processes(processes, devices):
  """Evaluate in so many processes of so many devices; return what each says."""
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{free.getsockname()[1]}"
  environment = os.environ | {
    "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    "JAX_PLATFORMS": "cpu",
  }
  started = [
    subprocess.Popen(
      [
        *(sys.executable, "-m", "tests.several_processes"),
        *(str(process), str(processes), address),
      ],
      cwd=conftest.ROOT,
      env=environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for process in range(processes)
  ]
  try:
    said = [process.communicate(timeout=900) for process in started]
  finally:
    for process in started:
      process.kill()
  for process, (_, error) in zip(started, said, strict=True):
    assert process.returncode == 0, error[-3000:]
  return [json.loads(out.splitlines()[-1]) for out, _ in said]


@pytest.mark.slow  # 20 s: four processes start JAX
def test_several_devices_and_processes_give_the_results_of_one():
  (one,) = _in_processes(1, 1)
  assert one["devices"] == 1 and one["seen"] == list(range(7))
  matrix = np.array(one["results"][0]["confusion_matrix"])
  assert matrix.sum() > 10_000
  (eight,) = _in_processes(1, 8)
  assert eight["devices"] == 8 and eight["results"] == one["results"]
  # The seventh image finds the second process without one.
  for rank, found in enumerate(_in_processes(2, 2)):
    assert found["devices"] == 4 and found["seen"] == list(range(rank, 7, 2))
    assert found["results"] == one["results"]


def _result(**fields):
  result = confusion.scores(np.eye(3, dtype=np.int64), SPEC.class_names)
  return {
    **result,
    "images": 7,
    "split_images": 7,
    "step": 400,
    "output_stride": 16,
    "scales": [1.0],
    "flip": False,
    **fields,
  }


@pytest.mark.parametrize(
  ("fields", "name"),
  [
    ({}, "val-00000400-os16-s1.0"),
    (
      {"scales": (0.5, 0.75, 1), "flip": True, "output_stride": 8},
      "val-00000400-os8-s0.5_0.75_1.0-flip",
    ),
    ({"images": 3}, "val-00000400-os16-s1.0-n3"),
    ({"crf": {"w1": 4.0}}, "val-00000400-os16-s1.0-crf"),
    (
      {"crf": {"w1": 4.0}, "flip": True, "images": 3},
      "val-00000400-os16-s1.0-flip-crf-n3",
    ),
  ],
)
def test_the_file_name_tells_what_was_evaluated(tmp_path, fields, name):
  path = results_lib.write_result(tmp_path, "val", _result(**fields))
  assert path.name == f"{name}.json"
  written = json.loads(path.read_text())
  assert written["miou"] == 1.0 and written["iou"]["red"] == 1.0


def test_a_result_is_written_whole_or_not_at_all(tmp_path):
  path = results_lib.write_result(tmp_path, "val", _result())
  before = path.read_text()
  with pytest.raises(TypeError):
    results_lib.write_result(tmp_path, "val", _result(extra=object()))
  assert path.read_text() == before
  assert [p.name for p in (tmp_path / "eval").iterdir()] == [path.name]


@pytest.fixture
def run(tmp_path, monkeypatch):
  """A function that runs the command on a stand-in for a trained run."""
  strides = []

  def model(config, *, num_classes, output_stride, channels):
    if output_stride not in (8, 16):
      raise ValueError(f"output_stride {output_stride} not in (8, 16)")
    strides.append(output_stride)
    return Brightest()

  def source(data, split):
    if split != "val":
      raise errors.InputError(f"no split {split!r}; there is val")
    return Toy()

  config = defaults.base()
  monkeypatch.setattr(settings_lib, "load_config", lambda _: config)
  monkeypatch.setattr(
    checkpoint,
    "restore_variables",
    lambda _, step: ({}, {"best": 300}.get(step, step or 400)),
  )
  monkeypatch.setattr(model_build, "from_config", model)
  monkeypatch.setattr(data_build, "source", source)

  def command(*arguments):
    with pytest.raises(SystemExit) as ended:
      evaluate_lib.main([f"--workdir={tmp_path}", *arguments])
    return ended.value.code

  return command


def _written(tmp_path, ending=".json"):
  """The names of the results, without the table."""
  paths = sorted((tmp_path / "eval").iterdir())
  return [p.name for p in paths if "-os" in p.name and p.suffix == ending]


SCALES = "0.5_0.75_1.0_1.25_1.5_1.75"


def test_the_command_evaluates_each_output_stride(run, tmp_path, capsys):
  assert run("--output_strides=16,8", "--scales=0.5,1", "--flip") == 0
  names = _written(tmp_path)
  assert names == [
    f"val-00000400-os{stride}-s0.5_1.0-flip.json" for stride in (16, 8)
  ]
  result = json.loads((tmp_path / "eval" / names[0]).read_text())
  assert result["output_stride"] == 16 and result["scales"] == [0.5, 1.0]
  assert result["flip"] is True and result["images"] == 7
  text = capsys.readouterr().out
  assert "step 400" in text and "output stride 8" in text
  assert "mIoU" in text and "green" in text and names[1] in text


def test_without_flags_the_command_makes_the_papers_table(run, tmp_path):
  assert run() == 0
  rows = [
    f"val-00000400-os{stride}-s{row}.json"
    for stride in (16, 8)
    for row in ("1.0", SCALES, f"{SCALES}-flip")
  ]
  assert _written(tmp_path) == sorted(rows)
  table = json.loads((tmp_path / "eval/val-00000400-table.json").read_text())
  assert [row["file"] for row in table["rows"]] == rows
  for row in table["rows"]:
    alone = json.loads((tmp_path / "eval" / row["file"]).read_text())
    for key in ("miou", "scales", "flip", "recall", "output_stride"):
      assert row[key] == alone[key]
    assert row["images_per_second"] > 0
  assert table["step"] == 400 and table["images"] == 7
  lines = (tmp_path / "eval/val-00000400-table.md").read_text().splitlines()
  cells = [line.split("|")[1:6] for line in lines if line.startswith("| 16")]
  assert [[c.strip() for c in row[1:3]] for row in cells] == [
    ["1.0", ""],
    ["0.5, 0.75, 1.0, 1.25, 1.5, 1.75", ""],
    ["0.5, 0.75, 1.0, 1.25, 1.5, 1.75", "yes"],
  ]
  assert cells[0][3].strip() == f"{table['rows'][0]['miou']:.2%}"


def test_a_row_of_the_table_is_the_row_alone_bit_by_bit(run, tmp_path):
  assert run("--sweep", "--output_strides=8") == 0
  for name, flags in (
    ("s1.0", ["--no-flip"]),
    (f"s{SCALES}", ["--no-flip"]),
    (f"s{SCALES}-flip", ["--flip"]),
  ):
    path = tmp_path / "eval" / f"val-00000400-os8-{name}.json"
    together = path.read_text()
    path.unlink()
    scales = name.removesuffix("-flip")[1:].replace("_", ",")
    assert run("--output_strides=8", f"--scales={scales}", *flags) == 0
    assert path.read_text() == together


@pytest.mark.parametrize(
  ("flags", "names"),
  [
    (["--no-sweep"], ["os16-s1.0"]),
    (["--output_strides=8"], ["os8-s1.0"]),
    (["--scales=0.5"], ["os16-s0.5"]),
    (["--flip"], ["os16-s1.0-flip"]),
    (
      ["--sweep", "--output_strides=8", "--scales=0.5,2"],
      ["os8-s0.5_2.0-flip", "os8-s0.5_2.0", "os8-s1.0"],
    ),
    (
      ["--sweep", "--output_strides=8", "--scales=1", "--no-flip"],
      ["os8-s1.0"],
    ),
  ],
)
def test_flags_choose_one_evaluation_or_another_table(
  run, tmp_path, flags, names
):
  assert run("--max_images=2", *flags) == 0
  assert _written(tmp_path) == [f"val-00000400-{n}-n2.json" for n in names]
  table = tmp_path / "eval" / "val-00000400-table-n2.json"
  assert table.exists() == (len(names) > 1)


ALL = measures.Measures(trimap=(1, 3), boundary=True, objects=True)


def test_each_row_of_a_pass_is_measured_on_its_own():
  modes = (averaging.Mode(), averaging.Mode((0.5,)))
  swept = sweep.Sweep(_predictor(), modes)
  rows = evaluate.evaluate_rows(
    swept, Toy(), progress=_silent, measured=ALL, step=3
  )
  for scale, row in zip((1.0, 0.5), rows, strict=True):
    predictor, total = _predictor(scales=(scale,)), measures.empty(3, ALL)
    for i in range(7):
      example = Toy()[i]
      pair = example["label"], predictor.labels(example["image"])
      total = measures.add(total, measures.count(*pair, 3, ALL))
    expected = measures.scores(total, SPEC.class_names, ALL)
    assert {key: row[key] for key in expected} == expected
    assert row["step"] == 3
  assert rows[0]["boundary_f"] != rows[1]["boundary_f"]


def test_the_table_has_a_column_for_each_measure(run, tmp_path):
  flags = ("--trimap=1,2", "--boundary", "--objects")
  assert run("--sweep", "--output_strides=8", "--scales=0.5", *flags) == 0
  table = json.loads((tmp_path / "eval/val-00000400-table.json").read_text())
  lines = (tmp_path / "eval/val-00000400-table.md").read_text().splitlines()
  lines = [line for line in lines if line.startswith(("| OS", "| 8"))]
  head, *cells = [
    [cell.strip() for cell in line.strip("| ").split("|")] for line in lines
  ]
  assert len(cells) == len(table["rows"]) == 3
  for row, line in zip(table["rows"], cells, strict=True):
    alone = json.loads((tmp_path / "eval" / row["file"]).read_text())
    shown_as = dict(zip(head, line, strict=True))
    assert shown_as["boundary F1"] == f"{alone['boundary_f']:.2%}"
    assert shown_as["boundary IoU"] == f"{alone['boundary_iou']:.2%}"
    for width in ("1", "2"):
      assert shown_as[f"trimap {width} px"] == f"{alone['trimap'][width]:.2%}"
    for key in ("trimap_kind", "trimap_accuracy", "objects"):
      assert row[key] == alone[key]


def test_the_page_of_each_row_leads_to_the_others(run, tmp_path):
  assert run("--scales=1,0.5", "--output_strides=16,8", "--html") == 0
  names = _written(tmp_path, ".html")
  assert names == [f"val-00000400-os{s}-s1.0_0.5.html" for s in (16, 8)]
  for here, there in (names, names[::-1]):
    page = (tmp_path / "eval" / here).read_text()
    assert f'href="{there}"' in page and f'href="{here}"' not in page
    assert page.count("<figure") == 7


def test_exact_sizes_and_windows_stand_beside_the_papers_way(run, tmp_path):
  for flags in (
    ["--no-sweep"],
    ["--no-sweep", "--sizes=exact"],
    ["--flip", "--window=33"],
  ):
    assert run(*flags) == 0
  names = _written(tmp_path)
  assert names == [
    "val-00000400-os16-s1.0-exact.json",
    "val-00000400-os16-s1.0-flip-w33_8.json",
    "val-00000400-os16-s1.0.json",
  ]
  exact, cut, plain = (
    json.loads((tmp_path / "eval" / name).read_text()) for name in names
  )
  assert (exact["sizes"], plain["sizes"]) == ("exact", "reference")
  assert (cut["window"], plain["window"]) == ([33, 8], None)
  # A network that looks at one pixel sees neither.
  assert exact["miou"] == cut["miou"] == plain["miou"]


def test_windows_that_overlap_by_all_are_refused(run, capsys):
  assert run("--window=65", "--overlap=65") == 2
  assert "overlap 65 of windows of 65 pixels" in capsys.readouterr().err


def test_the_command_writes_a_sheet_beside_the_scores(run, tmp_path):
  assert run("--pictures=3", "--no-sweep") == 0
  written = tmp_path / "eval" / "val-00000400-os16-s1.0.png"
  with Image.open(written) as picture:
    np.testing.assert_array_equal(
      np.asarray(picture), _as_drawn(Toy(), [0, 2, 4])
    )


def _crf_by_hand(source, **parameters):
  matrix = np.zeros((3, 3), np.int64)
  for index in range(len(source)):
    example = source[index]
    logits = example["image"].astype(np.float64)
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    shares = (shares / shares.sum(-1, keepdims=True)).astype(np.float32)
    found = crf.dense_crf(example["image"], shares, **parameters)
    labels = np.asarray(found).argmax(-1)
    matrix += confusion.count(example["label"], labels, 3)
  return confusion.scores(matrix, SPEC.class_names)["miou"]


@pytest.mark.parametrize("flag", ["--crf", "--crf_file"])
def test_the_command_refines_by_the_dense_crf(run, tmp_path, flag):
  parameters = dict(defaults.base().eval.crf)
  if flag == "--crf_file":
    parameters |= {"w1": 90.0, "iterations": 2, "sigma_beta": 40.0}
    (tmp_path / "found.json").write_text(json.dumps({"best": parameters}))
    flag += f"={tmp_path / 'found.json'}"
  assert run("--no-sweep") == 0
  assert run(flag, "--pictures=1", "--no-sweep") == 0
  stem = tmp_path / "eval" / "val-00000400-os16-s1.0"
  assert pathlib.Path(f"{stem}-crf.png").exists()
  results = [
    json.loads(pathlib.Path(f"{stem}{ending}.json").read_text())
    for ending in ("", "-crf")
  ]
  assert results[0]["crf"] is None and results[1]["crf"] == parameters
  assert run(flag, "--crf_negligible=0.01") == 0
  saving = json.loads(pathlib.Path(f"{stem}-crf.json").read_text())
  assert saving["crf"] == parameters | {"negligible": 0.01}
  assert saving["miou"] == pytest.approx(results[1]["miou"], abs=1e-3)
  expected = _crf_by_hand(Toy(), **parameters)
  assert results[1]["miou"] == pytest.approx(expected, abs=1e-3)
  assert results[1]["miou"] != results[0]["miou"]


@pytest.mark.parametrize(
  ("text", "words"),
  [
    (None, "no finished result"),
    ("nothing", "no finished result"),
    ('{"best": null}', "no finished result"),
    ('{"best": {"w1": 3}}', "KeyError"),
    (json.dumps({"best": dict(defaults.base().eval.crf) | {"w2": "x"}}), "w2"),
    (
      json.dumps({"best": dict(defaults.base().eval.crf) | {"sigma_beta": 0}}),
      "sigma_beta is 0",
    ),
  ],
)
def test_wrong_crf_files_are_refused(run, tmp_path, capsys, text, words):
  path = tmp_path / "found.json"
  if text is not None:
    path.write_text(text)
  assert run(f"--crf_file={path}") == 2
  message = capsys.readouterr().err
  assert words in message and "found.json" in message
  assert not (tmp_path / "eval").exists()


@pytest.mark.parametrize("value", ["-0.1", "1.0", "nan"])
def test_a_negligible_marginal_is_a_small_one(run, tmp_path, capsys, value):
  assert run("--crf", f"--crf_negligible={value}") == 2
  assert "negligible" in capsys.readouterr().err
  assert not (tmp_path / "eval").exists()


def test_the_config_holds_where_the_command_line_is_silent(run, tmp_path):
  assert run("--step=best", "--max_images=2", "--no-sweep") == 0
  (path,) = (tmp_path / "eval").iterdir()
  assert path.name == "val-00000300-os16-s1.0-n2.json"


@pytest.mark.parametrize(
  ("flag", "words"),
  [
    ("--output_strides=5", "output_stride 5 not in"),
    ("--output_strides=8,x", "8,x"),
    ("--scales=-1", "-1"),
    ("--scales=inf", "inf"),
    ("--scales=0.5,1,0.5", "each once"),
    ("--worst=0", "--worst=0"),
    ("--step=latest", "latest"),
    ("--split=test", "no split 'test'"),
    ("--max_image=3", "--max_image"),
    ("extra", "extra"),
  ],
)
def test_misread_command_lines_end_with_2(run, tmp_path, capsys, flag, words):
  assert run(flag) == 2
  assert words in capsys.readouterr().err
  assert not (tmp_path / "eval").exists()
