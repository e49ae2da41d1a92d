"""Every kind of image file and array, good and bad."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from clip4str.core.errors import ImageError
from clip4str.runtime.images import load_image, prepare


def picture(mode="RGB", size=(40, 20)):
    gradient = np.linspace(0, 255, size[0] * size[1] * 3).reshape(size[1], size[0], 3).astype(np.uint8)
    return Image.fromarray(gradient).convert(mode)


def encoded(image, **options):
    out = io.BytesIO()
    image.save(out, **{"format": "PNG", **options})
    return out.getvalue()


def test_preparation_is_pillows_bicubic_resize_then_normalisation():
    images = [picture(), picture(size=(300, 7))]
    pixels = prepare(images, (32, 128))
    assert pixels.shape == (2, 3, 32, 128) and pixels.dtype == np.float32 and pixels.flags["C_CONTIGUOUS"]
    for row, image in zip(pixels, images):
        resized = np.asarray(image.resize((128, 32), Image.Resampling.BICUBIC))
        np.testing.assert_allclose(row.transpose(1, 2, 0), (resized / 255 - 0.5) / 0.5, atol=1e-6)
    clip = prepare(images[:1], (32, 128), "clip")[0]
    back = clip * np.array([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    back += np.array([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    np.testing.assert_allclose(back * 2 - 1, pixels[0], atol=1e-5)


def test_paths_bytes_arrays_and_pil_images_are_the_same(tmp_path):
    image = picture()
    path = tmp_path / "a.png"
    image.save(path)
    sources = [
        path,
        str(path),
        path.read_bytes(),
        image,
        np.asarray(image),
        np.asarray(image)[:, ::-1][:, ::-1],
    ]
    for source in sources:
        assert np.array_equal(load_image(source), image)
    assert np.array_equal(load_image(np.asarray(image.convert("L"))), image.convert("L").convert("RGB"))


def test_unusual_modes():
    grey = np.linspace(0, 65535, 40 * 20).reshape(20, 40).astype(np.uint16)
    sixteen = np.asarray(load_image(encoded(Image.fromarray(grey))))
    np.testing.assert_allclose(sixteen[..., 0], grey / 257, atol=0.6)
    dark = np.asarray(load_image(encoded(Image.fromarray(grey // 300))))
    np.testing.assert_allclose(dark[..., 0], grey // 300 / 257, atol=0.6)  # not stretched: 16 bits are 16 bits
    eight_in_32 = np.asarray(load_image(Image.fromarray((grey // 257).astype(np.int32))))
    np.testing.assert_allclose(eight_in_32[..., 1], grey // 257, atol=0.6)
    cmyk = load_image(encoded(picture("CMYK"), format="JPEG", quality=95))
    assert np.abs(np.asarray(cmyk).astype(int) - np.asarray(picture())).mean() < 8
    for mode in ("P", "1", "L", "YCbCr", "LAB", "HSV"):
        assert load_image(picture(mode)).mode == "RGB"


@pytest.mark.parametrize("letters", [0, 100, 127])
def test_dark_letters_on_nothing_lie_on_white(letters):
    text = Image.new("RGBA", (40, 20), (0, 0, 0, 0))
    text.paste((letters, letters, letters, 255), (10, 5, 30, 15))
    for image in (text, text.convert("LA")):
        pixels = np.asarray(load_image(encoded(image)))
        assert pixels[0, 0].tolist() == [255, 255, 255] and pixels[10, 20].tolist() == [letters] * 3
    palette = picture("P")
    palette.info["transparency"] = 0
    assert load_image(encoded(palette, transparency=0)).mode == "RGB"


@pytest.mark.parametrize("letters", [(255, 255, 255), (255, 255, 0), (140, 140, 140)])
def test_light_letters_on_nothing_lie_on_black(letters):
    text = Image.new("RGBA", (40, 20), (255, 255, 255, 0))
    text.paste((*letters, 255), (10, 5, 30, 15))
    text.paste((*letters, 128), (30, 5, 32, 15))
    for source in (encoded(text), text, np.asarray(text)):
        pixels = np.asarray(load_image(source))
        assert pixels[0, 0].tolist() == [0, 0, 0] and pixels[10, 20].tolist() == list(letters)
        assert abs(int(pixels[10, 31, 0]) - letters[0] // 2) <= 1


def test_alpha_that_hides_nothing_changes_nothing_and_all_hidden_is_white():
    bright = np.full((20, 40, 3), 230, np.uint8)
    opaque = np.dstack([bright, np.full((20, 40), 255, np.uint8)])
    assert np.array_equal(load_image(opaque), bright)
    assert np.asarray(load_image(np.zeros((20, 40, 4), np.uint8))).min() == 255


def test_arrays_of_every_kind_are_the_pil_images_of_that_kind():
    for mode in ("L", "LA", "RGB", "RGBA"):
        image = picture(mode)
        assert np.array_equal(load_image(np.asarray(image)), load_image(image)), mode
    bits = picture("1")
    for array in (np.asarray(bits), np.asarray(bits)[..., None]):
        assert array.dtype == np.bool_ and np.array_equal(load_image(array), load_image(bits))
    grey = np.asarray(picture("L"))
    assert np.array_equal(load_image(grey[..., None]), load_image(grey))


def test_open_files_and_buffers_are_read(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(picture()))
    data = path.read_bytes()

    class Pipe:
        """Read once, from front to back."""

        def __init__(self):
            self.left = data

        def read(self, size=-1):
            now, self.left = self.left, b""
            return now

    with path.open("rb") as file, path.open() as text:
        for source in (file, file, io.BytesIO(data), bytearray(data), memoryview(data), Pipe()):
            assert np.array_equal(load_image(source), picture())
        with pytest.raises(ImageError, match=r"a\.png: opened as text"):
            load_image(text)
    with pytest.raises(ImageError, match=r"a\.png: the file is closed"):
        load_image(file)


def test_strips_of_a_large_picture_are_the_picture(monkeypatch):
    grey = np.linspace(0, 65535, 40 * 21).reshape(21, 40).astype(np.uint16)
    letters = np.dstack([np.full((21, 40, 3), 250, np.uint8), np.arange(840, dtype=np.uint8).reshape(21, 40)])
    sources = [Image.fromarray(grey), Image.fromarray(grey.astype(np.int32)), picture("CMYK"), picture("P"), letters]
    whole = [np.asarray(load_image(source)) for source in sources]
    monkeypatch.setattr("clip4str.runtime.images._STRIP_PIXELS", 100)
    for source, want in zip(sources, whole):
        assert np.array_equal(load_image(source), want)


def test_pipes_and_devices_are_refused_without_opening_them(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")  # which would wait for ever for somebody to write into it
    for path in (tmp_path / "a.jpg", "/dev/zero"):
        with pytest.raises(ImageError, match="a pipe or a device, not an image file"):
            load_image(path)


def test_line_breaks_and_escapes_in_names_are_shown_escaped():
    with pytest.raises(ImageError) as caught:
        load_image("two\nlines \x1b[31m.png")
    assert str(caught.value) == "two\\nlines \\x1b[31m.png: no such file"


def test_exif_rotation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate 90 degrees clockwise to show
    sideways = encoded(picture(), format="JPEG", exif=exif)
    assert load_image(sideways).size == (20, 40)
    damaged = encoded(picture(), exif=b"Exif\x00\x00no exif at all")
    assert load_image(damaged).size == (40, 20)


def bomb():
    """A valid PNG header claiming 30,000 x 30,000 pixels, a kilobyte long."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000)))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"", "the file is empty"),
        (b"certainly no image", "not an image"),
        (encoded(picture())[:100], "damaged image"),
        (encoded(picture(size=(1, 1))), "1x1 pixels hold no word"),
        (encoded(picture(size=(50, 1))), "50x1 pixels hold no word"),
        (bomb(), "pixels"),
        (encoded(picture(), format="EPS"), "not an image"),  # Pillow would start Ghostscript
        (encoded(picture("F"), format="TIFF"), "floating-point pixels"),
        (np.zeros((0, 10, 3), np.uint8), "hold no word"),
        (np.zeros((8, 8, 3), np.float32), r"expected uint8 of shape \(H, W, 3\)"),
        (np.zeros((8, 8, 5), np.uint8), "expected uint8"),
        (np.zeros((2, 8, 8, 3), np.uint8), "expected uint8"),
        (None, "a NoneType is not an image; taken are paths"),
        ([[0, 255], [255, 0]], "a list is not an image"),
        (bytearray(), "the file is empty"),
        (io.BytesIO(), "the file is empty"),
        (io.StringIO("text"), "opened as text; open it in binary"),
        ("a\0b.png", "null"),
        ("no/such/file.png", "no such file"),
        (".", "is a folder"),
    ],
)
def test_bad_images_are_one_line_errors(source, message):
    with pytest.raises(ImageError, match=message) as caught:
        load_image(source)
    assert "\n" not in str(caught.value)


def test_an_empty_file_and_a_large_one(tmp_path):
    empty = tmp_path / "empty.jpg"
    empty.touch()
    with pytest.raises(ImageError, match=r"empty\.jpg: the file is empty"):
        load_image(empty)
    with pytest.raises(ImageError, match="64,000,000 pixels allowed"):
        load_image(Image.new("1", (10_000, 7_000)))


def test_a_jpeg_that_goes_over_its_pixels_for_ever(tmp_path):
    """Each of the scans is ten bytes and a pass over all pixels."""
    plain = encoded(Image.new("L", (1024, 1024), 128), format="JPEG", progressive=True)
    last = plain[plain.rindex(b"\xff\xda") : -2]
    endless = plain[:-2] + 2000 * last + plain[-2:]
    for source in (endless, io.BytesIO(endless), tmp_path / "endless.jpg"):
        if isinstance(source, type(tmp_path)):
            source.write_bytes(endless)
        with pytest.raises(ImageError, match=r"goes over its 1024x1024 pixels 2,0\d\d times"):
            load_image(source)
    assert load_image(plain).size == load_image(plain[:-2] + 300 * last + plain[-2:]).size == (1024, 1024)
    with (tmp_path / "endless.jpg").open("wb") as file:
        file.write(plain)
        file.truncate(1 << 33)
    with pytest.raises(ImageError, match="a JPEG of more than 71,303,168 bytes"):
        load_image(tmp_path / "endless.jpg")
