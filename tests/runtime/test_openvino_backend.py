"""The openvino backend: onnxruntime's words, in float32 to a hundred-thousandth; what it refuses."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

pytest.importorskip("openvino")

from clip4str.core.errors import BackendError, BundleError, UsageError
from clip4str.core.packaged import PACKAGED
from clip4str.core.reading import Decoding
from clip4str.runtime import Recognizer
from clip4str.runtime.backends import openvino as backend
from clip4str.runtime.openvino_core import has_bfloat16, reason


@pytest.fixture(scope="module")
def crops():
    return sorted((Path(__file__).parents[2] / "export" / "sample_crops").glob("*.jpg"))


@pytest.fixture(scope="module")
def ours():
    with Recognizer.load(PACKAGED, "openvino", threads=1) as recognizer:
        yield recognizer


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
    if not has_bfloat16():
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


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(PACKAGED, tmp_path / "bundle")
    return tmp_path / "bundle"


def rewritten(folder, change, name="image.onnx"):
    """The image tower changed, and called `name`; the manifest tells of it."""
    model = onnx.load(str(folder / "image.onnx"), load_external_data=False)
    change(model)
    (folder / "image.onnx").unlink()
    content = model.SerializeToString()
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["files"]["image.onnx"]
    manifest["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    manifest["stages"]["image"] = name
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("name", ["image.xml", "image.pdmodel", "image.pb"])
def test_a_graph_of_another_name_is_not_given_to_another_parser(folder, name):
    """OpenVINO goes by names, and of some opens further files beside them, whatever the manifest says."""
    rewritten(folder, lambda model: None, name)
    with Recognizer.load(folder, "onnxruntime", threads=1):
        pass
    with pytest.raises(BundleError, match=r"takes files called \.onnx alone"):
        Recognizer.load(folder, "openvino", threads=1)


@pytest.mark.parametrize("name", ["image.onnx", "weights.safetensors"])
def test_a_file_that_is_replaced_while_it_is_read_is_told(folder, name, monkeypatch):
    """As a bundle that is built anew: words of two networks."""
    opened = backend.open_core

    class Late:
        def __init__(self, core):
            self.core, self.compile_model = core, core.compile_model

        def read_model(self, path):
            shutil.copy(folder / name, folder / "new")
            (folder / "new").replace(folder / name)
            return self.core.read_model(path)

    monkeypatch.setattr(backend, "open_core", lambda *how: (Late(opened(*how)[0]), opened(*how)[1]))
    with pytest.raises(BundleError, match="it changed while it was read; try again"):
        Recognizer.load(folder, "openvino", threads=1)


def test_a_file_that_was_loaded_may_be_cut(folder, crops):
    """As `cp` does to files that it replaces: a file that is mapped would end the process."""
    with Recognizer.load(folder, "openvino", threads=1) as recognizer:
        os.truncate(folder / "weights.safetensors", 0)
        assert str(folder) not in Path("/proc/self/maps").read_text()
        with Recognizer.load(PACKAGED, "onnxruntime", threads=1) as theirs:
            assert [w.text for w in recognizer.read(crops[:4])] == [w.text for w in theirs.read(crops[:4])]


def further_input(model):
    model.graph.input.append(onnx.helper.make_tensor_value_info("noise", onnx.TensorProto.FLOAT, [1]))
    inner_output(model, lambda output: onnx.helper.make_node("Add", ["inner", "noise"], [output]))


def another_rank(model):
    inner_output(model, lambda output: onnx.helper.make_node("Unsqueeze", ["inner", "axis"], [output]))
    model.graph.initializer.append(onnx.helper.make_tensor("axis", onnx.TensorProto.INT64, [1], [0]))
    model.graph.output[0].type.tensor_type.ClearField("shape")


def inner_output(model, last):
    output = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["inner" if name == output else name for name in node.output]
    model.graph.node.append(last(output))


@pytest.mark.parametrize(
    "change, message", [(further_input, "has 2 inputs, expected one"), (another_rank, "the manifest means")]
)
def test_a_graph_that_takes_or_gives_something_else_is_refused(folder, change, message):
    rewritten(folder, change)
    with pytest.raises(BundleError, match=message):
        Recognizer.load(folder, "openvino", threads=1)


def test_closing_while_others_read_is_one_line(crops):
    recognizer, said = Recognizer.load(PACKAGED, "openvino", threads=1), []
    began = threading.Barrier(4)

    def read():
        began.wait()
        try:
            while True:
                recognizer.read(crops[:4])
        except Exception as error:
            said.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    began.wait()
    time.sleep(0.3)
    recognizer.close()
    for thread in threads:
        thread.join(30)
    assert len(said) == 3 and all(isinstance(error, BackendError) for error in said)


def test_what_openvino_says_is_told_without_where_in_its_source():
    error = RuntimeError("Exception from src/cpp/core.cpp:84:\nCheck 'a' failed at b.cpp:3:\n\nUnable to read it\n")
    assert reason(error) == "Unable to read it"
    assert reason(RuntimeError("")) == "RuntimeError"


def test_a_processor_without_bfloat16_is_told(tmp_path):
    program = "from clip4str.runtime import Recognizer; Recognizer.load(None, 'openvino', dtype='bfloat16')"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, cwd=tmp_path,
                         env={**os.environ, "OV_CPU_MAX_ISA": "AVX2"})  # fmt: skip
    assert run.returncode and "this processor has no bfloat16: leave out dtype" in run.stderr


DROPPED = """
import gc, os, signal, threading
from clip4str.runtime.openvino_core import has_bfloat16, open_core

has_bfloat16()
kept = [open_core(None, 1)]
kept[0][0].get_property("CPU", "FULL_DEVICE_NAME")  # loads its plugin, as compiling does
thread = threading.Thread(target=lambda: (kept.clear(), gc.collect()))
thread.start()
thread.join()
signal.signal(signal.SIGTERM, lambda *_: print("heard"))
os.kill(os.getpid(), signal.SIGTERM)
"""


@pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
def test_a_signal_is_heard_after_another_thread_dropped_the_core():
    """As a search of a live source does. OpenVINO takes the stack for signals from under the thread that made it."""
    done = subprocess.run([sys.executable, "-c", DROPPED], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "heard\n"), done.stderr
