"""Drafts on the device: reference and kernel against the host's collapse and a plain loop."""

import numpy as np
import pytest
import torch
from device import there

from clip4str.core.drafts import collapse as on_host
from clip4str.core.errors import DeviceError, DtypeError, LayoutError, ShapeError, UsageError
from clip4str.kernels.collapse import CollapseConfig, api, candidates

pytest.importorskip("triton")
from compiled_kernels import collapse_figures

collapse, collapse_frames = there(api.collapse), there(api.collapse_frames)
BOTH = pytest.mark.parametrize("implementation", ["reference", "triton"])


def drawn(n, frames, classes, seed=0, blanks=0.4, dtype=torch.float32):
    """Logits whose frames are often blank and often repeat the one before."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, classes, (n, frames)) * (rng.random((n, frames)) > blanks)
    for column in range(1, frames):
        again = rng.random(n) < 0.3
        ids[again, column] = ids[again, column - 1]
    logits = torch.from_numpy(rng.standard_normal((n, frames, classes)).astype(np.float32))
    logits.scatter_(2, torch.from_numpy(ids)[..., None], 9.0)
    return logits.to(dtype), ids


def one_by_one(ids, steps):
    words = np.zeros((len(ids), steps), int)
    for word, frames in zip(words, ids.tolist()):
        merged = [id_ for i, id_ in enumerate(frames) if id_ and (i == 0 or frames[i - 1] != id_)][: steps - 1]
        word[: len(merged)] = merged
    return words


@pytest.mark.gpu
@BOTH
@pytest.mark.parametrize(
    ("n", "frames", "classes", "steps"),
    [
        (7, 32, 95, 26),
        (3, 42, 95, 26),
        (1, 1, 2, 1),
        (5, 33, 37, 4),
        (2, 96, 7000, 40),
        (4, 64, 1, 3),
        (1, 1024, 5, 26),
    ],
)
def test_words_of_frames(implementation, n, frames, classes, steps):
    logits, ids = drawn(n, frames, classes, seed=n)
    words = collapse(logits, steps, implementation=implementation)
    assert words.dtype == torch.int32 and words.tolist() == one_by_one(ids, steps).tolist()
    assert np.array_equal(words.numpy(), on_host(ids, steps, classes - 1))


@pytest.mark.gpu
@BOTH
@pytest.mark.parametrize(("n", "frames", "classes", "steps"), [
    (7, 32, 95, 26), (3, 42, 95, 26), (1, 1, 2, 1), (4, 64, 1, 3), (5, 65, 37, 4), (1, 1024, 5, 40),
])  # fmt: skip
def test_words_of_frames_whose_argmax_is_done(implementation, n, frames, classes, steps):
    ids = drawn(n, frames, classes, seed=n)[1]
    ids[:, ::7] = [classes]  # beyond the charset
    ids[0, ::5] = -1
    words = collapse_frames(torch.from_numpy(ids.astype(np.int32)), steps, classes, implementation=implementation)
    known = np.where((ids > 0) & (ids < classes), ids, 0)
    assert words.dtype == torch.int32 and words.tolist() == one_by_one(known, steps).tolist()
    assert np.array_equal(words.numpy(), on_host(ids, steps, classes - 1))


@pytest.mark.gpu
@BOTH
def test_edges(implementation):
    rows = {
        "empty": [0] * 8,
        "held to the end": [3] * 8,
        "a double letter": [5, 5, 0, 5, 0, 0, 6, 6],
        "longer than the steps": [1, 2, 3, 4, 5, 6, 1, 2],
        "begins and ends in blanks": [0, 0, 6, 1, 1, 6, 0, 0],
    }
    logits = torch.nn.functional.one_hot(torch.tensor(list(rows.values())), 7).float()
    words = collapse(logits, 5, implementation=implementation).tolist()
    assert words == [[0] * 5, [3, 0, 0, 0, 0], [5, 5, 6, 0, 0], [1, 2, 3, 4, 0], [6, 1, 6, 0, 0]]


@pytest.mark.gpu
@BOTH
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_equal_logits(implementation, dtype):
    logits, ids = drawn(6, 32, 95, seed=3, dtype=dtype)
    logits[:, ::3] = 1.0  # all equal: the first is blank
    ids[:, ::3] = 0
    assert collapse(logits, 26, implementation=implementation).tolist() == one_by_one(ids, 26).tolist()


@pytest.mark.gpu
@BOTH
def test_logits_that_are_no_numbers_spell_characters_that_exist(implementation):
    logits, _ = drawn(4, 32, 95)
    logits[0], logits[1, ::2], logits[2] = torch.nan, torch.nan, -torch.inf
    logits[3, :, 5] = torch.inf
    words = collapse(logits, 26, implementation=implementation)
    assert ((words >= 0) & (words < 95)).all()
    assert words[2:].tolist() == [[0] * 26, [5, *[0] * 25]]


@pytest.mark.gpu
def test_a_word_does_not_depend_on_the_configuration_or_its_company():
    logits, _ = drawn(9, 42, 95, seed=5)
    want = collapse(logits, 26)
    for config in (*candidates(9), CollapseConfig(elements=64, warps=1)):
        assert torch.equal(collapse(logits, 26, config=config, implementation="triton"), want)
    assert torch.equal(collapse(logits[4:5], 26, implementation="triton"), want[4:5])
    assert collapse(logits[:0], 26, implementation="triton").shape == (0, 26)


def test_wrong_arguments():
    logits, _ = drawn(2, 8, 5)
    for arguments, error, message in (
        ((logits[0], 26), ShapeError, r"logits: expected shape \(N, F, C\)"),
        ((logits.int(), 26), DtypeError, "logits: expected float16"),
        ((logits.transpose(1, 2), 26), LayoutError, "logits: expected contiguous"),
        ((logits, 0), ShapeError, "steps: supported are 1 to 1024, got 0"),
        ((torch.zeros(1, 1025, 2), 26), ShapeError, "logits: F: supported are 1 to 1024, got 1025"),
        ((logits.numpy(), 26), UsageError, "logits: expected a tensor"),
        ((logits.to("meta"), 26), DeviceError, "Triton kernels run on CUDA tensors"),
    ):
        with pytest.raises(error, match=message):
            api.collapse(*arguments, implementation="triton")


def test_wrong_frames():
    ids = torch.zeros(2, 8, dtype=torch.int32)
    for arguments, error, message in (
        ((ids[0], 26, 95), ShapeError, r"ids: expected shape \(N, F\)"),
        ((ids.long(), 26, 95), DtypeError, "ids: expected int32"),
        ((ids.T, 26, 95), LayoutError, "ids: expected contiguous"),
        ((ids, 0, 95), ShapeError, "steps: supported are 1 to 1024, got 0"),
        ((ids, 26, 0), ShapeError, "classes: supported are 1 to 65536, got 0"),
        ((ids.new_zeros(1, 1025), 26, 95), ShapeError, "ids: F: supported are 1 to 1024, got 1025"),
    ):
        with pytest.raises(error, match=message):
            api.collapse_frames(*arguments)


def test_compiles_ahead_of_time_without_spills():
    compiled = collapse_figures()
    assert sorted(row["capability"] for row in compiled) == [[8, 7], [9, 0], [9, 0]]
    for row in compiled:
        assert row["spills"] == 0 and 0 < row["registers"] <= 128
