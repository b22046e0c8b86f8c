import io

import numpy as np
from PIL import Image
import pytest

from deeplax import errors
from deeplax.data import files
from deeplax.data import spec
from tests.data import trees


def encoded(picture: Image.Image, kind: str = "PNG", **options) -> bytes:
  data = io.BytesIO()
  picture.save(data, kind, **options)
  return data.getvalue()


def rgb() -> Image.Image:
  rng = np.random.default_rng(0)
  return Image.fromarray(rng.integers(0, 256, (8, 12, 3), dtype=np.uint8))


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK", "I;16"])
def test_images_of_every_mode_become_rgb(mode):
  picture = rgb()
  if mode == "I;16":
    grey = np.asarray(picture.convert("L"))
    data = encoded(Image.fromarray(grey.astype(np.uint16) * 257))
    expected = np.repeat(grey[..., None], 3, axis=-1)
  else:
    picture = picture.convert(mode)
    kind = "TIFF" if mode == "CMYK" else "PNG"
    data = encoded(picture, kind)
    expected = np.asarray(picture.convert("RGB"))
  image = files.decode_image(data, "x")
  assert image.dtype == np.uint8
  np.testing.assert_allclose(image.astype(int), expected.astype(int), atol=1)


def test_jpeg_is_decoded_to_the_numbers_of_pillow():
  data = encoded(rgb(), "JPEG", quality=90)
  expected = np.asarray(Image.open(io.BytesIO(data)))
  np.testing.assert_array_equal(files.decode_image(data, "x"), expected)


def test_exif_orientation_turns_the_image_upright():
  exif = Image.Exif()
  exif[274] = 6
  data = encoded(rgb(), "JPEG", exif=exif)
  assert files.decode_image(data, "x").shape == (12, 8, 3)
  assert files.image_size(data, "x") == ((12, 8), True)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("keep", [0.0, 0.6])
def test_cut_off_image_is_an_error_that_names_it(kind, keep):
  rng = np.random.default_rng(0)
  noise = rng.integers(0, 256, (90, 90, 3), dtype=np.uint8)
  data = encoded(Image.fromarray(noise), kind)
  with pytest.raises(errors.InputError, match=r"a\.jpg is not a whole"):
    files.decode_image(data[: int(keep * len(data))], "a.jpg")


def test_masks_keep_their_numbers():
  labels = trees.labels(0, 3, 20, 255)
  plain = encoded(Image.fromarray(labels))
  colored = Image.fromarray(labels)
  colored.putpalette([v for c in spec.color_map(256) for v in c])
  wide = encoded(Image.fromarray(labels.astype(np.uint16) + 300))
  one_bit = encoded(Image.fromarray(labels > 0))
  np.testing.assert_array_equal(files.decode_label(plain, "x"), labels)
  np.testing.assert_array_equal(
    files.decode_label(encoded(colored), "x"), labels
  )
  np.testing.assert_array_equal(files.decode_label(wide, "x"), labels + 300.0)
  np.testing.assert_array_equal(files.decode_label(one_bit, "x"), labels > 0)
  assert files.decode_label(one_bit, "x").dtype == np.uint8


def test_numbers_without_a_class_become_illegal_not_ignored():
  table = files.plain_table(3, ignore_label=7)
  raw = np.array([[0, 2, 7, 3, 255]])
  for dtype in (np.uint8, np.uint16, np.int32):
    np.testing.assert_array_equal(
      files.apply_table(raw.astype(dtype), table), [[0, 2, 255, 254, 254]]
    )
  np.testing.assert_array_equal(
    files.apply_table(np.array([[-1, 256, 65535]]), table), 254
  )
