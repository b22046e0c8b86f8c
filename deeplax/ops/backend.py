"""Which form of an operation a platform gets, and the evidence for it.

All forms of an operation give equal values to rounding; they differ in time and
memory. Operations ask for theirs while they are traced.

Where figures are from: "CPU" is 2 cores, float32; "H200" one NVIDIA H200,
bfloat16, JAX 0.11; "v5e" is no measurement but the TPU compiler's own estimate
of cycles (benchmarks/aot.py), for 8 images of 513x513. docs/performance.md
tells more of the last two.
"""

from collections.abc import Iterator
import contextlib
import functools
import importlib.util
from typing import Any, NamedTuple

import jax

PLATFORMS = ("cpu", "gpu", "tpu")
NOT_TIMED = "not timed"


class Entry(NamedTuple):
  """The form that an operation takes on a platform.

  Attributes:
    form: Its name; the operation's module tells what it does.
    evidence: What was measured or estimated, or NOT_TIMED.
    otherwise: The form where the kernels that `form` needs do not run.
  """

  form: str
  evidence: str
  otherwise: str | None = None


FORMS = {
  "depthwise": {
    "cpu": Entry(
      "shifted",
      "CPU, 33x33 to 257x257, rates 1 to 4: forward 11 to 32 times as fast as "
      "the library's, gradient of the kernel 20 to 136 times",
    ),
    "gpu": Entry(
      "rows",
      "H200, 16x33x33x728: forward 35 us, fused 67, library 39; gradient of "
      "the kernel 42 us, the best of XLA's forms above 150. The library's "
      "step of Xception-65 did not compile in 110 s",
      otherwise="fused",
    ),
    "tpu": Entry(
      "library",
      "v5e, 8x33x33x728: forward 130 thousand cycles, gradient of the kernel "
      "48; fused 2.5 to 3 times as many",
    ),
  },
  "dense": {
    "cpu": Entry(
      "products",
      "CPU, over torch's time: 1x1 129x129x304->256 0.69, library 2.87; "
      "3x3 at rate 18 1.49, library 3.82; CPU seconds of ResNet-101's step "
      "0.87 of those with the library's other 3x3",
    ),
    "gpu": Entry("library", NOT_TIMED),
    "tpu": Entry(
      "free_layout",
      "v5e, MobileNetV2 to stride 4: 19.9 million cycles, library 24.3; first "
      "two convolutions of Xception 13.9, 15.4",
    ),
  },
  "repeated_units": {
    "cpu": Entry(
      "scanned",
      "CPU, step of Xception-65: unrolled 3 to 5% faster, 15 s more to compile",
    ),
    "gpu": Entry(
      "unrolled",
      "H200, step of Xception-65: scanned, 14 ms of it copy what the loop "
      "keeps; unrolled 8 s more to compile, no more memory",
    ),
    "tpu": Entry(
      "unrolled",
      "v5e, step of Xception-65: 126 million cycles, scanned 157; 2.4 times "
      "as long to compile",
    ),
  },
  "accumulation": {
    "cpu": Entry(
      "unrolled",
      "CPU: the gradient of a convolution is 13 to 34 times slower in a loop",
    ),
    "gpu": Entry("scanned", NOT_TIMED),
    "tpu": Entry("scanned", NOT_TIMED),
  },
  "statistics": {
    "cpu": Entry("two_passes", NOT_TIMED),
    "gpu": Entry(
      "kernels",
      "H200, step of Xception-65: 321 images/s with the sums alone, 375 where "
      "depthwise kernels take them along; one_pass 309",
      otherwise="one_pass",
    ),
    "tpu": Entry(
      "one_pass",
      "v5e, step of MobileNetV2: 62 million cycles, two_passes 73; of "
      "Xception-65 126, 150",
    ),
  },
  "resize": {
    "cpu": Entry(
      "gathers",
      "CPU, logits to 513x513: products take 1.5 to 1.7 times as long",
    ),
    "gpu": Entry("gathers", NOT_TIMED),
    "tpu": Entry(
      "products",
      "v5e, step of MobileNetV2: 73 million cycles, gathers 111",
    ),
  },
  "cross_entropy": {
    "cpu": Entry("passes", NOT_TIMED),
    "gpu": Entry("passes", NOT_TIMED),
    "tpu": Entry(
      "one_pass",
      "v5e, loss and gradient of 8x513x513x21: 1.1 million cycles, passes 3.5",
    ),
  },
}
# The kernels are Triton's: for NVIDIA cards from Ampere on.
CAPABILITY = 8.0


class _Target(NamedTuple):
  platform: str | None = None
  interpreted: bool = False
  forms: tuple[tuple[str, str], ...] = ()
  ordered: bool = False


# A part of the key under which JAX keeps what it has traced.
_TARGET = jax.make_user_context(_Target())


@contextlib.contextmanager
def target(platform: str, *, interpreted: bool = False) -> Iterator[None]:
  """Trace for a platform that may not be there.

  Args:
    platform: One of PLATFORMS.
    interpreted: Kernels are to run here, step by step, whatever this machine
      has; else they are for that platform's compiler.

  Raises:
    ValueError: On another platform.
  """
  if platform not in PLATFORMS:
    raise ValueError(f"platform {platform!r} not in {list(PLATFORMS)}")
  with _TARGET(
    _TARGET.value._replace(platform=platform, interpreted=interpreted)
  ):
    yield


@contextlib.contextmanager
def chosen(**forms: str) -> Iterator[None]:
  """Trace with other forms than the table's: `chosen(depthwise="fused")`.

  Raises:
    ValueError: On an operation that is not in FORMS, or that has no such form.
  """
  for operation, form in forms.items():
    if operation not in FORMS:
      raise ValueError(f"operation {operation!r} not in {list(FORMS)}")
    if form not in (known := forms_of(operation)):
      raise ValueError(f"{operation} has no form {form!r}, but {known}")
  now = _TARGET.value
  both = dict(now.forms) | forms
  with _TARGET(now._replace(forms=tuple(sorted(both.items())))):
    yield


@contextlib.contextmanager
def in_order() -> Iterator[None]:
  """Trace without scattered sums, whose order varies on a GPU."""
  with _TARGET(_TARGET.value._replace(ordered=True)):
    yield


def ordered() -> bool:
  """Whether sums must keep their order: see `in_order`."""
  return _TARGET.value.ordered


def forms_of(operation: str) -> list[str]:
  """Return all forms of an operation, a key of FORMS."""
  entries = FORMS[operation].values()
  forms = {entry.form for entry in entries}
  return sorted(forms | {e.otherwise for e in entries if e.otherwise})


def platform() -> str:
  """Return the platform to trace for; one that FORMS lacks counts as a GPU."""
  name = _TARGET.value.platform or _here()
  return name if name in PLATFORMS else "gpu"


def _here() -> str:
  # A device, its platform, or None where none is set.
  device = jax.config.jax_default_device  # pyright: ignore
  name = getattr(device, "platform", device)
  return name or jax.default_backend()


def interpreted() -> bool:
  """Whether kernels run step by step on any machine: for tests."""
  return _TARGET.value.interpreted


def form(operation: str) -> str:
  """Return the form of an operation, a key of FORMS, on this platform."""
  if chosen_form := dict(_TARGET.value.forms).get(operation):
    return chosen_form
  entry = FORMS[operation][platform()]
  if entry.otherwise and not interpreted() and kernels_missing():
    return entry.otherwise
  return entry.form


def kernels_take(x: Any) -> bool:
  """Return whether kernels can work on a map, where the platform has them.

  Their offsets are 32 bits wide, and so are their values.
  """
  return 0 < x.size < 2**31 and x.dtype.itemsize <= 4


@functools.cache
def kernels_missing() -> str | None:
  """Return why the kernels do not run on this machine's GPU.

  None if they run, and on a machine without a GPU: what is traced there for
  one is for one that runs them.
  """
  if jax.default_backend() in ("cpu", "tpu"):
    return None
  return missing_on(jax.local_devices()[0])


def missing_on(device: Any) -> str | None:
  """Return why the kernels do not run on a GPU; None if they do."""
  if "cuda" not in device.client.platform_version:
    return f"{device.device_kind} is no NVIDIA card"
  capability = device.compute_capability
  if float(capability) < CAPABILITY:
    return (
      f"{device.device_kind} has compute capability {capability}, they need "
      f"{CAPABILITY}"
    )
  if importlib.util.find_spec("jax.experimental.pallas.triton") is None:
    return f"JAX {jax.__version__} has no Triton in Pallas"
  return None
