"""A checkout of the run's own, at a commit that only `run --commit` moves."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from clip4str.core.errors import UsageError

from .places import Places

NEEDED = "training/network_run.py"


@dataclass(frozen=True)
class Commit:
    """sha: 40 digits. subject: first line of its message."""

    sha: str
    subject: str

    def __str__(self) -> str:
        return f'{self.sha[:10]} "{self.subject}"'


def git(folder: Path, *arguments: str) -> str:
    """What git prints. Raises UsageError with its own words."""
    _need_git()
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, errors="replace",
                          stdin=subprocess.DEVNULL)  # fmt: skip
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no reason given"]
        raise UsageError(f"{folder}: git {arguments[0]}: {lines[-1].removeprefix('fatal: ')}")
    return done.stdout.strip()


def _need_git() -> None:
    if shutil.which("git") is None:
        raise UsageError("the run has a checkout of its own and needs git: install it")


def commit_of(folder: Path, revision: str = "HEAD") -> Commit:
    """Raises UsageError if there is none."""
    sha = git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    return Commit(sha, git(folder, "log", "-1", "--format=%s", sha))


def current(places: Places) -> Commit | None:
    """The commit that runs, None before the first start."""
    if not (places.checkout / ".git").exists():
        return None
    return commit_of(places.checkout)


def place(places: Places, revision: str | None) -> Commit:
    """The checkout, made, moved or mended. revision: of the project; None for where it is, at first the project's HEAD.

    Only for who holds the lock. Raises UsageError.
    """
    _need_git()
    if revision is not None or current(places) is None:
        try:
            wanted = commit_of(places.project, revision or "HEAD")
        except UsageError as error:
            known = f"{revision} is no commit of it" if revision else f"no git checkout ({error})"
            raise UsageError(f"{places.project}: {known}") from None
        _fetch(places, wanted)
    else:
        wanted = commit_of(places.checkout)
    lock = places.checkout / ".git" / "index.lock"
    lock.unlink(missing_ok=True)  # of a git that was killed: nobody else works here
    git(places.checkout, "checkout", "--quiet", "--force", "--detach", wanted.sha)
    if not (places.checkout / NEEDED).is_file():
        raise UsageError(f"commit {wanted} has no {NEEDED}: choose a newer one with --commit")
    return wanted


def uncommitted(places: Places) -> bool:
    """Whether the project holds changes that the run would not see."""
    return bool(git(places.project, "status", "--porcelain", "--untracked-files=no"))


def _fetch(places: Places, wanted: Commit) -> None:
    if current(places) is None:
        partial = places.home / ".checkout.part"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(places.checkout, ignore_errors=True)
        git(places.home, "clone", "--quiet", "--no-checkout", str(places.project), str(partial))
        partial.rename(places.checkout)
    try:
        commit_of(places.checkout, wanted.sha)
    except UsageError:
        git(places.checkout, "fetch", "--quiet", str(places.project), wanted.sha)
