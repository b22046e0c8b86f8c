"""PyTorch's files: wrappers looked into, and nothing in them run."""

import argparse
import pathlib
import pickle
import shlex
import zipfile

import numpy as np
import pytest

from deeplax import errors
from deeplax.pretrained import files
from deeplax.pretrained import torch_files

torch = pytest.importorskip("torch")


def state():
  return {
    "conv.weight": torch.arange(4.0).reshape(2, 2),
    "half": torch.ones(3, dtype=torch.bfloat16),
  }


def saved(path, value, *, legacy=False):
  torch.save(value, path, _use_new_zipfile_serialization=not legacy)
  return str(path)


def check_state(found):
  assert found.keys() == {"conv.weight", "half"}
  np.testing.assert_array_equal(found["conv.weight"], [[0, 1], [2, 3]])
  np.testing.assert_array_equal(found["half"], np.ones(3, np.float32))


@pytest.mark.parametrize(
  "wrappers",
  [
    *((), ("state_dict",), ("model",), ("model_state",)),
    *(("model_state_dict",), ("ema",), ("a", "b"), ("net", "module")),
  ],
)
def test_a_file_is_unwrapped(tmp_path, wrappers):
  value = state()
  for key in wrappers:
    value = {"epoch": 3, key: value, "names": ["x"]}
  check_state(files.read(saved(tmp_path / "w.pth", value)))


def test_an_optimizers_tensors_are_not_the_networks(tmp_path):
  optimizer = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{}]}
  value = {"model": state(), "optimizer": optimizer, "epoch": 3}
  check_state(files.read(saved(tmp_path / "w.pth", value)))


def test_of_several_networks_each_keeps_its_key(tmp_path):
  value = {"model": state(), "ema": {"module": state()}, "steps": torch.ones(1)}
  found = files.read(saved(tmp_path / "w.pth", value))
  assert [*found] == [
    *("steps", "model.conv.weight", "model.half"),
    *("ema.module.conv.weight", "ema.module.half"),
  ]


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
  "name", ["last.ckpt", "pytorch_model.bin", "b.pth.tar"]
)
def test_a_file_of_torch_is_known_by_what_it_holds(tmp_path, name, legacy):
  # Lightning's .ckpt was taken for TensorFlow's.
  check_state(files.read(saved(tmp_path / name, state(), legacy=legacy)))


def test_another_file_of_that_name_is_none_of_torch(tmp_path):
  path = tmp_path / "model.ckpt"
  for data in (b"", b"PK\x03\x04 cut", b"\x80\x02}."):
    path.write_bytes(data)
    assert not torch_files.is_torch_file(path)
    with pytest.raises(errors.InputError, match="model.ckpt is not a Tensor"):
      files.read(str(path))


def refusal(path):
  with pytest.raises(errors.InputError) as raised:
    files.read(path)
  assert len(str(raised.value)) < 1000
  return str(raised.value)


class Network(torch.nn.Module):
  def __init__(self):
    super().__init__()
    self.conv = torch.nn.Linear(2, 2, bias=False)
    self.conv.weight.data = torch.arange(4.0).reshape(2, 2)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
  ("kind", "unknown"),
  [
    ("lightning", "argparse.Namespace"),
    ("whole network", "tests.pretrained.test_torch_files.Network"),
    ("yolo", "tests.pretrained.test_torch_files.Network"),
    ("path among the weights", "pathlib.PosixPath"),
  ],
)
def test_what_torch_would_run_code_for_is_named_and_the_command_helps(
  tmp_path, kind, unknown, legacy
):
  value = {
    "lightning": {
      "epoch": 3,
      "state_dict": state(),
      "hyper_parameters": argparse.Namespace(rate=0.1),
    },
    "whole network": Network(),
    "yolo": {"epoch": 3, "model": Network()},
    "path among the weights": state() | {"from": pathlib.Path("x")},
  }[kind]
  path = saved(tmp_path / "it's 1.ckpt", value, legacy=legacy)
  said = refusal(path)
  assert f"beside tensors it holds {unknown}, and" in said
  python, flag, code = shlex.split(said.splitlines()[-1])  # as a shell does
  assert (python, flag) == ("python", "-c")
  assert f"give {path}.weights.pth instead" in said
  exec(code, {})
  found = files.read(f"{path}.weights.pth")
  np.testing.assert_array_equal(found["conv.weight"], [[0, 1], [2, 3]])


class Harmful:
  def __reduce__(self):
    return pathlib.Path.touch, (pathlib.Path("harm"),)


def test_code_in_a_file_is_not_run(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  saved("w.pth", {"state_dict": Harmful()})
  saved("w.ckpt", {"state_dict": Harmful()}, legacy=True)
  pathlib.Path("v.pth").write_bytes(pickle.dumps(Harmful(), protocol=2))
  for name in ("w.pth", "w.ckpt", "v.pth"):
    assert "with weights only" in refusal(name)
  assert not pathlib.Path("harm").exists()


@pytest.mark.parametrize("legacy", [False, True])
def test_a_long_name_in_a_damaged_pickle_is_refused_at_once(tmp_path, legacy):
  # torch searched its own message for minutes.
  path = tmp_path / "w.pth"
  saved(path, state() | {"x": pathlib.PurePosixPath("a")}, legacy=legacy)
  data = path.read_bytes()
  place = data.index(b"PurePosixPath\n")
  if legacy:
    path.write_bytes(data[:place] + b"[" * 200_000 + data[place:])
  else:
    with zipfile.ZipFile(path) as file:
      parts = {m.filename: file.read(m) for m in file.infolist()}
    name = next(name for name in parts if name.endswith("data.pkl"))
    pickled = parts[name]
    place = pickled.index(b"PurePosixPath\n")
    parts[name] = pickled[:place] + b"[" * 200_000 + pickled[place:]
    with zipfile.ZipFile(path, "w") as file:
      for name, part in parts.items():
        file.writestr(name, part)
  assert "names a global of 200,021 letters" in refusal(str(path))


def test_dictionaries_that_hold_each_other_are_looked_into_once(tmp_path):
  value = state()
  for _ in range(7):  # 40 to the seventh ways lead there
    value = {f"key{i}": value for i in range(40)}
  check_state(files.read(saved(tmp_path / "w.pth", value)))


def test_a_file_of_something_else_is_refused(tmp_path):
  for value in ([1, 2], {}, {"a": 1}, {3: torch.ones(1)}, torch.ones(2)):
    said = refusal(saved(tmp_path / "w.pth", value))
    assert "w.pth holds no tensors by name" in said


def test_tensors_that_numpy_cannot_have_are_named_and_the_line_helps(tmp_path):
  path = tmp_path / "w.pth"
  for value in (
    torch.eye(3).to_sparse(),
    torch.zeros(1).expand(2**40),  # of four bytes
    torch.zeros(3, 1).expand(3, 4),
  ):
    said = refusal(saved(path, {"a": value}))
    assert "w.pth holds no plain tensors" in said
    if value.numel() < 100:
      line = said.rpartition("In torch: ")[2]
      model = argparse.Namespace(state_dict=lambda v=value: {"a": v})
      exec(line, {"torch": torch, "model": model, "FILE": path})
      np.testing.assert_array_equal(
        files.read(str(path))["a"], value.to_dense()
      )


def test_a_wrong_bit_is_seen_and_files_without_checksums_can_be_mended(
  tmp_path,
):
  # torch reads another number there without a word.
  path = tmp_path / "w.pth"
  value = torch.arange(1000.0)
  saved(path, {"a": value})
  data = bytearray(path.read_bytes())
  data[data.find(value.numpy().tobytes()) + 2001] ^= 64
  path.write_bytes(data)
  assert (torch.load(path, weights_only=True)["a"] != value).sum() == 1
  assert "w.pth is damaged: w/data/0 in it does not have" in refusal(str(path))

  torch.serialization.set_crc32_options(False)
  try:
    saved(path, {"a": value})
  finally:
    torch.serialization.set_crc32_options(True)
  python, flag, code = shlex.split(
    refusal(str(path)).rpartition("write it anew: ")[2]
  )
  assert (python, flag) == ("python", "-c")
  exec(code, {})
  np.testing.assert_array_equal(files.read(str(path))["a"], value)


def test_arrays_that_share_their_memory_are_read(tmp_path):
  shared = torch.arange(6.0)
  value = {"a": shared, "b": shared.reshape(2, 3).T, "c": shared[2:]}
  found = files.read(saved(tmp_path / "w.pth", value))
  np.testing.assert_array_equal(found["b"], np.arange(6.0).reshape(2, 3).T)
  np.testing.assert_array_equal(found["c"], np.arange(2.0, 6.0))


def test_an_archive_of_torch_is_not_unpacked_beyond_the_memory(
  tmp_path, monkeypatch
):
  path = saved(tmp_path / "w.pth", state())

  class Memory:
    available = 100

  monkeypatch.setattr(torch_files.archives.psutil, "virtual_memory", Memory)
  assert "100 are free" in refusal(path)
