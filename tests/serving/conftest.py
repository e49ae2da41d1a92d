from __future__ import annotations

import os
import sys
from collections.abc import Generator

import pytest

REQUIRED = os.environ.get("CLIP4STR_REQUIRE_SERVING", "") not in {"", "0"}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With CLIP4STR_REQUIRE_SERVING a test of this folder that was skipped has failed."""
    report = yield
    if REQUIRED and report.skipped and "/serving/" in str(item.path):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome, report.longrepr = "failed", f"CLIP4STR_REQUIRE_SERVING is set, and this was not run: {reason}"
    return report


@pytest.fixture(scope="session")
def triton_packages() -> None:
    """Skips where `make test-serving` has not installed Triton and its clients."""
    from clip4str.benchmarks.serving_load.triton_server import server_is_there

    if not server_is_there() or sys.platform != "linux":
        pytest.skip("no Triton: make test-serving")
    pytest.importorskip("tritonclient.grpc", reason="make test-serving")
