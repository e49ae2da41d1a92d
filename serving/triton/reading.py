"""What the requests of a batch ask for, read together: each gets its words or its own error."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from clip4str.core.batches import batches
from clip4str.core.errors import Clip4StrError
from clip4str.runtime import FrameQuads, Recognizer, Word

from .triton_request import CALLERS, Asked, said

FRAME_PIXELS = 64_000_000  # of decoded frames that are held at a time
Words = list[list[Word]]  # of each picture of a request: one word, or its quads'
Log = Callable[[Exception], None]


class Failed(str):
    """Why a request has no words, for who asked."""


def read_requests(recognizer: Recognizer, requests: Sequence[Asked], log: Log) -> list[Words | Failed]:
    """In order. log: is told of errors that are not a caller's."""
    found: list[Words | Failed] = [[] for _ in requests]
    for read, chosen in ((_read_crops, False), (_read_frames, True)):
        numbers = [n for n, asked in enumerate(requests) if (asked.quads is not None) is chosen]
        if not numbers:
            continue
        try:
            answers = read(recognizer, [requests[n] for n in numbers])
        except Exception as error:  # the backend's, or memory: nobody's request is to blame
            log(error)
            answers = [Failed(said(error)) for _ in numbers]
        for n, answer in zip(numbers, answers):
            found[n] = answer
    return found


def _read_crops(recognizer: Recognizer, requests: Sequence[Asked]) -> list[Words | Failed]:
    pictures = [picture for asked in requests for picture in asked.pictures]
    read = iter([word for part in recognizer.read_batches(batches(pictures, recognizer.batch_size)) for word in part])
    answers: list[Words | Failed] = []
    for asked in requests:
        words: list[list[Word]] = []
        failed = ""
        for number, word in enumerate([next(read) for _ in asked.pictures]):
            if isinstance(word, Word):
                words.append([word])
            else:
                failed = failed or said(word, number)
        answers.append(Failed(failed) if failed else words)
    return answers


def _read_frames(recognizer: Recognizer, requests: Sequence[Asked]) -> list[Words | Failed]:
    found: list[Words | Failed] = [[] for _ in requests]
    for group in _groups(requests, found):
        frames, turn = [frame for _, _, frame in group], requests[group[0][0]].turn
        for (n, number, _), words in zip(group, _together(recognizer, frames, turn)):
            answer = found[n]
            if isinstance(answer, Failed):
                continue
            if isinstance(words, list):
                answer.append(words)
            else:
                found[n] = Failed(said(words, number))
    return found


Frame = tuple[int, int, FrameQuads]  # request, picture of it


def _groups(requests: Sequence[Asked], found: list[Words | Failed]) -> Iterator[list[Frame]]:
    """Frames of at most FRAME_PIXELS, or one, that are turned alike. One that cannot be decoded is an error in `found`,
    and the rest of its request is left out."""
    group: list[Frame] = []
    held = 0
    for n, asked in enumerate(requests):
        for number in range(len(asked.pictures)):
            try:
                frame = asked.frame(number)
            except CALLERS as error:
                found[n] = Failed(said(error, number))
                break
            full = held + frame.frame.size > 3 * FRAME_PIXELS
            if group and (full or requests[group[0][0]].turn != asked.turn):
                yield group
                group, held = [], 0
            group.append((n, number, frame))
            held += frame.frame.size
    if group:
        yield group


def _together(recognizer: Recognizer, frames: Sequence[FrameQuads], turn: bool) -> list[list[Word] | Clip4StrError]:
    """Where one of them is wrong each is read by itself."""
    try:
        return list(recognizer.read_frames(frames, turn=turn))
    except CALLERS as error:
        if len(frames) == 1:
            return [error]
    return [one for frame in frames for one in _together(recognizer, [frame], turn)]
