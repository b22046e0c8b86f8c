"""VGG-16 and Caffe's ResNet from the files there are, and back."""

from typing import Any

import flax.traverse_util
import jax
import numpy as np
import pytest

from deeplax import errors
from deeplax import pretrained
from deeplax.models import variables
from deeplax.pretrained import partial
from deeplax.pretrained import rules
from deeplax.pretrained import summary
from deeplax.pretrained import tables
from tests.models import networks

# Of an ImageNet file in these tests; real ones: 4,096.
WIDE = 16
CLASSES = [f"class {i}" for i in range(3)]
RESNET: dict[str, Any] = {
  "backbone": "resnet50",
  "head": "aspp_sum",
  "channels": 0,
}
ASPP = {"head": "aspp_sum", "channels": 8}
SCALES = {"input_scales": (0.5,)}


def network(conventions="caffe", num_classes=3, **settings) -> Any:
  given = {
    "conventions": conventions,
    "backbone": "vgg16",
    "output_stride": 8,
    "head": "large_fov",
    "channels": 8,
    "decoder__kind": "none",
  }
  return networks.network(num_classes, **given | settings)


def drawn(shapes):
  """Numbers by shape: equal for equal names, so that order does not count."""
  rng = np.random.default_rng(0)
  return {k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}


def convolutions(*, of="caffe"):
  """Names and shapes of VGG-16's convolutions, of four channels."""
  shapes, place = {}, 0
  for block, count in enumerate((2, 2, 3, 3, 3), 1):
    for unit in range(1, count + 1):
      name = f"conv{block}_{unit}" if of == "caffe" else f"features.{place}"
      inputs = 3 if (block, unit) == (1, 1) else 4
      shapes |= {f"{name}.weight": (4, inputs, 3, 3), f"{name}.bias": (4,)}
      place += 2
    place += 1
  return shapes


def imagenet(*, of="caffe"):
  """An ImageNet file: fc6 reads 7x7 windows, and there are 1,000 classes."""
  names = ("fc6", "fc7", "fc8")
  if of != "caffe":
    names = ("classifier.0", "classifier.3", "classifier.6")
  sizes = ((WIDE, 4 * 49), (WIDE, WIDE), (1000, WIDE))
  shapes = convolutions(of=of)
  for name, size in zip(names, sizes, strict=True):
    shapes |= {f"{name}.weight": size, f"{name}.bias": size[:1]}
  return drawn(shapes)


def load(arrays, model, *, source="caffe"):
  """What `deeplax.convert` makes of a file."""
  table = tables.table(source, model=model)
  wider = model.clone(num_classes=4)
  if hasattr(model.head, "num_classes"):
    wider = wider.clone(head=model.head.clone(num_classes=4))
  return partial.start(
    rules.load(arrays, table, model=model),
    variables.initial_variables(model, seed=0),
    class_names=CLASSES,
    class_paths=variables.differing(model, wider),
  )


FORMS = {
  "state dict": lambda name, array: (name, array),
  "convolutions": lambda name, array: (
    name,
    array.reshape(len(array), 4, 7, 7) if name == "fc6.weight"
    else array[..., None, None] if array.ndim == 2
    else array,
  ),
  "blobs": lambda name, array: (
    name.replace(".weight", "/0").replace(".bias", "/1"), array,
  ),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
  ("kernel", "kept"), [(3, (0, 3, 6)), (4, (0, 2, 4, 6))]
)
def test_an_imagenet_file_of_caffe_gives_v1_all_but_the_scores(
  short, form, kernel, kept
):
  arrays = imagenet()
  file = dict(FORMS[form](*item) for item in arrays.items())
  start = load(file, network(fc6_kernel=kernel))
  params = start.variables["params"]
  # Every second channel, and taps from border to border.
  window = arrays["fc6.weight"].reshape(WIDE, 4, 7, 7)[::2]
  window = window[:, :, kept][:, :, :, kept].transpose(2, 3, 1, 0)
  np.testing.assert_array_equal(params["head"]["fc6"]["kernel"], window)
  np.testing.assert_array_equal(
    params["head"]["fc6"]["bias"], arrays["fc6.bias"][::2]
  )
  np.testing.assert_array_equal(
    params["head"]["fc7"]["kernel"][0, 0], arrays["fc7.weight"][::2, ::2].T
  )
  # The images are RGB here, BGR there; further on channels stay.
  for name, step in (("conv1_1", -1), ("conv1_2", 1)):
    kernel = arrays[f"{name}.weight"][:, ::step].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(params["backbone"][name]["kernel"], kernel)
  assert {path[1] for path in start.new} == {"logits"}
  assert len(start.left_out) == 2
  assert all("fc8" in name for name in start.left_out)
  said = summary.origins(start, seed=0)
  assert "loaded      30 arrays: backbone 26, head 4" in said
  assert "left out    2 arrays: fc8.weight, fc8.bias" in said
  assert "new         2 arrays: logits 2, drawn from seed 0" in said
  assert "subsampled  4: fc6.bias (16,) to (8,)" in said


def test_torchvisions_file_gives_its_own_network_the_same(short):
  arrays = imagenet(of="torchvision")
  start = load(arrays, network("torchvision"), source="torchvision")
  params = start.variables["params"]
  window = arrays["classifier.0.weight"].reshape(WIDE, 4, 7, 7)
  window = window[::2, :, ::3, ::3].transpose(2, 3, 1, 0)
  np.testing.assert_array_equal(params["head"]["fc6"]["kernel"], window)
  kernel = arrays["features.0.weight"].transpose(2, 3, 1, 0)
  np.testing.assert_array_equal(params["backbone"]["conv1_1"]["kernel"], kernel)
  kernel = arrays["features.28.weight"].transpose(2, 3, 1, 0)
  np.testing.assert_array_equal(params["backbone"]["conv5_3"]["kernel"], kernel)
  assert {path[1] for path in start.new} == {"logits"}
  assert start.left_out == ["classifier.6.weight", "classifier.6.bias"]


def test_each_branch_of_v2_starts_from_the_same_layers(short):
  start = load(imagenet(), network(**ASPP))
  head = start.variables["params"]["head"]
  for place in range(1, 4):
    jax.tree.map(
      np.testing.assert_array_equal, head["branch0"], head[f"branch{place}"]
    )
  assert {path[1:3] for path in start.new} == {
    ("head", f"logits{place}") for place in range(4)
  }


def test_a_network_of_v1_that_caffe_trained_is_loaded_whole(short):
  shapes = convolutions() | {
    "fc6.weight": (8, 4, 3, 3), "fc6.bias": (8,),
    "fc7.weight": (8, 8, 1, 1), "fc7.bias": (8,),
    "fc8_voc12.weight": (3, 8, 1, 1), "fc8_voc12.bias": (3,),
  }  # fmt: skip
  arrays = drawn(shapes)
  start = load(arrays, network())
  assert not start.new and not start.left_out and not start.subsampled
  np.testing.assert_array_equal(
    start.variables["params"]["logits"]["kernel"][0, 0],
    arrays["fc8_voc12.weight"][:, :, 0, 0].T,
  )


def test_without_one_of_v2s_scores_a_file_is_not_whole(short):
  model = network(**ASPP)
  arrays = saved(model)
  assert not load(arrays, model).new
  del arrays["fc8_voc12_3.bias"]
  with pytest.raises(errors.InputError, match=r"missing \(1\): fc8_voc12_3.bi"):
    load(arrays, model)


def test_layers_too_small_to_take_a_part_of_are_refused(short):
  model = network()
  for name, shape in (
    ("fc6.weight", (4, 4, 3, 3)),  # fewer channels than the network
    ("fc6.weight", (16, 4, 2, 2)),  # fewer taps
    ("fc6.weight", (16, 4 * 50)),  # no square window
    ("fc7.weight", (4, 16)),
    ("fc7.weight", (16, 4)),
    ("fc6.bias", (4,)),
  ):
    arrays = imagenet() | {name: np.zeros(shape, np.float32)}
    said = f"{name} has shape .{shape[0]},"
    with pytest.raises(errors.InputError, match=said):
      load(arrays, model)


def numbered(model):
  """Variables with numbers of their own in each array."""
  rng = np.random.default_rng(0)
  return flax.traverse_util.unflatten_dict(
    {
      path: rng.uniform(0.5, 1.5, shape).astype(np.float32)
      for path, shape in variables.shapes(model).items()
    }
  )


def saved(model):
  table = tables.table("caffe", model=model)
  arrays, nameless = rules.save(numbered(model), table)
  assert not nameless
  return arrays


@pytest.mark.parametrize(
  ("settings", "name"),
  [
    ({}, "fc8_voc12.bias"),
    ({"fc6_kernel": 7}, "fc6.weight"),
    (ASPP, "fc8_voc12_4.bias"),
    (RESNET, "aspp.c3.bias"),
    (RESNET | SCALES, "base.aspp.c3.bias"),
  ],
)
def test_names_written_are_read_back_bit_equal(short, settings, name):
  model = network(**settings)
  arrays = saved(model)
  assert name in arrays
  found = pretrained.convert_arrays(arrays, "caffe", model=model)
  jax.tree.map(np.testing.assert_array_equal, found, {
    "batch_stats": {}, **numbered(model)
  })  # fmt: skip


# Of a ResNet in Caffe: a layer, and the place that the port gives it.
LAYERS = {
  "conv1": "layer1.conv1.conv",
  "res2a_branch1": "layer2.block1.shortcut.conv",
  "res3d_branch2c": "layer3.block4.increase.conv",
  "res4a_branch2b": "layer4.block1.conv3x3.conv",
  "bn_conv1": "layer1.conv1.bn",
  "bn5c_branch2a": "layer5.block3.reduce.bn",
  "fc1_voc12_c2": "aspp.c2",
}


def test_a_resnet_of_caffe_is_the_ports_by_other_names(short):
  model = network(**RESNET)
  table = tables.table("caffe", model=model)
  *_, caffe = table.of_each_form()
  arrays, nameless = rules.save(numbered(model), caffe)
  port = saved(model)
  assert not nameless and len(arrays) == len(port)
  for layer, place in LAYERS.items():
    np.testing.assert_array_equal(
      arrays[f"{layer}.weight"], port[f"{place}.weight"]
    )
  blobs, factor = {}, np.array([4.0], np.float32)
  for name, array in arrays.items():
    layer, _, leaf = name.rpartition(".")
    if leaf.startswith("running"):
      place = 0 if leaf == "running_mean" else 1
      blobs |= {f"{layer}/{place}": array * factor, f"{layer}/2": factor}
      continue
    if layer.startswith("bn"):
      layer = layer.replace("bn", "scale", 1)
    blobs[f"{layer}/{0 if leaf == 'weight' else 1}"] = array
  assert "scale_conv1/1" in blobs and "scale2a_branch1/0" in blobs
  # It has every layer once more for the smaller scales.
  again = {
    name.replace("/", f"_{scale}/"): array
    for name, array in blobs.items()
    for scale in ("res075", "res05")
  }
  found = pretrained.convert_arrays(blobs | again, "caffe", model=model)
  jax.tree.map(np.testing.assert_array_equal, found, numbered(model))


def test_units_of_a_long_block_are_numbered_in_caffe():
  def names_of(backbone):
    model = network(**RESNET | {"backbone": backbone})
    *_, caffe = tables.table("caffe", model=model).of_each_form()
    return {layer.path: layer.name for layer in caffe.layers}

  names = names_of("resnet50")
  assert names["backbone/block3_unit6/conv2"] == "res4f_branch2b"
  names = names_of("resnet101")
  assert names["backbone/block3_unit1/conv1"] == "res4a_branch2a"
  assert names["backbone/block3_unit23/conv3"] == "res4b22_branch2c"
  assert names["backbone/block2_unit4/conv1"] == "res3b3_branch2a"
  assert names["backbone/block4_unit3/conv1"] == "res5c_branch2a"


@pytest.mark.parametrize(
  ("source", "conventions", "arrays", "message"),
  [
    ("caffe", "caffe", "torchvision", "--source=torchvision --config.model.co"),
    ("torchvision", "caffe", "torchvision", "model.conventions to 'torchvis"),
    ("caffe", "torchvision", "caffe", "model.conventions to 'caffe'"),
  ],
)
def test_weights_of_images_in_another_range_are_refused(
  short, source, conventions, arrays, message
):
  with pytest.raises(errors.InputError, match=message):
    load(imagenet(of=arrays), network(conventions), source=source)
