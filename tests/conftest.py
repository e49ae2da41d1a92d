"""Fixtures shared by all rooms' tests: golden outputs, the networks that made them, small networks, LMDBs."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

os.environ["OMP_NUM_THREADS"] = (
    "1"  # before torch: networks this small are not worth two threads, least of all on a busy machine
)
sys.path.insert(0, str(Path(__file__).parent))  # device, golden_weights, oracle

from device import ON_GPU, REQUIRE_GPU  # before triton, which it tells whether to interpret kernels
from golden_weights import GOLDEN, golden_array, golden_state


def pytest_runtest_setup(item: pytest.Item) -> None:
    if REQUIRE_GPU and not ON_GPU and item.get_closest_marker("gpu"):
        pytest.fail("CLIP4STR_REQUIRE_GPU is set, and torch sees no GPU", pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if REQUIRE_GPU and report.skipped and item.get_closest_marker("gpu"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome, report.longrepr = "failed", f"CLIP4STR_REQUIRE_GPU is set, and this was not run: {reason}"
    return report


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """ONNX Runtime's, too, computes twice as long with two."""
    from clip4str.runtime.backends import ort

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ort, "available_threads", lambda: 1)
        yield


@pytest.fixture(scope="session")
def golden() -> Callable[[str], dict[str, np.ndarray]]:
    """golden("tiny") -> the arrays of tests/golden/tiny.npz"""

    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(GOLDEN / f"{name}.npz") as file:
            return {key: file[key] for key in file}

    return load


@pytest.fixture(scope="session")
def golden_checkpoint(golden, tmp_path_factory) -> Callable[[str], Path]:
    """golden_checkpoint("tiny") -> a .safetensors file of that network, written by the golden recipe alone"""
    from safetensors.numpy import save_file

    made: dict[str, Path] = {}

    def write(name: str) -> Path:
        if name not in made:
            arrays = golden(name)
            size = str(arrays["size"])
            path = tmp_path_factory.mktemp(name) / f"{name}.safetensors"
            save_file(golden_state(size, int(arrays["seed"]), float(arrays["eos_bias"])), path)
            made[name] = path
        return made[name]

    return write


@pytest.fixture(scope="session")
def random_model() -> Callable[..., object]:
    """random_model(seed, **config) -> Clip4Str with golden-recipe weights of any small size"""
    import torch

    from clip4str.model import Clip4Str, Config

    def make(seed: int = 0, eos_bias: float = 3.0, **config):
        small = {
            "image_size": (32, 64), "patch_size": (8, 16), "image_width": 64, "image_layers": 2, "text_width": 64,
            "text_layers": 1, "vocabulary": 1024, "d": 32, "decoder_heads": 4, "decoder_mlp": 64,
        }  # fmt: skip
        model = Clip4Str(Config(**{**small, **config}))
        state = {
            k: torch.from_numpy(golden_array(k, tuple(v.shape), seed, eos_bias)) for k, v in model.state_dict().items()
        }
        model.load_state_dict(state)
        return model.eval().requires_grad_(False)

    return make


@pytest.fixture(scope="session")
def few_crops(tmp_path_factory) -> Path:
    """A folder with eight of the sample crops: a random network reads 25 characters in each, which takes its time."""
    folder = tmp_path_factory.mktemp("crops")
    crops = sorted((Path(__file__).parents[1] / "export" / "sample_crops").glob("*.jpg"))
    for crop in crops[:: len(crops) // 8][:8]:
        (folder / crop.name).symlink_to(crop)
    return folder


@pytest.fixture(scope="session")
def tiny_bundle(golden_checkpoint, few_crops, tmp_path_factory) -> Path:
    """The golden tiny network as a float32 bundle. Read only: copy it before changing it."""
    from clip4str.export.bundles import build_bundle

    folder = tmp_path_factory.mktemp("bundles") / "tiny-fp32"
    return build_bundle(golden_checkpoint("tiny"), folder, min_agreement=0, sample_folder=few_crops)


@pytest.fixture(scope="session")
def oldest_triton() -> Path:
    """The folder, called by its version, of the oldest Triton that setup.py allows: `make setup` installs it aside."""
    root = Path(__file__).parents[1]
    aside = Path(os.environ.get("CLIP4STR_TRITONS", root / ".venv" / "triton"))
    wanted = re.search(r"triton>=([\d.]+)", (root / "setup.py").read_text(encoding="utf-8"))
    found = sorted(aside.glob(f"{wanted[1] if wanted else ''}*"))
    if not found:
        missing = f"no Triton of setup.py's least version under {aside}: make setup"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    return found[0]


@pytest.fixture
def write_lmdb() -> Callable[..., Path]:
    """write_lmdb(folder, [(image array or bytes, label), ...], without=(keys), num_samples=None) -> folder"""
    lmdb = pytest.importorskip("lmdb")

    def write(
        folder: Path,
        words: Sequence[tuple[np.ndarray | bytes, str | bytes]],
        without: Sequence[str] = (),
        num_samples: str | None = None,
    ) -> Path:
        folder.mkdir(parents=True)
        entries = {"num-samples": (str(len(words)) if num_samples is None else num_samples).encode()}
        for number, (image, label) in enumerate(words, 1):
            entries[f"image-{number:09d}"] = image if isinstance(image, bytes) else png(image)
            entries[f"label-{number:09d}"] = label if isinstance(label, bytes) else label.encode()
        environment = lmdb.open(str(folder), map_size=1 << 24)
        with environment.begin(write=True) as transaction:
            for key, value in entries.items():
                if key not in without:
                    transaction.put(key.encode(), value)
        environment.close()
        return folder

    return write


def png(image: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()
