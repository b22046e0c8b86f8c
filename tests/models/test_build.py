from typing import Any

import jax
import numpy as np
import pytest

from deeplax.models import build
from deeplax.models import cost
from deeplax.models import deeplab
from deeplax.models import layers
from deeplax.models import variables as variables_lib
from tests.models import networks
from tests.models import test_programs
from tests.models.networks import SIZE
from tests.models.networks import config
from tests.models.networks import network

# One convolution after the backbone.
BARE = {"atrous_rates": (), "image_pooling": False, "decoder__kind": "none"}


def test_one_set_of_parameters_serves_every_output_stride(short):
  c = config(backbone="mobilenet_v2", **BARE)
  trees = []
  for stride in (8, 16, 32):
    model: Any = build.from_config(c, num_classes=3, output_stride=stride)
    trees.append(cost.trace(model, SIZE)[0])
  assert trees[0] == trees[1] == trees[2]


@pytest.mark.parametrize(
  "settings",
  [
    {},
    {"backbone": "resnet_v1_101_beta", "decoder__kind": "sum"},
    {"backbone": "mobilenet_v2", "decoder__kind": "none"},
  ],
)
def test_networks_hash_and_equal_their_rebuilt_selves(settings):
  one, two = network(**settings), network(**settings)
  assert one == two and hash(one) == hash(two)
  assert one != network(**settings, channels=128)
  for part in (one.backbone, one.head, one.decoder):
    hash(part)


def test_atrous_rates_follow_the_output_stride():
  for given in (None, (6, 12, 18)):
    c = config(atrous_rates=given)
    rates = {
      stride: build.from_config(
        c, num_classes=2, output_stride=stride
      ).head.rates  # pyright: ignore
      for stride in (8, 16, 32)
    }
    assert rates == {8: (12, 24, 36), 16: (6, 12, 18), 32: (3, 6, 9)}


def test_given_rates_are_taken_as_they_are_at_their_own_output_stride():
  assert network(atrous_rates=(1, 5)).head.rates == (1, 5)  # pyright: ignore
  assert network(atrous_rates=()).head.rates == ()  # pyright: ignore


def test_no_decoder_is_written_none_or_kind_none():
  c = config()
  c.decoder = None
  model = build.from_config(c, num_classes=21)
  assert model.decoder is None and model == network(decoder__kind="none")


def test_norms_of_the_head_do_not_follow_the_backbone():
  for backbone, decay, eps in (
    ("xception_65", 0.9997, 1e-3),
    ("resnet_v1_101_beta", 0.95, 1.001e-5),
    ("mobilenet_v2", 0.997, 1e-3),
  ):
    model = network(backbone=backbone)
    assert model.backbone.norm == layers.Norm(decay, eps)  # pyright: ignore
    # tf.nn.fused_batch_norm raises 1e-5 to 1.001e-5.
    for part in (model.head, model.decoder):
      assert part.style.norm == layers.Norm(0.9997, 1.001e-5)  # pyright: ignore


def test_batch_norm_settings_reach_every_part():
  c = config(
    batch_norm__mode="frozen", batch_norm__group="4", batch_norm__decay=0.9
  )
  model = build.from_config(c, num_classes=2, axis_name="batch")
  norms = deeplab.norms(model)
  assert [*norms] == ["backbone", "head", "decoder"]
  for norm in norms.values():
    assert norm[2:] == ("frozen", "batch", "4") and norm.decay == 0.9


def test_images_are_padded_with_the_backbones_mean():
  assert build.mean_pixel(config()) == (127.5, 127.5, 127.5)
  assert build.mean_pixel(config(backbone="resnet_v1_50")) == (
    123.15, 115.90, 103.06,
  )  # fmt: skip


BANDS = ((3000.0, 2500.0, 100.0, 9.0, 1.0), (900.0, 800.0, 50.0, 3.0, 0.5))


@pytest.mark.parametrize(
  "backbone",
  ["mobilenet_v2", "resnet_v1_50", "resnet_v1_50_beta", "xception_41"],
)
def test_only_the_first_kernel_depends_on_the_bands(backbone, short):
  c = config(backbone=backbone, **BARE)
  assert build.mean_pixel(c, BANDS) == BANDS[0]
  rgb, bands = (
    build.from_config(c, num_classes=3, channels=channels)
    for channels in (None, BANDS)
  )
  shapes = [variables_lib.shapes(model) for model in (rgb, bands)]
  first = variables_lib.first_kernel(bands)
  differing = {
    path for path, shape in shapes[0].items() if shapes[1][path] != shape
  }
  assert shapes[0].keys() == shapes[1].keys() and differing == {first}
  side, _, three, width = shapes[0][first]
  assert three == 3 and shapes[1][first] == (side, side, 5, width)
  # Two more channels under the stem, whose stride is 2.
  counts = [cost.multiply_adds(model, SIZE) for model in (rgb, bands)]
  assert counts[1] - counts[0] == 2 * side**2 * width * 17**2


def test_each_band_is_normalized_by_its_own_mean_and_std():
  c = config(backbone="mobilenet_v2", depth_multiplier=0.1, channels=8)
  c.decoder.kind = "none"
  images = np.random.default_rng(0).standard_normal((1, 17, 17, 5))
  raw = images * np.reshape(BANDS[1], (1, 1, 1, 5)) + np.reshape(
    BANDS[0], (1, 1, 1, 5)
  )
  model, plain = (
    build.from_config(c, num_classes=3, channels=channels).clone(
      backbone=networks.Tiny()
    )
    for channels in (BANDS, ((0.0,) * 5, (1.0,) * 5))
  )
  variables = variables_lib.initial_variables(model, seed=0)

  def apply(x, *, model):
    x = x.astype(np.float32)
    return jax.jit(
      lambda x: model.apply(variables, x, train=False, method="coarse")
    )(x)

  np.testing.assert_allclose(
    apply(raw, model=model),
    apply(images, model=plain),
    rtol=1e-3,
    atol=1e-5,
  )
  with pytest.raises(ValueError, match="images of 3 channels for .* of 5"):
    apply(raw[..., :3], model=model)


@pytest.mark.parametrize(
  ("key", "value", "message"),
  [
    ("backbone", "vgg19", "'vgg19'.*mobilenet_v2.*resnet_v1_101_beta.*xcept"),
    ("head", "psp", r"'psp' not in \['aspp', 'aspp_sum', 'c"),
    ("conventions", "torch", "'torch' not in .*tf_deeplab"),
    ("dtype", "float16", "'float16' not in .*bfloat16.*float32"),
    ("precision", "tf32", r"'tf32' not in \['default', 'high', 'highest'\]"),
    ("output_stride", 12, r"12 not in \[4, 8, 16, 32\]"),
    ("multi_grid", (1, 2), r"\(1, 2\) is not three rates"),
    ("depth_multiplier", 0.5, "0.5 is for mobilenet backbones"),
    ("depth_multiplier", -1.0, "-1.0 is not positive"),
    ("atrous_rates", (0,), "atrous_rates 0 is not 1 or more"),
    ("atrous_rates", (1.5,), "1.5.* not whole numbers"),
    ("channels", 0, "channels 0 is not 1 or more"),
    ("dropout", 1.0, "dropout 1.0 is not in"),
    (
      "decoder__kind",
      "unet",
      r"'unet' not in .*'none', 'branches', 'concat', 'sum'",
    ),
    ("decoder__kernel", 5, r"5 not in \[1, 3\]"),
    ("decoder__convs", 0, "convs 0 is not 1 or more"),
    ("decoder__features", (4, 8), r"\(4, 8\) are not strides from coarse"),
    ("decoder__features", (), r"\(\) are not strides from coarse"),
    ("decoder__features", (6,), r"6 not in \[2, 4, 8\]"),
    ("decoder__features", (2,), r"\(2,\) are not .*output_stride 4"),
    ("decoder__output_stride", 1, r"1 not in \[2, 4, 8\]"),
    ("batch_norm__mode", "auto", r"'auto' not in .*'train', 'frozen'"),
    ("batch_norm__group", "half", "'half' is neither 'all', 'device'"),
    ("batch_norm__decay", 1.0, "decay 1.0 is not in"),
  ],
)
def test_bad_values_are_refused_with_the_allowed_ones(key, value, message):
  with pytest.raises(ValueError, match=message):
    network(**{key: value})


@pytest.mark.parametrize(
  "settings",
  [
    {"backbone": "vgg16", "conventions": "caffe", "remat": True},
    {"backbone": "mobilenet_v2", "multi_grid": (1, 2, 4)},
  ],
)
def test_a_setting_of_another_backbone_is_refused(settings):
  with pytest.raises(ValueError, match="is for .*xception.* backbones"):
    network(**settings)


def test_rates_that_another_output_stride_cannot_take_are_refused():
  c = config(atrous_rates=(1, 2))
  with pytest.raises(ValueError, match="are not whole at 32"):
    build.from_config(c, num_classes=2, output_stride=32)


@pytest.mark.parametrize("name", ["default", "high", "highest"])
def test_every_product_and_its_gradients_have_the_precision(name, short):
  model = network(**networks.SMALL, precision=name)
  variables, _ = cost.trace(model, SIZE)
  image = np.zeros((2, 33, 33, 3), np.float32)

  def loss(params, batch_stats):
    logits, _ = model.apply(
      {"params": params, "batch_stats": batch_stats},
      image,
      train=True,
      mutable=["batch_stats"],
      method="coarse",
      rngs={"dropout": jax.random.key(0)},
    )
    return logits.sum()

  trace = jax.make_jaxpr(jax.grad(loss))
  program = trace(variables["params"], variables["batch_stats"]).jaxpr
  found = test_programs.precisions(program)
  wanted = None if name == "default" else jax.lax.Precision(name)
  assert len(found) > 40 and {*found} == {wanted}


@pytest.mark.parametrize(
  ("settings", "trained"),
  [
    ({"decoder__kind": "none"}, ("decoder",)),
    ({"decoder__kind": "none", "head": "aspp_sum"}, ("decoder", "logits")),
    ({}, ("auxiliary",)),
    ({}, ("neck",)),
  ],
)
def test_training_none_of_a_network_s_parts_is_refused(settings, trained):
  config = networks.config(**settings)
  with pytest.raises(ValueError, match="nothing would train") as caught:
    build.from_config(config, num_classes=3, trained=trained)
  assert str(trained) in str(caught.value)
  offered = str(caught.value).rpartition("It has ")[2].split(", ")
  for name in offered:
    assert build.from_config(config, num_classes=3, trained=(name,))
