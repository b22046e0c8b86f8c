"""Changed files of weights are read or refused: by a message, and no more.

DEEPLAX_MUTATIONS=2000 tries so many of each kind of file (`make test`: 100).
"""

import functools
import io
import pathlib
import pickle
import zipfile

import numpy as np
import pytest

from deeplax import errors
from deeplax.pretrained import files
from deeplax.pretrained import rules
from deeplax.pretrained import summary
from tests import hostile
from tests.pretrained import toy

MEMORY = 2**22  # bytes; the file is 4,000, and messages and zlib take some


def read(path):
  """Read a file as convert does, into the network of `toy`."""
  arrays = files.read(path)
  try:
    found = rules.load(arrays, toy.TABLE, model=toy.Toy())
    if wrong := summary.differences(found):
      raise errors.InputError(wrong)
  except errors.InputError as error:
    raise errors.InputError(f"{path} does not fit.\n{error}") from error


@functools.cache
def valid(suffix, *, legacy=False):
  """The bytes of a file of the network of `toy`."""
  if suffix == ".pth":
    torch = pytest.importorskip("torch")
    data = io.BytesIO()
    state = {k: torch.from_numpy(v) for k, v in toy.arrays().items()}
    torch.save(
      {"epoch": 3, "state_dict": state}, data,
      _use_new_zipfile_serialization=not legacy,
    )  # fmt: skip
    return data.getvalue()
  path = pathlib.Path("w").with_suffix(suffix)
  files.write(str(path), toy.arrays())
  return path.read_bytes()


def members(archive):
  with zipfile.ZipFile(io.BytesIO(archive)) as file:
    return {m.filename: file.read(m) for m in file.infolist()}


def packed(parts):
  """An archive whose checksums fit, whatever its parts hold."""
  data = io.BytesIO()
  with zipfile.ZipFile(data, "w") as file:
    for name, part in parts.items():
      file.writestr(name, part)
  return data.getvalue()


def inside(archive, *, ends):
  """Archives with one member changed, the first whose name ends so."""
  parts = members(archive)
  name = next(name for name in parts if name.endswith(ends))
  for part in hostile.mutations(parts[name]):
    yield packed(parts | {name: part})


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
  ("name", "legacy"),
  [
    ("w.npz", False),
    ("w.safetensors", False),
    ("w.pth", False),
    ("old.pth", True),
    ("last.ckpt", False),
  ],
)
def test_a_changed_file_is_read_or_refused(tmp_path, name, legacy):
  suffix = ".pth" if name == "last.ckpt" else pathlib.Path(name).suffix
  data = valid(suffix, legacy=legacy)
  path = tmp_path / "in" / name
  assert hostile.check(read, path, [data]) == (1, 0)
  found = hostile.check(read, path, hostile.mutations(data), memory=MEMORY)
  assert found.refused > found.read / 4


@pytest.mark.parametrize(
  ("name", "ends"),
  [
    ("w.npz", "bn1.weight.npy"),
    pytest.param("w.npz", "fc.bias.npy", marks=pytest.mark.slow),
    ("w.pth", ".pkl"),
  ],
)
def test_a_changed_member_of_an_archive_is_read_or_refused(
  tmp_path, name, ends
):
  changed = inside(valid(pathlib.Path(name).suffix), ends=ends)
  found = hostile.check(read, tmp_path / "in" / name, changed, memory=MEMORY)
  assert found.refused > found.read / 4


class Harmful:
  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return pathlib.Path.touch, (self.path,)


def test_no_pickle_in_any_file_is_run(tmp_path):
  harm = tmp_path / "harm"
  code = pickle.dumps(Harmful(harm), protocol=2)
  objects = io.BytesIO()
  np.lib.format.write_array(
    objects, np.array([Harmful(harm)], dtype=object), allow_pickle=True
  )
  npz = members(valid(".npz"))
  cases = {
    "object.npz": packed(npz | {"a.npy": objects.getvalue()}),
    "pickle.npz": packed(npz | {"a.npy": code}),
    "bare.npz": code,
    "array.npz": objects.getvalue(),
    "bare.safetensors": code,
    "bare.pth": code,
    "bare.ckpt": code,
  }
  if pytest.importorskip("torch"):
    parts = members(valid(".pth"))
    (name,) = (name for name in parts if name.endswith("data.pkl"))
    cases["whole.pth"] = packed(parts | {name: code})
    cases["whole.bin"] = cases["whole.pth"]
    # Before a pickle that is sound, and behind it.
    for case, both in (("a", code + parts[name]), ("b", parts[name] + code)):
      cases[f"{case}.pth"] = packed(parts | {name: both})
  for case, data in cases.items():
    outcome = hostile.check(read, tmp_path / case / case, [data])
    assert outcome.refused or case == "b.pth", case
    assert not harm.exists(), case
  pickle.loads(code)
  assert harm.exists()  # it would have been


def test_the_checks_see_what_they_are_for(tmp_path):
  path = tmp_path / "in" / "w.npz"

  def traceback(_):
    raise KeyError("x")

  def nameless(_):
    raise errors.InputError("bad file")

  def long(path):
    raise errors.InputError(path * 1000)

  def greedy(_):
    np.zeros(2**20)

  def writer(path):
    pathlib.Path(path).with_name("more").touch()

  for reader, seen in (
    (traceback, "mutation 0 .*: KeyError: 'x'"),
    (nameless, "is not named: bad file"),
    (long, "characters"),
    (greedy, "took 8,3.* may 1,000"),
    (writer, "left "),
  ):
    with pytest.raises(AssertionError, match=seen):
      hostile.check(reader, path, [b""], memory=1000)
    assert hostile.check(lambda _: None, tmp_path / "a" / "b", [b""]) == (1, 0)
  assert hostile.check(read, tmp_path / "x" / "w.npz", [b""]) == (0, 1)
