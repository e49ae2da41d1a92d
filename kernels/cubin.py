"""One variant, one architecture -> one cubin and its figures. Needs triton, no GPU and no driver."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# Before triton is imported: its default for fusing a * b + c flips in 3.10, and line information doubles a cubin.
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
os.environ.setdefault("TRITON_DISABLE_LINE_INFO", "1")

import triton
import triton.backends.nvidia
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from clip4str.core.errors import BackendError, first_line
from clip4str.kernels.lz4 import pack
from clip4str.kernels.shared.variants import Variant

FORMAT = 4  # version of the files kept beside a cubin; part of its key
REGISTERS = 65536  # per multiprocessor
_NEWER = "TRITON_PTXAS_BLACKWELL_PATH"
_CUDA_12 = ((9, 0), (10, 0), (12, 0))
_TENSOR_CORES = re.compile(r"^(HMMA|IMMA|QMMA|OMMA|[HIQ]GMMA|UTC[A-Z]*MMA)\b")
_DESCRIBED = re.compile(r"^(UTMALDG|UTMASTG)$")
_LOCAL_MEMORY = re.compile(r"^(LDL|STL)\b")
_WAIT, _LAUNCH_DEPENDENTS = "ACQBULK", "PREEXIT"  # griddepcontrol.wait and .launch_dependents
_PREFETCH = "CCTL"
_GLOBAL_MEMORY = re.compile(r"^(LD|ST|LDG|STG|LDGSTS|ATOM|ATOMG|RED|REDG|UBLKCP|UBLKRED|UTMA[A-Z]*)$")
_INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_]*)", re.MULTILINE)


@dataclass(frozen=True)
class Cubin:
    """A compiled kernel: what the library needs to launch it, and figures that show whether it compiled well.

    shared: bytes of dynamic shared memory. hidden: trailing pointer arguments that Triton adds (passed as null: no
    kernel here uses scratch memory). specific: runs on exactly this compute capability ("sm_90a"), not on later minors.
    local: bytes of stack per thread. spills: instructions that read or write local memory. tensor: tensor-core
    instructions by name. described: the tensor memory accelerator's loads and stores, by name. dependent: it may start
    before the kernel ahead of it on the stream has ended, for which it waits before it reads or writes memory
    (shared/dependent.py). prefetches: instructions before it that fetch weights into the L2 cache.
    """

    key: str
    symbol: str
    capability: tuple[int, int]
    specific: bool
    num_warps: int
    shared: int
    hidden: int
    size: int
    registers: int
    local: int
    spills: int
    tensor: Mapping[str, int]
    described: Mapping[str, int]
    dependent: bool
    prefetches: int

    def save(self, folder: Path, code: bytes) -> None:
        write(folder / f"{self.key}.cubin", code)
        write(folder / f"{self.key}.lz4", pack(code))
        write(folder / f"{self.key}.json", json.dumps(asdict(self)).encode())


def write(path: Path, content: bytes) -> None:
    """Atomically: an interrupted or parallel run leaves no partial file."""
    partial = path.with_suffix(f"{path.suffix}.{os.getpid()}.partial")
    partial.write_bytes(content)
    partial.replace(path)


def load(folder: Path, key: str) -> Cubin | None:
    """The cubin of an earlier run, or None."""
    try:
        values = json.loads((folder / f"{key}.json").read_bytes())
        if (folder / f"{key}.cubin").stat().st_size != values["size"] or not (folder / f"{key}.lz4").is_file():
            return None
        return Cubin(**{**values, "capability": tuple(values["capability"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def key(variant: Variant, capability: tuple[int, int]) -> str:
    """Hash of everything that the cubin depends on: source, types, constants, options, compiler, target."""
    parts = (FORMAT, triton.__version__, _environment(), variant.kernel.cache_key, *_source(variant), capability)
    options = sorted(_options(variant).items())
    return hashlib.sha256(repr((parts, options)).encode()).hexdigest()[:32]


def compile_variant(variant: Variant, capability: tuple[int, int], folder: Path) -> Cubin:
    """Compile, inspect and save. Raises BackendError if compilation fails or the library could not launch the result.

    The assembler may spill registers so that more programs fit on a multiprocessor. It is then run again, allowed as
    many registers as there are.
    """
    cubin, code = _compile(variant, capability, folder, {})
    if cubin.spills and "maxnreg" not in variant.options:
        most = min(255, REGISTERS // (32 * cubin.num_warps))
        again = _compile(variant, capability, folder, {"maxnreg": most})
        cubin, code = min((cubin, code), again, key=lambda made: made[0].spills)
    cubin.save(folder, code)
    return cubin


def _compile(
    variant: Variant, capability: tuple[int, int], folder: Path, options: Mapping[str, Any]
) -> tuple[Cubin, bytes]:
    signature, constexprs, attributes = _source(variant)
    target = GPUTarget("cuda", 10 * capability[0] + capability[1], 32)
    what = f"{variant.launch} for compute capability {capability[0]}.{capability[1]}"
    try:
        source = ASTSource(variant.kernel, dict(signature), dict(constexprs), dict(attributes))
        with _assembler(capability), contextlib.redirect_stdout(io.StringIO()):  # triton prints PTX that fails
            compiled = triton.compile(source, target=target, options={**_options(variant), **options})
    except Exception as e:
        reason = first_line(e)
        raise BackendError(
            f"triton {triton.__version__} cannot compile {what}: {reason}; a newer triton may (3.9 can for all "
            "architectures), --architectures leaves one out"
        ) from e
    metadata, code = compiled.metadata, compiled.asm["cubin"]
    if getattr(metadata, "global_scratch_size", 0) or getattr(metadata, "profile_scratch_size", 0):
        raise BackendError(f"{what} needs scratch memory, which the library does not give")
    if metadata.num_ctas != 1:
        raise BackendError(f"{what} wants clusters of {metadata.num_ctas}, which the library does not launch")
    parameters, specific = _declared(compiled.asm["ptx"])
    registers, local = _usage(code, folder)
    instructions = _instructions(code, folder)
    counts = Counter(instructions)
    cubin = Cubin(
        key=key(variant, capability),
        symbol=metadata.name,
        capability=capability,
        specific=specific,
        num_warps=metadata.num_warps,
        shared=metadata.shared,
        hidden=parameters - variant.parameters,
        size=len(code),
        registers=registers,
        local=local,
        spills=sum(n for name, n in counts.items() if _LOCAL_MEMORY.match(name)),
        tensor={name: n for name, n in sorted(counts.items()) if _TENSOR_CORES.match(name)},
        described={name: n for name, n in sorted(counts.items()) if _DESCRIBED.match(name)},
        dependent=_waits(instructions, bool(variant.constexprs.get("DEPENDENT")), what),
        prefetches=_before_wait(instructions).count(_PREFETCH),
    )
    return cubin, code


def _environment() -> list[str]:
    names = ("TRITON_DEFAULT_FP_FUSION", "TRITON_DISABLE_LINE_INFO", "TRITON_PTXAS_PATH", _NEWER)
    return [os.environ.get(name, "") for name in names]


@contextlib.contextmanager
def _assembler(capability: tuple[int, int]) -> Iterator[None]:
    """For new GPUs Triton uses the ptxas of CUDA 13, whose cubins CUDA 12 drivers refuse. Its wheel also has that of
    CUDA 12, which supports most of these GPUs; the others need a newer driver anyway."""
    if capability not in _CUDA_12 or _NEWER in os.environ:
        yield
        return
    os.environ[_NEWER] = _tool("ptxas")
    try:
        yield
    finally:
        del os.environ[_NEWER]


def _options(variant: Variant) -> dict[str, Any]:
    return {"num_warps": variant.num_warps, "num_stages": variant.num_stages, **variant.options}


def _source(variant: Variant) -> tuple[Any, Any, Any]:
    """What ASTSource takes, as sorted pairs: signature, constexprs, attributes."""
    names = variant.kernel.arg_names
    untyped = [name for name in names if name not in variant.constexprs and name not in variant.types]
    extra = [name for name in (*variant.constexprs, *variant.types) if name not in names]
    if untyped or extra:
        raise BackendError(
            f"{variant.launch}: kernel arguments without a type {untyped}, types without argument {extra}"
        )
    signature = tuple((n, "constexpr" if n in variant.constexprs else variant.types[n]) for n in names)
    hint = [["tt.divisibility", 16]]
    attributes = tuple(((names.index(n),), hint) for n in variant.multiples_of_16)
    return signature, tuple((n, variant.constexprs[n]) for n in names if n in variant.constexprs), attributes


def _declared(ptx: str) -> tuple[int, bool]:
    """How many parameters the kernel's entry declares; is the target specific to one compute capability?"""
    entry = re.search(r"\.entry\s+\w+\s*\((.*?)\)", ptx, re.DOTALL)
    target = re.search(r"^\.target\s+sm_\d+([af]?)", ptx, re.MULTILINE)
    if entry is None or target is None:
        raise BackendError("the compiler's PTX has no entry or target")
    return entry.group(1).count(".param"), target.group(1) == "a"


def _tool(name: str) -> str:
    """Path of a CUDA tool: the copy in triton's wheel, else the one on the PATH."""
    bundled = Path(triton.backends.nvidia.__file__).parent / "bin" / name
    found = str(bundled) if bundled.is_file() else shutil.which(name)
    if found is None:
        raise BackendError(f"{name} is neither in triton's wheel nor on the PATH; the CUDA toolkit has it")
    return found


def _run(tool: str, code: bytes, folder: Path, *options: str) -> str:
    path = folder / f"{tool}.{os.getpid()}.partial"
    path.write_bytes(code)
    try:
        done = subprocess.run([_tool(tool), *options, str(path)], capture_output=True, text=True)
    finally:
        path.unlink()
    if done.returncode:
        raise BackendError(f"{tool} failed: {(done.stderr or done.stdout).strip().splitlines()[-1:]}")
    return done.stdout


def _usage(code: bytes, folder: Path) -> tuple[int, int]:
    """Registers and bytes of local memory per thread."""
    text = _run("cuobjdump", code, folder, "-res-usage")
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", text)
    if found is None:
        raise BackendError("cuobjdump -res-usage shows no kernel")
    return int(found.group(1)), int(found.group(2)) + int(found.group(3))


def _instructions(code: bytes, folder: Path) -> list[str]:
    """Names, in order."""
    return _INSTRUCTION.findall(_run("nvdisasm", code, folder, "-c"))


def _before_wait(instructions: list[str]) -> list[str]:
    return instructions[: instructions.index(_WAIT)] if _WAIT in instructions else []


def _waits(instructions: list[str], wanted: bool, what: str) -> bool:
    """`wanted`, once it is certain: what waits for the kernel ahead touches no memory before, what shall not does not.

    Raises BackendError.
    """
    found = {name: name in instructions for name in (_WAIT, _LAUNCH_DEPENDENTS)}
    if set(found.values()) != {wanted}:
        raise BackendError(f"{what}: expected {'' if wanted else 'no '}grid dependency control, found {found}")
    if touched := [name for name in _before_wait(instructions) if _GLOBAL_MEMORY.match(name)]:
        raise BackendError(f"{what} touches memory before it waits for the kernel ahead: {touched[0]}")
    return wanted
