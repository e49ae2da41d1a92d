"""How large a picture may be, and how much work: small files can be large pictures."""

from __future__ import annotations

from PIL import Image

from clip4str.core.errors import ImageError

MAX_PIXELS = 64_000_000  # a word crop is thousands; anything larger is a mistake or a decompression bomb
MAX_SIDE = 65_535  # as long as a JPEG can be
# Most memory that one picture may take: twice its pixels (as decoded, and turned or converted; Pillow has 4 bytes for
# each) and what the resize makes. What decoders have for themselves comes on top.
RESIZE_BYTES = 88_000_000
PICTURE_BYTES = 2 * 4 * MAX_PIXELS + RESIZE_BYTES
# A JPEG may go over its pixels again and again, a few bytes a time. Twenty times is more than any encoder does.
SCANNED_PIXELS = 20 * MAX_PIXELS
JPEG_BYTES = 1 << 26  # of a JPEG file, and 4 more a pixel: where its scans are counted


def check_size(size: tuple[int, int], name: str) -> None:
    """size: (width, height). Raises ImageError, which calls the picture `name`."""
    width, height = size
    if width < 2 or height < 2:
        raise ImageError(f"{name}: {width}x{height} pixels hold no word")
    if max(width, height) > MAX_SIDE:
        raise ImageError(f"{name}: {width}x{height} pixels hold no word: a side may have {MAX_SIDE:,}")
    if width * height > MAX_PIXELS:
        raise ImageError(f"{name}: {width}x{height} is more than the {MAX_PIXELS:,} pixels allowed")


def check_scans(image: Image.Image, name: str) -> None:
    """That a JPEG is not decoded for minutes. Leaves its file where it was. Raises ImageError."""
    file = getattr(image, "fp", None)
    if image.format not in ("JPEG", "MPO") or file is None:
        return
    pixels, place, scans, last = image.width * image.height, file.tell(), 0, b""
    most = JPEG_BYTES + 4 * pixels
    file.seek(0)
    for _ in range(0, most, 1 << 20):
        block = file.read(1 << 20)
        if not block:
            break
        scans += (last + block).count(b"\xff\xda")  # within a scan's data no 0xff is followed by it
        last = block[-1:]
    else:
        if file.read(1):
            raise ImageError(f"{name}: a JPEG of more than {most:,} bytes for {image.width}x{image.height} pixels")
    file.seek(place)
    if scans * pixels > SCANNED_PIXELS:
        raise ImageError(f"{name}: goes over its {image.width}x{image.height} pixels {scans:,} times; save it anew")
