"""make test-pycuda: pycuda from its source package, against CUDA's headers and no driver, and the tests over it.

Built once into build/pycuda, some minutes, without cuRAND. Where there is no nvcc or no source package to be had, it
says so, and the tests are skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
FOLDER = HERE.parents[1] / "build" / "pycuda"
SITE = FOLDER / "site"  # pycuda and what it imports, numpy apart
VERSION = "2026.1"
STAND_IN = HERE.parent / "runtime" / "trt" / "c" / "memory_gpu.c"
# Functions of the stand-in that CUDA's header calls by another name.
SUFFIXES = ("_v2", "_v3")


def build() -> str | None:
    """Why it could not be, or None."""
    if (SITE / "pycuda" / "driver.py").is_file():
        return None
    nvcc = shutil.which("nvcc")
    if nvcc is None or shutil.which("g++") is None:
        return "pycuda is built with CUDA's nvcc and g++, and they are not both on the PATH"
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    options = ("--no-deps", "--no-build-isolation", "--no-binary", "pycuda", "-d", str(FOLDER), f"pycuda=={VERSION}")
    done = subprocess.run([*pip, "download", *options], capture_output=True, text=True)
    archives = list(FOLDER.glob("*.tar.gz"))
    if not archives:
        return f"the source package of pycuda {VERSION} cannot be had: {done.stderr.strip().splitlines()[-1:]}"
    with tarfile.open(archives[0]) as archive:
        archive.extractall(FOLDER, filter="data")
    source = FOLDER / f"pycuda-{VERSION}"
    link = FOLDER / "link"
    link.mkdir()
    linked = ["gcc", "-shared", "-fPIC", "-w", "-Wl,-soname,libcuda.so.1", "-o", link / "libcuda.so", STAND_IN]
    subprocess.run(linked, check=True)
    root = Path(os.environ.get("CUDA_HOME") or _root(nvcc))
    settings = {"CUDA_ENABLE_CURAND": False, "CUDA_ROOT": str(root), "CUDADRV_LIB_DIR": [str(link)]}
    (source / "siteconf.py").write_text("".join(f"{name} = {value!r}\n" for name, value in settings.items()))
    print("building pycuda: some minutes", flush=True)
    log, quick = FOLDER / "build.log", {**os.environ, "CFLAGS": "-O0 -g0"}
    with log.open("w") as said:
        command = [*pip, "install", "--no-build-isolation", "--target", str(FOLDER / "made"), str(source)]
        done_ = subprocess.run(command, env=quick, stdout=said, stderr=subprocess.STDOUT)
    if done_.returncode:
        raise SystemExit(f"pycuda {VERSION} could not be built: {log}")
    (FOLDER / "made").rename(SITE)
    return None


def _root(nvcc: str) -> str:
    """The toolkit's folder, which a script on the PATH may only lead to."""
    said = subprocess.run([nvcc, "--dryrun", "-x", "cu", "/dev/null"], capture_output=True, text=True).stderr
    tops = [line.partition("TOP=")[2] for line in said.splitlines() if "TOP=" in line]
    return str(Path(tops[0]).resolve()) if tops else str(Path(nvcc).resolve().parents[1])


def stand_in(folder: Path) -> Path:
    """The tests' libcuda with all names that pycuda's module asks for; what the stand-in has not is 'not supported'."""
    module = next((SITE / "pycuda").glob("_driver*.so"))
    listed = subprocess.run(["nm", "-D", "--undefined-only", module], capture_output=True, text=True, check=True).stdout
    wanted = sorted({line.split()[-1].partition("@")[0] for line in listed.splitlines() if " cu" in line})
    had = set(_functions(STAND_IN.read_text(encoding="utf-8")))
    lines = [f'#include "{STAND_IN}"']
    for name in (name for name in wanted if name not in had):
        base = next((name.removesuffix(s) for s in SUFFIXES if name.endswith(s) and name.removesuffix(s) in had), None)
        if base:
            lines.append(f'extern __typeof__({base}) {name} __attribute__((alias("{base}")));')
        else:
            lines.append(f'int {name}(void) {{ return called("{name}", "") ? 999 : 801; }}')
    (folder / "pycuda_libcuda.c").write_text("\n".join([*lines, ""]))
    target = folder / "libcuda.so.1"
    command = ["gcc", "-shared", "-fPIC", "-O1", "-w", "-Wl,-soname,libcuda.so.1", "-o", target]
    subprocess.run([*command, folder / "pycuda_libcuda.c"], check=True)
    return target


def _functions(source: str) -> list[str]:
    return [line.split("(")[0].split()[-1].lstrip("*") for line in source.splitlines() if line.startswith("int cu")]


def main() -> int:
    if why := build():
        print(f"skipped: {why}")
        return 0
    return pytest.main([str(HERE), *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
