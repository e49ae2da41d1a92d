"""Where words are: boxes of a probability map, lines cut into words, the detector on drawn pictures."""

from __future__ import annotations

import threading
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from clips import needed
from PIL import Image, ImageDraw, ImageFont

from clip4str.core.errors import BackendError, UsageError
from clip4str.core.packaged import PACKAGED
from clip4str.runtime.openvino_core import has_bfloat16
from clip4str.video.detect import Detections, Detector, open_detector
from clip4str.video.frames import Frame

cv2 = needed("cv2", "video")
needed("rapidocr", "video")

from clip4str.video.detect import ppocr, words  # noqa: E402  (they need cv2)
from clip4str.video.detect.boxes import boxes, clockwise  # noqa: E402
from clip4str.video.geometry import area, overlaps  # noqa: E402

FACE = str(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"))


def drawn(text, size=40, ground="white", ink="black", at=(60, 50), shape=(160, 640)):
    """A picture with a line of text, and the boxes (x0, y0, x1, y1) of its words, as Pillow measures them."""
    picture = Image.new("RGB", shape[::-1], ground)
    draw, font = ImageDraw.Draw(picture), ImageFont.truetype(FACE, size)
    draw.text(at, text, font=font, fill=ink)
    found, start = [], 0
    for word in text.split(" "):
        x = at[0] + font.getlength(text[:start])
        found.append(draw.textbbox((x, at[1]), word, font=font))
        start += len(word) + 1
    return np.asarray(picture), found


def shares(quads, truth):
    """Intersection over union of each true box with the best quad."""
    boxed = np.array([[(a, b), (c, b), (c, d), (a, d)] for a, b, c, d in truth], np.float32)
    shared = overlaps(boxed, quads)
    of_quads, of_boxes = np.array([area(q) for q in quads]), np.array([area(b) for b in boxed])
    return (shared / (of_boxes[:, None] + of_quads[None] - shared)).max(1)


@pytest.fixture(scope="module")
def detector():
    return ppocr.TextDetector(long_side=640)


def test_a_rectangle_of_a_map_comes_back_grown_as_the_network_shrank_it():
    map = np.zeros((80, 200), np.float32)
    map[30:46, 40:141] = 0.9
    quads, scores = boxes(map, (160, 400))
    grown = 16 * 101 * 1.6 / (16 + 101) / 2
    want = np.array([[40 - grown, 30 - grown], [140 + grown, 30 - grown], [140 + grown, 45 + grown],
                     [40 - grown, 45 + grown]]) * 2  # fmt: skip
    assert quads.shape == (1, 4, 2) and np.abs(quads[0] - want).max() < 4
    assert scores[0] == pytest.approx(0.9, abs=0.08)


def test_faint_and_tiny_spots_are_no_text():
    map = np.zeros((80, 200), np.float32)
    map[10:20, 10:60] = 0.4
    map[50:52, 100:102] = 0.99
    assert len(boxes(map, (80, 200))[0]) == 0


@pytest.mark.parametrize("angle", [0, 20, 80, -35])
def test_corners_start_at_the_top_left_and_go_clockwise(angle):
    corners = clockwise(cv2.boxPoints(((100, 100), (60, 20), angle)))
    ahead = np.roll(corners, -1, 0) - corners
    turns = ahead[:, 0] * np.roll(ahead, -1, 0)[:, 1] - ahead[:, 1] * np.roll(ahead, -1, 0)[:, 0]
    assert (turns > 0).all()
    assert corners[0].sum() <= corners[2].sum()


def test_runs_of_columns_become_words_and_shallow_dips_do_not_cut():
    word = np.full(40, 0.99)
    word[18:21] = 0.05
    word[30] = (words.BARE + words.CERTAIN) / 2
    spans = words.word_spans(word)
    assert len(spans) == 2
    assert spans[0][1] == pytest.approx(18 / 40, abs=0.03) and spans[1][0] == pytest.approx(21 / 40, abs=0.03)


def test_tall_quads_are_taken_along_their_longer_side():
    tall = np.array([[10, 10], [30, 10], [30, 200], [10, 200]], np.float32)
    line = words.along(tall)
    assert np.linalg.norm(line[1] - line[0]) == 190 and words.along(line) is line


@pytest.mark.parametrize("text", ["HELLO WORLD", "market street station", "OPEN 24 HOURS", "one", "AM JD"])
def test_a_line_is_cut_between_its_words(text):
    pixels, truth = drawn(text)
    quad = np.array([[truth[0][0] - 8, 42], [truth[-1][2] + 8, 42], [truth[-1][2] + 8, 108], [truth[0][0] - 8, 108]])
    parts, origin = words.Splitter().split(pixels, quad[None].astype(np.float32))
    assert len(parts) == len(truth) and set(origin.tolist()) == {0}
    middles = np.sort(parts.mean(1)[:, 0])
    assert all(a <= m <= c for m, (a, _, c, _) in zip(middles, truth))


def test_what_a_line_is_cut_into_does_not_depend_on_the_other_lines():
    pixels, _ = drawn("HELLO WORLD")
    quad = np.array([[50, 42], [400, 42], [400, 108], [50, 108]], np.float32)
    other = np.array([[100, 50], [160, 50], [160, 90], [100, 90]], np.float32)
    splitter = words.Splitter()
    alone = splitter.split(pixels, quad[None])[0]
    both, origin = splitter.split(pixels, np.stack([other, quad]))
    assert np.array_equal(both[origin == 1], alone)


@pytest.mark.parametrize(("ground", "ink"), [("white", "black"), ("#204060", "#f0e060")])
def test_words_of_a_drawn_picture_are_found_where_they_are(detector, ground, ink):
    pixels, truth = drawn("COFFEE and bakery", ground=ground, ink=ink)
    found = detector.detect(Frame(pixels, 0.0))
    assert len(found.quads) == len(truth) and (found.scores > 0.5).all()
    assert (shares(found.quads, truth) > 0.4).all()


def test_lines_are_left_whole_if_asked_for():
    pixels, _ = drawn("COFFEE and bakery")
    assert len(ppocr.TextDetector(words=False).detect(Frame(pixels, 0.0)).quads) == 1


def test_nothing_is_found_in_a_bare_picture(detector):
    assert len(detector.detect(Frame(np.full((120, 200, 3), 130, np.uint8), 0.0)).quads) == 0


def test_bgr_frames_are_searched_as_rgb_ones(detector):
    pixels, _ = drawn("COFFEE", ground="#204060", ink="#f0e060")
    rgb = detector.detect(Frame(pixels, 0.0)).quads
    bgr = detector.detect(Frame(np.ascontiguousarray(pixels[..., ::-1]), 0.0, layout="bgr")).quads
    assert np.array_equal(rgb, bgr)


def test_a_detector_of_your_own_is_anything_that_detects():
    class Mine:
        def detect(self, frame):
            return Detections(np.zeros((0, 4, 2), np.float32), np.zeros(0, np.float32))

    mine = Mine()
    assert open_detector(mine) is mine and isinstance(mine, Detector)
    for wrong, error in ((3, UsageError), ("yolo", UsageError)):
        with pytest.raises(error, match="detector"):
            open_detector(wrong)


def test_missing_files_and_impossible_sizes_are_one_line(monkeypatch, tmp_path):
    with pytest.raises(UsageError, match="long_side is 64 to 4096"):
        ppocr.TextDetector(long_side=10)
    with pytest.raises(BackendError, match=r"words.onnx: .*missing"):
        words.Splitter(tmp_path / "words.onnx")
    monkeypatch.setattr(ppocr.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendError, match=r"pip install 'clip4str\[video\]'"):
        ppocr.installed_model()


def test_the_detector_without_its_denormal_weights_finds_the_same():
    """Beside rapidocr's file as it is."""
    import onnxruntime

    detector = ppocr.TextDetector(words=False)
    picture, _ = drawn("HOTEL garden 1984")
    ours = detector.probabilities(picture)
    session = onnxruntime.InferenceSession(str(ppocr.installed_model()), providers=["CPUExecutionProvider"])
    detector._map = lambda blob: session.run(None, {session.get_inputs()[0].name: blob})[0]
    np.testing.assert_allclose(ours, detector.probabilities(picture), atol=1e-6)
    assert ours.max() > 0.9


def test_a_detector_may_have_its_weights_in_a_file_beside_it(tmp_path):
    import onnx

    model, path = onnx.load(str(ppocr.installed_model())), tmp_path / "apart.onnx"
    onnx.save_model(model, str(path), save_as_external_data=True, location="weights", size_threshold=1024)
    picture, _ = drawn("HOTEL garden 1984")
    ours, apart = (ppocr.TextDetector(words=False, model=each).probabilities(picture) for each in (None, path))
    np.testing.assert_allclose(apart, ours, atol=1e-6)


def test_a_detector_whose_file_is_cut_is_one_line(tmp_path):
    path = tmp_path / "cut.onnx"
    path.write_bytes(ppocr.installed_model().read_bytes()[:100_000])
    with pytest.raises(BackendError, match=r"cut\.onnx: is no detector that ONNX Runtime loads") as caught:
        ppocr.TextDetector(model=path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("quarters", [0, 1, 3])
def test_words_that_run_up_and_down_the_wall_are_read_by_the_detector_and_network_as_installed(quarters):
    """A quarter to the left: they run up; to the right: down."""
    from clip4str.runtime import Recognizer
    from clip4str.video.photo import read_photo

    picture, _ = drawn("RIVERSIDE PARKING", at=(60, 300), shape=(640, 640), size=36)
    turned = np.ascontiguousarray(np.rot90(picture, quarters))
    words = read_photo(Recognizer.load(threads=1), open_detector("auto", threads=1), turned)
    assert sorted(read.word.text for read in words) == ["PARKING", "RIVERSIDE"]
    assert min(read.word.confidence for read in words) > 0.5


def test_openvino_finds_the_same(detector):
    needed("openvino", "openvino")
    picture, _ = drawn("HOTEL garden 1984")
    other, _ = drawn("open late", shape=(320, 320))
    by_openvino = ppocr.TextDetector(engine="openvino")
    first = by_openvino.probabilities(picture)
    np.testing.assert_allclose(first, detector.probabilities(picture), atol=5e-4)
    np.testing.assert_allclose(by_openvino.probabilities(other), detector.probabilities(other), atol=5e-4)
    np.testing.assert_allclose(first, by_openvino.probabilities(picture), atol=1e-6)  # not written over
    frame = Frame(picture, 0.0, 0)
    np.testing.assert_allclose(by_openvino.detect(frame).quads, detector.detect(frame).quads, atol=0.1)


def test_in_bfloat16_it_finds_the_same_words(detector):
    needed("openvino", "openvino")
    picture, truth = drawn("HOTEL garden 1984")
    if not has_bfloat16():
        with pytest.raises(BackendError, match="this processor has no bfloat16: leave out dtype"):
            ppocr.TextDetector(engine="openvino", dtype="bfloat16")
        return
    by_openvino = ppocr.TextDetector(engine="openvino", dtype="bfloat16")
    found, before = (each.detect(Frame(picture, 0.0, 0)) for each in (by_openvino, detector))
    assert len(found.quads) == 3 and shares(found.quads, truth).min() > 0.5
    assert not np.array_equal(by_openvino.probabilities(picture), detector.probabilities(picture))
    np.testing.assert_allclose(found.quads, before.quads, atol=3)


@pytest.mark.parametrize("how, message", [
    ({"engine": "tensorrt"}, "engine is onnxruntime or openvino, not 'tensorrt'"),
    ({"dtype": "bfloat16"}, "onnxruntime searches in float32, not 'bfloat16'; openvino also in bfloat16"),
    ({"engine": "openvino", "dtype": "int8"}, "openvino computes in float32 or bfloat16, not 'int8'"),
])  # fmt: skip
def test_an_engine_that_cannot_be(how, message):
    if how.get("engine") == "openvino":
        needed("openvino", "openvino")
    with pytest.raises(UsageError, match=message):
        ppocr.TextDetector(**how)


def test_what_openvino_does_not_load_is_named(tmp_path):
    needed("openvino", "openvino")
    for content in (b"no model", ppocr.installed_model().read_bytes()[:5000]):
        (tmp_path / "other.onnx").write_bytes(content)
        with pytest.raises(BackendError, match=r"other\.onnx: is no detector that OpenVINO loads"):
            ppocr.TextDetector(engine="openvino", model=tmp_path / "other.onnx")


def test_openvino_does_not_look_for_weights_beside_the_process(tmp_path, monkeypatch):
    onnx = needed("onnx", "export")
    needed("openvino", "openvino")
    model, path = onnx.load(str(ppocr.installed_model())), tmp_path / "apart.onnx"
    onnx.save_model(model, str(path), save_as_external_data=True, location="weights", size_threshold=1024)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BackendError, match="its weights lie beside it"):
        ppocr.TextDetector(engine="openvino", model=path)


@pytest.mark.parametrize("engine", sorted(ppocr.ENGINES))
@pytest.mark.parametrize("name", ["visual.onnx", "cross.onnx"])
def test_a_network_of_another_kind_is_no_detector(engine, name):
    if engine == "openvino":
        needed("openvino", "openvino")
    with pytest.raises(
        BackendError, match=rf"{name}: is no detector (of PP-OCR's kind|that OpenVINO loads)|lie beside"
    ):
        ppocr.TextDetector(engine=engine, model=PACKAGED / name)


def test_threads_may_search_beside_each_other():
    needed("openvino", "openvino")
    detector, found = ppocr.TextDetector(engine="openvino", words=False), {}
    pictures = [drawn("HOTEL garden", shape=(96 + 32 * i, 320 + 64 * i))[0] for i in range(3)]
    wanted = [detector.probabilities(picture) for picture in pictures]

    def search(number):
        found[number] = [np.array_equal(detector.probabilities(pictures[number]), wanted[number]) for _ in range(8)]

    threads = [threading.Thread(target=search, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number] for number in range(3)] == [[True] * 8] * 3
