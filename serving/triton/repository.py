"""A folder that tritonserver takes as --model-repository, with the bundle in it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import clip4str
from clip4str.core.errors import UsageError
from clip4str.export.atomic_folder import atomic_folder
from clip4str.runtime.bundle import MANIFEST, Bundle
from clip4str.serving.versions import bundle_version

from .options import Serving
from .pbtxt import python_config
from .served_model import BUNDLE

MARK = "clip4str.json"  # at the top of a repository: the server looks at folders alone
KIND = "repository of clip4str"
_MODEL = '''\
"""Written by clip4str {version}, which the server's Python must have: pip install clip4str."""

from clip4str.serving.triton.served_model import TritonPythonModel  # noqa: F401
'''

Say = Callable[[str], object]


def write_repository(bundle: Bundle, target: Path, serving: Serving, force: bool, say: Say) -> None:
    """A repository with the Python model, as version 1: all of it or none. Raises UsageError, BundleError, OSError."""
    check_fits(bundle, serving)
    with atomic_folder(target, force, MARK, KIND) as folder:
        model = folder / serving.name
        model.mkdir()
        (model / "config.pbtxt").write_text(python_config(serving), encoding="utf-8")
        _write_version(bundle, model / "1")
        write_mark(folder, serving.name, "python")
    say(f"{target}: model {serving.name}, version 1 is {bundle_version(bundle.manifest)}")


def add_version(bundle: Bundle, target: Path, say: Say) -> None:
    """The bundle as the next version of the model in a repository that is there. config.pbtxt stays as it is."""
    name = _python_model_of(target)
    model = target / name
    numbers = [int(path.name) for path in model.iterdir() if path.name.isdecimal() and path.name.isascii()]
    number = max(numbers, default=0) + 1
    with atomic_folder(model / str(number), False, "model.py", "version") as folder:
        _write_version(bundle, folder)
    say(f"{target}: version {number} of {name} is {bundle_version(bundle.manifest)}; a server takes it when it is told "
        f"to load {name} again")  # fmt: skip


def check_fits(bundle: Bundle, serving: Serving) -> None:
    """Raises UsageError where the bundle cannot do what is asked."""
    if serving.backend == "tensorrt" and not bundle.manifest.engines:
        raise UsageError(f"{bundle.folder}: it has no engines; clip4str build {bundle.folder} --target tensorrt")
    most = largest_batch(bundle, serving.backend)
    if serving.max_batch > most:
        raise UsageError(f"--max-batch {serving.max_batch}: the bundle was built for {most} images at most")


def largest_batch(bundle: Bundle, backend: str) -> int:
    """Pictures that it reads at once."""
    engines = bundle.manifest.engines if backend == "tensorrt" else {}
    return engines["profile"]["max"] if engines else bundle.manifest.max_batch


def write_mark(folder: Path, name: str, form: str) -> None:
    text = json.dumps({"clip4str": clip4str.__version__, "model": name, "form": form}, indent=1)
    (folder / MARK).write_text(text + "\n", encoding="utf-8")


def _write_version(bundle: Bundle, folder: Path) -> None:
    """model.py, and a copy of the bundle: of the files that its manifest lists, compared with their sha256."""
    (folder / BUNDLE).mkdir(parents=True)
    for name in bundle.manifest.files:
        shutil.copyfile(bundle.folder / name, folder / BUNDLE / name, follow_symlinks=False)
    (folder / BUNDLE / MANIFEST).write_text(bundle.manifest.to_json(), encoding="utf-8")
    Bundle.open(folder / BUNDLE)
    (folder / "model.py").write_text(_MODEL.format(version=clip4str.__version__), encoding="utf-8")


def _python_model_of(target: Path) -> str:
    """The name of a repository's model. Raises UsageError."""
    try:
        mark: Any = json.loads((target / MARK).read_text(encoding="utf-8"))
        name, form = str(mark["model"]), mark["form"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(f"{target}: no {KIND}; without --add one is written") from None
    Serving(name=name).check()  # it becomes a folder's
    if form != "python":
        raise UsageError(f"{target}: an ensemble's graphs would not change all at once; write another --output")
    return name
