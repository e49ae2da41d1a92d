"""How many 1080p streams a device would follow and read, predicted: by its video decoder, its GPU, and its processor.

Frames are decoded on the device and stay there (docs/gpu.md, "Frames that stay on the GPU"). What a second of a stream
asks for is worked out from committed figures of generated videos (results/video.json) and from the launches of the
kernels, the detector and the network.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clip4str.benchmarks.detector_launches import detector_launches
from clip4str.benchmarks.devices import Device
from clip4str.benchmarks.figures import markdown
from clip4str.benchmarks.launches import Cut, Launch
from clip4str.benchmarks.predictions import CONFIRM, PASSES, predict, stage
from clip4str.model import Config

MEASURED = Path(__file__).parent / "results" / "video.json"
FRAME, SMALL, SEARCHED = (1080, 1920), (360, 640), (352, 640)
RATE, EVERY, BATCH = 30.0, 5, 32  # frames a second; from search to search, of a scene that moves; words in a batch
BUSY = 0.8  # of the GPU and the processor, at most
WORD = (40, 120)  # pixels of a word's crop


@dataclass(frozen=True)
class Decoder:
    """streams: of 1080p at 30 frames a second, as published or worked out of what is. cores: of the board's processor,
    None where the machine is the user's choice."""

    streams: int
    source: str
    cores: int | None = None


_T4 = "T4 data sheet: 38 full-HD streams by two decoders, 19 each"
DECODERS = {
    "orin-nano": Decoder(11, "Orin Nano data sheet: 11 x 1080p30 (H.265)", 6),
    "orin-nx": Decoder(18, "Orin NX 16GB data sheet: 18 x 1080p30 (H.265)", 8),
    "agx-orin": Decoder(22, "AGX Orin 64GB data sheet: 22 x 1080p30 (H.265)", 12),
    "thor": Decoder(92, "T5000 data sheet: 92 x 1080p30 (H.265)", 14),
    "t4": Decoder(38, _T4),
    "l4": Decoder(76, "four decoders (video support matrix), each taken for as fast as a T4's; they are newer"),
    "a10": Decoder(38, "two decoders (video support matrix), each taken for as fast as a T4's; they are newer"),
    "h100": Decoder(133, "seven decoders (video support matrix), each taken for as fast as a T4's, of one generation"),
    "h200": Decoder(133, "seven decoders (video support matrix), each taken for as fast as a T4's, of one generation"),
}


def stream_predictions(
    networks: Mapping[str, Config], chosen: Mapping[str, Device], model: Path, measured: Path = MEASURED
) -> dict[str, Any]:
    """The report. model: the detector's ONNX file."""
    asked = demand(json.loads(measured.read_text()))
    detector = [*_thumbnail(3), *detector_launches(model, SEARCHED)]
    return {
        "status": CONFIRM,
        "assumed": {"rate": RATE, "search_every": EVERY, "batch": BATCH, "busy": BUSY, "passes": list(PASSES), **asked},
        "devices": {key: {**asdict(device), "decoder": asdict(DECODERS[key])} for key, device in chosen.items()},
        "rows": [
            {"network": name, "device": key, **_predict(device, DECODERS[key], config, detector, asked)}
            for name, config in networks.items()
            for key, device in chosen.items()
        ],
    }


def demand(video: Mapping[str, Any]) -> dict[str, float]:
    """Of a frame of the generated videos: crops read, and milliseconds of one core for following and judging words,
    which depend on the words and not on the size of the frame."""
    stages = video["stages_ms_per_frame"]
    return {
        "reads_per_frame": video["chosen reads"]["reads"] / video["frames"],
        "host_ms_per_frame": stages["flow"] + stages["quality"],
    }


def _predict(
    device: Device, decoder: Decoder, config: Config, detector: list[Launch], asked: Mapping[str, float]
) -> dict[str, Any]:
    """For a second of one stream: microseconds of the GPU by what it does, milliseconds of a core; streams by limit."""
    height, width = config.image_size
    crop = 3 * 4 * height * width + 1.5 * WORD[0] * WORD[1] + 32
    cutting = stage(device, [Launch("crop", BATCH * crop, 0.0, (Cut(BATCH, crop, 0.0),))])["us"] / BATCH
    batch = predict(device, config, BATCH, "fp16")
    reads = RATE * asked["reads_per_frame"]
    gpu = {
        "shrink_us": RATE * (stage(device, _thumbnail(1))["us"] + _copied(device, SMALL[0] * SMALL[1])),
        "search_us": RATE / EVERY * (stage(device, detector)["us"] + _copied(device, 2 * SEARCHED[0] * SEARCHED[1])),
        "read_us": reads * (cutting + batch["gpu_us"] / BATCH),
    }
    host_ms = device.host * RATE * asked["host_ms_per_frame"] + reads * batch["host_us"] / BATCH / 1000
    by_gpu = int(BUSY * 1e6 / sum(gpu.values()))
    by_host = None if decoder.cores is None else int(BUSY * 1000 * decoder.cores / host_ms)
    limits = {"decoder": decoder.streams, "gpu": by_gpu, **({} if by_host is None else {"processor": by_host})}
    least = min(limits, key=lambda name: limits[name])
    return {**gpu, "host_ms": host_ms, "limits": limits, "streams": limits[least], "bound_by": least,
            "cores": limits[least] * host_ms / 1000 / BUSY}  # fmt: skip


def _thumbnail(channels: int) -> list[Launch]:
    """kernels/thumbnail of an NV12 frame."""
    moved = FRAME[0] * FRAME[1] * (1.5 if channels == 3 else 1) + channels * SMALL[0] * SMALL[1]
    blocks = SMALL[0] * -(-SMALL[1] // 128)
    return [Launch("thumbnail", moved, 0.0, (Cut(blocks, moved / blocks, 0.0),))]


def _copied(device: Device, size: float) -> float:
    """Microseconds to the host."""
    return size / (device.bus * 1e3) if device.bus else 0.0


def stream_table(report: Mapping[str, Any]) -> str:
    """Markdown: assumptions, and a row for every network and device."""
    a, devices = report["assumed"], report["devices"]
    lines = [
        [row["network"], devices[row["device"]]["name"], row["limits"]["decoder"], row["limits"]["gpu"],
         row["limits"].get("processor", "-"), row["streams"], row["bound_by"], f"{row['cores']:.1f}",
         *(f"{row[key] / 1000:.1f}" for key in ("shrink_us", "search_us", "read_us"))]
        for row in report["rows"]
    ]  # fmt: skip
    heads = ("network", "device", "by the decoder", "by the GPU", "by its processor", "streams", "bound by",
             "cores for them", "GPU ms/s: shrink", "search", "read")  # fmt: skip
    return "\n\n".join([
        f"{report['status'].capitalize()}. Streams of 1080p at {a['rate']:g} frames a second, decoded on the device, "
        f"words searched in every {a['search_every']}th frame, {a['reads_per_frame']:.2f} crops read a frame and "
        f"{a['host_ms_per_frame']:.1f} ms of one core a frame for following them (results/video.json), times the "
        f"device's factor; engines in half precision, words in batches of {a['batch']}; GPU and processor at most "
        f"{100 * a['busy']:.0f} % busy.",
        markdown(heads, lines, texts=2),
        "\n".join(f"{d['name']}: {d['decoder']['source']}" for d in devices.values()),
    ])  # fmt: skip
