"""Hostile pictures: bombs, lies about sizes, what starts programs, what never ends."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
from corpus import ANSWERED, EITHER, REFUSED, each, hostile
from PIL import Image
from png import SIGNATURE, black, chunk, header, zeros

KIND = "pictures"
MB = 1 << 20


def crop(size: tuple[int, int] = (120, 40)) -> Image.Image:
    """Stripes: compresses badly enough to have something to damage."""
    rows, columns = np.mgrid[: size[1], : size[0]]
    return Image.fromarray(np.stack([rows * 5 % 256, columns * 7 % 256, (rows * columns) % 256], -1).astype(np.uint8))


def encoded(form: str, image: Image.Image | None = None, **options: object) -> bytes:
    buffer = io.BytesIO()
    (image or crop()).save(buffer, form, **options)
    return buffer.getvalue()


def tiff(entries: list[tuple[int, int, int, int]], after: bytes = b"", following: int = 0) -> bytes:
    """A little-endian TIFF of one directory: (tag, type, count, value or offset)."""
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + packed + struct.pack("<I", following) + after


def tiff_of(width: int, height: int, bits: int, compression: int, data: bytes, extra: list = ()) -> bytes:
    entries = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, bits), (259, 3, 1, compression), (262, 3, 1, 1)]
    entries += [(277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, len(data)), *extra]
    entries.append((273, 4, 1, 8 + 2 + 12 * (len(entries) + 1) + 4))
    return tiff(sorted(entries), data)


def jpeg_with_exif(exif: bytes) -> bytes:
    data = encoded("JPEG")
    body = b"Exif\0\0" + exif
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]


def jpeg_of_size(width: int, height: int) -> bytes:
    """A small picture whose header says another size."""
    data = encoded("JPEG")
    frame = data.index(b"\xff\xc0") + 5
    return data[:frame] + struct.pack(">HH", height, width) + data[frame + 4 :]


def progressive_without_end(scans: int = 3000, size: int = 2048) -> bytes:
    """A progressive JPEG whose last scan is repeated: each costs a pass over all blocks."""
    data = encoded("JPEG", Image.new("L", (size, size), 128), progressive=True, quality=60)
    start = data.rindex(b"\xff\xda")
    return data[:start] + scans * data[start:-2] + data[-2:]


def gif_of(width: int, height: int, frames: int = 1, screen: tuple[int, int] | None = None) -> bytes:
    """Frames of one pixel's worth of data each."""
    frame = b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x44\x01\x00"
    head = b"GIF89a" + struct.pack("<HHBBB", *(screen or (width, height)), 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    return head + frames * frame + b";"


def bmp_of(width: int, height: int, bits: int = 24, compression: int = 0, colours: int = 0, data: bytes = b"") -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(data), 0, 0, colours, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(data), 0, 0, 54) + info + data


def frames(form: str, count: int = 1000) -> bytes:
    first = Image.new("RGB", (32, 8), "white")
    others = [Image.new("RGB", (32, 8), (n % 256, n // 256, 0)) for n in range(1, count)]
    return encoded(form, first, save_all=True, append_images=others)


# Bombs: small files, large pictures. What is at most as large as allowed may be read, within memory and time.
each(KIND, EITHER, {
    "a ribbon of 2 x 1,000,000": lambda: black(2, 1_000_000),
    "a ribbon of 1,000,000 x 2": lambda: black(1_000_000, 2),
    "a ribbon of 2 x 1,000,000 in colour": lambda: black(2, 1_000_000, 8, 6),
    "16 bits, 8000 x 8000": lambda: black(8000, 8000, 16, 0),
    "16 bits and transparency, 7990 x 8000": lambda: black(7990, 8000, 16, 6),
    "a palette and transparency, 8000 x 8000":
        lambda: black(8000, 8000, 8, 3, chunk(b"PLTE", bytes(768)) + chunk(b"tRNS", bytes(256))),
    "one bit, 8000 x 8000": lambda: black(8000, 8000, 1, 0),
    "a deflated TIFF of 32 bits, 7000 x 7000": lambda: tiff_of(7000, 7000, 32, 8, zeros(4 * 7000 * 7000)),
    "a deflated TIFF of 16 bits, 8000 x 8000": lambda: tiff_of(8000, 8000, 16, 8, zeros(2 * 8000 * 8000)),
    "a progressive JPEG of 3000 scans": progressive_without_end,
    "a WebP of 8000 x 8000 without loss":
        lambda: encoded("WEBP", Image.new("RGB", (8000, 8000)), lossless=True, quality=0, method=0),
    "a GIF of 8000 x 8000": lambda: gif_of(8000, 8000),
    "run lengths of 8000 x 8000": lambda: bmp_of(8000, 8000, 8, 1, 0, b"\xff\0" * 100_000),
})  # fmt: skip
each(KIND, REFUSED, {
    "30,000 x 30,000": lambda: black(30_000, 30_000, 1, 0),
    "a header of 2^31 - 1 pixels a side": SIGNATURE + header(2**31 - 1, 2**31 - 1) + chunk(b"IDAT", zeros(10)),
    "a header of 2^32 - 1 pixels a side": SIGNATURE + header(2**32 - 1, 2**32 - 1) + chunk(b"IDAT", zeros(10)),
    "a GIF of 65,535 x 65,535": gif_of(65_535, 65_535),
    "a GIF frame larger than its screen": gif_of(65_535, 65_535, screen=(40, 20)),
    "a JPEG header of 65,500 x 65,500": jpeg_of_size(65_500, 65_500),
    "a PPM of 10^9 x 10^9": b"P6 999999999 999999999 255\n" + bytes(100),
    "a PPM that says 20 digits": b"P6 " + b"9" * 20 + b" 2 255\n" + bytes(100),
    "a PPM of endless digits": b"P6 " + b"1" * MB,
    "a BMP of 2^31 - 1 pixels a side": bmp_of(2**31 - 1, 2**31 - 1),
    "a BMP of minus 2^31 rows": bmp_of(20, -(2**31)),
    "a TIFF of 2^32 - 1 pixels a side": tiff_of(2**32 - 1, 2**32 - 1, 8, 1, bytes(100)),
}, says="pixels|damaged|not an image")  # fmt: skip

# Lies: fewer pixels than the header says, offsets that lead away or in circles.
each(KIND, EITHER, {
    "8000 x 8000 with ten rows": lambda: black(8000, 8000, 8, 2, rows=10),
    "a PNG without pixels": SIGNATURE + header(40, 20) + chunk(b"IEND", b""),
    "a PNG without an end": black(40, 20)[:-12],
    "a palette that is missing": black(40, 20, 8, 3),
    "a transparency longer than the palette":
        black(40, 20, 8, 3, chunk(b"PLTE", bytes(6)) + chunk(b"tRNS", bytes(256))),
    "two headers": black(40, 20, before=header(60_000, 60_000)),
    "an animation of 2^31 frames": black(40, 20, before=chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0))),
    "a JPEG that says 8000 x 8000": jpeg_of_size(8000, 8000),
    "a JPEG that says 0 x 0": jpeg_of_size(0, 0),
    "a GIF of a thousand frames": lambda: gif_of(40, 20, 1000),
    "a TIFF of directories in a circle": tiff([(256, 4, 1, 40), (257, 4, 1, 20)], following=8),
    "a TIFF tag of 2^32 - 1 values": tiff_of(40, 20, 8, 1, bytes(800), [(339, 3, 2**32 - 1, 8)]),
    "a TIFF whose strips lie outside": tiff([
        (256, 4, 1, 40), (257, 4, 1, 20), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 2**32 - 9),
        (278, 4, 1, 20), (279, 4, 1, 800)]),
    "a TIFF of 65,535 tags": tiff([(n, 3, 1, 1) for n in range(65_535)]),
    "a TIFF of floats that are no numbers":
        tiff_of(40, 20, 32, 1, np.full(800, np.nan, np.float32).tobytes(), [(339, 3, 1, 3)]),
    "a BMP of run lengths past its end": bmp_of(40, 20, 8, 1, 0, b"\0\2\xff\xff" * 200),
    "a BMP of 2^32 - 1 colours": bmp_of(40, 20, 8, 0, 2**32 - 1, bytes(2000)),
    "an animated WebP": lambda: frames("WEBP", 100),
    "an MPO of pictures elsewhere": lambda: encoded("MPO", save_all=True, append_images=[crop()]).replace(
        b"\x00\x00\xb0\x02", b"\x00\x00\xb0\xff"),
})  # fmt: skip


def _gamma(data: bytes) -> bytes:
    """One flipped byte in each hundred."""
    return bytes(byte ^ 0xFF if k % 100 == 99 and k > 20 else byte for k, byte in enumerate(data))


for form in ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF", "MPO"):
    each(KIND, EITHER, {
        f"{form} cut in the middle": lambda form=form: (data := encoded(form))[: len(data) // 2],
        f"{form} cut after 40 bytes": lambda form=form: encoded(form)[:40],
        f"{form} with damage all over": lambda form=form: _gamma(encoded(form)),
        f"{form} and a megabyte of nothing": lambda form=form: encoded(form) + bytes(MB),
    })  # fmt: skip

# What hides beside the pixels.
each(KIND, EITHER, {
    "a colour profile of 100 MB": lambda: black(40, 20, before=chunk(b"iCCP", b"a\0\0" + zeros(100 * MB))),
    "a text of 100 MB": lambda: black(40, 20, before=chunk(b"zTXt", b"a\0\0" + zeros(100 * MB))),
    "a hundred texts of 1 MB":
        lambda: black(40, 20, before=100 * chunk(b"iTXt", b"a\0\1\0\0\0" + zeros(MB))),
    "an XMP of orientations": black(40, 20, before=chunk(
        b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + b'tiff:Orientation="9"' * 1000)),
    "an orientation of 99": jpeg_with_exif(tiff([(274, 3, 1, 99)])),
    "an orientation that is a text": jpeg_with_exif(tiff([(274, 2, 4, 0x41414141)])),
    "an orientation of 2^32 - 1 values": jpeg_with_exif(tiff([(274, 3, 2**32 - 1, 6)])),
    "EXIF in a circle": jpeg_with_exif(tiff([(274, 3, 1, 6), (34665, 4, 1, 8)], following=8)),
    "EXIF cut short": jpeg_with_exif(tiff([(274, 3, 1, 6)])[:14]),
    "EXIF that is none": jpeg_with_exif(b"\xff" * 200),
    "a PNG with a damaged EXIF": black(40, 20, before=chunk(b"eXIf", b"MM\0*\0\0\0\x08\xff\xff")),
})  # fmt: skip

# Other formats under a picture's name: some would start programs.
SCRIPT = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 50\n%%EndComments\n(owned) (w) file closefile showpage\n%%EOF"
)
each(KIND, REFUSED, {
    "an EPS": SCRIPT,
    "an EPS in a DOS envelope": b"\xc5\xd0\xd3\xc6" + struct.pack("<II", 32, len(SCRIPT)) + bytes(20) + SCRIPT,
    "a PDF": b"%PDF-1.4\n1 0 obj\n<< /Type /Catalog >>\nendobj\n%%EOF",
    "an SVG that names a file": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "a web page": b"<!doctype html><title>404</title>",
    "a pickle": b"\x80\x04cos\nsystem\n(S'true'\ntR.",
    "an archive": b"PK\x03\x04" + bytes(100),
    "a GIF's first six bytes": b"GIF89a",
    "nothing": b"",
    "a single zero": b"\0",
    "a megabyte of zeros": bytes(MB),
    "a PNG's signature": SIGNATURE,
    "a WebP's frame alone": b"RIFF\xff\xff\xff\xffWEBPVP8 \xff\xff\xff\xff",
    "an AVIF's frame alone": struct.pack(">I", 24) + b"ftypavif" + bytes(4) + b"avifmif1",
    "a JPEG 2000's frame alone": b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0\0\0\0jp2h",
}, says="not an image|damaged|empty")  # fmt: skip


@hostile(KIND, REFUSED, says="folder", name="a folder")
def _(path: Path) -> None:
    path.mkdir()


@hostile(KIND, REFUSED, name="a pipe that nobody writes to")
def _(path: Path) -> None:
    os.mkfifo(path)


@hostile(KIND, REFUSED, name="a link to endless zeros")
def _(path: Path) -> None:
    path.symlink_to("/dev/zero")


@hostile(KIND, EITHER, name="a JPEG of 8 GB, nearly all of them a hole")
def _(path: Path) -> None:
    path.write_bytes(encoded("JPEG"))
    os.truncate(path, 8 << 30)


@hostile(KIND, EITHER, name="a PNG of 8 GB, nearly all of them a hole")
def _(path: Path) -> None:
    path.write_bytes(SIGNATURE + header(40, 20) + struct.pack(">I", 2**31 - 1) + b"IDAT" + zlib.compress(b"")[:2])
    os.truncate(path, 8 << 30)


# A newline in the name must not become one in the message.
@hostile(KIND, REFUSED, name="a name of\ntwo lines \x1b[31m")
def _(path: Path) -> None:
    path.write_bytes(b"no picture")


@hostile(KIND, ANSWERED, name="a good crop")
def _(path: Path) -> None:
    path.write_bytes(encoded("PNG"))
