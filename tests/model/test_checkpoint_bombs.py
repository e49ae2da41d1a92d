"""Small files that would take gigabytes, minutes or the process: each is loaded in a child with little memory."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoint_makers import BOMBS, write

# What a refusal may take: so many bytes beyond what Python and torch take, and so many times the file.
MEMORY, TIMES_FILE = 256 << 20, 4
SECONDS = 60  # of processor time, on a slow machine

CHILD = """
import resource, sys
import clip4str.model.checkpoint as c, clip4str.core.errors as e
from clip4str.model import Clip4Str, Config
import safetensors.torch
for path, room in zip(sys.argv[1::2], map(int, sys.argv[2::2])):
    begin = resource.getrusage(resource.RUSAGE_SELF)
    used = int(open("/proc/self/statm").read().split()[5]) * resource.getpagesize()  # what RLIMIT_DATA counts, nearly
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (used + room, hard))
    try:
        c.load_checkpoint(path)
        outcome = "loaded"
    except e.CheckpointError as error:
        outcome = "refused " + str(error)
    except BaseException as error:
        outcome = "failed " + repr(error)[:300]
    end = resource.getrusage(resource.RUSAGE_SELF)
    print(end.ru_utime + end.ru_stime - begin.ru_utime - begin.ru_stime, outcome.replace("\\n", "|"), flush=True)
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What became of each bomb, by its name: (seconds, words)."""
    if sys.platform != "linux":
        pytest.skip("RLIMIT_DATA is Linux's")
    folder, arguments = tmp_path_factory.mktemp("bombs"), []
    for name, make in BOMBS.items():
        path = write(folder / name, make())
        arguments += [str(path), str(MEMORY + TIMES_FILE * path.stat().st_size)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", CHILD, *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=900, env=environment)
    lines = [line.split(" ", 1) for line in ran.stdout.splitlines()]
    assert ran.returncode == 0 and len(lines) == len(BOMBS), (len(lines), ran.returncode, ran.stderr[-2000:])
    return {name: (float(seconds), outcome) for name, (seconds, outcome) in zip(BOMBS, lines)}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_in_one_line_within_memory_and_time(outcomes, name):
    seconds, outcome = outcomes[name]
    assert re.match(rf"refused \S+{re.escape(name)}: ", outcome), outcome
    assert "|" not in outcome and len(outcome) < 600
    assert not re.search("memory|allocat", outcome, re.IGNORECASE), outcome
    assert seconds < SECONDS
