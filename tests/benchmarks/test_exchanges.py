import itertools
import json

import pytest

from benchmarks import exchanges
from benchmarks import tpu_program
from tests.conftest import ROOT

STEP = "jit(step)/shard_map"
NORM = "DeepLab._features/backbone/conv/conv._normalize/statistics/psum"
FORWARD = f"{STEP}/jvp(DeepLab.coarse)/{NORM}"
BACKWARD = f"{STEP}/transpose(jvp(DeepLab.coarse))/{NORM}"


def line(operands, path, *, chips="{{0,1},{2,3}}", cycles=0):
  config = f'"estimated_cycles":"{cycles}"' if cycles else '"emitter":"Ring"'
  return (
    f"({operands}), replica_groups={chips}, to_apply=%add, "
    f'metadata={{op_name="{path}"}}, backend_config={{{config}}}'
  )


# Two norms forward, the second in a loop of three trips; one backward that
# waits for neither; gradients while 600 cycles of arithmetic run.
TEXT = f"""HloModule jit_step, is_scheduled=true

%body (p: (f32[2,8])) -> (f32[2,8]) {{
  %p = (f32[2,8]{{1,0}}) parameter(0)
  %g = f32[2,8]{{1,0}} get-tuple-element(%p), index=0
  %in = f32[2,8]{{1,0}} all-reduce{line("%g", FORWARD)}
  ROOT %t = (f32[2,8]{{1,0}}) tuple(%in)
}}

%condition (p.1: (f32[2,8])) -> pred[] {{
  %end = s32[]{{:T(128)}} constant(3)
  ROOT %lt = pred[]{{:T(512)}} compare(%i, %end), direction=LT
}}

ENTRY %main (x: f32[2,8]) -> f32[100] {{
  %x = f32[2,8]{{1,0}} parameter(0)
  %first = f32[2,8]{{1,0}} all-reduce{line("%x", FORWARD)}
  %c = f32[4]{{0}} fusion{line("%x", "", cycles=100)}
  %w = (f32[2,8]{{1,0}}) while(%first), condition=%condition, body=%body
  %d = f32[4]{{0}} fusion{line("%x", "", cycles=300)}
  %back = f32[2,8]{{1,0}} all-reduce{line("%x", BACKWARD)}
  %start = f32[100]{{0}} all-reduce-start{line("%w", f"{STEP}/psum", chips="{}")}
  %a = f32[4]{{0}} fusion{line("%x", "", cycles=400)}
  %b = f32[4]{{0}} fusion{line("%a, %x", "", cycles=200)}
  %done = f32[100]{{0}} all-reduce-done(%start)
  ROOT %r = f32[100]{{0}} add{line("%done, %b", "", cycles=1400)}
}}
"""  # noqa: E501
# A ring of 16 by a line of 2, in the order of the mesh.
PLACES = [(x, y, 0) for y, x in itertools.product(range(2), range(16))]


def test_exchanges_have_their_purpose_bytes_and_what_runs_beside():
  found = exchanges.of_program(tpu_program.Program(TEXT))
  size = 2 * 8 * 4
  assert [one[1:] for one in found] == [
    ("norms forward", size, (0, 1), 1, 0, "Ring"),
    ("norms forward", size, (0, 1), 3, 0, "Ring"),
    ("norms backward", size, (0, 1), 1, 0, "Ring"),
    ("gradients", 400, (), 1, 600, "Ring"),
  ]
  assert {one.operation for one in found} == {"all-reduce"}


def test_the_longest_chain_counts_each_trip_and_what_waits_for_it():
  # The first, three of the loop and the gradients'.
  assert tpu_program.Program(TEXT).chain() == 5


def test_chips_span_the_sides_of_a_torus():
  assert exchanges.sides((), PLACES) == [16, 2, 1]
  assert exchanges.sides((0, 1, 2, 3), PLACES) == [4, 1, 1]
  assert exchanges.sides((3, 19), PLACES) == [1, 2, 1]


@pytest.mark.parametrize(
  ("sides", "links", "hops"),
  [
    ((16, 16, 1), 4, 16),  # a pod: two rings
    ((16, 1, 1), 2, 8),
    ((4, 4, 1), 2, 6),  # two lines
    ((16, 2, 1), 3, 9),
  ],
)
def test_a_sum_goes_there_and_back_over_all_links(sides, links, hops):
  chips = sides[0] * sides[1]
  size, hop = 90_000_000, 2e-6
  wanted = 2 * (size * (chips - 1) / chips / (4.5e10 * links) + hops * hop)
  found = exchanges.seconds("all-reduce", size, sides, hop)
  assert found == pytest.approx(wanted)
  gather = exchanges.seconds("all-gather", size, sides, hop)
  assert gather == pytest.approx(wanted / 2)


def test_a_chip_by_itself_exchanges_nothing():
  assert exchanges.seconds("all-reduce", 100, (1, 1, 1), 1e-6) == 0


def test_an_estimate_adds_what_arithmetic_does_not_hide():
  program = tpu_program.Program(TEXT)
  report = exchanges.estimate(program, PLACES, clock=1.0, images=8)
  counts = {name: r["count"] for name, r in report["purposes"].items()}
  assert counts == {"norms forward": 4, "norms backward": 1, "gradients": 1}
  assert report["purposes"]["norms forward"]["bytes"] == 4 * 64
  assert report["asynchronous"] == 1 and report["chain"] == 5
  assert report["median_kilo_cycles_apart"] == 0.05
  for place, hop in enumerate(exchanges.HOPS):
    # Two chips beside each other five times; then 9 hops there and back, less
    # 600 cycles at 1 GHz.
    norm = 2 * (64 / 2 / 4.5e10 + hop)
    last = 2 * (400 * 31 / 32 / (3 * 4.5e10) + 9 * hop)
    wait = 5 * norm + last - 600e-9
    assert report["wait_ms"][place] == pytest.approx(wait * 1e3)
    step = 2400e-9 + wait
    assert report["share"][place] == pytest.approx(wait / step)
    assert report["images_a_second"][place] == pytest.approx(8 * 32 / step)
  assert report["algorithms"] == {"Ring": 6}


def test_the_report_is_told_in_lines():
  program = tpu_program.Program(TEXT)
  report = exchanges.estimate(program, PLACES, clock=1.0, images=8)
  text = "\n".join(exchanges.lines(report))
  assert "norms forward: 4, 0.00 MB" in text
  assert "5 wait for each other" in text
  assert "at 1.0 to 2.7 microseconds a hop" in text and "estimate" in text


def test_the_documents_have_the_recorded_figures():
  text = (ROOT / "docs" / "pods.md").read_text()
  recorded = ROOT / "benchmarks" / "results" / "aot_pod.json"
  for row in json.loads(recorded.read_text())["programs"]:
    report, gb = row["exchanges"], row["gb"]
    figures = [
      f"{row['mega_cycles']:.1f} million, {row['ms']:.0f} ms",
      f"{gb['arguments'] + gb['temporaries']:.1f} GB",
      str(report["chain"]),
      f"{exchanges.between(report['wait_ms'])} ms, "
      + exchanges.between(report["share"], ".0%"),
      exchanges.between(report["images_a_second"], ",.0f"),
    ]
    for part in report["purposes"].values():
      figures.append(
        f"{part['count']}, {part['bytes'] / 1e6:.1f} MB, "
        f"{exchanges.between(part['ms'])} ms"
      )
    for figure in figures:
      assert f"| {figure} |" in text, (row["config"], figure)
    assert not report["asynchronous"]
