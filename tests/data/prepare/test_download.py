"""Fetching is tested against a server of this test that breaks transfers."""

import dataclasses
import hashlib
from http import server
import io
import pathlib
import tarfile
import threading
import zipfile

import numpy as np
import pytest

from deeplax import errors
from deeplax.data import build
from deeplax.data import published as published_lib
from deeplax.data.prepare import command
from deeplax.data.prepare import download
from deeplax.data.prepare import write
from deeplax.settings import defaults
from tests.data import trees

CONTENT = np.random.default_rng(0).bytes(300_000)


@dataclasses.dataclass
class Site:
  """A server: what it has, how it fails, what it was asked for."""

  url: str = ""
  files: dict[str, bytes] = dataclasses.field(default_factory=dict)
  limits: list[int] = dataclasses.field(default_factory=list)
  status: int = 200
  ranges: bool = True
  log: list[tuple[str, str | None]] = dataclasses.field(default_factory=list)

  def archive(self, name: str, content: bytes | None = None):
    """Return the archive `name`, whose digest is that of `content`."""
    known = self.files[name] if content is None else content
    digest = f"sha256:{hashlib.sha256(known).hexdigest()}"
    return download.Archive(f"{self.url}/{name}", digest)


@pytest.fixture
def site():
  site = Site(files={"a.bin": CONTENT})

  class Handler(server.BaseHTTPRequestHandler):
    def do_GET(self):
      wanted = self.headers.get("Range")
      site.log.append((self.path, wanted))
      content = site.files.get(self.path[1:])
      if content is None or site.status != 200:
        self.send_error(site.status if content is not None else 404)
        return
      start = 0
      if wanted and site.ranges:
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= len(content):
          self.send_error(416)
          return
      self.send_response(206 if start else 200)
      self.send_header("Content-Length", str(len(content) - start))
      if start:
        whole = len(content)
        where = f"bytes {start}-{whole - 1}/{whole}"
        self.send_header("Content-Range", where)
      self.end_headers()
      # Closes in the middle while there are limits.
      end = start + site.limits.pop(0) if site.limits else len(content)
      self.wfile.write(content[start:end])

    def log_message(self, format, *args):
      pass

  running = server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
  site.url = f"http://127.0.0.1:{running.server_port}"
  thread = threading.Thread(target=running.serve_forever, args=(0.01,))
  thread.start()
  yield site
  running.shutdown()
  running.server_close()
  thread.join()


def fetch(site, tmp_path, **options) -> pathlib.Path:
  return download.fetch(
    site.archive("a.bin"), tmp_path, **{"pause": 0.0, **options}
  )


def test_a_broken_transfer_goes_on_where_it_stopped(site, tmp_path):
  site.limits = [100_000]
  with pytest.raises(errors.InputError) as error:
    fetch(site, tmp_path, attempts=1)
  told = str(error.value)
  assert "broke after 0.1 MB" in told and "continues from there" in told
  assert not (tmp_path / "a.bin").exists()
  assert (tmp_path / "a.bin.part").read_bytes() == CONTENT[:100_000]
  path = fetch(site, tmp_path, attempts=1)
  assert path.read_bytes() == CONTENT
  assert site.log == [("/a.bin", None), ("/a.bin", "bytes=100000-")]
  assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_a_transfer_is_taken_up_again_by_itself(site, tmp_path):
  site.limits = [50_000, 0, 70_000]
  assert fetch(site, tmp_path).read_bytes() == CONTENT
  assert [r for _, r in site.log] == [
    None, "bytes=50000-", "bytes=50000-", "bytes=120000-",
  ]  # fmt: skip


def test_a_server_without_ranges_sends_all_again(site, tmp_path):
  site.limits, site.ranges = [100_000], False
  assert fetch(site, tmp_path).read_bytes() == CONTENT
  assert len(site.log) == 2


def test_a_piece_that_is_whole_is_only_checked(site, tmp_path):
  for size, requests in ((None, 1), (len(CONTENT), 0)):
    site.log.clear()
    (tmp_path / "a.bin").unlink(missing_ok=True)
    (tmp_path / "a.bin.part").write_bytes(CONTENT)
    archive = site.archive("a.bin")._replace(size=size)
    assert download.fetch(archive, tmp_path).read_bytes() == CONTENT
    assert len(site.log) == requests


def test_another_file_than_the_published_one_is_not_kept(site, tmp_path):
  archive = site.archive("a.bin", b"something else")
  with pytest.raises(errors.InputError) as error:
    download.fetch(archive, tmp_path)
  told = str(error.value)
  assert archive.digest in told and "deleted" in told and archive.url in told
  assert not list(tmp_path.iterdir())


def test_a_changed_file_is_told_by_its_digest(site, tmp_path):
  (tmp_path / "a.bin.part").write_bytes(b"x" * 1000)  # of another version
  with pytest.raises(errors.InputError, match="not the published archive"):
    fetch(site, tmp_path)
  assert fetch(site, tmp_path).read_bytes() == CONTENT  # the same command


def test_what_was_fetched_is_not_fetched_again(site, tmp_path):
  fetch(site, tmp_path)
  fetch(site, tmp_path)
  assert len(site.log) == 1
  (tmp_path / "a.bin").write_bytes(b"not it")
  with pytest.raises(errors.InputError, match="delete it"):
    fetch(site, tmp_path)
  assert (tmp_path / "a.bin").exists()  # it may be the user's


@pytest.mark.parametrize("status, requests", [(404, 1), (403, 1), (503, 3)])
def test_a_refusal_is_final_and_a_bad_day_is_not(
  site, tmp_path, status, requests
):
  site.status = status
  with pytest.raises(errors.InputError, match=str(status)):
    fetch(site, tmp_path, attempts=3)
  assert len(site.log) == requests


def test_a_server_that_is_not_there_is_named(site, tmp_path):
  archive = site.archive("a.bin")._replace(url="http://127.0.0.1:9/a.bin")
  with pytest.raises(errors.InputError, match="127.0.0.1:9.*other means"):
    download.fetch(archive, tmp_path, attempts=2, pause=0.0)


def test_too_small_a_disk_is_told_before_anything_is_written(
  site, tmp_path, monkeypatch
):
  free = type("Usage", (), {"free": 200_000})
  monkeypatch.setattr(write.shutil, "disk_usage", lambda path: free)
  with pytest.raises(errors.InputError, match="to fetch a.bin"):
    fetch(site, tmp_path)
  (tmp_path / "a.bin.part").write_bytes(CONTENT[:150_000])
  assert fetch(site, tmp_path).exists()  # the rest fits


def test_every_published_archive_has_a_digest_of_the_right_length():
  archives = (download.VOC, download.SBD, download.ADE20K, *download.COCO)
  for archive in archives:
    algorithm, _, digest = archive.digest.partition(":")
    assert len(bytes.fromhex(digest)) == hashlib.new(algorithm).digest_size
    assert archive.url.startswith(("http://", "https://"))


def packed(folder: pathlib.Path, kind: str) -> bytes:
  """Return an archive of all that lies in a folder."""
  data = io.BytesIO()
  if kind == "zip":
    with zipfile.ZipFile(data, "w") as archive:
      for path in sorted(folder.rglob("*")):
        archive.write(path, path.relative_to(folder))
  else:
    mode = {"tar": "w", "tgz": "w:gz"}[kind]
    with tarfile.open(fileobj=data, mode=mode) as archive:  # pyright: ignore
      for path in sorted(folder.iterdir()):
        archive.add(path, path.name)
  return data.getvalue()


def listing(folder: pathlib.Path) -> dict[str, bytes]:
  return {
    p.relative_to(folder).as_posix(): p.read_bytes()
    for p in folder.rglob("*")
    if p.is_file()
  }


@pytest.mark.parametrize("kind", ["zip", "tar", "tgz"])
def test_an_archive_is_unpacked_as_a_whole_or_not_at_all(tmp_path, kind):
  trees.voc(tmp_path / "tree")
  path, target = tmp_path / f"a.{kind}", tmp_path / "unpacked"
  content = packed(tmp_path / "tree", kind)
  path.write_bytes(content[: len(content) // 2])
  with pytest.raises(errors.InputError, match=path.name):
    download.unpack([path], target)
  assert not target.exists() and not list(tmp_path.glob("incomplete*"))
  (tmp_path / "incomplete.unpacked").mkdir()  # of a killed command
  (tmp_path / "incomplete.unpacked" / "piece").write_text("")
  path.write_bytes(content)
  download.unpack([path], target)
  assert listing(target) == listing(tmp_path / "tree")
  path.unlink()
  assert download.unpack([path], target) == target  # is there already


def test_an_archive_cannot_write_elsewhere(tmp_path):
  path = tmp_path / "a.tar"
  with tarfile.open(path, "w") as archive:
    archive.addfile(tarfile.TarInfo("../outside"), io.BytesIO())
  with pytest.raises(errors.InputError, match="OutsideDestination"):
    download.unpack([path], tmp_path / "target" / "in")
  assert not (tmp_path / "target" / "outside").exists()


def run(capsys, *argv) -> tuple[int, str, str]:
  with pytest.raises(SystemExit) as end:
    command.main([str(word) for word in argv])
  printed = capsys.readouterr()
  return int(end.value.code or 0), printed.out, printed.err


@pytest.fixture
def published(site, tmp_path, monkeypatch):
  """Serve tiny archives in place of the published ones."""
  trees.voc(tmp_path / "voc")
  trees.sbd(tmp_path / "sbd")
  trees.ade20k(tmp_path / "ade")
  site.files |= {
    "voc.tar": packed(tmp_path / "voc", "tar"),
    "sbd.tgz": packed(tmp_path / "sbd", "tgz"),
    "ade.zip": packed(tmp_path / "ade", "zip"),
  }
  archives = {
    "voc2012": {
      "voc2012": (site.archive("voc.tar"),),
      "sbd": (site.archive("sbd.tgz"),),
    },
    "ade20k": {"ade20k": (site.archive("ade.zip"),)},
  }
  monkeypatch.setattr(download, "ARCHIVES", archives)
  return site


def test_download_fetches_unpacks_and_builds(
  published, capsys, tmp_path, monkeypatch
):
  out, config = tmp_path / "out", defaults.base().data
  argv = ("voc2012", "--download", f"--out={out}", "--allow_partial")
  published.limits = [2_000, 1_000]
  monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
  status, printed, told = run(capsys, *argv)
  assert status == 0, told
  assert f"fetching {published.url}/voc.tar" in printed
  config.root = str(out)
  found = build.source(config, "train_aug")
  tree = out / "downloads" / "voc2012" / "VOCdevkit" / "VOC2012"
  assert [found[i]["name"] for i in range(3)] == [
    *trees.VOC_TRAIN,
    trees.SBD_ONLY,
  ]
  assert len(published_lib.voc(tree, "val")) == 1
  assert run(capsys, *argv)[0] == 2  # is there already: nothing is fetched
  count = len(published.log)
  assert run(capsys, *argv, "--overwrite")[0] == 0
  assert len(published.log) == count


def test_download_goes_to_source_and_takes_what_is_there(
  published, capsys, tmp_path
):
  argv = (f"--out={tmp_path / 'out'}", "--download", "--allow_partial")
  source = tmp_path / "archives"
  assert run(capsys, "ade20k", f"--source={source}", *argv)[0] == 0
  assert (source / "ade.zip").exists()
  assert (source / "ade20k" / "ADEChallengeData2016").is_dir()
  published.log.clear()
  tree = tmp_path / "voc"
  assert run(capsys, "voc2012", f"--source={tree}", *argv)[0] == 0
  assert [path for path, _ in published.log] == ["/sbd.tgz"]


def test_cityscapes_says_which_archives_to_fetch(capsys, tmp_path):
  argv = ("cityscapes", "--download", f"--out={tmp_path}")
  status, _, told = run(capsys, *argv)
  assert status == 2 and "login" in told
  for name in ("leftImg8bit_trainvaltest.zip", "gtFine_trainvaltest.zip"):
    assert name in told
  empty = tmp_path / "empty"
  empty.mkdir()
  status, _, told = run(
    capsys, "cityscapes", f"--source={empty}", f"--out={tmp_path}"
  )
  assert status == 2 and "leftImg8bit_trainvaltest.zip" in told


@pytest.mark.parametrize("extra", [False, True])
def test_a_folder_of_cityscapes_zips_is_built(capsys, tmp_path, extra):
  splits = ("train", "val", "test", *(["train_extra"] if extra else []))
  tree = trees.cityscapes(tmp_path / "tree", splits=splits)
  zips = {
    "leftImg8bit_trainvaltest": ("leftImg8bit", splits[:3]),
    "gtFine_trainvaltest": ("gtFine", splits[:3]),
    "leftImg8bit_trainextra": ("leftImg8bit", splits[3:]),
    "gtCoarse": ("gtCoarse", splits[3:]),
  }
  (tmp_path / "zips").mkdir()
  for name, (folder, inside) in zips.items():
    if inside:
      with zipfile.ZipFile(tmp_path / "zips" / f"{name}.zip", "w") as archive:
        for split in inside:
          for path in (tree / folder / split).rglob("*.png"):
            archive.write(path, path.relative_to(tree))
  out = tmp_path / "out"
  status, _, told = run(
    capsys,
    "cityscapes",
    f"--source={tmp_path / 'zips'}",
    f"--out={out}",
    "--allow_partial",
  )
  assert status == 0, told
  config = defaults.base().data
  config.name, config.root = "cityscapes", str(out)
  for split in splits:
    found = build.source(config, split)
    expected = published_lib.cityscapes(tree, split)
    for i in range(2):
      assert found[i]["name"] == expected[i]["name"]
      np.testing.assert_array_equal(found[i]["label"], expected[i]["label"])


def test_own_data_cannot_be_fetched(capsys, tmp_path):
  argv = ("folder", "--download", f"--out={tmp_path}")
  status, _, told = run(capsys, *argv)
  assert status == 2 and "--source" in told
