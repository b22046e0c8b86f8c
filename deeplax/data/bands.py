"""Images of any number of bands: reading, statistics, and how to show them.

.npy, .npz and TIFF files give their bands as they are stored; PNG gives red,
green, blue and perhaps alpha, or gray, of 8 or 16 bits; other pictures are RGB.
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

# Kinds of files with bands, besides pictures.
SUFFIXES = (".npy", ".npz")
# Bands are read as float32, which holds all of these numbers but float64's.
TYPES = ("uint8", "uint16", "int16", "float32", "float64")
SAMPLE = 200  # images that `measure` looks at

# The mean of each band, and the standard deviation, in the files' numbers.
Channels = tuple[tuple[float, ...], tuple[float, ...]]


class Reader:
  """Reads bands of the images of a data set, which must be of one kind."""

  def __init__(
    self,
    channels: Sequence[int | float],
    *,
    first: tuple[bytes, str] | None = None,
  ):
    """Choose the bands.

    Args:
      channels: Bands to read, counted from 0, in this order.
      first: Bytes and name of an image whose kind all others must have; None:
        images may be of any kind.

    Raises:
      InputError: Such bands cannot be, or `first` is no image.
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
    """Return an image [h, w, c] from a file's bytes: uint8, or else float32.

    Raises:
      InputError: The file is no whole image, or unlike the first, lacks a band,
        or has pixels without a number.
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
  """Return the number and type of bands, as text."""
  return f"{image.shape[-1]} bands of {image.dtype}"


def read(data: bytes, file: str) -> np.ndarray:
  """Return all bands [h, w, c] from a file's bytes, of one of TYPES.

  Raises:
    InputError: The file is no whole image, or of another type.
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


def statistics(
  channels: Sequence[int] | None,
  mean: Sequence[float | int] | None,
  std: Sequence[float | int] | None,
) -> Channels | None:
  """Return mean and standard deviation of each band, or None without bands.

  Args:
    channels: `config.data.channels`.
    mean: `config.data.channel_mean`.
    std: `config.data.channel_std`.

  Raises:
    InputError: Mean or deviation is not one number for each band.
  """
  if channels is None:
    return None
  pair = []
  for name, values in (("mean", mean), ("std", std)):
    numbers = tuple(float(value) for value in values or ())
    if len(numbers) != len(channels) or not np.isfinite(numbers).all():
      raise errors.InputError(
        f"data.channel_{name} {values} is not one number for each of the "
        f"{len(channels)} bands of data.channels {tuple(channels)}"
      )
    pair.append(numbers)
  if min(pair[1]) <= 0:
    raise errors.InputError(f"data.channel_std {std}: each must be above 0")
  return pair[0], pair[1]


def measure(
  source: files.Source,
  *,
  images: int = SAMPLE,
  threads: int = 4,
  progress: Callable[[str], None] = print,
) -> Channels:
  """Return mean and standard deviation of each band over a split's images.

  All pixels count, ignored ones as well; sums are float64.

  Args:
    source: The training split.
    images: How many images to read, evenly spread; fewer if it has fewer.
    threads: How many read.
    progress: Receives a line with the time left now and then.

  Raises:
    InputError: A band has one value everywhere, or an image cannot be read.
  """
  chosen = views.evenly(len(source), images)
  moments = mask_counts.each(
    lambda index: _moments(source[index]["image"]),
    chosen,
    threads=threads,
    progress=progress,
    name="measured",
  )
  pixels, means, variances = (np.stack(m) for m in zip(*moments, strict=True))
  share = (pixels / pixels.sum())[:, None]
  mean = (share * means).sum(axis=0)
  # The variance within the images, and that between their means.
  variance = (share * (variances + (means - mean[None]) ** 2)).sum(axis=0)
  if not variance.all():
    place = int(np.argmin(variance))
    raise errors.InputError(
      f"number {place} of data.channels is {mean[place]:g} in all pixels of "
      f"{len(chosen)} images, so it tells nothing: leave it out"
    )
  return _rounded(mean), _rounded(np.sqrt(variance))


def _moments(image: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
  """Return the number of pixels, and each band's mean and variance."""
  flat = image.reshape(-1, image.shape[-1]).astype(np.float64)
  return len(flat), flat.mean(axis=0), flat.var(axis=0)


def _rounded(values: np.ndarray) -> tuple[float, ...]:
  """Return numbers of six digits, for people who read config.json."""
  return tuple(float(f"{value:.6g}") for value in values)


def to_show(image: np.ndarray) -> np.ndarray:
  """Return an image as people see it: uint8 RGB [h, w, 3].

  The first three bands are red, green and blue, or the first alone is gray.
  Black is two standard deviations below the band's mean in this image, white
  two above. RGB of uint8 stays as it is.
  """
  if image.dtype == np.uint8 and image.shape[-1] == 3:
    return image
  shown = image[..., : 3 if image.shape[-1] >= 3 else 1].astype(np.float32)
  mean = shown.mean(axis=(0, 1), keepdims=True)
  std = np.maximum(shown.std(axis=(0, 1), keepdims=True), 1e-12)
  scaled = np.rint((shown - mean) * (63.75 / std) + 127.5)
  scaled = np.clip(scaled, 0, 255).astype(np.uint8)
  return np.repeat(scaled, 3 // scaled.shape[-1], axis=-1)
