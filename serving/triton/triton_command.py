"""`clip4str serve triton [BUNDLE] --output repo/`: a model repository for NVIDIA's Triton Inference Server."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from clip4str.core.console import Parser
from clip4str.core.errors import UsageError
from clip4str.runtime.bundle import Bundle
from clip4str.runtime.default_bundle import default_bundle
from clip4str.runtime.what_is import is_checkpoint_file

from .options import BACKENDS, QUEUES, Serving
from .repository import add_version, largest_batch, write_repository

FORMS = ("python", "onnx", "plan")
_DESCRIPTION = """\
Write a model repository for NVIDIA's Triton Inference Server, with the bundle in it. docs/serving.md says what goes in
and out, and how to run it.
"""
_EPILOG = """\
examples:
  clip4str serve triton bundles/my-fp16 --output repo                 one instance on the CPU, batches of up to 16
  clip4str serve triton bundles/my-fp16 --output repo --gpus 0,1 --backend tensorrt --instances 2
  clip4str serve triton bundles/better --output repo --add            the model's next version
  clip4str serve triton --output repo --form onnx                     an ensemble without Python
"""


def main(argv: Sequence[str]) -> int:
    o = _parser().parse_args(argv)
    folder, target = Path(o.bundle) if o.bundle else default_bundle(), Path(o.output)
    if is_checkpoint_file(folder):
        raise UsageError(f"{folder} is a checkpoint; build a bundle first: clip4str build {folder}")
    given = {name: getattr(o, name) for name in vars(Serving()) if getattr(o, name) is not None}
    if o.add:
        wrong = [f"--{name.replace('_', '-')}" for name in [*given, *(["form"] if o.form else [])]]
        if wrong or o.force:
            also = ", ".join(wrong) or "--force"
            raise UsageError(
                f"--add takes a bundle and --output alone, not {also}: config.pbtxt stays, and may be edited"
            )
        add_version(Bundle.open(folder), target, print)
        return 0
    bundle = Bundle.open(folder)
    most = largest_batch(bundle, o.backend or "auto")
    serving = Serving(**{"max_batch": min(Serving().max_batch, most), **given})
    serving.check()
    form = o.form or "python"
    if (form == "plan") != (o.plan is not None):
        raise UsageError("--form plan and --plan FILE go together: the engine of a file of clip4str export --passes")
    if form == "python":
        write_repository(bundle, target, serving, o.force, print)
    else:
        from .graph_repository import write_graphs

        write_graphs(bundle, target, serving, o.force, Path(o.plan) if o.plan else None, print)
    return 0


def _gpus(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.isascii() and part.isdecimal() and len(part) < 4 for part in parts):
        raise UsageError(f"--gpus are numbers, such as 0,1, not {text!r}")
    return tuple(map(int, parts))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="clip4str serve triton", description=_DESCRIPTION, epilog=_EPILOG,
                    formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    default, add = Serving(), parser.add_argument
    add(
        "bundle",
        nargs="?",
        metavar="BUNDLE",
        help="default: $CLIP4STR_BUNDLE, else the newest in ./bundles, else the packaged network",
    )
    add("--output", required=True, metavar="DIR", help="the repository to write: --model-repository of the server")
    add("--force", action="store_true", help="replace a repository that is there")
    add("--add", action="store_true", help="the bundle becomes the next version of the model that is there")
    add("--form", choices=FORMS, help="python: a Recognizer, any backend (default); onnx: graphs on ONNX Runtime, "
        "without Python; plan: the network as a TensorRT engine, likewise")  # fmt: skip
    add("--plan", metavar="FILE", help="of --form plan: made by trtexec of a file of clip4str export --passes")
    add("--name", help=f"of the model (default {default.name})")
    group = parser.add_argument_group("placing")
    add = group.add_argument
    add("--backend", choices=BACKENDS, help="that reads (default auto: the best that there is)")
    add("--gpus", type=_gpus, metavar="N,N", help="on these GPUs (default: on the CPU)")
    add("--instances", type=int, metavar="N", help="processes that hold the network, on each (default 1)")
    add("--threads", type=int, metavar="N", help="of the CPU for each (default: an even share of the server's)")
    add("--keep", type=int, metavar="N", help="versions that are served at a time (default 1, the newest)")
    group = parser.add_argument_group("batching and queueing")
    add = group.add_argument
    add("--max-batch", type=int, metavar="N", help=f"pictures read at once (default {default.max_batch})")
    add("--delay-ms", type=float, metavar="MS", help="that a picture waits for others to be read with it "
        f"(default {default.delay_ms:g})")  # fmt: skip
    add("--queue", type=int, metavar="N", help="requests that wait; more are refused at once (default: "
        f"{QUEUES} times the batch)")  # fmt: skip
    add("--timeout-ms", type=int, metavar="MS", help="that one waits, then it is refused "
        f"(default {default.timeout_ms})")  # fmt: skip
    return parser
