"""How images of many requests become batches."""

from __future__ import annotations

import asyncio

import pytest

from clip4str.serving.ray.batcher import Batcher


class Reader:
    """What batches came; each is held until it is let go, where `held`."""

    def __init__(self, held: bool = False) -> None:
        self.batches: list[list[bytes]] = []
        self.go = asyncio.Event()
        if not held:
            self.go.set()

    async def read(self, images: list[bytes]) -> list[bytes]:
        self.batches.append(images)
        await self.go.wait()
        if b"bad" in images:
            raise ValueError("bad")
        return [image.upper() for image in images]


async def found(batcher: Batcher, *images: bytes) -> list[bytes]:
    return [each async for each in batcher.found(images)]


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_requests_share_batches_and_get_their_own_words_in_order():
    async def run():
        reader = Reader()
        batcher = Batcher(reader.read, 4, 30.0, 1)
        answers = await asyncio.gather(found(batcher, b"a", b"b", b"c"), found(batcher, b"d", b"e", b"f", b"g", b"h"))
        assert answers == [[b"A", b"B", b"C"], [b"D", b"E", b"F", b"G", b"H"]]
        assert reader.batches == [[b"a", b"b", b"c", b"d"], [b"e", b"f", b"g", b"h"]]

    asyncio.run(asyncio.wait_for(run(), 20))


def test_what_comes_while_a_batch_is_read_goes_together():
    """Not in the small batches that a wait would cut it into; and one full batch is ready for the next free worker."""

    async def run():
        reader = Reader(held=True)
        batcher = Batcher(reader.read, 2, 0.0, 1)
        asked = [asyncio.ensure_future(found(batcher, b"a"))]
        await settled()
        assert reader.batches == [[b"a"]]
        asked.append(asyncio.ensure_future(found(batcher, b"b")))
        await settled()
        assert reader.batches == [[b"a"]]
        asked.append(asyncio.ensure_future(found(batcher, b"c", b"d")))
        await settled()
        assert reader.batches == [[b"a"], [b"b", b"c"]]
        reader.go.set()
        assert await asyncio.gather(*asked) == [[b"A"], [b"B"], [b"C", b"D"]]
        assert reader.batches[2:] == [[b"d"]]

    asyncio.run(asyncio.wait_for(run(), 20))


def test_a_batch_that_fails_fails_its_own_requests_alone():
    async def run():
        batcher = Batcher(Reader().read, 2, 0.01, 1)
        answers = await asyncio.gather(
            found(batcher, b"a", b"b"), found(batcher, b"bad"), found(batcher, b"c", b"d", b"e"), return_exceptions=True
        )
        assert answers[0] == [b"A", b"B"] and all(str(each) == "bad" for each in answers[1:])
        assert await found(batcher, b"f") == [b"F"]

    asyncio.run(asyncio.wait_for(run(), 20))


def test_who_has_gone_is_not_read():
    async def run():
        reader = Reader(held=True)
        batcher = Batcher(reader.read, 4, 0.0, 1)
        first = asyncio.ensure_future(found(batcher, b"a"))
        await settled()
        gone, stays = asyncio.ensure_future(found(batcher, b"b")), asyncio.ensure_future(found(batcher, b"c"))
        await settled()
        gone.cancel()
        await settled()
        reader.go.set()
        assert (await first, await stays) == ([b"A"], [b"C"]) and reader.batches == [[b"a"], [b"c"]]
        with pytest.raises(asyncio.CancelledError):
            await gone

    asyncio.run(asyncio.wait_for(run(), 20))


def test_words_come_before_the_whole_request_is_read():
    async def run():
        reader = Reader()
        batcher = Batcher(reader.read, 2, 0.0, 1)
        words = batcher.found([b"a", b"b", b"c", b"d", b"e", b"f", b"g"])
        assert [await anext(words), await anext(words)] == [b"A", b"B"]
        assert len(reader.batches) < 4
        await words.aclose()

    asyncio.run(asyncio.wait_for(run(), 20))
