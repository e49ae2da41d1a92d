"""Correctness on this GPU: tests marked `gpu`, run by pytest in a process of their own."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from clip4str.benchmarks.gpu.supervisor import Reporter

_ROOT = Path(__file__).resolve().parents[2]
# Named, so that a bare GPU machine need not have what the other tests import.
KERNELS = (_ROOT / "tests" / "kernels",)
NETWORK = (_ROOT / "tests" / "runtime" / "test_network_on_device.py",)
LIBRARY = (_ROOT / "tests" / "kernels" / "test_library_on_device.py",)
CUDA = (_ROOT / "tests" / "runtime" / "trt" / "test_cuda_on_device.py",)
_PROCESSES = 12  # most that share the GPU: half a gigabyte of it each
_OUTCOME, _NAME = "(?P<outcome>PASSED|FAILED|ERROR|SKIPPED)", r"(?P<name>\S+\.py::.*?)"
_ENDED = (  # lines of -vv: of a process alone, and of one of several
    re.compile(rf"^{_NAME} {_OUTCOME}(?: \(.*| +\[ *\d+%\])?\s*$"),
    re.compile(rf"^\[gw\d+\] \[ *\d+%\] {_OUTCOME} {_NAME}\s*$"),
)
_IN_REHEARSAL: dict[Sequence[Path], str] = {  # the quickest of each, or all
    KERNELS: "test_edges", NETWORK: "place", LIBRARY: "", CUDA: "",
}  # fmt: skip


def correctness(report: Reporter, tests: Sequence[Path] = KERNELS, rehearsal: bool = False) -> None:
    """Every test that fails is a failure of the run, every one that is skipped is listed. rehearsal: a few of them on
    the CPU, where those that need a GPU are left out."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tests.xml"
        command = [sys.executable, "-m", "pytest", "-vv", "-m", "gpu", f"--junitxml={file}", *map(str, tests)]
        processes = min(_PROCESSES, (os.cpu_count() or 2) - 1)
        if tests is KERNELS and not rehearsal and processes > 1 and importlib.util.find_spec("xdist") is not None:
            command += ["-n", str(processes), "--dist", "worksteal"]  # the compiler's time is most of theirs
        environment = {**os.environ, "CLIP4STR_REQUIRE_GPU": "1"}
        if rehearsal:
            command += ["-k", _IN_REHEARSAL.get(tests, "")]
            environment |= {"CLIP4STR_REQUIRE_GPU": "", "CLIP4STR_TEST_DEVICE": "cpu"}
        try:
            done = subprocess.run(command, cwd=_ROOT, env=environment, capture_output=True, text=True,
                                  timeout=report.clock.left())  # fmt: skip
        except subprocess.TimeoutExpired as error:
            said = error.stdout.decode(errors="replace") if isinstance(error.stdout, bytes) else error.stdout or ""
            _so_far(report, said)
            report.values["said"] = said[-300:]
            report.out_of_time("the tests", error.timeout)
            return
        cases = [*ElementTree.parse(file).iter("testcase")] if file.is_file() else []
    counts = {"tests": len(cases), "failed": 0, "skipped": 0}
    for case in cases:
        name = f"{case.get('classname')}::{case.get('name')}"
        for bad in (*case.iter("failure"), *case.iter("error")):
            counts["failed"] += 1
            report.fail(name, (bad.get("message") or "")[:400])
        for left_out in case.iter("skipped"):
            counts["skipped"] += 1
            if not rehearsal:
                report.skip(name, (left_out.get("message") or "")[:200])
    report.values |= counts
    if done.returncode and not counts["failed"]:  # 5: there was no test; others: pytest could not run
        report.fail("the tests", f"pytest ended with {done.returncode}: {(done.stdout + done.stderr)[-400:]}")


def _so_far(report: Reporter, said: str) -> None:
    """What pytest had said before it was ended, which is before it writes its file."""
    found = (pattern.match(line) for line in said.splitlines() for pattern in _ENDED)
    ended = [(match["name"], match["outcome"]) for match in found if match]
    counts = Counter(outcome for _, outcome in ended)
    failed = counts["FAILED"] + counts["ERROR"]
    report.values |= {"tests": len(ended), "passed": counts["PASSED"], "failed": failed, "skipped": counts["SKIPPED"]}
    for name, outcome in ended:
        if outcome in ("FAILED", "ERROR"):
            report.fail(name, f"{outcome}, and pytest did not come to say why")
