import jax
import jax.numpy as jnp
import pytest

from deeplax.ops import backend


def by_platform(x):
  """Return what tells the platform that it was traced for."""
  return jnp.sin(x) if backend.platform() == "cpu" else jnp.cos(x)


def test_the_table_names_a_form_for_every_platform():
  for operation, row in backend.FORMS.items():
    assert tuple(row) == backend.PLATFORMS, operation


def test_a_target_has_the_forms_of_its_platform_until_it_ends():
  here = backend.form("resize")
  for platform in backend.PLATFORMS:
    with backend.target(platform):
      assert backend.platform() == platform
      for operation, row in backend.FORMS.items():
        assert backend.form(operation) == row[platform].form
  assert backend.form("resize") == here


def test_kernels_run_step_by_step_where_a_target_says_so_alone():
  assert not backend.interpreted()
  with backend.target("gpu", interpreted=True):
    assert backend.interpreted()
    with backend.target("gpu"):
      assert not backend.interpreted()
    assert backend.interpreted()


def test_an_unknown_platform_is_refused():
  with pytest.raises(ValueError, match="platform 'cuda' not in"):
    with backend.target("cuda"):
      pass


def test_a_chosen_form_holds_on_every_platform():
  with backend.chosen(depthwise="fused"), backend.target("gpu"):
    assert backend.form("depthwise") == "fused"
    assert backend.form("statistics") == "kernels"
    with backend.chosen(statistics="one_pass", depthwise="rows"):
      assert backend.form("depthwise") == "rows"
      assert backend.form("statistics") == "one_pass"
      assert backend.platform() == "gpu"
    assert backend.form("depthwise") == "fused"


def test_what_was_traced_for_one_platform_is_traced_anew_for_another():
  # Of equal functions and shapes JAX keeps the program.
  run = jax.jit(by_platform)
  for platform, value in (("cpu", 0), ("tpu", 1), ("gpu", 1), ("cpu", 0)):
    with backend.target(platform):
      assert run(jnp.zeros(())) == value


def test_what_was_traced_with_one_form_is_traced_anew_with_another():
  run = jax.jit(
    lambda x: x + 1 if backend.form("resize") == "gathers" else x + 2
  )
  for form, value in (("gathers", 1), ("products", 2)):
    with backend.chosen(resize=form):
      assert run(jnp.zeros(())) == value
