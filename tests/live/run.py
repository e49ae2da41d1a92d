"""make test-live: installs the Debian packages that tests/live/ needs, where it can, and runs it with them.

Debian's `gi`, GStreamer's Python, is made importable in our environment by a folder with a link to it alone: beside all
of Debian's Python packages another numpy would be imported. With CLIP4STR_REQUIRE_LIVE=1 what is missing is a failure.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
PACKAGES = [
    "gstreamer1.0-tools", "gstreamer1.0-plugins-base", "gstreamer1.0-plugins-good", "gstreamer1.0-plugins-bad",
    "gstreamer1.0-plugins-ugly", "gstreamer1.0-libav", "gstreamer1.0-x", "gstreamer1.0-python3-plugin-loader",
    "python3-gi", "python3-gst-1.0", "gir1.2-gst-plugins-base-1.0", "gir1.2-gst-plugins-bad-1.0",
    "gir1.2-gst-rtsp-server-1.0", "fonts-dejavu-core", "mosquitto", "mosquitto-clients", "chromium",
    "chromium-driver", "gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross", "qemu-user",
]  # fmt: skip
REQUIRED = os.environ.get("CLIP4STR_REQUIRE_LIVE", "") not in {"", "0"}


def missing(packages: list[str] = PACKAGES) -> list[str]:
    """Of the packages, those that are not installed."""
    if shutil.which("dpkg-query") is None:
        return packages
    command = ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n", *packages]
    said = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    there = {line.split()[0] for line in said if line.endswith(" installed")}
    return [name for name in packages if name not in there]


def install(packages: list[str]) -> None:
    """As far as it goes: one that cannot be had does not keep back the others."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return
    print(f"installing {' '.join(packages)}", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    apt = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120"]
    subprocess.run([*apt, "update"], env=environment, stdout=subprocess.DEVNULL)
    wanted = [*apt, "install", "-y", "--no-install-recommends"]
    if subprocess.run([*wanted, *packages], env=environment, stdout=subprocess.DEVNULL).returncode:
        for name in packages:
            subprocess.run([*wanted, name], env=environment, stdout=subprocess.DEVNULL)


def link_gi(folder: Path) -> str:
    """Makes folder one from which Debian's gi, and nothing else, is imported. "" or why that cannot be."""
    python, code = "/usr/bin/python3", "import sys, gi; print(*sys.version_info[:2], gi.__path__[0])"
    said = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True) if Path(python).exists() else None
    if said is None or said.returncode:
        return "there is no GStreamer for Python: apt-get install python3-gi python3-gst-1.0"
    major, minor, gi = said.stdout.split(maxsplit=2)
    if (int(major), int(minor)) != sys.version_info[:2]:
        ours = ".".join(str(n) for n in sys.version_info[:2])
        theirs = f"{major}.{minor}"
        return f"Debian's gi is for Python {theirs}, this environment has {ours}: make setup PYTHON=python{theirs}"
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / "gi"
    if not link.is_symlink() or str(link.readlink()) != gi.strip():
        link.unlink(missing_ok=True)
        link.symlink_to(gi.strip())
    return ""


def main(arguments: list[str]) -> int:
    if missing():
        install(missing())
    lacking = missing()
    trouble = [f"not installed: apt-get install {' '.join(lacking)}"] if lacking else []
    folder = Path(sys.prefix) / "debian-gi"
    without_gi = link_gi(folder)
    trouble += [without_gi] if without_gi else []
    for line in trouble:
        print(f"test-live: {line}", file=sys.stderr)
    if trouble and REQUIRED:
        print("test-live: CLIP4STR_REQUIRE_LIVE is set, and this cannot be tested", file=sys.stderr)
        return 1
    if trouble:
        print("test-live: tests that need it are skipped", file=sys.stderr)
    if not without_gi:
        inherited = [path for path in [os.environ.get("PYTHONPATH")] if path]
        os.environ["PYTHONPATH"] = os.pathsep.join([*inherited, str(folder)])  # children's
        sys.path.append(str(folder))
    where = [] if any(Path(each.partition("::")[0]).exists() for each in arguments) else [str(HERE)]
    outcome = int(pytest.main(["-rs", *where, *arguments]))
    return 0 if outcome == pytest.ExitCode.NO_TESTS_COLLECTED and trouble else outcome


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
