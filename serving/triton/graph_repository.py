"""A repository without Python: the single file of docs/single-file.md on Triton's ONNX Runtime or TensorRT backend, the
resize in front of it, and an ensemble of them.

The resize is a model of its own: the server reads requests together whose tensors are of one shape, and pictures are
not. Behind it they are.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from clip4str.core.errors import UsageError
from clip4str.export.atomic_folder import atomic_folder
from clip4str.runtime.bundle import Bundle
from clip4str.serving.versions import bundle_version

from .options import Serving
from .pbtxt import Tensor, ensemble_config, graph_config
from .repository import KIND, MARK, write_mark

Say = Callable[[str], object]

_PICTURES = Tensor("pixels", "UINT8", (-1, -1, 3), "pictures (H, W, 3), RGB; those of a request of one size")
_TEXT = Tensor("text", "STRING", (1,), "the word")
_BUNDLE = Tensor("bundle", "STRING", (1,), "which network answered")
_SETTLED = Tensor("settled", "BOOL", (1,), "is it surely what the bundle reads? docs/single-file.md")


def write_graphs(bundle: Bundle, target: Path, serving: Serving, force: bool, plan: Path | None, say: Say) -> None:
    """All of it or none. plan: the engine of a fixed form, None for ONNX Runtime. Raises Clip4StrError, OSError."""
    _check(bundle, serving, plan)
    from clip4str.export.single_file.around import RESIZED, write_resize, write_texts
    from clip4str.export.single_file.export_command import export_bundle
    from clip4str.export.single_file.write import Options

    m, name = bundle.manifest, serving.name
    steps, (height, width) = m.config["steps"], m.image_size
    resized = Tensor(RESIZED, "FP32", (3, height, width))
    pixels = Tensor("pixels", "FP32", (3, height, width))
    ids, probs = Tensor("ids", "INT32", (steps,)), Tensor("probs", "FP32", (steps,), "of its characters and its end")
    confidence, length = Tensor("confidence", "FP32", (1,), "0 to 1"), Tensor("length", "INT32", (1,))
    words = [ids, probs, *map(_plain, (confidence, length, _SETTLED))]
    steps_taken = [
        (f"{name}_resize", {"pixels": "pixels"}, {RESIZED: RESIZED, "bundle": "bundle"}),
        (f"{name}_words", {"pixels": RESIZED}, {"ids": "ids", "probs": "probs", "length": "length",
                                                "confidence": "confidence", "settled": "settled"}),
    ]  # fmt: skip
    if plan:
        steps_taken.append((f"{name}_text", {"ids": "ids"}, {"text": "text"}))
    else:
        steps_taken[1][2]["text"] = "text"
    batch, on_cpu = serving.max_batch, Serving(instances=serving.instances)
    with atomic_folder(target, force, MARK, KIND) as folder:

        def model(suffix: str, config: str) -> Path:
            (folder / f"{name}{suffix}" / "1").mkdir(parents=True)
            (folder / f"{name}{suffix}" / "config.pbtxt").write_text(config, encoding="utf-8")
            return folder / f"{name}{suffix}" / "1"

        # on the CPU also beside GPUs: its products must not be rounded to TF32, and its work is small
        config = graph_config(f"{name}_resize", "onnxruntime", on_cpu, [_PICTURES], [resized, _plain(_BUNDLE)], batch,
                              threads=1, queue=False)  # fmt: skip
        write_resize(model("_resize", config) / "model.onnx", m, bundle_version(m))
        if plan:
            config = graph_config(f"{name}_words", "tensorrt", serving, [pixels], words, batch)
            shutil.copyfile(plan, model("_words", config) / "model.plan")
            config = graph_config(f"{name}_text", "onnxruntime", on_cpu, [ids], [_plain(_TEXT)], batch, threads=1,
                                  queue=False)  # fmt: skip
            write_texts(model("_text", config) / "model.onnx", m)
        else:
            threads = None if serving.gpus else serving.threads
            config = graph_config(
                f"{name}_words", "onnxruntime", serving, [pixels], [*words, _plain(_TEXT)], batch, threads
            )
            compared: list[str] = []
            export_bundle(
                bundle.folder, model("_words", config) / "model.onnx", Options(strings=True), say=compared.append
            )
            say(compared[0])
        outputs = [_TEXT, confidence, _SETTLED, probs, ids, length, _BUNDLE]
        config = ensemble_config(name, [_PICTURES], outputs, steps_taken, batch)
        # a version's folder has to be there, and empty ones do not survive object stores
        (model("", config) / "README").write_text("An ensemble has no file of its own.\n", encoding="utf-8")
        write_mark(folder, name, "plan" if plan else "onnx")
    if plan:
        say(f"{plan}: taken for an engine of this bundle, for up to {batch} pictures; nothing in it says so")
    say(f"{target}: ensemble {name}, version 1 is {bundle_version(m)}")


def _plain(tensor: Tensor) -> Tensor:
    return Tensor(tensor.name, tensor.type, (1,), tensor.comment, plain=True)


def _check(bundle: Bundle, serving: Serving, plan: Path | None) -> None:
    if serving.backend != "auto" or serving.keep != 1:
        raise UsageError("--backend and --keep are for --form python: an ensemble's graphs run where their form says")
    if plan is not None and not serving.gpus:
        raise UsageError("--form plan needs a GPU: --gpus 0")
    if plan is not None and not plan.is_file():
        raise UsageError(f"{plan}: no such file")
    if plan is not None and serving.threads is not None:
        raise UsageError("--threads are ONNX Runtime's; an engine has none")
    if plan is None and not serving.gpus and serving.instances > 1 and serving.threads is None:
        raise UsageError(f"--instances {serving.instances} of graphs would each take all cores: name their --threads")
    if plan is None and serving.max_batch > bundle.manifest.max_batch:
        raise UsageError(
            f"--max-batch {serving.max_batch}: the bundle was built for {bundle.manifest.max_batch} images"
        )
