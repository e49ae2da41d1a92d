"""The linear kernels against their reference, the reference against the network's own layers."""

from __future__ import annotations

import pytest
import torch
from device import needs_interpreter, there
from torch import Tensor

from clip4str.core.errors import DeviceError, DtypeError, LayoutError, ShapeError, UsageError
from clip4str.kernels import linear as package
from clip4str.kernels.linear import (
    LinearConfig,
    activate_,
    add_product_,
    adds_in_place,
    api,
    candidates,
    configuration,
    linear,
    normalize,
    quick_gelu_,
    split_configuration,
    split_counters,
)
from clip4str.kernels.linear.config import SPLIT_TILES
from clip4str.kernels.options import Options, using
from clip4str.kernels.shared.checks import as_rows
from clip4str.kernels.shared.tiles import MULTIPROCESSORS, SHARED_LIMIT
from clip4str.model.network import TowerMLP

activate_, add_product_, linear, normalize, quick_gelu_ = map(
    there, (activate_, add_product_, linear, normalize, quick_gelu_)
)

# Relative to the largest output: one rounding to the dtype (bfloat16: the interpreter cuts instead of rounding),
# and float32's sums in another order.
TOLERANCES = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 1.2e-2}
DTYPES = list(TOLERANCES)


def draw(*shape: int, dtype: torch.dtype = torch.float32, scale: float = 1.0, seed: int = 0) -> Tensor:
    return (scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))).to(dtype)


def close(got: Tensor, wanted: Tensor, factor: float = 1.0) -> None:
    assert got.dtype == wanted.dtype and got.shape == wanted.shape
    assert torch.isfinite(got).all()
    largest = wanted.float().abs().max().clamp(min=1.0)
    assert (got.float() - wanted.float()).abs().max() <= factor * TOLERANCES[got.dtype] * largest


def arguments(rows: int, K: int, F: int, dtype: torch.dtype) -> dict[str, Tensor]:
    x = 2 * draw(rows, K, dtype=dtype) + 1
    return {"x": x, "weight": draw(F, K, dtype=dtype, scale=K**-0.5, seed=1), "bias": draw(F, dtype=dtype, seed=2)}


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rows,K,F", [(1, 24, 7), (26, 192, 40), (70, 130, 33), (3, 17, 1)])
@pytest.mark.parametrize("normalized", [False, True])
def test_equals_its_reference(rows: int, K: int, F: int, normalized: bool, dtype: torch.dtype) -> None:
    residual = draw(rows, F, dtype=dtype, seed=3)
    for activation in ("none", "gelu", "quick_gelu") if rows < 20 else ("quick_gelu",):
        options = {"normalize": normalized, "activation": activation, "residual": residual}
        got = linear(**arguments(rows, K, F, dtype), **options, implementation="triton")
        close(got, linear(**arguments(rows, K, F, dtype), **options, implementation="reference"))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_candidate_computes_the_same(dtype: torch.dtype) -> None:
    given = arguments(40, 96, 40, dtype)
    wanted = linear(**given, normalize=True, implementation="reference")
    tiles = {
        (c.block_m, c.block_f, c.block_k, c.defer): c for rows in (26, 200) for c in candidates(rows, 96, 40, dtype)
    }
    assert len(tiles) >= 4
    for config in (*tiles.values(), LinearConfig(16, 16, 32, 4, 2, group=1), LinearConfig(16, 16, 32, 4, 2, group=2)):
        close(linear(**given, normalize=True, config=config, implementation="triton"), wanted)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_library_path_computes_the_same(dtype: torch.dtype) -> None:
    given, residual = arguments(30, 48, 24, dtype), draw(30, 24, dtype=dtype, seed=3)
    for bias in (None, given["bias"], given["bias"].float()):
        for options in ({}, {"normalize": True, "activation": "gelu"}, {"residual": residual}):
            some = {**given, "bias": bias, **options}
            got = linear(**some, config="library", implementation="triton")
            close(got, linear(**some, implementation="reference"), factor=2)  # rounds once more
    into = residual.clone()
    got = linear(**given, residual=into, out=into, config="library", implementation="triton")
    close(got, linear(**given, residual=residual, implementation="reference"), factor=2)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_many_rows_take_other_ways_to_the_same(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "FUSED_ROWS", 16)
    by_library = []
    monkeypatch.setattr(api, "_library", lambda *a, way=api._library: by_library.append(a[4]) or way(*a))
    given, residual = arguments(30, 48, 24, dtype), draw(30, 24, dtype=dtype, seed=3)
    for options in ({"normalize": True}, {"normalize": True, "activation": "quick_gelu"}, {"residual": residual}):
        got = linear(**given, **options, implementation="triton")
        close(got, linear(**given, **options, implementation="reference"), factor=2)
    assert by_library == ["none"], "what an activation or a residual follows is one kernel with it"


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_biases_may_be_added_where_rows_are_normalised(dtype: torch.dtype) -> None:
    """Two residual products without their biases, then normalised with the biases' sum: as with each."""
    given, residual = arguments(30, 48, 24, dtype), draw(30, 24, dtype=dtype, seed=3)
    wanted = linear(**given, residual=residual, implementation="reference")
    second = draw(24, 48, dtype=dtype, scale=48**-0.5, seed=4)
    wanted = linear(given["x"], second, given["bias"], residual=wanted, implementation="reference")
    got = residual.clone()
    assert add_product_(got, given["x"], given["weight"]) is got
    add_product_(got, given["x"], second)
    shift = 2 * given["bias"].float()
    for implementation in ("triton", "reference"):
        rows = normalize(got, shift=shift, implementation=implementation)
        close(rows, normalize(wanted, implementation="reference"), factor=4)  # sums are rounded at other places


def test_residual_products_in_place_take_many_rows_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    where = torch.device("cuda")
    rows = type("OnGpu", (), {"device": where, "shape": (2, 24), "numel": lambda self: 24 * self.rows})
    many, few = rows(), rows()
    many.rows, few.rows = api.FUSED_ROWS + 1, api.FUSED_ROWS
    assert adds_in_place(many) and not adds_in_place(few) and not adds_in_place(draw(api.FUSED_ROWS + 1, 1))
    monkeypatch.setenv("CLIP4STR_GPU_OPTIONS", "-library_residual")
    assert not adds_in_place(many)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("parts,tile", [(2, (16, 16)), (3, (32, 16)), (4, (16, 32))])
def test_several_programs_may_share_a_long_sum(parts: int, tile: tuple[int, int], dtype: torch.dtype) -> None:
    """Equal to the reference, and to itself from run to run, also onto the residual's own memory."""
    given, residual = arguments(40, 192, 40, dtype), draw(40, 40, dtype=dtype, seed=3)
    wanted = linear(**given, residual=residual, activation="gelu", implementation="reference")
    config = LinearConfig(*tile, 16, 4, 2, parts=parts)
    options = {"activation": "gelu", "config": config, "implementation": "triton"}
    got = linear(**given, residual=residual, **options)
    close(got, wanted)
    counters = torch.zeros(SPLIT_TILES, dtype=torch.int32)
    into = residual.clone()
    assert linear(**given, residual=into, out=into, **options, counters=counters) is into
    assert torch.equal(into, got)
    alone = linear(**{**given, "x": given["x"][:16]}, residual=residual[:16], **options)
    assert torch.equal(alone, got[:16]), "a row depends on no other"


@needs_interpreter
def test_each_program_that_shares_a_sum_counts_itself() -> None:
    given, config = arguments(20, 64, 24, torch.float16), LinearConfig(16, 16, 16, 4, 2, parts=4)
    counters = torch.zeros(SPLIT_TILES, dtype=torch.int32)
    linear(**given, config=config, counters=counters, implementation="triton")
    assert counters[:4].tolist() == [4] * config.tiles(20, 24) and not counters[4:].any()


def test_a_sum_is_shared_where_that_should_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    for rows, K, F in ((26, 2048, 512), (197, 3072, 768), (33, 768, 192), (16, 2048, 512)):
        assert split_configuration(rows, K, F, torch.float16) is None, "predicted slower on an H100"
    for capability in sorted(SHARED_LIMIT):
        where = divmod(capability, 10)
        config = split_configuration(257, 4096, 1024, torch.float16, where)
        assert config is not None and config.parts > 1 and 4096 % (config.parts * config.block_k) == 0
        assert config.tiles(257, 1024) <= SPLIT_TILES
        assert config.shared_bytes(torch.float16) <= 1024 * SHARED_LIMIT[capability]
    monkeypatch.setattr(api, "on_gpu", lambda device: True)
    few = type("OnGpu", (), {"shape": (2, 24), "numel": lambda self: 24 * 197, "device": torch.device("cpu")})()
    assert split_counters(few, 12) is None, "not before a device has measured it"
    monkeypatch.setenv("CLIP4STR_GPU_OPTIONS", "split_k")
    counters = split_counters(few, 12)
    assert counters is not None and counters.shape == (12, SPLIT_TILES) and not counters.any()
    few.numel = lambda: 24 * 5000
    assert split_counters(few, 12) is None, "many rows have tiles enough"


@pytest.mark.parametrize("capability", sorted(SHARED_LIMIT), ids=str)
def test_tiles_of_many_rows_that_a_switch_asks_for(capability: int) -> None:
    where, few, many = divmod(capability, 10), (64, 768, 3072), (12608, 768, 3072)
    usual = configuration(*many, torch.float16, where)
    for chosen in (Options(three_stages=True), Options(wide_tiles=True), Options(three_stages=True, wide_tiles=True)):
        with using(chosen):
            config = configuration(*many, torch.float16, where)
            assert configuration(*few, torch.float16, where).block_f < 256
        assert config.shared_bytes(torch.float16) <= 1024 * SHARED_LIMIT[capability]
        assert (config.block_m, config.block_f) == ((128, 256) if chosen.wide_tiles else (usual.block_m, usual.block_f))
        assert config.stages <= (3 if chosen.three_stages else 4)
    assert configuration(*many, torch.float16, where) == usual


@needs_interpreter
def test_wide_tiles_compute_the_same() -> None:
    given = arguments(130, 96, 260, torch.float16)
    wanted = linear(**given, activation="quick_gelu", implementation="reference")
    config = LinearConfig(128, 256, 32, 8, 3)
    close(linear(**given, activation="quick_gelu", config=config, implementation="triton"), wanted)


@needs_interpreter
def test_with_counters_the_model_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    given, counters = arguments(20, 64, 24, torch.float16), torch.zeros(SPLIT_TILES, dtype=torch.int32)
    wanted = linear(**given, implementation="reference")
    close(linear(**given, counters=counters, implementation="triton"), wanted)
    assert not counters.any()
    config = LinearConfig(16, 16, 16, 4, 2, parts=2)
    monkeypatch.setattr(api, "split_configuration", lambda *problem: config)
    close(linear(**given, counters=counters, implementation="triton"), wanted)
    assert counters.sum() == 2 * config.tiles(20, 24)
    normal = linear(**given, normalize=True, counters=counters, implementation="triton")
    close(normal, linear(**given, normalize=True, implementation="reference"))


def test_reference_is_the_towers_mlp() -> None:
    """LayerNorm's gain and shift folded into the first layer, the residual into the second."""
    torch.manual_seed(0)
    norm, mlp, x = torch.nn.LayerNorm(24), TowerMLP(24), draw(2, 5, 24)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    with torch.no_grad():
        up = mlp.c_fc.weight * norm.weight
        up_bias = mlp.c_fc.bias + mlp.c_fc.weight @ norm.bias
        hidden = linear(x, up, up_bias, normalize=True, activation="quick_gelu")
        close(linear(hidden, mlp.c_proj.weight, mlp.c_proj.bias, residual=x), x + mlp(norm(x)))
        gelu = torch.nn.functional.gelu(mlp.c_fc(x))
        close(linear(x, mlp.c_fc.weight, mlp.c_fc.bias, activation="gelu"), gelu)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("defer", [False, True])
def test_constant_rows_and_large_means(dtype: torch.dtype, defer: bool) -> None:
    """A row without deviation is 0 exactly when normalised, also beside other rows, also if it is large."""
    x = draw(5, 64, dtype=dtype)
    x[1], x[2], x[3] = 1000.0, 0.0, 1.0
    x[4] = x[4] / 16 + 100  # mean 1600 deviations
    weight, bias = draw(16, 64, dtype=dtype, seed=1), draw(16, dtype=dtype, seed=2)
    config = LinearConfig(16, 16, 32, 4, 2, defer=defer)
    got = linear(x, weight, bias, normalize=True, config=config, implementation="triton")
    assert torch.equal(got[1:4], bias.expand(3, -1))
    wanted = linear(x.double().float(), weight.float(), bias.float(), normalize=True, implementation="reference")
    close(got, wanted.to(dtype), factor=2 if dtype != torch.float32 else 50)  # 100 +- 1/16 holds 12 bits less


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:overflow encountered in exp:RuntimeWarning")
def test_large_values_stay_finite() -> None:
    x = torch.full((2, 32), 6e4, dtype=torch.float16)
    x[:, ::2] = -6e4
    weight = torch.eye(32, dtype=torch.float16)
    for activation in ("none", "gelu", "quick_gelu"):
        close(
            linear(x, weight, activation=activation, implementation="triton"),
            linear(x, weight, activation=activation, implementation="reference"),
        )
    close(linear(x, weight, normalize=True, implementation="triton"), x.sign())


@pytest.mark.gpu
@pytest.mark.parametrize("defer", [False, True])
def test_a_row_does_not_depend_on_the_batch(defer: bool) -> None:
    given = arguments(3 * 7, 96, 40, torch.float16)
    given["x"][5] = 1000.0  # takes the slow path for large means, its neighbours do not
    config = LinearConfig(16, 16, 32, 4, 2, defer=defer)
    options = {"normalize": True, "activation": "gelu", "config": config, "implementation": "triton"}
    all_rows = linear(**given, **options)
    for first in (0, 7, 14):
        alone = linear(**{**given, "x": given["x"][first : first + 7]}, **options)
        assert torch.equal(alone, all_rows[first : first + 7])


@pytest.mark.gpu
def test_strided_rows_leading_dimensions_and_out() -> None:
    wide = draw(6, 5, 40)
    x, weight, residual = wide[..., 8:32], draw(9, 24, seed=1), draw(6, 5, 9, seed=2)
    wanted = linear(x.clone(), weight, residual=residual, implementation="reference")
    close(linear(x, weight, residual=residual, implementation="triton"), wanted)
    out = torch.zeros(6, 5, 16)
    got = linear(x, weight, residual=residual, out=out[..., :9], implementation="triton")
    assert got.data_ptr() == out.data_ptr() and not out[..., 9:].any()
    close(got, wanted)
    assert linear(x, weight, residual=residual, out=residual, implementation="triton") is residual
    close(residual, wanted)


@pytest.mark.gpu
def test_no_rows() -> None:
    for implementation in ("triton", "reference"):
        assert linear(draw(2, 0, 24), draw(5, 24), implementation=implementation).shape == (2, 0, 5)
        assert normalize(draw(0, 24), implementation=implementation).shape == (0, 24)
        assert quick_gelu_(draw(0, 24), implementation=implementation).shape == (0, 24)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rows,K", [(1, 1), (5, 24), (3, 5000), (70, 192)])
def test_elementwise_kernels(rows: int, K: int, dtype: torch.dtype) -> None:
    x, residual, bias = draw(rows, K, dtype=dtype), draw(rows, K, dtype=dtype, seed=1), draw(K, seed=2)
    close(normalize(x, implementation="triton"), normalize(x, implementation="reference"))
    close(quick_gelu_(x.clone(), implementation="triton"), x.float().mul(torch.sigmoid(1.702 * x.float())).to(dtype))
    got = activate_(x.clone(), "gelu", bias=bias, residual=residual, implementation="triton")
    wanted = torch.nn.functional.gelu(x.float() + bias) + residual.float()
    close(got, wanted.to(dtype))
    inside = draw(rows, K + 3, dtype=dtype)
    kept = inside.clone()
    normalize(x, out=inside[:, :K], implementation="triton")
    close(inside[:, :K], normalize(x, implementation="reference"))
    assert torch.equal(inside[:, K:], kept[:, K:])


@pytest.mark.parametrize("capability", sorted(SHARED_LIMIT), ids=str)
def test_configurations_fit_every_gpu(capability: int) -> None:
    where = divmod(capability, 10)
    for dtype in DTYPES:
        for rows in (1, 26, 64, 65, 208, 1664, 6656, 256 * 577):
            for K, F in ((192, 768), (512, 512), (4096, 1024), (17, 5)):
                chosen = configuration(rows, K, F, dtype, where)
                for config in (chosen, *candidates(rows, K, F, dtype, where)):
                    assert config.shared_bytes(dtype) <= 1024 * SHARED_LIMIT[capability]
                    assert config.block_m * config.block_f <= 128 * config.warps * 32  # sums fit the registers
                    assert K % config.block_k == 0 or config.block_k < 2 * K
                assert candidates(rows, K, F, dtype, where)[0] == chosen
    assert configuration(26, 512, 512, torch.float16, where) == configuration(32, 512, 512, torch.float16, where)
    programs = -(-26 // chosen.block_m) * -(-2048 // configuration(26, 512, 2048, torch.float16, where).block_f)
    assert programs >= min(64, MULTIPROCESSORS[capability])  # few rows: enough programs to pull on the memory


def test_bad_input() -> None:
    x, w = draw(4, 24), draw(8, 24)
    wrong = [
        (ShapeError, r"weight.*\(F, K\).*24.*got \(8, 23\)", {"weight": draw(8, 23)}),
        (ShapeError, r"weight.*got \(8,\)", {"weight": draw(8)}),
        (ShapeError, r"bias.*\(8\).*got \(7,\)", {"bias": draw(7)}),
        (ShapeError, r"residual.*\(4, 8\).*got \(5, 8\)", {"residual": draw(5, 8)}),
        (ShapeError, r"out.*\(4, 8\).*got \(4, 9\)", {"out": draw(4, 9)}),
        (ShapeError, "x's row length: supported are 1 to 65536, got 0", {"x": draw(4, 0), "weight": draw(8, 0)}),
        (ShapeError, r"x: expected shape \(..., K\)", {"x": torch.tensor(1.0)}),
        (DtypeError, "x: expected float16 or bfloat16 or float32, got float64", {"x": x.double()}),
        (DtypeError, "weight: expected float32, got float16", {"weight": w.half()}),
        (DtypeError, "bias: expected float32, got float16", {"bias": draw(8).half()}),
        (DtypeError, "residual: expected float32, got float16", {"residual": draw(4, 8).half()}),
        (LayoutError, "x: expected contiguous in its last 1", {"x": draw(24, 4).t()}),
        (LayoutError, "x: expected one stride", {"x": draw(3, 4, 24).transpose(0, 1)}),
        (LayoutError, "weight: expected contiguous", {"weight": draw(8, 48)[:, :24]}),
        (LayoutError, "bias: expected contiguous", {"bias": draw(16)[::2]}),
        (LayoutError, "out: expected rows that do not overlap", {"out": draw(1, 8).expand(4, 8)}),
        (DeviceError, "weight: expected on cpu like x, got meta", {"weight": w.to("meta")}),
        (UsageError, "activation is one of none, gelu, quick_gelu, not 'relu'", {"activation": "relu"}),
        (UsageError, "config is a LinearConfig", {"config": "fast"}),
        (UsageError, "parts of K", {"config": LinearConfig(16, 16, 8, 4, 2, parts=3), "normalize": True}),
        (
            UsageError,
            "K = 24 is no multiple of parts x block_k = 32",
            {"config": LinearConfig(16, 16, 16, 4, 2, parts=2)},
        ),
        (ShapeError, r"counters.*\(512\), got \(5,\)", {"counters": torch.zeros(5, dtype=torch.int32)}),
        (DtypeError, "counters: expected int32", {"counters": torch.zeros(512)}),
        (UsageError, "implementation is", {"implementation": "cuda"}),
    ]
    for error, message, change in wrong:
        for implementation in ("triton", "reference"):
            with pytest.raises(error, match=message):
                api.linear(**{"x": x, "weight": w, "implementation": implementation, **change})
    for error, message, change in (
        (ShapeError, r"residual.*\(4, 8\).*got \(5, 8\)", {"residual": draw(5, 8)}),
        (LayoutError, "residual: expected contiguous", {"residual": draw(8, 4).t()}),
        (DtypeError, "residual: expected float32, got float16", {"residual": draw(4, 8).half()}),
        (DeviceError, "residual: expected on cpu", {"residual": draw(4, 8).to("meta")}),
    ):
        with pytest.raises(error, match=message):
            api.add_product_(**{"residual": draw(4, 8), "x": x, "weight": w, **change})
    for error, shift in ((ShapeError, draw(23)), (DtypeError, draw(24).half()), (LayoutError, draw(48)[::2])):
        with pytest.raises(error, match="shift"):
            api.normalize(x, shift=shift)
    square = draw(24, 24)
    with pytest.raises(LayoutError, match="out: expected memory other than x's"):
        linear(x, square, out=x)
    with pytest.raises(LayoutError, match="x: expected rows that do not overlap"):
        quick_gelu_(draw(1, 8).expand(4, 8))
    with pytest.raises(UsageError, match="activation"):
        activate_(x, "tanh")
    with pytest.raises(ShapeError, match="out"):
        normalize(x, out=draw(4, 25))
    with pytest.raises(DtypeError, match="x: expected"):
        normalize(torch.zeros(3, 3, dtype=torch.int32))


def test_rows_are_a_view() -> None:
    x = draw(2, 3, 4)
    assert as_rows("x", x).data_ptr() == x.data_ptr() and as_rows("x", x[..., :2]).stride() == (4, 1)


def test_kernel_is_not_used_on_a_cpu_uninterpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(DeviceError, match="run on CUDA tensors"):
        api.linear(draw(1, 4), draw(2, 4), implementation="triton")
    assert linear(draw(1, 4), draw(2, 4)).shape == (1, 2)
    assert api.FUSED_ROWS >= 256 * 26 // 8 and package.linear is api.linear
