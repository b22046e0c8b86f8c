"""What holds for every test: strict broadcasting, parsed flags, a warm cache.

The compiled programs of a run are kept in `.cache/jax` of the checkout (or in
`$DEEPLAX_CACHE`), so that the second run of the tests starts warm. It is set
through the environment because commands under test run in own processes.
"""

import functools
import gc
import os
import pathlib
import re
import signal

from tests.commands import COLLECTED_AT
from tests.commands import ROOT as ROOT

CACHE = pathlib.Path(os.environ.get("DEEPLAX_CACHE") or ROOT / ".cache")

# Before jax is imported: it reads these once.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE / "jax"))
# Most of a test's compile time is many small programs: keep those as well.
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
# As commands do on a CPU, so that they and the tests share programs.
os.environ.setdefault("JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES", "none")
# Tests are tuned for the CPU; ask for another platform by name.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from absl import flags  # noqa: E402  (after the environment)
import jax  # noqa: E402
import jaxtyping  # noqa: E402
import pytest  # noqa: E402

from tests.bucket import bucket as bucket  # noqa: E402
from tests.runs import trained as trained  # noqa: E402
from tests.runs import trained_copy as trained_copy  # noqa: E402

# A shell lets what runs in the background ignore Ctrl-C, and all its children:
# tests that send it to commands would wait in vain.
signal.signal(signal.SIGINT, signal.default_int_handler)

gc.set_threshold(*COLLECTED_AT)

jax.config.update("jax_numpy_rank_promotion", "raise")
flags.FLAGS.mark_as_parsed()


# Most functions have plain types, which pyright checks: unless told otherwise
# (`make test-all` does), calls are checked where arrays have shapes. Tests of
# networks take a tenth less time so.
EVERY_CALL = bool(os.environ.get("DEEPLAX_CHECK_EVERY_CALL"))
_SHAPED = re.compile(r"\b(Float|Float32|Num|Integer|Shaped|UInt8|Bool)\[")
_jaxtyped = jaxtyping.jaxtyped


def _jaxtyped_if_shaped(*, typechecker):
  """Return the decorator that jaxtyping's import hook puts everywhere."""

  def decorate(target):
    annotations = getattr(target, "__annotations__", {}).values()
    if EVERY_CALL or any(_SHAPED.search(str(kind)) for kind in annotations):
      return _jaxtyped(target, typechecker=typechecker)
    return target

  return decorate


jaxtyping.jaxtyped = _jaxtyped_if_shaped

# The fixtures import deeplax themselves: the hook that checks types has to be
# there before it.


@pytest.fixture(scope="session", autouse=True)
def _networks_are_traced_once():
  """Keep every trace: a second takes a network, and tests share them."""
  from deeplax.models import cost
  from tests.models import networks

  @functools.cache
  def kept(model, size, tables):
    return cost_traced(model, size)

  cost_traced = cost.traced.__wrapped__
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(
      cost, "traced", lambda model, size: kept(model, size, networks.tables())
    )
    yield


# What is compared with references and truths. Not all tests: a CPU computes the
# same in either case, but JAX's cache would hold each program twice.
EXACT = ("crf/", "ops/", "models/test_golden", "models/test_torch_golden")
EXACT += ("pretrained/",)


@pytest.fixture(autouse=True)
def _parity_is_claimed_in_float32(request):
  """Compute products in float32 on every platform, where parity is claimed."""
  path = request.path.relative_to(ROOT / "tests").as_posix()
  if not path.startswith(EXACT):
    yield
    return
  with jax.default_matmul_precision("highest"):
    yield


@pytest.fixture(autouse=True)
def _signals_keep_their_meaning():
  """A command that tells of Ctrl-C lets the next one kill the process."""
  numbers = (signal.SIGINT, signal.SIGTERM)
  before = {number: signal.getsignal(number) for number in numbers}
  yield
  for number, handler in before.items():
    signal.signal(number, handler)


@pytest.fixture
def trusting(monkeypatch):
  """Files that a test writes count as named by the user."""
  name = "deeplax.settings.own._refuse_untrusted"
  monkeypatch.setattr(name, lambda reference: None)


@pytest.fixture
def short():
  """Backbones of few layers and channels (tests.models.networks.shorten)."""
  from tests.models import networks

  with networks.shorten():
    yield
