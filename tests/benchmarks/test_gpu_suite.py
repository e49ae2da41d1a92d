"""benchmarks/gpu_suite.py without a GPU: everything but CUDA itself, and CUDA's calls against stand-ins."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from clip4str.benchmarks.gpu import checks, costs
from clip4str.benchmarks.gpu.device import Gpu, StandIn, operations, poisoned, spread
from clip4str.benchmarks.gpu.end_to_end import summarize, take_turns
from clip4str.benchmarks.gpu.fused import FusedProgram, fused
from clip4str.benchmarks.gpu.networks import (
    PublishedWay,
    golden_network,
    narrow_config,
    narrow_network,
    random_network,
    random_pixels,
)
from clip4str.benchmarks.gpu.predict import MACHINES, Machine, predict, published_launches
from clip4str.benchmarks.gpu.report import MOST_CHARACTERS, summary, targets
from clip4str.benchmarks.gpu.sides import CompiledReference, PlainProgram
from clip4str.benchmarks.gpu.supervisor import Reporter, Section, Store, supervise
from clip4str.benchmarks.gpu_suite import main
from clip4str.core.errors import DeviceError, UsageError
from clip4str.model import Clip4Str, Config
from clip4str.training.start import SIZES

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu_suite.py"
CPU = torch.device("cpu")
ABSENT = ("PIL", "safetensors", "onnx", "onnxruntime", "tqdm", "lmdb", "matplotlib", "lightning", "pytorch_lightning")


def start(*arguments: str, without: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """The suite in a process of its own, as a script, with some packages hidden."""
    hide = f"""
import runpy, sys
class Hidden:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in {without!r} else self.finder.find_spec(name, path, target)
sys.meta_path[:] = map(Hidden, sys.meta_path)
sys.argv = {[str(SCRIPT), *arguments]!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    command = [sys.executable, *(["-c", hide] if without else [str(SCRIPT), *arguments])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TRITON_INTERPRET": "0"}
    return subprocess.run(command, capture_output=True, text=True, timeout=400, env=environment)


@pytest.fixture(scope="module")
def dry_run(tmp_path_factory) -> SimpleNamespace:
    path = tmp_path_factory.mktemp("gpu") / "dry.json"
    done = start("--dry-run", "--minutes", "20", "--output", str(path))
    return SimpleNamespace(done=done, path=path, results=json.loads(path.read_text()))


def test_dry_run_does_everything(dry_run):
    results = dry_run.results
    assert {s["state"] for s in results["sections"].values()} == {"done"}, dry_run.done.stdout
    assert not results["failures"] and dry_run.done.returncode == 0
    assert len(results["sections"]) >= 17 and results["ceilings"]["copy_gbs"] > 0
    for operator in checks.NAMES:
        assert results[f"check_{operator}"]["checked"] > 1 and results[f"check_{operator}"]["wrong"] == 0
    assert results["check_whole"]["golden"]["published"] == {"words": 4, "same": 4}
    assert results["check_whole"]["bundled"]["float32"] == 1
    for name, batches in (("b16", "12"), ("small", "1"), ("l14", "1")):
        for batch in batches:
            values = results[f"end_to_end_{name}"]["batches"][batch]
            assert values["sides"].keys() == {"ours", "published_fp16", "published_fp32", "plain"}
            assert values["device"]["ours"]["tower"]["median"] < values["device"]["ours"]["whole"]["median"]
            assert values["launches"]["published_fp16"] > values["launches"]["published_fp32"] > 100
            assert values["predicted"]["total_us"] > 0
    assert results["compiled"]["batches"]["1"]["sides"].keys() == {"compiled", "ours"}
    assert all(case["best"]["us"] > 0 for case in results["sweep"]["cases"])
    assert results["cross_attention"]["cross_attention"][0]["times_torch"] > 0
    assert results["predictions"]["defaults"]["machine"]["name"] == "H100"
    assert not results["warm"]["crashed"] and not results["warm"]["unfinished"]
    assert (dry_run.path.parent / "dry-profile-b16-1.txt").read_text()


def test_what_is_printed_last_is_short(dry_run):
    text = summary(dry_run.results)
    assert dry_run.done.stdout.endswith(f"{text}\nresults: {dry_run.path}\n")
    assert len(text) < MOST_CHARACTERS and "targets" in text and "failed: nothing" in text
    many = {**dry_run.results, "failures": [{"section": "s", "what": "w" * 500, "why": "y"}] * 300}
    assert len(summary(many)) <= MOST_CHARACTERS


def test_chart_of_results(dry_run, capsys):
    pytest.importorskip("matplotlib")
    assert main(["--chart", str(dry_run.path)]) == 0
    assert dry_run.path.with_suffix(".png").stat().st_size > 20_000
    assert "chart: " in capsys.readouterr().out


def test_torch_and_numpy_suffice(tmp_path):
    path = tmp_path / "r.json"
    only = ("check_tokenize", "check_whole", "end_to_end_small")
    done = start("--dry-run", "--minutes", "20", "--output", str(path), "--only", *only, without=ABSENT)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(path.read_text())
    assert results["check_tokenize"]["checked"] == 2
    assert [s["what"] for s in results["skipped"]] == ["the bundled network on its sample crops"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no GPU that torch can use"),
        (("--minutes", "0"), "--minutes is more than 0"),
        (("--output", "nowhere/a.json"), "its folder does not exist"),
        (("--chart", "nowhere.json"), "not results of this suite"),
        (("--predict", "abacus"), "--predict knows h100"),
    ],
)
def test_mistakes_are_one_line(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((DeviceError, UsageError), match=message):
        main(arguments)
    assert not list(tmp_path.iterdir())


def test_without_a_gpu_the_exit_code_is_2():
    done = start()
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "--dry-run" in done.stderr


# --- sections that fail, crash and hang


def crash(report: Reporter) -> None:
    report.values["kept"] = 1
    report.save()
    os._exit(3)


def hang(report: Reporter) -> None:
    report.values["kept"] = 2
    report.save()
    time.sleep(60)


def raises(report: Reporter) -> None:
    assert report.attempt("a part", 0, lambda: 1 / 0) is None
    raise ValueError("no")


def fine(report: Reporter) -> None:
    report.values["before"] = sorted(report.results)
    report.attempt("a long part", 1e6, lambda: None)


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "results.json", {})


def run(store: Store, *sections: Section, seconds: float = 30, **more) -> dict:
    supervise(sections, more.pop("prepare", lambda: None), more.pop("alive", lambda: True), store, seconds,
              say=lambda text: None, **more)  # fmt: skip
    assert store.path is not None
    return json.loads(store.path.read_text())


def test_whatever_a_section_does_the_run_goes_on(store):
    sections = [Section(f.__name__, 1, f) for f in (crash, raises, fine)]
    results = run(store, *sections)
    states = {name: values["state"] for name, values in results["sections"].items()}
    assert states == {"crash": "died without a word", "raises": "failed: ValueError: no", "fine": "done"}
    assert results["crash"] == {"kept": 1}
    assert [f["what"] for f in results["failures"]] == ["the section", "a part", "the section"]
    assert "ZeroDivisionError" in results["raises"]["tracebacks"]["a part"]
    assert results["skipped"] == [{"section": "fine", "what": "a long part", "why": "no time left"}]
    assert {"crash", "raises"} <= set(results["fine"]["before"])


def test_a_section_that_hangs_is_killed(store):
    began = time.monotonic()
    results = run(store, Section("hang", 1, hang), Section("fine", 30, fine), seconds=8, grace=0.5)
    assert time.monotonic() - began < 8
    assert results["sections"]["hang"]["state"].startswith("was killed") and results["hang"] == {"kept": 2}
    assert results["sections"]["fine"]["state"] == "done"


def test_no_time_left(store):
    results = run(store, Section("hang", 1, hang), Section("fine", 1e-6, fine), seconds=1.5, grace=0.2)
    assert "killed" in results["sections"]["hang"]["state"]
    assert results["skipped"] == [{"section": "fine", "what": "all of it", "why": "no time left"}]


def test_a_lost_device_means_a_new_process(store):
    def process(report: Reporter) -> None:
        report.values["process"] = os.getpid()

    results = run(store, Section("a", 1, process), Section("b", 1, process), alive=lambda: False)
    assert results["a"]["process"] != results["b"]["process"]
    assert [f["what"] for f in results["failures"]] == ["the device"] * 2


def test_what_the_start_raises_ends_the_run(store):
    def prepare() -> None:
        raise DeviceError("no GPU here")

    with pytest.raises(RuntimeError, match="no GPU here"):
        run(store, Section("fine", 1, fine), prepare=prepare)


def test_results_are_named_after_the_device(tmp_path):
    store = Store(None, {}, lambda name: tmp_path / f"{name}.json")
    store.take("values", "environment", {"name": "x1"})
    store.take("attach", "profile", {"suffix": "profile.txt", "text": "table"})
    store.write()
    assert json.loads((tmp_path / "x1.json").read_text())["environment"] == {"name": "x1"}
    assert (tmp_path / "x1-profile.txt").read_text() == "table"


# --- checks that find what is wrong


class Kept(Reporter):
    """A reporter without a pipe."""

    def __init__(self) -> None:
        super().__init__("check", 1e6, SimpleNamespace(send=lambda what: self.sent.append(what)), {})  # type: ignore[arg-type]
        self.sent: list = []

    @property
    def failures(self) -> list[str]:
        return [what["why"] for kind, _, what in self.sent if kind == "failures"]


def check_with(monkeypatch, kernel) -> Kept:
    """The check of `linear`, with another function in its place."""
    from clip4str.kernels import linear as package

    right = package.linear

    def linear(x, weight, bias=None, *, implementation="auto", **options):
        out = right(x, weight, bias, **options)
        return out if implementation == "reference" else kernel(out)

    monkeypatch.setattr(package, "linear", linear)
    report = Kept()
    checks.check(StandIn(), report, "linear")
    return report


@pytest.mark.parametrize(
    ("kernel", "why"),
    [
        (lambda out: out * 1.1, "differs from its reference by"),
        (lambda out: torch.empty_like(out), "differs from its reference by 1e+09"),
        (lambda out: torch.cat((out[:-1], torch.empty_like(out[-1:]))), "differs from its reference by 1e+09"),
        (lambda out: out + 1e-7 * torch.rand(()), "two runs on the same input differ"),
    ],
    ids=["wrong", "unwritten", "last row unwritten", "race"],
)
def test_wrong_kernels_are_found(monkeypatch, kernel, why):
    report = check_with(monkeypatch, kernel)
    assert report.values["wrong"] and any(why in failure for failure in report.failures)


def test_right_kernels_pass(monkeypatch):
    report = check_with(monkeypatch, lambda out: out.clone())
    assert not report.failures and report.values["checked"] == 14


def test_poisoned_memory():
    with poisoned():
        assert torch.empty(5).isnan().all() and (torch.empty(5, dtype=torch.int32) == 2**31 - 1).all()
    assert not torch.are_deterministic_algorithms_enabled()


# --- the ways of decoding


@pytest.fixture(scope="module")
def narrow() -> Clip4Str:
    return narrow_network(2, 2)


def test_golden_network_is_the_published_one():
    model, golden = golden_network("tiny")
    images = torch.from_numpy(golden["images"]).permute(0, 3, 1, 2).float() / 127.5 - 1
    words = [model.charset.decode(row) for row in model.read(images).ids]
    assert words == golden["text"].tolist()


def test_plain_and_fused_programs_agree(narrow):
    """Two programs of the same passes that share no code but the network: the same answers, given the same captions."""
    pixels = random_pixels(narrow.config, 3, CPU)
    program = FusedProgram(*fused(narrow, torch.float32, CPU), 3, narrow.charset)
    program.load(pixels)
    results, plain = program.run(), PlainProgram(narrow, 3)
    plain.bpe = results[:, program.program.columns["caption"]]
    ids, probs = plain(pixels)
    assert program.words() == [narrow.charset.decode(row) for row in ids.tolist()]
    found = results[:, program.program.columns["probs"]].view(torch.float32)
    torch.testing.assert_close(found, probs, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(program.tower(), program.kv)


def test_every_way_reads_words_of_six_characters(narrow, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)  # compiled in the dry run
    pixels = random_pixels(narrow.config, 2, CPU)
    for half in (True, False):
        assert [len(word) for word in PublishedWay(narrow, CPU, half)(pixels)] == [6, 6]
    assert [len(word) for word in CompiledReference(narrow, torch.float32, None)(pixels)] == [6, 6]


def test_random_networks_are_repeatable_and_pixels_vary():
    a, b = (random_network(narrow_config(1, 1), CPU, seed=3) for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))
    pixels = random_pixels(a.config, 2, CPU)
    assert pixels.abs().max() <= 1 and not torch.equal(pixels[0], pixels[1])


# --- predictions


@pytest.mark.parametrize("size", ["b16", "l14", "small"])
def test_arithmetic_is_what_torch_counts(size):
    """The image tower's and a decoder pass's, counted by torch on tensors without data."""
    config = SIZES[size]
    with torch.device("meta"):
        model = Clip4Str(config)
        tokens, attend = torch.zeros(2, 26, dtype=torch.long), torch.ones(26, 26, dtype=torch.bool)
        with FlopCounterMode(display=False) as tower:
            memory = model.clip_model.visual(torch.zeros(2, 3, *config.image_size))
        kv = model.visual_decoder.project_memory(memory)
        with FlopCounterMode(display=False) as decoder:
            model.visual_decoder(tokens, attend, kv)
        with FlopCounterMode(display=False) as text:
            model.clip_model.encode_text(torch.zeros(2, config.context, dtype=torch.long))
    ends = 2 * 2 * config.memory_tokens * config.image_width * 4 * config.d  # proj and both K/V projections are one
    counted = costs.total_flops(costs.image_tower(config, 2)) - ends
    plain = tower.get_total_flops() - 2 * 2 * config.memory_tokens * config.image_width * config.d
    assert counted == pytest.approx(plain, rel=0.01)
    # the tables of a pass replace content keys, values and two projections: less, never more
    parts = costs.decode_pass(config, 2, 0)
    assert 0.4 < costs.total_flops(parts) / decoder.get_total_flops() < 1
    assert costs.total_flops(costs.text_tower(config, 2)) == pytest.approx(text.get_total_flops(), rel=0.1)


def test_bytes_hold_the_weights_once():
    """At batch 1 a program must read every weight of the image tower: 2 bytes each."""
    with torch.device("meta"):
        model = Clip4Str(Config())
    weights = 2 * sum(p.numel() for p in model.clip_model.visual.transformer.parameters())
    assert weights < costs.total_bytes(costs.image_tower(Config(), 1)) < 1.6 * weights


def test_predictions_follow_the_machine():
    config, h100 = Config(), MACHINES["h100"]
    one, large = (predict(h100, config, n) for n in (1, 64))
    assert one["bound_us"] < one["total_us"] and large["bound_us"] < large["total_us"]
    assert one["launches"] <= large["launches"]
    free = Machine(launch_us=0, graph_us=0, bandwidth=1e9, cache_gbs=1e9, block_gbs=1e9)
    assert predict(free, config, 64)["rate_share"] == pytest.approx(0.75, abs=0.1)  # waves are not whole
    slow = predict(Machine(launch_us=101.6), config, 1)
    assert slow["total_us"] - one["total_us"] == pytest.approx(100 * one["launches"])


def test_a_draft_takes_the_place_of_the_start_pass_and_of_another():
    config, h100 = Config(), MACHINES["h100"]
    drafting = replace(config, draft_frames=3)
    before, after = predict(h100, config, 1), predict(h100, drafting, 1)
    a_pass = len(costs.decode_pass(config, 1, 0))
    assert after["tower_launches"] == before["tower_launches"] + 4
    assert after["launches"] == before["launches"] + 4 - a_pass
    assert after["total_us"] < before["total_us"]


def test_launches_of_the_published_way():
    assert published_launches(2, 2, False) < published_launches(2, 2, True) < published_launches(3, 2, True)


def test_operations_are_counted_but_views_are_not():
    x, w = torch.randn(4, 4), torch.randn(4, 4)
    assert operations(lambda: (x.t() @ w.view(4, 4)).relu_()[None]) == 2
    assert operations(lambda: torch.empty(3).reshape(3, 1).expand(3, 5)) == 0
    assert operations(lambda: x.to(torch.bfloat16).to(torch.bfloat16)) == 1


def test_predict_prints_a_table(capsys):
    assert main(["--predict", "orin", "--launch-us", "4"]) == 0
    out = capsys.readouterr().out
    assert "4.0 us a small kernel" in out and "Jetson AGX Orin" in out and "| b16 | 64 |" in out
    assert "b16 batch 1, launch by launch:" in out


# --- figures and targets


def test_turns_and_figures():
    calls: list[str] = []
    sides = {name: lambda pixels, name=name: calls.append(name) for name in "ab"}
    times = take_turns(StandIn(), sides, [torch.zeros(1)], 1.0)
    assert calls == ["a", "b", "a", "b"] and times["a"]["repetitions"] == 2
    assert spread([3e-6, 1e-6, 2e-6]) == {
        "median": 2, "quartile_1": 1.5, "quartile_3": 2.5, "fastest": 1, "repetitions": 3,
    }  # fmt: skip
    values = {
        "batch": 1,
        "sides": {"ours": {"median": 100.0}, "published_fp16": {"median": 2500.0}},
        "device": {"ours": {"whole": {"median": 90.0}, "tower": {"median": 60.0}}},
    }
    summarize(values, Config(), 1000.0)
    assert values["summary"]["published_fp16_over_ours"] == 25
    assert values["summary"]["times_tower"] == 1.5 and values["summary"]["after_share"] == pytest.approx(
        1 / 3, abs=1e-4
    )
    flops = costs.total_flops(costs.program(Config(), 1))
    assert values["summary"]["rate_share"] == pytest.approx(flops / 90e-6 / 1e15, rel=0.01)


def test_targets_are_met_or_missed():
    def results(speedup: float, tower: float, after: float, bound: float) -> dict:
        batches = {
            "1": {"summary": {"published_fp16_over_ours": speedup, "times_tower": tower}},
            "64": {"summary": {"after_share": after, "rate_share": 0.55}},
        }
        cases = [{"name": "base16 text 16 batch 64", "of_bound": bound, "times_torch": 1.5}]
        return {"end_to_end_b16": {"batches": batches}, "cross_attention": {"cross_attention": cases}}

    good = [t["state"] for t in targets(results(41, 1.5, 0.19, 0.7))]
    assert good == ["moonshot met", "met", "met", "met", "not measured", "not measured", "met", "met"]
    bad = [t["state"] for t in targets(results(24.9, 2.1, 0.21, 0.69))]
    assert bad == ["missed", "missed", "missed", "met", "not measured", "not measured", "missed", "met"]
    assert {t["state"] for t in targets({})} == {"not measured"}


# --- CUDA's calls, against stand-ins of the names that torch has


class Event:
    clock = 0.0

    def __init__(self, enable_timing: bool = False) -> None:
        assert enable_timing

    def record(self) -> None:
        Event.clock += 5.0
        self.at = Event.clock

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, other: Event) -> float:
        return other.at - self.at


class Nothing:
    def __init__(self, *given: object, **more: object) -> None:
        self.given = more

    def __enter__(self) -> Nothing:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def wait_stream(self, other: object) -> None:
        pass

    def synchronize(self) -> None:
        pass

    def replay(self) -> None:
        pass


@pytest.fixture
def gpu(monkeypatch) -> Gpu:
    properties = SimpleNamespace(name="Fake", major=9, minor=0, multi_processor_count=132, total_memory=2**36)
    fakes = {
        "current_device": lambda: 0, "get_device_properties": lambda device: properties, "synchronize": lambda: None,
        "empty_cache": lambda: None, "mem_get_info": lambda: (7, 9), "Stream": Nothing, "stream": Nothing,
        "current_stream": Nothing, "CUDAGraph": Nothing, "graph": Nothing, "Event": Event,
    }  # fmt: skip
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    gpu = Gpu()
    gpu.device = CPU
    return gpu


@pytest.mark.filterwarnings("ignore:CUDA is not available")
def test_gpu_against_stand_ins(gpu):
    calls: list[int] = []

    def call() -> np.ndarray:
        calls.append(1)
        return np.arange(3)

    replay = gpu.graph(call)
    assert len(calls) == 3 and replay().tolist() == [0, 1, 2] and len(calls) == 3
    assert gpu.seconds(call, 4, inner=5) == [pytest.approx(0.001)] * 4
    assert len(gpu.seconds(call, 100, limit=0)) == 2
    with gpu.streams():
        pass
    gpu.free()
    assert gpu.memory_left() == 7 and gpu.alive() and gpu.least(3) == 3
    info = gpu.info()
    assert info["name"] == "Fake" and info["capability"] == "9.0" and info["multiprocessors"] == 132
    count, text = gpu.kernels(lambda: torch.ones(3) + 1)
    assert count is None and "no kernel" in text


def test_engines_are_skipped_where_they_cannot_run(dry_run):
    (skipped,) = [s for s in dry_run.results["skipped"] if s["section"] == "engines"]
    assert skipped["what"] == "engines of the bundled network" and skipped["why"] == "no GPU"


def test_engines_are_read_with_compared_and_timed(monkeypatch, tmp_path):
    """With a build and a backend that need no GPU in place of TensorRT's."""
    from clip4str.benchmarks.gpu import engines
    from clip4str.export import finishing
    from clip4str.runtime import Recognizer

    said = {"target": "tensorrt", "version": "10.3", "build_seconds": {}, "layers": {}, "parity": {}}
    load = Recognizer.load.__func__

    def read(cls, folder, backend):
        recognizer = load(cls, folder, "onnxruntime", threads=1)
        recognizer.manifest.engines.update(said)
        if backend == "tensorrt":
            recognizer.driver.charset.decode = lambda ids: (
                wrong or type(recognizer.driver.charset).decode(recognizer.driver.charset, ids)
            )
        return recognizer

    monkeypatch.setattr(finishing, "finish_bundle", lambda *args, **options: None)
    monkeypatch.setattr(Recognizer, "load", classmethod(read))
    monkeypatch.setattr(engines, "ROUNDS", 6)
    for wrong in ("", "scrambled"):
        report = SimpleNamespace(values={}, failures=[], save=lambda: None)
        report.fail = lambda what, why: report.failures.append((what, why))  # noqa: B023
        engines._measure(report, "fp16", "tensorrt")
        found = report.values["fp16"]
        assert found["version"] == "10.3" and found["words"] == 32 and found["batch 8"]["median"] > 0
        assert (found["agreeing"], len(report.failures)) == ((0, 1) if wrong else (32, 0))
