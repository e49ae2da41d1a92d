"""Decoder passes by the compiled kernels (kernels/library) in the place of the visual and cross engines.

Where a bundle for a GPU has its decoders packed for them ("kernels": decoders.npz) and libclip4str_kernels.so is there
and serves this network and GPU. Masks are made inside, from a mode and `keep`; self-attention reads tables. Where
anything is missing, the engines decode. program.py sends all passes of a batch in one go; where it cannot, the driver
asks for one after the other, and captions are tokenised on the host, by words that it caches.
"""

from __future__ import annotations

import io
import os
import warnings
import zipfile
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np

from clip4str.core.errors import BackendError, BundleError, KernelError, first_line
from clip4str.core.masks import Rule

from ...bundle import KERNELS, Bundle, stage_shapes
from .engines import kv_types
from .memory import Buffer, Memory, Stream
from .replay import Graphs, Replay
from .stage_by_stage import chosen

_FLOAT32 = {"scores", "base", "head_bias"}  # of a decoder's arrays; the others are float16
_MOST_ENTRIES = 64


class Weights:
    """Packed decoders on the GPU. decoders: branch -> kernels.loader.Decoder."""

    def __init__(self, loader: Any, library: Any, decoders: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> None:
        self.loader, self.library, self.decoders, self.shapes = loader, library, decoders, shapes


def open_decoders(bundle: Bundle, visual_only: bool, stack: ExitStack, stream: Stream) -> Weights | None:
    """None where the engines have to decode, with a RuntimeWarning if the library is not there or does not fit.

    stack: gets what closes it. Raises BundleError for a damaged file, CudaOutOfMemory.
    """
    if KERNELS not in bundle.manifest.stages or kv_types(bundle.manifest) != ["HALF"]:
        return None
    from clip4str.kernels import loader

    try:
        path = loader.find_library()
    except BackendError as error:
        if os.environ.get(loader.VARIABLE) or not chosen():  # named, somebody meant it to be used
            _warn(error)
        return None
    branches = ("visual",) if visual_only else ("visual", "cross")
    arrays = _read(bundle, branches)
    with ExitStack() as mine:
        try:
            library = loader.KernelLibrary(path, network=str(arrays["network"]))
            mine.callback(library.close)
            memory = Memory(stream)
            mine.callback(memory.close)
            decoders = {branch: _upload(loader, arrays, branch, bundle, memory, stream) for branch in branches}
            weights = Weights(loader, library, decoders, _shapes(bundle, branches))
            _try(weights, stream)
        except (BackendError, KernelError) as error:
            _warn(error)
            return None
        stack.push(mine.pop_all())
    return weights


class Answer(NamedTuple):
    """Where a pass writes: addresses, see clip4str_decode_pass."""

    ids: int
    probs: int
    last: int
    unsettled: int


class Decoders:
    """Passes over static buffers, with a graph for each branch, mode and number of rows.

    buffers: by name, those that the stages before write; gets the missing ones.
    """

    def __init__(
        self, weights: Weights, stream: Stream, memory: Memory, graphs: Graphs, buffers: dict[str, Buffer], rows: int
    ) -> None:
        self._weights, self._stream, self._graphs = weights, stream, graphs
        self.rows, self.buffers = rows, buffers
        self._runs: dict[tuple[str, str, int], Replay] = {}
        first = next(iter(weights.decoders.values()))
        whole, real = np.dtype(np.int32), np.dtype(np.float32)
        kinds: dict[str, tuple[tuple[int, ...], np.dtype, bool]] = {
            "context": ((first.T,), whole, True), "keep": ((), whole, True), "limit": ((), whole, True),
            "ids": ((first.T,), whole, True), "probs": ((first.T,), real, True),
            "last": ((), whole, False), "unsettled": ((), whole, False), "logits": ((first.T, first.C), real, False),
            **{name: (shape, np.dtype(np.float16), False) for name, shape in weights.shapes.items()},
        }  # fmt: skip
        for name, (shape, dtype, shared) in kinds.items():
            if name not in buffers:
                buffers[name] = Buffer(stream, memory, shape, dtype, rows, shared)
        self._steps = first.T
        limit = buffers["limit"].host
        assert limit is not None
        limit[:] = first.T - 1
        size = max(weights.library.decode_pass_workspace(d, rows) for d in weights.decoders.values())
        if not size:
            raise BackendError(f"the compiled kernels do not take {rows} words of this network")
        self._workspace = memory.on_device(size), size

    def run(
        self, branch: str, tokens: np.ndarray, rule: Rule, rows: int, elsewhere: dict[str, int]
    ) -> dict[str, Buffer]:
        """Sends a pass; the buffers of its answer. elsewhere: addresses of keys and values that are not in theirs."""
        ids = np.zeros((len(tokens), self._steps), np.int32)
        ids[:, :-1] = tokens[:, 1:]  # position j of the content is the id before it
        self.buffers["context"].write(ids)
        self.buffers["keep"].write(np.minimum(rule.keep, self._steps - 1).astype(np.int32))
        if elsewhere:
            self._send(branch, rule.mode, rows, elsewhere)
        else:
            key = branch, rule.mode, rows
            if key not in self._runs:
                self._runs[key] = Replay(self._stream, self._graphs, branch, lambda: self._send(*key, {}))
            self._runs[key]()
        for name in ("context", "keep", "limit", "ids", "probs"):
            self.buffers[name].used()
        return self.buffers

    def _send(self, branch: str, mode: str, rows: int, elsewhere: dict[str, int]) -> None:
        at = {name: buffer.address for name, buffer in self.buffers.items()}
        kept = {name: elsewhere.get(name.partition(".")[2], at[name]) for name in self._weights.shapes}
        for name in ("context", "keep", "limit"):
            self.buffers[name].send(rows)
        self.launch(
            branch,
            mode,
            rows,
            kept,
            Answer(at["ids"], at["probs"], at["last"], at["unsettled"]),
            limit=at["limit"],
            ids=0 if mode == "start" else at["context"],
            keep=at["keep"] if mode == "cloze" else 0,
            logits=at["logits"],
        )
        for name in ("ids", "probs"):
            self.buffers[name].fetch(rows)

    def launch(
        self,
        branch: str,
        mode: str,
        rows: int,
        kept: dict[str, int],
        to: Answer,
        *,
        limit: int,
        ids: int = 0,
        keep: int = 0,
        logits: int = 0,
    ) -> None:
        """One pass, nothing copied. kept: addresses of keys and values, by the names of weights.shapes; the other
        arguments' are clip4str_decode_pass's."""
        memories = {}
        for name, shape in self._weights.shapes.items():
            if name.startswith(f"{branch}."):
                kind = "text" if name.endswith("text_kv") else "memory"
                memories[kind] = self._weights.loader.Memory(data=kept[name], length=shape[2])
        workspace, size = self._workspace
        self._weights.library.decode_pass(
            self._weights.decoders[branch],
            mode=mode,
            stream=self._stream.handle,
            **memories,
            n=rows,
            ids=ids,
            keep=keep,
            limit=limit,
            out_ids=to.ids,
            probs=to.probs,
            last=to.last,
            unsettled=to.unsettled,
            logits=logits,
            workspace=workspace,
            workspace_bytes=size,
        )


def _shapes(bundle: Bundle, branches: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """ "branch.tensor" -> shape of a row, for the keys and values that they read."""
    stages = stage_shapes(bundle.manifest)
    return {
        f"{branch}.{name}": tuple(int(size) for size in shape[1:])
        for branch in branches
        for name, shape in stages[branch].items()
        if name.endswith("_kv")
    }


def _read(bundle: Bundle, branches: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The arrays of these branches. Raises BundleError; reads no more than the file's own size, and no objects."""
    path = bundle.path(KERNELS)
    content = bundle.content(path.name)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            whole = sum(entry.file_size for entry in entries)
            if len(entries) > _MOST_ENTRIES or whole > len(content):
                raise ValueError("it unpacks to more than it is")
            if any(entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 for entry in entries):
                raise ValueError("it is compressed or encrypted")
            if "network.npy" not in archive.namelist():
                raise ValueError("it does not say which network it is of")
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            wanted = ("network", *(f"{branch}." for branch in branches))
            return {name: file[name] for name in file.files if name.startswith(wanted)}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, KeyError, NotImplementedError, MemoryError) as error:
        reason = first_line(error, 200)
        raise BundleError(f"{path}: damaged ({reason}); rebuild the bundle") from None


def _upload(
    loader: Any, arrays: dict[str, np.ndarray], branch: str, bundle: Bundle, memory: Memory, stream: Stream
) -> Any:
    """A loader.Decoder whose pointers are on the device. Raises BundleError for arrays of other shapes than meant."""
    c, path = bundle.manifest.config, bundle.path(KERNELS)
    T, d, h, C = c["steps"], c["d"], c["decoder_heads"], len(bundle.manifest.charset) + 1
    K, F = C + 2, arrays[f"{branch}.up_bias"].size if f"{branch}.up_bias" in arrays else 0
    shapes = {
        "scores": (T, K, h, 32), "values": (T, K, h, d), "base": (T, d), "query_weight": (d, d), "query_bias": (d,),
        "out_weight": (d, d), "out_bias": (d,), "up_weight": (F, d), "up_bias": (F,), "down_weight": (d, F),
        "down_bias": (d,), "head_weight": (C, d), "head_bias": (C,),
    }  # fmt: skip
    decoder = loader.Decoder(T=T, K=K, C=C, d=d, heads=h, F=F)
    for name, shape in shapes.items():
        array = arrays.get(f"{branch}.{name}")
        dtype = np.float32 if name in _FLOAT32 else np.float16
        if array is None or array.shape != shape or array.dtype != dtype:
            found = "missing" if array is None else f"{array.dtype} {array.shape}"
            raise BundleError(f"{path}: {branch}.{name} is {found}, the manifest means {np.dtype(dtype)} {shape}")
        address = memory.on_device(array.nbytes)
        stream.upload(address, array)
        setattr(decoder, name, address)
    return decoder


def _try(weights: Weights, stream: Stream) -> None:
    """One word through every branch: what the library does not serve shows here, not in the first request."""
    memory = Memory(stream)
    try:
        trial = Decoders(weights, stream, memory, Graphs(stream, False), {}, 1)
        steps = next(iter(weights.decoders.values())).T
        for branch in weights.decoders:
            trial.run(branch, np.zeros((1, steps), np.int32), Rule("start", np.zeros(1, int), steps), 1, {})
        stream.synchronise()
    finally:
        memory.close()


def _warn(error: Exception) -> None:
    what = "not using the compiled kernels, the engines decode stage by stage, slower"
    warnings.warn(f"{what}: {error}", RuntimeWarning, stacklevel=9)
