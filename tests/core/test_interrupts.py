"""Ctrl-C and SIGTERM, as a user or a container sends them: soon, quiet, and with the exit code that shells know."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")

# The console command with a stand-in for what it runs: argv says what that does when the signal comes.
PROGRAM = """
import hashlib, sys, time, types
from clip4str.core import cli, interrupts

def waits(error=None):
    try:
        print("started", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        if error is None:
            raise
        raise error from None

def main(argv):
    how = sys.argv[1]
    if how == "plain":
        waits()
    elif how == "import":  # what extension modules raise where they are interrupted while they load
        waits(ImportError("numpy._core.multiarray failed to import"))
    elif how == "reported":
        waits(cli.Clip4StrError("onnxruntime cannot be imported"))
    elif how == "deaf":  # a library's long call, which no KeyboardInterrupt reaches
        interrupts.PATIENCE = 0.2
        print("started", flush=True)
        hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
    elif how == "deleting":  # what is raised while an object goes, Python drops
        class Slow:
            def __del__(self):
                print("started", flush=True)
                time.sleep(1)
        Slow()
        time.sleep(60)
    elif how == "says so":
        try:
            waits()
        except KeyboardInterrupt:
            print("nothing was written")
            return 130
    elif how == "finishes":
        try:
            waits()
        except KeyboardInterrupt:
            return 0

stand_in = sys.modules["stand_in"] = types.ModuleType("stand_in")
stand_in.main = main
cli.commands = lambda: {"stand-in": cli.Command("stand_in", "", "", False)}
sys.exit(cli.main(["stand-in"]))
"""


def heeding() -> None:
    """In the child: a test that runs in the background may have been given signals that are ignored."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def start(*command: str, **more: int) -> subprocess.Popen[str]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
    return subprocess.Popen([sys.executable, *command], text=True, preexec_fn=heeding, **pipes)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("how", ["plain", "import", "reported", "deaf", "deleting"])
def test_a_signal_ends_a_command_quietly_whatever_it_is_doing(how, number):
    child = start("-c", PROGRAM, how)
    assert child.stdout is not None and child.stdout.readline() == "started\n"
    time.sleep(0.2 * (how == "deaf"))  # until it is in the call; before, it would hear
    child.send_signal(number)
    out, err = child.communicate(timeout=30)
    assert child.returncode == 128 + number and out == "" and "Traceback" not in err
    assert err.splitlines()[-1:] in ([], ["interrupted"]) and len(err.splitlines()) <= 1 + (how == "reported"), err


def test_a_command_that_finishes_all_the_same_has_its_own_exit_code():
    child = start("-c", PROGRAM, "finishes")
    assert child.stdout is not None and child.stdout.readline() == "started\n"
    child.send_signal(signal.SIGINT)
    assert child.communicate(timeout=30) == ("", "") and child.returncode == 0


SCRIPT = """
import time
from clip4str.core.console import run_script
def main(argv):
    print("started", flush=True)
    time.sleep(60)
raise SystemExit(run_script("script.py", main))
"""


def test_scripts_end_in_the_same_way():
    child = start("-c", SCRIPT)
    assert child.stdout is not None and child.stdout.readline() == "started\n"
    child.send_signal(signal.SIGTERM)
    assert child.communicate(timeout=30) == ("", "interrupted\n") and child.returncode == 143


def test_a_command_that_said_itself_that_it_was_interrupted_is_not_repeated():
    child = start("-c", PROGRAM, "says so")
    assert child.stdout is not None and child.stdout.readline() == "started\n"
    child.send_signal(signal.SIGTERM)
    assert child.communicate(timeout=30) == ("nothing was written\n", "") and child.returncode == 143


# A signal out of the middle of an import: of the command's own modules, of numpy, of Pillow.
WHILE_IMPORTING = """
import builtins, os, signal, sys
left, real = int(sys.argv[1]), builtins.__import__
def importing(name, *rest, **more):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGINT)
    return real(name, *rest, **more)
builtins.__import__ = importing
from clip4str.core.cli import main
sys.exit(main(["read", "no-such-file.png"]))
"""


@pytest.mark.parametrize("after", [15, 40, 400, 1200])
def test_ctrl_c_while_modules_load_has_no_traceback(after):
    done = start("-c", WHILE_IMPORTING, str(after))
    out, err = done.communicate(timeout=60)
    assert (done.returncode, out) == (130, "") and err in ("", "interrupted\n"), err


def test_a_command_that_hears_the_signal_is_not_ended_under_its_clean_up(monkeypatch):
    from clip4str.core import interrupts

    monkeypatch.setattr(interrupts, "PATIENCE", 0.05)
    with interrupts.Interrupts() as heard:
        heard.end_soon()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    time.sleep(0.2)  # ended by now, with all other tests, were it not over
    assert heard.exit_code == 143


def test_handlers_are_what_they_were_and_those_of_others_are_left_alone():
    from clip4str.core.interrupts import Interrupts

    def mine(number, frame):
        pass

    before = signal.signal(signal.SIGTERM, mine), signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interrupts() as interrupts:
            assert signal.getsignal(signal.SIGTERM) is mine and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            signal.signal(signal.SIGINT, signal.default_int_handler)
        with Interrupts() as interrupts:
            interrupts.end_soon()
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            assert interrupts.exit_code == 130
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])


@pytest.mark.parametrize("lines", [1, 100_000])
@pytest.mark.parametrize("how", ["script", "command"])
def test_nobody_reads_on(how, lines):
    """As in `| head`, with what fits the buffer and with more."""
    printing = f"lambda argv: print('line\\n' * {lines}, end='') or 0"
    run = {
        "script": f"from clip4str.core.console import run_script; sys.exit(run_script('some.py', {printing}))",
        "command": "from clip4str.core import cli; import types; stand_in = sys.modules['s'] = types.ModuleType('s'); "
        f"stand_in.main = {printing}; cli.commands = lambda: {{'s': cli.Command('s', '', '', False)}}; "
        "sys.exit(cli.main(['s']))",
    }
    child = start("-c", f"import sys; sys.stdin.read(); {run[how]}", stdin=subprocess.PIPE)
    assert child.stdout is not None and child.stdin is not None and child.stderr is not None
    child.stdout.close()
    child.stdin.close()
    assert child.stderr.read() == "" and child.wait(timeout=30) == 0
