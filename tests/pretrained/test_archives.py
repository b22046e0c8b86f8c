"""Zip archives that claim what they do not hold."""

import io
import zipfile

import numpy as np
import psutil
import pytest

from deeplax import errors
from deeplax.pretrained import archives
from deeplax.pretrained import files


def member(array, shape=None, version=None):
  """The bytes of a .npy whose header claims `shape`."""
  data = io.BytesIO()
  header = np.lib.format.header_data_from_array_1_0(array)
  header["shape"] = array.shape if shape is None else shape
  if version == (2, 0):
    np.lib.format.write_array_header_2_0(data, header)
  else:
    np.lib.format.write_array_header_1_0(data, header)
  return data.getvalue() + array.tobytes()


def npz(path, **members):
  with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
    for name, data in members.items():
      file.writestr(f"{name}.npy", data)
  return str(path)


def refusal(path):
  with pytest.raises(errors.InputError) as raised:
    files.read(path)
  assert "w.npz is not a complete .npz" in str(raised.value)
  return str(raised.value)


FOUR = np.arange(4, dtype=np.float32)


def test_an_array_is_as_large_as_its_header_says(tmp_path):
  path = tmp_path / "w.npz"
  for version in (None, (2, 0)):
    data = member(FOUR.reshape(2, 2), version=version)
    found = files.read(npz(path, a=data))["a"]
    np.testing.assert_array_equal(found, FOUR.reshape(2, 2))
  for shape in ((2**40,), (2**62, 2**62), (3,), (5,), (-4,)):
    said = refusal(npz(path, a=member(FOUR, shape)))
    assert "'a.npy' claims" in said and "has 16" in said, shape


def test_objects_are_not_unpickled(tmp_path):
  np.savez(tmp_path / "w.npz", a=np.array([print], dtype=object))
  assert "allow_pickle" in refusal(str(tmp_path / "w.npz"))


def test_other_things_in_an_npz_are_named(tmp_path):
  path = tmp_path / "w.npz"
  with zipfile.ZipFile(path, "w") as file:
    file.writestr("a.npy", member(FOUR))
    file.writestr("../b.txt", "b")
  assert "'../b.txt' in it is no array" in refusal(str(path))
  with zipfile.ZipFile(path, "w") as file, pytest.warns(UserWarning):
    file.writestr("a.npy", member(FOUR))
    file.writestr("a.npy", member(FOUR + 1))
  assert "holds 'a.npy' twice" in refusal(str(path))
  assert "is of version (3, 0)" in refusal(
    npz(path, a=b"\x93NUMPY\x03\x00" + member(FOUR)[8:])
  )


def test_an_archive_that_unpacks_to_more_than_the_memory_is_refused(
  tmp_path, monkeypatch
):
  # A thousand times its own size; no memory is taken to learn that.
  path = npz(tmp_path / "w.npz", a=member(np.zeros(2**18, np.float32)))
  size = archives.unpacked_size(tmp_path / "w.npz")
  assert size > 2**20 > 500 * (tmp_path / "w.npz").stat().st_size

  class Memory:
    available = size - 1

  monkeypatch.setattr(psutil, "virtual_memory", Memory)
  assert f"unpacks to {size:,} bytes, and {size - 1:,} are free" in (
    refusal(path)
  )
  Memory.available = size
  assert files.read(path)["a"].shape == (2**18,)
