"""Dense CRF on CPU: deeplax against pydensecrf, interleaved.

  pip install pydensecrf
  python -m benchmarks.dense_crf photo.jpg --out dense_crf.json

By default the image has 375x500 pixels and all of 21 classes, and there are 10
iterations. Both programs start from the same probabilities and must give the
same labels. A run does all of the work for an image: pydensecrf sets up both
kernels; deeplax builds the image's lattice, and the smoothness kernel for a new
size ("deeplax_new_size"; for "deeplax" it is cached). Compilation, once for
each length of the arrays, is timed apart. Without pydensecrf only deeplax is
timed.

With --present N only N classes are in the image, all others have tiny
probabilities, and "deeplax_negligible" leaves out those that are negligible by
its bound.

  python -m benchmarks.dense_crf photos/ --photos 40

times so many images of mixed sizes, each once, in turn with pydensecrf, with
all that it takes: compilation too. The images are those of a folder, in their
own sizes, or made up.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping
import importlib
import json
import os
import pathlib
import time
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import timing

NEGLIGIBLE = 0.01
# Sizes of made up photographs, as in VOC: (height, width).
SIZES = ((375, 500), (500, 333), (333, 500), (500, 375), (281, 500), (500, 500))
# The keywords of `crf.dense_crf`, each a flag.
SETTINGS = {
  "w1": 4,
  "sigma_alpha": 67,
  "sigma_beta": 3,
  "w2": 3,
  "sigma_gamma": 1,
  "iterations": 10,
}
# The parts of a run of deeplax, timed by themselves.
PARTS = ("build", "mean_field")


def main() -> None:
  """Measure, print and write."""
  args = parse()
  # pydensecrf has one thread, whatever it may use.
  timing.use_cores(args.threads)
  os.environ.setdefault("JAX_PLATFORMS", "cpu")
  load = timing.load()
  settings = {name: getattr(args, name) for name in SETTINGS}
  if args.photos:
    photos(args, settings, load)
    return
  image = photograph(args.image, args.height, args.width)
  present = min(args.present or args.classes, args.classes)
  probabilities = made_up(args.height, args.width, args.classes, present)
  negligible = NEGLIGIBLE if present < args.classes else 0.0
  runs, details = deeplax_runs(image, probabilities, settings, negligible)
  if peer := pydensecrf_run(image, probabilities, settings):
    runs["pydensecrf"] = peer
    ours = np.asarray(runs["deeplax"]())
    details["difference"] = difference(ours, peer())
    if negligible:
      ours = np.asarray(runs["deeplax_negligible"]())
      details["difference_negligible"] = difference(ours, peer())
  else:
    print("pydensecrf is not installed: deeplax is timed alone")
  for run in runs.values():
    run()
  seconds = timing.in_turn(runs, args.reps)
  report = {
    "benchmark": "dense CRF of one image, all classes, float32",
    "image": pathlib.Path(args.image).name if args.image else "made up",
    "size": [args.height, args.width, args.classes],
    "present": present,
    "negligible": negligible,
    "settings": settings,
    "reps": args.reps,
    "threads": args.threads,
    "machine": timing.machine(load=load),
    "versions": timing.versions("jax", "numpy"),
    **details,
    "peak_memory_mb": timing.memory(),
    "seconds": timing.spreads(seconds.wall),
    "cpu_seconds": timing.spreads(seconds.cpu),
    "faster_than_pydensecrf": faster(seconds.wall),
    "cpu_faster_than_pydensecrf": faster(seconds.cpu),
  }
  show(report)
  timing.write(report, args.out)


def parse() -> argparse.Namespace:
  parser = timing.parser(__doc__)
  parser.add_argument(
    "image",
    nargs="?",
    help="a photograph, resized, or a folder for --photos (default: made up)",
  )
  parser.add_argument("--photos", type=int, help="images of mixed sizes")
  parser.add_argument("--height", type=int, default=375, help="in pixels")
  parser.add_argument("--width", type=int, default=500, help="in pixels")
  parser.add_argument("--classes", type=int, default=21)
  parser.add_argument("--present", type=int, help="classes in the image: all")
  for name, default in SETTINGS.items():
    kind = int if name == "iterations" else float
    parser.add_argument(f"--{name}", type=kind, default=default)
  parser.add_argument("--reps", type=int, default=7, help="runs of each")
  parser.add_argument("--threads", type=int, default=2, help="cores to use")
  sizes = ("height", "width", "classes", "iterations")
  return timing.parsed(parser, *sizes, "reps", "threads")


def photos(
  args: argparse.Namespace, settings: dict[str, Any], load: float
) -> None:
  """Time images of mixed sizes once each, print and write."""
  import jax

  from deeplax import crf

  jax.config.update("jax_enable_compilation_cache", False)
  compiled: list[float] = []
  seconds = timing.Seconds({}, {})
  agreement, sizes = [], set()
  for image in images(args.image, args.photos):
    height, width, _ = image.shape
    sizes.add((height, width))
    probabilities = made_up(height, width, args.classes, args.classes)
    labels: dict[str, np.ndarray] = {}

    def ours(image=image, probabilities=probabilities, labels=labels):
      found = crf.dense_crf(
        image, probabilities, **settings, compiled=compiled.append
      )
      labels["deeplax"] = np.asarray(found).argmax(-1)

    runs: dict[str, Callable[[], Any]] = {"deeplax": ours}
    if peer := pydensecrf_run(image, probabilities, settings):

      def theirs(peer=peer, labels=labels):
        labels["pydensecrf"] = peer().argmax(-1)

      runs["pydensecrf"] = theirs
    once = timing.in_turn(runs, 1)
    for total, part in zip(seconds, once, strict=True):
      for name, values in part.items():
        total.setdefault(name, []).extend(values)
    if peer:
      same = labels["deeplax"] == labels["pydensecrf"]
      agreement.append(float(same.mean()))
  mean = {
    kind: {name: sum(values) / len(values) for name, values in of_kind.items()}
    for kind, of_kind in seconds._asdict().items()
  }
  report = {
    "benchmark": "dense CRF of photographs, compilation included",
    "photos": len(seconds.wall["deeplax"]),
    "sizes": len(sizes),
    "classes": args.classes,
    "settings": settings,
    "threads": args.threads,
    "machine": timing.machine(load=load),
    "versions": timing.versions("jax", "numpy"),
    "compiled_seconds": compiled,
    "least_label_agreement": min(agreement, default=None),
    "mean_seconds": mean,
    "seconds": timing.spreads(seconds.wall),
    "cpu_seconds": timing.spreads(seconds.cpu),
    "peak_memory_mb": timing.memory(),
  }
  print(json.dumps({k: v for k, v in report.items() if "seconds" not in k}))
  print(f"programs compiled: {[round(x, 1) for x in compiled]} s")
  for name in seconds.wall:
    print(
      timing.line(
        name, report["seconds"][name], report["cpu_seconds"][name], 12
      )
      + f"; mean {mean['wall'][name]:.3f} s, CPU {mean['cpu'][name]:.3f} s"
    )
  timing.write(report, args.out)


def images(folder: str | None, count: int) -> Iterator[np.ndarray]:
  """Yield photographs of a folder, or made up ones of mixed sizes."""
  if folder is None:
    for number in range(count):
      yield photograph(None, *SIZES[number % len(SIZES)], seed=number)
    return
  for path in sorted(pathlib.Path(folder).glob("*.jpg"))[:count]:
    with Image.open(path) as picture:
      yield np.asarray(picture.convert("RGB"))


def photograph(
  path: str | None, height: int, width: int, seed: int = 0
) -> np.ndarray:
  """Return a photograph, or an image with edges, shading and grain."""
  if path:
    with Image.open(path) as picture:
      return np.asarray(picture.convert("RGB").resize((width, height)))
  rng = np.random.default_rng(seed)
  coarse = rng.integers(0, 256, (height // 60 + 2, width // 60 + 2, 3))
  blocks = Image.fromarray(coarse.astype(np.uint8)).resize(
    (width, height), Image.Resampling.NEAREST
  )
  shade = Image.fromarray(coarse[::-1].astype(np.uint8)).resize(
    (width, height), Image.Resampling.BICUBIC
  )
  grain = rng.normal(0, 3, (height, width, 3))
  mixed = 0.6 * np.asarray(blocks) + 0.4 * np.asarray(shade) + grain
  return np.clip(mixed, 0, 255).astype(np.uint8)


def made_up(height: int, width: int, classes: int, present: int) -> np.ndarray:
  """Return smooth probabilities; `present` classes are each first somewhere.

  The other classes stay below 1 in 1,000, as mostly in a trained network.
  """
  rng = np.random.default_rng(1)
  planes = []
  for _ in range(classes):
    coarse = rng.normal(0, 3, (height // 20 + 2, width // 20 + 2))
    plane = Image.fromarray(coarse.astype(np.float32))
    planes.append(plane.resize((width, height), Image.Resampling.BICUBIC))
  logits = np.stack([np.asarray(plane) for plane in planes], axis=-1)
  over = logits[..., present:] - logits[..., :present].max(-1, keepdims=True)
  logits[..., present:] -= over.max(initial=0) + 7  # exp(-7) is 0.0009
  shares = np.exp(logits - logits.max(-1, keepdims=True))
  return np.clip(shares / shares.sum(-1, keepdims=True), 1e-5, 1)


def deeplax_runs(
  image: np.ndarray,
  probabilities: np.ndarray,
  settings: dict[str, Any],
  negligible: float,
) -> tuple[dict[str, Callable[[], np.ndarray | None]], dict[str, Any]]:
  """Return the compiled runs to time, and details for the report."""
  import jax

  from deeplax import crf
  from deeplax.crf import dense
  from deeplax.crf import mean_field

  # Else the programs that an earlier run has compiled would be read from disk.
  jax.config.update("jax_enable_compilation_cache", False)
  sigmas = {k: settings[k] for k in ("sigma_alpha", "sigma_beta")}
  gamma = settings["sigma_gamma"]

  def whole():
    return np.asarray(crf.dense_crf(image, probabilities, **settings))

  def without_negligible():
    reduced = {**settings, "negligible": negligible}
    return np.asarray(crf.dense_crf(image, probabilities, **reduced))

  def new_size():
    # The cache that dense_crf fills from image to image.
    dense._smoothness.cache_clear()
    return whole()

  start = time.perf_counter()
  whole()
  first = time.perf_counter() - start
  appearance = dense.appearance(image, **sigmas)
  smoothness = dense.smoothness(image.shape[:2], sigma_gamma=gamma)
  unary = dense.log_probabilities(probabilities, appearance)

  def build():
    jax.block_until_ready(dense.appearance(image, **sigmas))

  def only_mean_field():
    marginals = mean_field.mean_field(
      unary,
      (appearance, smoothness),
      (settings["w1"], settings["w2"]),
      iterations=settings["iterations"],
    )
    jax.block_until_ready(marginals)

  lattices = {"appearance": appearance, "smoothness": smoothness}
  details = {
    "first_run_seconds": first,
    "vertices": {
      name: int((np.asarray(lattice.pixel_weights) != 0).any(0).sum())
      for name, lattice in lattices.items()
    },
    "lattice_mb": {
      name: sum(array.nbytes for array in lattice) / 1e6
      for name, lattice in lattices.items()
    },
  }
  runs = {
    "deeplax": whole,
    "deeplax_new_size": new_size,
    "build": build,
    "mean_field": only_mean_field,
  }
  if negligible:
    runs["deeplax_negligible"] = without_negligible
  return runs, details


def pydensecrf_run(
  image: np.ndarray, probabilities: np.ndarray, settings: dict[str, Any]
) -> Callable[[], np.ndarray] | None:
  """Return pydensecrf's run; None if it is not installed."""
  try:
    densecrf = importlib.import_module("pydensecrf.densecrf")
  except ImportError:
    return None
  height, width, classes = probabilities.shape
  image = np.array(image)  # it takes no read-only array

  def run():
    unary = -np.log(probabilities).reshape(-1, classes).T
    crf = densecrf.DenseCRF2D(width, height, classes)
    crf.setUnaryEnergy(np.ascontiguousarray(unary, np.float32))
    crf.addPairwiseGaussian(sxy=settings["sigma_gamma"], compat=settings["w2"])
    crf.addPairwiseBilateral(
      sxy=settings["sigma_alpha"],
      srgb=settings["sigma_beta"],
      rgbim=image,
      compat=settings["w1"],
    )
    marginals = np.array(crf.inference(settings["iterations"]))
    return marginals.T.reshape(height, width, classes)

  return run


def difference(ours: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
  """Return the difference of two marginals; exit if labels disagree."""
  error = np.abs(ours - theirs)
  gap = {
    "label_agreement": float((ours.argmax(-1) == theirs.argmax(-1)).mean()),
    "mean": float(error.mean()),
    "max": float(error.max()),
  }
  if gap["label_agreement"] < 0.999:
    raise SystemExit(f"deeplax computes something else than pydensecrf: {gap}")
  return gap


def faster(seconds: Mapping[str, list[float]]) -> dict[str, float]:
  """Return each run's speed in multiples of pydensecrf's, by medians."""
  median = timing.medians(seconds)
  theirs = median.pop("pydensecrf", None)
  if theirs is None:
    return {}
  return {k: theirs / v for k, v in median.items() if k not in PARTS}


def show(report: Mapping[str, Any]) -> None:
  """Print the report."""
  machine, size = report["machine"], "x".join(map(str, report["size"]))
  print(f"\n{report['benchmark']}, {size}, {report['settings']}")
  print(
    timing.machine_line(
      machine, report["threads"], f"{machine['load']:.2f}", report["versions"]
    )
  )
  sizes = ", ".join(
    f"{name} {report['vertices'][name]} vertices, {mb:.0f} MB"
    for name, mb in report["lattice_mb"].items()
  )
  print(f"lattices: {sizes}; at most {report['peak_memory_mb']:.0f} MB in all")
  print(f"first run, with compilation: {report['first_run_seconds']:.1f} s")
  for name in ("difference", "difference_negligible"):
    if name in report:
      print(f"{name}: {json.dumps(report[name])}")
  for name, wall in report["seconds"].items():
    line = timing.line(name, wall, report["cpu_seconds"][name], 16)
    if name in report["faster_than_pydensecrf"]:
      line += (
        f"; {report['faster_than_pydensecrf'][name]:.2f} times pydensecrf's "
        f"speed, CPU {report['cpu_faster_than_pydensecrf'][name]:.2f}"
      )
    print(line)
  print(f"Medians of {report['reps']} runs, least and most in brackets.")


if __name__ == "__main__":
  main()
