"""Installs the fonts that font_packages.tsv names: Debian packages, and single faces out of npm packages.

From npm come families in the Latin subset, a woff2 of 10 to 30 KB for each face; nothing of a package is run. The
versions are pinned, so that two machines get the same files. Beside them families.tsv says what each file is, with
the licence that its package states.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from clip4str.core.atomic_files import replaced
from clip4str.core.errors import DataError

LIST = Path(__file__).with_name("font_packages.tsv")
FAMILIES = "families.tsv"
HEADER = "file\tpackage\tversion\tlicence"
BATCH = 50  # npm packages installed at once: what an interruption can cost
MOST_BYTES = 1 << 20  # of a font file; Latin subsets have a fiftieth of that
OFFLINE = re.compile(r"ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|ERR_SOCKET_TIMEOUT")
NPM = ("npm", "install", "--no-save", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock",
       "--fetch-retries=1", "--fetch-timeout=60000", "--loglevel=error")  # fmt: skip
_DEBIAN = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_NPM = re.compile(r"@[a-z0-9-]+/[a-z0-9-]+")
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_FACE = re.compile(r"[A-Za-z0-9-]+(?:-latin-(?P<web>\d+|wght)-(?P<style>normal|italic)\.woff2"
                   r"|_(?P<full>\d+)[A-Za-z]+(?P<italic>_Italic)?\.ttf)")  # fmt: skip


class Package(NamedTuple):
    """An npm package of fonts."""

    name: str
    version: str


class Row(NamedTuple):
    """A line of families.tsv; file is "-" for a package without a usable face."""

    file: str
    package: str
    version: str
    licence: str


def read_list(path: Path = LIST) -> tuple[list[str], list[Package]]:
    """Debian packages and npm packages. Raises DataError for a line that names neither."""
    debian, npm = [], []
    for line in path.read_text(encoding="utf-8").splitlines():
        match line.split("\t"):
            case ["debian", name] if _DEBIAN.fullmatch(name):
                debian.append(name)
            case ["npm", name, version] if _NPM.fullmatch(name) and _VERSION.fullmatch(version):
                npm.append(Package(name, version))
            case _ if line and not line.startswith("#"):
                raise DataError(f"{path}: neither a Debian nor an npm package: {line!r}")
    return debian, npm


def install_debian(names: Sequence[str]) -> str | None:
    """Installs the packages that are missing; returns what could not be done, in one line, or None."""
    if not shutil.which("dpkg-query") or not shutil.which("apt-get"):
        return "Debian's fonts are left out: there is no apt-get here"
    there = _installed(names)
    missing = [name for name in names if name not in there]
    if not missing:
        return None
    if os.geteuid() != 0:
        return (f"{len(missing)} Debian packages are left out, which need root: apt-get install "
                f"--no-install-recommends {' '.join(missing[:3])} ... (training/{LIST.name} has all)")  # fmt: skip
    _apt("update")
    if not _apt("install", *missing):  # maybe one is not in this release
        missing = [name for name in missing if not _apt("install", name)]
        if missing:
            return f"{len(missing)} Debian packages could not be installed: {', '.join(missing[:10])}"
    return None


def _installed(names: Sequence[str]) -> set[str]:
    command = ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *names]
    listing = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return {line.split()[0] for line in listing.splitlines() if line.endswith(" installed")}


def _apt(verb: str, *names: str) -> bool:
    # Waits for an apt-get that goes on after its caller was killed, not long for a network that is not there.
    patience = ["-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=0", "-o", "Acquire::http::Timeout=20"]
    command = ["apt-get", "-qq", "-y", "--no-install-recommends", *patience, verb, *names]
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(command, env=quiet, capture_output=True, stdin=subprocess.DEVNULL, check=False)
    return done.returncode == 0


def fetch_npm(packages: Sequence[Package], folder: Path) -> str | None:
    """Brings the faces of those packages that families.tsv lacks into `folder`.

    What was fetched stays after an interruption. Returns what could not be done, in one line, or None.
    """
    rows = read_families(folder)
    wanted = sorted(set(packages) - {Package(row.package, row.version) for row in rows})
    if not wanted:
        return None
    if not shutil.which("npm"):
        return f"the fonts of {len(wanted)} npm packages are left out: there is no npm here"
    for left in folder.glob(".npm-*"):  # by a call that was killed
        shutil.rmtree(left, ignore_errors=True)
    failed: list[Package] = []
    queue = [wanted[i : i + BATCH] for i in range(0, len(wanted), BATCH)]
    with tqdm(total=len(wanted), desc="font packages", disable=not sys.stderr.isatty(), leave=False) as bar:
        while queue:
            batch = queue.pop(0)
            with tempfile.TemporaryDirectory(dir=folder, prefix=".npm-") as place:
                problem = _npm_install(batch, Path(place))
                if problem is None:
                    for package in batch:
                        rows += _keep(package, Path(place, "node_modules", package.name), folder)
                    _write_families(rows, folder)
                    bar.update(len(batch))
            if problem is not None and OFFLINE.search(problem):
                return "the fonts of npm packages are left out: npm does not reach its registry"
            if problem is not None and len(batch) > 1:  # maybe it is one of them
                middle = len(batch) // 2
                queue += [batch[:middle], batch[middle:]]
            elif problem is not None:
                failed += batch
    return f"{len(failed)} npm packages could not be had: {', '.join(p.name for p in failed[:10])}" if failed else None


def _npm_install(batch: Sequence[Package], place: Path) -> str | None:
    """None, or what npm said."""
    command = [*NPM, "--prefix", str(place), *(f"{package.name}@{package.version}" for package in batch)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=place, check=False)
    return None if done.returncode == 0 else done.stderr or f"npm ended with {done.returncode}"


def _keep(package: Package, source: Path, folder: Path) -> list[Row]:
    """Copies the chosen faces of an installed package."""
    licence = stated_licence(source)
    found = {path.name: path for path in source.rglob("*") if path.is_file() and not path.is_symlink()}
    chosen = [name for name in choose_faces(found) if found[name].stat().st_size <= MOST_BYTES]
    for name in chosen:
        with replaced(folder / name, durable=False) as draft:
            shutil.copyfile(found[name], draft)
    return [Row(name, *package, licence) for name in chosen or ["-"]]


def choose_faces(names: Iterable[str]) -> list[str]:
    """Of the files of a family: the upright faces closest to weight 400 and to 700, and an italic one."""
    upright: dict[str, int] = {}
    italic: dict[str, int] = {}
    for name in names:
        match = _FACE.fullmatch(name)
        if match:
            slanted = match["style"] == "italic" or match["italic"] is not None
            weight = match["web"] or match["full"]
            # A variable font is drawn as it is by default, which is about regular.
            (italic if slanted else upright)[name] = 400 if weight == "wght" else int(weight)
    return sorted({_closest(part, weight) for part, weight in ((upright, 400), (upright, 700), (italic, 400)) if part})


def _closest(weights: Mapping[str, int], weight: int) -> str:
    return min(sorted(weights), key=lambda name: abs(weights[name] - weight))


def stated_licence(source: Path) -> str:
    """The SPDX name that a package gives for its font; "unknown" where it gives none."""
    for name in ("metadata.json", "package.json"):
        try:
            stated = json.loads((source / name).read_text(encoding="utf-8"))["license"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if isinstance(stated, dict):
            stated = stated.get("type")
        # "MIT AND OFL-1.1" are the package's code and its font.
        plain = stated.split(" AND ")[-1] if isinstance(stated, str) else ""
        if re.fullmatch(r"[A-Za-z0-9.+-]{2,40}", plain):
            return plain
    return "unknown"


def read_families(folder: Path) -> list[Row]:
    """The rows of families.tsv whose files are there; none where there is no such list."""
    try:
        lines = (folder / FAMILIES).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return []
    rows = [Row(*cells) for cells in (line.split("\t") for line in lines[1:]) if len(cells) == len(Row._fields)]
    lost = {row.package for row in rows if row.file != "-" and not (folder / row.file).is_file()}
    return [row for row in rows if row.package not in lost]


def _write_families(rows: Sequence[Row], folder: Path) -> None:
    with replaced(folder / FAMILIES) as draft:
        draft.write_text("\n".join((HEADER, *("\t".join(row) for row in sorted(rows)), "")), encoding="utf-8")
