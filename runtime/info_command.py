"""clip4str info: what a bundle or a checkpoint is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clip4str.core.console import Parser
from clip4str.core.errors import BackendError, one_line

from .bundle import Bundle
from .read_command import announced_bundle
from .what_is import is_checkpoint_file

_MOST_LISTED = 5  # of a list or an object; --json has all
_SHOWN_DEPTH = 3
_MOST_TEXT, _SHOWN_TEXT = 200, 80


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(
        prog="clip4str info",
        description="Show what a bundle (folder) or a checkpoint (file) is. A bundle's files are checked on the way.",
    )
    parser.add_argument("path", nargs="?", help="bundle folder or checkpoint file (default: as of read)")
    parser.add_argument("--json", action="store_true", help="everything, as one JSON object")
    args = parser.parse_args(argv)
    path = Path(args.path) if args.path else announced_bundle()
    facts = _checkpoint(path) if is_checkpoint_file(path) else _bundle(path)
    if args.json:
        print(json.dumps(facts, indent=1))
        return 0
    for key, value in _short(facts).items():
        _print(key, value)
    return 0


def _bundle(path: Path) -> dict[str, Any]:
    m = Bundle.open(path).manifest
    size = sum(entry["bytes"] for entry in m.files.values())
    return {
        "bundle": str(path),
        "name": m.name,
        "precision": m.precision,
        "size": f"{size / 1e6:.1f} MB",
        "network": m.config,
        "confidence": _confidence(m.temperature),
        "normalization": m.normalization,
        "charset": m.charset,
        "charset_test": m.charset_test,
        "max_batch": m.max_batch,
        "stages": m.stages,
        "checkpoint": m.checkpoint,
        "built_by": m.built_by,
        "parity": m.parity,
        **({"quantization": m.quantization} if m.quantization else {}),
        **({"engines": m.engines} if m.engines else {}),
        "files": f"{len(m.files)}, all as the manifest says (sha256)",
    }


def _checkpoint(path: Path) -> dict[str, Any]:
    try:
        from clip4str.model import load_checkpoint
    except ModuleNotFoundError as error:
        raise BackendError(f"{path}: a checkpoint needs {error.name}; pip install 'clip4str[export]'") from None
    notes: list[str] = []
    model = load_checkpoint(path, say=notes.append)
    parameters = sum(p.numel() for p in model.parameters())
    return {
        "checkpoint": str(path),
        "parameters": f"{parameters / 1e6:.1f} M",
        "network": model.config.to_dict(),
        "confidence": _confidence(model.config.temperature),
        **({"notes": "; ".join(notes)} if notes else {}),
    }


def _confidence(temperature: float) -> str:
    return "the network's own, not calibrated" if temperature == 1 else f"calibrated, temperature {temperature:g}"


def _short(facts: dict[str, Any]) -> dict[str, Any]:
    """For people: what is said once is not said again."""
    facts = dict(facts)
    network = {key: value for key, value in facts["network"].items() if key not in facts}
    return {**facts, "network": {key: value for key, value in network.items() if key != "temperature"}}


def _print(key: str, value: Any, depth: int = 0) -> None:
    if depth and value == []:
        return
    pad = "  " * depth
    label = f"{pad}{one_line(key):<{18 - len(pad)}}  "
    if isinstance(value, Mapping) and value and not _is_small(value):
        if depth >= _SHOWN_DEPTH:
            print(f"{label}{len(value)} entries (--json)")
            return
        if depth and len(value) > 2 * _MOST_LISTED and all(isinstance(v, (int, float)) for v in value.values()):
            largest = max(value, key=lambda name: value[name])
            print(f"{label}{len(value)} of them, the largest {one_line(largest)}={_line(value[largest])} (--json)")
            return
        print(f"{pad}{one_line(key)}")
        most = _MOST_LISTED if all(isinstance(v, Mapping) for v in value.values()) and depth else len(value)
        for k, v in [*value.items()][:most]:
            _print(k, v, depth + 1)
        _more(len(value) - most, pad)
    elif isinstance(value, list) and any(isinstance(row, (Mapping, list)) for row in value):
        print(f"{pad}{one_line(key)}")
        for row in value[:_MOST_LISTED]:
            print(f"{pad}  {_line(row)}")
        _more(len(value) - _MOST_LISTED, pad)
    else:
        print(f"{label}{_line(value)}")


def _more(count: int, pad: str) -> None:
    if count > 0:
        print(f"{pad}  and {count} more (--json)")


def _is_small(value: Mapping[str, Any]) -> bool:
    """Fits a line."""
    return len(value) <= 5 and all(isinstance(v, (int, float, str)) for v in value.values()) and len(_line(value)) < 100


def _line(value: Any) -> str:
    if isinstance(value, Mapping):
        return "  ".join(f"{one_line(k)}={_line(v)}" for k, v in value.items())
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list) and len(value) > 2 * _MOST_LISTED:
        return f"{len(value)} of them, {', '.join(map(_line, value[:3]))} ... (--json)"
    text = one_line(value)
    return text if len(text) <= _MOST_TEXT else f"{text[:_SHOWN_TEXT]} ... ({len(str(value))} characters; --json)"
