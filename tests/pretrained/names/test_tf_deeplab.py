"""The names that tensorflow/models research/deeplab gives its arrays."""

import types

import jax
import numpy as np
import pytest

from deeplax import errors
from deeplax import pretrained
from deeplax.models import build
from deeplax.pretrained import rules
from deeplax.pretrained.names import tf_deeplab
from tests.models import golden
from tests.models import networks
from tests.pretrained import toy
from tests.pretrained.numbered import assert_bit_equal
from tests.pretrained.numbered import numbered

LRASPP = {
  "head": "lraspp",
  "channels": 128,
  "output_stride": 32,
  "decoder__kind": "sum",
  "decoder__features": (8,),
  "decoder__output_stride": 8,
}
# Every rule of the table is in one of these.
NETWORKS = {
  "mobilenet_v2": {},
  "mobilenet_v2 classifier": {"head": "classifier", "decoder__kind": "none"},
  "mobilenet_v3_large_seg": LRASPP,
  "mobilenet_edgetpu": {"decoder__kind": "none", "depth_multiplier": 0.75},
  "resnet_v1_50_beta": {"separable": False, "decoder__separable": False},
  "resnet_v1_101": {"head": "classifier", "decoder__kind": "none"},
  "xception_41": {"head": "classifier", "decoder__kind": "none"},
  "xception_71": {"decoder__features": (8, 4)},
}


def network(name, settings, *, num_classes=21):
  return networks.network(num_classes, backbone=name.split()[0], **settings)


@pytest.mark.parametrize("name", NETWORKS)
def test_names_written_are_read_back_bit_equal(short, name):
  model = network(name, NETWORKS[name])
  variables = numbered(model)
  arrays, nameless = rules.save(variables, tf_deeplab.table(model))
  assert not nameless
  sizes = [value.size for value in jax.tree.leaves(variables)]
  assert sum(value.size for value in arrays.values()) == sum(sizes)
  found = pretrained.convert_arrays(arrays, "tf_deeplab", model=model)
  assert_bit_equal(found, variables)


def test_names_of_both_stages_of_a_decoder(short):
  model = network("xception_71", NETWORKS["xception_71"])
  arrays, _ = rules.save(numbered(model), tf_deeplab.table(model))
  for name in (
    "decoder/feature_projection0/weights",
    "decoder/feature_projection0_1/BatchNorm/beta",
    "decoder/decoder_conv1_depthwise/depthwise_weights",
    "decoder/decoder_conv0_1_pointwise/BatchNorm/gamma",
    "xception_71/middle_flow/block1/unit_2/xception_module/"
    "separable_conv3_pointwise/BatchNorm/moving_variance",
  ):
    assert name in arrays


FIXTURES = (
  "mobilenet_v2_dm05_os16",
  "mobilenet_v2_os16",
  "mobilenet_v2_os16_v3plus",
  "mobilenet_v3_large_seg_os32",
  "resnet_v1_101_beta_os16_v3",
  "resnet_v1_50_beta_os16_v3plus",
  "xception_41_os16",
  "xception_65_os8",
)
# As the others of their backbones, of more layers or without a decoder.
ALIKE = {
  "mobilenet_v2_dm05_os16",
  "mobilenet_v2_os16",
  "resnet_v1_101_beta_os16_v3",
  "xception_65_os8",
}


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=[networks.SLOW] if name in ALIKE else [])
    for name in FIXTURES
  ],
)
def test_names_and_shapes_are_those_of_the_reference(name):
  manifest = golden.load(name).manifest
  backbone = manifest["flags"]["model_variant"]
  if backbone == "mobilenet_v3_large_seg":
    model = network(backbone, LRASPP, num_classes=19)
  else:
    model = build.from_config(
      golden.config(manifest), num_classes=manifest["num_classes"]
    )
  arrays, nameless = rules.save(numbered(model), tf_deeplab.table(model))
  assert not nameless
  assert {name: list(value.shape) for name, value in arrays.items()} == {
    name: shape for name, shape, _ in manifest["variables"]
  }


def test_what_training_and_classifying_leave_in_a_file_is_left_out(short):
  model = network("mobilenet_v2", {"decoder__kind": "none"})
  variables = numbered(model)
  arrays, _ = rules.save(variables, tf_deeplab.table(model))
  extra = (
    "global_step",
    "logits/semantic/weights/Momentum",
    "MobilenetV2/Conv/weights/ExponentialMovingAverage",
    "MobilenetV2/Conv_1/BatchNorm/gamma",
    "MobilenetV2/Logits/Conv2d_1c_1x1/biases",
  )
  arrays |= {name: np.zeros(3, np.float32) for name in extra}
  found = pretrained.convert_arrays(arrays, "tf_deeplab", model=model)
  assert_bit_equal(found, variables)
  loaded = rules.load(arrays, tf_deeplab.table(model), model=model)
  assert loaded.left_out == list(extra)


def test_another_network_is_refused_with_names(short):
  model = network("mobilenet_v2", {"decoder__kind": "none"})
  arrays, _ = rules.save(numbered(model), tf_deeplab.table(model))
  other = network("mobilenet_v2", {})
  with pytest.raises(errors.InputError, match="missing.*decoder/decoder_conv0"):
    pretrained.convert_arrays(arrays, "tf_deeplab", model=other)
  with pytest.raises(errors.InputError, match="caffe2.*tf_deeplab"):
    pretrained.convert_arrays(arrays, "caffe2", model=model)


def test_a_backbone_the_program_does_not_have_is_refused():
  model = types.SimpleNamespace(backbone=toy.Toy(), head=None)
  with pytest.raises(errors.InputError, match="no names for the backbone Toy"):
    tf_deeplab.table(model)
