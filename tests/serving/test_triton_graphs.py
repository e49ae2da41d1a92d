"""Repositories without Python, on a real Triton server whose two missing backends are stood in for."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from batch_inputs import CROPS
from PIL import Image
from triton_rig import answer_of, grpc_client_of, inputs, merge, together

from clip4str.benchmarks.serving_load.triton_server import TritonServer
from clip4str.core.packaged import PACKAGED
from clip4str.export.single_file.export_command import export_bundle
from clip4str.export.single_file.write import Options
from clip4str.runtime.bundle import Bundle
from clip4str.serving.triton.graph_repository import write_graphs
from clip4str.serving.triton.options import Serving
from clip4str.serving.versions import bundle_version

MAX_BATCH = 8


@pytest.fixture(scope="module")
def server(triton_packages, tmp_path_factory):
    """Ensembles `graphs`, of ONNX files, and `engine`, whose network says that it is a TensorRT plan."""
    folder, bundle, said = tmp_path_factory.mktemp("graphs"), Bundle.open(PACKAGED), []
    export_bundle(PACKAGED, folder / "fixed.onnx", Options(passes=(6, 4)), min_agreement=0)
    shutil.move(folder / "fixed.onnx", folder / "fixed.plan")
    serving = {"max_batch": MAX_BATCH, "delay_ms": 300, "queue": 100, "timeout_ms": 60_000}
    write_graphs(bundle, folder / "onnx", Serving("graphs", **serving), False, None, said.append)
    write_graphs(
        bundle, folder / "trt", Serving("engine", gpus=(0,), **serving), False, folder / "fixed.plan", said.append
    )
    assert [line for line in said if "building" in str(line)] == []
    repository = merge(folder / "all", folder / "onnx", folder / "trt")
    placed = repository / "engine_words" / "config.pbtxt"
    text = placed.read_text()
    assert "kind: KIND_GPU gpus: [ 0 ]" in text
    placed.write_text(text.replace("kind: KIND_GPU gpus: [ 0 ]", "kind: KIND_CPU"))  # there is none here
    backend = folder / "backend"
    backend.mkdir()
    shutil.copy(Path(__file__).with_name("triton_graph_backend.py"), backend / "model.py")
    backends = {"onnxruntime": backend, "tensorrt": backend}
    with TritonServer(repository, tmp_path_factory.mktemp("server"), backends=backends) as running:
        yield running


@pytest.fixture
def client(server):
    with grpc_client_of(server) as made:
        yield made


def pixels(path: Path) -> dict[str, np.ndarray]:
    return {"pixels": np.asarray(Image.open(path).convert("RGB"))[None]}


@pytest.mark.parametrize("model", ["graphs", "engine"])
def test_words_are_the_recognizers_whatever_the_size_of_the_picture(server, client, crop_words, model):
    answers = together(client, model, [pixels(path) for path in CROPS])
    assert [answer.texts for answer in answers] == [[[word.text]] for word in crop_words]
    for answer, word in zip(answers, crop_words):
        # the resize is within a level of Pillow's: docs/single-file.md
        assert answer.confidences.shape == (1, 1) and abs(answer.confidences[0, 0] - word.confidence) < 0.05
        assert answer.bundles == {bundle_version(Bundle.open(PACKAGED).manifest)}
    (stats,) = server.statistics(f"{model}_words")
    assert len({path.read_bytes() and Image.open(path).size for path in CROPS}) > 10  # the pictures' sizes
    assert stats["inference_count"] == len(CROPS) and stats["execution_count"] < len(CROPS) / 2


def test_a_batch_of_pictures_of_one_size(client, crop_words):
    import tritonclient.grpc as grpc

    batch = {"pixels": np.concatenate([pixels(CROPS[0])["pixels"]] * 3)}
    result = client.infer("graphs", inputs(grpc, batch))
    assert answer_of(result).texts == [[crop_words[0].text]] * 3
    assert result.as_numpy("settled").tolist() == [[True]] * 3
    assert result.as_numpy("length").tolist() == [[len(crop_words[0].text)]] * 3
    assert np.abs(result.as_numpy("probs")[0, :3] - crop_words[0].char_confidences[:3]).max() < 0.01


def test_a_wrong_picture_fails_alone(client, crop_words):
    import tritonclient.grpc as grpc
    from tritonclient.utils import InferenceServerException

    grey = {"pixels": np.zeros((1, 32, 100, 1), np.uint8)}
    with pytest.raises(InferenceServerException, match="unexpected shape"):
        client.infer("graphs", inputs(grpc, grey))
    answers = together(
        client, "graphs", [pixels(CROPS[1]), {"pixels": np.zeros((9, 8, 8, 3), np.uint8)}, pixels(CROPS[2])]
    )
    assert [answers[0].texts, answers[2].texts] == [[[crop_words[1].text]], [[crop_words[2].text]]]
    assert "batch-size must be <= 8" in str(answers[1])
