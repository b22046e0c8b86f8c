import types

import jax
import jax.numpy as jnp
import numpy as np
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


def test_an_unknown_form_is_refused():
  with pytest.raises(ValueError, match="statistics has no form 'half', but"):
    with backend.chosen(statistics="half"):
      pass
  with pytest.raises(ValueError, match="operation 'sums' not in"):
    with backend.chosen(sums="half"):
      pass


def test_a_gpu_machine_computes_on_its_cpu_in_the_cpus_forms(monkeypatch):
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  monkeypatch.setattr(backend, "kernels_missing", lambda: None)
  assert backend.form("depthwise") == "rows"
  for device in ("cpu", jax.devices("cpu")[0]):
    with jax.default_device(device):
      assert backend.form("depthwise") == "shifted"


def card(kind, capability="0", version="PJRT C API\ncuda 13000"):
  client = types.SimpleNamespace(platform_version=version)
  return types.SimpleNamespace(
    device_kind=kind, compute_capability=capability, client=client
  )


def test_kernels_are_for_nvidia_cards_from_ampere_on(monkeypatch):
  assert backend.missing_on(card("NVIDIA A100-SXM4-40GB", "8.0")) is None
  assert backend.missing_on(card("Orin", "8.7")) is None
  told = backend.missing_on(card("Tesla T4", "7.5"))
  assert told == "Tesla T4 has compute capability 7.5, they need 8.0"
  amd = card("AMD Instinct MI300X", version="rocm 60300")
  assert backend.missing_on(amd) == "AMD Instinct MI300X is no NVIDIA card"
  monkeypatch.setattr(backend.importlib.util, "find_spec", lambda name: None)
  told = backend.missing_on(card("NVIDIA H100", "9.0"))
  assert told and "has no Triton in Pallas" in told


def test_where_kernels_do_not_run_the_plain_forms_stand_in(monkeypatch):
  monkeypatch.setattr(backend, "kernels_missing", lambda: "an old card")
  with backend.target("gpu"):
    assert backend.form("depthwise") == "fused"
    assert backend.form("statistics") == "one_pass"
    assert backend.form("repeated_units") == "unrolled"


def test_kernels_leave_out_maps_beyond_their_32_bits():
  def takes(shape, dtype="float32"):
    return backend.kernels_take(jax.ShapeDtypeStruct(shape, dtype))

  assert takes((1, 2, 3, 4)) and takes((1, 2, 3, 4), "bfloat16")
  assert not takes((1, 0, 3, 4))
  assert not takes((2**11, 2**10, 2**10, 1))
  assert not backend.kernels_take(np.zeros((1, 2, 3, 4)))


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
