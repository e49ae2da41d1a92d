"""DeepStream's text probe: a detector's tensors into objects, on the stand-in for pyds."""

import configparser
from pathlib import Path

import numpy as np
import pytest
from clips import needed
from pyds_standin import UNTRACKED, Pyds, items

from clip4str.core.errors import ImageError
from clip4str.video.frames import Frame

needed("cv2", "video")
from clip4str.video.deepstream import TextProbe  # noqa: E402

ROOT = Path(__file__).parents[2]


def text_map(size=(352, 640), lines=((100, 40, 200, 30),), dtype=np.float32):
    """What a detector gives: (1, h, w), sure of these boxes."""
    values = np.zeros((1, *size), dtype)
    for left, top, width, height in lines:
        values[0, top : top + height, left : left + width] = 0.9
    return values


def searched(probe, pyds, tensors, pixels=None):
    pixels = np.full((704, 1280, 3), 128, np.uint8) if pixels is None else pixels
    buffer = pyds.buffer([{"source_id": 0, "frame_num": 0, "pixels": pixels, "tensors": tensors}])
    probe.process(buffer)
    frame = items(buffer.batch, "frame_meta_list")[0]
    found = [(m.object_id, m.obj_label, m.text_params._all[4]["display_text"], round(m.confidence, 2),
              tuple(getattr(m.rect_params, side) for side in ("left", "top", "width", "height")),
              tuple(getattr(m.detector_bbox_info.org_bbox_coords, side) for side in ("left", "top", "width", "height")))
             for m in items(frame, "obj_meta_list")]  # fmt: skip
    done = frame.bInferDone
    pyds.release(buffer)
    return found, done


TENSOR = "NVDSINFER_TENSOR_OUTPUT_META"


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_text_detectors_map_becomes_objects_for_the_tracker(dtype):
    pyds = Pyds()
    probe = TextProbe(words=False, pyds=pyds)
    tensors = [(TENSOR, 9, text_map()), ("NVDS_CROP_IMAGE_META", 1, text_map()), (TENSOR, 1, text_map(dtype=dtype))]
    found, done = searched(probe, pyds, tensors)
    ((number, label, shown, score, box, detected),) = found
    assert (number, label, shown, done) == (UNTRACKED, "text", "text", 1) and box == detected and 0.8 < score <= 0.9
    grown = 2 * (200 * 30) * 1.6 / (2 * (200 + 30))  # on every side; of the frame's pixels, which are twice the map's
    np.testing.assert_allclose(box, (200 - grown, 80 - grown, 400 + 2 * grown, 60 + 2 * grown), atol=6)


def test_lines_are_cut_into_words_as_everywhere(recognizer):
    needed("rapidocr", "video")
    from scenes import SMALL, video

    from clip4str.video.detect.ppocr import TextDetector

    frame = video(SMALL, 5)[0][0]
    detector, pyds = TextDetector(), Pyds()
    probe = TextProbe(pyds=pyds)
    found, _ = searched(probe, pyds, [(TENSOR, 1, detector.probabilities(frame.pixels)[None])], frame.pixels)
    want = detector.detect(Frame(frame.pixels, 0.0)).quads
    assert len(found) == len(want) >= 4
    for (*_, box, _), quad in zip(found, want):
        low, high = quad.min(0).clip(0), np.minimum(quad.max(0), frame.size[::-1])
        np.testing.assert_allclose(box, (*low, *(high - low)), atol=1e-3)


def test_frames_that_were_not_searched_are_left_alone_and_other_output_is_refused():
    pyds = Pyds()
    probe = TextProbe(words=False, pyds=pyds)
    assert searched(probe, pyds, []) == ([], 0)
    assert searched(probe, pyds, [(TENSOR, 1, text_map(lines=()))]) == ([], 1)
    for wrong, message in (
        (np.zeros((3, 8, 8), np.float32), "not a map"),
        (np.zeros((1, 8, 8), np.int8), "neither float"),
    ):
        with pytest.raises(ImageError, match=message):
            searched(probe, pyds, [(TENSOR, 1, wrong)])


def test_the_configuration_prepares_frames_as_the_detector_wants_them():
    """nvinfer computes scale * (x - offset) of a frame of infer-dims; TextDetector does it in its own words."""
    needed("rapidocr", "video")
    from clip4str.video.detect.ppocr import MODEL, TextDetector

    config = configparser.ConfigParser()
    config.read(ROOT / "docs" / "deepstream" / "text_detector.txt")
    settings = config["property"]
    detector, taken = TextDetector(words=False), []
    detector._map = lambda blob: taken.append(blob) or np.zeros((1, 1, 1, 1))
    frame = np.zeros((1080, 1920, 3), np.uint8)
    frame[...] = (10, 100, 250)
    detector.probabilities(frame)
    assert tuple(map(int, settings["infer-dims"].split(";"))) == taken[0].shape[1:]
    assert settings["model-color-format"] == "1"  # BGR
    offsets = np.array(settings["offsets"].split(";"), np.float64)
    wanted = settings.getfloat("net-scale-factor") * (np.array([250, 100, 10]) - offsets)
    np.testing.assert_allclose(taken[0][0, :, 0, 0], wanted, atol=1e-6)
    assert (settings["network-type"], settings["output-tensor-meta"], settings["gie-unique-id"]) == ("100", "1", "1")
    assert settings["onnx-file"] == Path(MODEL).name and TextProbe(words=False, pyds=Pyds()).component == 1


def test_tensorrts_compiler_takes_the_detector_at_the_configured_size():
    needed("rapidocr", "video")
    trt = pytest.importorskip("tensorrt_rtx", reason="needs pip install 'clip4str[rtx]'")
    from clip4str.video.detect.ppocr import installed_model

    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(installed_model().read_bytes())
    (name, output) = network.get_input(0).name, network.get_output(0)
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    profile.set_shape(name, (1, 3, 352, 640), (4, 3, 352, 640), (4, 3, 352, 640))
    config.add_optimization_profile(profile)
    assert builder.build_serialized_network(network, config) is not None
    assert network.num_outputs == 1 and output.dtype == trt.float32


@pytest.mark.parametrize("name", ["plate_detector", "tracker"])
def test_the_other_configurations_can_be_read(name):
    config = configparser.ConfigParser()
    config.read(ROOT / "docs" / "deepstream" / f"{name}.txt")
    assert config.sections()[0] == ("tracker" if name == "tracker" else "property")
