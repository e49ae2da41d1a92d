"""The C library by itself and through its loader: found, opened, refused; what bad arguments get."""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from clip4str.core.errors import BackendError, DeviceError, LayoutError, ShapeError, UsageError
from clip4str.kernels import loader
from clip4str.kernels.decode_pass import Answer, decode_pass, pack_decoder
from clip4str.kernels.loader import Decoder, KernelLibrary, Memory
from clip4str.model.config import Config
from clip4str.model.network import Decoder as Network

pytest.importorskip("triton")
import compiled_kernels
from compiled_kernels import FEW, MANY, ROOT
from library_arguments import NET, decoder_of, keys_values, memory_of, pointer

LINEAR: dict[str, Any] = {
    "rows": 52, "K": 192, "F": 192, "x": 4096, "weight": 8192, "bias": 64, "residual": 4096 * 3, "out": 4096 * 4,
}  # fmt: skip


@pytest.fixture
def log(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("FAKE_CUDA_LOG", str(tmp_path / "launches"))
    return tmp_path / "launches"


@pytest.fixture
def library(monkeypatch):
    with compiled_kernels.opened(monkeypatch) as opened:
        yield opened


def test_the_c_program_passes():
    done = subprocess.run(
        ["ctest", "--output-on-failure"], cwd=compiled_kernels.library(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
    assert "2 tests" in done.stdout or "out of 2" in done.stdout


@pytest.mark.parametrize("change, error, words", [
    ({"x": 0}, UsageError, "a->x"),
    ({"x": 4100}, LayoutError, "x must be a multiple of 16 bytes, got 4100"),
    ({"rows": -1}, ShapeError, "a->rows: supported are 0"),
    ({"rows": 1 << 40}, ShapeError, "rows = 1099511627776 is out of range"),
    ({"K": 191}, ShapeError, "linear.linear: the library holds no kernel for rows=52 K=191"),
    ({"out": 4096}, ShapeError, "memory other than x"),
    ({"stride_out": 190}, ShapeError, "stride_out"),
    ({"stride_out": 200}, LayoutError, "stride_out must be a multiple of 16, got 200"),
    ({"activation": "relu"}, UsageError, "gelu"),
    ({"biass": 3}, UsageError, "biass"),
])  # fmt: skip
def test_bad_arguments_are_typed_errors(library, log, change, error, words):
    with pytest.raises(error, match=re.escape(words)):
        library.linear(**{**LINEAR, **change})
    assert not log.exists()  # nothing ran
    library.linear(**LINEAR)  # the handle is as usable as before


def test_nothing_runs_where_a_later_launch_is_refused(library, log):
    sizes = {"T": NET.steps, "K": NET.tokens, "C": NET.classes, "d": NET.d, "heads": NET.heads, "F": NET.mlp}
    decoder = Decoder(**{name: sizes.get(name, 4096) for name, _ in Decoder._fields_})
    good: dict[str, Any] = {"n": 2, "ids": 16, "keep": 32, "limit": 48, "out_ids": 64, "probs": 80, "last": 96,
                            "unsettled": 112, "workspace": 4096, "workspace_bytes": 1 << 30}  # fmt: skip
    memory = Memory(data=16, length=NET.memory)
    for change, error, words in (
        ({"memory": Memory(data=16, length=NET.memory + 1)}, ShapeError, "cross_attention.attend"),
        ({"memory": Memory(data=16, length=65, stride_row=12)}, LayoutError, "multiples of 8"),
        ({"memory": Memory()}, ShapeError, "a->memory"),
        ({"out_ids": 16}, ShapeError, "memory other than ids"),
        ({"probs": 82}, LayoutError, "probs must be a multiple of 4 bytes"),
        ({"limit": 0}, UsageError, "a->limit"),
        ({"keep": 0}, UsageError, "a->keep"),
        ({"workspace_bytes": 100}, ShapeError, "workspace_bytes"),
        ({"n": 1 << 17}, ShapeError, "a->n"),
    ):
        with pytest.raises(error, match=re.escape(words)):
            library.decode_pass(decoder, mode="cloze", **{"memory": memory, **good, **change})
    decoder.d = 190
    with pytest.raises(ShapeError, match="multiple of 8 x 8 heads"):
        library.decode_pass(decoder, mode="cloze", memory=memory, **good)
    assert not log.exists()


def test_handles_fail_cleanly(monkeypatch):
    folder = compiled_kernels.library()
    path, fake = folder / loader.NAME, folder / "libfake_cuda.so"
    with pytest.raises(DeviceError, match="no NVIDIA driver"):
        KernelLibrary(path, libcuda="/nowhere/libcuda.so")
    with pytest.raises(ShapeError, match="not built for network base64"):
        KernelLibrary(path, network="base64", libcuda=fake)
    monkeypatch.setenv("CLIP4STR_LIBCUDA", str(fake))
    for capability, chosen in (("87", (8, 7)), ("89", (8, 7)), ("90", (9, 0))):
        monkeypatch.setenv("FAKE_CUDA_CAPABILITY", capability)
        with KernelLibrary(path, network=NET.name) as library:
            assert library.capability == chosen
    for capability in ("80", "86", "91", "120"):  # older than any of its generation; 90a is for 9.0 alone
        monkeypatch.setenv("FAKE_CUDA_CAPABILITY", capability)
        with pytest.raises(
            DeviceError, match=rf"{capability[:-1]}\.{capability[-1]}, the library was built for: 87 90a"
        ):
            KernelLibrary(path)
    monkeypatch.setenv("FAKE_CUDA_CAPABILITY", "90")
    monkeypatch.setenv("FAKE_CUDA_NO_CONTEXT", "1")
    with pytest.raises(DeviceError, match="no CUDA context"):
        KernelLibrary(path)
    monkeypatch.delenv("FAKE_CUDA_NO_CONTEXT")
    for function in ("cuModuleLoadData", "cuCtxGetCurrent"):
        monkeypatch.setenv("FAKE_CUDA_FAIL", function)
        with pytest.raises(BackendError, match="CUDA error"):
            KernelLibrary(path)
    monkeypatch.setenv("FAKE_CUDA_FAIL", "cuLaunchKernel")
    with KernelLibrary(path) as library, pytest.raises(BackendError, match=r"linear\.linear: invalid argument"):
        library.linear(**LINEAR)
    library.close()
    with pytest.raises(BackendError, match="was closed"):
        library.linear(**LINEAR)


def test_the_library_is_found_or_the_places_named(monkeypatch, tmp_path):
    monkeypatch.delenv(loader.VARIABLE, raising=False)
    path = compiled_kernels.library() / loader.NAME
    with pytest.raises(BackendError, match=r"no kernel library at .*nowhere"):
        KernelLibrary(tmp_path / "nowhere.so")
    monkeypatch.setenv(loader.VARIABLE, str(path))
    assert loader.find_library() == path
    (tmp_path / "text.so").write_text("no library")
    with pytest.raises(BackendError, match="cannot be loaded"):
        KernelLibrary(tmp_path / "text.so")
    with pytest.raises(BackendError, match="cannot be loaded as clip4str's"):
        KernelLibrary(compiled_kernels.library() / "libfake_cuda.so")


def test_structures_are_those_of_the_header():
    """Field by field: a structure that differs would pass pointers in the wrong places."""
    text = re.sub(r"/\*.*?\*/", "", (ROOT / "kernels/library/clip4str_kernels.h").read_text(), flags=re.DOTALL)
    kinds = {"int32_t": ctypes.c_int32, "int64_t": ctypes.c_int64, "uint64_t": ctypes.c_uint64}
    kinds |= {"clip4str_pointer": ctypes.c_uint64, "clip4str_memory": Memory}
    kinds["const clip4str_decoder *"] = ctypes.POINTER(Decoder)
    structures = {
        "memory": Memory, "decoder": Decoder, "linear_arguments": loader._Linear,
        "tokenize_arguments": loader._Tokenize, "collapse_arguments": loader._Collapse,
        "cross_attention_arguments": loader._CrossAttention, "decode_pass_arguments": loader._DecodePass,
        "crop_resize_arguments": loader._CropResize, "thumbnail_arguments": loader._Thumbnail,
        "resize_arguments": loader._Resize,
    }  # fmt: skip
    found = {name: body for body, name in re.findall(r"typedef struct \{([^}]*)\} clip4str_(\w+);", text)}
    assert set(found) == {*structures, "message", "kernel_info"}
    for name, structure in structures.items():
        fields = []
        for line in filter(None, (part.strip() for part in found[name].split(";"))):
            kind, names = re.fullmatch(r"(const \w+ \*|\w+)\s*(.*)", line, re.DOTALL).groups()
            fields += [(field.strip(), kinds[kind]) for field in names.split(",")]
        assert fields == list(structure._fields_), name
    assert str(loader.ABI) == re.search(r"CLIP4STR_KERNELS_ABI (\d+)", text).group(1)


def test_the_loader_needs_neither_torch_nor_triton():
    code = (
        "import sys; sys.modules.update(torch=None, triton=None); "
        "from clip4str.kernels.loader import KernelLibrary, find_library"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_cmake_says_what_is_missing(tmp_path):
    compiled_kernels.library()
    done = subprocess.run(
        ["cmake", "-S", ROOT, "-B", tmp_path / "a", f"-DCLIP4STR_CUBINS={tmp_path}"], capture_output=True, text=True
    )
    assert done.returncode != 0 and "is missing" in " ".join(done.stderr.split())
    done = subprocess.run(
        ["cmake", "-S", ROOT, "-B", tmp_path / "b", f"-DPython3_EXECUTABLE={_python_without_triton(tmp_path)}"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode != 0 and "No compiled kernels" in done.stderr


def _python_without_triton(folder: Path) -> Path:
    script = folder / "python3"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -S -I "$@"\n')
    script.chmod(0o755)
    return script


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("n", [FEW, MANY])
def test_a_pass_on_a_gpu_answers_as_the_reference(n):
    weights = pack_decoder(Network(Config(d=NET.d, decoder_mlp=NET.mlp), 0.0), torch.float16, "cuda")
    memory, text = (torch.randn_like(keys_values(n, length), device="cuda") for length in (NET.memory, NET.text))
    ids = torch.randint(0, NET.classes, (n, NET.steps), dtype=torch.int32, device="cuda")
    keep, limit = (torch.full((n,), i, dtype=torch.int32, device="cuda") for i in (9, NET.steps - 1))
    given = {"mode": "cloze", "keep": keep, "limit": limit}
    expected = decode_pass(weights, ids, memory, text, **given, implementation="reference")
    out = Answer.empty(weights, n)
    folder = compiled_kernels.library()
    try:
        opened = KernelLibrary(folder / loader.NAME)
    except DeviceError as e:
        pytest.skip(str(e))
    with opened as library:
        decoder = decoder_of(weights)
        room = torch.empty(library.decode_pass_workspace(decoder, n), dtype=torch.uint8, device="cuda")
        library.decode_pass(
            decoder, mode="cloze", memory=memory_of(memory), text=memory_of(text), n=n, ids=pointer(ids),
            keep=pointer(keep), limit=pointer(limit), out_ids=pointer(out.ids), probs=pointer(out.probs),
            last=pointer(out.last), unsettled=pointer(out.unsettled), workspace=pointer(room),
            workspace_bytes=room.numel(), stream=torch.cuda.current_stream().cuda_stream,
        )  # fmt: skip
        torch.cuda.synchronize()
    assert (out.ids == expected.ids).float().mean() > 0.99
    assert (out.probs - expected.probs).abs().max() < 0.01


def test_after_warm_no_kernel_is_loaded_inside_a_capture(library, monkeypatch):
    monkeypatch.setenv("FAKE_CUDA_CAPTURING", "1")
    with pytest.raises(BackendError, match="previous error during capture"):
        library.linear(**LINEAR)
    library.warm()
    library.linear(**LINEAR)
    library.tokenize(
        n=MANY, T=26, characters_count=95, pairs_bits=9, start=0, end=1, ids=4096, characters=4096, pairs=4096, out=4096
    )
    monkeypatch.setenv("FAKE_CUDA_FAIL", "cuFuncLoad")
    with pytest.raises(BackendError, match=r"clip4str_kernels_warm: [a-z_]+\.[a-z_]+: invalid argument"):
        library.warm()
    library.close()
    with pytest.raises(BackendError, match="was closed"):
        library.warm()
