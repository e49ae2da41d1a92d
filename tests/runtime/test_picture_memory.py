"""Small files that would be large pictures: in a process that may take no more memory than one picture is allowed."""

import io
import json
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from clip4str.core.errors import ImageError
from clip4str.runtime.images import MAX_PIXELS, PICTURE_BYTES, load_fitted

resource = pytest.importorskip("resource")

# Every source is read as Recognizer.read_each does it, with the memory that the process has then and a picture's more.
CHILD = """
import json, resource, sys, time
import numpy as np
from PIL import Image
from clip4str.core.errors import ImageError
from clip4str.runtime.images import PICTURE_BYTES, load_fitted
load_fitted(np.zeros((40, 60, 3), np.uint8), (64, 64))
with open("/proc/self/statm") as file:
    now = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + PICTURE_BYTES, resource.RLIM_INFINITY))
for path in sys.argv[1:]:
    try:
        print(json.dumps(list(load_fitted(path, (224, 224))[1])), flush=True)
    except ImageError as error:
        print(json.dumps(str(error)), flush=True)
"""


def blank_png(path, width, height, depth, kind):
    """A PNG of zeros, row by row: never whole in memory."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    channels = {0: 1, 2: 3, 6: 4}[kind]
    row, packer = bytes(1 + width * channels * depth // 8), zlib.compressobj(1)
    rows = max(1, min(height, 8_000_000 // len(row)))
    data = [packer.compress(row * min(rows, height - top)) for top in range(0, height, rows)]
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    packed = b"".join(data) + packer.flush()
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b""))
    return path


def test_a_picture_takes_at_most_what_is_stated_and_the_next_one_is_read(tmp_path):
    """16 bits went through 24 bytes a pixel, and a picture as tall as this one to gigabytes on its way to the size."""
    Image.new("RGB", (40, 20)).save(tmp_path / "good.png")
    sources = [
        blank_png(tmp_path / "grey16.png", 8000, 8000, 16, 0),
        blank_png(tmp_path / "alpha.png", 8000, 8000, 8, 6),
        blank_png(tmp_path / "thin.png", 2, 1_000_000, 8, 2),
        blank_png(tmp_path / "tall.png", 2, 65_535, 8, 2),
        blank_png(tmp_path / "flat.png", 30_000_000, 2, 8, 0),
        tmp_path / "good.png",
    ]
    done = subprocess.run([sys.executable, "-c", CHILD, *map(str, sources)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    grey, alpha, thin, tall, flat, good = [json.loads(line) for line in done.stdout.splitlines()]
    assert grey == alpha == [8000, 8000] and MAX_PIXELS == 8000**2 and tall == [2, 65_535] and good == [40, 20]
    assert thin == f"{sources[2]}: 2x1000000 pixels hold no word: a side may have 65,535"
    assert flat == f"{sources[4]}: 30000000x2 pixels hold no word: a side may have 65,535"


def test_a_wide_network_does_not_take_tall_pictures():
    with pytest.raises(ImageError, match="2x60000 pixels take 248 MB to resize; a word is not that long"):
        load_fitted(np.zeros((60_000, 2, 3), np.uint8), (64, 1024))


def test_pictures_longer_than_any_word_but_within_the_bound_are_pillows_to_the_pixel():
    for shape in ((65_535, 3), (3, 65_535)):  # as long as a JPEG can be
        values = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
        across = Image.fromarray(values).resize((128, shape[0]), Image.Resampling.BICUBIC)
        want = np.asarray(across.resize((128, 32), Image.Resampling.BICUBIC))
        assert np.array_equal(load_fitted(values, (32, 128))[0], want)


@pytest.mark.parametrize("step", ["PIL.PngImagePlugin.PngImageFile.load", "PIL.Image.Image.resize"])
def test_memory_that_runs_out_is_that_pictures_error(step, monkeypatch):
    def refuse(*_):
        raise MemoryError

    out = io.BytesIO()
    Image.new("RGB", (40, 20)).save(out, "PNG")
    monkeypatch.setattr(step, refuse)
    with pytest.raises(ImageError, match="<bytes>: not enough memory"):
        load_fitted(out.getvalue(), (32, 128))


def test_the_stated_number_is_what_the_pages_say():
    assert PICTURE_BYTES == 600_000_000 == 8 * MAX_PIXELS + 88_000_000
