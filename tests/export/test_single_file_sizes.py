"""Single files of half the size, of 8 bits in batches, and of a published size."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from clip4str.benchmarks.random_weights import random_checkpoint
from clip4str.core.packaged import PACKAGED
from clip4str.export.bundles import build_bundle
from clip4str.export.parity_images import sample_images
from clip4str.export.single_file.check import check_file
from clip4str.export.single_file.reader import SingleFile
from clip4str.export.single_file.write import Options, write_graph
from clip4str.model.checkpoint import BUNDLED
from clip4str.runtime import Recognizer
from clip4str.runtime.bundle import Bundle


def test_weights_stored_in_half_precision_are_computed_with_in_float32(tiny_bundle, tmp_path):
    paths = [tmp_path / "whole.onnx", tmp_path / "half.onnx"]
    for path in paths:
        write_graph(Bundle.open(tiny_bundle), path, Options(half_storage=path is paths[1]))
    assert paths[1].stat().st_size < 0.6 * paths[0].stat().st_size
    model = onnx.load(paths[1])
    large = [t for t in model.graph.initializer if len(t.raw_data) >= 1024]
    assert large and all(t.data_type != onnx.TensorProto.FLOAT for t in large)
    halves = {t.name for t in large if t.data_type == onnx.TensorProto.FLOAT16}
    assert {node.op_type for node in model.graph.node if halves & set(node.input)} == {"Cast"}
    pixels = np.random.default_rng(0).uniform(-1, 1, (9, 3, 64, 64)).astype(np.float32)
    probs = [SingleFile(path).read(pixels)["probs"] for path in paths]
    np.testing.assert_allclose(*probs, atol=0.02)


def test_the_packaged_network_in_half_storage_reads_its_words(tmp_path):
    write_graph(Bundle.open(PACKAGED), tmp_path / "word.onnx", Options(half_storage=True))
    with Recognizer.load(PACKAGED, "onnxruntime", cache_size=0) as recognizer:
        found = check_file(recognizer, tmp_path / "word.onnx", sample_images(), Options())
    assert found.words == found.settled == 32 and found.differing == [] and found.probability < 1e-3
    assert (tmp_path / "word.onnx").stat().st_size < 17_000_000


@pytest.mark.slow
def test_8_bits_in_batches(tmp_path):
    """Ranges that are measured as pictures come are those of their batch: of the same batch, file and bundle agree."""
    folder = build_bundle(BUNDLED, tmp_path / "int8", precision="int8")
    write_graph(Bundle.open(folder), tmp_path / "word.onnx", Options())
    with Recognizer.load(folder, "onnxruntime", cache_size=0) as recognizer:
        found = check_file(recognizer, tmp_path / "word.onnx", sample_images(), Options())
    assert found.words == found.settled == 32 and found.differing == [] and found.probability < 0.01


@pytest.mark.slow
def test_a_network_of_published_size(few_crops, tmp_path):
    """B/16 with random weights; 5 GB of memory."""
    folder = build_bundle(
        random_checkpoint("base16", tmp_path), tmp_path / "b", min_agreement=0, sample_folder=few_crops
    )
    crops = sample_images(few_crops)
    for options in (Options(), Options(passes=(3, 2))):
        write_graph(Bundle.open(folder), tmp_path / "word.onnx", options)
        with Recognizer.load(folder, "onnxruntime", cache_size=0) as recognizer:
            found = check_file(recognizer, tmp_path / "word.onnx", crops, options)
        assert found.words == len(crops) and found.differing == [] and found.probability < 1e-3
        assert found.settled == len(crops) or options.passes
    size = (tmp_path / "word.onnx").stat().st_size
    write_graph(Bundle.open(folder), tmp_path / "half.onnx", Options(passes=(3, 2), half_storage=True))
    assert (tmp_path / "half.onnx").stat().st_size < 0.52 * size
