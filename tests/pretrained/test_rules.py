"""Layouts, folded norms, and what does not fit, on a toy network."""

from typing import Any

import flax.traverse_util
import jax
import numpy as np

from deeplax.pretrained import rules
from deeplax.pretrained import summary
from tests.pretrained import toy


def load(arrays):
  return rules.load(arrays, toy.TABLE, model=toy.Toy())


def variables(found):
  return flax.traverse_util.unflatten_dict(found.values)


def test_every_layout_arrives_where_it_belongs():
  arrays = toy.arrays()
  found = variables(load(arrays))
  params, stats = found["params"], found["batch_stats"]
  for o in range(4):
    for i in range(3):
      np.testing.assert_array_equal(
        params["stem"]["kernel"][:, :, i, o], arrays["net.conv1.weight"][o, i]
      )
  for place, name in enumerate(("net.4", "net.5")):
    for c in range(4):
      np.testing.assert_array_equal(
        params["blocks"]["depthwise_kernel"][place, :, :, 0, c],
        arrays[f"{name}.conv.weight"][c, 0],
      )
    np.testing.assert_array_equal(
      params["blocks"]["scale"][place], arrays[f"{name}.bn.weight"]
    )
    np.testing.assert_array_equal(
      stats["blocks"]["var"][place], arrays[f"{name}.bn.running_var"]
    )
  np.testing.assert_array_equal(
    stats["stem"]["mean"], arrays["net.bn1.running_mean"]
  )
  np.testing.assert_array_equal(
    params["logits"]["kernel"][0, 0], arrays["fc.weight"].T
  )


def test_what_is_written_is_what_was_read():
  arrays = toy.arrays()
  written, nameless = rules.save(variables(load(arrays)), toy.TABLE)
  assert not nameless
  assert written.keys() == arrays.keys()
  for name, value in arrays.items():
    assert written[name].flags.c_contiguous
    np.testing.assert_array_equal(written[name], value)


def test_half_precision_is_widened():
  arrays = {k: v.astype(np.float16) for k, v in toy.arrays().items()}
  arrays["fc.bias"] = arrays["fc.bias"].astype(jax.numpy.bfloat16)
  found = load(arrays)
  assert not summary.differences(found)
  assert {v.dtype for v in found.values.values()} == {np.dtype(np.float32)}
  bias = found.values[("params", "logits", "bias")]
  np.testing.assert_array_equal(bias, arrays["fc.bias"].astype(np.float32))


def test_a_folded_norm_leaves_the_function_as_it_was():
  arrays = toy.folded()
  # One layer kept its norm: every layer is looked at by itself.
  norm = {k: v for k, v in toy.arrays().items() if "net.4.bn" in k}
  del arrays["net.4.conv.bias"]
  del arrays["net.5.conv.bias"]
  arrays |= norm | {k: v for k, v in toy.arrays().items() if "net.5.bn" in k}
  found = load(arrays)
  assert not summary.differences(found)
  assert found.folded == [("stem",)]
  image = np.random.default_rng(1).normal(size=(1, 1, 1, 3)).astype(np.float32)
  logits: Any = toy.Toy().apply(
    variables(found), image, train=False, method="coarse"
  )
  # At a single pixel only the center of a 3x3 kernel counts.
  weight = arrays["net.conv1.weight"][:, :, 1, 1]
  x = np.maximum(weight @ image[0, 0, 0] + arrays["net.conv1.bias"], 0)
  for name in ("net.4", "net.5"):
    x = x * arrays[f"{name}.conv.weight"][:, 0, 1, 1]
    mean, var = (arrays[f"{name}.bn.running_{s}"] for s in ("mean", "var"))
    x = (x - mean) / np.sqrt(var + toy.NORM.eps)
    x = x * arrays[f"{name}.bn.weight"] + arrays[f"{name}.bn.bias"]
    x = np.maximum(x, 0)
  expected = arrays["fc.weight"] @ x + arrays["fc.bias"]
  np.testing.assert_allclose(logits[0, 0, 0], expected, rtol=1e-5)


def test_a_stack_of_folded_norms_loads():
  found = load(toy.folded())
  assert not summary.differences(found)
  assert found.folded == [("stem",), ("blocks",)]
  scale = found.values[("params", "blocks", "scale")]
  np.testing.assert_allclose(scale, np.full((2, 4), np.sqrt(1.1)), rtol=1e-6)
  np.testing.assert_array_equal(
    found.values[("params", "blocks", "offset")][1],
    toy.folded()["net.5.conv.bias"],
  )


def test_everything_that_does_not_fit_is_said_at_once():
  arrays = toy.arrays(num_classes=5)
  arrays["net.9.conv.weight"] = arrays.pop("net.4.conv.weight")
  arrays["net.bn1.bias"] = np.zeros((4, 1), np.float32)
  arrays["net.5.bn.weight"] = np.ones(4, np.int64)
  arrays["net.5.bn.bias"] = np.full(4, np.nan, np.float32)
  arrays["net.bn1.num_batches_tracked"] = np.array(7)
  found = load(arrays)
  assert found.left_out == ["net.bn1.num_batches_tracked"]
  lines = summary.differences(found).splitlines()
  assert lines[::2] == [
    "  missing (1): net.4.conv.weight",
    "  unused (1): net.9.conv.weight",
  ]
  assert lines[1].startswith("  of another shape or kind (5): ")
  for text in (
    "net.bn1.bias has shape (4, 1), needs (4,)",
    "net.5.bn.weight holds int64, needs floating-point numbers",
    "net.5.bn.bias holds numbers that are not finite",
    "fc.weight has shape (5, 4), needs (3, 4)",
    "fc.bias has shape (5,), needs (3,)",
  ):
    assert text in lines[1]


def test_a_folded_file_without_a_bias_misses_just_that():
  arrays = toy.folded()
  del arrays["net.conv1.bias"]
  table = toy.TABLE._replace(
    spellings=(
      {k: toy.TORCH[k] for k in ("kernel", "depthwise_kernel", "bias")},
    )
  )
  found = rules.load(arrays, table, model=toy.Toy())
  assert summary.differences(found) == "  missing (1): net.conv1.bias"
  assert found.folded == [("blocks",)]


def test_long_lists_are_cut_and_counted():
  names = [f"n{i}" for i in range(13)]
  assert summary.names(names[:10]).endswith("n8, n9")
  assert summary.names(names).endswith("n8, n9 and 3 more")


def test_a_parameter_without_a_name_is_said():
  table = toy.TABLE._replace(layers=toy.TABLE.layers[:2])
  found = rules.load(toy.arrays(), table, model=toy.Toy())
  assert "(no name for logits/kernel)" in summary.differences(found)
  _, nameless = rules.save(variables(load(toy.arrays())), table)
  assert nameless == [
    ("params", "logits", "bias"),
    ("params", "logits", "kernel"),
  ]
