#!/usr/bin/env python3
"""Fuzzes whatever takes strangers' files: all targets share the time, each in a child process.

    make fuzz MINUTES=10
    python tests/fuzz/run.py --minutes 10 pictures lmdbs
    python tests/fuzz/run.py --replay build/fuzz/pictures-0123456789ab

A finding is an input that raises anything but a Clip4StrError, ends the process, hangs, or takes more memory or
time than tests/hostile/doors.py allows. It is saved. With atheris installed (pip install atheris) inputs are
guided by coverage; --plain is the mutator alone, the same inputs for the same --seed. Exit code 1 where there is a
finding.
"""

from __future__ import annotations

import argparse
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent / "hostile"))

from child import SHARED, saved  # noqa: E402
from guard import killed  # noqa: E402

KEEP = ROOT / "build" / "fuzz"
TARGETS = ("checkpoints", "manifests", "graphs", "pictures", "lmdbs", "atlases")
MOST_DEATHS = 20  # of a target: then it is known well enough
MOST_SHOWN = 3  # of deaths of one kind; all are saved


@dataclass
class Report:
    """Of a target: inputs tried, how often each thing became of them, what was found, by whom."""

    target: str
    inputs: int = 0
    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    findings: list[dict] = field(default_factory=list)
    guided: bool = False


def fuzz(
    target: str,
    seconds: float | None = None,
    inputs: int | None = None,
    files: Sequence[Path] | None = None,
    seed: int = 0,
    keep: Path = KEEP,
    guided: bool = False,
    module: str = "targets",
) -> Report:
    """Runs one target for so many seconds or inputs, or over files, in children that are started anew when they die."""
    report, start = Report(target, guided=guided), time.monotonic()
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="clip4str-fuzz-", dir=memory if memory.is_dir() else None) as folder:
        shared = Path(folder, "shared")
        shared.write_bytes(bytes(SHARED))
        rest, tried = list(files or []), 0
        for death in range(MOST_DEATHS):
            left = None if seconds is None else seconds - (time.monotonic() - start)
            if (left is not None and left <= 0) or (inputs is not None and tried >= inputs) or (files and not rest):
                break
            command = [sys.executable, str(HERE / "child.py"), module, target, "--shared", str(shared),
                       "--keep", str(keep), "--seed", str(seed + 1000 * death)]  # fmt: skip
            command += ["--seconds", str(left)] if left is not None else []
            command += ["--inputs", str(inputs)] if inputs is not None else []
            command += ["--atheris"] if guided and not files else []
            command += ["--files", *(str(path.resolve()) for path in rest)] if files else []
            status = _listen(command, folder, report)
            before, tried = tried, struct.unpack("<Q", shared.read_bytes()[:8])[0]
            if status == 0:
                break
            if tried == before:
                raise RuntimeError(f"the child of {target} ended before its first input, {killed(status).error}")
            content = shared.read_bytes()
            data = content[16 : 16 + struct.unpack("<Q", content[8:16])[0]]
            ended = killed(status)
            report.counts["killed"] += 1
            report.findings.append({
                "finding": f"{ended.message} ({ended.error})", "file": str(saved(data, keep, target)), "where": [],
                "outcome": str(ended)})  # fmt: skip
            rest = rest[tried - before :]
        report.inputs = tried
    report.seconds = time.monotonic() - start
    return report


def _listen(command: list[str], folder: str, report: Report) -> int:
    """The child's exit status."""
    known = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": known, "PYTHONHASHSEED": "0"}
    quiet = None if os.environ.get("CLIP4STR_FUZZ_LOG") else subprocess.DEVNULL
    child = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=quiet, text=True)
    counts: dict[str, int] = {}
    known_places = {(f["finding"], *f["where"]) for f in report.findings}
    for line in child.stdout:
        said = json.loads(line)
        counts = said.get("counts", counts)
        if "finding" in said and (said["finding"], *said["where"]) not in known_places:
            known_places.add((said["finding"], *said["where"]))
            report.findings.append(said)
    report.counts.update(counts)
    return child.wait()


def told(reports: Sequence[Report]) -> str:
    lines = [f"{'target':12} {'inputs':>8} {'a second':>9} {'answered':>9} {'refused':>8} {'findings':>9}  guided by"]
    for r in reports:
        speed = r.inputs / r.seconds if r.seconds else 0
        by = "coverage (atheris)" if r.guided else "outcomes"
        lines.append(
            f"{r.target:12} {r.inputs:8} {speed:9.1f} {r.counts['answered']:9} {r.counts['refused']:8} "
            f"{len(r.findings):9}  {by}"
        )
    for r in reports:
        kinds: Counter[tuple] = Counter()
        for found in r.findings:
            kind = (found["finding"], *found["where"])
            kinds[kind] += 1
            if kinds[kind] > MOST_SHOWN:
                continue
            lines += [f"\n{r.target}: {found['finding']}", f"  {found['outcome']}",
                      f"  python tests/fuzz/run.py --replay {found['file']}"]  # fmt: skip
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="tests/fuzz/run.py", description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)} (default: all)")
    add("--minutes", type=float, default=10, metavar="N", help="of all targets together (default 10)")
    add("--seed", type=int, default=int(time.time()), metavar="N", help="(default: the clock)")
    add("--plain", action="store_true", help="without atheris")
    add("--keep", type=Path, default=KEEP, metavar="DIR", help="where findings are saved (default build/fuzz)")
    add("--replay", type=Path, nargs="+", metavar="FILE", help="try saved inputs again")
    args = parser.parse_args(argv)
    unknown = [name for name in args.targets if name not in TARGETS]
    if unknown or not args.minutes > 0:
        parser.error(f"no target {unknown[0]!r}" if unknown else "--minutes is more than 0")
    if args.replay:
        by_target: dict[str, list[Path]] = {}
        for path in args.replay:
            name = path.name.partition("-")[0]
            if name not in TARGETS or not path.is_file():
                parser.error(f"{path}: not an input that was saved here, TARGET-HASH")
            by_target.setdefault(name, []).append(path)
        reports = [fuzz(name, files=files, keep=args.keep) for name, files in by_target.items()]
    else:
        chosen = args.targets or list(TARGETS)
        guided = not args.plain and find_spec("atheris") is not None
        print(f"seed {args.seed}, {args.minutes:g} minutes, {len(chosen)} targets", flush=True)
        reports = []
        for name in chosen:
            reports.append(fuzz(name, 60 * args.minutes / len(chosen), seed=args.seed, keep=args.keep, guided=guided))
            print(f"{name}: {reports[-1].inputs} inputs, {len(reports[-1].findings)} findings", flush=True)
    print(told(reports))
    return int(any(report.findings for report in reports))


if __name__ == "__main__":
    sys.exit(main())
