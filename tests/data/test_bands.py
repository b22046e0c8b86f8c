import io
import json

import cv2
import numpy as np
from PIL import Image
import pytest

from deeplax import errors
from deeplax.data import bands
from deeplax.data import build
from deeplax.data import decoding
from deeplax.data import folder
from deeplax.data import spec as spec_lib
from deeplax.data.checks import check
from deeplax.settings import defaults
from tests.data import tiffs
from tests.data import trees

RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (6, 9, 5), dtype=np.uint8)
WORDS = RNG.integers(0, 65536, (6, 9, 5)).astype(np.uint16)
FLOATS = RNG.standard_normal((6, 9, 5)).astype(np.float32)


def npy(image, **options):
  data = io.BytesIO()
  np.save(data, image, **options)
  return data.getvalue()


def npz(*images):
  data = io.BytesIO()
  np.savez_compressed(data, *images)
  return data.getvalue()


def picture(image, kind="PNG"):
  data = io.BytesIO()
  Image.fromarray(image).save(data, kind)
  return data.getvalue()


def png16(image):
  """Return red, green, blue and maybe alpha as a PNG of 16 bit."""
  order = [2, 1, 0, 3][: image.shape[-1]]
  return cv2.imencode(".png", image[..., order])[1].tobytes()


FILES = {
  "npy of bytes": (npy(BYTES), BYTES),
  "npy of words": (npy(WORDS), WORDS),
  "npy of big-endian words": (npy(WORDS.astype(">u2")), WORDS),
  "npy by columns": (npy(np.asfortranarray(FLOATS)), FLOATS),
  "npy of doubles": (npy(FLOATS.astype(np.float64)), FLOATS),
  "npy of signed words": (npy(BYTES.astype(np.int16) - 99), BYTES - 99.0),
  "npz": (npz(WORDS), WORDS),
  "TIFF of bytes": (tiffs.encoded(BYTES, photometric=1), BYTES),
  "TIFF of words": (tiffs.encoded(WORDS, planar=True, deflate=True), WORDS),
  "TIFF of floats": (tiffs.encoded(FLOATS, tile=(16, 16), big=True), FLOATS),
  "16 bit color PNG": (png16(WORDS[..., :3]), WORDS[..., :3]),
  "16 bit alpha PNG": (png16(WORDS[..., :4]), WORDS[..., :4]),
  "16 bit gray PNG": (picture(WORDS[..., 0]), WORDS[..., :1]),
  "gray PNG": (picture(BYTES[..., 0]), BYTES[..., :1]),
  "color PNG": (picture(BYTES[..., :3]), BYTES[..., :3]),
  "alpha PNG": (picture(BYTES[..., :4]), BYTES[..., :4]),
  "BMP": (picture(BYTES[..., :3], "BMP"), BYTES[..., :3]),
}


def test_bands_are_read_in_the_order_asked_for():
  for kind, (data, expected) in FILES.items():
    count = expected.shape[-1]
    channels = (count - 1, 0, count // 2)
    found = bands.Reader(channels)(data, kind)
    assert found.dtype == (
      np.uint8 if expected.dtype == np.uint8 else np.float32
    ), kind
    assert found.flags.c_contiguous, kind
    np.testing.assert_array_equal(found, expected[..., channels], kind)
    assert decoding.image_header(data, "x") == ((6, 9), 1), kind


def test_green_alone_of_a_jpeg():
  data = picture(BYTES[..., :3], "JPEG")
  np.testing.assert_array_equal(
    bands.Reader((1,))(data, "x"), decoding.decode_image(data, "x")[..., 1:2]
  )


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_bands_are_turned_upright(kind):
  exif = Image.Exif()
  exif[274] = 6
  data = io.BytesIO()
  Image.fromarray(BYTES[..., :3]).save(data, kind, exif=exif)
  found = bands.Reader((0, 1, 2))(data.getvalue(), "x")
  np.testing.assert_array_equal(
    found, decoding.decode_image(data.getvalue(), "x")
  )
  assert found.shape == (9, 6, 3)


def refused(data, *parts, channels=(0, 1), **settings):
  with pytest.raises(errors.InputError) as error:
    bands.Reader(channels, **settings)(data, "x.tif")
  for part in parts:
    assert part in str(error.value)


def test_a_band_that_is_not_there_is_refused():
  refused(
    npy(WORDS), "x.tif has 5 bands of uint16", "no band 7", channels=(3, 7)
  )
  for channels in ((), (0, -1), (0.5,)):
    refused(npy(WORDS), "counted from 0", channels=channels)


@pytest.mark.parametrize("other", [WORDS[..., :4], FLOATS])
def test_images_unlike_the_first_are_refused(other):
  refused(
    npy(other),
    f"x.tif has {other.shape[-1]} bands of {other.dtype}",
    "a.tif has 5 bands of uint16",
    first=(npy(WORDS), "a.tif"),
  )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_without_a_number_are_refused_in_the_bands_that_are_read(value):
  image = FLOATS.copy()
  image[2, 3:5, 4] = value
  refused(npy(image), "x.tif has 2 pixels", "in band 4", channels=(0, 4))
  assert bands.Reader((0, 1))(npy(image), "x").shape == (6, 9, 2)


@pytest.mark.parametrize("dtype", ["int32", "uint32", "complex64", "bool"])
def test_numbers_that_float32_cannot_hold_are_refused(dtype):
  refused(npy(np.ones((2, 2, 2), dtype)), f"of type {dtype}", "uint16")


@pytest.mark.parametrize(
  ("data", "part"),
  [
    (npz(WORDS, WORDS), "2 arrays"),
    (npy(WORDS[0]), "(9, 5), not [height, width, bands]"),
    (npy(np.array([[[{}]]]), allow_pickle=True), "allow_pickle=False"),
    (npy(WORDS[:0]), "(0, 9, 5)"),
    (b"", "0 bytes"),
  ],
)
def test_what_is_no_image_is_refused(data, part):
  refused(data, "x.tif", part)


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_was_cut_off_is_refused(kind):
  data, _ = FILES[kind]
  refused(data[: int(0.6 * len(data))], "x.tif is not a whole", channels=(0,))


class Source:
  """Images in memory."""

  spec = spec_lib.CAMVID
  split = "train"

  def __init__(self, images):
    self.images = images

  def __len__(self):
    return len(self.images)

  def __getitem__(self, index):
    return {"image": self.images[index]}


def test_mean_and_std_are_those_of_all_pixels():
  images = [
    (1000 * RNG.standard_normal((size, 7, 2)) + (0, 30_000)).astype(np.float32)
    for size in (3, 40, 11)
  ]
  mean, std = bands.measure(Source(images), progress=lambda line: None)
  pixels = np.concatenate([i.reshape(-1, 2) for i in images]).astype(float)
  np.testing.assert_allclose(mean, pixels.mean(0), rtol=1e-5)
  np.testing.assert_allclose(std, pixels.std(0), rtol=1e-5)


def test_statistics_are_of_images_spread_over_the_source():
  images = [np.full((2, 2, 1), i, np.uint8) for i in range(101)]
  mean, _ = bands.measure(Source(images), images=3, progress=lambda line: None)
  assert mean == (33.3333,)  # of the images 0, 33 and 67


def test_a_band_that_never_changes_is_refused():
  image = np.stack([BYTES[..., 0], np.full((6, 9), 7)], -1)
  with pytest.raises(errors.InputError, match="number 1 of data.channels is 7"):
    bands.measure(Source([image, image]), progress=lambda line: None)


def test_other_bands_are_stretched_to_be_seen():
  rgb = BYTES[..., :3]
  assert bands.to_show(rgb) is rgb
  image = 5 * FLOATS + 3000
  shown = bands.to_show(image)
  assert shown.shape == (6, 9, 3) and shown.dtype == np.uint8
  mean, std = image[..., 1].mean(), image[..., 1].std()
  expected = np.clip((image[..., 1] - mean + 2 * std) / (4 * std), 0, 1) * 255
  np.testing.assert_allclose(shown[..., 1], expected, atol=0.51)
  gray = bands.to_show(image[..., :2])
  np.testing.assert_array_equal(gray[..., 0], gray[..., 2])
  assert len(np.unique(bands.to_show(np.ones((2, 2, 1), np.float32)))) == 1


@pytest.mark.parametrize(
  ("count", "dtype"),
  [(1, np.uint8), (2, np.uint16), (3, np.int16), (7, np.uint8)],
)
def test_the_first_band_is_seen_whatever_numbers_it_has(count, dtype):
  image = np.repeat(np.arange(101)[None, :, None], count, -1).astype(dtype)
  shown = bands.to_show(image)
  assert shown.dtype == np.uint8 and shown.shape == (1, 101, 3)
  assert shown[0, 0].max() < 30 and shown[0, -1].min() > 225


def tree(root, images):
  """Write a data set of these images; returns its configuration."""
  trees.folder(root, images=0)
  for name, data in images.items():
    for split in ("train", "val"):
      path = root / "images" / split / name
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(data)
      stem = path.with_suffix(".png").name
      trees.mask(
        root / "labels" / split / stem, trees.labels(0, 1, size=(6, 9))
      )
  data = defaults.base().data
  data.name, data.root, data.channels = "folder", str(root), (4, 0)
  return data


def test_a_folder_of_many_kinds_of_files_is_one_data_set(tmp_path):
  images = {
    "a.npy": npy(WORDS),
    "b.npz": npz(WORDS),
    "c.tif": tiffs.encoded(WORDS),
  }
  data = tree(tmp_path, images)
  for split, count in (("train", 3), ("train+val", 6)):
    source = build.source(data, split)
    assert len(source) == count
    for i in range(count):
      np.testing.assert_array_equal(source[i]["image"], WORDS[..., (4, 0)])
  assert "3 masks checked" in str(check.check(build.source(data, "train")))


def test_without_channels_no_array_is_a_picture(tmp_path):
  tree(tmp_path, {"a.npy": npy(WORDS)})
  with pytest.raises(errors.InputError, match=r"with data.channels \.npy and"):
    folder.source(tmp_path, "train")


def test_a_mask_of_another_size_is_refused_before_training(tmp_path):
  data = tree(tmp_path, {"a.npy": npy(WORDS[:5])})
  with pytest.raises(errors.InputError, match=r"6x9 .*/a\.npy is 5x9"):
    check.check(build.source(data, "train"))


def test_bands_are_of_own_images_only():
  data = defaults.base().data
  data.channels = (0, 1)
  with pytest.raises(errors.InputError, match=r"\(0, 1\) are for .*folder"):
    build.source(data, "train")


def test_statistics_are_kept_given_or_measured(tmp_path):
  data = tree(tmp_path, {"a.npy": npy(WORDS)})
  source = build.source(data, "train")
  with pytest.raises(errors.InputError, match="channel_mean None is not one"):
    build.channels(data)
  assert build.fill_channels(data, source)
  found = build.channels(data)
  assert found is not None
  mean, std = found
  expected = WORDS[..., (4, 0)].astype(float)
  np.testing.assert_allclose(mean, expected.mean((0, 1)), rtol=1e-5)
  np.testing.assert_allclose(std, expected.std((0, 1)), rtol=1e-5)
  # What a run has kept, or was given, is not measured again.
  kept = json.loads(data.to_json())
  fresh = tree(tmp_path, {"a.npy": npy(WORDS)})
  old = defaults.base().data
  old.channel_mean = tuple(kept["channel_mean"])
  old.channel_std = (7.0, 8.0)
  assert not build.fill_channels(fresh, source, old)
  assert build.channels(fresh) == (mean, (7.0, 8.0))
  assert not build.fill_channels(fresh, source)
  assert fresh.channel_std == (7.0, 8.0)


@pytest.mark.parametrize(
  ("mean", "std", "message"),
  [
    ((1.0, 2.0), None, "give both"),
    (None, (1.0, 2.0), "give both"),
    ((1.0,), (1.0, 2.0), "not one number for each of the 2"),
    ((1.0, 2.0), (1.0, 0.0), "each must be above 0"),
    ((1.0, float("nan")), (1.0, 1.0), "not one number for each"),
  ],
)
def test_wrong_statistics_are_refused(tmp_path, mean, std, message):
  data = tree(tmp_path, {"a.npy": npy(WORDS)})
  data.channel_mean, data.channel_std = mean, std
  with pytest.raises(errors.InputError, match=message):
    build.fill_channels(data, build.source(data, "train"))
    build.channels(data)


def test_statistics_without_bands_are_refused():
  data = defaults.base().data
  data.channel_mean = (1.0, 1.0, 1.0)
  with pytest.raises(
    errors.InputError, match="data.channels, which is not set"
  ):
    build.fill_channels(data, Source([]))
