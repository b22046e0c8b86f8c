"""Files of arrays: every kind reads back, and what cannot be read says why."""

import importlib
import json
import struct

import jax.numpy as jnp
import numpy as np
import pytest

from deeplax import errors
from deeplax.pretrained import files


def arrays():
  rng = np.random.default_rng(0)
  return {
    "a/weights": rng.normal(size=(3, 3, 2, 4)).astype(np.float32),
    "file": rng.normal(size=(5,)).astype(np.float64),
    "a/count": np.array(7, np.int64),
    "empty": np.zeros((0, 3), np.float32),
  }


@pytest.mark.parametrize(
  ("name", "package"),
  [
    ("w.npz", None),
    ("w.safetensors", None),
    ("w.pth", "torch"),
    ("w.pt", "torch"),
    pytest.param("deeper/model.ckpt", "tensorflow", marks=pytest.mark.slow),
  ],
)
def test_what_is_written_reads_back_bit_equal(tmp_path, name, package):
  if package:
    pytest.importorskip(package)
  path = str(tmp_path / name)
  files.write(path, arrays())
  found = files.read(path)
  assert found.keys() == arrays().keys()
  for key, value in arrays().items():
    assert found[key].dtype == value.dtype
    np.testing.assert_array_equal(found[key], value)
  assert all(len(digest) == 64 for digest in files.sums(path).values())


def safetensors_bytes(header, data=b""):
  text = json.dumps(header).encode()
  return struct.pack("<Q", len(text)) + text + data


def test_a_safetensors_file_is_read_as_its_format_says(tmp_path):
  path = tmp_path / "w.safetensors"
  values = np.arange(6, dtype="<f4"), np.array([0x3F80, 0xC000], "<u2")
  header = {
    "__metadata__": {"format": "pt"},
    "x": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "half": {"dtype": "BF16", "shape": [2], "data_offsets": [24, 28]},
  }
  data = b"".join(v.tobytes() for v in values)
  path.write_bytes(safetensors_bytes(header, data))
  found = files.read(str(path))
  assert found.keys() == {"x", "half"}
  np.testing.assert_array_equal(found["x"], [[0, 1, 2], [3, 4, 5]])
  assert found["half"].dtype == jnp.bfloat16
  np.testing.assert_array_equal(found["half"].astype(np.float32), [1, -2])


def test_a_safetensors_file_takes_bfloat16_and_any_order_in_memory(tmp_path):
  path = str(tmp_path / "w.safetensors")
  half = jnp.arange(6, dtype=jnp.bfloat16).reshape(2, 3)
  files.write(path, {"x": np.asarray(half).T})
  found = files.read(path)["x"]
  assert found.dtype == jnp.bfloat16
  np.testing.assert_array_equal(found, np.asarray(half).T)


def test_a_safetensors_header_that_does_not_fit_is_refused(tmp_path):
  path = tmp_path / "w.safetensors"
  for entry in (
    {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
    {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
    {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 4]},
    {"dtype": "F32", "shape": [2**62, 0], "data_offsets": [0, 0]},
    {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]},
    {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]},
    {"dtype": "F32"},
    [1],
  ):
    path.write_bytes(safetensors_bytes({"x": entry}, bytes(4)))
    with pytest.raises(errors.InputError) as raised:
      files.read(str(path))
    assert "w.safetensors is not a complete" in str(raised.value), entry


def test_a_safetensors_file_starts_its_arrays_at_a_multiple_of_eight(tmp_path):
  path = tmp_path / "w.safetensors"
  files.write(str(path), {"abc": np.ones(3, np.float32)})
  data = path.read_bytes()
  start = 8 + struct.unpack("<Q", data[:8])[0]
  assert start % 8 == 0
  assert data[start:] == np.ones(3, np.float32).tobytes()


@pytest.mark.parametrize("name", ["w.npz", "w.safetensors"])
@pytest.mark.parametrize("damage", ["cut", "garbage", "empty"])
def test_a_damaged_file_is_named(tmp_path, name, damage):
  path = tmp_path / name
  files.write(str(path), arrays())
  data = path.read_bytes()
  path.write_bytes(
    {"cut": data[: len(data) // 2], "garbage": b"#" * 500, "empty": b""}[damage]
  )
  with pytest.raises(errors.InputError, match=f"{name} is not a complete"):
    files.read(str(path))


def test_another_kind_of_file_is_refused_with_the_way(tmp_path):
  for name, advice in (
    ("net.h5", "in Keras"),
    ("net.pkl", "run any code"),
    ("net.caffemodel", "in Caffe, np.savez"),
    ("net.tflite", "the checkpoint that it was made from"),
    ("frozen_inference_graph.pb", "the checkpoint that it was made from"),
    ("deeplabv3_2018_01_04.tar.gz", "unpack it"),
    ("weights", "is not a TensorFlow checkpoint"),
  ):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(errors.InputError) as raised:
      files.read(str(tmp_path / name))
    said = str(raised.value)
    assert advice in said and ".safetensors or .npz" in said, name


def test_the_line_of_a_refused_kind_writes_a_file_that_is_read(tmp_path):
  kernel, bias = np.ones((2, 2), np.float32), np.zeros(2, np.float32)

  class Weight:
    path = "conv/kernel"

    def numpy(self):
      return kernel

  class Keras:
    weights = (Weight(),)

  class Blob:
    def __init__(self, data):
      self.data = data

  class Caffe:
    params = {"conv1": [Blob(kernel), Blob(bias)]}

  for name, start, given in (
    ("net.h5", "in Keras, ", {"model": Keras}),
    ("net.caffemodel", "in Caffe, ", {"net": Caffe}),
    ("net.npz", "write it by ", {"arrays": {"a/b": kernel}}),
  ):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(errors.InputError) as raised:
      files.read(str(tmp_path / name))
    line = str(raised.value).rpartition(start)[2]
    line = line.removesuffix(")") if name != "net.npz" else line
    out = str(tmp_path / "w.npz")
    exec(line, {"np": np, "FILE": out, **given})
    assert all((a == kernel).all() for a in [*files.read(out).values()][:1])


def test_a_folder_or_a_wrong_path_names_what_is_there(tmp_path):
  files.write(str(tmp_path / "w.npz"), arrays())
  (tmp_path / "model.ckpt-30000.index").write_bytes(b"")
  for path in (tmp_path, tmp_path / "v.npz"):
    with pytest.raises(errors.InputError) as raised:
      files.read(str(path))
    assert f"{tmp_path}/model.ckpt-30000, {tmp_path}/w.npz" in str(raised.value)


@pytest.mark.parametrize(
  ("name", "package", "extra"),
  [
    ("w.pth", "torch", "torch"),
    ("model.ckpt-7", "tensorflow", "tf"),
    ("model.ckpt-7.index", "tensorflow", "tf"),
  ],
)
def test_a_missing_package_says_how_to_install_it(
  tmp_path, monkeypatch, name, package, extra
):
  (tmp_path / "w.pth").write_bytes(b"")
  (tmp_path / "model.ckpt-7.index").write_bytes(b"")

  def missing(module):
    raise ImportError(f"No module named {module!r}")

  monkeypatch.setattr(importlib, "import_module", missing)
  with pytest.raises(errors.InputError, match=f"needs {package}") as raised:
    files.read(str(tmp_path / name))
  assert f'pip install -e ".[{extra}]"' in str(raised.value)
