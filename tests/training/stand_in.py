"""What stands in for training/train.py where the run around it is tested: counts steps and saves as it does."""

from __future__ import annotations

import argparse
import os
import pickle
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

HEADER = "step,words,minutes,lr,loss,visual,words_per_second,validation_visual\n"
WORKER = "import sys, time\nwhile True: open(sys.argv[1], 'a').write('x'); time.sleep(0.02)"


def write_state(path: Path, state: dict[str, object]) -> None:
    """As torch.save writes what holds no tensors; importing torch is slow."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("state/data.pkl", pickle.dumps(state, protocol=2))
        archive.writestr("state/version", "3\n")
        archive.writestr("state/filler", bytes(1_000_000))


def begun_at(path: Path) -> int:
    if not path.exists():
        return 0
    with zipfile.ZipFile(path) as archive:
        return int(pickle.loads(archive.read("state/data.pkl"))["global_step"])


def main() -> int:
    p = argparse.ArgumentParser()
    p.add_argument("--output", type=Path, required=True)
    p.add_argument("--init", required=True)
    p.add_argument("--steps", type=int, default=0)
    args, _ = p.parse_known_args()
    told = []
    signal.signal(signal.SIGTERM, lambda *_: told.append(True))
    last, log = args.output / "last.ckpt", args.output / "log.csv"
    step = begun_at(last)
    print(f"begins at step {step} as {os.getpid()}", flush=True)
    worker = subprocess.Popen([sys.executable, "-c", WORKER, str(args.output / "worker.txt")])

    def save() -> None:
        state = {"global_step": step, "callbacks": {"Logbook": {"words": 10 * step, "scores": {}}},
                 "clip4str_training": {"elapsed": float(step)}}  # fmt: skip
        write_state(args.output / ".last.ckpt.part", state)
        os.replace(args.output / ".last.ckpt.part", last)
        with (args.output / "steps.txt").open("a") as file:
            file.write(f"{step}\n")

    while not told and (not args.steps or step < args.steps):
        step += 1
        if not log.exists():
            log.write_text(HEADER)
        with log.open("a") as file:
            file.write(f"{step},{10 * step},{step / 60},0.1,{1 / step},{1 / step},123,0.5\n")
        if step % 5 == 0:
            save()
        time.sleep(0.02)
    save()
    worker.kill()
    print("told to stop" if told else "done", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
