"""The openvino backend: onnxruntime's words, in float32 to a hundred-thousandth; what it refuses."""

from __future__ import annotations

import shutil
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("openvino")

from clip4str.core.errors import BackendError, BundleError, UsageError
from clip4str.core.packaged import PACKAGED
from clip4str.core.reading import Decoding
from clip4str.runtime import Recognizer


@pytest.fixture(scope="module")
def crops():
    return sorted((Path(__file__).parents[2] / "export" / "sample_crops").glob("*.jpg"))


@pytest.fixture(scope="module")
def ours():
    with Recognizer.load(PACKAGED, "openvino", threads=1) as recognizer:
        yield recognizer


def bfloat16():
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def test_words_and_confidences_are_onnxruntimes(ours, crops):
    with Recognizer.load(PACKAGED, "onnxruntime", threads=1) as theirs:
        for size in (1, 5, 16):
            got, wanted = ours.read(crops[:size]), theirs.read(crops[:size])
            assert [word.text for word in got] == [word.text for word in wanted]
            assert np.abs(np.subtract([w.confidence for w in got], [w.confidence for w in wanted])).max() < 1e-5


def test_the_towers_are_openvinos(ours):
    """Which rounds otherwise."""
    with Recognizer.load(PACKAGED, "onnxruntime", threads=1) as theirs:
        pixels = np.zeros((2, 3, 32, 128), np.float32)
        pixels[:, :, 8:20, 30:70] = 1
        mine, other = ours.backend.image(pixels), theirs.backend.image(pixels)
    assert all(np.abs(a - b).max() < 1e-4 * max(1, np.abs(b).max()) for a, b in zip(mine, other))
    assert any((a != b).any() for a, b in zip(mine, other))


def test_the_visual_branch_alone_loads_no_text_tower(crops):
    how = Decoding(branch="visual")
    with (
        Recognizer.load(PACKAGED, "openvino", threads=1, decoding=how) as ours,
        Recognizer.load(PACKAGED, "onnxruntime", threads=1, decoding=how) as theirs,
    ):
        assert [w.text for w in ours.read(crops[:8])] == [w.text for w in theirs.read(crops[:8])]
        with pytest.raises(BackendError, match="closed"):
            ours.backend.text(np.zeros((1, 16), np.int32))


def test_bfloat16_is_computed_where_it_can_be_and_refused_elsewhere(ours, crops):
    if not bfloat16():
        with pytest.raises(BackendError, match="no bfloat16"):
            Recognizer.load(PACKAGED, "openvino", dtype="bfloat16")
        return
    with Recognizer.load(PACKAGED, "openvino", threads=1, dtype="bfloat16") as half:
        got, wanted = half.read(crops), ours.read(crops)
    assert sum(a.text == b.text for a, b in zip(got, wanted)) >= len(wanted) - 2
    difference = np.abs(np.subtract([w.confidence for w in got], [w.confidence for w in wanted]))
    assert difference.max() > 1e-5 and np.median(difference) < 0.02


def test_threads_may_read_beside_each_other(ours, crops):
    wanted, found = [word.text for word in ours.read(crops)], {}

    def read(number):
        found[number] = [word.text for word in ours.read(crops)]

    threads = [threading.Thread(target=read, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number] for number in range(4)] == [wanted] * 4


@pytest.mark.parametrize(
    "options, line",
    [
        ({"dtype": "float16"}, "float32 or bfloat16, not 'float16'"),
        ({"device": "cuda"}, "openvino has dtype"),
        ({"graphs": False}, "openvino has dtype"),
        ({"providers": ["CPU"]}, "openvino has dtype"),
    ],
)
def test_options_of_others_are_refused(options, line):
    with pytest.raises(UsageError, match=line):
        Recognizer.load(PACKAGED, "openvino", **options)


def test_a_missing_package_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(BackendError, match=r"pip install 'clip4str\[openvino\]'"):
        Recognizer.load(PACKAGED, "openvino")


@pytest.mark.parametrize("name", ["image.onnx", "weights.safetensors"])
def test_a_changed_file_is_no_bundle(tmp_path, name):
    folder = tmp_path / "bundle"
    shutil.copytree(PACKAGED, folder)
    content = bytearray((folder / name).read_bytes())
    content[-9] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(BundleError):
        Recognizer.load(folder, "openvino")


def test_a_checkpoint_is_not_run(tmp_path):
    (tmp_path / "my.ckpt").write_bytes(b"PK")
    with pytest.raises(BackendError, match="openvino runs bundles"):
        Recognizer.load(tmp_path / "my.ckpt", "openvino")


@pytest.mark.parametrize("name", ["image.onnx", "weights.safetensors"])
def test_a_link_out_of_the_bundle_is_not_followed(tmp_path, name):
    """OpenVINO opens files by their paths."""
    folder = tmp_path / "bundle"
    shutil.copytree(PACKAGED, folder)
    (folder / name).rename(tmp_path / "outside")
    (folder / name).symlink_to(tmp_path / "outside")
    with pytest.raises(BundleError, match="is a link"):
        Recognizer.load(folder, "openvino", verify=False)
