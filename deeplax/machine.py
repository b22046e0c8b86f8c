"""Look at this computer: versions, devices, memory, disk, accelerators."""

from collections.abc import Callable, Mapping
import importlib.metadata
import os
import pathlib
import platform
import shutil
import time

from deeplax import errors

PACKAGES = (
  "jax",
  "jaxlib",
  "flax",
  "optax",
  "orbax-checkpoint",
  "grain",
  "tensorflow-datasets",
  "clu",
  "ml-collections",
  "numpy",
  "psutil",
)
# Without these the rest cannot be examined.
NEEDED = ("jax", "jaxlib", "numpy", "psutil")
NVIDIA_FILES = ("dev/nvidia[0-9]*", "proc/driver/nvidia/gpus/*", "dev/dxg")
# A vfio group may be any device of a virtual machine: it counts as a TPU only
# with the variables that a TPU host sets.
TPU_FILES = ("dev/accel[0-9]*",)
TPU_VFIO = "dev/vfio/[0-9]*"
TPU_VARIABLES = ("TPU_NAME", "TPU_WORKER_ID", "TPU_ACCELERATOR_TYPE")


def report(
  forms: Callable[[], str], check: Callable[[], tuple[list[str], list[str]]]
) -> int:
  """Print a report; return 0 if deeplax can run here, else 1.

  Args:
    forms: Returns how operations run on the devices, once they are known.
    check: Runs them, and returns notes and problems.
  """
  facts, problems = examine()
  for name, value in facts.items():
    print(f"{name:<20}{value}")
  if "devices" in facts:
    print(f"{'forms':<20}{forms()}", flush=True)
    notes, wrong = check()
    problems += wrong
    for note in notes:
      print(f"note: {note}")
    if warning := accelerator_warning():
      print(f"warning: {warning}")
  for problem in problems:
    print(f"problem: {problem}")
  print("not ready" if problems else "ready")
  return 1 if problems else 0


def examine() -> tuple[dict[str, str], list[str]]:
  """Return facts about this computer by name, and the problems found."""
  facts = {"python": platform.python_version(), "system": platform.platform()}
  problems = []
  for name, version in versions().items():
    facts[name] = version or "missing"
    if version is None:
      problems.append(
        f"{name} is not installed: pip install -r requirements.txt"
      )
  if any(facts.get(name) == "missing" for name in NEEDED):
    return facts, problems
  import jax
  import psutil

  try:
    devices = jax.devices()
  except (AssertionError, RuntimeError) as error:
    problems.append(errors.devices_text(error))
    return facts, problems
  facts["devices"] = ", ".join(
    f"{d.id}: {d.device_kind} ({d.platform})" for d in devices
  )
  milliseconds, error = convolution()
  facts["convolution"] = f"{milliseconds:.2f} ms, relative error {error:.0e}"
  # Accelerators may round the factors (TF32, bfloat16) even at "highest".
  if not error < 1e-2:
    problems.append(
      f"a 3x3 convolution is wrong by {error:.0e} of its largest value: "
      "reinstall jax and jaxlib of the same version"
    )
  memory = psutil.virtual_memory().available
  facts["memory"] = f"{memory / 1e9:.1f} GB free"
  free = shutil.disk_usage(os.getcwd()).free
  facts["disk"] = f"{free / 1e9:.1f} GB free in {os.getcwd()}"
  cache = jax.config.values["jax_compilation_cache_dir"]
  facts["compiled"] = f"kept in {cache or 'the workdir of each run'}"
  return facts, problems


def versions() -> dict[str, str | None]:
  """Return the version of each package that deeplax needs; None: missing."""
  installed = {}
  for name in PACKAGES:
    try:
      installed[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      installed[name] = None
  return installed


def convolution() -> tuple[float, float]:
  """Return (milliseconds, largest error / largest value) of one convolution."""
  import jax
  import jax.numpy as jnp
  import numpy as np

  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.standard_normal((1, 65, 65, 32), np.float32))
  kernel = jnp.asarray(rng.standard_normal((3, 3, 32, 32), np.float32))

  @jax.jit
  def run(x, kernel):
    return jax.lax.conv_general_dilated(
      x,
      kernel,
      window_strides=(1, 1),
      padding="VALID",
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
      precision="highest",
    )

  run(x, kernel).block_until_ready()
  start = time.perf_counter()
  y = run(x, kernel).block_until_ready()
  seconds = time.perf_counter() - start
  taps = np.lib.stride_tricks.sliding_window_view(
    np.asarray(x[0]), (3, 3), (0, 1)
  )
  truth = np.einsum("hwcij,ijck->hwk", taps, np.asarray(kernel), optimize=True)
  error = np.abs(np.asarray(y[0]) - truth).max() / np.abs(truth).max()
  return seconds * 1e3, float(error)


def accelerator_warning(
  *,
  root: str | os.PathLike[str] = "/",
  environ: Mapping[str, str] | None = None,
  backend: str | None = None,
) -> str | None:
  """Return a warning if JAX does not use this machine's accelerator, else None.

  Args:
    root: The folder that holds dev/ and proc/.
    environ: Environment variables; None: this process's.
    backend: JAX's backend; None: ask JAX.
  """
  environ = os.environ if environ is None else environ
  if environ.get("JAX_PLATFORMS"):
    return None  # the user has chosen
  kind = _accelerator(pathlib.Path(root), environ)
  if kind is None:
    return None
  if backend is None:
    import jax

    backend = jax.default_backend()
  if backend != "cpu":
    return None
  if kind == "TPU":
    return (
      "this machine has a TPU that JAX does not use. Install it with: "
      'pip install -U "jax[tpu]"'
    )
  return (
    "this machine has an NVIDIA GPU that JAX does not use. Install it with: "
    'pip install -U "jax[cuda13]" (driver older than 580: "jax[cuda12]"). '
    "If that is installed, nvidia-smi must list the GPU"
  )


def _accelerator(root: pathlib.Path, environ: Mapping[str, str]) -> str | None:
  if any(name in environ for name in TPU_VARIABLES) and _any(root, TPU_VFIO):
    return "TPU"
  if any(_any(root, pattern) for pattern in TPU_FILES):
    return "TPU"
  if any(_any(root, pattern) for pattern in NVIDIA_FILES):
    # An empty value hides the GPUs on purpose.
    return None if environ.get("CUDA_VISIBLE_DEVICES") == "" else "GPU"
  return None


def _any(root: pathlib.Path, pattern: str) -> bool:
  return next(root.glob(pattern), None) is not None
