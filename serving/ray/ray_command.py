"""clip4str serve ray: words over HTTP, on one machine or a Ray cluster."""

from __future__ import annotations

import argparse
import http.client
import importlib.util
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clip4str.core.console import Parser
from clip4str.core.errors import BackendError, UsageError, first_line
from clip4str.runtime.bundle import Bundle
from clip4str.runtime.recognizer import default_bundle

from ..ray_cluster import connect
from ..versions import bundle_version
from .ray_environment import prepare

REQUEST = 120.0  # seconds that a request may take in all
STARTS = 3
DOOR = 20.0  # seconds that a proxy may take to hear of an application that is ready
LOGS = "/tmp/ray/session_latest/logs/serve"
SECONDS = 600.0  # that an application may take to be ready
_EPILOG = """\
examples:
  clip4str serve ray bundles/my-fp16                        http://127.0.0.1:8000/docs, until Ctrl-C
  clip4str serve ray bundles/my-fp16 --gpus 0.5 --replicas 2:8
  clip4str serve ray bundles/new --address auto             in a cluster that runs: replaces what serves there,
                                                            replica by replica, and no request is lost
With --host others can reach the server, and must bring a token: CLIP4STR_SERVE_TOKEN, or --token-file.
"""


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="clip4str serve ray", description="Serve words over HTTP with Ray Serve: docs/serving.md.",
        epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("bundle", nargs="?", metavar="BUNDLE", help="its folder (default: $CLIP4STR_BUNDLE, else the newest in "
        "./bundles, else the packaged network)")  # fmt: skip
    add("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    add("--port", type=int, default=8000, help="(default: %(default)s)")
    add("--address", help="of a Ray cluster that runs, as auto or HOST:PORT (default: one of this machine is started)")
    add("--proxies", choices=("every", "head"), default="every", help="of a cluster's machines those that listen: "
        "every one with a replica, or the head alone (default: every)")  # fmt: skip
    add("--replicas", default="1", metavar="N or MIN:MAX", help="networks that serve (default: %(default)s)")
    add("--surge", type=int, default=25, metavar="PERCENT", help="replicas that a change of network may start before "
        "old ones go, for which the cluster must have room; 0: old ones go first (default: %(default)s)")  # fmt: skip
    add("--cpus", type=float, default=1.0, metavar="N", help="cores of a replica (default: %(default)g)")
    add("--gpus", type=float, default=0.0, metavar="G", help="GPUs of a replica, such as 1 or 0.25 (default: 0)")
    add("--threads", type=int, default=1, help="of a core each, for one batch (default: %(default)s)")
    add("--backend", default="auto", help="auto, tensorrt, torch, onnxruntime or openvino (default: auto)")
    add("--dtype", default="", help="of torch: float16, bfloat16 or float32; of openvino: float32 or bfloat16")
    add("--batch-size", type=int, metavar="N", help="images read at once at most")
    add("--wait-ms", type=float, default=5.0, help="that a batch waits to be filled (default: %(default)g)")
    add("--max-images", type=int, default=64, help="of a request (default: %(default)s)")
    add("--max-megabytes", type=int, default=64, help="of a request (default: %(default)s)")
    add("--max-waiting", type=int, default=256, help="images of a replica beyond which requests are refused with 429 "
        "(default: %(default)s)")  # fmt: skip
    add("--no-photos", action="store_true", help="without /read_photo")
    add("--token-file", default="", metavar="FILE", help="whose first line is the token that requests must bring")
    add("--metrics-port", type=int, metavar="PORT", help="for Prometheus; of a cluster of this machine (default: any)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    for module in ("ray", "fastapi", "multipart"):
        if importlib.util.find_spec(module) is None:
            raise BackendError(f"serve ray needs {module}: pip install 'clip4str[ray]'")
    settings = settings_of(args)
    args.address = args.address or os.environ.get("RAY_ADDRESS")
    if not args.address:
        prepare(settings.inside)
    import ray
    from ray import serve

    connect(args.address, include_dashboard=False, _metrics_export_port=args.metrics_port)
    try:
        answers = _deploy(serve, args, settings)
        where = f"http://{f'[{args.host}]' if ':' in args.host else args.host}:{args.port}"
        if answers:
            said = f"serves at {where}, described at {where}/docs"
        elif args.address:  # its proxies may be on other machines alone
            said = f"is deployed, but nothing answers at {where} from this machine; proxies' logs: {LOGS}"
        else:
            raise BackendError(f"Ray's proxy does not answer at {where}; its log: {LOGS}")
        print(f"{settings.version} {said}", file=sys.stderr, flush=True)
        while not args.address:  # a cluster of its own ends with this command
            time.sleep(3600)
    finally:
        if not args.address:
            serve.shutdown()
        ray.shutdown()
    return 0


def settings_of(args: argparse.Namespace) -> Any:
    """Raises UsageError, BundleError."""
    from pydantic import ValidationError

    from .bearer import given_token, needed
    from .server_settings import Settings

    folder = Path(args.bundle) if args.bundle else default_bundle()
    version = bundle_version(Bundle.open(folder, verify=False).manifest)
    token = given_token(args.token_file)
    needed(args.host, token)
    low, colon, high = args.replicas.partition(":")
    replicas = [int(part) for part in (low, high if colon else low) if part.isascii() and part.isdecimal()]
    if len(replicas) != 2 or not 1 <= replicas[0] <= replicas[1] <= 10_000:
        raise UsageError(f"--replicas is a number or MIN:MAX, as in 1:8, not {args.replicas!r}")
    if not 0 < args.port < 65536:
        raise UsageError(f"--port is 1 to 65535, not {args.port}")
    if args.max_images > args.max_waiting:
        raise UsageError(f"--max-waiting {args.max_waiting} is less than --max-images {args.max_images} of one request")
    try:
        return Settings(
            bundle=str(folder.resolve()), version=version, backend=args.backend, dtype=args.dtype, threads=args.threads,
            batch_size=args.batch_size, wait_ms=args.wait_ms, photos=not args.no_photos, max_images=args.max_images,
            max_bytes=args.max_megabytes << 20, max_waiting=args.max_waiting, replicas=(replicas[0], replicas[1]),
            surge=args.surge, cpus=args.cpus, gpus=args.gpus, need_token=token is not None,
            token_file=str(Path(args.token_file).resolve()) if args.token_file else "",
        )  # fmt: skip
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise UsageError(f"--{str(first['loc'][0]).replace('_', '-')}: {first['msg']}") from None


def _deploy(serve: Any, args: argparse.Namespace, settings: Any) -> bool:
    """Returns when the application is ready. Does it answer at its door, as seen from this machine? Raises
    BackendError, UsageError."""
    from ray.exceptions import RayError

    from .application import NAME, build

    until = time.monotonic() + SECONDS
    door = {"host": args.host, "port": args.port, "request_timeout_s": REQUEST}
    for attempt in range(STARTS):  # on a busy machine Ray takes a proxy for dead that is still starting
        try:
            serve.start(http_options=door, proxy_location={"every": "EveryNode", "head": "HeadOnly"}[args.proxies])
            _as_it_listens(args)
            serve.run(build(settings), name=NAME, route_prefix="/", blocking=False)
            break
        except (RayError, RuntimeError) as error:
            if attempt == STARTS - 1:
                raise BackendError(f"Ray Serve: {first_line(error)}") from None
    while True:
        status = serve.status().applications[NAME]
        if status.status == "RUNNING":
            break
        if status.status in ("DEPLOY_FAILED", "UNHEALTHY") or time.monotonic() > until:
            raise BackendError(f"Ray Serve: {first_line(status.message) or status.status}")
        time.sleep(0.2)
    until = time.monotonic() + DOOR
    while not (answers := _answers(args.host, args.port)) and time.monotonic() < until:
        time.sleep(0.2)
    return answers


def _as_it_listens(args: argparse.Namespace) -> None:
    """Serve that runs already keeps the address it listens at, whatever it is given: this puts it into `args`. Raises
    UsageError where others reach that one, and no token would keep them out."""
    from ray.serve.context import _get_global_client

    from .bearer import given_token, needed

    client: Any = _get_global_client()  # raises where there is none
    door = client.http_config
    needed(door.host, given_token(args.token_file), "what serves there listens at ")
    args.host, args.port = door.host or args.host, door.port


def _answers(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1" if host in ("0.0.0.0", "::") else host, port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
