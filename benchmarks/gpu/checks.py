"""Every operator on the device against its reference in float32: fresh random inputs, odd shapes, all dtypes,
uninitialised memory poisoned, everything computed twice. An answer that differs between two runs is a race."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clip4str.benchmarks.gpu.device import Gpu, poisoned
from clip4str.benchmarks.gpu.networks import narrow_config
from clip4str.benchmarks.gpu.supervisor import Reporter
from clip4str.benchmarks.random_weights import scaled
from clip4str.model import Config
from clip4str.model.network import Decoder

LIMITS = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.2e-2}  # ||out - reference|| / ||reference||
Check = tuple[str, Callable[..., Tensor], dict[str, Any], float]  # name, function, arguments, limit


class Draw:
    """Random tensors that no two runs have in common; the seed is in the results."""

    def __init__(self, gpu: Gpu, seed: int) -> None:
        self.gpu, self.generator = gpu, torch.Generator(gpu.device).manual_seed(seed)

    def normal(self, *shape: int, scale: float = 1.0, dtype: torch.dtype = torch.float32) -> Tensor:
        return (scale * torch.randn(shape, generator=self.generator, device=self.gpu.device)).to(dtype)

    def integers(self, high: int, *shape: int, dtype: torch.dtype = torch.int32) -> Tensor:
        return torch.randint(0, high, shape, generator=self.generator, device=self.gpu.device).to(dtype)


def distance(out: Tensor, reference: Tensor) -> float:
    """||out - reference|| / ||reference||; a billion for another shape or what is not finite."""
    if out.shape != reference.shape or not torch.isfinite(out).all():
        return 1e9
    difference = (out.double() - reference.double()).norm()
    return float(difference / reference.double().norm().clamp_min(1e-30))


def check(gpu: Gpu, report: Reporter, operator: str) -> None:
    """report.values: the worst error by dtype, what was wrong, how many were tried."""
    seed = secrets.randbits(32)
    report.values |= {"seed": seed, "checked": 0, "wrong": 0, "worst": {}}
    draw, make = Draw(gpu, seed), _CHECKS[operator]
    for dtype in gpu.dtypes:
        checks = make(draw, dtype, gpu.kind == "cpu")
        while True:
            try:
                found = next(checks, None)
            except Exception as error:
                report.fail(f"{operator} {_short(dtype)}", f"{type(error).__name__}: {error}"[:400])
                break
            if found is None:
                break
            what = f"{operator} {_short(dtype)}: {found[0]}"
            report.attempt(what, gpu.least(1), _one, report, dtype, what, *found[1:])
            if not gpu.alive():
                return
        gpu.free()
    report.save()


def _one(
    report: Reporter,
    dtype: torch.dtype,
    what: str,
    function: Callable[..., Tensor],
    arguments: dict[str, Any],
    limit: float,
) -> None:
    with torch.inference_mode():
        with poisoned():
            out, again = (function(**_fresh(arguments)).clone() for _ in range(2))
        reference = function(**_fresh(arguments, torch.float32), implementation="reference")
        error = distance(out, reference) if out.is_floating_point() else float((out != reference).float().mean())
    report.values["checked"] += 1
    worst = report.values["worst"]
    if error >= worst.get(_short(dtype), (0.0,))[0]:
        worst[_short(dtype)] = (error, what)
    if not error <= limit:
        report.values["wrong"] += 1
        report.fail(what, f"differs from its reference by {error:.2g}, allowed is {limit:.2g}")
    elif not torch.equal(out, again):
        report.values["wrong"] += 1
        report.fail(what, "two runs on the same input differ")


def _fresh(arguments: dict[str, Any], dtype: torch.dtype | None = None) -> dict[str, Any]:
    """Copies of what may be written to, in another floating-point type where wanted."""

    def one(value: Any) -> Any:
        if isinstance(value, Tensor) and value.is_floating_point():
            return value.to(dtype) if dtype else value.clone() if value.is_contiguous() else value
        return value

    return {name: one(value) for name, value in arguments.items()}


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _linear(draw: Draw, dtype: torch.dtype, quick: bool) -> Iterator[Check]:
    from clip4str.kernels.linear import linear, normalize, quick_gelu_

    shapes = [(1, 64, 64), (26, 512, 2048), (26, 2048, 512), (197, 768, 768), (333, 100, 75), (5, 37, 1000),
              (1664, 512, 512), (2100, 768, 96), (4000, 256, 256)]  # fmt: skip
    options = itertools.cycle(itertools.product((False, True), ("none", "gelu", "quick_gelu"), (False, True)))
    for rows, k, f in shapes[:1] + shapes[4:6] if quick else shapes * 2:
        normalized, activation, residual = next(options)
        arguments = {
            "x": draw.normal(rows, k, dtype=dtype) + 0.5,
            "weight": draw.normal(f, k, scale=k**-0.5, dtype=dtype),
            "bias": draw.normal(f, dtype=dtype),
            "residual": draw.normal(rows, f, dtype=dtype) if residual else None,
            "normalize": normalized,
            "activation": activation,
        }
        yield f"{rows} x {k} x {f}, {normalized}, {activation}, {residual}", linear, arguments, LIMITS[dtype]
    for rows, k in ((7, 37), (300, 768)):
        yield f"normalize {rows} x {k}", normalize, {"x": draw.normal(rows, k, dtype=dtype)}, LIMITS[dtype]
        yield f"quick_gelu {rows} x {k}", quick_gelu_, {"x": draw.normal(rows, k, dtype=dtype)}, LIMITS[dtype]


def _cross_attention(draw: Draw, dtype: torch.dtype, quick: bool) -> Iterator[Check]:
    from clip4str.kernels.cross_attention import cross_attention

    shapes = [(1, 1, 64, 8, 17, 0), (1, 26, 512, 8, 197, 0), (3, 26, 192, 8, 65, 16), (2, 7, 768, 8, 257, 16),
              (64, 26, 512, 8, 197, 16), (2, 32, 1024, 8, 577, 16), (5, 26, 64, 8, 50, 16)]  # fmt: skip
    sharp = (1.0, 30.0)  # of the queries: huge scores too
    for (n, t, d, h, m, x), scale in itertools.product(shapes[:1] + shapes[2:3] if quick else shapes, sharp):
        # as the towers leave them: views, with strides that are not the plain ones
        memory = draw.normal(n, m, 4 * d, dtype=dtype)[..., : 2 * d].unflatten(-1, (2, h, -1)).permute(0, 2, 3, 1, 4)
        text = draw.normal(n, x, 2 * d, dtype=dtype).unflatten(-1, (2, h, -1)).permute(0, 2, 3, 1, 4) if x else None
        arguments = {
            "x": draw.normal(n, t, d, dtype=dtype),
            "memory": memory,
            "text": text,
            "query_weight": draw.normal(d, d, scale=scale * (d * d / h) ** -0.5, dtype=dtype),
            "query_bias": draw.normal(d, dtype=dtype, scale=0.1),
            "out_weight": draw.normal(d, d, scale=d**-0.5, dtype=dtype),
            "out_bias": draw.normal(d, dtype=dtype),
            "heads": h,
        }
        limit = LIMITS[dtype] * (1 if scale == 1 else 8)  # rounded queries under a sharp softmax
        yield f"N {n}, T {t}, d {d}, M {m}, X {x}, sharpness {scale:g}", cross_attention, arguments, limit


def _decode_pass(draw: Draw, dtype: torch.dtype, quick: bool) -> Iterator[Check]:
    from clip4str.kernels.decode_pass import decode_pass, pack_decoder

    wide = [Config(d=192, decoder_mlp=768), Config(), Config(d=768, decoder_mlp=3072)]
    for config in [narrow_config(1, 1)] if quick else wide:
        decoder = Decoder(config, 0.0).to(draw.gpu.device)
        state = {k: scaled(k, draw.normal(*v.shape)) for k, v in decoder.state_dict().items()}
        decoder.load_state_dict(state)
        packed, exact = (pack_decoder(decoder.eval(), d, draw.gpu.device) for d in (dtype, torch.float32))
        for n, mode, x in itertools.product((1, 3) if quick else (1, 3, 65), ("start", "causal", "cloze"), (0, 16)):
            e = config.d // config.decoder_heads
            memory, text = (draw.normal(n, 2, config.decoder_heads, m, e, dtype=dtype) for m in (33, 16))
            ids, keep = draw.integers(97, n, 26), draw.integers(26, n) if mode == "cloze" else None

            def run(implementation: str = "auto", **arguments: Any) -> Tensor:
                weights = exact if implementation == "reference" else packed  # noqa: B023
                answer = decode_pass(weights, logits=True, implementation=implementation, **arguments)
                assert answer.logits is not None
                _check_answer(answer)
                return answer.logits

            arguments = {"ids": ids, "memory": memory, "text": text if x else None, "mode": mode, "keep": keep}
            yield f"d {config.d}, N {n}, {mode}, text {x}", run, arguments, 4 * LIMITS[dtype]


def _check_answer(answer: Any) -> None:
    """ids, probs and last are what the logits say. Raises AssertionError."""
    probs, ids = answer.logits.softmax(-1).max(-1)
    chosen = answer.logits.gather(-1, answer.ids.long()[..., None])[..., 0]
    assert bool((chosen == answer.logits.amax(-1)).all()), "an id is not the most likely one"
    assert bool((answer.probs - probs).abs().max() < 1e-4), "a probability is not its softmax"
    ended = torch.where(answer.ids == 0, torch.arange(ids.shape[1], device=ids.device), ids.shape[1]).amin(1)
    assert bool((answer.last == ended.clamp_max(ids.shape[1] - 1)).all()), "last is not the first end token"


def _tokenize(draw: Draw, dtype: torch.dtype, quick: bool) -> Iterator[Check]:
    from clip4str.core.bpe import BytePairTokenizer
    from clip4str.core.text import Charset
    from clip4str.kernels.tokenize import TokenizerTables, tokenize

    if dtype != torch.float32:  # it has only integers
        return
    charset, tokenizer = Charset(), BytePairTokenizer(49408, 16)
    tables = TokenizerTables.build(tokenizer, charset, draw.gpu.device)
    ids = draw.integers(97, 300 if quick else 100_000, 26)
    ids[: len(ids) // 2] = ids[: len(ids) // 2] % 37  # mostly letters and digits, ended early

    def run(ids: Tensor, implementation: str = "auto") -> Tensor:
        return tokenize(tables, ids, implementation=implementation)

    yield f"{len(ids)} words", run, {"ids": ids}, 0.0

    def host(ids: Tensor, implementation: str = "auto") -> Tensor:
        if implementation == "auto":
            return tokenize(tables, ids)
        captions = [charset.caption(i for i in row if i < 95) for row in ids.tolist()]
        return torch.from_numpy(tokenizer(captions)).to(ids)

    yield "500 words against the host's tokenizer", host, {"ids": ids[:500]}, 0.0


def _collapse(draw: Draw, dtype: torch.dtype, quick: bool) -> Iterator[Check]:
    from clip4str.kernels.collapse import collapse

    for frames in (32, 42, 1000):
        logits = draw.normal(8 if quick else 256, frames, 95, dtype=dtype)
        logits[..., 0] += 1.5  # about half of the frames show nothing
        logits[:, 1::3] = logits[:, ::3][:, : logits[:, 1::3].shape[1]]  # and some what the one before shows

        def run(logits: Tensor, implementation: str = "auto") -> Tensor:
            return collapse(logits, 26, implementation=implementation)

        yield f"{len(logits)} drafts of {frames} frames", run, {"logits": logits}, 0.0


def _crop_resize(draw: Draw, dtype: torch.dtype, quick: bool) -> Iterator[Check]:
    from clip4str.kernels.crop_resize import crop_resize

    height, width = (96, 128) if quick else (540, 962)
    quads = _quads(np.random.default_rng(int(draw.integers(2**31 - 1, 1))), 3 if quick else 16, height, width)
    for layout, size in (("rgb", (32, 128)), ("bgr", (56, 47)), ("nv12", (224, 224))):
        rows = height * 3 // 2 if layout == "nv12" else height
        frame = draw.integers(256, rows, width, *(() if layout == "nv12" else (3,)), dtype=torch.uint8)
        arguments = {"frame": frame, "quads": quads, "size": size, "layout": layout, "dtype": dtype}

        def run(dtype: torch.dtype = dtype, **arguments: Any) -> Tensor:
            exact = arguments.get("implementation") == "reference"
            return crop_resize(dtype=torch.float32 if exact else dtype, **arguments)

        yield f"{layout} to {size[0]} x {size[1]}", run, arguments, max(LIMITS[dtype], 1e-3)


def _quads(random: np.random.Generator, count: int, height: int, width: int) -> np.ndarray:
    """Boxes of any size inside the frame, turned by up to 30 degrees and bent a little: (count, 4, 2)."""
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float64)
    quads = []
    for _ in range(count):
        half = random.uniform((8, 5), (width / 5, height / 8))
        angle = random.uniform(-0.5, 0.5)
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        centre = random.uniform((width * 0.3, height * 0.3), (width * 0.7, height * 0.7))
        quads.append((corners * half * random.uniform(0.9, 1.1, (4, 2))) @ turn + centre)
    return np.asarray(quads, np.float32)


_CHECKS: dict[str, Callable[[Draw, torch.dtype, bool], Iterator[Check]]] = {
    "linear": _linear,
    "cross_attention": _cross_attention,
    "decode_pass": _decode_pass,
    "tokenize": _tokenize,
    "crop_resize": _crop_resize,
    "collapse": _collapse,
}
NAMES: Sequence[str] = tuple(_CHECKS)
