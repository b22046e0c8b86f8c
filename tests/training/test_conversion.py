"""Weights into a workdir and out again, of a small network."""

import contextlib
import functools
import io
import json
import shutil

import jax
import numpy as np
import pytest

from configs import published
from configs import quickstart
from configs import v1_vgg16_largefov
from configs import v2_vgg16
from deeplax import convert
from deeplax import errors
from deeplax.data import spec as spec_lib
from deeplax.models import build
from deeplax.models import variables as variables_lib
from deeplax.models.backbones import vgg
from deeplax.pretrained import files
from deeplax.pretrained import rules
from deeplax.pretrained.names import tf_deeplab
from deeplax.training import conversion
from deeplax.training import convertible
from deeplax.workdir import checkpoint
from deeplax.workdir import settings as settings_lib
from tests.models import networks

SHAPES = spec_lib.SHAPES.class_names
VOC = spec_lib.VOC2012.class_names


@pytest.fixture(scope="module", autouse=True)
def _short():
  with networks.shorten():
    yield


def config(**changes):
  """Return that of a small run (tests/runs.py), with these keys."""
  c = quickstart.get_config("debug")
  for key, value in networks.SMALL.items():
    changes[f"model.{key.replace('__', '.')}"] = value
  c.update_from_flattened_dict(changes)
  return c.lock()


@functools.cache
def network(num_classes=8):
  """Return a network of that configuration and its variables, all numbers."""
  model = build.from_config(config().model, num_classes=num_classes)
  rng = np.random.default_rng(7)
  return model, jax.tree.map(
    lambda x: rng.uniform(0.5, 1.5, x.shape).astype(np.float32),
    variables_lib.initial_variables(model, seed=0),
  )


def arrays(**settings):
  model, variables = network(**settings)
  return rules.save(variables, tf_deeplab.table(model))[0]


def folded():
  """The names and layouts of a frozen graph: kernels and biases."""
  found = {}
  for name, value in arrays().items():
    layer, leaf = name.rsplit("/", 1)
    if leaf in ("weights", "biases"):
      there = {"weights": "kernel", "biases": "bias"}[leaf]
      found[f"{layer}/{there}"] = value
    elif leaf == "depthwise_weights":
      found[f"{layer}/kernel"] = value.transpose(0, 1, 3, 2)
    elif leaf == "beta":
      found[f"{layer.removesuffix('/BatchNorm')}/bias"] = value
  return found


def convert_into(folder, arrays, *flags, config=config, source="tf_deeplab"):
  """Convert arrays by way of a file; return the workdir."""
  folder.mkdir(parents=True, exist_ok=True)
  files.write(str(folder / "w.npz"), arrays)
  return convert_file(folder / "w.npz", *flags, config=config, source=source)


def convert_file(path, *flags, config=config, source="tf_deeplab"):
  """Convert a file; return the workdir, which is beside it."""
  workdir = path.parent / "out"
  args = convert.parser().parse_args(
    [
      f"--source={source}",
      f"--checkpoint={path}",
      f"--workdir={workdir}",
      "--config=configs/quickstart.py:debug",
      *flags,
    ]
  )
  made = config()
  conversion.run(made, args, convertible.found(made, args))
  return workdir


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
  """A workdir with the whole network, and what was said."""
  said = io.StringIO()
  with contextlib.redirect_stdout(said):
    workdir = convert_into(tmp_path_factory.mktemp("converted"), arrays())
  return workdir, said.getvalue()


def assert_equal(one, other):
  jax.tree.map(np.testing.assert_array_equal, dict(one), dict(other))


def test_the_workdir_is_that_of_a_run_at_step_0(converted):
  workdir, said = converted
  variables, step = checkpoint.restore_variables(workdir)
  assert step == 0
  assert_equal(variables, network()[1])
  assert settings_lib.load_config(workdir).to_json() == config().to_json()
  spec = json.loads((workdir / "spec.json").read_text())
  assert spec["class_names"] == list(SHAPES)
  record = json.loads((workdir / "converted.json").read_text())
  assert record["source"] == "tf_deeplab"
  assert record["new"] == record["left_out"] == record["folded"] == []
  assert list(record["sha256"]) == ["w.npz"]
  assert {"env.json", "parameters.txt"} <= {p.name for p in workdir.iterdir()}
  count = len(jax.tree.leaves(variables))
  assert f"loaded      {count} arrays: backbone" in said
  assert "left out    0 arrays" in said and "new         0 arrays" in said
  assert f"deeplax.predict --workdir={workdir}" in said


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_what_is_written_out_is_bit_equal_to_what_came_in(
  converted, tmp_path, suffix
):
  workdir, _ = converted
  out = tmp_path / f"written{suffix}"
  args = convert.parser().parse_args(
    ["--to=tf_deeplab", f"--workdir={workdir}", f"--out={out}"]
  )
  conversion.run(None, args, convertible.found(None, args))
  assert_equal(files.read(str(out)), arrays())


def test_a_wrappers_prefix_is_taken_off_and_told(tmp_path, capsys):
  given = {f"module._orig_mod.{k}": v for k, v in arrays().items()}
  given["criterion.weight"] = np.ones(8, np.float32)
  workdir = convert_into(tmp_path, given)
  assert_equal(checkpoint.restore_variables(workdir)[0], network()[1])
  said = capsys.readouterr().out
  assert "prefix      module._orig_mod. was taken off the names" in said
  assert "left out    1 arrays: criterion.weight" in said
  record = json.loads((workdir / "converted.json").read_text())
  assert record["prefix"] == "module._orig_mod."
  assert record["left_out"] == ["criterion.weight"]


def test_of_lightnings_checkpoint_the_network_named_is_read(tmp_path, capsys):
  torch = pytest.importorskip("torch")
  path = tmp_path / "last.ckpt"
  tensors = {k: torch.from_numpy(v) for k, v in arrays().items()}
  value = {
    "epoch": 3,
    "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}}],
    "state_dict": {f"model.{k}": v for k, v in tensors.items()},
    "ema": {f"module.{k}": v + 1 for k, v in tensors.items()},
  }
  torch.save(value, path)
  with pytest.raises(errors.InputError, match="more than once") as raised:
    convert_file(path)
  assert not (tmp_path / "out").exists()
  said = str(raised.value)
  for flag, added in (
    ("--under=state_dict.model", 0),
    ("--under=ema.module", 1),
  ):
    assert flag in said.split()
    workdir = convert_file(path, flag)
    assert "was taken off the names" in capsys.readouterr().out
    expected = jax.tree.map(lambda x, n=added: x + n, network()[1])
    assert_equal(checkpoint.restore_variables(workdir)[0], expected)
    shutil.rmtree(workdir)
  # A name above both prefixes does as well.
  convert_file(path, "--under=ema")
  assert "prefix      ema.module. was taken off" in capsys.readouterr().out


def test_a_file_that_cannot_be_read_is_told_at_once_and_as_that(
  tmp_path, monkeypatch
):
  def slow(*_, **__):
    raise AssertionError("drew a network before it looked")

  monkeypatch.setattr(variables_lib, "initial_variables", slow)
  for source in ("tf_deeplab", "deeplax"):
    with pytest.raises(errors.InputError) as raised:
      convert_file(tmp_path / "w.npz", source=source)
    assert "does not fill" not in str(raised.value)
    assert f"{tmp_path}/w.npz" in str(raised.value)


def test_a_backbone_alone_leaves_the_rest_as_a_fresh_start(tmp_path, capsys):
  backbone = {k: v for k, v in arrays().items() if k.startswith("Mobile")}
  backbone["MobilenetV2/Conv_1/weights"] = np.ones((1, 1, 4, 9), np.float32)
  workdir = convert_into(tmp_path, backbone)
  variables, _ = checkpoint.restore_variables(workdir)
  model, loaded = network()
  drawn = variables_lib.initial_variables(model, seed=config().seed)
  for collection in ("params", "batch_stats"):
    for part, found in variables[collection].items():
      source = loaded if part == "backbone" else drawn
      assert_equal(found, source[collection][part])
  said = capsys.readouterr().out
  assert "left out    1 arrays: MobilenetV2/Conv_1/weights" in said
  assert "Drawn at random: decoder, head, logits. It predicts noise" in said


def test_logits_of_other_classes_are_new_or_carried_over_by_name(
  tmp_path, capsys
):
  other = arrays(num_classes=3)
  workdir = convert_into(tmp_path / "new", other)
  variables, _ = checkpoint.restore_variables(workdir)
  assert variables["params"]["logits"]["bias"].tolist() == [0] * len(SHAPES)
  assert "left out    2 arrays: logits/semantic" in capsys.readouterr().out

  classes = tmp_path / "classes.json"
  classes.write_text(json.dumps({"names": ["sky", "Ring", "background"]}))
  workdir = convert_into(
    tmp_path / "by_name", other, f"--source_classes={classes}"
  )
  variables, _ = checkpoint.restore_variables(workdir)
  bias = other["logits/semantic/biases"]
  expected = [bias[2], 0, bias[1], *[0] * (len(SHAPES) - 3)]
  np.testing.assert_allclose(variables["params"]["logits"]["bias"], expected)
  said = capsys.readouterr().out
  assert "classes     2 by name: background, ring" in said
  assert "new classes 6: disc, small box" in said
  record = json.loads((workdir / "converted.json").read_text())
  assert record["classes_by_name"] == ["background", "ring"]


def test_the_message_of_other_classes_carries_them_over(tmp_path, capsys):
  other = arrays(num_classes=3)
  convert_into(tmp_path / "new", other)
  said = capsys.readouterr().out
  assert "The file has scores of 3 classes. To carry over" in said
  (flag,) = (w for w in said.split() if w.startswith("--source_classes="))
  names = tmp_path / "NAMES.json"
  names.write_text('["sky", "Ring", "background"]')
  flag = flag.replace("NAMES.json", str(names))
  convert_into(tmp_path / "by_name", other, flag)
  said = capsys.readouterr().out
  assert "classes     2 by name" in said and "The file has scores" not in said
  # Nor is it said to who wants them new.
  convert_into(tmp_path / "asked", other, "--new=logits")
  assert "The file has scores" not in capsys.readouterr().out


def test_published_networks_of_ade20k_keep_their_logits(tmp_path, capsys):
  name = "mobilenetv2_ade20k_train"

  def ade():
    c = published.get_config(name)
    c.model.update({"depth_multiplier": 0.1, "channels": 8})
    c.model.decoder.channels = 8
    return c.lock()

  model = build.from_config(ade().model, num_classes=151)
  variables = variables_lib.initial_variables(model, seed=1)
  given, _ = rules.save(variables, tf_deeplab.table(model))
  # As the documented command does, without --source_classes.
  flag = f"--config=configs/published.py:{name}"
  workdir = convert_into(tmp_path, given, flag, config=ade)
  found, _ = checkpoint.restore_variables(workdir)
  kernel = given["logits/semantic/weights"]
  assert kernel.shape[-1] == 151 and kernel.std() > 0
  np.testing.assert_array_equal(
    found["params"]["logits"]["kernel"], kernel[..., 1:]
  )
  said = capsys.readouterr().out
  assert "classes     150 by name" in said
  assert "Reported: 32.04 mIoU (val, output stride 16, scales 1.0)" in said
  # Written out and read again there are as many as the data has.
  given, _ = rules.save(found, tf_deeplab.table(model))
  shutil.rmtree(workdir)
  again = convert_into(tmp_path, given, flag, config=ade)
  assert_equal(checkpoint.restore_variables(again)[0], found)
  # And who asks for new ones gets them.
  shutil.rmtree(workdir)
  capsys.readouterr()
  convert_into(tmp_path, given, flag, "--new=logits", config=ade)
  said = capsys.readouterr().out
  assert "Drawn at random: logits" in said and "classes  " not in said


def test_own_classes_come_from_their_folder(tmp_path):
  (tmp_path / "classes.json").write_text('{"names": ["no", "Sky"]}')

  own = functools.partial(config, **{"data.name": "folder"})
  flag = f"--classes={tmp_path / 'classes.json'}"
  workdir = convert_into(tmp_path, arrays(num_classes=2), flag, config=own)
  spec = json.loads((workdir / "spec.json").read_text())
  assert spec["class_names"] == ["no", "Sky"]
  with pytest.raises(errors.InputError, match="--classes.*shapes"):
    convert_into(tmp_path / "made_up", arrays(), flag)


def test_the_reference_counts_what_has_no_label_as_a_class_of_ade20k():
  names = convertible.source_classes("ade20k", "tf_deeplab")
  assert names is not None and len(names) == 151 and names[1] == "wall"
  assert convertible.source_classes("voc2012", "tf_deeplab") == VOC


def test_statistics_are_for_folded_norms_only(tmp_path):
  with pytest.raises(errors.InputError, match="--statistics=4.* 0 are"):
    convert_into(tmp_path, arrays(), "--statistics=4")
  assert not (tmp_path / "out").exists()


@pytest.mark.slow  # two traces of a whole network
def test_the_auxiliary_head_of_training_is_new_and_stays_behind(tmp_path):
  second = functools.partial(config, **{"train.auxiliary_weight": 0.4})
  workdir = convert_into(tmp_path, arrays(), config=second)
  variables, _ = checkpoint.restore_variables(workdir)
  assert "auxiliary" in variables["params"]
  out = tmp_path / "written.npz"
  args = convert.parser().parse_args(
    ["--to=tf_deeplab", f"--workdir={workdir}", f"--out={out}"]
  )
  conversion.run(None, args, convertible.found(None, args))
  assert_equal(files.read(str(out)), arrays())


@pytest.mark.slow  # 15 s: two conversions, one compilation
def test_measured_statistics_change_no_prediction(tmp_path, capsys):
  plain = convert_into(tmp_path / "plain", folded())
  assert "no running statistics" in capsys.readouterr().out
  measured = convert_into(tmp_path / "more", folded(), "--statistics=4")
  assert "measuring" in capsys.readouterr().out
  model, _ = network()
  image = np.random.default_rng(0).integers(0, 256, (1, 33, 33, 3), np.uint8)
  apply = jax.jit(lambda v: model.apply(v, image, train=False))
  variables = [
    checkpoint.restore_variables(workdir)[0] for workdir in (plain, measured)
  ]
  one, other = map(apply, variables)
  np.testing.assert_allclose(
    one, other, atol=1e-4 * np.abs(np.asarray(one)).max()
  )
  stem = [v["batch_stats"]["backbone"]["conv"]["var"] for v in variables]
  assert (stem[0] == 1).all() and not (stem[1] == 1).any()


def test_a_network_that_does_not_fit_is_refused_before_anything_is_written(
  tmp_path,
):
  wrong = arrays()
  wrong["MobilenetV2/Conv/weights"] = np.ones((3, 3, 3, 5), np.float32)
  wrong["MobilenetV2/extra"] = wrong.pop("concat_projection/weights")
  with pytest.raises(errors.InputError) as raised:
    convert_into(tmp_path, wrong)
  for text in ("w.npz", "Conv/weights has shape (3, 3, 3, 5)", "extra"):
    assert text in str(raised.value)
  assert "missing (1): concat_projection/weights" in str(raised.value)
  assert not (tmp_path / "out").exists()


def test_a_workdir_that_holds_a_run_is_refused(converted):
  with pytest.raises(errors.InputError, match="holds a run at step 0"):
    convert_into(converted[0].parent, arrays())


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("mars", "'ade20k'.*or a JSON file"),
    ("{names}", "is not JSON"),
    ('{"names": 3}', "has to hold a list"),
  ],
)
def test_a_list_of_classes_that_cannot_be_read_is_refused(
  tmp_path, text, message
):
  path = tmp_path / "list.json"
  path.write_text(text)
  value = text if text == "mars" else path
  with pytest.raises(errors.InputError, match=message):
    convert_into(tmp_path, arrays(), f"--source_classes={value}")


def imagenet_vgg(width, wide):
  """VGG-16 as Caffe's file of ImageNet has it: numbers that count up."""
  shapes, inputs = {}, 3
  for name in vgg_names():
    outputs = width(name)
    shapes |= {f"{name}.weight": (outputs, inputs, 3, 3)}
    shapes |= {f"{name}.bias": (outputs,)}
    inputs = outputs
  for name, size in (
    ("fc6", (wide, inputs * 49)), ("fc7", (wide, wide)), ("fc8", (1000, wide))
  ):  # fmt: skip
    shapes |= {f"{name}.weight": size, f"{name}.bias": size[:1]}
  return {
    name: np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    for name, shape in shapes.items()
  }


def vgg_names():
  return [s.name for s in vgg.dilated_layers(32) if s.name.startswith("conv")]


def check_v1(workdir, arrays, *, channels):
  """What v1 starts from is the file, thinned out by the stated rule."""
  params = checkpoint.restore_variables(workdir)[0]["params"]
  for name in vgg_names()[1:]:
    np.testing.assert_array_equal(
      params["backbone"][name]["kernel"],
      arrays[f"{name}.weight"].transpose(2, 3, 1, 0),
    )
  fc6 = arrays["fc6.weight"]
  every = len(fc6) // channels
  window = fc6[::every].reshape(channels, -1, 7, 7)[:, :, ::3, ::3]
  np.testing.assert_array_equal(
    params["head"]["fc6"]["kernel"], window.transpose(2, 3, 1, 0)
  )
  np.testing.assert_array_equal(
    params["head"]["fc7"]["kernel"][0, 0],
    arrays["fc7.weight"][::every, ::every].T,
  )
  assert not params["logits"]["bias"].any()


def test_v1_starts_from_an_imagenet_file_but_for_its_scores(tmp_path, capsys):
  arrays = imagenet_vgg(lambda name: 4, 64)

  def v1():
    return v1_vgg16_largefov.get_config("debug").lock()

  workdir = convert_into(tmp_path, arrays, config=v1, source="caffe")
  check_v1(workdir, arrays, channels=32)
  said = capsys.readouterr().out
  assert "left out    2 arrays: fc8.weight, fc8.bias" in said
  assert "new         2 arrays: logits 2" in said
  assert "fc6.weight (64, 196, 1, 1) to (32, 4, 3, 3)" in said
  assert "Drawn at random: logits. It predicts noise" in said
  assert f"--config.init.checkpoint={workdir}" in said
  record = json.loads((workdir / "converted.json").read_text())
  assert len(record["subsampled"]) == 4

  def v2():
    return v2_vgg16.get_config("debug").lock()

  convert_into(tmp_path / "v2", arrays, config=v2, source="caffe")
  said = capsys.readouterr().out
  assert "Drawn at random: head/logits0, head/logits1" in said


def test_torchvisions_names_are_not_taken_for_caffes(tmp_path):
  def v1():
    return v1_vgg16_largefov.get_config("debug").lock()

  arrays = {"features.0.weight": np.ones((4, 3, 3, 3), np.float32)}
  with pytest.raises(errors.InputError, match="--source=torchvision") as raised:
    convert_into(tmp_path, arrays, config=v1, source="caffe")
  assert "w.npz (caffe names)" in str(raised.value)
  assert not (tmp_path / "out").exists()
