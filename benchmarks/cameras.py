"""What many cameras ask of a fleet whose crops are read by servers: which part is the first to run out?

Out of committed predictions (results/streams.json) and the load measured on this kind of machine
(results/serving-triton.json); nothing is measured here.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clip4str.benchmarks.figures import markdown
from clip4str.benchmarks.streams import WORD
from clip4str.core.console import Parser, run_script
from clip4str.core.errors import UsageError

PROGRAM = "benchmarks/cameras.py"
RESULTS = Path(__file__).resolve().parent / "results"
CROPS = Path(__file__).resolve().parents[1] / "export" / "sample_crops"
LINK = 10e9  # bits a second of a server's network
MOST = 1_000_000


def needs(cameras: int, row: Mapping[str, Any], assumed: Mapping[str, Any], file_bytes: float) -> dict[str, float]:
    """row, assumed: of streams.json. Whole devices where devices are meant, at most `busy` used.

    decoding: devices whose video decoders the streams need. finding: devices that shrink and search their frames.
    cores: that follow words. crops: read a second. reading: devices that read those. files, raw: bits a second of crops
    on the way to the readers, encoded and as pixels. hours: of a device that read a million words."""
    crops, share = cameras * assumed["rate"] * assumed["reads_per_frame"], assumed["busy"] * 1e6
    return {
        "decoding": math.ceil(cameras / row["limits"]["decoder"]),
        "finding": math.ceil(cameras * (row["shrink_us"] + row["search_us"]) / share),
        "cores": math.ceil(cameras * row["host_ms"] / (1000 * assumed["busy"])),
        "crops": crops,
        "reading": math.ceil(cameras * row["read_us"] / share),
        "hours": row["read_us"] * cameras / crops / assumed["busy"] / 3600,
        "files": 8 * crops * file_bytes,
        "raw": 8 * crops * 3 * WORD[0] * WORD[1],
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog=PROGRAM, description=__doc__)
    parser.add_argument(
        "--cameras", type=int, default=1000, metavar="N", help="1080p, 30 frames a second (default 1000)"
    )
    o = parser.parse_args(argv)
    if not 1 <= o.cameras <= MOST:
        raise UsageError(f"--cameras is 1 to {MOST}, not {o.cameras}")
    report = json.loads((RESULTS / "streams.json").read_text(encoding="utf-8"))
    load = json.loads((RESULTS / "serving-triton.json").read_text(encoding="utf-8"))
    sizes = [path.stat().st_size for path in CROPS.glob("*.jpg")]
    rows = []
    for row in report["rows"]:
        if report["devices"][row["device"]]["bus"] is None:
            continue  # a board is no server
        found = needs(o.cameras, row, report["assumed"], sum(sizes) / len(sizes))
        rows.append([row["network"], report["devices"][row["device"]]["name"],
                     *(f"{found[name]:.0f}" for name in ("decoding", "finding", "reading", "cores")),
                     f"{found['hours']:.3f}"])  # fmt: skip
    size = sum(sizes) / len(sizes)
    print(f"{report['status'].capitalize()}. {o.cameras} cameras: {found['crops']:,.0f} crops a second, "
          f"{found['files'] / 1e9:.1f} Gbit/s as files of {size:,.0f} bytes, {found['raw'] / 1e9:.1f} Gbit/s as pixels "
          f"of {WORD[1]} x {WORD[0]}: {found['raw'] / LINK:.1f} links of {LINK / 1e9:g}")  # fmt: skip
    best = load["within_bar"] or load["points"][0]
    servers = math.ceil(found["crops"] / best["read_a_second"])
    print(f"without GPUs: {servers:,} machines such as that of results/serving-triton.json "
          f"({load['machine']['cores']} cores, {best['read_a_second']:.0f} crops a second), each of which takes "
          f"{1e6 / best['read_a_second'] / 3600:.1f} hours for a million words")  # fmt: skip
    heads = ("network", "devices", "to decode", "to find", "to read", "cores to follow", "hours to read a million")
    print(markdown(heads, rows, texts=2))
    return 0


if __name__ == "__main__":
    sys.exit(run_script(PROGRAM, main))
