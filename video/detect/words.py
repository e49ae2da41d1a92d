"""Lines into words: detectors find lines, recognisers read words.

A small network (training/spaces) tells for each column of a line's picture whether it belongs to a word. Lines that
run up or down are cut along their longer side.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from clip4str.core.errors import BackendError

HEIGHT, STRIDE, WIDEST = 32, 4, 768  # as training/spaces/lines.py draws them; wider lines are squeezed
TALL = 1.5  # height to width from which a quad is taken for a line that runs up or down
# Detectors' boxes are higher than their text: this share of them is looked at, and that left of a word's height.
# Chosen, as the next two, on every second photo of benchmarks/word_boxes.py, measured on the others.
TEXT, KEPT = 0.7, 0.78
BARE, CERTAIN = 0.9, 0.8  # a gap is where the probability of a word is below BARE, and somewhere below CERTAIN
MARGIN = 0.08  # of the line's height, kept at either end of a word


class Splitter:
    """Cuts lines into words. Raises BackendError without its library."""

    def __init__(self, model: Path | None = None, threads: int = 1) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise BackendError("cutting lines into words needs onnxruntime: pip install onnxruntime") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        path = model or Path(__file__).with_name("words.onnx")
        if not path.is_file():
            raise BackendError(f"{path}: the network that cuts lines into words is missing; install clip4str anew")
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def split(self, pixels: np.ndarray, quads: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Words of lines: quads (M, 4, 2) float32, and the number of the line that each was cut from (M,).

        pixels: uint8 (H, W, 3) RGB. quads: (N, 4, 2). A line in which nothing is seen stays as it is.
        """
        words: list[np.ndarray] = []
        origin: list[int] = []
        for number, quad in enumerate(quads):
            line = along(quad)
            # One at a time, at its own width: what is beside it in a batch must not change where a line is cut.
            picture = _rectified(pixels, lower(line, TEXT)).astype(np.float32) / np.float32(255)
            picture -= picture.mean((0, 1))
            word = self.session.run(None, {"lines": picture.transpose(2, 0, 1)[None]})[0][0]
            for begin, end in word_spans(word) or [(0.0, 1.0)]:
                words.append(as_it_stood(lower(_part(line, begin, end), KEPT), line is not quad))
                origin.append(number)
        return np.array(words, np.float32).reshape(-1, 4, 2), np.array(origin, int)


def along(quad: np.ndarray) -> np.ndarray:
    """The quad with its longer side first where it is tall: turned to the right, so that a line that runs down the wall
    is read from its top."""
    width = np.linalg.norm(quad[1] - quad[0]) + np.linalg.norm(quad[2] - quad[3])
    height = np.linalg.norm(quad[3] - quad[0]) + np.linalg.norm(quad[2] - quad[1])
    return np.roll(quad, -1, axis=0) if height > TALL * width else quad


def as_it_stood(word: np.ndarray, turned: bool) -> np.ndarray:
    """A word of a line that was turned, upright again if it is tall itself: whether it runs down or up the wall, only
    reading it both ways can tell."""
    upright = np.roll(word, 1, axis=0)
    return upright if turned and along(upright) is not upright else word


def lower(line: np.ndarray, share: float) -> np.ndarray:
    """A quad with this share of its height, around the same middle."""
    left, right = (line[0] + line[3]) / 2, (line[1] + line[2]) / 2
    middle = np.array([left, right, right, left])
    return middle + (line - middle) * share


def word_spans(word: np.ndarray) -> list[tuple[float, float]]:
    """Runs of columns that belong to words, as shares of the line's width. word: (columns,) probabilities."""
    columns = len(word)
    inside = word >= BARE
    edges = np.flatnonzero(np.diff(np.concatenate(([0], inside.astype(int), [0]))))
    runs = [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2])]
    joined: list[tuple[int, int]] = []
    for begin, end in runs:
        if joined and word[joined[-1][1] : begin].min() > CERTAIN:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((begin, end))
    margin = MARGIN * HEIGHT / STRIDE / columns
    return [(max(0.0, a / columns - margin), min(1.0, b / columns + margin)) for a, b in joined if b - a >= 2]


def _part(line: np.ndarray, begin: float, end: float) -> np.ndarray:
    top, bottom = line[1] - line[0], line[2] - line[3]
    return np.array([line[0] + top * begin, line[0] + top * end, line[3] + bottom * end, line[3] + bottom * begin])


def _rectified(pixels: np.ndarray, line: np.ndarray) -> np.ndarray:
    """uint8 (32, W, 3), W a multiple of 4."""
    top, right, bottom, left = np.linalg.norm(np.roll(line, -1, 0) - line, axis=1).tolist()
    width, height = max(top, bottom), max(right, left, 1.0)
    columns = int(np.clip(round(HEIGHT * width / height / STRIDE), 3, WIDEST // STRIDE)) * STRIDE
    fine = max(1, min(4, int(height // HEIGHT)))  # warping alone would skip pixels of large letters
    target = np.array([[0, 0], [columns, 0], [columns, HEIGHT], [0, HEIGHT]], np.float32) * fine
    matrix = cv2.getPerspectiveTransform(line.astype(np.float32), target)
    warped = cv2.warpPerspective(pixels, matrix, (columns * fine, HEIGHT * fine), borderMode=cv2.BORDER_REPLICATE)
    return cv2.resize(warped, (columns, HEIGHT), interpolation=cv2.INTER_AREA) if fine > 1 else warped
