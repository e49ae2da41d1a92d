"""A generated street as a video file."""

from __future__ import annotations

from pathlib import Path

import cv2
import matplotlib

from clip4str.benchmarks.scenes.scene import Recipe, Video

FACE = Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans-Bold.ttf")
WORDS = ("market", "station", "coffee", "street", "garden", "museum", "bakery", "parking", "hotel", "summer", "river")


def film(path: Path, seconds: float, size: tuple[int, int] = (360, 640), seed: int = 3, rate: int = 10) -> set[str]:
    """Writes it, with a cut in the middle; the words in it, in lower case."""
    frames = round(seconds * rate / 2)
    recipe = Recipe(size=size, frames=frames, scenes=2, speed=0.7 * size[1] / 1280, occluders=0, noise=2.0, rate=rate)
    video = Video(recipe, WORDS, [FACE], seed)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), rate, size[::-1])
    for pixels in video:
        writer.write(pixels[..., ::-1])
    writer.release()
    return {word.text.lower() for word in video.truth.words}
