"""A real broker, and an independent subscriber to it."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from pathlib import Path

LONG = 20.0  # seconds that nothing here takes


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(true, seconds: float = LONG) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "never came true"
        time.sleep(0.01)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Broker:
    """mosquitto on a port of its own, with a password file; killed and started again at will, at the same port."""

    USER, PASSWORD = "camera", "s3cret/word@#"

    def __init__(self, folder: Path, *lines: str, port: int | None = None) -> None:
        self.port, self.folder = port or free_port(), folder
        passwords = folder / "passwords"
        passwords.touch(mode=0o600)
        subprocess.run(["mosquitto_passwd", "-b", passwords, self.USER, self.PASSWORD], check=True, capture_output=True)
        settings = [f"listener {self.port} 127.0.0.1", "allow_anonymous false", f"password_file {passwords}",
                    "user root", *lines]  # fmt: skip
        (folder / "mosquitto.conf").write_text("\n".join(settings) + "\n")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Broker:
        command = ["/usr/sbin/mosquitto", "-c", str(self.folder / "mosquitto.conf")]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(lambda: listens(self.port))
        return self

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    __enter__ = start

    def __exit__(self, *_: object) -> None:
        self.kill()


class Subscriber:
    """mosquitto_sub, which connects again by itself. lines: "retained topic payload" as they came."""

    def __init__(self, broker: Broker, topic: str, *options: str) -> None:
        command = ["mosquitto_sub", "-h", "localhost", "-p", str(broker.port), "-u", broker.USER, "-P", broker.PASSWORD,
                   "-t", topic, "-q", "1", "-F", "%r %t %p", *options]  # fmt: skip
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.lines: list[str] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def __enter__(self) -> Subscriber:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()
        self._thread.join(LONG)
