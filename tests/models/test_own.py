"""A backbone, a head and a decoder of a user's own, in a file or as objects."""

import pathlib
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import numpy as np
import pytest

from deeplax import errors
from deeplax.models import build
from deeplax.models import cost
from deeplax.models import deeplab
from deeplax.models import own
from deeplax.models import variables
from deeplax.training import norm_statistics
from tests import conftest
from tests.models import networks

pytestmark = pytest.mark.usefixtures("trusting")
CLASSES = 3
EXAMPLE = conftest.ROOT / "docs" / "examples" / "my_decoder.py"
FILE = """\
import flax.linen as nn
import jax.numpy as jnp


class Backbone(nn.Module):
  output_stride: int
  width: int = 4

  @nn.compact
  def __call__(self, x, *, train):
    low = nn.Conv(self.width, (3, 3), strides=4, name="one")(x)
    stride = self.output_stride // 4
    high = nn.Conv(self.width, (3, 3), strides=stride, name="two")(low)
    return {"low4": low, "high": nn.relu(high)}


class Head(nn.Module):
  @nn.compact
  def __call__(self, high, *, train):
    start = nn.initializers.constant(0.5)
    return nn.Dense(6, bias_init=start, name="mix")(high)


class Fixed(nn.Module):
  def __call__(self, x, *, train):
    return {"high": x[:, ::16, ::16]}


class Decoder(nn.Module):
  returns: str = "one"

  @nn.compact
  def __call__(self, high, features, image_size, *, train):
    if self.returns == "one":
      return high[:1]
    if self.returns == "list":
      return [high]
    if self.returns == "product":
      return high @ jnp.zeros((3, 3))
    if self.returns == "cache":
      self.variable("cache", "x", jnp.zeros, (2,))
    norm = nn.BatchNorm(use_running_average=not train, name="norm")
    return norm(high) if self.returns == "norm" else high


def make(channels):
  return nn.Conv(channels, (1, 1))


def number():
  return 3
"""


@pytest.fixture
def file(tmp_path) -> pathlib.Path:
  path = tmp_path / "mine.py"
  path.write_text(FILE)
  return path


def made(**settings) -> Any:
  """Return a small network of these settings of `config.model`."""
  objects = {
    key: settings.pop(key)
    for key in ("backbone", "head", "decoder")
    if isinstance(settings.get(key), nn.Module)
  }
  keys = {**networks.SMALL, **settings}
  if networks.SMALL["backbone"] != keys["backbone"] or "backbone" in objects:
    keys["depth_multiplier"] = 1.0
  return build.from_config(
    networks.config(**keys), num_classes=CLASSES, **objects
  )


def test_a_decoder_in_a_file_gets_what_it_declares(short):
  model = made(
    decoder__kind=f"{EXAMPLE}:MyDecoder(channels=8)", dtype="bfloat16"
  )
  assert model.decoder.channels == 8
  assert model.decoder.style == made(dtype="bfloat16").head.style
  drawn = variables.initial_variables(model, 1)
  logits = jax.eval_shape(
    lambda x: model.apply(drawn, x, train=False),
    jax.ShapeDtypeStruct((2, 41, 57, 3), np.float32),
  )
  assert logits.shape == (2, 41, 57, CLASSES) and logits.dtype == np.float32
  # What both networks have starts equal.
  published = variables.initial_variables(made(), 1)
  for part in ("backbone", "head"):
    jax.tree.map(
      np.testing.assert_array_equal,
      drawn["params"][part],
      published["params"][part],
    )


def test_its_norms_are_frozen_and_shared_as_the_others(short):
  kind = f"{EXAMPLE}:MyDecoder(channels=8)"
  config = networks.config(**networks.SMALL, decoder__kind=kind)
  config.batch_norm.mode = "frozen"
  model = build.from_config(config, num_classes=CLASSES, axis_name="batch")
  norm = deeplab.norms(model)["decoder"]
  assert norm == deeplab.norms(model)["head"]
  assert norm.mode == "frozen" and norm.axis_name == "batch"
  alone = deeplab.over(model, None)
  assert {n.axis_name for n in deeplab.norms(alone).values()} == {None}
  config.batch_norm.mode = "train"
  model = build.from_config(config, num_classes=CLASSES, trained=("decoder",))
  modes = {name: n.mode for name, n in deeplab.norms(model).items()}
  assert modes == {"backbone": "fixed", "head": "fixed", "decoder": "train"}


def test_an_object_stands_for_the_file(short):
  config = networks.config(**networks.SMALL)
  config.decoder.kind = f"{EXAMPLE}:MyDecoder(channels=8)"
  from_file = build.from_config(config, num_classes=CLASSES)
  config.decoder.kind = "none"
  kind: Any = type(from_file.decoder)
  bare = kind(channels=8)
  given = build.from_config(config, num_classes=CLASSES, decoder=bare)
  assert given == from_file
  assert config.decoder.kind == "none"
  config.head, config.atrous_rates = "aspp_sum", (2,)
  with pytest.raises(ValueError, match="'aspp_sum' gives the class scores"):
    build.from_config(config, num_classes=CLASSES, decoder=bare)
  config.given = True
  with pytest.raises(errors.InputError, match=r"deeplax.load\(workdir, mod"):
    build.from_config(config, num_classes=CLASSES)


@pytest.mark.slow
def test_a_network_of_flax_layers_alone(file):
  settings = {
    "backbone": f"{file}:Backbone(width=5)",
    "head": f"{file}:Head",
    "decoder__kind": "none",
  }
  model = made(**settings)
  values, again, other = (
    variables.flat_arrays(variables.initial_variables(model, seed))
    for seed in (0, 0, 1)
  )
  shapes = {path[1:]: value.shape for path, value in values.items()}
  assert shapes == {
    ("backbone", "one", "kernel"): (3, 3, 3, 5),
    ("backbone", "one", "bias"): (5,),
    ("backbone", "two", "kernel"): (3, 3, 5, 5),
    ("backbone", "two", "bias"): (5,),
    ("head", "mix", "kernel"): (5, 6),
    ("head", "mix", "bias"): (6,),
    ("logits", "kernel"): (1, 1, 6, CLASSES),
    ("logits", "bias"): (CLASSES,),
  }
  for path, value in values.items():
    np.testing.assert_array_equal(value, again[path])
    drawn = path[-1] == "kernel"
    assert drawn != np.array_equal(value, other[path]), path
  # As the module says, and as Flax draws it.
  assert (values["params", "head", "mix", "bias"] == 0.5).all()
  init: Any = jax.jit(lambda x: model.init(jax.random.key(0), x, train=False))(
    np.zeros((1, 33, 33, 3), np.float32)
  )
  np.testing.assert_allclose(
    values["params", "backbone", "two", "kernel"],
    init["params"]["backbone"]["two"]["kernel"],
    rtol=1e-6,
  )
  # Another head leaves the backbone as it was drawn.
  aspp = made(**settings | {"head": "aspp"})
  same = variables.flat_arrays(variables.initial_variables(aspp, 0))
  for path, value in values.items():
    if path[1] == "backbone":
      np.testing.assert_array_equal(value, same[path])
  # 64x64: 16x16 positions at stride 4, 4x4 at 16.
  counted = cost.multiply_adds(model, (64, 64))
  expected = 16 * 16 * 27 * 5 + 4 * 4 * (9 * 25 + 5 * 6 + 6 * CLASSES)
  assert counted == expected
  assert cost.parameters(model) == sum(v.size for v in values.values())
  first = ("params", "backbone", "one", "kernel")
  assert variables.first_kernel(model) == first


def test_transposed_convolutions_and_attention_count_by_their_inputs():
  class Layers(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
      x = nn.ConvTranspose(2, (2, 2), strides=(2, 2), name="up")(x)
      return nn.DenseGeneral((2, 3), axis=(-2, -1), name="mix")(x)

    def coarse(self, x, *, train):
      return self(x, train=train)

  counted = cost.multiply_adds(Layers(), (8, 8))
  assert counted == 64 * (4 * 3 * 2) + 16 * (16 * 2 * 6)


def test_other_output_strides_have_the_same_parameters(file):
  settings = {"backbone": f"{file}:Backbone", "head": f"{file}:Head"}
  config = networks.config(**settings, decoder__kind="none")
  models = [
    build.from_config(config, num_classes=CLASSES, output_stride=stride)
    for stride in (16, 8)
  ]
  assert not variables.differing(*models)
  sizes = [
    jax.eval_shape(
      lambda x, m=m: m.init(jax.random.key(0), x, train=False, method="coarse"),
      np.zeros((1, 64, 64, 3), np.float32),
    )
    for m in models
  ]
  assert sizes[0] == sizes[1]
  assert [m.backbone.output_stride for m in models] == [16, 8]
  config.backbone = f"{file}:Fixed"
  config.head = f"{file}:Head"
  with pytest.raises(errors.InputError, match="it has no parameters"):
    build.from_config(config, num_classes=CLASSES)
  with pytest.raises(errors.InputError, match=r"\(2, 9, 9, c\). The field out"):
    build.from_config(config, num_classes=CLASSES, output_stride=8)


def line(text: str) -> str:
  """Return "line N" of the first line of FILE that starts so."""
  lines = [found.strip() for found in FILE.splitlines()]
  return f"line {1 + [x.startswith(text) for x in lines].index(True)}"


def call(name: str) -> str:
  """Return "line N" of the `__call__` of a class of FILE."""
  lines: Any = FILE.splitlines()
  start = lines.index(f"class {name}(nn.Module):")
  while not lines[start].strip().startswith(("@nn.compact", "def __call__")):
    start += 1
  return f"line {start + 1}"


WRONG = {
  ("decoder__kind", "Decoder"): (
    call("Decoder") + r": it returns \(1, 5, 5, 8\) for features of \(2, 5, 5"
  ),
  ("decoder__kind", 'Decoder(returns="list")'): (
    call("Decoder") + ": it returns a list"
  ),
  ("decoder__kind", 'Decoder(returns="product")'): (
    line("return high @") + ": TypeError: dot_general requires"
  ),
  ("decoder__kind", 'Decoder(returns="cache")'): "it has variables in cache",
  ("decoder__kind", 'Decoder(returns="norm")'): "running statistics would move",
  ("decoder__kind", "Decoder(width=3)"): "It takes returns",
  ("decoder__kind", "make(channels=4)"): "unexpected keyword argument 'train'",
  ("decoder__kind", "make"): "argument: 'channels'. It takes channels",
  ("decoder__kind", "number"): "makes int, and a decoder is a flax.linen.Mod",
  ("decoder__kind", "jnp"): "it is a module; name a class or a function",
  ("decoder__kind", "No"): "mine.py has no No; it has Backbone, Head, Fix",
  ("head", "Backbone(output_stride=16)"): (
    call("Backbone") + ": it returns a dict"
  ),
  ("head", "Decoder"): "TypeError: Decoder.__call__",
  (
    "backbone",
    "Head",
  ): r"it returns \(2, 65, 65, 6\); a backbone returns a dic",
  ("backbone", "Backbone(output_stride=4)"): (
    r'"high" has shape \(2, 17, 17, 4\) for 2 images of 65x65'
  ),
}


@pytest.mark.parametrize("key", WRONG)
def test_what_does_not_fit_is_one_message(key, file, short):
  place, value = key
  with pytest.raises(errors.InputError, match=WRONG[key]) as caught:
    made(batch_norm__mode="frozen", **{place: f"{file}:{value}"})
  assert f"{file}:{value}: " in str(caught.value)


def test_objects_that_do_not_fit(file, short):
  config = networks.config(**networks.SMALL)
  with pytest.raises(errors.InputError, match="head=Decoder"):
    build.from_config(config, num_classes=CLASSES, head=networks_decoder(file))
  with pytest.raises(errors.InputError, match="makes int, and a decoder is"):
    own.from_object("decoder", 3, {})

  class Listed(nn.Module):
    widths: Any = None

    def __call__(self, x, *, train):
      return x

  with pytest.raises(errors.InputError, match="Fields have to be numbers"):
    made(head=Listed(widths=np.zeros(2)))


def networks_decoder(file: pathlib.Path) -> Any:
  config = networks.config(**networks.SMALL)
  config.decoder.kind = f'{file}:Decoder(returns="high")'
  return build.from_config(config, num_classes=CLASSES).decoder


STATES_NORM = """\
import flax.linen as nn

class Head(nn.Module):
  norm: object
  still: bool = False

  @nn.compact
  def __call__(self, high, *, train):
    frozen = self.still and self.norm.mode != "train"
    still = frozen or not train
    return nn.BatchNorm(use_running_average=still, name="norm")(high)
"""


def test_a_norm_that_is_to_stay_may_not_move(tmp_path, short):
  file = tmp_path / "n.py"
  file.write_text(STATES_NORM)
  made(head=f"{file}:Head")
  made(head=f"{file}:Head(still=True)", batch_norm__mode="frozen")
  with pytest.raises(errors.InputError, match="running statistics would move"):
    made(head=f"{file}:Head", batch_norm__mode="frozen")
  model = made(head=f"{file}:Head(still=True)")
  others = variables.of_other_layers(model)
  assert {(p[0], p[-1]) for p in others} == {
    *(("params", "scale"), ("params", "bias")),
    *(("batch_stats", "mean"), ("batch_stats", "var")),
  }
  with pytest.raises(errors.InputError, match="head/norm/mean is of a norm of"):
    norm_statistics._refuse_other_norms(model)
  norm_statistics._refuse_other_norms(made())


def test_an_auxiliary_head_wants_the_middle_features(file):
  config = networks.config(backbone=f"{file}:Backbone", decoder__kind="none")
  with pytest.raises(errors.InputError, match='returns no "middle", which the'):
    build.from_config(config, num_classes=CLASSES, auxiliary=True)


def test_the_page_shows_the_example():
  page = (EXAMPLE.parents[1] / "own_network.md").read_text()
  shown = page.split("```python\n")[1].split("```")[0]
  assert shown.startswith("class MyDecoder") and shown in EXAMPLE.read_text()


def test_settings_of_other_backbones_and_heads_are_refused(file):
  with pytest.raises(ValueError, match="model.depth_multiplier 0.5 is for mob"):
    build.from_config(
      networks.config(backbone=f"{file}:Backbone", depth_multiplier=0.5),
      num_classes=CLASSES,
    )
  with pytest.raises(
    ValueError, match=r"model.atrous_rates \(2,\) are for the"
  ):
    made(head=f"{file}:Head", atrous_rates=(2,))
  with pytest.raises(ValueError, match="'nothing' not in .*'FILE.py:NAME'"):
    made(head="nothing")


def test_nothing_of_deeplaxs_own_is_drawn_by_flax(short):
  for backbone in ("resnet_v1_50_beta", "xception_41", "mobilenet_v2", "vgg16"):
    conventions = "torchvision" if backbone == "vgg16" else "tf_deeplab"
    settings: Any = {"decoder__kind": "none"} if backbone == "vgg16" else {}
    model = networks.network(
      backbone=backbone, conventions=conventions, **settings
    )
    found = cost.traced(model, cost.TRACE_SIZE)
    inside = {conv.path for conv in found.convolutions}
    flat: Any = flax.traverse_util.flatten_dict(found.variables)
    assert {path[1:-1] for path in flat} == inside and not found.others
