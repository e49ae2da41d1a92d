"""What is fuzzed: functions of bytes that may raise a Clip4StrError and nothing else, with what they start from. Files
are written to the working folder, which run.py makes and clears away."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "hostile"))

import forms
import picture_forms
from doors import DOORS, Door
from mutate import Form

SIZE = (32, 128)


@dataclass(frozen=True)
class Target:
    """run(data). seeds(): good inputs, small. door: what an input may take, and what to load first."""

    name: str
    run: Callable[[bytes], Any]
    seeds: Callable[[], Sequence[bytes]]
    form: Form | None
    door: Door


def in_a_file(open_path: Callable[[Path], Any], name: str = "input") -> Callable[[bytes], Any]:
    def run(data: bytes) -> Any:
        path = Path.cwd() / name
        path.write_bytes(data)
        return open_path(path)

    return run


def prepare_picture(data: bytes) -> str:
    import numpy as np

    from clip4str.runtime.images import prepare

    pixels = prepare([data], SIZE)
    assert pixels.shape == (1, 3, *SIZE) and np.isfinite(pixels).all()
    return "read"


def picture_seeds() -> list[bytes]:
    """Every format, in several of its ways."""
    import pictures
    from PIL import Image, features

    crop = pictures.crop((40, 16))
    ways: list[tuple[str, str, dict]] = [
        ("JPEG", "RGB", {}), ("JPEG", "L", {"progressive": True}), ("JPEG", "CMYK", {}), ("PNG", "RGB", {}),
        ("PNG", "RGBA", {}), ("PNG", "P", {"transparency": 3}), ("PNG", "LA", {}), ("PNG", "1", {}),
        ("PNG", "I;16", {}),
        ("BMP", "RGB", {}), ("BMP", "P", {}), ("GIF", "P", {}), ("TIFF", "RGB", {}), ("TIFF", "P", {}),
        ("TIFF", "I;16", {}), ("TIFF", "F", {}), ("PPM", "RGB", {}), ("PPM", "L", {}), ("PPM", "1", {}),
        ("MPO", "RGB", {}),
        *(("TIFF", "L", {"compression": c}) for c in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg", "tiff_ccitt")),
        *(("WEBP", mode, how) for mode, how in (("RGB", {}), ("RGBA", {"lossless": True}))),
        *(("JPEG2000", mode, {}) for mode in ("RGB", "L")), ("AVIF", "RGB", {}),
    ]  # fmt: skip
    made = []
    for form, mode, how in ways:
        if (form in ("WEBP", "AVIF") and not features.check(form.lower())) or (
            form == "JPEG2000" and not features.check("jpg_2000")
        ):
            continue
        if how.get("compression") == "tiff_ccitt":
            mode = "1"
        image = crop.convert("L").convert(mode) if mode in ("I;16", "F") else crop.convert(mode)
        try:
            made.append(pictures.encoded(form, image, **how))
        except (OSError, KeyError):
            continue  # of a Pillow without that compression
    frames = [Image.new("RGB", (32, 8), colour) for colour in ("red", "green", "blue")]
    for form in ("GIF", "WEBP", "PNG", "TIFF"):
        made.append(pictures.encoded(form, frames[0], save_all=True, append_images=frames[1:]))
    made.append(pictures.jpeg_with_exif(pictures.tiff([(274, 3, 1, 6), (271, 2, 4, 0x41414141)])))
    return made


def checkpoint_seeds() -> list[bytes]:
    import checkpoints

    half = {k: v.half() for k, v in checkpoints.network().items()}
    more = checkpoints.lightning(half, epoch=3, lr=[1e-3], callbacks={"a": (1, None)})
    return [checkpoints.lightning(), checkpoints.legacy(), checkpoints.ours(), more]


@cache
def _small_bundle() -> Path:
    """A bundle of four graphs of nothing, and a manifest to be overwritten."""
    import bundles
    import onnx
    from onnx import helper

    folder = Path.cwd() / "bundle"
    folder.mkdir(exist_ok=True)
    manifest = json.loads((bundles.PACKAGED / "manifest.json").read_text(encoding="utf-8"))
    manifest |= {"files": {}, "stages": {stage: f"{stage}.onnx" for stage in ("image", "visual", "text", "cross")}}
    for stage, name in manifest["stages"].items():
        onnx.save_model(helper.make_model(helper.make_graph([], stage, [], [])), folder / name)
        bundles.describe(folder, manifest, name)
    (folder / "good.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def open_manifest(data: bytes) -> str:
    """What `clip4str info` and the backends do with it."""
    from clip4str.runtime import info_command
    from clip4str.runtime.bundle import Bundle, stage_shapes

    (_small_bundle() / "manifest.json").write_bytes(data)
    info_command.main([str(_small_bundle())])
    bundle = Bundle.open(_small_bundle())
    stage_shapes(bundle.manifest)
    json.loads(bundle.manifest.to_json())
    return "opened"


def manifest_seeds() -> list[bytes]:
    good = json.loads((_small_bundle() / "good.json").read_text(encoding="utf-8"))
    engines = {
        "files": {"image": "image.onnx"}, "profile": {"min": 1, "opt": 8, "max": 32}, "target": "tensorrt",
        "version": "10", "gpu": "a", "command": "a", "compute_capabilities": ["8.7"], "parity": {"words": 1},
    }  # fmt: skip
    return [json.dumps({**good, **more}).encode() for more in ({}, {"engines": engines, "precision": "fp16"})]


def look_through_graph(data: bytes) -> str:
    """What our reader finds of a graph's tensors in other files holds all that onnx's own parser finds."""
    import onnx
    from google.protobuf.message import DecodeError

    from clip4str.runtime.onnx_files import external_tensors

    found = {tensor.location for tensor in external_tensors(data, Path("graph.onnx"))}
    try:
        model = onnx.ModelProto.FromString(data)
    except (DecodeError, RecursionError):
        return "read, by us alone"
    named = {
        entry.value for tensor in _tensors(model) for entry in tensor.external_data if entry.key == "location"
    }  # fmt: skip
    assert named <= found, f"onnx reads {sorted(named - found)} beside {sorted(found)}"
    return "read"


def _tensors(message: Any) -> list[Any]:
    """Every tensor anywhere in a protobuf message, by its descriptors: nothing of ours says where to look."""
    if message.DESCRIPTOR.name == "TensorProto":
        return [message]
    inner = []
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            inner += list(value) if hasattr(value, "__len__") and not hasattr(value, "DESCRIPTOR") else [value]
    return [tensor for one in inner for tensor in _tensors(one)]


def graph_seeds() -> list[bytes]:
    import bundles
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    outside = numpy_helper.from_array(np.zeros((4, 4), np.float32), "w")
    onnx.external_data_helper.set_external_data(outside, "weights.safetensors", 0, 64)
    outside.ClearField("raw_data")
    inside = numpy_helper.from_array(np.arange(4, dtype=np.int64), "s")
    branch = helper.make_graph([helper.make_node("Constant", [], ["c"], value=inside)], "then", [], [
        helper.make_tensor_value_info("c", 7, [4])])  # fmt: skip
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("Constant", [], ["k"], value=inside),
             helper.make_node("If", ["b"], ["z"], then_branch=branch, else_branch=branch)]  # fmt: skip
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", 1, ["N", 4])], [
        helper.make_tensor_value_info("y", 1, ["N", 4])], [outside, inside])  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    plain = model.SerializeToString()
    two = bundles.initializer(bundles.tensor(b"weights.safetensors")), bundles.constant(bundles.tensor(b"other"))
    return [plain, *(plain + more for more in two), (bundles.PACKAGED / "text.onnx").read_bytes()]


def lmdb_seeds() -> list[bytes]:
    import lmdbs

    return [lmdbs.data_set(3), lmdbs.data_set(40, None, 900), lmdbs.data_set(300, None, 20)]


def read_lmdb(data: bytes) -> Any:
    folder = Path.cwd() / "set"
    folder.mkdir(exist_ok=True)
    (folder / "data.mdb").write_bytes(data)
    return DOORS["lmdbs"].open(folder)


def atlas_seeds() -> list[bytes]:
    import atlases

    return [atlases.atlas(), atlases.atlas(
        faces=[atlases.FACE] * 2, glyphs=atlases.glyphs(2, 2), kerning=atlases.packed(bytes(2 * 94 * 94)),
        texels=atlases.packed(bytes(2 * 94 * 4)))]  # fmt: skip


def _all() -> dict[str, Target]:
    small = Door(print, DOORS["bundles"].warm_up, DOORS["bundles"].memory, DOORS["bundles"].seconds)
    made = [
        Target("checkpoints", in_a_file(DOORS["checkpoints"].open), checkpoint_seeds, forms.checkpoint,
               DOORS["checkpoints"]),
        Target("manifests", open_manifest, manifest_seeds, forms.text, small),
        Target("graphs", look_through_graph, graph_seeds, forms.protobuf, small),
        Target("pictures", prepare_picture, picture_seeds, picture_forms.picture, DOORS["pictures"]),
        Target("lmdbs", read_lmdb, lmdb_seeds, forms.pages(), DOORS["lmdbs"]),
        Target("atlases", in_a_file(DOORS["atlases"].open), atlas_seeds, forms.atlas, DOORS["atlases"]),
    ]  # fmt: skip
    return {target.name: target for target in made}


TARGETS = _all()
