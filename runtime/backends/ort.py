"""ONNX Runtime: the backend that runs everywhere."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from clip4str.core.cpu import available_threads, cpu_flags, weight_type
from clip4str.core.errors import BackendError, BundleError, first_line
from clip4str.core.masks import Rule
from clip4str.core.reading import Pass

from ..bundle import OUTPUTS, Bundle, stage_shapes
from ..onnx_files import External
from .contract import Backend

BATCH = 16
_KV_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class OrtBackend(Backend):
    """The four stage graphs as ONNX Runtime sessions; numpy arrays in and out.

    Keys and values are of the type that the bundle's precision gives them; others are converted.

    threads: None for all the cores this process may use. providers: ONNX Runtime execution providers in order of
    preference, None for CUDA where it is installed, else the CPU. visual_only: leave text and cross unloaded.
    batch_size: None for 16, at most what the bundle allows.

    Raises BackendError (onnxruntime missing, provider unknown), BundleError (a stage file it cannot run).
    """

    name = "onnxruntime"
    elsewhere: tuple[str, ...] = ()  # stages that a subclass runs otherwise

    def __init__(
        self,
        bundle: Bundle,
        threads: int | None = None,
        providers: Sequence[str] | None = None,
        visual_only: bool = False,
        batch_size: int | None = None,
    ) -> None:
        super().__init__(bundle.manifest.image_size, min(batch_size or BATCH, bundle.manifest.max_batch))
        try:
            import onnxruntime
        except ImportError as error:
            raise BackendError(f"onnxruntime cannot be imported ({error}); pip install onnxruntime") from None
        self.threads = threads or available_threads()
        _warn_if_unfit(bundle, 7 if self.elsewhere else 6)
        self.providers = _choose(onnxruntime.get_available_providers(), providers)
        self.on_gpu = "CUDAExecutionProvider" in self.providers
        self.survives_fork = self.threads == 1 and self.providers == ["CPUExecutionProvider"]  # no threads of its own
        # Largest first: a session needs its weights twice while it loads, so the peak comes when least is resident.
        names = ["image", "visual"] if visual_only else ["image", "text", "visual", "cross"]
        names = [name for name in names if name not in self.elsewhere]
        self._files: dict[str, bytes] = {}  # that graphs keep tensors in
        self._kept: list[Any] = []
        self._sessions = {name: self._open(onnxruntime, bundle, name) for name in names}
        self._files.clear()
        self._seen = [name for name in stage_shapes(bundle.manifest)["image"] if name in OUTPUTS["image"]]
        types = {value.name: value.type for value in self._sessions["visual"].get_inputs()}
        self._kv_type = _KV_TYPES.get(types["visual_kv"], np.float32)

    def _open(self, onnxruntime: Any, bundle: Bundle, stage: str) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.enable_cpu_mem_arena = False  # it keeps what threads ever took at once, and is no faster than malloc
        # Each session has its own pool: threads may spin between the operators of a run (5 % faster), but not on
        # into the next session's run, whose cores they would steal.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.add_session_config_entry("session.load_model_format", "ONNX")  # no other that bytes might look like
        if bundle.manifest.precision == "fp8":
            # Else it moves E4M3 to before operators that do not take it, and then refuses the graph.
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        path = bundle.path(stage)
        with bundle.graph(stage) as (source, elsewhere):
            try:
                values = [onnxruntime.OrtValue.ortvalue_from_numpy(self._array(bundle, tensor)) for tensor in elsewhere]
                if values:  # so that onnxruntime looks for no file; it reads them where they are
                    options.add_external_initializers([tensor.name for tensor in elsewhere], values)
                    self._kept += values
                session = onnxruntime.InferenceSession(source, options, providers=self.providers)
            except BundleError:
                raise
            except Exception as error:  # onnxruntime's exceptions share no base class
                raise BundleError(f"{path}: onnxruntime cannot run it ({first_line(error)})") from None
        session.disable_fallback()
        session._model_bytes = None  # which it keeps for the fallback, where it was given bytes
        found = {value.name: value.shape for value in (*session.get_inputs(), *session.get_outputs())}
        for name, shape in stage_shapes(bundle.manifest)[stage].items():
            if not fits(found.get(name), shape):
                raise BundleError(f"{path}: {name} is {found.get(name)}, the manifest means {shape}")
        return session

    def _array(self, bundle: Bundle, tensor: External) -> np.ndarray:
        """A tensor that lies in another file; each file is read once for all stages."""
        if tensor.location not in self._files:
            self._files[tensor.location] = bundle.content(tensor.location)
        return tensor.array(self._files[tensor.location])

    def _run(self, stage: str, outputs: Sequence[str], feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        session = self._sessions.get(stage)
        if session is None:
            raise BackendError("this recogniser was closed")
        try:
            return session.run(outputs, feed)
        except Exception as error:
            raise BackendError(f"the {stage} stage failed in onnxruntime ({first_line(error)})") from None

    def image(self, pixels: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(self._run("image", self._seen, {"pixels": pixels}))

    def visual(self, tokens: np.ndarray, rule: Rule, visual_kv: np.ndarray) -> Pass:
        return self._pass("visual", tokens, rule, visual_kv=visual_kv)

    def text(self, bpe: np.ndarray) -> np.ndarray:
        return self._run("text", ["text_kv"], {"bpe": bpe})[0]

    def cross(self, tokens: np.ndarray, rule: Rule, cross_kv: np.ndarray, text_kv: np.ndarray) -> Pass:
        return self._pass("cross", tokens, rule, cross_kv=cross_kv, text_kv=text_kv)

    def _pass(self, stage: str, tokens: np.ndarray, rule: Rule, **memory: np.ndarray) -> Pass:
        memory = {name: kv.astype(self._kv_type, copy=False) for name, kv in memory.items()}
        feed = {"tokens": tokens, "attend": rule.mask(tokens.shape[1]), **memory}
        return Pass(*self._run(stage, OUTPUTS[stage], feed))

    def close(self) -> None:
        self._sessions, self._kept = {}, []

    def stack(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        return np.stack(rows)


def _warn_if_unfit(bundle: Bundle, level: int) -> None:
    """level: frames from here to the caller of Recognizer.load, which the warning names."""
    how = bundle.manifest.quantization
    if (how.get("target"), how.get("weights")) == ("cpu", "s8") and weight_type(cpu_flags()) == "u8":
        warnings.warn(
            f"{bundle.folder} was quantised for processors with VNNI, which this one lacks: its sums overflow and "
            "words may be misread; build it here, with --int8",
            RuntimeWarning,
            stacklevel=level,
        )


def fits(found: Sequence[Any] | None, wanted: Sequence[int | str]) -> bool:
    """Same rank, and the same numbers where both have numbers: names stand for any size."""
    if found is None or len(found) != len(wanted):
        return False
    return all(a == b for a, b in zip(found, wanted) if isinstance(a, int) and isinstance(b, int))


def _choose(available: Sequence[str], wanted: Sequence[str] | None) -> list[str]:
    if wanted is None:
        return [p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p in available]
    names = [p if p.endswith("ExecutionProvider") else f"{p}ExecutionProvider" for p in wanted]
    by_lower = {p.lower(): p for p in available}
    unknown = [p for p in names if p.lower() not in by_lower]
    if unknown:
        raise BackendError(f"onnxruntime has no {', '.join(unknown)} here; it has: {', '.join(available)}")
    return [by_lower[p.lower()] for p in names]
