"""Checkpoint -> bundle: `python export/build_engine.py [CHECKPOINT]`, or `clip4str build`.

bundles.py makes ONNX bundles of checkpoints, and needs torch; add_engines.py adds TensorRT engines, and does not.
"""

from __future__ import annotations

import argparse
import importlib
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clip4str.core.charset_file import read_charset
from clip4str.core.console import fail
from clip4str.core.errors import BackendError, Clip4StrError, ParityError, UsageError
from clip4str.export.build_options import PROGRAM, build_parser
from clip4str.export.engines import (
    EngineOptions,
    check_precision,
    choose_target,
    trtexec_commands,
    why_no_engines,
)
from clip4str.runtime.backends.trt.stage_by_stage import lacks_decoders
from clip4str.runtime.bundle import EIGHT_BITS, Bundle
from clip4str.runtime.what_is import is_checkpoint_file


def main(argv: Sequence[str] | None = None) -> int:
    """The command. 0: written; 2: an error, said in one line; 130: interrupted."""
    done: list[str] = []
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        options = build_parser().parse_args(words)
        start = time.perf_counter()
        with _terminated_is_interrupted():
            _build(options, done, words)
    except KeyboardInterrupt:
        left = f"{done[0]} is whole, but without new engines" if done else "nothing was written"
        print(f"{PROGRAM}: interrupted, {left}", file=sys.stderr)
        return 130
    except OSError as error:
        return fail("build", f"{error.filename or 'output'}: {error.strerror or error}")
    except Clip4StrError as error:
        finished = len(done) == 2 and isinstance(error, (BackendError, ParityError))  # but for the engines
        again = _without(done[1], getattr(error, "option", "")) if finished else ""
        return fail("build", f"{error}; {done[0]} is whole, to build its engines: {again}" if finished else error)
    except MemoryError:
        return fail("build", "not enough memory")
    if not options.trtexec:
        print(f"{done[0]} is ready, after {time.perf_counter() - start:.0f} s")
    return 0


def _without(command: str, option: str) -> str:
    """The command but for an option and its value: it would fail as before."""
    words = shlex.split(command)
    if option in words:
        place = words.index(option)
        del words[place : place + 2]
    return shlex.join(words)


def _build(o: argparse.Namespace, done: list[str], words: Sequence[str]) -> None:
    """words: the command's. done: gets the bundle's folder as soon as it is whole, and where engines are wanted the
    command for them."""
    is_bundle = o.checkpoint is not None and not is_checkpoint_file(Path(o.checkpoint)) and Path(o.checkpoint).is_dir()
    if is_bundle:
        Bundle.open(o.checkpoint, verify=False, later=True)  # is it one?
    target = choose_target(o.target, o.precision, is_bundle)
    engines = _engine_options(o, target)
    if engines is not None and o.precision is not None:
        check_precision(o.precision, engines, here=not (o.no_engines or o.trtexec))
    detail = _print if o.verbose else lambda _: None
    if o.max_accuracy_drop is not None and o.precision not in EIGHT_BITS:
        raise UsageError("--max-accuracy-drop is for --int8 and --fp8")
    if o.min_agreement is not None and not 0 <= o.min_agreement <= 1:
        raise UsageError(f"the agreement wanted is a share from 0 to 1, not {o.min_agreement:g}")
    if o.single_file is not None:
        _single_file(None, o)
    if is_bundle:
        folder = Path(o.checkpoint)
        _refuse_checkpoint_options(o)
        if engines is None and o.single_file is None:
            found = f" (auto: {why_no_engines()})" if o.target == "auto" else ""
            raise UsageError(
                f"{folder} is a bundle: name what its engines are for, --target tensorrt or tensorrt-rtx{found}"
            )
    else:
        folder = _from_checkpoint(o, target)
    done.append(_shown(folder))
    if o.single_file is not None:
        _single_file(folder, o)
    if engines is None:
        if o.target == "auto" and o.precision in ("fp16", "fp8"):
            print(f"no engines: {why_no_engines()}; {_way_to_engines(folder, done[0], words)}")
        return
    done.append(engines.command(done[0]))
    if o.trtexec:
        for line in trtexec_commands(folder, Bundle.open(folder, verify=False).manifest, engines):
            print(line)
        return
    if o.no_engines:
        print(f"engines left out; on the machine that will run them: {done[1]}")
        return
    from clip4str.export.add_engines import finish_bundle

    finish_bundle(folder, engines, sample_folder=o.sample_images, min_agreement=o.min_agreement, force=o.force,
                  say=_print, detail=detail)  # fmt: skip


def _way_to_engines(folder: Path, shown: str, words: Sequence[str]) -> str:
    """From a bundle that was built where they cannot be."""
    there = f"on the machine that will run them: {PROGRAM} {shlex.quote(shown)} --target tensorrt"
    if not lacks_decoders(Bundle.open(folder, verify=False).manifest):
        return there
    again = shlex.join([*words, "--target", "tensorrt", "--no-engines", "--force"])
    return f"for them, first build it again with decoders for the compiled kernels: {PROGRAM} {again}; then, {there}"


def _part(what: str, module: str) -> Any:
    """Of this room. Raises BackendError naming the library that it lacks."""
    try:
        return importlib.import_module(f"clip4str.export.{module}")
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing == "clip4str":
            raise
        raise BackendError(f"{what} needs {missing}; pip install 'clip4str[export]'") from None


def _from_checkpoint(o: argparse.Namespace, target: str) -> Path:
    build_bundle = _part("a checkpoint", "bundles").build_bundle
    charset, charset_test = (None if given is None else read_charset(given) for given in (o.charset, o.charset_test))
    if charset is not None:
        _print(f"charset: {charset.said}")
    more = {}
    if o.single_file is not None:  # refused now, not after a build of minutes
        more["before"] = _part("--single-file", "single_file.characters").check_characters
    return Path(
        build_bundle(
            o.checkpoint,
            o.output,
            precision=o.precision or "fp32",
            for_gpu=target != "onnx",
            max_batch=32 if o.max_batch is None else o.max_batch,
            normalization=o.normalization or "half",
            charset=charset and charset.characters,
            charset_test=charset_test and charset_test.characters,
            image_size=o.image_size,
            sample_folder=o.sample_images,
            min_agreement=o.min_agreement,
            torch_weights=o.torch,
            calib_data=o.calib_data,
            max_accuracy_drop=0.3 if o.max_accuracy_drop is None else o.max_accuracy_drop,
            force=o.force,
            say=_print,
            detail=_print if o.verbose else lambda _: None,
            **more,
        )
    )


def _single_file(folder: Path | None, o: argparse.Namespace) -> None:
    """Of a bundle; None: could it be written?"""
    command = _part("--single-file", "single_file.export_command")
    if folder is None:
        command.check_form(o.precision)
        command.check_output(Path(o.single_file), o.force)
    else:
        command.export_bundle(folder, Path(o.single_file), None, o.force, o.sample_images, o.min_agreement, _print)


def _engine_options(o: argparse.Namespace, target: str) -> EngineOptions | None:
    """None where no engines are wanted."""
    given = {
        "--min-batch": o.min_batch, "--opt-batch": o.opt_batch, "--workspace": o.workspace,
        "--timing-cache": o.timing_cache, "--compute-capability": o.compute_capability,
        "--hardware-compatibility": o.hardware_compatibility, "--version-compatible": o.version_compatible or None,
        "--trtexec": o.trtexec or None, "--no-engines": o.no_engines or None,
    }  # fmt: skip
    if target == "onnx":
        for flag in (flag for flag, value in given.items() if value is not None):
            raise UsageError(f"{flag} is about engines: it needs --target tensorrt or tensorrt-rtx")
        return None
    most = _largest_batch(o.checkpoint) if o.max_batch is None else o.max_batch
    options = EngineOptions(
        target=target,
        min_batch=1 if o.min_batch is None else o.min_batch,
        opt_batch=min(8, most) if o.opt_batch is None else o.opt_batch,
        max_batch=most,
        workspace=None if o.workspace is None else o.workspace << 20,
        timing_cache=None if o.timing_cache is None else Path(o.timing_cache),
        compute_capabilities=tuple(o.compute_capability.split(",")) if o.compute_capability else (),
        hardware_compatibility=o.hardware_compatibility or "none",
        version_compatible=o.version_compatible,
        verbose=o.verbose,
    )
    options.check()
    return options


def _largest_batch(checkpoint: str | None) -> int:
    """A bundle's own, else the default."""
    if checkpoint is not None and Path(checkpoint).is_dir():
        return Bundle.open(checkpoint, verify=False).manifest.max_batch
    return 32


def _refuse_checkpoint_options(o: argparse.Namespace) -> None:
    """What is settled in a bundle that is there. Raises UsageError."""
    settled = ("precision", "output", "normalization", "charset", "charset_test", "image_size", "calib_data",
               "max_accuracy_drop")  # fmt: skip
    for name in settled:
        if getattr(o, name) is not None:
            flag = f"--{o.precision}" if name == "precision" else "--" + name.replace("_", "-")
            raise UsageError(f"{flag}: {o.checkpoint} is a bundle already; build its checkpoint anew for another one")
    if o.torch:
        raise UsageError(f"--torch: {o.checkpoint} is a bundle already; build its checkpoint anew for another one")


@contextmanager
def _terminated_is_interrupted() -> Iterator[None]:
    """A build that is told to stop tidies up like one that is interrupted."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _print(line: str) -> None:
    print(line, flush=True)


def _shown(folder: Path) -> str:
    try:
        here = Path.cwd()
    except OSError:  # it was removed
        return str(folder)
    return str(folder.relative_to(here) if folder.is_relative_to(here) else folder)


if __name__ == "__main__":
    sys.exit(main())
