"""Reports of experiments: tables by hand, a page that a browser shows."""

import argparse
import csv
import dataclasses
import html.parser
import json
import re
import sys
from xml.etree import ElementTree

import numpy as np
from PIL import Image
import pytest

from deeplax.ablation import deviations
from deeplax.ablation import experiment as experiment_lib
from deeplax.ablation import flags
from deeplax.ablation import load
from deeplax.ablation import page
from deeplax.ablation import report
from deeplax.ablation import results as results_lib
from deeplax.ablation import tables
from deeplax.ablation import verdict
from experiments import report as report_door
from tests import browser

CLASSES = ("sky", "road", "<car>")


# Of each row, by seed; in percent.
MIOU = {
  "low_level_channels=8": (40, 42),
  "low_level_channels=16": (44, 45),
  "low_level_channels=32": (41,),
}


def leave(job, miou, row):
  """Write what a finished training leaves."""
  job.workdir.mkdir(parents=True)
  config = json.loads(job.cell.config.to_json()) | {"seed": job.seed}
  if job.weights:
    config["init"]["checkpoint"] = job.shown(job.sibling("-start"))
  steps = config["train"]["total_steps"]
  (job.workdir / "config.json").write_text(json.dumps(config))
  (job.workdir / "env.json").write_text(
    json.dumps({"commit": "abc1234", "devices": ["TFRT_CPU_0"]})
  )
  lines = [
    {"step": step, "loss": 2 / step, "images_per_second": 8.0}
    for step in range(1, steps + 1, 5)
  ]
  lines += [
    {"step": steps // 2, "miou": miou / 2},
    {"step": steps, "miou": miou},
  ]
  (job.workdir / "metrics.jsonl").write_text(
    "".join(json.dumps(line) + "\n" for line in lines)
  )
  how = row.evaluation
  widths = {"1": miou / 2, "5": miou * 0.7, "40": miou * 0.9}
  result = {
    **{"split": "val", "step": steps, "images": 3, "split_images": 3},
    **{"output_stride": how.output_stride, "scales": list(how.scales)},
    **{"flip": how.flip, "crf": None, "init": "random (expect far less)"},
    **{"miou": miou, "pixel_accuracy": miou, "boundary_f": 0.3},
    "iou": dict(zip(CLASSES, (miou * 1.5, miou, miou / 2), strict=True)),
    **{"trimap_kind": "class", "trimap": widths, "trimap_accuracy": widths},
  }
  (job.workdir / "eval").mkdir()
  (job.workdir / "eval" / "a.json").write_text(json.dumps(result))
  table = {"rows": [{"file": "a.json", "images_per_second": 12.5}]}
  (job.workdir / "eval" / "a-table.json").write_text(json.dumps(table))
  (job.workdir / "pictures").mkdir()
  ramp = np.linspace(0, 255, 90 * 900 * 3).astype(np.uint8)
  picture = Image.fromarray(ramp.reshape(90, 900, 3))
  picture.save(job.workdir / "pictures" / f"val-{steps:08d}.png")
  job.sibling(".json").write_text(
    json.dumps({"status": "finished", "seconds": 90.0, "host_memory": 1.5e9})
  )
  job.sibling(".log").write_text("  memory    0.4 GB needed per device, 9 GB\n")


@pytest.fixture
def made(tmp_path):
  """An experiment some of whose trainings have finished, and its lines."""
  experiment = load.load("v3plus_table1", data="camvid", steps=50)
  jobs = results_lib.jobs(experiment, tmp_path, seeds=(0, 1))
  rows = {row.cell.name: row for row in experiment.rows if row.cell}
  for job in jobs:
    values = MIOU.get(job.cell.name, ())
    if job.seed < len(values):
      leave(job, values[job.seed] / 100, rows[job.cell.name])
  failed = next(job for job in jobs if job.cell.name.endswith("=48"))
  failed.sibling(".json").write_text(
    json.dumps({"status": "failed", "log_tail": ["deeplax: <no> luck"]})
  )
  lines = results_lib.collect(experiment, jobs, tmp_path)
  return experiment, lines


COSTS = {
  f"low_level_channels={n}": {
    "multiply_adds": n * 10**9,
    "multiply_adds_paper": n * 10**9,
    "parameters": n * 10**6,
  }
  for n in (8, 16, 32, 48, 64)
}


def _outcome(made, costs):
  experiment, lines = made
  return tables.Outcome(experiment, lines, costs)


def test_the_table_has_means_and_deviations(made):
  table = tables.table(_outcome(made, COSTS))
  shown = dict(zip(table.rows, table.lines()[1:], strict=True))
  titles = table.lines()[0]
  first = dict(zip(titles, shown["low_level_channels=8"], strict=True))
  assert first["mIoU"] == "41.0 ± 1.4"
  assert (first["seeds"], first["paper"]) == ("2", "77.61")
  assert first["Multiply-Adds, B"] == "8.00"
  assert first["parameters, M"] == "8.00"
  assert first["images/s"] == "12.50"
  assert first["memory of a step, GB"] == "0.4"
  assert first["memory of the host, GB"] == "1.5"
  assert first["time of a training"] == "1:30"
  assert (first["commit"], first["status"]) == ("abc1234", "finished")
  alone = dict(zip(titles, shown["low_level_channels=32"], strict=True))
  assert alone["mIoU"] == "41.0"
  assert alone["status"] == "1 finished, 1 not run"
  failed = dict(zip(titles, shown["low_level_channels=48"], strict=True))
  assert (failed["mIoU"], failed["over the first"]) == ("", "")
  assert failed["status"] == "1 failed, 1 not run"


def test_gains_stand_beside_the_papers_and_differences_only_on_its_data(made):
  experiment, lines = made
  titles = ["over the first", "paper's, over the first"]
  columns = tables.table(tables.Outcome(experiment, lines, COSTS)).columns
  assert [columns[title][0].text for title in titles] == ["+0.0", "+0.00"]
  assert [columns[title][1].text for title in titles] == ["+3.5", "+0.31"]
  assert "difference" not in columns
  own = dataclasses.replace(experiment, data="")
  columns = tables.table(tables.Outcome(own, lines, COSTS)).columns
  assert columns["difference"][0].text == "-36.6"
  assert columns["difference"][3].text == ""
  assert not columns.keys() & set(titles)


def test_costs_stand_beside_the_published_ones_in_percent():
  experiment = load.load("v3plus_table5")
  published = {row.name: row.multiply_adds for row in experiment.rows}
  costs = {
    name: {"multiply_adds_paper": 1.01e9 * count}
    for name, count in published.items()
    if count
  }
  columns = tables.table(tables.Outcome(experiment, [], costs)).columns
  name, count = next((n, c) for n, c in published.items() if c)
  place = [row.name for row in experiment.rows].index(name)
  assert columns["published, B"][place].text == f"{count:.2f}"
  assert columns["off"][place].text == "+1.00%"


def test_only_columns_that_vary_or_hold_something_are_shown(made):
  titles = tables.table(_outcome(made, {})).columns
  assert "low_level_channels" in titles
  assert "convs" not in titles
  assert not [title for title in titles if "Multiply" in title]


def test_the_noise_is_that_of_one_run_over_all_rows(made):
  # Deviations of 1.414 and 0.707: the root of the mean variance.
  experiment, lines = made
  said = verdict.noise(tables.Outcome(experiment, lines, {}))
  assert "1.1 points, over 2 rows of up to 2 seeds" in said
  alone = [line for line in lines if line["seed"] == 0]
  assert "no telling" in verdict.noise(tables.Outcome(experiment, alone, {}))


def test_the_csv_has_every_seed_and_class(made):
  text = tables.as_csv(_outcome(made, COSTS))
  found = list(csv.DictReader(text.splitlines()))
  assert len(found) == 10
  line = next(
    x for x in found if (x["row"], x["seed"]) == ("low_level_channels=16", "1")
  )
  assert line["miou"] == "45.0"
  assert line["iou <car>"] == "22.5"
  assert line["model.decoder.low_level_channels"] == "16"


class Page(html.parser.HTMLParser):
  """Tags that are open, and what refers to elsewhere."""

  VOID = ("meta", "br", "img", "path", "rect", "circle")

  def __init__(self):
    super().__init__()
    self.open, self.wrong, self.elsewhere = [], [], []

  def handle_starttag(self, tag, attrs):
    if tag not in self.VOID:
      self.open.append(tag)
    for key, value in attrs:
      own = value is None or value.startswith(("data:", "#"))
      if key in ("src", "href") and not own:
        self.elsewhere.append(value)

  def handle_endtag(self, tag):
    if tag not in self.VOID and (not self.open or self.open.pop() != tag):
      self.wrong.append(tag)


@pytest.fixture
def written(made, tmp_path):
  outcome = _outcome(made, COSTS)
  text = report.report(outcome, tmp_path, name="report")
  return text, tmp_path / "report.html"


def test_the_page_is_one_file_with_every_section(written):
  text, path = written
  assert text == (path.parent / "table.md").read_text()
  assert "41.0 ± 1.4" in text and "not on the paper's data" in text
  content = path.read_text()
  parsed = Page()
  parsed.feed(content)
  assert not parsed.wrong and not parsed.open and not parsed.elsewhere
  assert re.findall("<h2>(.*?)</h2>", content) == [
    "Failures",
    "mIoU and cost",
    "Learning curves",
    "IoU of each class, %",
    "Trimap curves",
    "Pictures",
    "Recipe: what differs from the paper&#x27;s protocol",
    "Training times",
    "Commands of each row",
    "The paper&#x27;s table: Decoder 1x1 channels (decoder [3x3,256], Conv2), "
    "VOC12 val, ResNet-101",
  ]
  assert "&lt;no&gt; luck" in content and "<no>" not in content
  assert "&lt;car&gt;" in content and "<car>" not in content
  assert content.count("data:image/jpeg") == 3
  assert "--config.model.decoder.low_level_channels=64" in content
  assert "1 NVIDIA Tesla K80" in content


def test_the_page_starts_with_the_verdict_and_marks_the_best_row(written):
  text, path = written
  said = (
    "low_level_channels=16 scores best, 44.5 ± 0.7 mIoU (2 seeds); "
    "low_level_channels=8 is next, 3.5 points below, which is more than chance "
    "(2.2 points). Rows without a score: 1 failed, 1 not run."
  )
  assert text.splitlines()[2] == said
  assert "| **44.5 ± 0.7** |" in text and text.count("**") == 2
  content = path.read_text()
  body = content.partition("</h1>")[2]
  assert body.startswith(f'\n<p class="verdict">{said}</p>')
  (row,) = re.findall('<tr class="best"><td[^>]*>(.*?)</td>', content)
  assert row == "low_level_channels=16"
  assert 'class="near"' not in content
  # In the two plots of rows, in both learning curves and in both trimaps,
  # in bold, and once in the heat map.
  assert content.count("low_level_channels=16 (best)") == 7
  assert content.count(' font-weight="bold">2: low_level') == 2


def test_rows_near_the_best_one_are_marked_too(made):
  table = tables.table(_outcome(made, {}))
  best = verdict.Best("low_level_channels=8", ("low_level_channels=32",))
  text = page.sortable(table, best)
  kinds = re.findall(r'<tr(?: class="(\w+)")?><td', text)
  assert kinds == ["best", "", "near", "", ""]
  assert "within the spread of seeds" in text
  assert "best" not in page.sortable(table)


def test_the_docstring_stands_as_text_and_its_command_as_lines():
  text = page.about(
    "A title.\n\nCOMMAND: python -m a <b>\n         python -m c\n\nSome\nwords."
  )
  assert text.splitlines() == [
    "<p><code>python -m a &lt;b&gt;<br>",
    "python -m c</code></p>",
    "<p>Some words.</p>",
  ]
  assert page.about("A title.") == ""


def test_the_plots_stand_beside_the_page(made, tmp_path):
  experiment, lines = made
  names = ["classes", "cost_accuracy", "learning_curves", "trimap"]
  outcome = tables.Outcome(experiment, lines, COSTS)
  report.report(outcome, tmp_path, name="report")
  files = sorted(tmp_path.glob("*.svg"))
  assert [file.stem for file in files] == names
  for file in files:
    root = ElementTree.parse(file).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    # On a dark page too: behind everything, and as large.
    back = next(child for child in root if child.tag.endswith("rect"))
    assert back.get("fill") == "white"
    assert back.get("width") == root.get("width")
    assert root.get("viewBox") == (
      f"0 0 {root.get('width')} {root.get('height')}"
    )
  costs = (tmp_path / "cost_accuracy.svg").read_text()
  # A point and its name in the legend.
  assert ">2</text>" in costs and ">2: low_level_channels=16 (best)<" in costs
  curves = ElementTree.parse(tmp_path / "learning_curves.svg").getroot()
  panels = [child.get("transform") for child in curves if child.tag[-1] == "g"]
  assert panels == ["translate(60,34)", "translate(540,34)"]
  for line in lines:
    line.pop("trimap", None)
  outcome = tables.Outcome(experiment, lines, COSTS)
  report.report(outcome, tmp_path, name="report")
  assert sorted(file.stem for file in tmp_path.glob("*.svg")) == names[:3]


def test_images_of_the_data_can_be_left_out(made, tmp_path):
  outcome = _outcome(made, COSTS)
  report.report(outcome, tmp_path, name="report", pictures=False)
  content = (tmp_path / "report.html").read_text()
  assert "Learning curves" in content
  assert "Pictures" not in content and "data:image" not in content


def test_what_is_committed_has_no_path_of_this_machine(monkeypatch, tmp_path):
  home = tmp_path / "home"
  monkeypatch.setenv("HOME", str(home))
  monkeypatch.chdir(tmp_path)
  parser = argparse.ArgumentParser()
  flags.add_arguments(parser)
  args = parser.parse_args(
    ["v3plus_table1", "--data=camvid", "--set=data.root=CamVid", "--out=found"]
  )
  experiment, out = flags.loaded(args)
  jobs = results_lib.jobs(
    experiment, out, seeds=(0,), weights="tf_deeplab:weights/a.ckpt"
  )
  leave(jobs[0], 0.4, jobs[0].rows[0])
  lines = [
    f'File "{experiment_lib.ROOT}/deeplax/main.py", line 3',
    f'File "{sys.prefix}/lib/jax/core.py", line 4',
    f"deeplax: no data in {home}/CamVid",
  ]
  record = {"status": "failed", "log_tail": lines}
  jobs[1].sibling(".json").write_text(json.dumps(record))
  found = results_lib.collect(experiment, jobs, out)
  results_lib.write(out, found)
  outcome = tables.Outcome(experiment, found, COSTS)
  report.report(outcome, out, name="report")
  files = [path for path in (tmp_path / "found").iterdir() if path.is_file()]
  assert len(files) == 7  # one point has no scatter
  for file in files:
    text = file.read_text()
    for folder in (tmp_path, experiment_lib.ROOT, sys.prefix):
      assert not re.search(rf"(?<![.]){re.escape(str(folder))}", text), file
  text = (tmp_path / "found" / "report.html").read_text()
  assert "deeplax/main.py" in text and "no data in ~/CamVid" in text
  # Where commands run, it is the folder that was given.
  (flag,) = (w for w in jobs[0].commands()[-1] if w.startswith("--workdir"))
  workdir = experiment_lib.ROOT / flag.partition("=")[2]
  assert workdir.resolve() == jobs[0].workdir.resolve()
  assert workdir.is_relative_to(experiment_lib.ROOT)


def test_a_report_without_any_run_still_stands(tmp_path):
  experiment = load.load("v3plus_table1")
  lines = results_lib.collect(
    experiment, results_lib.jobs(experiment, tmp_path), tmp_path
  )
  outcome = tables.Outcome(experiment, lines, {})
  text = report.report(outcome, tmp_path, name="report")
  assert "not run" in text and "77.61" in text


def test_the_recipe_names_each_difference_and_its_cost(made):
  experiment, lines = made
  shared, own = deviations.recipe(experiment, lines)
  by_key = {line[0]: line[1:] for line in shared}
  assert by_key["data.name"][:2] == ["voc2012", "camvid"]
  assert by_key["model.backbone"][:2] == [
    "resnet_v1_101_beta", "mobilenet_v2",
  ]  # fmt: skip
  assert by_key["train.batch_size"][:2] == ["16", "8"]
  assert "64.43" in by_key["train.batch_size"][2]
  assert by_key["init"][:2] == ["ImageNet weights", "random weights"]
  # What the table itself varies is the same in its paper.
  assert not any("low_level" in key for key in by_key)
  assert own == {}


def test_a_report_of_nothing_says_what_to_run(tmp_path, capsys):
  with pytest.raises(SystemExit) as ended:
    report_door.main(["v3_table9", f"--out={tmp_path}"])
  assert ended.value.code == 2
  assert "experiments.run" in capsys.readouterr().err


def test_curves_of_other_steps_are_drawn_on_the_same_axis():
  steps = [1, 2, 3, 4]
  found = page._at(steps, [[2, 1.0], [4, 3.0]])
  np.testing.assert_array_equal(found, [np.nan, 1, 2, 3])
  assert np.isnan(page._at(steps, [])).all()


# Clicks on the column of mIoU twice and says what comes first.
SORT = """<script>
const heads = [...document.querySelectorAll("th button")];
const button = heads.find((b) => b.textContent === "mIoU");
const first = () => document.querySelector("tbody").rows[0].cells[0].innerText;
button.click(); const down = first();
button.click(); const up = first();
document.title = "sorted " + down + " then " + up;
</script>"""


def test_a_browser_shows_and_sorts_the_page_with_a_clean_console(written):
  file = written[1]
  said, pixels = browser.shown(file, size="1500,4000")
  assert not said
  assert (pixels == (0x00, 0x72, 0xB2)).all(-1).sum() > 100  # a curve
  text = file.read_text()
  clicked = file.with_name("clicked.html")
  clicked.write_text(text.replace("</body>", f"{SORT}</body>"))
  title = re.findall("<title>(sorted .*?)</title>", browser.document(clicked))
  assert title == [
    "sorted low_level_channels=16 then low_level_channels=48"
  ] or title == ["sorted low_level_channels=16 then low_level_channels=64"]
  broken = file.with_name("broken.html")
  broken.write_text(text + '<img src="https://none.example/a.png">')
  assert browser.shown(broken)[0]
