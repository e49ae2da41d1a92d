"""The C library's kernels beside torch's references: B/16's on a GPU, by the library that is found there. Where there
is no GPU a stand-in for the driver takes the launches of a small network: arguments are checked, nothing computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from device import DEVICE, ON_GPU
from torch import Tensor

pytest.importorskip("triton")
import compiled_kernels
from compiled_kernels import FEW, MANY
from library_arguments import decoder_of, memory_of, pointer

from clip4str.core.bpe import BytePairTokenizer
from clip4str.core.text import Charset
from clip4str.kernels.crop_resize import crop_resize
from clip4str.kernels.cross_attention import cross_attention
from clip4str.kernels.decode_pass import Answer, bench, decode_pass
from clip4str.kernels.linear import linear
from clip4str.kernels.loader import KernelLibrary
from clip4str.kernels.shared.variants import NETWORKS
from clip4str.kernels.thumbnail import thumbnail
from clip4str.kernels.tokenize import TokenizerTables, tokenize

pytestmark = pytest.mark.gpu
NET = NETWORKS["base16" if ON_GPU else compiled_kernels.NETWORK]
WORDS = (1, 2, 3, 8, 9, 31, 64, 256) if ON_GPU else (FEW, MANY)  # on both sides of where another kernel is taken
LIMIT = 1e-2  # ||out - reference|| / ||reference||, in half precision
MOST_DIFFERENT = 0.03  # of characters: random weights leave some all but tied

each = pytest.mark.parametrize("n", WORDS)


@pytest.fixture
def library(monkeypatch) -> Iterator[KernelLibrary]:
    if not ON_GPU:
        with compiled_kernels.opened(monkeypatch) as opened:
            yield opened
        return
    torch.zeros(1, device=DEVICE)  # its context is current
    with KernelLibrary(network=NET.name) as opened:
        yield opened


def draw(*shape: int, scale: float = 1.0) -> Tensor:
    return (scale * torch.randn(shape)).to(DEVICE, torch.float16)


def stream() -> int:
    return torch.cuda.current_stream(DEVICE).cuda_stream if ON_GPU else 0x1234


def room(size: int) -> dict[str, int | Tensor]:
    return {"workspace": torch.empty(max(16, size), dtype=torch.uint8, device=DEVICE), "workspace_bytes": size}


def launch(call: Callable[..., None], *args: Any, **given: Any) -> None:
    """With tensors' addresses, and everything done before they go."""
    addresses = {name: pointer(value) if isinstance(value, Tensor) else value for name, value in given.items()}
    call(*args, stream=stream(), **addresses)
    if ON_GPU:
        torch.cuda.synchronize()


def close(out: Tensor, reference: Tensor) -> None:
    if ON_GPU:
        assert torch.isfinite(out).all()
        far = float((out.double() - reference.double()).norm() / reference.double().norm())
        assert far <= LIMIT, f"{far:.2g} away from its reference"


@each
@pytest.mark.parametrize("layer", ["queries", "out", "up", "down"])
def test_linear(library, n, layer):
    rows, d, f = n * NET.steps, NET.d, NET.mlp
    K, F = {"up": (d, f), "down": (f, d)}.get(layer, (d, d))
    options = {"normalize": layer in ("queries", "up"), "activation": "gelu" if layer == "up" else "none"}
    x, weight, bias = draw(rows, K), draw(F, K, scale=K**-0.5), draw(F)
    residual = draw(rows, F) if layer in ("out", "down") else None
    out = residual.clone() if residual is not None else torch.empty(rows, F, dtype=torch.float16, device=DEVICE)
    expected = linear(x, weight, bias, residual=residual, **options, implementation="reference")
    given = {**options, "normalize": int(options["normalize"])}
    launch(library.linear, rows=rows, K=K, F=F, x=x, weight=weight, bias=bias, out=out,
           residual=0 if residual is None else out, **given)  # fmt: skip
    close(out, expected)


@each
@pytest.mark.parametrize("text", [False, True])
def test_cross_attention(library, n, text):
    d, h, e = NET.d, NET.heads, NET.head_dim
    x, memory = draw(n, NET.steps, d), draw(n, 2, h, NET.memory, e)
    text_memory = draw(n, 2, h, NET.text, e) if text else None
    weights = {"query_weight": draw(d, d, scale=(d * e) ** -0.5), "query_bias": draw(d), "out_bias": draw(d),
               "out_weight": draw(d, d, scale=d**-0.5)}  # fmt: skip
    expected = cross_attention(x, memory, text_memory, **weights, heads=h, implementation="reference")
    out = torch.empty_like(x)
    workspace = room(library.cross_attention_workspace(n, NET.steps, d))
    launch(library.cross_attention, memory=memory_of(memory), text=memory_of(text_memory), n=n, T=NET.steps, d=d,
           heads=h, x=x, out=out, **weights, **workspace)  # fmt: skip
    close(out, expected)


@each
@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("mode", ["start", "causal", "cloze"])
def test_decode_pass(library, n, text, mode):
    h, e = NET.heads, NET.head_dim
    weights = bench.random_weights(NET, DEVICE, torch.float16)
    memory = draw(n, 2, h, NET.memory, e)
    text_memory = draw(n, 2, h, NET.text, e) if text else None
    ids = None if mode == "start" else bench.random_ids(NET, n, DEVICE)
    keep = torch.full((n,), 9, dtype=torch.int32, device=DEVICE) if mode == "cloze" else None
    limit = torch.full((n,), NET.steps - 1, dtype=torch.int32, device=DEVICE)
    given: dict[str, Any] = {"mode": mode, "keep": keep, "limit": limit}
    expected = decode_pass(weights, ids, memory, text_memory, **given, implementation="reference")
    out, decoder = Answer.empty(weights, n), decoder_of(weights, NET)
    workspace = room(library.decode_pass_workspace(decoder, n))
    launch(library.decode_pass, decoder, mode=mode, memory=memory_of(memory), text=memory_of(text_memory), n=n,
           ids=ids if ids is not None else 0, keep=keep if keep is not None else 0, limit=limit, out_ids=out.ids,
           probs=out.probs, last=out.last, unsettled=out.unsettled, **workspace)  # fmt: skip
    close(out.probs, expected.probs)
    if ON_GPU:
        assert (out.ids != expected.ids).float().mean() <= MOST_DIFFERENT


@each
def test_tokenize(library, n):
    charset, tokenizer = Charset(), BytePairTokenizer()
    tables = TokenizerTables.build(tokenizer, charset, DEVICE)
    words = [charset.encode(("street", "internationalizationalist", "no1")[i % 3]) for i in range(n)]
    padded = [[*word, *[0] * (NET.steps - len(word))] for word in words]
    ids = torch.tensor(padded, dtype=torch.int32, device=DEVICE)
    expected = tokenize(tables, ids, implementation="reference")
    out = torch.empty_like(expected)
    launch(library.tokenize, n=n, T=NET.steps, characters_count=len(tables.characters), pairs_bits=tables.bits,
           start=tables.start, end=tables.end, ids=ids, characters=tables.characters, pairs=tables.pairs,
           out=out)  # fmt: skip
    assert not ON_GPU or torch.equal(out, expected)


@pytest.fixture
def planes() -> tuple[Tensor, Tensor]:
    return tuple(torch.randint(0, 256, (rows, 704), dtype=torch.uint8).to(DEVICE)[:, :640] for rows in (480, 240))


def test_crop_resize(library, planes):
    """Upright quads: the same bits; a turned one's positions may round another way."""
    height, width = NET.image_size
    quads = torch.tensor([[[10, 20], [110, 20], [110, 60], [10, 60]]] * 3, dtype=torch.float32, device=DEVICE)
    expected = crop_resize(planes, quads, (height, width), layout="nv12", matrix="bt709", implementation="reference")
    out = torch.empty(3, 3, height, width, device=DEVICE)
    launch(library.crop_resize, layout="nv12", matrix="bt709", full_range=0, out_float32=1, n=3, height=height,
           width=width, frame_height=480, frame_width=640, frame=planes[0], chroma=planes[1], stride=704,
           chroma_stride=704, quads=quads, out=out)  # fmt: skip
    close(out, expected)


@pytest.mark.parametrize("colour", [False, True])
def test_thumbnail(library, planes, colour):
    expected = thumbnail(planes, (240, 320), layout="nv12", matrix="bt709", colour=colour, implementation="reference")
    out = torch.empty_like(expected)
    launch(library.thumbnail, layout="nv12", matrix="bt709", colour=int(colour), height=240, width=320,
           frame_height=480, frame_width=640, frame=planes[0], chroma=planes[1], stride=704, chroma_stride=704,
           out=out)  # fmt: skip
    assert not ON_GPU or torch.equal(out, expected)
