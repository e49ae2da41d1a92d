"""Writes nvcodec_api.json: what the installed PyNvVideoCodec has, by its own documentation, for nvcodec_standin.py to
be held against. Run where the library loads: `python tests/video/record_nvcodec.py`. Names and signatures alone."""

from __future__ import annotations

import json
from pathlib import Path

CLASSES = ("CAIMemoryView", "DecodedFrame", "PacketData", "PyNvDecoder", "PyNvDemuxer")
ENUMS = ("ColorRange", "ColorSpace", "OutputColorType", "Pixel_Format")


def main() -> None:
    import PyNvVideoCodec as nvc

    view = nvc.CAIMemoryView([4, 6, 1], [8, 1, 1], "|u1", 77, 4096, False)
    api = {
        "version": nvc.__version__,
        "functions": {name: _signatures(getattr(nvc, name)) for name in ("CreateDecoder", "CreateDemuxer")},
        "classes": {name: _members(getattr(nvc, name)) for name in CLASSES},
        "enums": {name: list(getattr(nvc, name).__members__) for name in ENUMS},
        "exceptions": [name for name in dir(nvc) if name.startswith("PyNvVCException")],
        "interface of a view on stream 77": {k: v for k, v in view.__cuda_array_interface__.items() if k != "data"},
    }
    Path(__file__).with_name("nvcodec_api.json").write_text(json.dumps(api, indent=1) + "\n")


def _members(kind: type) -> dict[str, list[str]]:
    dunder = ("__iter__", "__dlpack__", "__dlpack_device__", "__cuda_array_interface__")
    return {name: _signatures(getattr(kind, name)) for name in dir(kind) if not name.startswith("__") or name in dunder}


def _signatures(value: object) -> list[str]:
    lines = (value.__doc__ or "").splitlines()
    return [line.strip().replace("_PyNvVideoCodec.", "") for line in lines if "(" in line and "->" in line]


if __name__ == "__main__":
    main()
