"""The C library's launches held against those of the Triton wrappers.

There is no GPU: a stand-in for libcuda (c/fake_cuda.c) writes down what it is asked to launch, and in place of the
Triton kernels stand recorders of what the Python side launches for the same tensors.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from device import needs_interpreter
from torch import Tensor

from clip4str.core.errors import LayoutError, ShapeError, UsageError
from clip4str.kernels.collapse import collapse_frames
from clip4str.kernels.crop_resize import crop_resize
from clip4str.kernels.cross_attention import cross_attention
from clip4str.kernels.decode_pass import Answer, decode_pass
from clip4str.kernels.resize import resize
from clip4str.kernels.thumbnail import thumbnail
from clip4str.kernels.tokenize import TokenizerTables, tokenize

pytest.importorskip("triton")
import compiled_kernels
from compiled_kernels import FEW, MANY, serves
from library_arguments import NET, decoder_of, decoder_weights, half, keys_values, memory_of, numbers, pointer

import clip4str.kernels.linear.api as linear_api
from clip4str.kernels.aot import operator_variants
from clip4str.kernels.collapse import kernel as collapse_kernel
from clip4str.kernels.crop_resize import kernel as crop_kernel
from clip4str.kernels.cross_attention import kernel as attention_kernel
from clip4str.kernels.decode_pass import kernel as decode_kernel
from clip4str.kernels.linear import aot as linear_aot
from clip4str.kernels.linear import kernel as linear_kernel
from clip4str.kernels.loader import NAME, KernelLibrary
from clip4str.kernels.resize import kernel as resize_kernel
from clip4str.kernels.shared.variants import Variant
from clip4str.kernels.thumbnail import kernel as thumbnail_kernel
from clip4str.kernels.tokenize import kernel as tokenize_kernel

pytestmark = needs_interpreter  # recorders take CPU tensors for a kernel's
VARIANTS = operator_variants(NET, "fp16", (9, 0))  # before kernels are replaced
KERNELS = (
    (linear_kernel, "linear_kernel"),
    (attention_kernel, "attend_kernel"),
    (decode_kernel, "self_attention_kernel"),
    (decode_kernel, "head_kernel"),
    (crop_kernel, "crop_resize_kernel"),
    (resize_kernel, "resize_kernel"),
    (thumbnail_kernel, "thumbnail_kernel"),
    (tokenize_kernel, "tokenize_kernel"),
    (collapse_kernel, "collapse_frames_kernel"),
)


@dataclass
class Launch:
    name: str
    grid: tuple[int, int, int]
    threads: int
    values: list[Any]  # of arguments that are there, in order: numbers, or tensors
    fixed: dict[str, Any] = field(default_factory=dict)  # at compile time, as far as the Triton side says

    def addresses(self) -> list[int]:
        return [v.data_ptr() if isinstance(v, Tensor) else v for v in self.values]


class Recorder:
    """Stands in for a @triton.jit function."""

    def __init__(self, kernel: Any, launches: list[Launch]) -> None:
        self.kernel, self.launches = kernel, launches

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def launch(*values: Any, num_warps: int, launch_pdl: bool = False, **fixed: Any) -> None:
            assert launch_pdl == fixed.get("DEPENDENT", False), "started early, it must wait by itself"
            given = [v for v in values if v is not None]
            absent = {name: None for name, v in zip(self.kernel.arg_names, values) if v is None}
            sizes = (*grid, 1, 1)[:3]
            self.launches.append(Launch(self.kernel.__name__, sizes, 32 * num_warps, given, {**absent, **fixed}))

        return launch


@pytest.fixture
def triton_launches(monkeypatch) -> list[Launch]:
    """What the Triton wrappers launch; tensors in it stay alive, so that no address serves twice."""
    launches: list[Launch] = []
    for module, name in KERNELS:
        monkeypatch.setattr(module, "dependent", lambda device: True, raising=False)  # as compiled for a 9.0
        monkeypatch.setattr(module, name, Recorder(getattr(module, name), launches))
    chosen = linear_api.configuration

    def configuration(rows: int, *rest: Any) -> Any:
        """As the library has it: tiles of a whole range of rows."""
        return chosen(next((most for most in linear_aot.ROWS if rows <= most), linear_aot.ROWS[-1]), *rest)

    monkeypatch.setattr(linear_api, "configuration", configuration)
    return launches


@pytest.fixture
def log(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("FAKE_CUDA_LOG", str(tmp_path / "launches"))
    return tmp_path / "launches"


def logged(log: Path) -> list[Launch]:
    launches = []
    for line in log.read_text().splitlines():
        name, x, y, z, threads, _, stream, *values = line.removesuffix(" dependent").split()
        assert int(stream, 16) == 0x1234
        numbers = [int(v.split("/")[0]) for v in values]
        assert numbers[-2:] == [0, 0]  # hidden: scratch memory that no kernel uses
        launches.append(Launch(name, (int(x), int(y), int(z)), int(threads), numbers[:-2]))
    return launches


@pytest.fixture
def library(monkeypatch):
    with compiled_kernels.opened(monkeypatch) as opened:
        yield opened


def compiled_as(variant: Variant, launch: Launch) -> bool:
    """Is a variant compiled with what this launch has fixed?"""
    options = {"num_stages": variant.num_stages, **variant.options}
    fixed = {**options, **variant.constexprs}
    threads = 32 * variant.num_warps
    return variant.kernel.__name__ == launch.name and threads == launch.threads and fixed == {**options, **launch.fixed}


def assert_same(library: list[Launch], triton: list[Launch], known: list[Tensor | None]) -> None:
    """Kernels, grids, block sizes, numbers, pointers; one to memory that the caller did not give stands for one."""
    given = {t.data_ptr() for t in known if t is not None}
    places: dict[int, int] = {}
    assert [launch.name for launch in library] == [launch.name for launch in triton]
    for mine, theirs in zip(library, triton):
        assert (mine.grid, mine.threads) == (theirs.grid, theirs.threads), mine.name
        assert any(compiled_as(v, theirs) for v in VARIANTS), theirs.fixed
        assert len(mine.values) == len(theirs.values), mine.name
        for value, other in zip(mine.values, theirs.values):
            expected = other.data_ptr() if isinstance(other, Tensor) else int(other)
            if isinstance(other, Tensor) and expected not in given:
                expected = places.setdefault(expected, value)
            assert value == expected, (mine.name, mine.values, theirs.addresses())


@pytest.mark.parametrize("mode, n, text, logits, strided", [
    ("start", FEW, False, False, False),
    ("causal", FEW, False, False, True),
    ("cloze", FEW, True, True, True),
    ("cloze", MANY, True, False, False),
])  # fmt: skip
def test_decode_pass_launches_what_triton_would(library, log, triton_launches, mode, n, text, logits, strided):
    weights = decoder_weights()
    memory = keys_values(n, NET.memory, strided)
    text_memory = keys_values(n, NET.text) if text else None
    ids, limit = None if mode == "start" else numbers(n, NET.steps), numbers(n)
    keep = numbers(n) if mode == "cloze" else None
    out = Answer.empty(weights, n, logits)
    decode_pass(
        weights, ids, memory, text_memory, mode=mode, keep=keep, limit=limit, logits=logits, out=out,
        implementation="triton",
    )  # fmt: skip
    decoder = decoder_of(weights)
    workspace = torch.zeros(library.decode_pass_workspace(decoder, n), dtype=torch.uint8)
    library.decode_pass(
        decoder, mode=mode, memory=memory_of(memory), text=memory_of(text_memory), stream=0x1234, n=n, ids=pointer(ids),
        keep=pointer(keep), limit=limit.data_ptr(), out_ids=out.ids.data_ptr(), probs=out.probs.data_ptr(),
        last=out.last.data_ptr(), unsettled=out.unsettled.data_ptr(), logits=pointer(out.logits),
        workspace=workspace.data_ptr(), workspace_bytes=workspace.numel(),
    )  # fmt: skip
    tensors = [value for value in vars(weights).values() if isinstance(value, Tensor)]
    launches = logged(log)
    assert len(launches) == 6 + (n == MANY)  # many words' queries are projected before
    assert_same(launches, triton_launches, [*tensors, memory, text_memory, ids, keep, limit, *out])
    end = workspace.data_ptr() + workspace.numel()
    inside = [v for launch in launches for v in launch.values if workspace.data_ptr() <= v < end]
    assert len(set(inside)) == 3 and all(v % 16 == 0 for v in inside)  # x, attended, hidden


@pytest.mark.parametrize("n, text, count", [(FEW, True, 2), (MANY, False, 3), (MANY, True, 3)])
def test_cross_attention_launches_what_triton_would(library, log, triton_launches, n, text, count):
    x, d = half(n, NET.steps, NET.d), NET.d
    memory, text_memory = keys_values(n, NET.memory, True), keys_values(n, NET.text) if text else None
    weights = {"query_weight": half(d, d), "query_bias": half(d), "out_weight": half(d, d), "out_bias": half(d)}
    out = torch.empty_like(x)
    cross_attention(x, memory, text_memory, **weights, heads=NET.heads, out=out, implementation="triton")
    workspace = torch.zeros(library.cross_attention_workspace(n, NET.steps, d), dtype=torch.uint8)
    library.cross_attention(
        memory=memory_of(memory), text=memory_of(text_memory), stream=0x1234, n=n, T=NET.steps, d=d, heads=NET.heads,
        x=x.data_ptr(), out=out.data_ptr(), workspace=workspace.data_ptr(), workspace_bytes=workspace.numel(),
        **{name: tensor.data_ptr() for name, tensor in weights.items()},
    )  # fmt: skip
    launches = logged(log)
    assert len(launches) == count
    assert_same(launches, triton_launches, [x, memory, text_memory, out, *weights.values()])


@pytest.mark.parametrize("rows", [FEW * 26, MANY * 26 - 5])
def test_linear_launches_what_triton_would(library, log, triton_launches, rows):
    d, f = NET.d, NET.mlp
    wide = half(rows, d + 16)
    x, weight, bias, out = wide[:, :d], half(f, d), half(f), half(rows, f)
    linear_api.linear(x, weight, bias, normalize=True, activation="gelu", out=out, implementation="triton")
    library.linear(
        stream=0x1234, rows=rows, K=d, F=f, normalize=1, activation="gelu", x=x.data_ptr(), weight=weight.data_ptr(),
        bias=bias.data_ptr(), out=out.data_ptr(), stride_x=d + 16,
    )  # fmt: skip
    assert_same(logged(log), triton_launches, [x, weight, bias, out])


def test_crop_resize_launches_what_triton_would(library, log, triton_launches):
    height, width = NET.image_size
    luma, chroma = torch.zeros(480, 704, dtype=torch.uint8)[:, :640], torch.zeros(240, 704, dtype=torch.uint8)[:, :640]
    quads = torch.tensor([[[10, 20], [110, 20], [110, 60], [10, 60]]] * 3, dtype=torch.float32)
    out = torch.zeros(3, 3, height, width)
    crop_resize(
        (luma, chroma), quads, (height, width), layout="nv12", matrix="bt709", out=out,
        implementation="triton",
    )  # fmt: skip
    launched = triton_launches[0].values[2]  # the api brings quads to the device itself
    library.crop_resize(
        stream=0x1234, layout="nv12", matrix="bt709", full_range=0, out_float32=1, n=3, height=height, width=width,
        frame_height=480, frame_width=640, frame=luma.data_ptr(), chroma=chroma.data_ptr(), stride=704,
        chroma_stride=704, quads=launched.data_ptr(), out=out.data_ptr(),
    )  # fmt: skip
    assert_same(logged(log), triton_launches, [luma, chroma, launched, out])


def test_resize_launches_what_triton_would(library, log, triton_launches):
    (height, width), pixels = NET.image_size, torch.zeros(4096, dtype=torch.uint8)
    table = torch.tensor([[0, 20, 30], [1800, 4, 5], [7, 2, 2]], dtype=torch.int32)
    out = torch.zeros(3, 3, height, width)
    resize(pixels, table, (height, width), out=out, implementation="triton")
    library.resize(
        stream=0x1234, n=3, height=height, width=width, out_float32=1, pixels=pixels.data_ptr(),
        pictures=table.data_ptr(), out=out.data_ptr(),
    )  # fmt: skip
    assert_same(logged(log), triton_launches, [pixels, table, out])


@pytest.mark.parametrize("change, error, words", [
    ({"n": -1}, ShapeError, "a->n: supported are 0 to"),
    ({"height": 2049}, ShapeError, "a->height: supported are 1 to 2048, got 2049"),
    ({"pictures": 0}, UsageError, "a->pictures"),
    ({"pixels": 8}, LayoutError, "pixels must be a multiple of 16"),
    ({"normalization": "none"}, UsageError, "normalization is one of"),
    ({"quads": 16}, UsageError, "quads: no such argument"),
])  # fmt: skip
def test_resize_refuses_what_it_cannot_launch(library, log, change, error, words):
    good = {"n": 1, "height": NET.image_size[0], "width": NET.image_size[1], "out_float32": 1,
            "pixels": 16, "pictures": 12, "out": 48}  # fmt: skip
    with pytest.raises(error, match=re.escape(words)):
        library.resize(**{**good, **change})
    assert not log.exists()


@pytest.mark.parametrize(("layout", "colour"), [("bgr", False), ("nv12", False), ("nv12", True)])
def test_thumbnail_launches_what_triton_would(library, log, triton_launches, layout, colour):
    luma, chroma = torch.zeros(480, 2112, dtype=torch.uint8), torch.zeros(240, 704, dtype=torch.uint8)
    packed = luma[:, :1920].unflatten(1, (640, 3))
    frame = (luma[:, :640], chroma[:, :640]) if layout == "nv12" else packed
    out = thumbnail(frame, (240, 320), layout=layout, colour=colour, matrix="bt709", implementation="triton")
    library.thumbnail(
        stream=0x1234, layout=layout, matrix="bt709", colour=int(colour), height=240, width=320, frame_height=480,
        frame_width=640, frame=luma.data_ptr(), chroma=chroma.data_ptr(), stride=2112, chroma_stride=704,
        out=out.data_ptr(),
    )  # fmt: skip
    assert_same(logged(log), triton_launches, [luma, chroma, out])


@pytest.mark.parametrize("change, error, words", [
    ({"height": 481}, ShapeError, "a->height: supported are 1 to 480, got 481"),
    ({"frame_width": 639}, ShapeError, "NV12 has even sides, got 480 x 639"),
    ({"stride": 639}, ShapeError, "stride: expected a stride from 640 to"),
    ({"chroma": 0}, UsageError, "a->chroma"),
    ({"out": 0}, UsageError, "a->out"),
    ({"out": 8}, LayoutError, "out must be a multiple of 16"),
    ({"layout": "yuv"}, UsageError, "layout is one of"),
])  # fmt: skip
def test_thumbnail_refuses_what_is_no_frame(library, log, change, error, words):
    good = {"layout": "nv12", "colour": 1, "height": 240, "width": 320, "frame_height": 480, "frame_width": 640,
            "frame": 16, "chroma": 32, "out": 48}  # fmt: skip
    with pytest.raises(error, match=re.escape(words)):
        library.thumbnail(**{**good, **change})
    assert not log.exists()


def test_tokenize_launches_what_triton_would(library, log, triton_launches):
    tables = TokenizerTables(numbers(95), torch.zeros(2, 1 << 12, dtype=torch.int64), 49406, 49407, NET.text)
    ids = numbers(MANY, NET.steps)
    out = tokenize(tables, ids, implementation="triton")
    library.tokenize(
        stream=0x1234, n=MANY, T=NET.steps, characters_count=95, pairs_bits=tables.bits, start=49406, end=49407,
        ids=ids.data_ptr(), characters=tables.characters.data_ptr(), pairs=tables.pairs.data_ptr(), out=out.data_ptr(),
    )  # fmt: skip
    assert_same(logged(log), triton_launches, [ids, tables.characters, tables.pairs, out])


@pytest.mark.parametrize("frames", [42, 65])
def test_collapse_launches_what_triton_would(library, log, triton_launches, frames):
    ids = numbers(MANY, frames)
    out = collapse_frames(ids, NET.steps, NET.classes, implementation="triton")
    library.collapse(
        stream=0x1234, n=MANY, frames=frames, T=NET.steps, C=NET.classes, ids=ids.data_ptr(), out=out.data_ptr()
    )
    assert_same(logged(log), triton_launches, [ids, out])


@pytest.mark.parametrize("change, error, words", [
    ({"frames": 1025}, ShapeError, "a->frames: supported are 1 to 1024, got 1025"),
    ({"T": 33}, ShapeError, "a->T: supported are 1 to 32, got 33"),
    ({"C": 0}, ShapeError, "a->C"),
    ({"n": -1}, ShapeError, "a->n"),
    ({"ids": 0}, UsageError, "a->ids"),
    ({"out": 0}, UsageError, "a->out"),
    ({"out": 2}, LayoutError, "out must be a multiple of 4"),
])  # fmt: skip
def test_collapse_refuses_what_are_no_frames(library, log, change, error, words):
    good = {"n": 2, "frames": 32, "T": 26, "C": 95, "ids": 16, "out": 32}
    with pytest.raises(error, match=re.escape(words)):
        library.collapse(**{**good, **change})
    assert not log.exists()


def test_shared_memory_threads_and_architecture(library, log):
    """A launch's resources are the cubin's; the stand-in refuses more shared memory than was asked for."""
    assert library.capability == (9, 0) and library.architectures == ["87", "90a"]
    rows, d = MANY * 26, NET.d
    library.linear(stream=0x1234, rows=rows, K=d, F=d, x=16, weight=32, bias=48, residual=64, out=64)
    fields = log.read_text().split()
    cubin = next(
        row
        for row in compiled_kernels.figures()
        if row["capability"] == [9, 0] and row["where"].get("K") == row["where"].get("F") == d
        and row["where"]["has_residual"] and serves(row["where"], MANY)
    )  # fmt: skip
    assert (int(fields[4]), int(fields[5])) == (32 * cubin["num_warps"], cubin["shared"])


def test_kernels_start_before_the_one_ahead_has_ended_where_asked(log, monkeypatch):
    """By an option of the environment, on drivers that can capture it, for kernels that wait by themselves."""
    sizes = {"rows": FEW * 26, "K": 4 * NET.d, "F": NET.d, "x": 16, "weight": 32, "bias": 48, "residual": 64, "out": 64}
    frame = {"height": 16, "width": 32, "frame_height": 16, "frame_width": 32, "frame": 16, "stride": 96, "out": 64}

    def early(asked: str, version: str, capability: str = "90") -> list[bool]:
        log.write_text("")
        for name, value in (("GPU_OPTIONS", asked), ("VERSION", version), ("CAPABILITY", capability)):
            monkeypatch.setenv(f"{'CLIP4STR' if name == 'GPU_OPTIONS' else 'FAKE_CUDA'}_{name}", value)
        folder = compiled_kernels.library()
        with KernelLibrary(folder / NAME, libcuda=folder / "libfake_cuda.so") as library:
            library.linear(stream=0x1234, **sizes)
            if capability == "90":
                library.thumbnail(stream=0x1234, **frame)
        return [line.endswith(" dependent") for line in log.read_text().splitlines()]

    assert early("dependent_launch", "12030") == [True, False], "a frame's kernel is the first of its chain"
    assert early("-library_residual, dependent_launch", "13000") == [True, False]
    off = "dependent_launch,-dependent_launch"
    for asked, version in (("", "13000"), (off, "13000"), ("dependent_launch", "12020")):
        assert early(asked, version) == [False, False]
    assert early("dependent_launch", "13000", "87") == [False]
