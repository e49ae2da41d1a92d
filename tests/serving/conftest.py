from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

REQUIRED = os.environ.get("CLIP4STR_REQUIRE_SERVING", "") not in {"", "0"}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With CLIP4STR_REQUIRE_SERVING a test of this folder that was skipped has failed."""
    report = yield
    if REQUIRED and report.skipped and "/serving/" in str(item.path):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome, report.longrepr = "failed", f"CLIP4STR_REQUIRE_SERVING is set, and this was not run: {reason}"
    return report


@pytest.fixture(scope="session")
def triton_packages() -> None:
    """Skips where `make test-serving` has not installed Triton and its clients."""
    from clip4str.benchmarks.serving_load.triton_server import server_is_there

    if not server_is_there() or sys.platform != "linux":
        pytest.skip("no Triton: make test-serving")
    pytest.importorskip("tritonclient.grpc", reason="make test-serving")


@pytest.fixture(scope="session")
def triton_repository(triton_packages, tmp_path_factory) -> Path:
    """`clip4str`, two processes; `narrow`, which one request at a time enters and two may wait for; `rolling`, to be
    changed; three that cannot be loaded."""
    from triton_rig import MAX_BATCH, MODEL, merge

    from clip4str.core.packaged import PACKAGED
    from clip4str.runtime.bundle import Bundle
    from clip4str.serving.triton.options import Serving
    from clip4str.serving.triton.repository import write_repository

    folder, bundle = tmp_path_factory.mktemp("repositories"), Bundle.open(PACKAGED)
    patient = {"max_batch": MAX_BATCH, "delay_ms": 300, "queue": 1000, "timeout_ms": 60_000}
    made = {
        MODEL: Serving(MODEL, "onnxruntime", instances=2, **patient),
        "narrow": Serving("narrow", max_batch=1, queue=2, threads=1, timeout_ms=60_000),
        "rolling": Serving("rolling", threads=1, **patient),
        "damaged": Serving("damaged"),
        "wrong": Serving("wrong"),
        "absent": Serving("absent"),
    }
    for name, serving in made.items():
        write_repository(bundle, folder / name, serving, False, str)
    visual = folder / "damaged" / "damaged" / "1" / "bundle" / "visual.onnx"
    visual.write_bytes(visual.read_bytes()[:-1] + b"\0")
    config = folder / "wrong" / "wrong" / "config.pbtxt"
    config.write_text(config.read_text().replace('"auto"', '"tensorrt"', 1))
    shutil.rmtree(folder / "absent" / "absent" / "1" / "bundle")
    return merge(folder / "all", *(folder / name for name in made))


@pytest.fixture(scope="session")
def triton(triton_repository, tmp_path_factory):
    """Running, with those three models of it."""
    from clip4str.benchmarks.serving_load.triton_server import TritonServer

    options = ["--model-control-mode=explicit", *(f"--load-model={name}" for name in ("clip4str", "narrow", "rolling"))]
    with TritonServer(triton_repository, tmp_path_factory.mktemp("triton"), options=options) as running:
        yield running


@pytest.fixture
def grpc_client(triton):
    from triton_rig import grpc_client_of

    with grpc_client_of(triton) as made:
        yield made


@pytest.fixture
def http_client(triton):
    import tritonclient.http as http

    with http.InferenceServerClient(f"127.0.0.1:{triton.http}") as made:
        yield made


@pytest.fixture(scope="session")
def recognizer():
    """The packaged network, here."""
    from clip4str.core.packaged import PACKAGED
    from clip4str.runtime import Recognizer

    with Recognizer.load(PACKAGED, "onnxruntime", threads=1) as loaded:
        yield loaded


@pytest.fixture(scope="session")
def crop_words(recognizer):
    """What it reads in the sample crops."""
    from batch_inputs import CROPS

    return recognizer.read(CROPS)


@pytest.fixture(scope="session")
def words(crop_words):
    """The same by a crop's name."""
    from batch_inputs import CROPS

    return {crop.name: word.text for crop, word in zip(CROPS, crop_words)}


@pytest.fixture(scope="session")
def frame():
    """A picture with the first four of them in it, and their corners."""
    import numpy as np
    from batch_inputs import CROPS
    from PIL import Image

    canvas, quads, top = Image.new("RGB", (400, 400), "white"), [], 8
    for path in CROPS[:4]:
        crop = Image.open(path).convert("RGB")
        canvas.paste(crop, (20, top))
        right, bottom = 20 + crop.width, top + crop.height
        quads.append([(20, top), (right, top), (right, bottom), (20, bottom)])
        top = bottom + 12
    return np.asarray(canvas), np.array(quads, np.float32)
