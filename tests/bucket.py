"""A bucket in memory where gcsfs would open one: for tests of gs:// paths."""

import importlib.util
import os
import types

from etils.epath import backend
from etils.epath import gpath
import fsspec
from fsspec.implementations import memory
import pytest


class Bucket(memory.MemoryFileSystem):
  """Files in memory; as in a bucket, what is appended replaces the file."""

  protocol = ("gcs", "gs")
  root_marker = ""
  store = {}
  pseudo_dirs = [""]

  @classmethod
  def _strip_protocol(cls, path):
    return os.fspath(path).removeprefix("gs://").strip("/")

  def _open(self, path, mode="rb", **keywords):
    return super()._open(path, mode=mode.replace("a", "w"), **keywords)


@pytest.fixture
def bucket(monkeypatch):
  """The name of an empty bucket, "gs://bucket", which is gone afterwards."""
  find = importlib.util.find_spec

  def found(name, package=None):
    spec: object = types.SimpleNamespace(name=name)
    return spec if name == "gcsfs" else find(name, package)

  monkeypatch.setattr(importlib.util, "find_spec", found)
  monkeypatch.setenv("EPATH_USE_TF", "false")
  fsspec.register_implementation("gcs", Bucket, clobber=True)
  Bucket.store.clear()
  Bucket.pseudo_dirs[:] = [""]
  caches = (gpath._is_tf_installed, backend.fsspec_backend._get_filesystem)
  for cache in caches:
    cache.cache_clear()
  yield "gs://bucket"
  for cache in caches:
    cache.cache_clear()
