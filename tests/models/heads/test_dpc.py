"""The dense prediction cell: its wiring and how far it sees."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deeplax.models import cost
from deeplax.models import layers
from deeplax.models import style as style_lib
from deeplax.models.heads import dpc
from tests.models.networks import SIZE
from tests.models.networks import Tiny
from tests.models.networks import network

NORM = layers.Norm(decay=0.9, eps=1e-3)
DPC: dict[str, Any] = {
  "backbone": "xception_41",
  "head": "dpc",
  "decoder__kind": "none",
}


def test_the_published_cell_is_wired_as_published():
  model = network(**DPC)
  assert model.head.cell == (
    (-1, (1, 6)),
    (0, (18, 15)),
    (1, (6, 3)),
    (0, (1, 1)),
    (0, (6, 21)),
  )
  # The 3x3 convolutions of the head in order.
  found = [
    (conv.path[1], conv.module.rate)
    for conv in cost.trace(model.clone(backbone=Tiny()), SIZE)[1]
    if conv.path[0] == "head" and conv.module.kernel == 3
  ]
  assert found == [
    (f"branch{i}", pair) for i, (_, pair) in enumerate(model.head.cell)
  ]
  at8 = network(output_stride=8, **DPC).head.cell
  assert at8[4] == (0, (12, 42))


def test_branches_read_what_the_cell_says_and_are_all_joined():
  cell = ((-1, (1, 2)), (0, (2, 1)), (-1, (3, 1)), (1, (1, 1)))
  head = dpc.DPC(style_lib.Style(NORM), cell=cell, channels=4)
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.standard_normal((1, 9, 7, 6)), jnp.float32)
  variables = jax.jit(partial(head.init, train=False))(jax.random.key(0), x)

  @jax.jit
  def run(x):
    return head.apply(
      variables,
      x,
      train=False,
      capture_intermediates=lambda m, _: (m.name or "").startswith("branch"),
      mutable=["intermediates"],
    )

  y, state = run(x)
  found = {
    name: value["__call__"][0]
    for name, value in state["intermediates"].items()  # pyright: ignore
  }

  def alone(module, name, x):
    own = {key: tree[name] for key, tree in variables.items()}
    return jax.jit(partial(module.apply, train=False))(own, x)

  for place, (source, rate) in enumerate(cell):
    conv = layers.SeparableConv(
      4, rate=rate, norm=NORM, activation_between="relu", activation="relu"
    )
    read = x if source < 0 else found[f"branch{source}"]
    np.testing.assert_allclose(
      alone(conv, f"branch{place}", read),
      found[f"branch{place}"],
      rtol=1e-4,
      atol=1e-5,
    )
  joined = jnp.concatenate([found[f"branch{i}"] for i in range(4)], axis=-1)
  project = layers.ConvNorm(4, norm=NORM, activation="relu")
  np.testing.assert_allclose(
    alone(project, "projection", joined), y, rtol=1e-4, atol=1e-5
  )


def test_the_cells_furthest_way_is_added_up():
  published = network(**DPC).head.cell
  # Rows 1 + 18 + 6 = 25, columns 6 + 21 = 27.
  assert dpc.furthest(published) == 27
  assert dpc.furthest(((-1, (4, 1)), (0, (5, 2)), (-1, (1, 8)))) == 9


def test_the_field_of_view_of_a_cell_is_its_furthest_way():
  def field(cell):
    model = network(**DPC, cell=cell).clone(backbone=Tiny())
    return cost.field_of_view(model)

  two, one = (
    field(cell) for cell in (((-1, (1, 2)), (0, (3, 2))), ((-1, (4, 1)),))
  )
  assert two == one
  wider = field(((-1, (1, 6)),))
  assert wider - one == 2 * (6 - 4) * 16
