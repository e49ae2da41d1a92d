"""The torch backend: half precision, fused kernels and CUDA graphs on a GPU, the same code in plain torch on a CPU.

    weights    the network's weights, multiplied out where they can be
    towers     images and captions -> keys and values
    program    images -> words in a fixed number of passes, nothing asked of the host
    graphs     CUDA graphs of that program by batch size; runner: over which buffers; prepared: once its kernels are
               compiled
    stages     the same network in core/driver.py's four functions, for what the program leaves open
    backend    the two together
    plain      the network as it is, where it is larger than the kernels take
    inputs     pixels that are on the GPU already

Alone of all of runtime/ it imports torch, kernels/ and model/, and is imported only when it is chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from clip4str.core.cpu import available_threads
from clip4str.core.driver import PredictAndRefine
from clip4str.core.errors import CharsetError, UsageError
from clip4str.core.reading import Stages
from clip4str.kernels.limits import beyond_kernels
from clip4str.kernels.tokenize import TokenizerTables

from ...bundle import Bundle, Manifest, file_sha256
from ..contract import Backend, Options
from ..fixed_passes import Passes
from .backend import TorchBackend
from .device import PRECISION, choose_device, choose_dtype, gpu_is_usable
from .graphs import CudaGraphs
from .plain import PlainBackend, load_network
from .program import Program
from .stages import TorchStages
from .weights import Source, Weights, pack, source_of_bundle, source_of_model

__all__ = ["TorchBackend", "cpu_stages", "gpu_is_usable", "open_backend", "open_checkpoint"]

GPU_BATCH, CPU_BATCH = 64, 16


def open_checkpoint(
    path: Path,
    options: Options,
    verify: bool = True,
    image_size: tuple[int, int] | None = None,
    charset: str | None = None,
) -> tuple[Bundle, Source]:
    """A checkpoint in a bundle's place: what its manifest would say, and its weights.

    verify: note its sha256, so that reports name what was read. image_size, charset: where it does not tell its own.
    Raises CheckpointError and its kin, BackendError and UsageError for a device or dtype that cannot be.
    """
    dtype = choose_dtype(options.dtype, choose_device(options.device))
    from clip4str.model import load_checkpoint

    model = load_checkpoint(path, image_size, charset)
    manifest = Manifest(
        name=path.stem,
        config=model.config.to_dict(),
        charset=model.charset.characters,
        charset_test=model.charset.test,
        normalization="half",
        precision=PRECISION[dtype],
        max_batch=256,
        files={},
        stages={},
        checkpoint={"name": path.name, **({"sha256": file_sha256(path)} if verify else {})},
    )
    return Bundle(path.parent, manifest), source_of_model(model, str(path))


def open_backend(bundle: Bundle, driver: PredictAndRefine, options: Options, source: Source | None = None) -> Backend:
    """The backend over a bundle's weights, or over `source`.

    Raises BackendError (no such device, out of memory), BundleError, UsageError.
    """
    if options.providers is not None:
        raise UsageError("providers are ONNX Runtime's; the torch backend has device and dtype")
    device = choose_device(options.device)
    dtype, passes = choose_dtype(options.dtype, device), _passes(options.passes, driver.steps)
    threads = options.threads or (available_threads() if device.type == "cpu" else torch.get_num_threads())
    if options.threads is not None or threads < torch.get_num_threads():  # which knows of no quota
        torch.set_num_threads(threads)  # of the whole process: torch has no other
    source, visual_only = source or source_of_bundle(bundle), driver.decoding.branch == "visual"
    batch_size = options.batch_size or (GPU_BATCH if device.type == "cuda" else CPU_BATCH)
    if why := beyond_kernels(source.config):
        if passes is not None:
            raise UsageError(f"passes are those of the fused kernels, and {why}")
        return PlainBackend(load_network(source, dtype, device), batch_size)
    weights = pack(source, dtype, device, visual_only)
    layer = CudaGraphs(device) if options.graphs and device.type == "cuda" else None
    return TorchBackend(weights, make_program(weights, driver, passes), batch_size, layer, options.threads)


def cpu_stages(bundle: Bundle) -> Stages:
    """A bundle's weights as stages on the CPU in float32. Raises BundleError."""
    source, device = source_of_bundle(bundle), torch.device("cpu")
    if beyond_kernels(source.config):
        return PlainBackend(load_network(source, torch.float32, device), CPU_BATCH)
    return TorchStages(pack(source, torch.float32, device))


def make_program(weights: Weights, driver: PredictAndRefine, passes: Passes | None = None) -> Program | None:
    """None where the driver has to call the stages itself."""
    tables = None
    if driver.decoding.refine > 1:
        return None
    if driver.decoding.branch == "cross":
        try:
            tables = TokenizerTables.build(driver.tokenizer, driver.charset, weights.device)
        except CharsetError:
            return None  # captions of other characters are the host's to tokenize
    return Program(weights, tables, driver.decoding, passes)


def _passes(passes: Sequence[int] | None, steps: int) -> Passes | None:
    if passes is None:
        return None
    if not isinstance(passes, Sequence) or len(passes) != 2 or not all(isinstance(p, int) for p in passes):
        raise UsageError(f"passes are two numbers (visual, cross), not {passes!r}")
    visual, cross = passes
    if not 2 <= visual <= max(2, steps) or not 1 <= cross <= max(1, steps):
        raise UsageError(f"passes are 2 to {steps} visual and 1 to {steps} cross, not {visual} and {cross}")
    return Passes(visual, cross)
