"""The linear layer whose tiles the tensor memory accelerator loads, against its reference; who takes it; its cubins."""

from __future__ import annotations

import pytest
import torch
from device import needs_interpreter, there
from torch import Tensor

pytest.importorskip("triton")
from compiled_kernels import descriptor_figures

from clip4str.core.errors import LayoutError
from clip4str.kernels.linear import LinearConfig, api, config, descriptor_configuration, descriptors, linear
from clip4str.kernels.linear.config import WIDE, programs_at_once
from clip4str.kernels.options import Options, using
from clip4str.kernels.shared.checks import begin_aligned
from clip4str.kernels.shared.tiles import SHARED_LIMIT

linear = there(linear)

TOLERANCES = {torch.float16: 1e-3, torch.bfloat16: 1.2e-2}  # of the largest output: one rounding, see test_linear.py
DTYPES = list(TOLERANCES)
SMALL = LinearConfig(128, 128, 64, 8, 3, descriptors=True)
UP = (12608, 768, 3072)  # of B/16's image tower, 64 words


def draw(*shape: int, dtype: torch.dtype = torch.float16, scale: float = 1.0, seed: int = 0) -> Tensor:
    return (scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))).to(dtype)


def given(rows: int, K: int, F: int, dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
    """x: rows with a stride of its own, from the middle of wider ones."""
    x = draw(rows, K + 24, dtype=dtype)[:, 8 : 8 + K]
    return {"x": x, "weight": draw(F, K, dtype=dtype, scale=K**-0.5, seed=1), "bias": draw(F, dtype=dtype, seed=2)}


def close(got: Tensor, wanted: Tensor) -> None:
    assert got.dtype == wanted.dtype and got.shape == wanted.shape and torch.isfinite(got).all()
    largest = wanted.float().abs().max().clamp(min=1.0)
    assert (got.float() - wanted.float()).abs().max() <= TOLERANCES[got.dtype] * largest


@pytest.fixture
def few_programs(monkeypatch) -> None:
    """Two, so that each computes several tiles."""
    monkeypatch.setattr(descriptors, "multiprocessors", lambda device: 1)


@pytest.mark.gpu
@pytest.mark.usefixtures("few_programs")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rows,K,F", [(300, 96, 264), (128, 64, 128), (77, 40, 72), (257, 136, 392)])
def test_equals_its_reference(rows: int, K: int, F: int, dtype: torch.dtype) -> None:
    """Rows, features and K that fill whole tiles, and that do not; nothing is written beside y."""
    some = given(rows, K, F, dtype)
    for activation in ("quick_gelu", "gelu") if rows < 128 else ("quick_gelu",):
        wanted = linear(**some, activation=activation, implementation="reference")
        around = torch.full((rows, F + 8), 3.0, dtype=dtype)
        got = linear(**some, activation=activation, out=around[:, :F], config=SMALL, implementation="triton")
        close(got, wanted)
        assert (around[:, F:] == 3).all()


@needs_interpreter
@pytest.mark.usefixtures("few_programs")
def test_other_tiles_no_bias_and_rows_normalised_before() -> None:
    some = given(140, 96, 264)
    for tile in (LinearConfig(*WIDE[:2], 32, 8, 3, descriptors=True), LinearConfig(64, 32, 16, 4, 2, descriptors=True)):
        for change in ({"bias": None}, {"bias": some["bias"].float(), "normalize": True}):
            got = linear(**{**some, **change}, config=tile, implementation="triton")
            close(got, linear(**{**some, **change}, implementation="reference"))


@pytest.mark.gpu
@pytest.mark.usefixtures("few_programs")
def test_a_row_does_not_depend_on_the_batch() -> None:
    some = given(300, 96, 136)
    some["x"][5] = 10.0
    options = {"activation": "quick_gelu", "config": SMALL, "implementation": "triton"}
    whole = linear(**some, **options)
    for rows in (slice(0, 7), slice(130, 290)):
        assert torch.equal(linear(**{**some, "x": some["x"][rows]}, **options), whole[rows])


@needs_interpreter
@pytest.mark.parametrize("capability, taken", [((9, 0), True), ((12, 0), True), ((8, 9), False)])
def test_many_rows_take_it_where_it_can_be_had(capability, taken, monkeypatch) -> None:
    """Elsewhere they fall back to the kernel as it was, silently."""
    launched = []
    monkeypatch.setattr(
        descriptors, "launch_descriptors", lambda *a, way=descriptors.launch_descriptors: launched.append(1) or way(*a)
    )
    monkeypatch.setattr(api, "FUSED_ROWS", 16)
    monkeypatch.setattr(config, "MANY_ROWS", 16)
    monkeypatch.setattr(api, "capability_of", lambda device: capability)
    some, act = given(40, 48, 24), {"activation": "quick_gelu"}

    def launches(**change) -> int:
        launched.clear()
        got = api.linear(**{**some, **act, **change}, implementation="triton")
        close(got.half(), linear(**{**some, **act, **change}, implementation="reference").half())
        return len(launched)

    assert launches() == 0, "not before a device has measured it"
    with using(Options(descriptors=True)):
        assert launches() == launches(normalize=True) == taken
        assert launches(x=some["x"][:16]) == 0, "few rows"
        assert launches(residual=draw(40, 24)) == 0
        assert launches(x=draw(40, 49)[:, 1:]) == launches(x=draw(40, 52)[:, :48]) == 0, "rows at odd bytes"
        assert launches(x=draw(40, 56)[:, 1:49]) == 0, "at an odd byte, rows 16 bytes apart"
        assert launches(weight=draw(24 * 48 + 1)[1:].view(24, 48)) == 0
        assert launches(x=draw(1, 48).expand(40, 48)) == 0, "one row forty times"
        assert launches(out=torch.zeros(40, 28).half()[:, :24]) == 0
        assert launches(weight=draw(20, 48), bias=draw(20)) == launches(x=draw(40, 36), weight=draw(24, 36)) == 0
        assert launches(**{name: value.float() for name, value in some.items()}) == 0


@pytest.mark.parametrize("rows, programs", [(300, 3 * 2), (12608, 2 * 132)])
def test_as_many_programs_as_run_at_once_and_no_more_than_tiles(rows: int, programs: int, monkeypatch) -> None:
    grids = []

    class Kernel:
        def __getitem__(self, grid):
            grids.append(grid)
            return lambda *args, **options: None

    monkeypatch.setattr(descriptors, "descriptor_kernel", Kernel())
    monkeypatch.setattr(descriptors, "multiprocessors", lambda device: 132)
    config = descriptor_configuration(*UP, torch.float16, (9, 0))
    x, weight, out = (torch.empty(shape, dtype=torch.float16) for shape in ((rows, 64), (256, 64), (rows, 256)))
    descriptors.launch_descriptors(x, weight, None, out, "none", config)
    assert grids == [(min(programs, 2 * -(-rows // 128)),)]


def test_who_may_ask_for_it() -> None:
    some, options = given(4, 24, 8), {"config": SMALL, "implementation": "triton"}
    for change in ({"residual": draw(4, 8)}, {"x": draw(4, 25)[:, 1:]}, {n: t.float() for n, t in some.items()}):
        with pytest.raises(LayoutError, match="config: descriptors are for half precision"):
            linear(**{**some, **change}, **options)
    assert begin_aligned(draw(3, 8)) and begin_aligned(draw(3, 20)[:, :8], 8) and not begin_aligned(draw(3, 20)[:, :8])


@pytest.mark.parametrize("capability", sorted(SHARED_LIMIT), ids=str)
def test_two_programs_fit(capability: int) -> None:
    where = divmod(capability, 10)
    found = descriptor_configuration(*UP, torch.float16, where)
    assert (found is not None) == (where >= (9, 0))
    for fewer in ((2048, 768, 3072), (12608, 764, 3072), (12608, 768, 3076)):
        assert descriptor_configuration(*fewer, torch.float16, where) is None
    assert descriptor_configuration(*UP, torch.float32, where) is None
    if found is not None:
        assert programs_at_once(found, torch.float16, where) == 2
        wide = LinearConfig(*WIDE[:2], found.block_k, 8, 3, descriptors=True)
        assert programs_at_once(wide, torch.float16, where) == 1


def test_compiled_it_loads_and_stores_by_descriptors_onto_tensor_cores() -> None:
    """Read from the machine code: wgmma on 9.0, tcgen05 on 10.0; registers and shared memory that two programs have."""
    products = {(9, 0): "HGMMA", (10, 0): "UTCHMMA", (12, 0): "HMMA"}
    rows = descriptor_figures()
    assert {tuple(row["capability"]) for row in rows} == products.keys()
    for row in rows:
        where = tuple(row["capability"])
        assert row["tensor"].keys() == {products[where]} and row["described"].keys() == {"UTMALDG", "UTMASTG"}
        assert row["spills"] == row["local"] == 0 and row["hidden"] == 2
        assert row["dependent"], "it waits before the first load"
        assert row["registers"] * 32 * row["num_warps"] <= 65536 / 2
        assert 2 * (row["shared"] + 1024) <= 1024 * (SHARED_LIMIT[10 * where[0] + where[1]] + 1)
