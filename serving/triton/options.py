"""How a Triton server runs a model, as asked for on the command line."""

from __future__ import annotations

from dataclasses import dataclass

from clip4str.core.errors import UsageError

BACKENDS = ("auto", "tensorrt", "torch", "onnxruntime")
QUEUES = 4  # times the largest batch wait at most, where nothing else is asked for
MOST = {"instances": 64, "max_batch": 4096, "delay_ms": 10_000, "queue": 1_000_000, "timeout_ms": 3_600_000,
        "threads": 1024, "keep": 16}  # fmt: skip


@dataclass(frozen=True)
class Serving:
    """instances: processes that hold the network, on each GPU or on the CPU. gpus: their numbers, none for the CPU.
    max_batch: pictures read at once. delay_ms: that a picture waits for others. queue: requests that wait at most,
    None for QUEUES batches: further ones are refused at once. timeout_ms: that a request waits at most. threads: of the
    CPU for each instance, None for an even share of the server's. keep: versions served at a time."""

    name: str = "clip4str"
    backend: str = "auto"
    instances: int = 1
    gpus: tuple[int, ...] = ()
    max_batch: int = 16
    delay_ms: float = 2.0
    queue: int | None = None
    timeout_ms: int = 1000
    threads: int | None = None
    keep: int = 1

    @property
    def most_waiting(self) -> int:
        return QUEUES * self.max_batch if self.queue is None else self.queue

    def check(self) -> None:
        """Raises UsageError."""
        if not self.name or not self.name.isascii() or not all(c.isalnum() or c in "_-" for c in self.name):
            raise UsageError(f"--name is of letters, digits, - and _, not {self.name!r}")
        if len(self.name) > 64:
            raise UsageError(f"--name has {len(self.name)} characters; at most 64")
        if self.backend not in BACKENDS:
            raise UsageError(f"--backend is one of {', '.join(BACKENDS)}, not {self.backend!r}")
        for field, most in MOST.items():
            value, least = getattr(self, field), 0 if field == "delay_ms" else 1
            if value is not None and not least <= value <= most:
                raise UsageError(f"--{field.replace('_', '-')} is {least} to {most}, not {value}")
        if len(set(self.gpus)) != len(self.gpus):
            raise UsageError(f"--gpus names a GPU twice: {','.join(map(str, self.gpus))}")
        if self.gpus and self.backend == "onnxruntime":
            raise UsageError("--gpus is for tensorrt and torch; onnxruntime reads on the CPU here")
        if not self.gpus and self.backend == "tensorrt":
            raise UsageError("tensorrt needs a GPU: --gpus 0")
