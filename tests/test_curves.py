"""Trimap curves: numbers by hand, a plot that parses, and what is refused."""

import json
import re
import xml.etree.ElementTree

import numpy as np
import pytest

from deeplax import curves
from deeplax import errors
from deeplax.reports import line_plot
from deeplax.reports import trimap_curves

WIDTHS = ("1", "5", "40")
# Of two seeds of each design: mIoU at these widths and of the whole image.
NONE = ((0.2, 0.4, 0.5, 0.6), (0.3, 0.4, 0.7, 0.6))
DECODER = ((0.5, 0.5, 0.6, 0.7), (0.6, 0.9, 0.6, 0.6))


def _result(miou=(0.1, 0.2, 0.3, 0.4), **fields):
  accuracy = [None if value is None else value / 2 for value in miou]
  return {
    **{"split": "val", "images": 7, "split_images": 7},
    **{"output_stride": 16, "scales": [1.0], "flip": False, "crf": None},
    **{"miou": miou[-1], "pixel_accuracy": accuracy[-1], "iou": {"car": 0.5}},
    **{"trimap_kind": "class"},
    "trimap": dict(zip(WIDTHS, miou[:-1], strict=True)),
    "trimap_accuracy": dict(zip(WIDTHS, accuracy[:-1], strict=True)),
    **fields,
  }


def _write(workdir, result, name="val-00000400-os16-s1.0"):
  (workdir / "eval").mkdir(parents=True, exist_ok=True)
  (workdir / "eval" / f"{name}.json").write_text(json.dumps(result))
  # Neither the table nor what was evaluated without a trimap is in the way.
  (workdir / "eval" / "val-00000400-table.json").write_text('{"rows": []}')
  (workdir / "eval" / "val-00000300-os16-s1.0.json").write_text('{"miou": 1}')
  return workdir


def _command(*arguments):
  with pytest.raises(SystemExit) as ended:
    curves.main([str(argument) for argument in arguments])
  return ended.value.code


@pytest.fixture
def seeds(tmp_path):
  """The workdirs of two designs."""
  for design, values in (("none", NONE), ("decoder", DECODER)):
    for seed, miou in enumerate(values):
      _write(tmp_path / f"{design}_{seed}", _result(miou))
  return tmp_path


def _by_width(values):
  columns = (*WIDTHS, "whole image")
  return dict(zip(columns, map(pytest.approx, values), strict=True))


def test_two_groups_have_means_spread_and_gain(seeds, capsys):
  out = seeds / "out"
  several = f"{seeds}/none_0,{seeds}/none_1"
  status = _command(
    *(f"--out={out}", f"--group=none={several}"),
    f"--group=a | decoder={seeds}/decoder_?",
  )
  assert status == 0
  found = json.loads((out / "curves.json").read_text())
  first, second = found["groups"]
  assert [len(group["files"]) for group in (first, second)] == [2, 2]
  assert first["files"][1].endswith("none_1/eval/val-00000400-os16-s1.0.json")
  half = 0.05 * 2**0.5  # of two values, their difference by the root of 2
  assert first["trimap"]["mean"] == _by_width([0.25, 0.4, 0.6, 0.6])
  assert first["trimap"]["std"] == _by_width([half, 0, 2 * half, 0])
  assert second["trimap"]["std"] == _by_width([half, 4 * half, 0, half])
  assert second["trimap"]["values"][1] == _by_width(DECODER[1])
  assert second["trimap_accuracy"]["mean"] == _by_width(
    [0.275, 0.35, 0.3, 0.325]
  )
  assert (found["gain"]["of"], found["gain"]["over"]) == ("a | decoder", "none")
  gained = found["gain"]["trimap"]
  assert gained["mean"] == _by_width([0.3, 0.3, 0.0, 0.05])
  assert gained["std"] == _by_width([0.1, 4 * half, 2 * half, half])
  assert gained["standard_error"]["1"] == pytest.approx(0.1 / 2**0.5)
  assert found["trimap_kind"] == "class" and found["images"] == 7

  text = (out / "curves.md").read_text()
  assert text in capsys.readouterr().out
  row = next(line for line in text.splitlines() if line.startswith("| 1 "))
  cells = [cell.strip() for cell in row.strip("| ").split(" | ")]
  assert cells == [
    "1", "25.0 ± 7.1", "55.0 ± 7.1", "30.0 ± 10.0", "7.1"
  ]  # fmt: skip


def _read(path):
  return xml.etree.ElementTree.fromstring(path.read_text())


def test_single_runs_are_named_by_their_folder_and_have_no_spread(seeds):
  out = seeds / "out"
  names = ("none_0", "decoder_0", "decoder_1")
  assert _command(f"--out={out}", *(seeds / name for name in names)) == 0
  found = json.loads((out / "curves.json").read_text())
  assert tuple(group["name"] for group in found["groups"]) == names
  assert found["groups"][2]["trimap"]["mean"] == _by_width(DECODER[1])
  assert set(found["groups"][0]["trimap"]["std"].values()) == {None}
  assert "gain" not in found
  assert "±" not in (out / "curves.md").read_text().split("##", 1)[1]
  texts = [element.text for element in _read(out / "curves.svg").iter()]
  assert all(texts.count(name) == 2 for name in names)


def test_the_plot_has_a_point_for_each_value(seeds):
  groups = [f"--group={d}={seeds}/{d}_*" for d in ("none", "decoder")]
  assert _command(f"--out={seeds}", *groups) == 0
  root = _read(seeds / "curves.svg")
  space = "{http://www.w3.org/2000/svg}"
  panels = root.findall(f"{space}g")
  points = [len(list(panel.iter(f"{space}circle"))) for panel in panels]
  # Two groups' mIoU, accuracy, and the gain in both, at three widths.
  assert points == [6, 6, 6]
  widths, heights = (
    [float(c.attrib[key]) for c in panels[0].iter(f"{space}circle")]
    for key in ("cx", "cy")
  )
  # The axis ends at 40 px.
  np.testing.assert_allclose(
    widths[:3], line_plot.WIDTH * np.array([1, 5, 40]) / 40
  )
  means = np.array([25, 40, 60, 55, 70, 60])
  slope = np.polyfit(means, heights, 1)
  np.testing.assert_allclose(np.polyval(slope, means), heights, atol=0.1)
  assert slope[0] < 0


def test_a_band_without_pixels_is_left_out(tmp_path):
  path = tmp_path / "scores.json"
  path.write_text(json.dumps(_result((None, 0.2, 0.4, 0.5), split=None)))
  assert _command(f"--out={tmp_path}", path) == 0
  found = json.loads((tmp_path / "curves.json").read_text())
  assert found["groups"][0]["trimap"]["mean"]["1"] is None
  space = "{http://www.w3.org/2000/svg}"
  (panel, _) = _read(tmp_path / "curves.svg").findall(f"{space}g")
  assert len(list(panel.iter(f"{space}circle"))) == 2


@pytest.mark.parametrize(
  ("fields", "words"),
  [
    ({"split": "test"}, "split is val in"),
    ({"images": 3}, "images is 7 in"),
    ({"trimap_kind": "void"}, "trimap_kind is class in"),
    ({"iou": {"bus": 0.5}}, "class is car in"),
    ({"trimap": {"1": 0.1}}, "width is 1, 5, 40 in"),
    ({"flip": True}, "flip is False in"),
    ({"scales": [0.5, 1.0]}, "scales is [1.0] in"),
  ],
)
def test_results_that_do_not_compare_are_refused(
  tmp_path, capsys, fields, words
):
  _write(tmp_path / "a", _result())
  _write(tmp_path / "b", _result(**fields))
  runs = f"{tmp_path}/a,{tmp_path}/b"
  assert _command(f"--out={tmp_path}", f"--group=both={runs}") == 2
  error = capsys.readouterr().err
  assert words in error and error.count("\n") == 1
  assert str(tmp_path / "b" / "eval") in error
  assert not (tmp_path / "curves.json").exists()
  # A design may be evaluated otherwise than another, on the same images.
  apart = _command(f"--out={tmp_path}", tmp_path / "a", tmp_path / "b")
  assert apart == (0 if fields.keys() & {"flip", "scales"} else 2)


def _two_results(run):
  _write(run, _result(), "val-00000400-os8-s1.0")


def _no_trimap(run):
  path = run / "eval" / "val-00000400-os16-s1.0.json"
  path.write_text('{"miou": 1}')


def _half(run):
  path = run / "eval" / "val-00000400-os16-s1.0.json"
  path.write_text(path.read_text()[:20])


@pytest.mark.parametrize(
  ("spoil", "words"),
  [
    (_two_results, ("2 results with a trimap", "--result=NAME")),
    (_no_trimap, ("no trimap in", "python -m deeplax.evaluate --workdir=")),
    (_half, ("os16-s1.0.json is not JSON",)),
  ],
)
def test_workdirs_without_one_trimap_are_refused(
  tmp_path, capsys, spoil, words
):
  run = _write(tmp_path / "run", _result())
  spoil(run)
  assert _command(f"--out={tmp_path}", run) == 2
  error = capsys.readouterr().err
  assert all(word in error for word in words) and error.count("\n") == 1


def test_one_of_several_results_is_chosen_by_its_name(tmp_path):
  run = _write(tmp_path / "run", _result())
  _write(run, _result((0.9,) * 4), "val-00000400-os8-s1.0")
  assert _command(f"--out={tmp_path}", run, "--result=*-os8-*") == 0
  found = json.loads((tmp_path / "curves.json").read_text())
  assert found["groups"][0]["trimap"]["mean"]["5"] == pytest.approx(0.9)


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    ((), "no run: give workdirs"),
    (("{}/none_0", "{}/nothing"), "no workdir or result"),
    (("--group={}/none_0",), "give it a name"),
    (("--group=a={}/x*",), "nothing is named"),
    (("--group=a={}/none_0,{}/none_*",), "has a run twice"),
    (("{}/none_0", "--group=none_0={}/none_1"), "two curves would be named"),
  ],
)
def test_wrong_groups_end_with_2(seeds, capsys, flags, words):
  arguments = [flag.replace("{}", str(seeds)) for flag in flags]
  assert _command(f"--out={seeds}", *arguments) == 2
  assert words in capsys.readouterr().err


def test_an_unknown_result_is_an_input_error(tmp_path):
  with pytest.raises(errors.InputError, match="no workdir or result"):
    trimap_curves.find(tmp_path / "none", "*.json")


@pytest.mark.parametrize(
  ("ends", "expected"),
  [
    ((0, 40), [0, 10, 20, 30, 40]),
    ((23.4, 61.2), [20, 30, 40, 50, 60, 70]),
    ((-0.13, 0.28), [-0.2, -0.1, 0, 0.1, 0.2, 0.3]),
    ((5, 5), [4.4, 4.6, 4.8, 5, 5.2, 5.4, 5.6]),
  ],
)
def test_ticks_are_round_and_enclose_the_values(ends, expected):
  assert line_plot.ticks(*ends) == expected


def test_a_difference_shows_its_zero():
  line = line_plot.Line("gain", np.array([3.0, 4.0]), np.array([0.1, 0.2]))
  for difference in (False, True):
    panel = line_plot.Panel("points", [line], (1, 9), "px", difference)
    root = xml.etree.ElementTree.fromstring(line_plot.svg([panel]))
    ends = [e.text for e in root.iter() if e.get("text-anchor") == "end"]
    assert ("0" in ends) == difference


def test_names_are_text_in_the_plot():
  line = line_plot.Line("<b>&", np.array([1.0, 2.0]), np.array([np.nan, 0.5]))
  text = line_plot.svg([line_plot.Panel("a<b", [line], (1, 2), "x & y")])
  root = xml.etree.ElementTree.fromstring(text)
  found = [e.text for e in root.iter() if e.text]
  assert {"<b>&", "a<b", "x & y"} <= set(found)
  # One bar only: the first value has no spread.
  assert len(re.findall('stroke-width="1"', text)) == 1


def _paths(line, x):
  """Return the paths of a curve, its legend left out, and its circles."""
  text = line_plot.svg([line_plot.Panel("p", [line], x, "x")])
  group = text.partition("<g color=")[2].partition("</g>")[0]
  return re.findall(r'<path d="([^"]*)"', group), group.count("<circle")


def test_a_curve_of_many_points_has_a_band_in_place_of_bars():
  for count, circles in ((line_plot.POINTS, 16), (line_plot.POINTS + 1, 0)):
    x = range(count)
    values, spread = np.arange(count) + 5.0, np.full(count, 1.0)
    paths, found = _paths(line_plot.Line("a", values, spread), x)
    assert found == circles
    bands = [path for path in paths if path.endswith("Z")]
    assert len(bands) == (not circles)
    # One curve, and a bar for each circle.
    assert len(paths) - len(bands) == 1 + circles
    paths, _ = _paths(line_plot.Line("a", values, spread * np.nan), x)
    assert len(paths) == 1


def test_error_bars_at_one_x_stand_side_by_side():
  lines = [
    line_plot.Line("a", np.array([1.0, 2.0]), np.array([0.5, np.nan])),
    line_plot.Line("b", np.array([1.0, 2.0]), np.array([0.5, 0.5])),
    line_plot.Line("c", np.array([np.nan, 2.0]), np.array([0.5, 0.5])),
  ]
  half = line_plot.APART / 2
  found = line_plot._aside(lines)
  assert found[0, 0] == -half and found[1].tolist() == [half, -half]
  assert found[2, 1] == half


def test_the_x_axis_starts_at_0_unless_half_of_it_were_empty():
  for x, first in (((2.0, 5.0), "0"), ((4.1, 5.0), "4")):
    line = line_plot.Line("a", np.array([1.0, 2.0]), np.full(2, np.nan))
    text = line_plot.svg([line_plot.Panel("p", [line], x, "x")])
    marks = re.findall(r'text-anchor="middle">([\d.]+)</text>', text)
    assert marks[0] == first


def test_a_marked_curve_is_thicker_and_its_name_bold():
  line = line_plot.Line("a", np.array([1.0]), np.full(1, np.nan), "1", True)
  text = line_plot.svg([line_plot.Panel("p", [line], (1,), "x")])
  assert 'stroke-width="4"' in text and 'stroke-width="2"' not in text
  assert text.count('font-weight="bold"') == 2
