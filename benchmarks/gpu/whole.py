"""The whole on the device: words against the float32 network's, batch and graph and thread independence."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clip4str.benchmarks.gpu.device import Gpu
from clip4str.benchmarks.gpu.networks import golden_network, random_pixels
from clip4str.benchmarks.gpu.supervisor import Reporter
from clip4str.core.driver import PredictAndRefine
from clip4str.model import Clip4Str

_CROPS = Path(__file__).resolve().parents[2] / "export" / "sample_crops"
AGREEMENT = 0.995  # of words with the float32 network's, on crops that the network can read
_RANDOM_AGREEMENT = {torch.float32: 0.97, torch.float16: 0.7, torch.bfloat16: 0.3}  # random weights: hardly any margins


class Reader:
    """The torch backend over a network in memory."""

    def __init__(self, gpu: Gpu, model: Clip4Str, dtype: torch.dtype, graphs: bool = True) -> None:
        from clip4str.benchmarks.gpu.fused import fused
        from clip4str.runtime.backends.pytorch.backend import TorchBackend
        from clip4str.runtime.backends.pytorch.graphs import CudaGraphs
        from clip4str.runtime.backends.pytorch.program import Program

        weights, tables = fused(model, dtype, gpu.device)
        self.driver = PredictAndRefine(model.charset, model.tokenizer, model.config.steps)
        layer = CudaGraphs(gpu.device) if graphs and gpu.kind == "cuda" else None
        self.backend = TorchBackend(weights, Program(weights, tables, self.driver.decoding), 256, layer)

    def __call__(self, pixels: Tensor) -> tuple[list[str], np.ndarray]:
        reading = self.backend.read(self.driver, pixels)
        return [self.driver.charset.decode(row) for row in reading.ids], reading.probs


def whole(gpu: Gpu, report: Reporter) -> None:
    quick = gpu.kind == "cpu"
    torch.backends.cudnn.allow_tf32 = False
    model, golden = golden_network("tiny" if quick else "base16")
    model = model.to(gpu.device).requires_grad_(False)
    golden = {name: values[: 4 if quick else None] if values.ndim else values for name, values in golden.items()}
    images = torch.from_numpy(golden["images"]).to(gpu.device).permute(0, 3, 1, 2).float() / 127.5 - 1
    pixels = torch.cat((images, random_pixels(model.config, 4 if quick else 120, gpu.device, seed=int(golden["seed"]))))
    reference = _reference_words(model, pixels)
    report.values["golden"] = {"words": len(pixels)}
    report.attempt("golden network, float32 reference", 0, _golden_text, report, reference, golden["text"])
    for dtype in gpu.dtypes:
        given = (gpu, report, model, dtype, pixels, reference, _RANDOM_AGREEMENT[dtype], "golden")
        report.attempt(f"golden network in {dtype}", gpu.least(5), _agree, *given)
        gpu.free()
    half = report.attempt("a reader", gpu.least(3), Reader, gpu, model, gpu.half)
    for name, test in (("batch", _batch_independent), ("graph", _graph_equals_eager), ("threads", _threads)):
        if half is not None:
            report.attempt(name, gpu.least(3), test, gpu, report, half, model, pixels)
    del half, model
    gpu.free()
    try:
        importlib.import_module("PIL.Image")
        importlib.import_module("safetensors")
    except ImportError as error:
        report.skip("the bundled network on its sample crops", str(error))
    else:
        report.attempt("bundled network", gpu.least(5), _bundled, gpu, report, quick)
    torch.backends.cudnn.allow_tf32 = True


def _reference_words(model: Clip4Str, pixels: Tensor) -> list[str]:
    return [model.charset.decode(row) for part in pixels.split(64) for row in model.read(part).ids]


def _golden_text(report: Reporter, reference: Sequence[str], text: np.ndarray) -> None:
    """The published code's own answers, from tests/golden."""
    same = sum(a == str(b) for a, b in zip(reference, text))
    report.values["golden"]["published"] = {"words": len(text), "same": same}
    if same < len(text):
        report.fail("float32 reference", f"reads {same} of {len(text)} golden images as the published code did")


def _agree(
    gpu: Gpu,
    report: Reporter,
    model: Clip4Str,
    dtype: torch.dtype,
    pixels: Tensor,
    reference: Sequence[str],
    least: float,
    name: str,
) -> None:
    words, probs = Reader(gpu, model, dtype)(pixels)
    same = sum(a == b for a, b in zip(words, reference)) / len(reference)
    report.values[name][str(dtype).removeprefix("torch.")] = round(same, 4)
    if not np.isfinite(probs).all() or same < least:
        report.fail(f"{name} network in {dtype}", f"agrees with float32 on {same:.2%} of words, expected {least:.1%}")


def _batch_independent(gpu: Gpu, report: Reporter, reader: Reader, model: Clip4Str, pixels: Tensor) -> None:
    """Rows of one batch in another order: the same to the bit. Alone: the same words."""
    some = pixels[:8]
    words, probs = reader(some)
    turned, turned_probs = reader(some.flip(0))
    if turned[::-1] != words or not np.array_equal(turned_probs[::-1], probs):
        report.fail("batch independence", "a row's answer depends on its place in the batch")
    alone = [reader(row[None])[0][0] for row in some]
    same = sum(a == b for a, b in zip(alone, words))
    report.values["batch"] = {"rows": len(words), "same_alone": same}
    if same < len(words) - 1:  # kernels are chosen by the number of rows: random weights may flip a character
        report.fail("batch independence", f"{len(words) - same} of {len(words)} words differ when read alone")


def _graph_equals_eager(gpu: Gpu, report: Reporter, reader: Reader, model: Clip4Str, pixels: Tensor) -> None:
    """The same bucket, with and without a graph; the graph twice, with something else between."""
    eager = Reader(gpu, model, gpu.half, graphs=False)
    for n in (1, 4):
        expected, first = eager(pixels[:n]), reader(pixels[:n])
        reader(pixels[n : 2 * n])
        second = reader(pixels[:n])
        if first[0] != second[0] or not np.array_equal(first[1], second[1]):
            report.fail("graphs", f"two replays at batch {n} differ")
        if first[0] != expected[0] or not np.allclose(first[1], expected[1], atol=1e-3):
            report.fail("graphs", f"a replay at batch {n} differs from eager")
    report.values["graph"] = "compared"


def _threads(gpu: Gpu, report: Reporter, reader: Reader, model: Clip4Str, pixels: Tensor) -> None:
    """Four threads, each on a stream of its own, sharing one reader: each gets its own answers."""
    parts = [pixels[i : i + 3] for i in range(4)]
    expected, wrong = [reader(part) for part in parts], []

    def work(i: int) -> None:
        try:
            with gpu.streams():
                for _ in range(1 if gpu.kind == "cpu" else 5):
                    words, probs = reader(parts[i])
                    if words != expected[i][0] or not np.array_equal(probs, expected[i][1]):
                        wrong.append(f"thread {i} read {words}, expected {expected[i][0]}")
        except Exception as error:
            wrong.append(f"thread {i}: {type(error).__name__}: {error}")

    threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        if thread.is_alive():
            wrong.append("a thread hangs")
    report.values["threads"] = {"threads": 4, "wrong": len(wrong)}
    if wrong:
        report.fail("threads and streams", wrong[0][:300])


def _bundled(gpu: Gpu, report: Reporter, quick: bool) -> None:
    """The bundled network on its sample crops and on shifted, dimmed copies of them: a trained network's margins."""
    from clip4str.model import load_checkpoint
    from clip4str.model.checkpoint import BUNDLED
    from clip4str.runtime.images import load_image, prepare

    model = load_checkpoint(BUNDLED).to(gpu.device).requires_grad_(False)
    images: list[Any] = [np.asarray(load_image(path)) for path in sorted(_CROPS.glob("*.jpg"))[: 4 if quick else None]]
    crops = [image[i % 3 :, i % 5 :] // 8 * (8 - i % 3) for i in range(1 if quick else 16) for image in images]
    pixels = torch.from_numpy(prepare(crops, model.config.image_size, "half")).to(gpu.device)
    reference = _reference_words(model, pixels)
    report.values["bundled"] = {"words": len(crops)}
    for dtype in gpu.dtypes:
        least = AGREEMENT if dtype != torch.bfloat16 else 0.9
        _agree(gpu, report, model, dtype, pixels, reference, least, "bundled")
