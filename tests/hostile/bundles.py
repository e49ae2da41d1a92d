"""Hostile bundles: manifests that lead away or count to infinity, and graphs that read other files."""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from corpus import ANSWERED, EITHER, REFUSED, hostile

KIND = "bundles"
PACKAGED = Path(__file__).resolve().parents[2] / "model" / "bundled" / "clip4str-small"
Manifest = dict[str, Any]


@cache
def _copied() -> Path:
    """The packaged bundle's files in a folder that goes when Python does: nothing here may reach the packaged one."""
    folder = Path(tempfile.mkdtemp(prefix="clip4str-bundle-"))
    atexit.register(shutil.rmtree, folder)
    return Path(shutil.copytree(PACKAGED, folder / "bundle"))


def bundle(folder: Path) -> Manifest:
    """The packaged bundle's files, linked; what is to be changed is written anew."""
    folder.mkdir()
    manifest = json.loads((_copied() / "manifest.json").read_text(encoding="utf-8"))
    for name in manifest["files"]:
        try:
            os.link(_copied() / name, folder / name)
        except OSError:
            shutil.copyfile(_copied() / name, folder / name)
    return manifest


def describe(folder: Path, manifest: Manifest, name: str) -> None:
    data = (folder / name).read_bytes()
    manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def manifests(ends: str, changes: dict[str, Callable[[Manifest], Any]], says: str = "") -> None:
    """Bundles with another manifest: what a change returns is written if it is a text, else the changed one."""
    for name, change in changes.items():

        def make(folder: Path, change: Callable[[Manifest], Any] = change) -> None:
            manifest = bundle(folder)
            text = change(manifest)
            (folder / "manifest.json").write_text(text if isinstance(text, str) else json.dumps(manifest))

        hostile(KIND, ends, says, name)(make)


def graphs(
    ends: str, appended: dict[str, bytes | Callable[[bytes], bytes]], says: str = "", starves: bool = False
) -> None:
    """Bundles whose image stage has something appended, or is made anew of what it was; the manifest agrees."""
    for name, change in appended.items():

        def make(folder: Path, change: bytes | Callable[[bytes], bytes] = change) -> None:
            manifest = bundle(folder)
            stage = folder / "image.onnx"
            data = stage.read_bytes()
            stage.unlink()
            stage.write_bytes(data + change if isinstance(change, bytes) else change(data))
            describe(folder, manifest, "image.onnx")
            (folder.parent / "secret").write_bytes(bytes(4096))
            (folder / "unlisted").write_bytes(bytes(4096))
            (folder / "manifest.json").write_text(json.dumps(manifest))

        hostile(KIND, ends, says, name, starves)(make)


def _set(*path: Any) -> Callable[[Manifest], None]:
    """manifest[a][b] = value"""
    *keys, last, value = path

    def change(manifest: Manifest) -> None:
        inner = manifest
        for key in keys:
            inner = inner[key]
        inner[last] = value

    return change


def _renamed(name: str) -> Callable[[Manifest], None]:
    def change(manifest: Manifest) -> None:
        manifest["files"][name] = manifest["files"].pop("image.onnx")
        manifest["stages"]["image"] = name

    return change


manifests(REFUSED, {
    f"a stage called {name!r}"[:50]: _renamed(name) for name in (
        "../secret", "/etc/passwd", "..", ".", "", "a/../../secret", "..\\secret", "image.onnx\0", "a\nb", "x" * 300,
        "\ud800", "manifest.json", "~/secret", "file:///etc/passwd")
})  # fmt: skip
HUGE = (10**9, 10**400, -1, 0, 1.5, True, None, "26", float("inf"), float("nan"), [26], {})
manifests(REFUSED, {
    f"{'.'.join(where)} {str(value)[:12]}": _set(*where, value)
    for where in (("config", "steps"), ("config", "d"), ("config", "decoder_heads"), ("config", "context"),
                  ("config", "vocabulary"), ("config", "image_size"), ("config", "patch_size"),
                  ("config", "temperature"), ("max_batch",), ("format_version",), ("files", "image.onnx", "bytes"))
    for value in HUGE
    if (where[-1], repr(value)) != ("temperature", "1.5")
})  # fmt: skip
manifests(REFUSED, {
    "sizes of texts": _set("config", "image_size", ["32", "128"]),
    "an image of 10^9": _set("config", "image_size", [10**9, 10**9]),
    "patches of 4096": _set("config", "patch_size", [4096, 4096]),
    "draft frames of 10^9": _set("config", "draft_frames", 10**9),
    "a charset of a million": _set("charset", "a" * 1_000_000),
    "a charset of one": _set("charset", "a"),
    "a charset of half characters": _set("charset", "\ud800" * 94),
    "no charset": lambda m: m.pop("charset") and None,
    "an empty object": lambda m: "{}",
    "a list": lambda m: "[]",
    "a number": lambda m: "7",
    "nothing": lambda m: "",
    "NaN": lambda m: "NaN",
    "lists 100,000 deep": lambda m: "[" * 100_000,
    "objects 100,000 deep": lambda m: '{"a":' * 100_000,
    "a number of a million digits": lambda m: '{"format_version": ' + "9" * 900_000 + "}",
    "more than any manifest": lambda m: " " * 2_000_000,
    "a million commas": lambda m: "[" + "0," * 400_000 + "0]",
    "files of the wrong kind": _set("files", [1, 2]),
    "a file that is a number": _set("files", "image.onnx", 7),
    "a sha256 of another file": lambda m: m["files"]["image.onnx"].update(sha256=m["files"]["text.onnx"]["sha256"]),
    "a sha256 of nothing": _set("files", "image.onnx", "sha256", ""),
    "a file that is not there": _set("files", "absent.onnx", {"sha256": "", "bytes": 0}),
    "stages in a circle": _set("stages", "image", "manifest.json"),
    "no stages": _set("stages", {}),
    "stages that are lists": _set("stages", {"image": ["image.onnx"], "visual": ["visual.onnx"]}),
    "the stages exchanged": lambda m: m["stages"].update(image="cross.onnx", cross="image.onnx"),
    "engines that are no engines": _set("engines", {"files": {"image": "image.onnx"}, "profile": 7}),
    "an engine outside": _set("engines", {"files": {"image": "../secret"}, "profile": {"min": 1, "opt": 1, "max": 1}}),
    "another normalization": _set("normalization", "../half"),
    "another size than the graph's": _set("config", "image_size", [64, 256]),
    "other heads than the graph's": _set("config", "decoder_heads", 4),
})  # fmt: skip
manifests(EITHER, {
    "figures nested 400 deep": lambda m: json.dumps({**m, "parity": "MARK"}).replace(
        '"MARK"', '{"a":' * 400 + "1" + "}" * 400),
    "figures nested 900 deep": lambda m: json.dumps({**m, "parity": "MARK"}).replace(
        '"MARK"', '{"a":' * 900 + "1" + "}" * 900),
    "figures nested 14 deep": lambda m: json.dumps({**m, "parity": "MARK"}).replace(
            '"MARK"', '{"a":' * 13 + "1" + "}" * 13),
    "lists of objects of lists": _set("parity", {"a": [{"b": [{"c": [1, [2]]}, 7]}, 8]}),
    "a list of objects and numbers": _set("built_by", {"a": [{"b": 1}, 7, None]}),
    "a name of lines and escapes": _set("name", "a\nb\x1b[31m\u202e"),
    "a checkpoint of a megabyte": _set("checkpoint", {"name": "x" * 900_000}),
    "an engine's parity of texts": _set("engines", {
        "files": {}, "profile": {"min": 1, "opt": 1, "max": 1}, "target": "", "version": "", "gpu": "", "command": "",
        "parity": {"a": {"b": "c"}}}),
    "a quantization of lists": _set("quantization", {"target": [], "weights": {}}),
    "no sense in built_by": _set("built_by", {"a": {"b": {"c": None}}}),
})  # fmt: skip


@hostile(KIND, REFUSED, says="link", name="a stage that is a link")
def _(folder: Path) -> None:
    (folder / "manifest.json").write_text(json.dumps(bundle(folder)))
    (folder / "image.onnx").rename(folder.parent / "secret")
    (folder / "image.onnx").symlink_to(folder.parent / "secret")


@hostile(KIND, REFUSED, says="link|plain file", name="a manifest that is a link")
def _(folder: Path) -> None:
    (folder.parent / "secret").write_text(json.dumps(bundle(folder)))
    (folder / "manifest.json").symlink_to(folder.parent / "secret")


@hostile(KIND, REFUSED, says="plain file", name="a manifest that is a pipe")
def _(folder: Path) -> None:
    bundle(folder)
    os.mkfifo(folder / "manifest.json")


@hostile(KIND, REFUSED, name="a stage that is a pipe")
def _(folder: Path) -> None:
    (folder / "manifest.json").write_text(json.dumps(bundle(folder)))
    (folder / "image.onnx").unlink()
    os.mkfifo(folder / "image.onnx")


# Graphs. Messages of protobuf are merged where one follows the other: what is appended adds to the graph.
def varint(value: int, length: int = 0) -> bytes:
    """length: bytes to use, more than it needs."""
    groups = [value >> 7 * k & 127 for k in range(max(length, -(-value.bit_length() // 7), 1))]
    return bytes(g | 128 for g in groups[:-1]) + bytes(groups[-1:])


def field(number: int, payload: bytes | int, length: int = 0, more: int = 0) -> bytes:
    """length: of the tag, in bytes; more: added to the tag beyond its 32 bits."""
    tag = varint(((number << 3) | (2 if isinstance(payload, bytes) else 0)) + (more << 32), length)
    return tag + (varint(len(payload)) + payload if isinstance(payload, bytes) else varint(payload))


def entry(key: bytes, value: bytes) -> bytes:
    return field(1, key) + field(2, value)


def tensor(location: bytes, external: Callable[[bytes], bytes] = lambda body: field(13, body)) -> bytes:
    """A float tensor of 1024 numbers in another file. data_location 1 says so."""
    return field(1, 1024) + field(2, 1) + field(8, b"stolen") + external(entry(b"location", location)) + field(14, 1)


def initializer(body: bytes) -> bytes:
    return field(7, field(5, body))


def constant(body: bytes) -> bytes:
    """A Constant node that holds a tensor."""
    attribute = field(1, b"value") + field(20, 4) + field(5, body)
    return field(7, field(1, field(2, b"stolen") + field(4, b"Constant") + field(5, attribute)))


PLACES = (b"../secret", b"/etc/passwd", b"unlisted", b"./../secret", b"manifest.json", b"secret\0", b"..\\secret")
graphs(
    REFUSED, {f"weights in {place!r}": initializer(tensor(place)) for place in PLACES}, says="reads|unsafe|damaged|not"
)
graphs(REFUSED, {
    "a constant in another file": constant(tensor(b"../secret")),
    "a tag of more than 32 bits": initializer(tensor(b"../secret", lambda body: field(13, body, more=1))),
    "a tag of ten bytes": initializer(tensor(b"../secret", lambda body: field(13, body, length=10))),
    "a tag of five bytes": initializer(tensor(b"../secret", lambda body: field(13, body, length=5))),
    "a graph's tag of more than 32 bits": field(7, field(5, tensor(b"../secret")), more=1),
    "a graph's tag of ten bytes": field(7, field(5, tensor(b"../secret")), length=10),
    "a location in two halves": initializer(tensor(b"unlisted", lambda body: field(13, entry(b"location", b"x"))
        + field(13, field(1, b"location") + field(2, b"x") + field(2, b"../secret")))),
    "a key given twice": initializer(tensor(b"", lambda body: field(
        13, field(1, b"x") + entry(b"location", b"../secret")))),
    "a length of ten bytes": initializer(
        field(1, 1024) + field(2, 1) + field(8, b"stolen") + varint(13 << 3 | 2) + varint(22, 10)
        + entry(b"location", b"../secret!")[:22] + field(14, 1)),
    "a group around it": initializer(varint(99 << 3 | 3) + tensor(b"../secret") + varint(99 << 3 | 4)),
    "an offset of 2^63": initializer(tensor(b"../secret", lambda body: field(13, body) + field(13, entry(
        b"offset", b"9223372036854775807")))),
    "a sparse one": field(7, field(15, field(1, tensor(b"../secret")) + field(2, tensor(b"unlisted")))),
    "one in a function": field(25, field(1, b"f") + field(7, field(4, b"Constant") + field(
        5, field(1, b"value") + field(20, 4) + field(5, tensor(b"../secret"))))),
    "one in a branch": field(7, field(1, field(4, b"If") + field(5, field(1, b"then_branch") + field(20, 5) + field(
        6, field(5, tensor(b"../secret")))))),
    "a message cut short": b"\x3a\xff\xff\xff\xff\x0f",
    "an end of a group that never began": varint(7 << 3 | 4),
    "a tag of nothing but ones": b"\xff" * 12,
    "field 0": b"\2\0",
    "graphs 10,000 deep": lambda data: data + _nested(10_000),
    "a stage of zeros": lambda data: bytes(len(data)),
    "half a stage": lambda data: data[: len(data) // 2],
    "no stage": lambda data: b"",
    "a stage that is a picture": lambda data: b"\x89PNG\r\n\x1a\n" + data,
    "another operator set": field(8, field(1, b"nobody.knows") + field(2, 1)) + field(7, field(1, field(
        2, b"x") + field(4, b"Unknown") + field(7, b"nobody.knows"))),
})  # fmt: skip


graphs(
    EITHER,
    {
        "a shape of 2^62": initializer(
            field(1, 2**62) + field(1, 2**62) + field(2, 1) + field(8, b"w") + field(9, b"")
        ),
    },
)


graphs(EITHER, {"10^12 zeros": lambda data: data + zeros_of(10**12)}, starves=True)


def zeros_of(count: int) -> bytes:
    """A node whose output, one of the graph's, is so many zeros."""
    shape = field(1, 1) + field(2, 7) + field(7, varint(count)) + field(8, b"much")
    node = field(1, b"much") + field(2, b"zeros") + field(4, b"ConstantOfShape")
    output = field(1, b"zeros") + field(2, field(1, field(1, 1) + field(2, field(1, field(2, b"M")))))
    return field(7, field(5, shape) + field(1, node) + field(12, output))


def _nested(depth: int) -> bytes:
    body = b""
    for _ in range(depth):
        body = field(6, field(1, field(5, body)))
    return field(7, field(1, field(5, body)))


hostile(KIND, ANSWERED, name="a good bundle")(
    lambda folder: (folder / "manifest.json").write_text(json.dumps(bundle(folder))))  # fmt: skip
