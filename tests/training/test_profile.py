"""A trace is written and told; its times are counted once; failures warn."""

import types

import jax
import jax.numpy as jnp
import pytest

from deeplax.training import profile


def event(name, start, duration, **stats):
  return types.SimpleNamespace(
    name=name, start_ns=start, duration_ns=duration, stats=[*stats.items()]
  )


def plane(name, **lines):
  return types.SimpleNamespace(
    name=name,
    lines=[
      types.SimpleNamespace(name=line.replace("_", " "), events=events)
      for line, events in lines.items()
    ],
  )


def op(name, start, duration, device=0):
  return event(name, start, duration, hlo_op=name, device_ordinal=device)


def times(found):
  return {e.kernel: round(1e9 * e.seconds) for e in found}


def test_an_operation_of_no_named_device_counts_as_the_first_ones():
  planes = [plane("/host:CPU", thread=[event("dot.1", 1, 20, hlo_op="dot.1")])]
  assert times(profile.of_planes(planes)) == {"dot.1": 20}


def test_what_runs_inside_a_loop_is_not_the_loops_time():
  body = [op("dot.1", 110, 20), op("tanh.2", 130, 30)]
  inner = [op("while.4", 200, 50), op("dot.5", 210, 15)]
  planes = [
    plane("/host:CPU", thread=[op("while.3", 100, 200), *body, *inner]),
  ]
  assert times(profile.of_planes(planes)) == {
    "while.3": 100, "dot.1": 20, "tanh.2": 30, "while.4": 35, "dot.5": 15,
  }  # fmt: skip


def test_a_cpus_operations_are_those_of_the_first_device_on_all_threads():
  planes = [
    plane(
      "/host:CPU",
      python=[event("PjitFunction(step)", 0, 900)],
      one=[op("dot.1", 0, 7), event("end: dot.1", 7, 1), op("dot.2", 9, 5, 1)],
      two=[op("dot.3", 1, 6)],
    ),
    plane("/host:metadata"),
  ]
  assert times(profile.of_planes(planes)) == {"dot.1": 7, "dot.3": 6}


def test_an_accelerators_kernels_go_before_the_hosts():
  stream = [
    event("fusion_1", 0, 10, hlo_op="fusion.1"),
    # It begins a little before its predecessor has ended.
    event("nvjet_tst", 9, 20, hlo_op="custom-call.2"),
  ]
  planes = [
    plane("/host:CPU", thread=[op("copy.9", 0, 99)]),
    plane("/device:GPU:0"),
    plane("/device:GPU:1", Stream_7=stream, XLA_Modules=[event("jit", 0, 50)]),
  ]
  found = profile.of_planes(planes)
  assert times(found) == {"fusion_1": 10, "nvjet_tst": 20}
  assert [e.instruction for e in found] == ["fusion.1", "custom-call.2"]
  # A TPU's, by the text of its instruction, inside a loop.
  ops = [event("%while.1 = s32[] while(...)", 0, 9), event("%dot.2 = ", 1, 4)]
  planes = [plane("/device:TPU:0", XLA_Ops=ops, Steps=[event("1", 0, 9)])]
  assert times(profile.of_planes(planes)) == {"while.1": 5, "dot.2": 4}


def test_the_table_has_shares_and_a_steps_milliseconds_and_calls():
  kernels = [
    profile.Event("loop_fusion_3", "", 0.006),
    profile.Event("loop_fusion_14", "", 0.003),
    profile.Event("sm90_xmma_gemm", "", 0.003),
    *(profile.Event(f"{letter}_copy", "", 0) for letter in "abcdefghijkl"),
  ]
  head, first, second, *rest = profile.table(kernels, steps=3).splitlines()
  assert head.split() == ["share", "ms/step", "calls/step", "kernel"]
  assert first.split() == ["75.0%", "3.000", "0.7", "loop_fusion"]
  assert second.split(maxsplit=3) == ["25.0%", "1.000", "0.3", profile.LIBRARY]
  assert len(rest) == profile.SHOWN - 2


@jax.jit
def work(x):
  return jax.lax.fori_loop(0, 5, lambda _, y: jnp.sin(y @ x), x)


def test_a_trace_is_read_as_it_was_written(tmp_path):
  said, x = [], jnp.ones((64, 64))
  jax.block_until_ready(work(x))
  traced = profile.Profile(tmp_path / "profile", 7, said.append)
  assert traced.last == 9
  clock = {}
  traced.start(x, clock)
  work(x)
  traced.stop(8, work(x), clock)
  assert [*clock] == ["train"]
  assert not traced.running
  (text,) = said
  head, _, *rows, last = text.splitlines()
  assert head.startswith("profile of steps 7 to 8: ")
  # Two runs of five rounds are five calls a step of what is in the loop.
  calls = {row.split()[3]: float(row.split()[2]) for row in rows}
  assert calls["while"] == 1 and 5 in calls.values()
  assert sum(float(row.split()[0][:-1]) for row in rows) == pytest.approx(
    100, abs=1
  )
  session = tmp_path / "profile" / "plugins" / "profile" / "step_7"
  assert f"the trace is in {session}. " in last
  assert [*session.glob("*.trace.json.gz")]


def test_a_trace_that_cannot_be_written_is_a_warning(tmp_path, monkeypatch):
  said, stop = [], jax.profiler.stop_trace
  session = tmp_path / "plugins" / "profile" / "step_1"

  def full():
    stop()
    raise RuntimeError("RESOURCE_EXHAUSTED: No space left on device\nmore")

  monkeypatch.setattr(jax.profiler, "stop_trace", full)
  traced = profile.Profile(tmp_path, 1, said.append)
  traced.start(0, {})
  traced.stop(3, 0, {})
  assert not traced.running and not session.exists()
  assert said == [
    "deeplax: train.profile 1: no profile is written (RESOURCE_EXHAUSTED: No "
    "space left on device). Training goes on"
  ]


def test_another_trace_under_way_is_a_warning(tmp_path):
  said = []
  traced = profile.Profile(tmp_path / "mine", 1, said.append)
  with jax.profiler.trace(str(tmp_path)):
    traced.start(0, {})
  (line,) = said
  assert "already been started" in line and not traced.running


def test_a_run_profiles_in_its_first_process_what_is_to_come(
  tmp_path, monkeypatch
):
  def of_run(first, resume):
    said = []
    found = profile.of_run(first, tmp_path, resume=resume, progress=said.append)
    return found.first, said

  assert of_run(5, 4) == (5, []) and of_run(0, 4) == (0, [])
  assert of_run(4, 4) == (
    0, ["train.profile 4: nothing is profiled, the run goes on from step 4"],
  )  # fmt: skip
  monkeypatch.setattr(jax, "process_index", lambda: 1)
  assert of_run(5, 4) == (0, [])
