"""decode_pass: the reference against model.network.Decoder, the kernels against the reference."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from device import there
from torch import Tensor

from clip4str.core.errors import DeviceError, DtypeError, LayoutError, ShapeError, UsageError
from clip4str.kernels.decode_pass import Answer, DecoderWeights, api, pack_decoder, reference
from clip4str.kernels.decode_pass.bench import cases, random_weights
from clip4str.kernels.decode_pass.config import head_candidates, table_candidates
from clip4str.kernels.shared.variants import Network
from clip4str.model.network import Decoder

pytest.importorskip("triton")
from clip4str.kernels.decode_pass import kernel as launches

decode_pass = there(api.decode_pass)
kernel = SimpleNamespace(self_attention=there(launches.self_attention), head=there(launches.head))

MODES = ("start", "causal", "cloze")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
TOLERANCE = {torch.float32: 1e-5, torch.float16: 3e-3, torch.bfloat16: 3e-2}  # of the largest number there is
SIZES = {
    "64": {"d": 64, "decoder_heads": 8, "decoder_mlp": 128},
    "192": {"d": 192, "decoder_heads": 8, "decoder_mlp": 256},
    "odd": {
        "d": 77,
        "decoder_heads": 7,
        "decoder_mlp": 50,
        "steps": 13,
        "charset": "abcdefghij",
        "charset_test": "abc",
    },
}


@pytest.fixture(scope="session")
def decoder(random_model) -> Callable[[str], Decoder]:
    made = {
        size: random_model(seed=3, eos_bias=1.0, image_layers=1, **config).cross_decoder
        for size, config in SIZES.items()
    }
    return made.__getitem__


@pytest.fixture(scope="session")
def packed(decoder) -> Callable[..., DecoderWeights]:
    made: dict[tuple[str, torch.dtype], DecoderWeights] = {}

    def get(size: str, dtype: torch.dtype = torch.float32) -> DecoderWeights:
        if (size, dtype) not in made:
            made[size, dtype] = pack_decoder(decoder(size), dtype, "cpu")
        return made[size, dtype]

    return get


def given(w: DecoderWeights, n: int, mode: str, seed: int = 0) -> dict[str, Tensor | None]:
    """Random ids and, for cloze, keep from 0 to T - 1."""
    random = np.random.default_rng(seed)
    ids = torch.from_numpy(random.integers(0, w.tokens, (n, w.steps), np.int32))
    keep = torch.from_numpy(np.linspace(0, w.steps - 1, n, dtype=np.int32))
    return {"ids": ids, "keep": keep if mode == "cloze" else None}


def memories(decoder: Decoder, n: int, lengths: tuple[int, ...] = (19, 5)) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    width = decoder.pos_queries.shape[2]
    return [decoder.project_memory(3 * torch.randn(n, m, width, generator=generator)) for m in lengths]


def mask(mode: str, steps: int, keep: Tensor | None) -> Tensor:
    i, j = np.indices((steps, steps))
    if mode == "start":
        return torch.from_numpy(j == 0)
    if mode == "causal":
        return torch.from_numpy(j <= i)
    return torch.from_numpy((j != i + 1)[None] & (j[None] <= keep.numpy()[:, None, None]))


def close(a: Tensor, b: Tensor, dtype: torch.dtype = torch.float32) -> None:
    torch.testing.assert_close(a.float(), b.float(), rtol=0, atol=TOLERANCE[dtype] * max(1, b.abs().max().item()))


# The reference against the network


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", SIZES)
def test_reference_is_the_decoder(decoder, packed, size: str, mode: str) -> None:
    model, w = decoder(size), packed(size)
    arguments = given(w, 4, mode)
    image, text = memories(model, 4)
    answer = decode_pass(w, memory=image, text=text, mode=mode, logits=True, **arguments)
    tokens = torch.cat((torch.full((4, 1), w.start), arguments["ids"][:, :-1].long()), 1)
    logits = model(tokens, mask(mode, w.steps, arguments["keep"]), torch.cat((image, text), 3))
    torch.testing.assert_close(answer.logits, logits, rtol=0, atol=1e-4)
    assert torch.equal(answer.ids, logits.argmax(-1).int())
    torch.testing.assert_close(answer.probs, logits.softmax(-1).amax(-1), rtol=0, atol=1e-5)


def step_by_step(model: Decoder, start: int, memory: Tensor, steps: int) -> Tensor:
    tokens = torch.full((len(memory), 1), start)
    for i in range(steps):
        logits = model(tokens, torch.ones(i + 1, i + 1, dtype=torch.bool).tril(), memory)
        tokens = torch.cat((tokens, logits[:, -1:].argmax(-1)), 1)
    return tokens[:, 1:].int()


def fixed_point(w: DecoderWeights, ids: Tensor, memory: Tensor, limit: Tensor | None) -> tuple[Answer, int]:
    for passes in range(1, w.steps + 1):
        answer = decode_pass(w, ids, memory, mode="causal", limit=limit)
        ids = answer.ids
        if not answer.unsettled.any():
            return answer, passes
    raise AssertionError("not settled after T passes")


@pytest.mark.parametrize("size", SIZES)
def test_fixed_point_is_the_greedy_word(decoder, packed, size: str) -> None:
    model, w = decoder(size), packed(size)
    (memory,) = memories(model, 6, (19,))
    greedy = step_by_step(model, w.start, memory, w.steps)
    guess = decode_pass(w, None, memory, mode="start")
    answer, passes = fixed_point(w, guess.ids, memory, None)
    assert passes > 2, "nothing to settle: the test shows nothing"
    for row, (word, last) in enumerate(zip(greedy, answer.last.tolist())):
        end = (word == 0).nonzero()
        assert last == min(int(end[0]) if len(end) else w.steps, w.steps - 1)
        assert torch.equal(answer.ids[row, : last + 1], word[: last + 1])
    limit = torch.tensor([0, 1, 2, 3, 5, w.steps - 1], dtype=torch.int32)
    limited, _ = fixed_point(w, guess.ids, memory, limit)
    assert torch.equal(limited.last, torch.minimum(limit, answer.last))
    for row, last in enumerate(limited.last.tolist()):
        assert torch.equal(limited.ids[row, : last + 1], greedy[row, : last + 1])


# The kernels against the reference


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size, mode", [*(("64", mode) for mode in MODES), ("192", "causal"), ("odd", "cloze")])
def test_self_attention_kernel(packed, size: str, mode: str, dtype: torch.dtype) -> None:
    w, n = packed(size, dtype), 1 if size == "192" else 3
    ids, keep = given(w, n, mode).values()
    close(kernel.self_attention(w, ids, mode, keep, n), reference.self_attention(w, ids, mode, keep, n), dtype)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_head_kernel(packed, size: str, dtype: torch.dtype) -> None:
    w = packed(size, dtype)
    w = dataclasses.replace(
        w, head_bias=w.head_bias - 5 * (torch.arange(w.classes) == 0)
    )  # words that do not end at once
    x = reference.self_attention(w, given(w, 4, "causal")["ids"], "causal", None, 4)
    before = reference.head(w, x, None, None)[0]
    before[1, 0] += 1  # changed within the word
    limit = torch.tensor([w.steps - 1, w.steps - 1, 0, 2], dtype=torch.int32)
    out = Answer.empty(w, 4, logits=True)
    kernel.head(w, x, before, limit, out)
    ids, probs, last, unsettled, logits = reference.head(w, x, before, limit)
    close(out.logits, logits, dtype)
    top = logits.topk(2).values
    clear = top[..., 0] - top[..., 1] > 2 * TOLERANCE[dtype] * max(1, logits.abs().max().item())
    assert clear.float().mean() > 0.1
    assert torch.equal(out.ids[clear], ids[clear])
    assert (out.probs - probs).abs().max() < 10 * TOLERANCE[dtype]
    if dtype != torch.bfloat16:
        assert torch.equal(out.last, last) and torch.equal(out.unsettled, unsettled) and unsettled.sum() > 0


@pytest.mark.gpu
@pytest.mark.parametrize("size, dtype, mode", [("64", torch.float16, "causal"), ("odd", torch.float32, "cloze")])
def test_whole_pass(decoder, packed, size: str, dtype: torch.dtype, mode: str) -> None:
    w, arguments = packed(size, dtype), given(packed(size), 2, mode)
    image, text = (m.to(dtype) for m in memories(decoder(size), 2))
    limit = torch.full((2,), 4, dtype=torch.int32)
    kernels, plain = (
        decode_pass(w, memory=image, text=text, mode=mode, limit=limit, logits=True, implementation=how, **arguments)
        for how in ("triton", "reference")
    )
    close(kernels.logits, plain.logits, dtype)
    assert torch.equal(kernels.ids[:, 0], plain.ids[:, 0])
    for a, b in zip(kernels, plain):
        assert a.shape == b.shape and a.dtype == b.dtype
    assert (kernels.last <= 4).all()


def test_cuts_do_not_change_the_answer(packed) -> None:
    w = packed("192", torch.float16)
    ids = given(w, 1, "causal")["ids"]
    wanted = kernel.self_attention(w, ids, "causal", None, 1)
    for config in {(c.block_d, c.group): c for c in table_candidates(1, w.width, w.dtype)}.values():
        close(kernel.self_attention(w, ids, "causal", None, 1, config), wanted, torch.float16)
    plain = reference.head(w, wanted, None, None)
    for config in {c.block_k: c for c in head_candidates(w.width, w.dtype)}.values():
        out = Answer.empty(w, 1, logits=True)
        kernel.head(w, wanted, None, None, out, config)
        close(out.logits, plain[-1], torch.float16)


@pytest.mark.gpu
def test_the_largest_supported() -> None:
    largest = Network("largest", d=128, memory=5, image_width=64, text_width=64, image_size=(8, 8),
                      heads=16, steps=32, classes=128, tokens=256)  # fmt: skip
    w, ids = random_weights(largest, torch.device("cpu"), torch.float16), torch.full((1, 32), 255, dtype=torch.int32)
    x = kernel.self_attention(w, ids, "causal", None, 1)
    close(x, reference.self_attention(w, ids, "causal", None, 1), torch.float16)
    out, plain = Answer.empty(w, 1, logits=True), reference.head(w, x, ids, None)
    kernel.head(w, x, ids, None, out)
    close(out.logits, plain[-1], torch.float16)
    assert torch.equal(out.ids, plain[0]) and torch.equal(out.last, plain[2])


@pytest.mark.gpu
def test_a_word_does_not_depend_on_the_others(packed) -> None:
    w = packed("64", torch.float16)
    ids, keep = given(w, 3, "cloze").values()
    together = kernel.self_attention(w, ids, "cloze", keep, 3)
    answers = Answer.empty(w, 3, logits=True)
    kernel.head(w, together, ids, keep, answers)
    for n in range(3):
        alone = kernel.self_attention(w, ids[n : n + 1], "cloze", keep[n : n + 1], 1)
        assert torch.equal(alone[0], together[n])
        one = Answer.empty(w, 1, logits=True)
        kernel.head(w, alone, ids[n : n + 1], keep[n : n + 1], one)
        assert all(torch.equal(a[0], b[n]) for a, b in zip(one, answers))


# Extremes


@pytest.mark.gpu
@pytest.mark.parametrize("run", [kernel.self_attention, reference.self_attention])
def test_garbage_ids_and_keeps(packed, run) -> None:
    w = packed("odd")
    ids = given(w, 2, "causal")["ids"]
    wild = ids.clone()
    wild[0, 3], wild[0, 4], wild[1, 5] = -1, 2**31 - 1, -(2**31)
    tame = wild.clamp(0, w.tokens - 1)
    assert torch.equal(run(w, wild, "causal", None, 2), run(w, tame, "causal", None, 2))
    keeps = [torch.tensor(k, dtype=torch.int32) for k in ((-(2**31), 2**31 - 1), (0, w.steps - 1))]
    assert torch.equal(*(run(w, wild, "cloze", keep, 2) for keep in keeps))


@pytest.mark.gpu
def test_only_the_start_token_visible(packed) -> None:
    """keep = 0 is the start pass, whatever the ids, and one look-up: the softmax is over one score."""
    w = packed("64")
    ids, keep = given(w, 2, "cloze")["ids"], torch.zeros(2, dtype=torch.int32)
    x = kernel.self_attention(w, ids, "cloze", keep, 2)
    assert torch.equal(x, kernel.self_attention(w, None, "start", None, 2))
    close(x[1], w.base + w.values[0, w.start].sum(0))


def one_hot_head(w: DecoderWeights, ids: np.ndarray) -> tuple[DecoderWeights, Tensor]:
    """A head and rows (N, T, d) whose answer is these ids, by a margin that makes their probability 1."""
    assert w.width >= w.classes
    weight = torch.zeros_like(w.head_weight)
    weight[:, : w.classes] = 1000 * torch.eye(w.classes)
    rows = torch.zeros(*ids.shape, w.width)
    rows.scatter_(2, torch.from_numpy(ids).long()[..., None], 1.0)
    return dataclasses.replace(w, head_weight=weight, head_bias=torch.zeros_like(w.head_bias)), rows


def run_head(
    how: str, w: DecoderWeights, x: Tensor, before: Tensor | None, limit: Tensor | None, through_last: bool = False
) -> Answer:
    if how == "reference":
        return Answer(*reference.head(w, x, before, limit, through_last))
    out = Answer.empty(w, len(x), logits=True)
    kernel.head(w, x, before, limit, out, through_last=through_last)
    return out


@pytest.mark.gpu
@pytest.mark.parametrize("how", ["triton", "reference"])
def test_last_and_unsettled_are_the_drivers(packed, how: str) -> None:
    """The rule of core.driver's fixed point, transcribed, on words with none, one or several end tokens."""
    w, random = packed("odd"), np.random.default_rng(5)
    n, steps = 48, w.steps
    after = random.integers(0, w.classes, (n, steps), np.int32)
    after[random.random((n, steps)) < random.choice([0, 0.05, 0.3], (n, 1))] = 0
    changed = random.random((n, steps)) < random.choice([0, 0.05, 0.3], (n, 1))
    before = np.where(changed, random.integers(0, w.tokens, (n, steps)), after).astype(np.int32)
    limits = random.integers(1, steps + 1, n)  # how many positions count, as the driver has it
    head, rows = one_hot_head(w, after)
    answer = run_head(how, head, rows, torch.from_numpy(before), torch.from_numpy(limits - 1).int())
    assert np.array_equal(answer.ids, after)
    is_end = after == 0
    first_end = np.where(is_end.any(1), is_end.argmax(1), steps)
    needed = np.minimum(first_end, limits - 1)
    settled = ((before == after) | (np.arange(steps) >= needed[:, None])).all(axis=1)
    assert 0 < settled.sum() < n and 0 < (first_end < limits - 1).sum() < n
    assert np.array_equal(answer.last, needed)
    assert np.array_equal(answer.unsettled, ~settled)
    whole = run_head(how, head, rows, torch.from_numpy(before), torch.from_numpy(limits - 1).int(), through_last=True)
    same = ((before == after) | (np.arange(steps) > needed[:, None])).all(axis=1)
    assert np.array_equal(whole.unsettled, ~same) and (same < settled).any() and torch.equal(whole.last, answer.last)
    assert torch.equal(answer.probs, torch.ones_like(answer.probs))
    assert torch.isfinite(answer.logits).all()
    free = run_head(how, head, rows, None, None)
    assert np.array_equal(free.last, np.minimum(first_end, steps - 1)) and not free.unsettled.any()


@pytest.mark.gpu
@pytest.mark.parametrize("how", ["triton", "reference"])
def test_of_equal_classes_the_lowest(packed, how: str) -> None:
    w = packed("odd")
    flat = dataclasses.replace(w, head_weight=torch.zeros_like(w.head_weight), head_bias=torch.zeros_like(w.head_bias))
    x = torch.ones(1, w.steps, w.width)  # constant rows: variance 0
    answer = run_head(how, flat, x, None, None)
    assert not answer.ids.any() and answer.last.item() == 0
    close(answer.probs, torch.full_like(answer.probs, 1 / w.classes))
    bias = torch.zeros(w.classes)
    bias[[4, 7, 9]] = 1.0
    assert (run_head(how, dataclasses.replace(flat, head_bias=bias), x, None, None).ids == 4).all()


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:invalid value")
def test_nan_still_answers_a_class(packed) -> None:
    w = packed("odd")
    answer = run_head("triton", w, torch.full((1, w.steps, w.width), torch.nan), None, None)
    assert (answer.ids == 0).all() and answer.probs.isnan().all(), "as torch's argmax has it"


def test_out_is_written_and_no_words_are_fine(decoder, packed) -> None:
    w, (memory,) = packed("64"), memories(decoder("64"), 2, (7,))
    out = Answer.empty(w, 2)
    answer = decode_pass(w, None, memory, mode="start", out=out)
    assert answer is out and answer.logits is None
    assert torch.equal(answer.ids, decode_pass(w, None, memory, mode="start", logits=True).ids)
    none = decode_pass(w, None, memory[:0], mode="start", logits=True)
    assert none.ids.shape == (0, w.steps) and none.logits.shape == (0, w.steps, w.classes)


def test_benchmark_cases_run() -> None:
    """The smallest of each kind, on the CPU."""
    small = {case.name.removesuffix(" batch 1"): case for case in cases() if case.name.startswith("small") and
             case.name.endswith(" batch 1")}  # fmt: skip
    assert set(small) == {f"small {kind}" for kind in ("self-attention", "head", "pass, text 0,", "pass, text 16,")}
    for case in small.values():
        arguments = case.make(torch.device("cpu"), torch.float16)
        ids = case.function(**arguments)
        assert case.bytes > 0 and case.flops > 0 and len(ids) == 1
        if case.baseline:
            assert (case.baseline(**arguments) == ids).float().mean() > 0.9


# Bad input


@pytest.mark.parametrize(
    "change, error, says",
    [
        ({"mode": "greedy"}, UsageError, "start, causal, cloze"),
        ({"ids": None}, UsageError, "ids"),
        ({"mode": "cloze"}, UsageError, "keep"),
        ({"keep": torch.zeros(2, dtype=torch.int32)}, UsageError, "keep"),
        ({"implementation": "cuda"}, UsageError, "implementation"),
        ({"ids": torch.zeros(2, 26, dtype=torch.int64)}, DtypeError, "ids: expected int32, got int64"),
        ({"ids": torch.zeros(2, 25, dtype=torch.int32)}, ShapeError, r"\(2, 26\), got \(2, 25\)"),
        ({"ids": torch.zeros(3, 26, dtype=torch.int32)}, ShapeError, r"\(2, 26\), got \(3, 26\)"),
        ({"ids": torch.zeros(26, 2, dtype=torch.int32).t()}, LayoutError, "ids"),
        ({"ids": torch.zeros(2, 26, dtype=torch.int32, device="meta")}, DeviceError, "ids"),
        ({"limit": torch.zeros(2)}, DtypeError, "limit"),
        ({"limit": torch.zeros(1, dtype=torch.int32)}, ShapeError, "limit"),
        ({"mode": "cloze", "keep": torch.zeros(2, 1, dtype=torch.int32)}, ShapeError, "keep"),
        ({"memory": torch.zeros(2, 2, 8, 5, 9)}, ShapeError, "memory"),
        ({"memory": torch.zeros(2, 2, 4, 5, 16)}, ShapeError, "memory"),
        ({"memory": torch.zeros(2, 2, 8, 578, 8)}, ShapeError, "578"),
        ({"memory": torch.zeros(2, 2, 8, 5, 8, dtype=torch.float16)}, DtypeError, "memory"),
        ({"text": torch.zeros(1, 2, 8, 5, 8)}, ShapeError, "text"),
        ({"text": torch.zeros(2, 2, 8, 5, 8, device="meta")}, DeviceError, "text"),
    ],
)
def test_errors(decoder, packed, change: dict, error: type[Exception], says: str) -> None:
    arguments = {"ids": torch.zeros(2, 26, dtype=torch.int32), "memory": torch.zeros(2, 2, 8, 5, 8), "mode": "causal"}
    with pytest.raises(error, match=says):
        decode_pass(packed("64"), **{**arguments, **change})


def test_errors_of_out(decoder, packed) -> None:
    w, memory = packed("64"), torch.zeros(2, 2, 8, 5, 8)
    out = Answer.empty(w, 2)
    with pytest.raises(UsageError, match=r"out\.logits"):
        decode_pass(w, None, memory, mode="start", logits=True, out=out)
    with pytest.raises(LayoutError, match=r"out\.ids"):
        decode_pass(w, out.ids, memory, mode="causal", out=out)
    with pytest.raises(ShapeError, match=r"out\.ids"):
        decode_pass(w, None, memory, mode="start", out=Answer.empty(w, 3))
    with pytest.raises(DtypeError, match=r"out\.probs"):
        decode_pass(w, None, memory, mode="start", out=out._replace(probs=out.ids))


def test_errors_of_weights(decoder, packed, random_model) -> None:
    w = packed("64")
    with pytest.raises(DtypeError, match="float64"):
        pack_decoder(decoder("64"), torch.float64, "cpu")
    with pytest.raises(ShapeError, match="1 to 32, got 33"):
        pack_decoder(random_model(d=64, steps=33).visual_decoder, torch.float32, "cpu")
    for change, error in (
        ({"up_weight": w.up_weight[:, :-1]}, ShapeError),
        ({"base": w.base.half()}, DtypeError),
        ({"out_weight": w.out_weight.t()}, LayoutError),
        ({"head_bias": w.head_bias.to("meta")}, DeviceError),
        ({"head_weight": torch.zeros(129, 64), "head_bias": torch.zeros(129)}, ShapeError),
    ):
        with pytest.raises(error, match="classes C" if "head_weight" in change else next(iter(change))):
            dataclasses.replace(w, **change)
