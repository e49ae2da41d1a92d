"""What a server is started with: of the command, and of a Serve configuration file (`args:`)."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

VARIABLE = "CLIP4STR_SERVE_TOKEN"


class Settings(BaseModel):
    """bundle: its folder, under the same name on every machine, "" for the packaged network. version: that it must
    have, "" for any: replicas with another one do not start. Secrets are no settings, as Ray shows those: need_token
    says that VARIABLE, or token_file, must have one where a replica runs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bundle: str = ""
    version: str = ""
    backend: str = "auto"
    dtype: str = ""  # of torch and openvino, as `clip4str read --dtype`
    threads: int = Field(1, ge=1, le=1024)  # of a CPU, for each batch; `cpus` batches are read beside each other
    batch_size: int | None = Field(None, ge=1, le=4096)
    wait_ms: float = Field(5.0, ge=0, le=10_000)  # that a batch waits to be filled
    photos: bool = True  # /read_photo, where what it needs is installed
    max_images: int = Field(64, ge=1, le=100_000)  # of a request
    max_bytes: int = Field(64 << 20, ge=1024, le=1 << 32)  # of a request
    max_waiting: int = Field(256, ge=1, le=1_000_000)  # images of a replica that are being read or wait for it
    replicas: tuple[int, int] = (1, 1)  # at least, at most
    busy: float = Field(32.0, gt=0)  # requests a replica beyond which there are more of them
    surge: int = Field(25, ge=0, le=100)  # percent of replicas that there may be more of while they are replaced
    cpus: float = Field(1.0, ge=0, le=1024)  # that a replica takes
    gpus: float = Field(0.0, ge=0, le=64)
    need_token: bool = False
    token_file: str = ""

    @property
    def inside(self) -> int:
        """Requests, each of a picture at least, beyond which every replica would refuse."""
        return self.max_waiting * self.replicas[1]
