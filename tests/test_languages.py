"""Other people's languages end to end: trained a few steps, built in every precision, evaluated, read.

The networks are as small as the code allows, so they read nothing right; what counts is that every path takes them,
says what it did with their labels, and gives the words of the plain network.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from charsets import BENGALI, CHINESE, DIGITS, VIETNAMESE

from clip4str.benchmarks import accuracy
from clip4str.core.cli import main as run_command
from clip4str.core.errors import UsageError
from clip4str.core.text import default_test
from clip4str.export import decoders
from clip4str.export.build_engine import main as build
from clip4str.export.quantization import build as int8_build
from clip4str.model import load_checkpoint, save_checkpoint
from clip4str.model.sizes import SIZES
from clip4str.runtime import Recognizer
from clip4str.runtime.bundle import Bundle

sys.path.insert(0, str(Path(__file__).parent / "training"))
from tiny import TINY, draw, train, write_lmdb

LANGUAGES = {
    "chinese": (CHINESE, ["一丁七", "万丈", "三上下", "A5"]),
    "vietnamese": (VIETNAMESE, ["đăng", "Phở", "bún", "it's"]),
    "bengali": (BENGALI, ["ক\u09cd\u200dষ", "বাংলা", "এক দুই", "১২"]),
    "digits": (DIGITS, ["24", "7", "1995", "080"]),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """trained(language) -> (folder of its words, model.safetensors after three steps with --charset)"""
    made: dict[str, tuple[Path, Path]] = {}

    def run(language: str) -> tuple[Path, Path]:
        if language not in made:
            charset, words = LANGUAGES[language]
            home = tmp_path_factory.mktemp(language)
            (home / "charset.txt").write_text(charset, encoding="utf-8")
            write_lmdb(home / "data" / "words", words * 2)
            with pytest.MonkeyPatch.context() as patch:
                patch.setitem(SIZES, "small", TINY)
                # words of up to seven characters: what has learned nothing takes a pass for each
                given = ("--steps", "3", "--charset", str(home / "charset.txt"), "--network", "steps=8")
                assert train(home / "data", home / "run", *given) == 0
            made[language] = home / "data", home / "run" / "model.safetensors"
        return made[language]

    return run


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    """A few crops to compare words on: networks that know nothing take a pass for every character."""
    folder = tmp_path_factory.mktemp("crops")
    for i, word in enumerate(["stop", "taxi", "24"]):
        draw(word, i).save(folder / f"{i}-{word}.png")
    return folder


def build_bundle(checkpoint, bundle, *options, crops):
    return build([str(checkpoint), "--output", str(bundle), "--sample-images", str(crops), *options])


def pictures(words):
    return [np.asarray(draw(word, seed)) for seed, word in enumerate(words)]


def words_of(network, images, bundle: Path) -> list[str]:
    """The plain network's."""
    from clip4str.runtime.images import prepare

    pixels = torch.from_numpy(prepare(images, Bundle.open(bundle).manifest.image_size))
    return [network.charset.decode(row) for row in network.read(pixels).ids]


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_is_trained_built_read_and_evaluated(trained, tmp_path, capsys, crops, language):
    charset, words = LANGUAGES[language]
    data, checkpoint = trained(language)
    said = capsys.readouterr().out
    assert f"charset: charset.txt: {len(charset):,} characters" in said and "left out" not in said
    for precision in ("--fp32", "--fp16"):
        bundle = tmp_path / precision
        assert (
            build([str(checkpoint), precision, "--output", str(bundle), "--target", "onnx", "--min-agreement", "0"])
            == 0
        )
        said = capsys.readouterr().out
        assert "looks untrained" in said
        manifest = Bundle.open(bundle).manifest
        assert (manifest.charset, manifest.charset_test) == (charset, default_test(charset))
        bound = 1e-4 if precision == "--fp32" else 2e-2
        assert all(stage["relative"] < bound for stage in manifest.parity["stages"].values())
    images, network = pictures(words), load_checkpoint(checkpoint)
    with Recognizer.load(tmp_path / "--fp32", threads=1) as recognizer:
        assert [word.text for word in recognizer.read(images)] == words_of(network, images, tmp_path / "--fp32")
    report = tmp_path / "report.json"
    given = ["--data", str(data), "--bundle", str(tmp_path / "--fp32"), "--quiet", "--threads", "1"]
    assert accuracy.main([*given, "--json", str(report)]) == 0
    out, values = capsys.readouterr().out, json.loads(report.read_text())
    assert "compared in the network's own characters" in out and values["protocol"]["own"]
    assert values["sets"][0]["num_samples"] == 8 and values["sets"][0]["noted"] == {}


@pytest.mark.parametrize("language", ["vietnamese", "chinese"])
def test_int8_of_a_language_is_judged_in_its_own_characters(trained, tmp_path, capsys, monkeypatch, crops, language):
    """Three steps teach nothing, so the gate is asked for nothing: that it runs, and what it says."""
    monkeypatch.setattr(
        int8_build, "time_in_turn", lambda files, feed: {n: [1.0 + (n == "float32")] * 5 for n in files}
    )
    data, checkpoint = trained(language)
    given = ["--calib-data", str(data / "words"), "--max-accuracy-drop", "100"]
    assert build_bundle(checkpoint, tmp_path / "int8", "--int8", *given, crops=crops) == 0
    out = capsys.readouterr().out
    assert "looks untrained" in out and "of no label anything" not in out
    quantization = Bundle.open(tmp_path / "int8").manifest.quantization
    assert quantization["kept"] == [] and quantization["gate"]["judged_by"] == "agreement"
    assert len(Recognizer.load(tmp_path / "int8", threads=1).read(pictures(LANGUAGES[language][1]))) == 4


def test_published_forks_build_from_a_bare_state_dict_with_charset_file(tmp_path, capsys, random_model, crops):
    """229 characters with ' twice and the default test charset, as a .pt without hyper-parameters."""
    torch.save({"state_dict": random_model(charset=VIETNAMESE).state_dict()}, tmp_path / "viet.pt")
    (tmp_path / "viet.txt").write_text(VIETNAMESE + "\n", encoding="utf-8")
    given = ("--min-agreement", "0", "--image-size", "32x64")
    assert build_bundle(tmp_path / "viet.pt", tmp_path / "b", *given, crops=crops) == 2
    assert "predicts 230 classes but the charset has 94" in capsys.readouterr().err
    given += ("--charset", str(tmp_path / "viet.txt"))
    assert build_bundle(tmp_path / "viet.pt", tmp_path / "b", *given, crops=crops) == 0
    assert "charset: viet.txt: 229 characters, ' twice" in capsys.readouterr().out
    assert Bundle.open(tmp_path / "b").manifest.charset == VIETNAMESE


def test_digits_alone_build_with_the_default_test_charset(tmp_path, capsys, random_model, crops):
    save_checkpoint(random_model(charset=DIGITS), tmp_path / "digits.safetensors")
    assert build_bundle(tmp_path / "digits.safetensors", tmp_path / "d", "--min-agreement", "0", crops=crops) == 0
    assert "captions keep the 10 of the test charset's 36 characters that it writes" in capsys.readouterr().out


@pytest.mark.parametrize(("steps", "context", "charset"), [(101, 77, VIETNAMESE), (101, 16, None), (26, 77, None)])
def test_labels_to_100_characters_and_the_whole_context_in_every_backend(
    tmp_path, capsys, random_model, crops, steps, context, charset
):
    """Beyond the fused kernels: plain torch reads, and is named before anything is built."""
    config = {"charset": charset, "charset_test": default_test(charset)} if charset else {}
    size = {"image_size": (16, 64), "patch_size": (16, 4)}
    network = random_model(eos_bias=1.0, steps=steps, context=context, **size, **config)
    save_checkpoint(network, tmp_path / "n.safetensors")
    assert build_bundle(tmp_path / "n.safetensors", tmp_path / "b", "--torch", crops=crops) == 0
    out = capsys.readouterr().out
    assert out.index("torch backend: the fused kernels do not take") < out.index("visual  ")
    images = [np.random.default_rng(i).integers(0, 256, (16, 64, 3), dtype=np.uint8) for i in range(4)]
    wanted = words_of(network, images, tmp_path / "b")
    for path, backend in (("b", "onnxruntime"), ("b", "torch"), ("n.safetensors", "torch")):
        with Recognizer.load(tmp_path / path, backend, threads=1) as recognizer:
            assert [word.text for word in recognizer.read(images)] == wanted, (path, backend)
    if steps == 101:
        assert max(map(len, wanted)) > 31, "no word is too long for the kernels: then this shows nothing"
    with pytest.raises(UsageError, match="the fused kernels do not take"):
        Recognizer.load(tmp_path / "b", "torch", passes=(3, 2))


def test_tables_and_computed_content_are_the_same_network(tmp_path, monkeypatch, random_model, crops):
    save_checkpoint(random_model(), tmp_path / "n.safetensors")
    sizes = []
    for name, largest in (("tables", decoders.LARGEST_TABLE), ("computed", 0)):
        monkeypatch.setattr(decoders, "LARGEST_TABLE", largest)
        assert build_bundle(tmp_path / "n.safetensors", tmp_path / name, crops=crops) == 0
        sizes.append((tmp_path / name / "visual.onnx").stat().st_size)
        stages = Bundle.open(tmp_path / name).manifest.parity["stages"]
        assert all(stage["relative"] < 1e-4 for stage in stages.values())
    assert sizes[1] < sizes[0] / 2


def test_eval_without_a_word_to_compare_is_an_error(tmp_path, capsys, tiny_bundle):
    write_lmdb(tmp_path / "data" / "hindi", ["हिन्दी", "भारत"])
    write_lmdb(tmp_path / "data" / "some", ["stop", "đăng", "भारत", "x" * 30])
    given = ["eval", "--data", str(tmp_path / "data"), "--bundle", str(tiny_bundle), "--quiet", "--threads", "1"]
    assert run_command(given) == 2
    error = capsys.readouterr().err
    assert "hindi: 2 labels left out: 2 with nothing that is compared" in error
    assert "some: 2 labels left out: 1 longer than 25 characters, 1 with nothing that is compared" in error
    assert "some: 1 labels have accents and what else is not of ASCII taken off" in error
    assert "error: hindi: no label to compare, so this says nothing of the network" in error


def test_eval_counts_what_it_takes_off_labels(tmp_path, capsys, random_model, crops):
    network = random_model(charset=VIETNAMESE, charset_test=default_test(VIETNAMESE))
    save_checkpoint(network, tmp_path / "v.safetensors")
    assert build_bundle(tmp_path / "v.safetensors", tmp_path / "b", "--min-agreement", "0", crops=crops) == 0
    labels = ["đăng", unicodedata.normalize("NFD", "Phở"), "Škoda", "hai từ"]
    write_lmdb(tmp_path / "data" / "set", labels)
    errors = tmp_path / "wrong.tsv"
    given = ["--bundle", str(tmp_path / "b"), "--quiet", "--errors", str(errors)]
    assert run_command(["eval", "--data", str(tmp_path / "data"), *given]) == 0
    assert "set: 2 labels have what the network cannot write taken off" in capsys.readouterr().err
    compared = [line.split("\t")[2] for line in errors.read_text(encoding="utf-8").splitlines()[1:]]
    assert compared == ["đăng", "phở", "skoda", "haitừ"]
