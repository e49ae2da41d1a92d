"""The TensorRT backend: a bundle's engines on an NVIDIA GPU, without torch. The same code for TensorRT 10.3 (JetPack 6)
to 11.4 and for TensorRT-RTX.

    library    which TensorRT, its complaints, and whether it and the GPU are those that the engines were built for
    engines    engine files, checked tensor by tensor; engine stages over buffers
    memory     allocations, the stream, buffers with a pinned twin on the host
    rows       keys and values that stay on the GPU; slots for captions
    replay     CUDA graphs
    inputs     pixels that are on the GPU already
    crops      words cut out of frames, and pictures, by the compiled kernels, straight into the image engine's input
    pictures   pictures on their way to the GPU, for the compiled kernels to resize
    frames     what a backend does with frames
    fused      decoders by the compiled kernels in the engines' place
    one_launch what it takes to read a batch in one launch, and whether it is here; program: what is sent then
    stage_by_stage is it chosen to do without the compiled kernels, and what is said where it is not
    session    all of it together, and the order in which it is let go of
    backend    the stage functions of core/driver.py, and `read`

CUDA itself is runtime/cuda. Engine files are programs: TensorRT runs what is in them, so use only those that you or
someone you trust has built.
"""

from __future__ import annotations

from clip4str.core.driver import PredictAndRefine

from ...bundle import Bundle
from ..contract import Options
from .backend import TrtBackend
from .stage_by_stage import why as why_stage_by_stage

__all__ = ["TrtBackend", "open_backend", "why_stage_by_stage"]


def open_backend(bundle: Bundle, driver: PredictAndRefine, options: Options) -> TrtBackend:
    """The backend over a bundle's engines. options: device, batch_size (at most what the engines take), graphs.

    Raises BackendError (TensorRT, CUDA or the GPU is missing or not the one that the engines are for, out of memory),
    BundleError (engines that are not what the manifest means), UsageError (switches in the environment that are none).
    """
    return TrtBackend(bundle, driver, options)
