"""What model.py of a repository imports: Triton's Python backend over a Recognizer.

The server runs each instance in a process of its own, which calls `initialize` once and then `execute` with the
requests of a batch, in one thread.
"""

from __future__ import annotations

import _thread
import builtins
import json
import threading
import traceback
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clip4str.core.cpu import available_threads
from clip4str.core.errors import BackendError, Clip4StrError, first_line, one_line
from clip4str.runtime import Recognizer, Word
from clip4str.serving.versions import bundle_version

from .reading import Failed, Words, read_requests
from .triton_request import Asked, asked, said

BUNDLE = "bundle"  # folder beside model.py


class TritonPythonModel:
    """Its name and methods are the Python backend's."""

    def initialize(self, args: Mapping[str, str]) -> None:
        import triton_python_backend_utils  # the server's: there only in its process

        self._server = triton_python_backend_utils
        folder = Path(args["model_repository"]) / args["model_version"]
        try:
            with warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("always", RuntimeWarning)
                check_numpy()
                self.recognizer = open_recognizer(folder / BUNDLE, json.loads(args["model_config"]), args)
                self.recognizer.warm_up()
        except Exception as error:
            if not isinstance(error, Clip4StrError):
                self._server.Logger.log_error(traceback.format_exc())
            kind = "" if isinstance(error, Clip4StrError) else f"{type(error).__name__}: "
            line = f"{kind}{first_line(error)}".replace(f"{folder}/", "")
            raise _without_frames(self._server.TritonModelException(line)) from None
        for warning in warned:
            self._server.Logger.log_warn(one_line(warning.message))
        self.version = bundle_version(self.recognizer.manifest)
        self._server.Logger.log_info(f"{self.version} on {type(self.recognizer.backend).__name__}, "
                                     f"threads: {self.recognizer.backend.threads}")  # fmt: skip

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """A response for each request: its words, or its own error."""
        answers: list[Asked | Words | Failed] = []
        for request in requests:
            try:
                answers.append(self._asked(request))
            except Exception as error:
                self._log(error)
                answers.append(Failed(said(error)))
        wanted = [n for n, answer in enumerate(answers) if isinstance(answer, Asked)]
        for n, answer in zip(wanted, read_requests(self.recognizer, [answers[n] for n in wanted], self._log)):  # type: ignore[misc]
            answers[n] = answer
        return [self._response(request, answer) for request, answer in zip(requests, answers)]

    def finalize(self) -> None:
        self.recognizer.close()

    def _asked(self, request: Any) -> Asked:
        tensors = {}
        for name in ("image", "pixels", "quads"):
            tensor = self._server.get_input_tensor_by_name(request, name)
            tensors[name] = None if tensor is None else tensor.as_numpy()
        return asked(**tensors, parameters=request.parameters())

    def _log(self, error: Exception) -> None:
        """What is no caller's fault goes into the server's log, and no further."""
        if said(error).startswith("InternalError"):
            lines = traceback.format_exception(type(error), error, error.__traceback__)
            self._server.Logger.log_error("".join(lines))

    def _response(self, request: Any, answer: Any) -> Any:
        error, respond = self._server.TritonError, self._server.InferenceResponse
        if not isinstance(answer, Failed):
            try:
                outputs, wanted = output_arrays(answer, self.version), request.requested_output_names()
                return respond([self._server.Tensor(name, outputs[name]) for name in wanted if name in outputs])
            except Exception as problem:  # one that left `execute` would be the whole batch's, with its traceback
                self._log(problem)
                answer = Failed(said(problem))
        internal = str(answer).startswith("InternalError")
        return respond(error=error(str(answer), error.INTERNAL if internal else error.INVALID_ARG))


def output_arrays(words: Sequence[Sequence[Word]], version: str) -> dict[str, np.ndarray]:
    """The outputs of pbtxt.OUTPUTS, of pictures with the same number of words each."""
    shape = len(words), max(map(len, words), default=0)
    flat = [word for of_picture in words for word in of_picture]
    longest = max((len(word.char_confidences) for word in flat), default=0)
    chars = np.zeros((len(flat), longest), np.float32)
    for row, word in zip(chars, flat):
        row[: len(word.char_confidences)] = word.char_confidences
    return {
        "text": _strings([word.text for word in flat], shape),
        "confidence": np.array([word.confidence for word in flat], np.float32).reshape(shape),
        "char_confidence": chars.reshape(*shape, longest),
        "hint": _strings([word.hint for word in flat], shape),
        "bundle": _strings([version] * len(words), (len(words), 1)),
    }


def _strings(texts: Sequence[str], shape: tuple[int, int]) -> np.ndarray:
    array = np.empty(len(texts), object)
    array[:] = [text.encode() for text in texts]
    return array.reshape(shape)


def open_recognizer(folder: Path, config: Mapping[str, Any], args: Mapping[str, str]) -> Recognizer:
    """config: the server's, as JSON has it. args: of this instance. Raises Clip4StrError."""
    own = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
    backend, threads = own.get("backend", "auto"), own.get("threads", "auto")
    device = None
    if args["model_instance_kind"] == "GPU":
        device = f"cuda:{args['model_instance_device_id']}"
    elif backend in ("auto", "onnxruntime"):
        backend = "onnxruntime"  # an instance on the CPU stays there, whatever the machine has
    elif backend == "torch":
        device = "cpu"
    else:
        raise BackendError(f"{backend} needs a GPU: an instance_group of KIND_GPU in config.pbtxt")
    share = max(1, available_threads() // instances_of(config))
    return Recognizer.load(folder, backend, threads=share if threads == "auto" else int(threads), device=device,
                           batch_size=config["max_batch_size"] or None)  # fmt: skip


def check_numpy(version: str = np.__version__) -> None:
    """A Python backend whose pybind11 is older than numpy 2 (its internals are of version 4) hands encoded pictures
    over as their first byte, again and again, and dies of it. Raises BackendError."""
    older = any(name.startswith("__pybind11_internals_v4") for name in vars(builtins))
    if older and int(version.partition(".")[0]) >= 2:
        raise BackendError(f"this server's Python backend is older than numpy {version}: its Python needs 'numpy<2'")


def instances_of(config: Mapping[str, Any]) -> int:
    """Processes of the model on this machine."""
    groups = config.get("instance_group", [])
    return max(1, sum(int(group.get("count", 1)) * max(1, len(group.get("gpus", []))) for group in groups))


def _without_frames(error: Exception) -> Exception:
    """The error as if it came from nowhere. What crosses into C++ is given the names of the files that it came through,
    the innermost and those that called it: here one that nobody called, of a thread of its own."""
    done = threading.Lock()
    done.acquire()
    code = compile("try: raise error\nexcept Exception: done.release()", "clip4str", "exec")
    _thread.start_new_thread(exec, (code, {"error": error, "done": done}))
    done.acquire()
    return error
