import io
import tracemalloc

import numpy as np
from PIL import Image
from PIL import PngImagePlugin
import psutil
import pytest

from deeplax import errors
from deeplax.data import decoding
from deeplax.data.formats import pictures
from tests.data import tiffs

# Above what Pillow's Image.open refuses: 2 x 89,478,485.
LARGE = (13400, 13400)


def encoded(picture: Image.Image, kind: str, **options) -> bytes:
  data = io.BytesIO()
  picture.save(data, kind, **options)
  return data.getvalue()


def test_only_pictures_are_opened():
  # Of PostScript, Pillow would start another program to see its pixels.
  script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
  with Image.open(io.BytesIO(script)) as found:
    assert found.format == "EPS"
  for data in (script, b"", b"P", b"GIF"):
    for read in (decoding.decode_label, decoding.image_header):
      with pytest.raises(errors.InputError, match=r"x\.png is not a readable"):
        read(data, "x.png")


@pytest.mark.parametrize(
  "kind",
  ["PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "PPM", "JPEG2000", "AVIF"],
)
def test_pictures_of_each_kind_are_opened(kind):
  data = encoded(Image.fromarray(np.eye(9, dtype=np.uint8)), kind)
  with pictures.opened(io.BytesIO(data)) as found:
    assert found.format == kind and found.size == (9, 9)


BIG = (20, 30)
EYE = np.eye(*BIG, dtype=np.uint8)
MASKS = {
  "PNG": encoded(Image.fromarray(EYE), "PNG"),
  "GIF": encoded(Image.fromarray(EYE), "GIF"),
  "BMP": encoded(Image.fromarray(EYE), "BMP"),
  "TIFF": tiffs.encoded(EYE[..., None]),
  "1 bit TIFF": encoded(Image.fromarray(EYE > 0), "TIFF"),
  "Deflate": tiffs.encoded(EYE[..., None], deflate=True, rows=20),
  "16 bit, tiled": tiffs.encoded(
    EYE[..., None].astype(np.uint16), deflate=True, tile=(16, 16)
  ),
}


@pytest.mark.parametrize("kind", MASKS)
def test_masks_above_the_limit_of_pillow_are_read(kind, monkeypatch):
  monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
  label = decoding.decode_label(MASKS[kind], "x")
  assert label.dtype == np.uint8
  np.testing.assert_array_equal(label, EYE)
  assert decoding.image_header(MASKS[kind], "x") == (BIG, 1)


@pytest.mark.parametrize("kind", [*MASKS, "JPEG", "WEBP", "GIF of two"])
def test_images_above_the_limit_of_pillow_are_read(kind, monkeypatch):
  if kind == "GIF of two":
    pictures_ = [Image.fromarray(EYE * i) for i in (255, 100)]
    data = encoded(
      pictures_[0], "GIF", save_all=True, append_images=pictures_[1:]
    )
  else:
    data = MASKS.get(kind) or encoded(Image.fromarray(EYE * 255), kind)
  monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
  if kind.startswith("16"):
    with pytest.raises(errors.InputError, match="dark or black picture"):
      decoding.decode_image(data, "x")
  else:
    assert decoding.decode_image(data, "x").shape == (*BIG, 3)
  assert decoding.image_header(data, "x") == (BIG, 1)


@pytest.mark.slow
def test_masks_and_images_of_180_megapixels_are_read():
  mask = encoded(Image.new("1", LARGE, 1), "PNG", compress_level=1)
  assert decoding.decode_label(mask, "x").shape == LARGE
  data = encoded(Image.new("L", LARGE, 7), "PNG", compress_level=1)
  image = decoding.decode_image(data, "x")
  assert image.shape == (*LARGE, 3) and image[-1, -1].tolist() == [7, 7, 7]


def test_the_limit_of_pillow_stands_for_all_others():
  limit = Image.MAX_IMAGE_PIXELS
  with pictures.any_size():
    with pictures.any_size():
      assert Image.MAX_IMAGE_PIXELS is None
    assert Image.MAX_IMAGE_PIXELS is None
  assert Image.MAX_IMAGE_PIXELS == limit
  with pytest.raises(errors.InputError):
    decoding.decode_label(b"x", "x")
  assert Image.MAX_IMAGE_PIXELS == limit


def test_a_file_is_read_to_its_end_at_most(tmp_path):
  path = tmp_path / "x"
  path.write_bytes(b"0123456789")
  with path.open("rb") as file:
    bounded = pictures.Bounded(file)
    tracemalloc.start()
    try:
      assert bounded.read(4) == b"0123" and bounded.read(2**28) == b"456789"
      assert bounded.read() == b"" == bounded.read(1)
      assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
      tracemalloc.stop()
    bounded.seek(8)
    assert bounded.read() == b"89" and bounded.tell() == 10


class Memory:
  available = 10**8


@pytest.mark.parametrize("kind", ["PNG", "GIF", "TIFF"])
def test_what_memory_does_not_hold_is_refused_in_one_line(kind, monkeypatch):
  picture = Image.new("L", (5000, 4000))
  if kind == "TIFF":
    data = tiffs.encoded(np.asarray(picture)[..., None], rows=4000)
  else:
    data = encoded(picture, kind)
  monkeypatch.setattr(psutil, "virtual_memory", Memory)
  monkeypatch.setattr(decoding, "_LARGE", 0)
  monkeypatch.setattr(Memory, "available", 10**7)
  for read in (decoding.decode_label, decoding.decode_image):
    with pytest.raises(errors.InputError) as error:
      read(data, "x.png")
    assert str(error.value).startswith("x.png has 4000x5000 pixels")
    assert "0.01 GB are free" in str(error.value)
    assert "\n" not in str(error.value)


def test_pictures_that_fit_are_not_refused(monkeypatch):
  monkeypatch.setattr(psutil, "virtual_memory", Memory)
  pictures.refuse_too_large((5000, 5000), 4, "x")
  with pytest.raises(errors.InputError, match=r"takes 0\.125 GB"):
    pictures.refuse_too_large((5000, 5000), 5, "x")


def test_the_header_of_a_png_is_read_without_its_pixels(tmp_path, monkeypatch):
  image = Image.fromarray(np.zeros((5, 7), np.uint8))
  text = PngImagePlugin.PngInfo()
  text.add_text("Software", "a camera")
  data = encoded(image, "PNG", pnginfo=text)
  monkeypatch.delattr(PngImagePlugin.PngImageFile, "load_prepare")
  assert decoding.image_header(data, "x.png") == ((5, 7), 1)
  (tmp_path / "x.png").write_bytes(data)
  with (tmp_path / "x.png").open("rb") as file:
    assert decoding.image_header(file, "x.png") == ((5, 7), 1)


@pytest.mark.parametrize("kind", ["eXIf", "behind", "zTXt", "iTXt"])
def test_the_orientation_of_a_png_is_found_wherever_it_is(kind):
  image, exif = Image.fromarray(np.zeros((5, 7), np.uint8)), Image.Exif()
  exif[274] = 6
  text = PngImagePlugin.PngInfo()
  if kind == "zTXt":  # as ImageMagick writes it
    lines = f"\nexif\n{len(exif.tobytes()):8}\n{exif.tobytes().hex()}\n"
    text.add_text("Raw profile type exif", lines, zip=True)
  elif kind == "iTXt":
    text.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
  before = {"exif": exif} if kind in ("eXIf", "behind") else {}
  data = encoded(image, "PNG", pnginfo=text, **before)
  if kind == "behind":
    start = data.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4], "big")
    last = data.index(b"IEND") - 4
    chunk = data[start:end]
    rest = data[:last] + chunk + data[last:]
    data = rest.replace(chunk, b"", 1)
    assert data.index(b"eXIf") > data.index(b"IDAT")
  assert decoding.image_header(data, "x.png") == ((5, 7), 6)
