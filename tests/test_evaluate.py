"""The command: which evaluations it makes, and the files it leaves."""

import json
import pathlib

import numpy as np
from PIL import Image
import pytest

from deeplax import crf
from deeplax import errors
from deeplax import evaluate
from deeplax.data import build as data_build
from deeplax.metrics import confusion
from deeplax.models import build as model_build
from deeplax.settings import defaults
from deeplax.workdir import checkpoint
from deeplax.workdir import sealed
from deeplax.workdir import settings as settings_lib
from tests.inference import toy


@pytest.fixture
def run(tmp_path, monkeypatch):
  """A function that runs the command on a stand-in for a trained run."""
  strides = []

  def model(config, *, num_classes, output_stride, channels):
    if output_stride not in (8, 16):
      raise ValueError(f"output_stride {output_stride} not in (8, 16)")
    strides.append(output_stride)
    return toy.Brightest()

  def source(data, split, root_flag):
    if split != "val":
      raise errors.InputError(f"no split {split!r}; there is val")
    return toy.Toy()

  config = defaults.base()
  monkeypatch.setattr(settings_lib, "load_config", lambda _: config)
  monkeypatch.setattr(
    sealed,
    "wanted_step",
    lambda _, step: {"best": 300}.get(step, step or 400),
  )
  monkeypatch.setattr(checkpoint, "read", lambda *_: {})
  monkeypatch.setattr(model_build, "from_config", model)
  monkeypatch.setattr(data_build, "source", source)

  def command(*arguments):
    with pytest.raises(SystemExit) as ended:
      evaluate.main([f"--workdir={tmp_path}", *arguments])
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
  assert cells[0][3].strip() == f"{table['rows'][0]['miou']:.1%}"


def test_the_table_warns_of_a_collapse_once(run, monkeypatch, capsys):
  constant = toy.Toy(2, constant=1)
  monkeypatch.setattr(data_build, "source", lambda *_: constant)
  assert run() == 0
  text = capsys.readouterr().out
  assert text.count("of predicted pixels are 'green'") == 1
  assert ", in 6 of 6 rows. Usual causes: " in text


@pytest.mark.parametrize(
  ("flags", "lost"),
  [
    (["--no-sweep"], 1),
    (["--no-sweep", "--html", "--pictures=1"], 2),
    (["--output_strides=16,8", "--scales=0.5"], 3),
  ],
)
def test_what_cannot_be_written_is_told_after_the_table(
  run, tmp_path, capsys, flags, lost
):
  (tmp_path / "eval").touch()  # in the way of the folder
  assert run(*flags) == 2
  out, err = capsys.readouterr()
  assert "mIoU" in out and "green" in out
  (line,) = err.splitlines()
  assert "printed above is right, but could not be written: " in line
  assert f"{tmp_path / 'eval' / 'val-0'}" in line and "(File exists)" in line
  assert (f" and {lost - 1} more (" in line) == (lost > 1)
  assert f"cp -r {tmp_path} COPY, then --workdir=COPY" in line
  (tmp_path / "eval").unlink()  # as in a copy that one may write in
  assert run(*flags) == 0


def test_a_row_of_the_table_is_the_row_alone_bit_by_bit(run, tmp_path):
  scales = "0.5_0.75_1.5"
  given = "--scales=0.5,0.75,1.5"
  assert run("--sweep", "--output_strides=8", given) == 0
  for name, flags in (
    ("s1.0", ["--no-flip"]),
    (f"s{scales}", [given, "--no-flip"]),
    (f"s{scales}-flip", [given, "--flip"]),
  ):
    path = tmp_path / "eval" / f"val-00000400-os8-{name}.json"
    together = path.read_text()
    path.unlink()
    assert run("--output_strides=8", *flags) == 0
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
    assert shown_as["boundary F1"] == f"{alone['boundary_f']:.1%}"
    assert shown_as["boundary IoU"] == f"{alone['boundary_iou']:.1%}"
    for width in ("1", "2"):
      assert shown_as[f"trimap {width} px"] == f"{alone['trimap'][width]:.1%}"
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
      np.asarray(picture), toy.as_drawn(toy.Toy(), [0, 2, 4])
    )


def _crf_by_hand(source, indices, **parameters):
  matrix = np.zeros((3, 3), np.int64)
  for index in indices:
    example = source[index]
    logits = example["image"].astype(np.float64)
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    shares = (shares / shares.sum(-1, keepdims=True)).astype(np.float32)
    found = crf.dense_crf(example["image"], shares, **parameters)
    labels = np.asarray(found).argmax(-1)
    matrix += confusion.count(example["label"], labels, 3)
  return confusion.scores(matrix, toy.SPEC.class_names)["miou"]


@pytest.mark.parametrize("flag", ["--crf", "--crf_file"])
def test_the_command_refines_by_the_dense_crf(run, tmp_path, flag):
  parameters = dict(defaults.base().eval.crf)
  if flag == "--crf_file":
    parameters |= {"w1": 90.0, "iterations": 2, "sigma_beta": 40.0}
    (tmp_path / "found.json").write_text(json.dumps({"best": parameters}))
    flag += f"={tmp_path / 'found.json'}"
  some = "--max_images=3"
  assert run(some, "--no-sweep") == 0
  assert run(some, flag, "--pictures=1", "--no-sweep") == 0
  stem = tmp_path / "eval" / "val-00000400-os16-s1.0"
  assert pathlib.Path(f"{stem}-crf-n3.png").exists()
  results = [
    json.loads(pathlib.Path(f"{stem}{ending}-n3.json").read_text())
    for ending in ("", "-crf")
  ]
  assert results[0]["crf"] is None and results[1]["crf"] == parameters
  expected = _crf_by_hand(toy.Toy(), [0, 2, 4], **parameters)
  assert results[1]["miou"] == pytest.approx(expected, abs=1e-3)
  assert results[1]["miou"] != results[0]["miou"]
  if flag == "--crf":
    assert run(some, flag, "--crf_negligible=0.01") == 0
    saving = json.loads(pathlib.Path(f"{stem}-crf-n3.json").read_text())
    assert saving["crf"] == parameters | {"negligible": 0.01}
    assert saving["miou"] == pytest.approx(results[1]["miou"], abs=1e-3)


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
    (
      json.dumps({"best": dict(defaults.base().eval.crf) | {"w1": 10**4000}}),
      "below 1,000,000,000",
    ),
    ("[" * 100_000, "nested too deeply"),
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
