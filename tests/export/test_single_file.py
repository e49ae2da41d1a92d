"""One file, pixels in and words out: the words of its bundle, and what it says where they may be others."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from charsets import VIETNAMESE
from onnx.reference import ReferenceEvaluator
from PIL import Image

from clip4str.core.errors import BackendError
from clip4str.core.packaged import PACKAGED
from clip4str.core.reading import Decoding
from clip4str.core.text import CHARSET_94
from clip4str.export.bundles import build_bundle
from clip4str.export.parity_images import sample_images
from clip4str.export.single_file.reader import SingleFile
from clip4str.export.single_file.write import Options, write_graph
from clip4str.model import save_checkpoint
from clip4str.runtime import Recognizer
from clip4str.runtime.bundle import Bundle, write_manifest
from clip4str.runtime.images import load_fitted

FORMS = {"exact": Options(), "static": Options(static=True), "fixed": Options(passes=(6, 5))}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """written(folder, options) -> the file, open"""
    made: dict[tuple[Path, Options], SingleFile] = {}

    def write(folder: Path, options: Options) -> SingleFile:
        key = folder, str(options)
        if key not in made:
            path = tmp_path_factory.mktemp("single") / "word.onnx"
            write_graph(Bundle.open(folder), path, options)
            made[key] = SingleFile(path)
            made[key].path = path
        return made[key]

    return write


@pytest.fixture(scope="module")
def bundle_of(tmp_path_factory, few_crops):
    """bundle_of(model) -> its float32 bundle"""

    def build(model, **how) -> Path:
        folder = tmp_path_factory.mktemp("bundle")
        save_checkpoint(model, folder / "net.safetensors")
        return build_bundle(folder / "net.safetensors", folder / "b", min_agreement=0, sample_folder=few_crops, **how)

    return build


def pictures(size: tuple[int, int], count: int, seed: int = 0) -> np.ndarray:
    """Normalised pixels: noise, flat colours and stripes."""
    random = np.random.default_rng(seed)
    noise = random.uniform(-1, 1, (count, 3, *size)).astype(np.float32)
    flat = random.uniform(-1, 1, (count, 3, 1, 1)).astype(np.float32)
    stripes = np.sign(np.sin(np.arange(size[1]) / random.uniform(1, 9, (count, 1, 1, 1)))).astype(np.float32)
    shares = random.uniform(0, 1, (3, count, 1, 1, 1)).astype(np.float32)
    return np.ascontiguousarray((shares[0] * noise + shares[1] * flat + shares[2] * stripes) / shares.sum(axis=0))


def assert_reads_the_same(folder: Path, file: SingleFile, pixels: np.ndarray, decoding: Decoding | None = None) -> int:
    """Where settled; returns how many are."""
    manifest = Bundle.open(folder, verify=False).manifest
    got = file.read(pixels)
    with Recognizer.load(folder, "onnxruntime", decoding=decoding, charset_test=file.metadata["charset_test"],
                         cache_size=0) as recognizer:  # fmt: skip
        readings = [recognizer.reading(pixels[i : i + 8]) for i in range(0, len(pixels), 8)]
        words = recognizer.read_pixels(pixels)
    ids, probs = (np.concatenate([getattr(r, name) for r in readings]) for name in ("ids", "probs"))
    sure = got["settled"]
    assert got["ids"].shape == got["probs"].shape == (len(pixels), manifest.config["steps"])
    np.testing.assert_array_equal(got["ids"][sure], ids[sure])
    np.testing.assert_allclose(got["probs"][sure], probs[sure], atol=2e-4)
    for row in np.flatnonzero(sure):
        assert got["length"][row] == len(words[row].text)
        assert got["confidence"][row] == pytest.approx(words[row].confidence, abs=2e-4)
    return int(sure.sum())


@pytest.mark.parametrize("form", FORMS)
def test_the_packaged_network_reads_the_sample_crops(written, form):
    file = written(PACKAGED, FORMS[form] if form != "fixed" else Options(passes=(3, 2)))
    with Recognizer.load(PACKAGED, "onnxruntime") as recognizer:
        pixels = recognizer.prepare(sample_images())
    settled = assert_reads_the_same(PACKAGED, file, pixels)
    assert settled == len(pixels) if form != "fixed" else len(pixels) * 0.7 < settled < len(pixels)


@pytest.mark.parametrize("form", FORMS)
def test_random_pictures_that_read_long_words(written, tiny_bundle, form):
    settled = assert_reads_the_same(tiny_bundle, written(tiny_bundle, FORMS[form]), pictures((64, 64), 24))
    assert settled == 24 if form != "fixed" else settled > 4


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("decoding", [
    Decoding("nar"), Decoding(refine=0), Decoding(refine=2), Decoding(branch="visual"), Decoding("nar", 0, "visual"),
])  # fmt: skip
def test_every_way_to_decode(written, tiny_bundle, decoding, form):
    how = replace(FORMS[form], decoding=decoding)
    if decoding.decode == "nar" and form == "fixed":
        how = replace(how, passes=None, static=True)
    file = written(tiny_bundle, how)
    settled = assert_reads_the_same(tiny_bundle, file, pictures((64, 64), 9, seed=1), decoding)
    assert settled == 9 if how.passes is None else settled > 0


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("charset, test", [(CHARSET_94, CHARSET_94), ("0123456789", "01234"), (VIETNAMESE, None)])
def test_other_charsets(written, random_model, bundle_of, charset, test, form):
    folder = bundle_of(
        random_model(2, 5.0, charset=charset, draft_frames=2), **({"charset_test": test} if test else {})
    )
    settled = assert_reads_the_same(folder, written(folder, FORMS[form]), pictures((32, 64), 24))
    assert settled >= 23 if form != "fixed" else settled > 0  # one may read "&lt"


@pytest.mark.parametrize("form", FORMS)
def test_a_picture_reads_the_same_in_any_company(written, tiny_bundle, form):
    file, pixels = written(tiny_bundle, FORMS[form]), pictures((64, 64), 7, seed=3)
    together, backwards = file.read(pixels), file.read(pixels[::-1].copy())
    for row in range(len(pixels)):
        alone = file.read(pixels[row : row + 1])
        for other in (together, {name: value[::-1] for name, value in backwards.items()}):
            assert (alone["ids"][0] == other["ids"][row]).all()
            np.testing.assert_allclose(alone["probs"][0], other["probs"][row], atol=2e-5)


@pytest.mark.parametrize("form", FORMS)
def test_pixels_that_are_no_numbers_have_no_confidence_and_spoil_no_others(written, tiny_bundle, form):
    file, pixels = written(tiny_bundle, FORMS[form]), pictures((64, 64), 5, seed=4)
    good = file.read(pixels)
    for value in (np.nan, np.inf, -np.inf):
        bad = pixels.copy()
        bad[2, 1, 5, 6] = value
        found = file.read(bad)
        assert found["confidence"][2] == 0 and not found["settled"][2] and found["length"][2] == 0
        assert all(np.isfinite(found[name]).all() for name in ("probs", "confidence"))
        others = [0, 1, 3, 4]
        assert (found["ids"][others] == good["ids"][others]).all()
        assert (found["settled"][others] == good["settled"][others]).all()


def test_another_shape_or_type_is_the_runtimes_own_error(written, tiny_bundle):
    file, good = written(tiny_bundle, Options()), pictures((64, 64), 1)
    wrong = (good[..., 1:], good[0], good.astype(np.float64), (255 * good).astype(np.uint8).transpose(0, 2, 3, 1))
    for pixels, said in zip(wrong, ("invalid dimensions", "Invalid rank", "data type", "data type")):
        with pytest.raises(BackendError, match=f"INVALID_ARGUMENT.*{said}"):
            file.read(pixels)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_thousands_of_pictures(written, tiny_bundle, form):
    settled = assert_reads_the_same(tiny_bundle, written(tiny_bundle, FORMS[form]), pictures((64, 64), 3000, seed=6))
    assert settled == 3000 if form != "fixed" else settled > 500


def test_too_few_passes_are_told(written, tiny_bundle):
    pixels = pictures((64, 64), 24, seed=5)
    settled = [
        assert_reads_the_same(tiny_bundle, written(tiny_bundle, Options(passes=p)), pixels) for p in [(2, 1), (6, 5)]
    ]
    assert settled[0] < settled[1]


def assert_reads_crops_alone(folder, file, crops):
    """One by one: what is quantised as it comes depends on its batch."""
    with Recognizer.load(folder, "onnxruntime", batch_size=1) as recognizer:
        pixels = recognizer.prepare(sample_images(crops))
        words = [word.text for word in recognizer.read_pixels(pixels)]
    assert [word for row in pixels for word in file.words(row[None])] == words


def test_half_precision(written, half_bundle, few_crops):
    assert_reads_crops_alone(half_bundle, written(half_bundle, Options()), few_crops)


@pytest.mark.slow
@pytest.mark.parametrize("for_gpu", [False, True])
def test_8_bits(written, golden_checkpoint, few_crops, tmp_path, for_gpu):
    folder = build_bundle(golden_checkpoint("tiny"), tmp_path / "int8", precision="int8", sample_folder=few_crops,
                          max_accuracy_drop=100, for_gpu=for_gpu)  # fmt: skip
    assert_reads_crops_alone(folder, written(folder, Options()), few_crops)


def test_confidence_is_calibrated(written, tiny_bundle, tmp_path):
    folder = tmp_path / "b"
    shutil.copytree(tiny_bundle, folder)
    manifest = Bundle.open(folder).manifest
    write_manifest(folder, replace(manifest, config={**manifest.config, "temperature": 1.7}))
    assert_reads_the_same(folder, written(folder, Options()), pictures((64, 64), 6))


def test_bytes_resized_inside_read_as_pillow_prepares_them(written):
    crops = sample_images()[:12]
    fitted = np.stack([load_fitted(crop, (32, 128))[0] for crop in crops])
    with Recognizer.load(PACKAGED, "onnxruntime") as recognizer:
        words = recognizer.read(crops)
    whole = written(PACKAGED, Options(uint8=True, strings=True)).read(fitted)
    assert whole["text"].tolist() == [word.text for word in words]
    np.testing.assert_allclose(whole["confidence"], [word.confidence for word in words], atol=1e-4)
    resizing = written(PACKAGED, Options(resize=True, strings=True))
    for crop, word in zip(crops, words):
        found = resizing.read(np.asarray(crop)[None])
        assert found["text"].tolist() == [word.text] and found["confidence"][0] == pytest.approx(
            word.confidence, abs=0.01
        )


@pytest.mark.parametrize("size", [(5, 7), (32, 128), (33, 127), (64, 300), (700, 40), (2, 2), (90, 2000)])
def test_the_resize_is_pillows_to_one_level(tmp_path, size):
    from clip4str.export.graph import Graph
    from clip4str.export.single_file.bodies import FLOAT
    from clip4str.export.single_file.pixels import pixels_input

    g = Graph("resize", "fp32")
    g.output(g.op("Identity", pixels_input(g, (32, 128), "half", True, True)), "out", FLOAT, ("N", 3, 32, 128))
    g.save(tmp_path / "resize.onnx", {}, "")
    picture = np.random.default_rng(sum(size)).integers(0, 256, (*size, 3), np.uint8)
    out = SingleFile(tmp_path / "resize.onnx").read(picture[None])["out"][0].transpose(1, 2, 0) * 127.5 + 127.5
    off = np.abs(out - load_fitted(Image.fromarray(picture), (32, 128))[0])
    assert off.max() < 1.01 and (off > 0.01).mean() < 0.02


@pytest.mark.parametrize("form", ["exact", "static"])
def test_the_reference_implementation_of_onnx_reads_the_same(written, form):
    """Another runtime, which knows the operators' definitions and nothing else."""
    file = written(PACKAGED, FORMS[form])
    with Recognizer.load(PACKAGED, "onnxruntime") as recognizer:
        pixels = recognizer.prepare(sample_images()[:2])
    evaluator = ReferenceEvaluator(str(file.path))
    found, got = dict(zip(evaluator.output_names, evaluator.run(None, {"pixels": pixels}))), file.read(pixels)
    for name in ("ids", "length", "settled"):
        np.testing.assert_array_equal(found[name], got[name])
    np.testing.assert_allclose(found["probs"], got["probs"], atol=1e-4)


def test_the_file_says_what_it_is(written, tiny_bundle):
    file, manifest = (
        written(tiny_bundle, Options(passes=(3, 2), license="Apache-2.0")),
        Bundle.open(tiny_bundle).manifest,
    )
    said = file.metadata
    assert said["charset"] == manifest.charset and said["charset_test"] == manifest.charset_test
    assert json.loads(said["image_size"]) == [64, 64] and said["normalization"] == "half"
    assert said["form"] == "fixed" and json.loads(said["passes"]) == [3, 2] and "Apache-2.0" in said["license"]


def test_the_fixed_form_has_no_control_flow_and_nothing_but_standard_operators(written, tiny_bundle):
    for form, options in FORMS.items():
        model = onnx.load(written(tiny_bundle, options).path)
        assert [entry.domain for entry in model.opset_import] == [""] and model.opset_import[0].version == 17
        kinds = {node.op_type for node in model.graph.node}
        assert bool(kinds & {"Loop", "If", "Scan"}) == (form != "fixed")
        assert form == "exact" or not kinds & {"NonZero", "Compress", "Unique"}


def test_whole_numbers_are_those_that_float32_holds(written):
    """OpenVINO computes with int32 in float32: beyond 2^24 it merged other byte pairs, in silence. Large limits of
    slices are no numbers to compute with."""
    model = onnx.load(written(PACKAGED, Options(passes=(3, 2))).path)
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    slices = {name for node in model.graph.node if node.op_type == "Slice" for name in node.input[1:]}
    whole = {name: np.abs(a.astype(float)) for name, a in constants.items() if a.dtype.kind in "iu" and a.size}
    assert {name for name, a in whole.items() if a.max() >= 2**24} <= slices
    assert len(whole) > 10
