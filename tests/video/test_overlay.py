"""The annotated video."""

from types import SimpleNamespace

import numpy as np
import pytest
from clips import needed, picture
from PIL import Image

from clip4str.core.errors import UsageError
from clip4str.video.frames import Frame
from clip4str.video.outputs import Overlay, Shown, annotated, save_photo
from clip4str.video.outputs.drawing import COLOUR, PENDING
from clip4str.video.outputs.overlay import STILL

cv2 = needed("cv2", "video")
QUAD = np.array([[20, 40], [70, 40], [70, 55], [20, 55]], np.float32)


def grey(value, size=(64, 96)):
    return np.full((*size, 3), value, np.uint8)


def near(pixel, colour):
    return np.abs(pixel.astype(int) - colour).max() < 30  # lines are smoothed


def values(path):
    capture, found = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG), []
    assert capture.get(cv2.CAP_PROP_FPS) == 10
    while True:
        good, pixels = capture.read()
        if not good:
            return found
        found.append(round(float(pixels.mean()), -1))


def test_variable_rates_come_out_on_a_constant_grid(tmp_path):
    overlay = Overlay(tmp_path / "a.mp4", rate=10)
    for value, time, duration in ((50, 0.0, 0.3), (100, 0.3, 0.02), (150, 0.32, 0.02), (200, 0.34, 0.46)):
        overlay.show(Frame(grey(value), time, duration=duration), [])
    assert not (tmp_path / "a.mp4").exists()
    overlay.close()
    overlay.close()
    assert values(tmp_path / "a.mp4") == [50] * 3 + [200] * 5  # 0.8 s; what lasts 0.02 s has no place on the grid
    assert list(tmp_path.iterdir()) == [tmp_path / "a.mp4"]


def test_a_video_may_be_written_again_but_not_over_another_one(tmp_path):
    for value in (50, 200):
        overlay = Overlay(tmp_path / "a.mp4", rate=10)
        overlay.show(Frame(grey(value), 0.0, duration=0.3), [])
        overlay.close()
        assert values(tmp_path / "a.mp4") == [value] * 3
    (tmp_path / "b.mp4").write_bytes((tmp_path / "a.mp4").read_bytes()[:-1])
    with pytest.raises(UsageError, match=r"b.mp4: exists and is no report"):
        Overlay(tmp_path / "b.mp4")


def test_a_stream_that_was_away_is_cut_and_a_slide_is_not(tmp_path):
    for name, duration, frames in (("live", None, STILL * 10 + 1), ("slides", 100.0, 1001)):
        overlay = Overlay(tmp_path / f"{name}.mp4", rate=10)
        overlay.show(Frame(grey(50), 0.0, duration=duration), [])
        overlay.show(Frame(grey(200), 100.0, duration=0.1), [])
        overlay.close()
        assert len(values(tmp_path / f"{name}.mp4")) == frames


def test_frames_of_other_sizes_and_layouts_are_fitted_into_the_first_ones(tmp_path):
    overlay = Overlay(tmp_path / "a.mp4", rate=10)
    overlay.show(Frame(picture(0, (65, 97)), 0.0, layout="bgr", duration=0.1), [])
    overlay.show(Frame(grey(200, (200, 60)), 0.1, duration=0.1), [])
    overlay.show(Frame(np.full((96, 96), 128, np.uint8), 0.2, layout="nv12", duration=0.1), [])
    overlay.close()
    capture = cv2.VideoCapture(str(tmp_path / "a.mp4"), cv2.CAP_FFMPEG)
    red, tall, _ = (capture.read()[1] for _ in range(3))
    assert red.shape == (64, 96, 3) and red[5, 5, 2] > 150 > red[5, 5, 0]
    assert tall[32, 48].mean() > 180 and tall[32, 5].mean() < 30


def test_a_words_outline_and_text_are_drawn_and_the_frame_is_left_alone():
    frame = Frame(grey(90), 0.0)
    out = annotated(frame, [Shown(QUAD, "EXIT")])
    assert (frame.pixels == 90).all() and near(out[40, 45], COLOUR) and tuple(out[46, 45]) == (90, 90, 90)
    plate = out[24:38, 20:60]
    assert (plate == COLOUR).all(2).any() and (plate < 60).all(2).any()  # letters on a plate, above the outline
    assert near(annotated(frame, [Shown(QUAD, "EXIT", settled=False)])[40, 45], PENDING)


@pytest.mark.parametrize("quad", [QUAD - 500, QUAD + 500, QUAD * 1e9, QUAD * np.nan, QUAD * 0])
def test_words_out_of_the_picture_do_no_harm(quad):
    with np.errstate(invalid="ignore"):
        assert annotated(Frame(grey(90), 0.0), [Shown(quad, "word" * 50 + "\n路")]).shape == (64, 96, 3)


def test_what_cannot_be_written_is_one_line_and_nothing_is_left(tmp_path):
    with pytest.raises(UsageError, match="must end in"):
        Overlay(tmp_path / "a.avi")
    Overlay(tmp_path / "none.mp4").close()
    overlay = Overlay(tmp_path / "a.mp4", rate=10)
    overlay.partial = tmp_path / "gone" / "a.mp4"
    with pytest.raises(UsageError, match=r"a.mp4: OpenCV cannot write a video of 96x64"):
        overlay.show(Frame(grey(9), 0.0), [])
    overlay.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name, mode", [("a.png", "PNG"), ("a.jpg", "JPEG")])
def test_a_photo_with_its_words(tmp_path, name, mode):
    word = SimpleNamespace(quad=QUAD, word=SimpleNamespace(text="EXIT", confidence=0.9))
    save_photo(tmp_path / name, grey(90), [word])
    with Image.open(tmp_path / name) as image:
        assert (image.format, image.size) == (mode, (96, 64))
        pixels = np.asarray(image).astype(int)
    assert pixels[30, 22, 1] - pixels[30, 22, 0] > 60  # the plate
