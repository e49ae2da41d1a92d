"""Pictures decoded by several threads into a block that a GPU fetches: what it finds there, resized by the operator's
reference, is what the host makes of them."""

import io
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from clip4str.core.errors import BackendError, ImageError
from clip4str.kernels.resize import resize
from clip4str.runtime import staging
from clip4str.runtime.images import load_image, prepare
from clip4str.runtime.loading import HostLoading
from clip4str.runtime.staging import Block, Stager, block_bytes

SIZE = (16, 40)


class HostSlot:
    """A slot whose GPU is the host: send copies, as a GPU would."""

    made: list

    def __init__(self, rows):
        self.memory = np.full(block_bytes(rows, SIZE), 0xCB, np.uint8)
        self.block, self.sent, self.closed = Block(self.memory, rows, SIZE), None, False
        type(self).made.append(self)

    def send(self, count, normalization):
        assert not self.closed
        self.sent = self.memory[: self.block.used].copy()

    def pixels(self, count, normalization):
        if not count:
            return np.empty((0, 3, *SIZE), np.float32)
        table = self.sent[: 12 * self.block.rows].view(np.int32).reshape(-1, 3)[:count]
        pixels = torch.from_numpy(self.sent[self.block.head :])
        return resize(pixels, table, SIZE, normalization=normalization).numpy()

    def close(self):
        self.closed = True


@pytest.fixture
def stager(monkeypatch):
    HostSlot.made = []
    made = Stager(SIZE, 8, 3, HostSlot)
    yield made
    made.close()
    assert all(slot.closed for slot in HostSlot.made)


def noise(height, width, *channels, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, *channels), dtype=np.uint8)


def encoded(picture, form="PNG", **options):
    out = io.BytesIO()
    picture.save(out, form, **options)
    return out.getvalue()


def of_every_kind(tmp_path):
    """Names and sources: good and bad, from everywhere a picture can come from."""
    rgb, rgba = Image.fromarray(noise(21, 50, 3)), Image.fromarray(noise(21, 50, 4))
    path = tmp_path / "crop.jpg"
    path.write_bytes(encoded(rgb, "JPEG", exif=Image.Exif()))
    (tmp_path / "cut.png").write_bytes(encoded(rgb)[:900])
    (tmp_path / "empty.png").write_bytes(b"")
    turned = Image.Exif()
    turned[0x0112] = 6
    return {
        "path": path, "text path": str(path), "bytes": encoded(rgb, "BMP"), "bytearray": bytearray(encoded(rgb)),
        "file": path.open("rb"), "turned": encoded(rgb, "JPEG", exif=turned), "grey": encoded(rgb.convert("L")),
        "palette": encoded(rgb.convert("P")), "transparent": encoded(rgba),
        "cmyk": encoded(rgb.convert("CMYK"), "JPEG"),
        "16 bits": encoded(Image.fromarray(noise(21, 50).astype(np.uint16) * 256)), "PIL": rgb, "PIL RGBA": rgba,
        "opened": Image.open(path), "array": noise(9, 33, 3), "flipped": noise(9, 33, 3)[::-1, ::-1],
        "grey array": noise(9, 33), "one channel": noise(9, 33, 1), "two": noise(9, 33, 2), "four": noise(9, 33, 4),
        "bits": noise(9, 33) > 99, "tall": noise(300, 3, 3), "one pixel": noise(1, 1, 3), "thin": noise(1, 9, 3),
        "empty array": noise(0, 9, 3), "float array": np.zeros((9, 9, 3)), "long": noise(2, 70_000, 3),
        "five": noise(9, 9, 5), "cut off": tmp_path / "cut.png", "empty file": tmp_path / "empty.png",
        "no file": tmp_path / "no.png", "folder": tmp_path, "no picture": b"no picture", "number": 7, "none": None,
        "text file": io.StringIO("x"), "longer than the operator takes": noise(2, 9000, 3),
    }  # fmt: skip


@pytest.mark.parametrize("normalization", ["half", "clip"])
def test_pictures_of_every_kind_and_their_errors_are_the_hosts(stager, tmp_path, normalization):
    names, sources = zip(*of_every_kind(tmp_path).items())
    want, told = HostLoading(sources, SIZE, normalization, lambda pixels: pixels).result()
    for first in range(0, len(sources), 8):
        loading = stager.load(sources[first : first + 8], normalization)
        pixels, found = loading.result()
        good = [i for i, one in enumerate(told) if not isinstance(one, ImageError)]
        rows = [good.index(i) for i in good if first <= i < first + 8]
        assert np.array_equal(pixels, want[rows]), names[first : first + 8]  # to the bit
        assert list(map(str, found)) == list(map(str, told[first : first + 8]))
        assert list(map(type, found)) == list(map(type, told[first : first + 8]))
        loading.close()


def test_what_does_not_fit_is_resized_on_the_host(stager, monkeypatch):
    monkeypatch.setattr(staging, "PICTURE_ROOM", 1000)
    sources = [noise(40, 60, 3, seed=i) for i in range(8)]  # 7,200 bytes each; there is room for 8 of 3,840
    with_room = []
    place = Block.place
    monkeypatch.setattr(Block, "place", lambda *a: with_room.append(place(*a)) or with_room[-1])
    loading = stager.load(sources, "half")
    assert np.array_equal(loading.result()[0], prepare(sources, SIZE))
    assert with_room.count(None) == 6 and len(with_room) == 14
    loading.close()


def test_a_block_always_has_room_for_those_to_come():
    memory = np.zeros(block_bytes(3, SIZE), np.uint8)
    block = Block(memory, 3, SIZE)
    block.begin(3)
    rest = len(block.pixels) - 2 * 3 * 16 * 40
    assert block.place(1, 9000) is None, "longer than the operator takes"
    first, room = block.place(rest // 300, 100)
    assert first == 0 and room.shape == (rest // 300, 100, 3) and block.place(24, 40) is None
    room[:] = 255
    assert not block.table.any(), "a picture lies behind the table"
    places = [block.place(*SIZE), block.place(*SIZE)]
    assert all(place is not None for place in places) and block.used <= len(memory)
    assert places[0][0] == room.size and places[1][0] == room.size + 3 * 16 * 40


def test_a_slot_is_filled_anew_when_its_pixels_are_not_needed_any_more(stager):
    first, second = [noise(20, 30, 3)] * 2, [noise(4, 70, 3, seed=1)] * 8
    one, two = stager.load(first, "half"), stager.load(second, "half")
    assert np.array_equal(two.result()[0], prepare(second, SIZE))
    assert np.array_equal(one.result()[0], prepare(first, SIZE))
    one.close()
    one.close()
    three = stager.load(second[:3], "clip")
    assert np.array_equal(three.result()[0], prepare(second[:3], SIZE, "clip")) and len(HostSlot.made) == 2
    many = stager.load(second * 3, "half")  # more than a batch: a slot for it alone
    assert np.array_equal(many.result()[0], prepare(second * 3, SIZE)) and len(HostSlot.made) == 3
    for loading in (two, three, many):
        loading.close()
    assert HostSlot.made[2].closed and not HostSlot.made[0].closed
    assert stager.load([], "half").result()[0].shape == (0, 3, *SIZE)


def test_no_more_slots_are_kept_than_two(stager):
    loadings = [stager.load([noise(5, 9, 3)], "half") for _ in range(5)]
    for loading in loadings:
        loading.close()
    assert [slot.closed for slot in HostSlot.made] == [False, False, True, True, True]


def test_one_large_picture_is_decoded_at_a_time(stager, monkeypatch, tmp_path):
    """A batch of them takes the memory of one: here a second one would begin while the first is decoded."""
    monkeypatch.setattr(staging, "LARGE", 1000)
    inside, most, load = [], [], Image.Image.resize
    small = threading.Event()

    def resize_slowly(image, *args, **options):
        if image.width == 9000:
            inside.append(1)
            small.wait(20)  # small ones go on
            most.append(len(inside))
            inside.pop()
        return load(image, *args, **options)

    monkeypatch.setattr(Image.Image, "resize", resize_slowly)
    Image.fromarray(noise(3, 9000, 3)).save(tmp_path / "large.png")
    (tmp_path / "small.png").write_bytes(encoded(Image.fromarray(noise(9, 20, 3))))
    put = stager.put

    def noticed(image, block):
        made = put(image, block)
        if image == tmp_path / "small.png":
            small.set()
        return made

    monkeypatch.setattr(stager, "put", noticed)
    loading = stager.load([tmp_path / "large.png"] * 2 + [tmp_path / "small.png"] + [tmp_path / "large.png"], "half")
    found = loading.result()[1]
    assert found == [(9000, 3), (9000, 3), (20, 9), (9000, 3)] and small.is_set()
    assert set(most) == {1}
    loading.close()


def test_an_open_file_is_read_in_the_thread_that_gave_it(stager):
    class Mine(io.BytesIO):
        threads: set

        def read(self, *args):
            self.threads.add(threading.get_ident())
            return super().read(*args)

    Mine.threads = set()
    picture = Image.fromarray(noise(20, 30, 3))
    same = Mine(encoded(picture))
    loading = stager.load([same, encoded(picture), same], "half")
    assert Mine.threads == {threading.get_ident()}
    assert np.array_equal(loading.result()[0], prepare([picture] * 3, SIZE))
    loading.close()


def test_pictures_that_share_an_open_file_are_decoded_one_after_the_other(stager):
    pictures = [Image.fromarray(noise(200, 300, 3, seed=i)) for i in range(8)]

    class Shared(io.BytesIO):
        threads, second = set(), threading.Event()

        def read(self, *args):
            if threading.current_thread().name.startswith("clip4str-decode"):
                self.threads.add(threading.get_ident())
                if len(self.threads) > 1:
                    self.second.set()
                self.second.wait(0.01)  # for another one to come, if there is one
            return super().read(*args)

    out = Shared()
    pictures[0].save(out, "TIFF", save_all=True, append_images=pictures[1:])
    opened = [Image.open(out) for _ in pictures]
    for frame, picture in enumerate(opened):
        picture.seek(frame)
    loading = stager.load(opened, "half")
    assert np.array_equal(loading.result()[0], prepare(pictures, SIZE))
    assert len(Shared.threads) == 1
    loading.close()


def test_readers_in_many_threads(stager):
    wrong = []

    def read(seed):
        for i in range(6):
            sources = [encoded(Image.fromarray(noise(7 + i, 30 + seed, 3, seed=seed + i))) for _ in range(1 + i)]
            loading = stager.load(sources, "half")
            if not np.array_equal(loading.result()[0], prepare(sources, SIZE)):
                wrong.append(seed)
            loading.close()

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_failures_are_told_and_the_next_batch_is_read(stager, monkeypatch):
    def lost(self, count, normalization):
        raise BackendError("cuMemcpyHtoDAsync failed")

    with monkeypatch.context() as patched:
        patched.setattr(HostSlot, "send", lost)
        loading = stager.load([noise(5, 9, 3)], "half")
        for _ in range(2):
            with pytest.raises(BackendError, match="cuMemcpyHtoDAsync failed"):
                loading.result()
        loading.close()
    again = stager.load([noise(5, 9, 3)], "half")
    assert np.array_equal(again.result()[0], prepare([noise(5, 9, 3)], SIZE)) and len(HostSlot.made) == 1
    again.close()


def test_after_close_loading_is_an_error_and_late_ones_are_let_go(stager):
    late = stager.load([noise(5, 9, 3)], "half")
    stager.close()
    stager.close()
    assert HostSlot.made[0].closed
    late.close()
    with pytest.raises(BackendError, match="this recogniser was closed"):
        stager.load([noise(5, 9, 3)], "half")
    assert not [t for t in threading.enumerate() if t.name.startswith("clip4str-decode")]


def test_what_nobody_waits_for_is_not_decoded_to_the_end(stager, monkeypatch):
    began, go, decoded = threading.Event(), threading.Event(), []

    def slow(source, *rest):
        decoded.append(source)
        began.set()
        go.wait(20)
        return load_image(source, *rest)

    monkeypatch.setattr(staging, "load_image", slow)
    loading = stager.load([encoded(Image.fromarray(noise(5, 9, 3)))] * 8, "half")
    assert began.wait(20)
    closing = threading.Thread(target=loading.close)
    closing.start()
    while loading._open:
        pass
    go.set()
    closing.join()
    assert len(decoded) <= stager.threads and HostSlot.made[0].sent is None
