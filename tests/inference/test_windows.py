"""Windows over large images: blending, seams, memory, bad values."""

import argparse
import pathlib
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplax import errors
from deeplax import flags
from deeplax.inference import mode as mode_lib
from deeplax.inference import predictor as predictor_lib
from deeplax.inference import settings as settings_lib
from deeplax.inference import sizing as sizing_lib
from deeplax.inference import windows
from deeplax.settings import defaults

MEAN = (127.5, 127.5, 127.5)


class Blurred(nn.Module):
  """Sees `reach` pixels to each side, and so the edges of what it is given."""

  reach: int = 6
  classes: int = 3
  stride: int = 1

  @nn.compact
  def coarse(self, images, *, train: bool):
    side = 2 * self.reach + 1
    x = nn.avg_pool(images / 60.0, (side, side), padding="SAME")
    kernel = self.param(
      "kernel", nn.initializers.normal(2.0), (3, self.classes)
    )
    return (x @ kernel)[:, :: self.stride, :: self.stride]


def _network(**settings):
  model = Blurred(**settings)
  variables = model.init(
    jax.random.key(0), jnp.zeros((1, 9, 9, 3)), train=False, method="coarse"
  )
  return model, variables


def _predictor(network, cut=None, pad_to=None, **settings):
  return predictor_lib.Predictor(
    *network,
    pad_value=MEAN,
    sizing=sizing_lib.Sizing(windows=cut, pad_to=pad_to),
    **{"progress": lambda _: None, **settings},
  )


def _smooth_image(height, width):
  """Waves of a wavelength of some 40 pixels, another in each channel."""
  y, x = np.mgrid[:height, :width]
  waves = [np.sin(y / 6 + c) * np.cos(x / 7 - 2 * c) for c in range(3)]
  return np.rint(127.5 + 100 * np.stack(waves, -1)).astype(np.uint8)


def _plain_blend(predict, image, cut, k):
  """The blending as sums over the whole image, in float64."""
  height, width = image.shape[:2]
  total = np.zeros((height, width, k))
  weight = np.zeros((height, width, 1))

  def fade(start, length, side):
    values = []
    for i in range(length):
      value = 1.0
      if start > 0 and i < cut.overlap:
        value *= np.sin(np.pi / 2 * (i + 0.5) / cut.overlap) ** 2
      j = length - 1 - i
      if start + length < side and j < cut.overlap:
        value *= np.sin(np.pi / 2 * (j + 0.5) / cut.overlap) ** 2
      values.append(value)
    return np.array(values)

  for top in cut.starts(height):
    for left in cut.starts(width):
      window = image[top : top + cut.size, left : left + cut.size]
      rows, columns = window.shape[:2]
      w = fade(top, rows, height)[:, None] * fade(left, columns, width)
      total[top : top + rows, left : left + columns] += w[..., None] * predict(
        window
      )
      weight[top : top + rows, left : left + columns, 0] += w
  return total / weight


@pytest.mark.parametrize(
  ("size", "overlap", "side"),
  [(33, 8, 34), (33, 1, 100), (65, 32, 1000), (64, 32, 97), (65, 16, 20)],
)
def test_weights_sum_to_one_and_windows_cover_a_side(size, overlap, side):
  cut = windows.Windows(size, overlap)
  starts, weights = cut.starts(side), cut.weights(side)
  total = np.zeros(side)
  for start, weight in zip(starts, weights, strict=True):
    assert (weight > 0).all() and len(weight) == min(size, side)
    total[start : start + len(weight)] += weight
  np.testing.assert_allclose(total, 1, atol=1e-6)
  assert starts[0] == 0 and starts[-1] + len(weights[-1]) == side
  shared = [a + size - b for a, b in zip(starts, starts[1:], strict=False)]
  assert min(shared, default=overlap) >= overlap


@pytest.mark.parametrize(
  ("height", "width"), [(70, 103), (33, 90), (20, 60), (97, 34)]
)
@pytest.mark.parametrize("overlap", [4, 16])
def test_blending_equals_sums_over_the_whole_image(height, width, overlap):
  network = _network()
  cut = windows.Windows(33, overlap)
  image = _smooth_image(height, width)
  # A window as it is predicted without windows, padded to the same size.
  whole = _predictor(network, pad_to=(33, 33))
  expected = _plain_blend(whole, image, cut, k=3)
  predictor = _predictor(network, cut)
  np.testing.assert_allclose(predictor(image), expected, atol=1e-5)
  labels = predictor.labels(image)
  assert labels.dtype == np.uint8
  first, second = np.sort(expected, -1)[..., :-3:-1].transpose(2, 0, 1)
  sure = first - second > 1e-4
  np.testing.assert_array_equal(labels[sure], expected.argmax(-1)[sure])


def test_an_image_that_a_window_covers_is_predicted_as_without_windows():
  network, image = _network(), _smooth_image(60, 65)
  plain, cut = (
    _predictor(network, cut) for cut in (None, windows.Windows(65, 16))
  )
  np.testing.assert_array_equal(plain(image), cut(image))
  np.testing.assert_array_equal(plain.labels(image), cut.labels(image))


def _steps(probabilities, axis):
  """The mean change from a row (or column) to the next."""
  change = np.abs(np.diff(probabilities, axis=axis)).mean(-1)
  return change.mean(1 - axis)


def test_no_seam_shows_where_windows_meet():
  # The network sees the edge of each window 12 pixels deep; windows that are
  # put side by side show it.
  network = _network(reach=12)
  image = _smooth_image(230, 260)
  plain = _predictor(network)(image)
  cut = windows.Windows(65, 32)
  blended = _predictor(network, cut)(image)
  window = _predictor(network, pad_to=(65, 65))
  side_by_side = np.concatenate(
    [
      np.concatenate(
        [
          window(image[top : top + 65, left : left + 65])
          for left in range(0, 260, 65)
        ],
        axis=1,
      )
      for top in range(0, 230, 65)
    ]
  )
  for axis, side in enumerate(image.shape[:2]):
    edges = {start - 1 for start in cut.starts(side)[1:]}
    edges |= {start + 65 - 1 for start in cut.starts(side)[:-1]}
    steps = _steps(blended, axis) - _steps(plain, axis)
    near = np.isin(np.arange(side - 1), sorted(edges))
    # Changes from pixel to pixel near the borders are those of elsewhere ...
    usual = np.abs(steps[~near]).max()
    assert np.abs(steps[near]).max() <= usual
    # ... which those of windows without overlap are not.
    bare = _steps(side_by_side, axis) - _steps(plain, axis)
    assert np.abs(bare[64 : side - 1 : 65]).max() > 3 * usual


def test_scales_flips_and_several_modes_work_in_windows():
  network = _network(stride=2)
  image = _smooth_image(80, 101)
  cut = windows.Windows(65, 20)
  modes = [mode_lib.Mode(), mode_lib.Mode((0.75, 1.0), True)]
  lines = []
  predictor = _predictor(network, cut, progress=lines.append)
  seconds = dict.fromkeys(modes, 0.0)
  found = predictor.submit_modes(
    image, modes, kind="probabilities", seconds=seconds
  )
  for mode, pending in zip(modes, found, strict=True):
    whole = _predictor(network, pad_to=(65, 65), mode=mode)
    expected = _plain_blend(whole, image, cut, k=3)
    np.testing.assert_allclose(pending.result(), expected, atol=1e-5)
    assert seconds[mode] > 0
  # All windows are of one size.
  assert len(lines) == 1 and "compiled 65x65 at 2 scales" in lines[0]


def test_more_than_256_classes_are_16_bit_labels():
  network = _network(classes=300)
  predictor = _predictor(network, windows.Windows(33, 8))
  labels = predictor.labels(_smooth_image(40, 50))
  assert labels.dtype == np.uint16 and labels.shape == (40, 50)


@pytest.mark.parametrize(
  ("values", "message"),
  [
    (["--window=32"], "window 32 must be 33 pixels or more"),
    (["--window=-5"], "window -5 must be 33"),
    (["--window=65", "--overlap=65"], "overlap 65 of windows of 65 pixels"),
    (["--window=65", "--overlap=0"], "from 1 to half a window, 32"),
    (["--overlap=16"], "window 0 must be 33"),
  ],
)
def test_windows_that_cannot_be_are_refused(values, message):
  parser = argparse.ArgumentParser()
  flags.add_size_arguments(parser)
  with pytest.raises(errors.InputError, match=message) as refused:
    settings_lib.sizing(defaults.base(), parser.parse_args(values))
  assert "--window and --overlap" in str(refused.value)


def test_results_of_windows_say_so():
  found = _predictor(_network(), windows.Windows(65, 16)).sizing.fields
  assert found == {"sizes": "reference", "window": [65, 16]}
  assert _predictor(_network()).sizing.fields["window"] is None


MEASURED = """
import pathlib, re, sys
import jax, jax.numpy as jnp
import numpy as np
from deeplax.inference import predictor as predictor_lib
from deeplax.inference import sizing as sizing_lib
from deeplax.inference import windows
from deeplax.data import spec
from deeplax.reports import found_pictures
from deeplax.reports import label_pictures
from deeplax.reports import shown_classes
from tests.inference import test_windows

def peak():
  # ru_maxrss starts with what the parent held when it forked.
  status = pathlib.Path("/proc/self/status").read_text()
  return int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) / 2**20

folder = pathlib.Path(sys.argv[1])
before = peak()
network = test_windows._network(reach=1, classes=21, stride=8)
predictor = predictor_lib.Predictor(
  *network,
  pad_value=test_windows.MEAN,
  sizing=sizing_lib.Sizing(windows=windows.Windows(513, 128)),
)
pictures = found_pictures.find([str(folder / "large.png")], folder / "out")
failed = label_pictures.predict(
  predictor,
  pictures,
  out=folder / "out",
  shown=shown_classes.Shown(spec.VOC2012),
)
assert not failed.failed
print("GiB", before, peak())
"""


@pytest.mark.slow  # minutes: 676 windows, 100 million pixels
def test_an_image_of_10000x10000_is_labeled_in_less_than_2_gib(tmp_path):
  cv2 = pytest.importorskip("cv2")
  if not pathlib.Path("/proc/self/status").exists():
    pytest.skip("this system does not tell how much memory a process took")
  tile = _smooth_image(1000, 1000)
  cv2.imwrite(str(tmp_path / "large.png"), np.tile(tile, (10, 10, 1)))
  ran = subprocess.run(
    [sys.executable, "-c", MEASURED, str(tmp_path)],
    cwd=pathlib.Path(__file__).parents[2],
    capture_output=True,
    text=True,
  )
  assert ran.returncode == 0, ran.stderr
  before, peak = map(float, ran.stdout.split("GiB ")[1].split())
  print(ran.stdout)
  assert before < peak < 2
  found = cv2.imread(str(tmp_path / "out" / "large_mask.png"), -1)
  assert found.shape[:2] == (10000, 10000)
