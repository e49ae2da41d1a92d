"""clip4str info: what a bundle or a checkpoint is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clip4str.core.console import Parser
from clip4str.core.errors import BackendError, BundleError, one_line

from .bundle import Bundle
from .read_command import announced_bundle


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(
        prog="clip4str info",
        description="Show what a bundle (folder) or a checkpoint (file) is. A bundle's files are checked on the way.",
    )
    parser.add_argument("path", nargs="?", help="bundle folder or checkpoint file (default: as of read)")
    parser.add_argument("--json", action="store_true", help="everything, as one JSON object")
    args = parser.parse_args(argv)
    path = Path(args.path) if args.path else announced_bundle()
    if not path.exists():
        raise BundleError(f"{path}: no such bundle folder or checkpoint file")
    facts = _checkpoint(path) if path.is_file() else _bundle(path)
    if args.json:
        print(json.dumps(facts, indent=1))
        return 0
    for key in facts.keys() & facts["network"].keys():
        del facts["network"][key]
    for key, value in facts.items():
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


def _row(values: dict[str, Any]) -> str:
    return "  ".join(f"{k}={one_line(v)}" for k, v in values.items())


def _print(key: str, value: Any, indent: int = 0) -> None:
    pad = "  " * indent
    if isinstance(value, dict) and indent > 1 and not any(isinstance(v, (dict, list)) for v in value.values()):
        print(f"{pad}{key:<{18 - len(pad)}}  {_row(value)}")
    elif isinstance(value, dict):
        print(f"{pad}{key}")
        for k, v in value.items():
            _print(k, v, indent + 1)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        print(f"{pad}{key}")
        for row in value:
            print(f"{pad}  {_row(row)}")
    else:
        print(f"{pad}{key:<{18 - len(pad)}}  {one_line(value)}")
