"""A home of the long run with a tiny bundled network, and what training leaves in it."""

from __future__ import annotations

import json
from pathlib import Path

from stand_in import HEADER, write_state
from tiny import tiny_network

from clip4str.model import save_checkpoint
from clip4str.training.network import states
from clip4str.training.network.places import Places, places

LOG = HEADER + "50,500,10,0.1,2,2,100,\n100,1000,20,0.1,1.5,1.5,110,0.6\n150,1500,30,0.1,1,1.0,120,0.5\n150,1"


def home(folder: Path) -> Places:
    """Places beside each other in the folder, with a bundled network in the checkout."""
    found = places(folder / "project", {})
    bundled = found.checkout / "model/bundled/small"
    bundled.mkdir(parents=True)
    save_checkpoint(tiny_network(1), bundled / "weights.safetensors")
    return found


def write_run(where: Places, step: int, name: str = states.LAST, words: int | None = None) -> Path:
    where.run.mkdir(exist_ok=True)
    state = {
        "global_step": step,
        "callbacks": {"Logbook": {"words": 10 * step}},
        "clip4str_training": {"elapsed": 60.0},
    }
    write_state(where.run / name, state)
    if words is not None:
        (where.run / states.START).write_text(json.dumps({"source": "x", "words": words}))
    return where.run / name


def spoil(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "cut":
        content = content[: len(content) // 2]
    else:
        content[len(content) // 2] ^= 1
    path.write_bytes(content)
