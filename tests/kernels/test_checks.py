"""What operators say of arguments that do not fit, and which implementation runs where."""

import numpy as np
import pytest
import torch
from device import needs_interpreter

from clip4str.core.errors import DeviceError, DtypeError, KernelError, LayoutError, ShapeError, UsageError
from clip4str.kernels.shared import checks, launch

CPU, GPU, META = torch.device("cpu"), torch.device("cuda", 1), torch.device("meta")


def empty(*shape: int, device: str = "meta") -> torch.Tensor:
    return torch.empty(shape, device=device)


@pytest.mark.parametrize(
    ("shape", "known", "got", "message"),
    [
        ((2, 3), {}, (2, 4), "x: expected shape (2, 3), got (2, 4)"),
        ((2, 3), {}, (2, 3, 1), "x: expected shape (2, 3), got (2, 3, 1)"),
        ((2, 3), {}, (), "x: expected shape (2, 3), got ()"),
        (("N", "T"), {}, (5,), "x: expected shape (N, T), got (5,)"),
        (("N", "T"), {"N": 4}, (5, 26), "x: expected shape (N, T) = (4, T), got (5, 26)"),
        (("N", 2, "h", "M", "e"), {"N": 4, "h": 8}, (4, 2, 7, 9, 9), "= (4, 2, 8, M, e), got (4, 2, 7, 9, 9)"),
        (("d", "d"), {}, (2, 3), "x: expected shape (d, d), got (2, 3)"),
        (("d", 4, "d"), {}, (2, 4, 3), "x: expected shape (d, 4, d), got (2, 4, 3)"),
    ],
)
def test_wrong_shapes_say_what_was_expected(shape, known, got, message):
    sizes = dict(known)
    with pytest.raises(ShapeError) as raised:
        checks.check_shape("x", empty(*got), shape, sizes)
    assert message in str(raised.value) and "\n" not in str(raised.value)
    assert sizes == known, "a tensor that does not fit teaches nothing"


def test_letters_stand_for_one_number():
    sizes = {"N": 4}
    checks.check_shape("memory", empty(4, 2, 8, 65, 24), ("N", 2, "h", "M", "e"), sizes)
    assert sizes == {"N": 4, "h": 8, "M": 65, "e": 24}
    checks.check_shape("weight", empty(24, 24), ("e", "e"), sizes)
    checks.check_shape("one", empty(), (), sizes)
    checks.check_shape("none", empty(0, 8), ("rows", "h"), sizes)
    assert sizes["rows"] == 0
    with pytest.raises(ShapeError, match=r"text: expected shape \(rows\) = \(0\), got \(1,\)"):
        checks.check_shape("text", empty(1), ("rows",), sizes)


@pytest.mark.parametrize(
    ("dtypes", "message"),
    [
        (torch.int32, "ids: expected int32, got int64"),
        (checks.FLOATS, "ids: expected float16 or bfloat16 or float32, got int64"),
        ([torch.uint8], "ids: expected uint8, got int64"),
    ],
)
def test_wrong_dtypes_say_what_was_expected(dtypes, message):
    with pytest.raises(DtypeError) as raised:
        checks.check_dtype("ids", torch.zeros(2, dtype=torch.int64), dtypes)
    assert str(raised.value) == message


def test_right_dtypes():
    for dtype in checks.FLOATS:
        checks.check_dtype("x", torch.zeros(2, dtype=dtype), checks.FLOATS)
        checks.check_dtype("x", torch.zeros(2, dtype=dtype), dtype)


@pytest.mark.parametrize("value", [[1, 2], np.zeros((2, 3), np.float32), None, 3])
def test_what_is_no_tensor_is_named(value):
    message = f"x: expected a tensor, got {type(value).__name__}"
    with pytest.raises(UsageError, match=message):
        checks.check_shape("x", value, ("N", "T"), {})
    with pytest.raises(UsageError, match=message):
        checks.check_dtype("x", value, torch.float32)


BASE = torch.zeros(4, 6, 8)


@pytest.mark.parametrize(
    ("tensor", "dims", "message"),
    [
        (BASE.transpose(1, 2), None, "x: expected contiguous, got strides (48, 1, 8); call .contiguous()"),
        (BASE[:, ::2], None, "x: expected contiguous, got strides (48, 16, 1); call .contiguous()"),
        (BASE[..., ::2], 1, "x: expected contiguous in its last 1 dimension(s), got strides (48, 8, 2)"),
        (BASE[:, :, :4], 2, "x: expected contiguous in its last 2 dimension(s), got strides (48, 8, 1)"),
        (torch.zeros(4, 1).expand(4, 6), 1, "got strides (1, 0)"),
        (torch.zeros(1, 6).expand(4, 6), None, "got strides (0, 1)"),
        (BASE[:, ::2], 9, "contiguous in its last 9 dimension(s)"),
    ],
)
def test_wrong_layouts_say_what_was_expected(tensor, dims, message):
    with pytest.raises(LayoutError) as raised:
        checks.check_contiguous("x", tensor, dims)
    assert message in str(raised.value)
    checks.check_contiguous("x", tensor.contiguous(), dims)


@pytest.mark.parametrize(
    ("tensor", "dims"),
    [
        (BASE, None),
        (BASE, 9),
        (BASE[:, ::2], 1),
        (BASE[1:3, :, :4], 1),
        (BASE[::2], 2),
        (BASE[..., ::2], 0),
        (BASE[:, :1], 1),
        (BASE[:1, :1], None),
        (BASE[:, :1, ::8], 2),
        (torch.tensor(1.0), None),
        (torch.tensor(1.0), 1),
        (torch.empty(5, 0), None),
        (torch.empty(5, 0, 3).transpose(0, 2), None),
        (BASE[:0, ::2, ::2], None),
    ],
)
def test_right_layouts(tensor, dims):
    """Strides of dimensions of one element, and of tensors of none, are nobody's concern."""
    checks.check_contiguous("x", tensor, dims)


def test_every_contiguous_tensor_passes_and_no_other():
    for stride in np.ndindex(4, 4, 3):
        for shape in np.ndindex(3, 3, 3):
            tensor = torch.zeros(40).as_strided(shape, stride)
            try:
                checks.check_contiguous("x", tensor)
                passed = True
            except LayoutError:
                passed = False
            assert passed == tensor.is_contiguous(), (shape, stride)


def test_sparse_tensors_have_no_strides():
    with pytest.raises(LayoutError, match="weight: expected a dense tensor, got layout sparse_coo"):
        checks.check_contiguous("weight", torch.eye(3).to_sparse())


def test_ranges_include_their_ends():
    checks.check_range("T", 1, 1, 32)
    checks.check_range("T", 32, 1, 32)
    for value in (0, 33, -1):
        with pytest.raises(ShapeError, match=f"T: supported are 1 to 32, got {value}"):
            checks.check_range("T", value, 1, 32)


def test_tensors_on_several_devices():
    here, there = torch.zeros(1), empty(1)
    assert checks.check_same_device({"x": here, "text": None, "out": here}) == CPU
    assert checks.check_same_device({"text": None, "x": there}) == META
    with pytest.raises(DeviceError, match=r"^out: expected on cpu like x, got meta$"):
        checks.check_same_device({"text": None, "x": here, "weight": here, "out": there})


def test_errors_are_one_family():
    for error in (ShapeError, DtypeError, LayoutError, DeviceError):
        assert issubclass(error, KernelError)


@pytest.fixture
def gpu(monkeypatch):
    """gpu(8, 6): torch then finds a GPU of that capability."""

    def pretend(*capability: int) -> None:
        launch.check_capability.cache_clear()
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA Pretended")

    yield pretend
    launch.check_capability.cache_clear()


@pytest.mark.parametrize("interpret", ["1", "0"])
def test_on_a_cpu(monkeypatch, interpret):
    monkeypatch.setenv("TRITON_INTERPRET", interpret)
    assert not launch.use_kernel(CPU, "auto"), "the interpreter is for tests that ask for it"
    assert not launch.use_kernel(CPU, "reference")
    if interpret == "1":
        assert launch.use_kernel(CPU, "triton")
    else:
        with pytest.raises(DeviceError, match=r"run on CUDA tensors, these are on cpu; implementation='reference'"):
            launch.use_kernel(CPU, "triton")


@needs_interpreter
def test_the_interpreter_is_for_the_cpu():
    assert launch.interpreted()
    with pytest.raises(DeviceError, match="these are on meta"):
        launch.use_kernel(META, "triton")
    assert not launch.use_kernel(META, "auto")


@pytest.mark.parametrize("implementation", ["Triton", "", "cuda", None, 1])
def test_other_implementations_are_named(implementation):
    for device in (CPU, GPU):
        with pytest.raises(UsageError) as raised:
            launch.use_kernel(device, implementation)
        assert str(raised.value) == f"implementation is 'auto', 'triton' or 'reference', not {implementation!r}"


@pytest.mark.parametrize("value", ["1", "true", "True", "on", "YES", "y", "0", "", "false", "off", "no", None])
def test_the_interpreter_is_on_when_triton_says_so(monkeypatch, value):
    from triton import knobs

    if value is None:
        monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    else:
        monkeypatch.setenv("TRITON_INTERPRET", value)
    assert launch.interpreted() == knobs.runtime.interpret


@pytest.mark.parametrize("capability", [(8, 0), (8, 7), (9, 0), (12, 0)])
def test_gpus_that_kernels_run_on(gpu, capability):
    gpu(*capability)
    assert launch.use_kernel(GPU, "auto") and launch.use_kernel(GPU, "triton")
    assert not launch.use_kernel(GPU, "reference")
    assert launch.check_capability(GPU) == capability


@pytest.mark.parametrize("capability", [(7, 5), (7, 0), (6, 1)])
def test_gpus_that_are_too_old(gpu, capability):
    gpu(*capability)
    for implementation in ("auto", "triton"):
        with pytest.raises(DeviceError) as raised:
            launch.use_kernel(GPU, implementation)
        for part in ("NVIDIA Pretended", f"capability {capability[0]}.{capability[1]}", "8.0", "'reference'"):
            assert part in str(raised.value)
    assert not launch.use_kernel(GPU, "reference")


def test_a_gpu_without_triton(gpu, monkeypatch):
    gpu(9, 0)
    monkeypatch.setattr(launch, "_has_triton", lambda: False)
    with pytest.raises(DeviceError, match=r"need triton: pip install 'clip4str\[gpu\]'"):
        launch.use_kernel(GPU, "auto")
    assert not launch.use_kernel(GPU, "reference")


def test_kernels_launch_on_the_tensors_gpu(monkeypatch):
    entered = []

    class Device:
        def __init__(self, device):
            self.device = device

        def __enter__(self):
            entered.append(self.device)

        def __exit__(self, *error):
            entered.append(None)

    monkeypatch.setattr(torch.cuda, "device", Device)
    with launch.on_device(CPU):
        assert entered == []
    with launch.on_device(GPU):
        assert entered == [GPU]
    assert entered == [GPU, None]
