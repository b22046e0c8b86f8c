"""Durations as they are printed, and the lines of a long pass."""

from deeplax import clocks


def test_durations_are_short():
  assert clocks.duration(45.2) == "45 s"
  assert clocks.duration(725.0) == "12:05"
  assert clocks.duration(11525.0) == "3:12:05"
  assert clocks.duration(float("inf")) == "?"


def lines_of(total, steps, **settings):
  """Return the lines of a pass, from (seconds, count) of its steps."""
  lines, time = [], [0.0]
  report = clocks.Progress(
    total, lines.append, name="fetched", now=lambda: time[0], **settings
  )
  for seconds, count in steps:
    time[0] = seconds
    report.step(count)
  return lines


def test_progress_is_a_line_now_and_then_and_one_at_the_end():
  lines = lines_of(40, [(5, 10), (10, 10), (15, 10), (17, 10)])
  assert lines == [
    "fetched 20/40 images  2.0 images/s  ETA 10 s",
    "fetched 40/40 images  2.4 images/s  ETA 0 s",
  ]
  assert not lines_of(2, [(4, 1), (8, 1)])


def test_what_an_earlier_command_has_done_counts_in_no_speed():
  megabytes = {"unit": "MB", "scale": 1e6, "done": 50_000_000}
  lines = lines_of(100_000_000, [(5, 5_000_000), (20, 15_000_000)], **megabytes)
  assert lines == ["fetched 70/100 MB  1.0 MB/s  ETA 30 s"]


def test_time_spent_inside_is_added_up_by_name():
  clock = {}
  for _ in range(2):
    with clocks.timed(clock, "load"):
      pass
  assert list(clock) == ["load"] and clock["load"] >= 0
