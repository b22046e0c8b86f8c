"""Images of any number of bands: reading, statistics, and something to see.

From .npy, .npz and TIFF files as they are stored; PNG has red, green, blue and
maybe alpha, or gray, in 8 or 16 bit; other pictures are RGB.
"""

from collections.abc import Callable, Sequence
import io

import numpy as np

from deeplax import errors
from deeplax.data import decoding
from deeplax.data import files
from deeplax.data import views
from deeplax.data.checks import mask_counts
from deeplax.data.formats import npy
from deeplax.data.formats import pictures
from deeplax.data.formats import tiff

# Beside the pictures of `folder`.
SUFFIXES = (".npy", ".npz")
# float32 holds all of their numbers; float64 is rounded to it.
TYPES = ("uint8", "uint16", "int16", "float32", "float64")
SAMPLE = 200  # images that `measure` looks at

# (mean, std) of each band, in the numbers of the files.
Channels = tuple[tuple[float, ...], tuple[float, ...]]


class Reader:
  """Reads some bands of the images of a data set, which must be alike."""

  def __init__(
    self,
    channels: Sequence[int | float],
    *,
    first: tuple[bytes, str] | None = None,
  ):
    """Prepare.

    Args:
      channels: Bands to read, counted from 0, in this order.
      first: Bytes and name of an image that all others must be like; None:
        any will do.

    Raises:
      InputError: There are no such bands, or `first` is no image.
    """
    if not channels or not all(type(c) is int and c >= 0 for c in channels):
      raise errors.InputError(
        f"data.channels {tuple(channels)} are no bands, counted from 0, such "
        "as (3, 2, 1, 7)"
      )
    self.channels = tuple(int(c) for c in channels)
    self._first = first[1] if first else ""
    self._kind = _kind(read(*first)) if first else None

  def __call__(self, data: bytes, file: str) -> np.ndarray:
    """Return [h, w, c] of the bytes of a file: uint8 as it is, else float32.

    Raises:
      InputError: It is no whole image, unlike the first, lacks a band, or has
        pixels without a number.
    """
    image = read(data, file)
    kind = _kind(image)
    if self._kind not in (None, kind):
      raise errors.InputError(
        f"{file} has {kind}, but {self._first} has {self._kind}: all images of "
        "a data set must be alike. Convert it, or take it out"
      )
    if max(self.channels) >= image.shape[-1]:
      raise errors.InputError(
        f"{file} has {kind}, so there is no band {max(self.channels)} of "
        f"data.channels {self.channels}: they are counted from 0"
      )
    image = np.take(image, self.channels, axis=-1)
    if image.dtype == np.uint8:
      return image
    image = image.astype(np.float32)
    finite = np.isfinite(image)
    if not finite.all():
      wrong = np.flatnonzero(~finite.all(axis=(0, 1)))
      count = int((~finite).any(axis=-1).sum())
      raise errors.InputError(
        f"{file} has {count} pixels without a number (NaN or infinite) in band "
        f"{self.channels[wrong[0]]}: fill them, and give them ignore_label in "
        "the mask"
      )
    return image


def _kind(image: np.ndarray) -> str:
  """Return what all images of a data set must have in common."""
  return f"{image.shape[-1]} bands of {image.dtype}"


def read(data: bytes, file: str) -> np.ndarray:
  """Return all bands [h, w, c] of the bytes of a file, of one of TYPES.

  Raises:
    InputError: It is no whole image, or of another type.
  """
  try:
    image = _read(data, file)
  except decoding.BROKEN as error:
    raise errors.InputError(
      f"{file} is not a whole image ({len(data)} bytes; "
      f"{pictures.first_line(error)}). Bands are "
      "read from TIFF (uncompressed, LZW, Deflate, PackBits, LZMA, Zstandard) "
      "and from .npy or .npz with one array [height, width, bands]"
    ) from error
  if str(image.dtype) not in TYPES:
    raise errors.InputError(
      f"{file} holds numbers of type {image.dtype}, not {', '.join(TYPES)}: "
      "convert it, for example with array.astype('float32')"
    )
  return image


def _read(data: bytes, file: str) -> np.ndarray:
  if npy.is_array(data):
    return npy.read(data)
  if data.startswith(tiff.MAGIC):
    layout = tiff.layout(io.BytesIO(data))
    if layout.readable:
      return tiff.read_upright(data, layout, file)
    if layout.bands > 3 or layout.dtype not in (None, np.uint8):
      raise ValueError(f"TIFF compression {layout.compression} of bands")
  if not data.startswith(b"\x89PNG"):
    return decoding.decode_image(data, file)
  image = decoding.decode_png(data)
  return tiff.upright(image, decoding.image_header(data, file).orientation)


def given(
  channels: Sequence[int] | None,
  mean: Sequence[float | int] | None,
  std: Sequence[float | int] | None,
) -> Channels | None:
  """Return mean and std of each band, or None without bands.

  Args:
    channels: `config.data.channels`.
    mean: `config.data.channel_mean`.
    std: `config.data.channel_std`.

  Raises:
    InputError: They are not one number for each band.
  """
  if channels is None:
    return None
  statistics = []
  for name, values in (("mean", mean), ("std", std)):
    numbers = tuple(float(value) for value in values or ())
    if len(numbers) != len(channels) or not np.isfinite(numbers).all():
      raise errors.InputError(
        f"data.channel_{name} {values} is not one number for each of the "
        f"{len(channels)} bands of data.channels {tuple(channels)}"
      )
    statistics.append(numbers)
  if min(statistics[1]) <= 0:
    raise errors.InputError(f"data.channel_std {std}: each must be above 0")
  return statistics[0], statistics[1]


def measure(
  source: files.Source,
  *,
  images: int = SAMPLE,
  threads: int = 4,
  progress: Callable[[str], None] = print,
) -> Channels:
  """Return mean and standard deviation of each band over a source's images.

  All pixels count, those that the masks ignore too; sums are float64.

  Args:
    source: Of the training split.
    images: How many, evenly spread; fewer if there are fewer.
    threads: That read.
    progress: Receives a line with the time left now and then.

  Raises:
    InputError: A band is the same everywhere, or an image cannot be read.
  """
  chosen = views.evenly(len(source), images)
  parts = list(
    mask_counts.each(
      lambda index: _moments(source[index]["image"]),
      chosen,
      threads=threads,
      progress=progress,
      name="measured",
    )
  )
  pixels, means, variances = (np.stack(p) for p in zip(*parts, strict=True))
  share = (pixels / pixels.sum())[:, None]
  mean = (share * means).sum(axis=0)
  # Within the images, and between them.
  variance = (share * (variances + (means - mean[None]) ** 2)).sum(axis=0)
  if not variance.all():
    place = int(np.argmin(variance))
    raise errors.InputError(
      f"number {place} of data.channels is {mean[place]:g} in all pixels of "
      f"{len(chosen)} images, so it says nothing: leave it out"
    )
  return _rounded(mean), _rounded(np.sqrt(variance))


def _moments(image: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
  """Return the number of pixels, and each band's mean and variance."""
  flat = image.reshape(-1, image.shape[-1]).astype(np.float64)
  return len(flat), flat.mean(axis=0), flat.var(axis=0)


def _rounded(values: np.ndarray) -> tuple[float, ...]:
  """Six digits, to be read in config.json."""
  return tuple(float(f"{value:.6g}") for value in values)


def to_show(image: np.ndarray) -> np.ndarray:
  """Return something to see: uint8 RGB [h, w, 3].

  The first three bands are red, green and blue, or the first alone is gray;
  black is two deviations below the band's mean in this image, white two above.
  An image that is RGB in bytes stays as it is.
  """
  if image.dtype == np.uint8 and image.shape[-1] == 3:
    return image
  shown = image[..., : 3 if image.shape[-1] >= 3 else 1].astype(np.float32)
  mean = shown.mean(axis=(0, 1), keepdims=True)
  std = np.maximum(shown.std(axis=(0, 1), keepdims=True), 1e-12)
  scaled = np.rint((shown - mean) * (63.75 / std) + 127.5)
  scaled = np.clip(scaled, 0, 255).astype(np.uint8)
  return np.repeat(scaled, 3 // scaled.shape[-1], axis=-1)
