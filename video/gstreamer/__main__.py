"""python -m clip4str.video.gstreamer: what to export so that GStreamer finds the element clip4strreader."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from clip4str.core.errors import first_line

from . import NAME, environment, exports


def trouble() -> str:
    """Why GStreamer does not know the element, on one line; "" where it does."""
    if shutil.which("gst-inspect-1.0") is None:
        return "not tried, as there is no gst-inspect-1.0: apt-get install gstreamer1.0-tools"
    variables = {
        name: os.pathsep.join([*folders, *filter(None, [os.environ.get(name)])])
        for name, folders in environment().items()
    }

    def inspect(name: str) -> subprocess.CompletedProcess[str]:
        command = ["gst-inspect-1.0", name]
        return subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True)

    if (tried := inspect(NAME)).returncode == 0:
        return ""
    if inspect("python").returncode:
        packages = "gstreamer1.0-python3-plugin-loader libpython3-dev"  # of the second, libpython3.N.so, since 1.26
        return f"GStreamer's loader of Python plugins does not work: apt-get install {packages}"
    said = [line for line in tried.stderr.splitlines() if "Error" in line]
    return f"GStreamer does not load it ({first_line(said[-1] if said else tried.stderr or tried.stdout)})"


def main() -> int:
    print(exports(), flush=True)
    if why := trouble():
        print(f"{NAME}: {why}", file=sys.stderr)
        return 1
    if sys.stdout.isatty():
        print('# in a shell: eval "$(python -m clip4str.video.gstreamer)"', file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
