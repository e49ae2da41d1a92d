"""benchmarks/gpu_suite.py without a GPU: everything but CUDA itself, and CUDA's calls against stand-ins."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from without_torch import SCRIPT as WITHOUT_TORCH

from clip4str.benchmarks import gpu_suite, kernel_launches
from clip4str.benchmarks.gpu.device import Gpu, StandIn, spread
from clip4str.benchmarks.gpu.end_to_end import EAGER, summarize, take_turns
from clip4str.benchmarks.gpu.fused import FusedProgram, fused
from clip4str.benchmarks.gpu.networks import TINY, PublishedWay, random_pixels
from clip4str.benchmarks.gpu.options import SPLIT, SPLIT_BATCH, TOGETHER
from clip4str.benchmarks.gpu.report import MOST_CHARACTERS, summary
from clip4str.benchmarks.gpu.sides import CompiledReference, PlainProgram
from clip4str.benchmarks.gpu.timeline import shares
from clip4str.benchmarks.gpu_suite import NEED_MORE, main
from clip4str.benchmarks.launches import total_flops
from clip4str.benchmarks.random_weights import random_network
from clip4str.core.errors import DeviceError, UsageError
from clip4str.kernels.linear.config import SPLIT_ROWS, split_configuration
from clip4str.kernels.options import NAMES
from clip4str.model import Clip4Str, Config
from clip4str.model.sizes import SIZES

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu_suite.py"
CPU = torch.device("cpu")


BARE = ("torch", "triton", "numpy")  # what a bare GPU machine has, and what torch needs itself
OF_TORCH = ("torchgen", "functorch", "sympy", "mpmath", "networkx", "jinja2", "markupsafe", "filelock", "fsspec",
            "typing_extensions.py", "numpy.libs", "torch.libs")  # fmt: skip
ORDER = ["environment", "first", "sanitizer", "warm", "network", "library", "cuda_layer", "ceilings",
         "end_to_end_base16", "timeline", "files", "compiled", "correctness"]  # fmt: skip


def start(*arguments: str, python: tuple[str, ...] = (), **more: str) -> subprocess.CompletedProcess[str]:
    """The suite in a process of its own, as a script."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TRITON_INTERPRET": "0", **more}
    command = [sys.executable, *python, str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=900, env=environment)


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> Path:
    """A folder of packages that has torch, triton and numpy, and no others."""
    return packages(tmp_path_factory.mktemp("bare"))


def packages(folder: Path, *, triton: Path | None = None) -> Path:
    """triton: where to take it from. It finds its compilers by what its dist-info says."""
    folder.mkdir(exist_ok=True)
    places = [Path(place) for place in sys.path if place]
    for pattern in (*BARE, *OF_TORCH, "triton-*.dist-info"):
        for place in [triton] if triton and pattern.startswith("triton") else places:
            for found in place.glob(pattern):
                if not (folder / found.name).exists():
                    (folder / found.name).symlink_to(found)
    return folder


@pytest.fixture(scope="module")
def dry_run(bare, tmp_path_factory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("gpu") / "new" / "out"
    done = start("--dry-run", "--minutes", "20", "--output", str(folder), python=("-S",), PYTHONPATH=str(bare))
    assert folder.is_dir(), done.stderr
    (path,) = folder.glob("*.json")
    return SimpleNamespace(done=done, path=path, results=json.loads(path.read_text()))


def test_dry_run_with_the_oldest_triton(oldest_triton, tmp_path):
    """Those sections that compile kernels, or would on a GPU."""
    chosen = "first", "sanitizer", "warm", "options", "timeline"
    path, folder = tmp_path / "results.json", packages(tmp_path / "bare", triton=oldest_triton)
    done = start("--dry-run", "--minutes", "20", "--output", str(path), "--only", *chosen, python=("-S",),
                 PYTHONPATH=str(folder), TRITON_CACHE_DIR=str(tmp_path / "cache"))  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(path.read_text())
    assert results["environment"]["triton"] == oldest_triton.name == "3.6.0"
    assert {*results["sections"]} == {"environment", "ceilings", *chosen}
    assert {s["state"] for s in results["sections"].values()} == {"done"}
    assert not results["failures"] and not results["skipped"]
    compiled = {file.stem for file in (tmp_path / "cache").rglob("*.cubin")}
    assert compiled, "by this Triton, for a GPU that is not here"


def test_dry_run_does_everything_that_needs_torch_triton_and_numpy_alone(dry_run):
    results = dry_run.results
    assert {s["state"] for s in results["sections"].values()} == {"done"}, dry_run.done.stdout
    assert not results["failures"] and not results["skipped"] and dry_run.done.returncode == 0
    assert results["environment"]["triton"] in dry_run.done.stdout, "versions stand beside every figure"
    assert list(results["sections"]) == [s for s in results["sections"] if s not in NEED_MORE]
    assert len(results["sections"]) == 15 and results["ceilings"]["copy_gbs"] > 0
    assert sorted(p.suffix for p in dry_run.path.parent.iterdir()) == [".json", ".txt"]
    assert dry_run.path.with_suffix(".txt").read_text() == summary(results) + "\n"
    assert set(results["first"]) == {"linear", "cross_attention", "decode_pass", "tokenize", "crop_resize", "resize",
                                     "thumbnail", "collapse", "short_attention"}  # fmt: skip
    assert results["sanitizer"]["exit_code"] == 0 and results["sanitizer"]["last"][0].startswith("3 words: ")
    for batch in ("batch 1", "batch 2"):
        assert results["timeline"][batch]["busy_us"] > 0 and results["timeline"][batch]["kernels"]
    assert results["timeline"]["product"]["triton"]["median"] > 0
    for name, batches in (("base16", "12"), ("small", "1"), ("large", "1")):
        for batch in batches:
            values = results[f"end_to_end_{name}"]["batches"][batch]
            assert values["sides"].keys() == {"ours", *EAGER, "plain"}
            summarized = values["summary"]
            assert summarized["best_eager_over_ours"] == min(summarized[f"{side}_over_ours"] for side in EAGER)
            assert values["device"]["ours"]["tower"]["median"] < values["device"]["ours"]["whole"]["median"]
            assert values["predicted"]["total_us"] > 0
    assert_options_are_timed(results["options"]["batches"])
    assert results["compiled"]["batches"]["1"]["sides"].keys() == {"compiled", "ours"}
    assert all(case["best"]["us"] > 0 for case in results["sweep"]["cases"])
    assert results["cross_attention"]["cross_attention"][0]["times_torch"] > 0
    assert not results["warm"]["problems"]


def assert_options_are_timed(batches: dict) -> None:
    """split_k where it changes anything."""
    assert all(times["words_differ"] == 0 for turned in batches.values() for times in turned.values())
    assert batches["2"].keys() == {SPLIT} and batches["1"].keys() == {*NAMES, TOGETHER} - {SPLIT}
    rows = {batch: batch * SIZES["base16"].memory_tokens for batch in (1, SPLIT_BATCH, 64)}
    assert split_configuration(rows[1], 3072, 768, torch.float16) is None
    assert split_configuration(rows[SPLIT_BATCH], 3072, 768, torch.float16).parts == 3 and rows[64] > SPLIT_ROWS


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory) -> SimpleNamespace:
    path = tmp_path_factory.mktemp("gpu") / "rehearsed.json"
    done = start("--rehearse", "--minutes", "30", "--output", str(path), "--only", *NEED_MORE)
    return SimpleNamespace(done=done, results=json.loads(path.read_text()))


def test_a_rehearsal_runs_what_needs_more(rehearsal):
    """The other sections are the dry run's."""
    results = rehearsal.results
    assert set(results["sections"]) == {"environment", "ceilings", *NEED_MORE}
    assert {s["state"] for s in results["sections"].values()} == {"done"}, rehearsal.done.stdout
    assert not results["failures"] and not results["skipped"], rehearsal.done.stdout
    assert all(results[name]["tests"] > 0 for name in ("network", "library", "cuda_layer", "correctness"))
    for network in ("base16", "small"):
        found = results["files"][network]
        assert found["images_per_second"] > 0 and found["first_word"]["first_us"] > 0 and found["device_busy"] > 0
    assert results["engines"]["rehearsal"]["batch 1"]["median"] > 0


def test_the_first_things_come_first():
    names = [section.name for section in gpu_suite._sections(gpu_suite._Device(False), False)]
    assert names[: len(ORDER)] == ORDER and set(NEED_MORE) < set(names) and len(names) == len(set(names))


def test_what_is_printed_last_is_short(dry_run):
    text = summary(dry_run.results)
    assert dry_run.done.stdout.endswith(f"{text}\nresults: {dry_run.path}\n")
    assert len(text) < MOST_CHARACTERS and "failed: nothing" in text
    many = {**dry_run.results, "failures": [{"section": "s", "what": "w" * 500, "why": "y"}] * 300}
    assert len(summary(many)) <= MOST_CHARACTERS


def test_chart_of_results(dry_run, capsys):
    pytest.importorskip("matplotlib")
    assert main(["--chart", str(dry_run.path)]) == 0
    assert dry_run.path.with_suffix(".png").stat().st_size > 20_000
    assert "chart: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no GPU that torch can use"),
        (("--dry-run", "--rehearse"), "--rehearse is more than --dry-run"),
        (("--output", "a.txt"), "its name must end in .json$"),
        (("--output", "/proc/none/here"), "cannot be made"),
        (("--minutes", "0"), "--minutes is more than 0"),
        (("--output", "nowhere/a.json"), "its folder does not exist"),
        (("--chart", "nowhere.json"), "not results of this suite"),
        (
            ("--rehearse", "--only", "nonsuch", "--output", "new"),
            "no section begins with 'nonsuch'; there are env",
        ),
        (("--rehearse", "--only", "warm", "warmer"), "no section begins with 'warmer'; there are"),
        (("--dry-run", "--only", "engines"), "no section begins with 'engines'; there are"),
    ],
)
def test_mistakes_are_one_line(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((DeviceError, UsageError), match=message):
        main(arguments)
    assert not list(tmp_path.iterdir())


def test_without_a_gpu_the_exit_code_is_2():
    done = start()
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "--rehearse" in done.stderr


def test_without_torch_or_triton_it_says_what_to_install(tmp_path, monkeypatch):
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, str(SCRIPT), "--output", str(tmp_path / "new")],
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "needs torch and triton: pip install 'clip4str[gpu]'" in done.stderr and "docs/jetson.md" in done.stderr
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DeviceError, match="needs torch and triton"):
        main(["--rehearse", "--output", str(tmp_path / "new")])
    assert not list(tmp_path.iterdir())
    page = (SCRIPT.parents[1] / "docs" / "jetson.md").read_text()
    assert "How fast\n" in page, "what the message names"


def test_a_wrong_switch_is_said_before_any_section(tmp_path, monkeypatch):
    monkeypatch.setenv("CLIP4STR_GPU_OPTIONS", "wide_tile")
    with pytest.raises(UsageError, match="CLIP4STR_GPU_OPTIONS: 'wide_tile' is none of dependent_launch"):
        main(["--rehearse", "--output", str(tmp_path / "new")])
    assert not list(tmp_path.iterdir())


def test_the_help_names_every_section(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    told = capsys.readouterr().out.partition("sections:\n")[2].replace("\n", " ")
    assert told.split() == ", ".join(s.name for s in gpu_suite._sections(gpu_suite._Device(True), True)).split()


# --- the ways of decoding


@pytest.fixture(scope="module")
def narrow() -> Clip4Str:
    return random_network(replace(TINY, image_layers=2, text_layers=2))


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
    half = copy.deepcopy(narrow).to(torch.bfloat16)
    for way in (PublishedWay(narrow, CPU), PublishedWay(half, CPU), PublishedWay(narrow, CPU, autocast=True)):
        assert [len(word) for word in way(pixels)] == [6, 6]
    assert [len(word) for word in CompiledReference(narrow, torch.float32, None)(pixels)] == [6, 6]


def test_random_networks_are_repeatable_and_pixels_vary():
    a, b = (random_network(TINY, CPU, seed=3) for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))
    pixels = random_pixels(a.config, 2, CPU)
    assert pixels.abs().max() <= 1 and not torch.equal(pixels[0], pixels[1])


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
        "sides": {
            "ours": {"median": 100.0},
            "published_fp32": {"median": 2500.0},
            "published_half": {"median": 1300.0},
        },
        "device": {"ours": {"whole": {"median": 90.0}, "tower": {"median": 60.0}}},
    }
    summarize(values, Config(), 1000.0)
    assert values["summary"]["published_fp32_over_ours"] == 25
    assert "best_eager" not in values["summary"], "the best of some is not the best"
    values["sides"]["published_autocast"] = {"median": 1500.0}
    summarize(values, Config(), 1000.0)
    assert (values["summary"]["best_eager"], values["summary"]["best_eager_over_ours"]) == ("published_half", 13)
    assert values["summary"]["times_tower"] == 1.5 and values["summary"]["after_share"] == pytest.approx(
        1 / 3, abs=1e-4
    )
    flops = total_flops(kernel_launches.program(Config(), 1))
    assert values["summary"]["rate_share"] == pytest.approx(flops / 90e-6 / 1e15, rel=0.01)


def test_gaps_between_kernels_are_found():
    spans = [("b", 12.0, 3.0), ("a", 10.0, 1.0), ("a", 11.5, 2.0), ("flash_fwd_kernel", 20.0, 5.0)]
    found = shares(spans)
    assert (found["span_us"], found["busy_us"], found["gaps_us"]) == (15, 1 + 3.5 + 5, 5.5)
    assert found["longest_gap_us"] == 5 and found["launches"] == 4 and found["attention"] == ["flash_fwd_kernel"]
    assert found["kernels"][0] == {"name": "flash_fwd_kernel", "count": 1, "us": 5.0}


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
    gpu.free()
    assert gpu.memory_left() == 7 and gpu.alive() and gpu.least(3) == 3
    info = gpu.info()
    assert info["name"] == "Fake" and info["capability"] == "9.0" and info["multiprocessors"] == 132
    assert gpu.kernels(lambda: torch.ones(3) + 1) is None  # the profiler sees no kernel here
