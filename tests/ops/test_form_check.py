import jax
import numpy as np
import pytest

from deeplax.ops import backend
from deeplax.ops import depthwise
from deeplax.ops import form_check
from tests.ops import kernels

SMALL = form_check.depthwise_case(1, 9, 4)


@pytest.mark.parametrize("platform", backend.PLATFORMS)
def test_there_is_a_case_of_every_operation_but_those_of_steps(platform):
  with backend.target(platform):
    cases = form_check.cases()
    operations = [small.operation for small, _ in cases]
    assert {*operations, *form_check.OF_STEPS} == {*backend.FORMS}
    assert len({*operations}) == len(operations)
    for operation in operations:
      assert form_check.REFERENCES[operation] in form_check.forms(operation)
      assert form_check.BOUNDS[operation] < 0.01
  # Times are of larger maps where programs start slowly.
  for small, large in cases:
    assert (large is None) == (platform == "cpu")
    if large:
      assert large.operation == small.operation
      assert np.prod(large.shape) > 10 * np.prod(small.shape)


def test_all_forms_are_equal_to_rounding():
  for case in (SMALL, form_check.cross_entropy_case(1, 9)):
    found = form_check.compare(case)
    assert not found.problems()
    assert [*found.errors] == [*found.seconds]
    for form, error in found.errors.items():
      assert (error == 0) == (form == form_check.REFERENCES[case.operation])
      assert error < 1e-5
    assert {*found.errors, *found.left_out} == {
      *backend.forms_of(case.operation)
    }


@pytest.mark.parametrize(("platform", "large"), [("cpu", None), ("tpu", SMALL)])
def test_kernels_are_not_run_where_there_is_no_card_for_them(platform, large):
  with backend.target(platform):
    found = form_check.compare(SMALL, large)
  assert found.left_out == {"rows": "its kernels are for NVIDIA cards"}
  assert "; rows not run: its kernels are for NVIDIA cards" in found.text()
  # One for the values of a form, and one for its times in bfloat16.
  assert found.programs == (6 if large else 3)


def test_kernels_that_a_card_cannot_run_are_left_out_with_the_reason(
  monkeypatch,
):
  reason = "Tesla T4 has compute capability 7.5, they need 8.0"
  monkeypatch.setattr(backend, "kernels_missing", lambda: reason)
  with backend.target("gpu"):
    found = form_check.compare(SMALL)
  assert found.own == "fused" and found.left_out == {"rows": reason}
  assert not found.problems()


@pytest.mark.slow  # 3 to 6 s: kernels step by step
def test_kernels_are_compared_where_they_run():
  with kernels.interpreted():
    found = form_check.compare(form_check.depthwise_case(1, 3, 2))
  assert found.own == "rows" and not found.left_out and not found.problems()
  assert 0 < found.errors["rows"] < 1e-5


@pytest.mark.parametrize("factor", [1.01, np.nan])
def test_wrong_values_are_a_problem(monkeypatch, factor):
  right = depthwise.FORMS["library"]
  monkeypatch.setitem(
    depthwise.FORMS, "fused", lambda *args: factor * right(*args)
  )
  (problem,) = form_check.compare(SMALL).problems()
  assert problem.startswith("depthwise as fused differs from library by ")
  assert ("nan" if np.isnan(factor) else "1e-02 of the") in problem


def test_a_wrong_gradient_is_a_problem(monkeypatch):
  right = depthwise.FORMS["library"]

  def planted(x, kernel, *rest):
    return right(x, jax.lax.stop_gradient(kernel), *rest)

  monkeypatch.setitem(depthwise.FORMS, "shifted", planted)
  (problem,) = form_check.compare(SMALL).problems()
  assert "depthwise as shifted differs from library by 1e+00" in problem


def test_a_form_that_does_not_compile_is_a_problem_where_it_is_chosen(
  monkeypatch,
):
  def planted(*args):
    raise NotImplementedError("no such kernel\nand so on")

  for form, problems in (
    ("fused", []),
    ("shifted", ["depthwise as shifted does not run here: no such kernel"]),
  ):
    with monkeypatch.context() as patch:
      patch.setitem(depthwise.FORMS, form, planted)
      found = form_check.compare(SMALL)
    assert found.problems() == problems
    assert f"{form} not run: no such kernel" in found.text()


def clocked(monkeypatch, **milliseconds):
  """Make calls of programs take so long by the clock, whatever they take."""
  elapsed = [0.0]

  def program(case, form, dtype):
    def run():
      elapsed[0] += milliseconds[form] / 1e3
      return np.ones(())

    return run

  monkeypatch.setattr(form_check, "_program", program)
  monkeypatch.setattr(form_check, "clock", lambda: elapsed[0])


def test_the_times_are_those_of_a_call_of_each_form(monkeypatch):
  clocked(monkeypatch, shifted=0.035, fused=0.067, library=0.0391)
  found = form_check.compare(SMALL)
  assert found.text().startswith(
    "shifted 0.035 ms; fused 0.067, library 0.0391; rows not run"
  )
  assert not found.notes()
  assert {len(rounds) for rounds in found.seconds.values()} == {
    form_check.ROUNDS
  }


def test_a_form_that_is_clearly_faster_than_the_chosen_one_is_noted(
  monkeypatch,
):
  clocked(monkeypatch, shifted=2.0, fused=1.5, library=1.0)
  (note,) = form_check.compare(SMALL).notes()
  assert note.startswith(
    "depthwise of 9x9x4: the form library takes 1 ms here, shifted, which the "
    "table has, 2 ms. docs/performance.md"
  )


@pytest.mark.parametrize(
  ("own", "other", "noted"),
  [
    ([1.4, 1.4, 1.4], [1.0, 1.0, 1.0], True),
    ([1.4, 1.2, 1.9], [1.0, 1.0, 1.0], False),  # not in every round
    ([1.4, 2.8, 1.4], [1.0, 2.0, 1.0], True),  # a busy moment hit both
    ([1.2, 1.2, 1.2], [1.0, 1.0, 1.0], False),
  ],
)
def test_a_form_is_clearly_faster_if_it_is_so_in_every_round(own, other, noted):
  seconds = {"shifted": own, "library": other}
  found = form_check.Found(SMALL, "shifted", seconds, {}, {}, 2)
  assert bool(found.notes()) == noted
