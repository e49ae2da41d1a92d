"""What HTTP costs: full batches read by a Ray Serve replica beside the same read in this process."""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from clip4str.benchmarks.bundle_options import bundle_parser
from clip4str.benchmarks.figures import between, markdown, quartiles
from clip4str.benchmarks.serving_load.processor_time import used
from clip4str.benchmarks.serving_load.ray_server import RayServer
from clip4str.core.console import run_script
from clip4str.core.errors import UsageError
from clip4str.core.machine_info import describe, machine_info
from clip4str.core.output_files import check_output, write_json
from clip4str.runtime import Recognizer
from clip4str.runtime.default_bundle import default_bundle

PROGRAM = "benchmarks/http_overhead.py"
CROPS = Path(__file__).resolve().parents[1] / "export" / "sample_crops"
_EPILOG = """\
examples:
  PYTHONPATH=build/serving/site python benchmarks/http_overhead.py --json http.json
  PYTHONPATH=build/serving/site python benchmarks/http_overhead.py --haproxy --images 1

Sides take turns, A B A B: this process, one thread, batch after batch; and a
replica of one core with two requests of as many pictures under way. Processor
time is this process's, and on the other side that of the replica and of the
proxies; it changes less with other work on the machine than the clock does.
Exit code 1 where a word differs.
"""


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    if min(args.images, args.requests, args.repeat) < 1 or args.images > 1024:
        raise UsageError("--images is 1 to 1024, --requests and --repeat are 1 or more")
    check_output(args.json)
    bundle, info = args.bundle or default_bundle(), machine_info(1)
    files = [path.read_bytes() for path in sorted(CROPS.glob("*.jpg"))]
    requests = [[files[(k * args.images + i) % len(files)] for i in range(args.images)] for k in range(args.requests)]
    server = RayServer(bundle, haproxy=args.haproxy, reported=10, batch_size=args.images, max_images=args.images,
                       max_waiting=4096)  # fmt: skip
    turns: dict[str, list[tuple[float, float]]] = {"in this process": [], "over HTTP": []}
    processes: list[dict[str, float]] = []
    with Recognizer.load(bundle, "onnxruntime", threads=1, batch_size=args.images) as recognizer, server:
        for repetition in range(args.repeat + 1):
            began, before = time.perf_counter(), time.process_time()
            wanted = [[word.text for word in recognizer.read(images)] for images in requests]
            here = time.perf_counter() - began, time.process_time() - before
            began, start = time.perf_counter(), used()
            if _read(server, requests) != wanted:
                print("words differ", file=sys.stderr)
                return 1
            took, end = time.perf_counter() - began, used()
            if repetition:
                turns["in this process"].append(here)
                processes.append(defaultdict(float, {name: end[name] - start[name] for name in end}))
                turns["over HTTP"].append((took, processes[-1]["replica"] + processes[-1]["proxy"]))
        name = f"{recognizer.manifest.name} {recognizer.manifest.precision}"
    words = args.images * args.requests
    rows = []
    for side, seconds in turns.items():
        each, first = np.array(seconds), np.array(turns["in this process"])
        speed, processor = (quartiles(ratio) for ratio in (first[:, 0] / each[:, 0], each[:, 1] / first[:, 1]))
        rows.append({"side": side, "words_a_second": round(float(np.median(words / each[:, 0])), 2), "speed": speed,
                     "processor_ms_a_word": round(float(np.median(1000 * each[:, 1] / words)), 3),
                     "processor": processor})  # fmt: skip
    by_process = {
        each: round(float(np.median([1000 * turn[each] / words for turn in processes])), 2) for each in processes[0]
    }
    print(f"{name}, {server.what}, requests of {args.images} pictures\n{describe(info)}")
    heads = ("side", "words a second", "of this process's", "quartiles", "processor ms a word", "times", "quartiles")
    print(markdown(heads, [_cells(row) for row in rows]))
    print()
    print(markdown(("process", "processor s per 1,000 words"), sorted(by_process.items())))
    if args.json:
        write_json(args.json, {"rows": rows, "processor_s_per_1000_words": by_process, "bundle": name,
                               "server": server.what, "images": args.images, "requests": args.requests,
                               "machine": info})  # fmt: skip
    return 0


def _cells(row: dict[str, Any]) -> list[Any]:
    speed, processor = row["speed"], row["processor"]
    return [row["side"], row["words_a_second"], f"{speed['median']:.3f}", between(speed, 3),
            row["processor_ms_a_word"], f"{processor['median']:.3f}", between(processor, 3)]  # fmt: skip


def _read(server: RayServer, requests: Sequence[Sequence[bytes]]) -> list[list[str]]:
    """Words of each request, two at a time, each connection kept."""

    def client(first: int) -> list[list[str]]:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
        found = []
        for images in requests[first::2]:
            body = json.dumps({"images": [base64.b64encode(image).decode() for image in images]})
            connection.request("POST", "/read", body, {**server.headers, "Content-Type": "application/json"})
            found.append([word["text"] for word in json.loads(connection.getresponse().read())["words"]])
        connection.close()
        return found

    with ThreadPoolExecutor(2) as pool:
        halves = list(pool.map(client, range(2)))
    return [halves[k % 2][k // 2] for k in range(len(requests))]


def _parser() -> argparse.ArgumentParser:
    parser = bundle_parser(PROGRAM, __doc__, _EPILOG)
    add = parser.add_argument
    add("--images", type=int, default=16, metavar="N", help="pictures a request, a batch (default: 16)")
    add("--requests", type=int, default=16, metavar="N", help="a turn (default: 16)")
    add("--repeat", type=int, default=7, metavar="N", help="turns (default: 7)")
    add("--haproxy", action="store_true", help="HAProxy in the place of Ray's own proxy")
    return parser


if __name__ == "__main__":
    sys.exit(run_script(PROGRAM, main))
