"""What the GPU suite's sections report to in tests."""

from __future__ import annotations

from types import SimpleNamespace

from clip4str.benchmarks.gpu.supervisor import Reporter


class Kept(Reporter):
    """A reporter without a pipe."""

    def __init__(self, seconds: float = 1e6) -> None:
        super().__init__("check", seconds, SimpleNamespace(send=lambda what: self.sent.append(what)), {})  # type: ignore[arg-type]
        self.sent: list = []

    def of(self, kind: str) -> list[tuple[str, str]]:
        return [(what["what"], what["why"]) for sent, _, what in self.sent if sent == kind]
