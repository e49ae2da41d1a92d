"""Build libclip4str_kernels.so for boards and servers, whatever this machine is: `python -m clip4str.kernels`.

Kernels are compiled once (kernels/aot.py), then linked for every processor asked for, and tested: in qemu where it is
not this machine's. Needs triton, gcc and CMake, no GPU and no CUDA toolkit. The same sources, triton and gcc give the
same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from clip4str.core.console import Parser
from clip4str.core.errors import BackendError, UsageError
from clip4str.kernels.aot import add_options, summary, write_cubins
from clip4str.kernels.loader import BUILT, NAME
from clip4str.kernels.shared.elf import MACHINES

PROGRAM = "python -m clip4str.kernels"
SOURCES = Path(__file__).resolve().parents[1]
_EPILOG = """\
examples:
  python -m clip4str.kernels                                               all GPUs, for this machine's processor
  python -m clip4str.kernels --machine x86_64,aarch64                      for boards, too
  python -m clip4str.kernels --machine aarch64 --arch sm_87 --networks base16     a Jetson Orin's, and no more
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Raises UsageError, or BackendError if a tool is missing or fails."""
    options = _parser().parse_args(argv)
    machines = list(dict.fromkeys(options.machine.split(",")))
    if unknown := [name for name in machines if name not in MACHINES.values()]:
        raise UsageError(f"--machine: {', '.join(unknown)} unknown; there are {', '.join(MACHINES.values())}")
    if not (SOURCES / "CMakeLists.txt").is_file():
        raise BackendError("the library is built from a checkout or the source package; an installed wheel has it")
    _need("cmake", "apt-get install cmake, or pip install cmake")
    for name in machines:
        cross = "" if name == platform.machine() else f"-{name.replace('_', '-')}-linux-gnu"
        _need(_compiler(name), f"apt-get install gcc{cross}")
    print(summary(*write_cubins(options, options.output / "cubins")))
    for name in machines:
        print(_link(name, options.output, options.test))
    return 0


def _parser() -> argparse.ArgumentParser:
    form = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog=PROGRAM, description=__doc__, epilog=_EPILOG, formatter_class=form)
    here = platform.machine()
    parser.add_argument(
        "--machine",
        default=here,
        metavar="LIST",
        help=f"processors: {', '.join(MACHINES.values())} (this one's: {here})",
    )
    add_options(parser)
    parser.add_argument(
        "--output", type=Path, default=SOURCES / BUILT, help=f"folder of a folder per machine ({BUILT}: found there)"
    )
    parser.add_argument("--no-test", dest="test", action="store_false", help="do not run the library's own tests")
    return parser


def _compiler(machine: str) -> str:
    return "gcc" if machine == platform.machine() else f"{machine}-linux-gnu-gcc"


def _need(tool: str, how: str) -> None:
    if shutil.which(tool) is None:
        raise BackendError(f"{tool} is not on the PATH: {how}")


def _link(machine: str, output: Path, test: bool) -> str:
    """Build for one processor, test; returns a line about it."""
    folder, options = output.resolve() / machine, []
    emulator = shutil.which(f"qemu-{machine}")
    if machine != platform.machine():
        options = ["-DCMAKE_SYSTEM_NAME=Linux", f"-DCMAKE_SYSTEM_PROCESSOR={machine}"]
        if emulator:
            options.append(f"-DCMAKE_CROSSCOMPILING_EMULATOR={emulator};-L;/usr/{machine}-linux-gnu")
    cubins = f"-DCLIP4STR_CUBINS={output.resolve() / 'cubins'}"
    _run("cmake", "-S", SOURCES, "-B", folder, cubins, f"-DCMAKE_C_COMPILER={_compiler(machine)}", *options)
    _run("cmake", "--build", folder)
    how = "not tested"
    if test and (machine == platform.machine() or emulator):
        _run("ctest", "--test-dir", folder, "--output-on-failure")
        how = "tested" if machine == platform.machine() else f"tested in qemu-{machine}"
    elif test:
        how = f"not tested: no qemu-{machine} (apt-get install qemu-user)"
    _make_plain(folder / NAME)
    content = (folder / NAME).read_bytes()
    digest = hashlib.sha256(content).hexdigest()[:16]
    return f"{folder / NAME}: {len(content) / 1e6:.2f} MB, sha256 {digest}..., {how}"


def _make_plain(library: Path) -> None:
    """A file in the place of CMake's link to one with a version: it is what is carried to boards, and found by name."""
    file, made = library.resolve(), library.with_name(f"{library.name}.plain")
    if file != library:
        shutil.copy2(file, made)
        made.replace(library)


def _run(*command: str | Path) -> None:
    """Raises BackendError with the last lines of what it said."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, errors="replace")
    if done.returncode:
        said = " ".join((done.stdout + done.stderr).split())[-400:]
        raise BackendError(f"{command[0]} failed ({done.returncode}): ... {said}")
