"""Whole int8 builds and their gate: what is refused, what goes back to higher precision, what is said."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from charsets import CHINESE, VIETNAMESE
from int8_networks import calibration_of, noise, plan_of
from PIL import Image

from clip4str.core.errors import ParityError, UsageError
from clip4str.core.text import Charset
from clip4str.export.parity_images import BUNDLED_CROPS
from clip4str.export.quantization import QuantizationOptions, build, quantise
from clip4str.export.quantization.arithmetic import Range
from clip4str.export.quantization.build import by_sensitivity
from clip4str.export.quantization.gate import Attempt, Gate, pass_gate, plain
from clip4str.export.quantization.plan import Quantization, products_of, units_of
from clip4str.export.quantization.samples import Sample
from clip4str.export.stage_files import write_stages
from clip4str.export.untrained import untrained
from clip4str.model import load_checkpoint
from clip4str.model.checkpoint import BUNDLED
from clip4str.runtime.backends.ort import OrtBackend
from clip4str.runtime.bundle import STAGES, Bundle


@pytest.fixture(scope="module")
def network(random_model):
    return random_model(seed=3)


@pytest.fixture(scope="module")
def bundled():
    """The network that is shipped: words that mean something."""
    return load_checkpoint(BUNDLED)


@pytest.fixture(scope="module")
def built(bundled, tmp_path_factory):
    """One whole build for a CPU on the sample crops: its folder, the manifest's part, what was said."""
    folder, said = tmp_path_factory.mktemp("built"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "time_in_turn", fixed_is_faster)
        files, facts = quantise(bundled, folder, QuantizationOptions(BUNDLED_CROPS, 5.0), say=said.append)
    assert sorted(path.name for path in files) == sorted(f"{stage}.onnx" for stage in STAGES)
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in files)  # nothing left over
    return folder, facts, said


def fixed_is_faster(files, feed):
    return {name: [1.0 + (name == "float32")] * 5 for name in files}


class FakeGate:
    """Loses what `lost` says of the units kept."""

    def __init__(self, model, lost):
        self.model, self.lost, self.samples = model, lost, noise(10)

    def attempt(self, network, files, kept=0):
        return Attempt(network, kept, None, 0.0, self.lost(files[0]), 1.0, 1.0)


def test_a_build_keeps_the_words_and_says_what_it_did(built):
    _, facts, said = built
    gate = facts["gate"]
    first, last = gate["attempts"][0], gate["attempts"][-1]
    assert (facts["scheme"], facts["rest"], facts["kept"], facts["target"]) == ("qdq", "fp32", [], "cpu")
    assert gate["crops"] == 24 and facts["calibration"] == {"source": "32 crops of sample_crops", "crops": 8}
    assert gate["judged_by"] == "accuracy" and first["accuracy"] > 90 and last["accuracy"] >= first["accuracy"] - 5
    assert last["agreement"] >= 90 and last["megabytes"] < 0.75 * first["megabytes"]
    assert gate["points_a_word"] == pytest.approx(100 / 24, rel=1e-3)
    assert json.loads(json.dumps(facts)) == facts
    table = "\n".join(said)
    assert "one word is 4.2 points" in table and "float32" in table and "int8" in table
    assert sum("accuracy" in line and "agreement" in line for line in said) == 1


def test_the_gate_reads_the_very_files(built, bundled):
    """Words of the files, read anew, against the table."""
    folder, _, _ = built
    crops = [Sample(Image.open(path).convert("RGB"), path.stem[3:]) for path in sorted(BUNDLED_CROPS.glob("*.jpg"))]
    gate = Gate(bundled, crops, "half", lambda _: None)
    exact = [word for s in crops for word in words_of(bundled, s)]
    gate.words = exact
    attempt = gate.attempt("again", [folder / f"{stage}.onnx" for stage in STAGES])
    got, *_ = gate._read(folder, "again")
    assert attempt.agreement == pytest.approx(100 * np.mean([a == b for a, b in zip(got, exact)]))
    right = [plain(a) == plain(s.label) for a, s in zip(got, crops)]
    assert attempt.accuracy == pytest.approx(100 * np.mean(right)) and np.mean(right) > 0.8
    assert attempt.megabytes == pytest.approx(sum((folder / f"{s}.onnx").stat().st_size for s in STAGES) / 1e6)


def words_of(model, sample):
    import torch

    from clip4str.runtime.images import prepare

    ids = model.read(torch.from_numpy(prepare([sample.image], model.config.image_size))).ids
    return [model.charset.decode(row) for row in ids]


def test_a_sabotaged_unit_goes_back_and_the_build_passes(bundled, tmp_path, monkeypatch):
    broken = products_of("image.0.mlp")[1]
    smooth = build.best_smoothing

    def sabotage(*args):
        plan, *rest = smooth(*args)
        return replace(plan, ranges={**plan.ranges, broken: Range(-1e-3, 1e-3)}), *rest

    monkeypatch.setattr(build, "best_smoothing", sabotage)
    monkeypatch.setattr(build, "time_in_turn", fixed_is_faster)
    said = []
    _, facts = quantise(bundled, tmp_path, QuantizationOptions(BUNDLED_CROPS, 5.0), say=said.append)
    attempts = facts["gate"]["attempts"]
    assert attempts[1]["drop"] > 5 >= attempts[2]["drop"] and len(attempts) == 3
    assert facts["kept"] == ["image.0.mlp"] and attempts[2]["kept"] == 1
    assert any("most sensitive: image.0.mlp" in line for line in said)
    weights = {p.name: p.read_bytes() for p in tmp_path.iterdir()}["image.onnx"]
    assert f"{broken}.input_scale".encode() not in weights


def test_units_go_back_one_two_four(network):
    units = units_of(network.config)
    seen = []

    def write(plan):
        seen.append(set(plan.kept))
        return [plan]

    gate = FakeGate(network, lambda plan: 0.2 if len(plan.kept) >= 4 else 1.0)
    order = units[::-1]
    plan, _ = pass_gate(gate, Quantization(), 0.5, write, lambda: order)
    assert [len(kept) for kept in seen] == [0, 1, 2, 4]
    assert plan.kept == set(order[:4]) and all(kept == set(order[: len(kept)]) for kept in seen)


def test_nothing_is_asked_of_a_plan_that_passes(network):
    plan, _ = pass_gate(FakeGate(network, lambda _: 0.3), Quantization(), 0.3, lambda p: [p], lambda: 1 / 0)
    assert plan.kept == frozenset()


@pytest.mark.parametrize("target, rest", [("gpu", "half precision"), ("cpu", "float32")])
def test_a_network_that_nothing_helps_is_refused(network, target, rest):
    gate, units = FakeGate(network, lambda _: 7.25), units_of(network.config)
    seen = []
    with pytest.raises(ParityError, match=rf"7\.25 points lost on 10 crops, 0\.3 allowed, .*{rest}; .*--fp32"):
        pass_gate(gate, Quantization(target=target), 0.3, lambda p: seen.append(p.kept) or [p], lambda: units)
    assert seen[-1] == set(units)


def test_the_table_of_an_fp8_bundle_is_of_fp8(network):
    names, units = [], units_of(network.config)
    gate = FakeGate(network, lambda plan: 0.0 if plan.kept else 1.0)
    attempt, gate.attempt = gate.attempt, lambda name, *rest: names.append(name) or attempt(name, *rest)
    pass_gate(gate, Quantization(target="gpu", weights="e4m3"), 0.3, lambda p: [p], lambda: units)
    assert names == ["fp8", "fp8, 1 of 6 units fp16"]


@pytest.mark.parametrize("target, way_out", [("gpu", "--fp16"), ("cpu", "--fp32")])
def test_an_int8_bundle_in_which_nothing_is_quantised_is_refused(network, target, way_out):
    units = units_of(network.config)
    gate = FakeGate(network, lambda plan: 0.0 if len(plan.kept) == len(units) else 4.5)
    message = rf"nothing would be quantised: 0\.3 points .* 4\.50 were; build with {way_out}"
    with pytest.raises(ParityError, match=message):
        pass_gate(gate, Quantization(target=target), 0.3, lambda p: [p], lambda: units)


def test_random_weights_lose_nothing_when_all_is_float32_again(network, tmp_path):
    """Noise is read with labels that are not there: any word that differs counts, and none may."""
    folder, said = tmp_path / "crops", []
    folder.mkdir()
    for i, sample in enumerate(noise(24, seed=1)):
        sample.image.save(folder / f"{i}.png")
    with pytest.raises(ParityError, match="all 6 units had to go back to float32, so nothing would be quantised"):
        quantise(network, tmp_path, QuantizationOptions(folder, 0.0), say=said.append)
    assert "100.00 %" in next(line for line in said if line.startswith("int8, 6 of 6 units"))


def test_the_most_sensitive_unit_is_first(network):
    plan, calibration = plan_of(network), calibration_of(network)
    bad = {**plan.ranges, **{p: Range(-1e-3, 1e-3) for p in products_of("text.0.attn")}}
    assert by_sensitivity(network, replace(plan, ranges=bad), calibration, print)[0] == "text.0.attn"
    bad = {**plan.ranges, **{p: Range(-1e-3, 1e-3) for p in products_of("image.1.mlp")}}
    assert by_sensitivity(network, replace(plan, ranges=bad), calibration, print)[0] == "image.1.mlp"


def test_labels_that_the_network_does_not_read_are_not_trusted(network, tmp_path):
    said = []
    gate = Gate(network, [Sample(s.image, "holiday") for s in noise(6)], "half", said.append)
    files = write_stages(network, tmp_path, "fp32")
    gate.attempt("float32", files)
    assert not gate.trusts_labels and "judged by agreement" in said[-1]
    gate.words = ["?"] * 5 + gate.words[5:]
    assert gate.attempt("other", files).drop == pytest.approx(100 * 5 / 6)


class Words:
    """A gate whose bundles read what they are told to, in the place of stage files."""

    def __init__(self, charset, labels, monkeypatch, tmp_path):
        model = SimpleNamespace(charset=charset, config=SimpleNamespace(to_dict=dict))
        self.said, self.read, file = [], [], tmp_path / "image.onnx"
        file.touch()
        self.gate = Gate(model, [Sample(None, label) for label in labels], "half", self.said.append)
        monkeypatch.setattr(self.gate, "_read", lambda *_: (self.read, [0.9] * len(self.read), 0.1))
        self.files = [file]

    def attempt(self, *words):
        self.read = list(words)
        return self.gate.attempt("name", self.files)


def test_accents_that_int8_loses_count(monkeypatch, tmp_path):
    """By small letters and digits of ASCII both would be the same."""
    words = Words(Charset(VIETNAMESE), ["đăng", "Phở", "bún", "5"], monkeypatch, tmp_path)
    exact = words.attempt("đăng", "phở", "bún", "5")
    assert exact.accuracy == 100 and words.gate.trusts_labels
    lost = words.attempt("đang", "phở", "bun", "5")
    assert (lost.accuracy, lost.drop, lost.agreement) == (50, 50, 50)


def test_a_chinese_network_is_judged_in_its_own_characters(monkeypatch, tmp_path):
    words = Words(Charset(CHINESE), ["一丁", "七", "万丈"], monkeypatch, tmp_path)
    assert words.attempt("一丁", "七", "三").accuracy == pytest.approx(200 / 3)
    assert words.attempt("一", "七", "三").drop == pytest.approx(100 / 3)


def test_where_a_label_folds_to_nothing_the_words_are_to_be_those_of_float32(monkeypatch, tmp_path):
    words = Words(Charset(), ["हिन्दी", "stop", "exit", "!?"], monkeypatch, tmp_path)
    words.attempt("@1", "stop", "exit", "!?")
    assert words.gate.trusts_labels and any("of 2 labels nothing is compared" in line for line in words.said)
    changed = words.attempt("@2", "STOP", "exit", "")
    assert (changed.accuracy, changed.drop) == (50, 50)


def test_labels_of_another_script_altogether_leave_agreement(monkeypatch, tmp_path):
    words = Words(Charset(), ["标志", "出口", "街"], monkeypatch, tmp_path)
    assert words.attempt("a", "b", "").accuracy is None
    assert "of no label anything is compared" in words.said[-1] and not words.gate.trusts_labels
    assert words.attempt("a", "x", "").drop == pytest.approx(100 / 3)


def test_a_network_that_reads_nothing_right_is_called_untrained(monkeypatch, tmp_path):
    words = Words(Charset(), ["stop"] * 8, monkeypatch, tmp_path)
    words.attempt(*["a"] * 8)
    assert any(line.strip().startswith("this network looks untrained:") and "none of 8" in line for line in words.said)
    assert untrained(Charset(), [("", 0.03)] * 3, [None] * 3).endswith("0.03 (chance is 0.011)")
    assert untrained(Charset(), [("stop", 0.5)] * 8, ["stop"] * 8) == untrained(Charset(), [("x", 0.9)], [None]) == ""
    assert untrained(Charset(CHINESE), [("", 0.5)] * 9, ["stop"] * 9), "small letters are among its characters"


@pytest.mark.parametrize("word, compared", [("It's", "its"), ("ÉTÉ", "t"), ("A-1!", "a1"), ("", "")])
def test_the_standard_protocol(word, compared):
    assert plain(word) == compared


def test_int8_for_something_else():
    with pytest.raises(UsageError, match="'cpu' or 'gpu', not 'tpu'"):
        QuantizationOptions(device_target="tpu")
    with pytest.raises(UsageError, match="of a CPU's bundle, not 'dynamic'"):
        QuantizationOptions(device_target="gpu", scheme="dynamic")


def test_fp8_is_for_gpus_alone():
    with pytest.raises(UsageError, match="fp8 is for 'gpu', not 'cpu'"):
        QuantizationOptions(precision="fp8")
    with pytest.raises(UsageError, match="eight bits are int8 or fp8, not 'fp4'"):
        QuantizationOptions(device_target="gpu", precision="fp4")


def test_unsigned_weights_reach_the_files(network, monkeypatch, tmp_path):
    import onnx

    monkeypatch.setattr(build, "cpu_flags", lambda: frozenset({"avx2"}))
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    folder = tmp_path / "crops"
    folder.mkdir()
    for i, sample in enumerate(noise(12)):
        sample.image.save(folder / f"{i}.png")
    _, facts = quantise(network, tmp_path, QuantizationOptions(folder, 100.0))
    assert facts["weights"] == "u8"
    types = {t.name: t.data_type for t in onnx.load(tmp_path / "image.onnx").graph.initializer}
    stored = [kind for name, kind in types.items() if name.endswith(("c_fc.weight", "out_proj.weight"))]
    assert set(stored) == {onnx.TensorProto.UINT8}


@pytest.mark.parametrize("precision, bits", [("int8", "s8"), ("fp8", "e4m3")])
def test_for_a_gpu_decoders_are_half(network, tmp_path, precision, bits):
    from clip4str.export.quantization.gate import stage_bundle

    folder = tmp_path / "crops"
    folder.mkdir()
    for i, sample in enumerate(noise(12)):
        sample.image.save(folder / f"{i}.png")
    said = []
    options = QuantizationOptions(folder, 100.0, "gpu", precision=precision)
    _, facts = quantise(network, tmp_path, options, say=said.append)
    assert (facts["rest"], facts["activations"], facts["weights"]) == ("fp16", bits, bits) and "schemes" not in facts
    assert any("says nothing of a GPU" in line for line in said) and said[0].startswith(f"{precision}: ")
    assert facts["gate"]["attempts"][-1]["network"] == precision
    bundle: Bundle = stage_bundle(network, tmp_path, "half", precision)
    visual_kv, _ = OrtBackend(bundle, threads=1).image(np.zeros((2, 3, 32, 64), np.float32))
    assert visual_kv.dtype == np.float16
