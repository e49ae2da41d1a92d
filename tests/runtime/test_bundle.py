"""What a bundle's folder and manifest may be, and what they may not."""

import json
import os

import onnx
import pytest
from onnx import helper

from clip4str.core.errors import BundleError
from clip4str.core.text import CHARSET_36, CHARSET_94
from clip4str.runtime import Recognizer
from clip4str.runtime.bundle import Bundle, Manifest, describe_file, write_manifest

CONFIG = {
    "image_size": [32, 128], "patch_size": [8, 8], "steps": 26, "context": 16, "vocabulary": 1024, "d": 64,
    "decoder_heads": 8,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "bundle"
    folder.mkdir()
    stages = {}
    for stage in ("image", "visual", "text", "cross"):
        onnx.save_model(helper.make_model(helper.make_graph([], stage, [], [])), folder / f"{stage}.onnx")
        stages[stage] = f"{stage}.onnx"
    files = {name: describe_file(folder / name) for name in stages.values()}
    write_manifest(folder, Manifest("test", CONFIG, CHARSET_94, CHARSET_36, "half", "fp32", 64, files, stages))
    return folder


def edit(folder, change):
    path = folder / "manifest.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def test_opens_and_names_its_stages(folder):
    bundle = Bundle.open(folder)
    assert bundle.path("image") == folder / "image.onnx" and bundle.manifest.image_size == (32, 128)
    assert sorted(p.name for p in folder.iterdir() if p.name.startswith(".")) == []


def test_a_changed_byte(folder):
    data = bytearray((folder / "cross.onnx").read_bytes())
    data[7] ^= 1
    (folder / "cross.onnx").write_bytes(data)
    with pytest.raises(BundleError, match=r"cross\.onnx: its sha256"):
        Bundle.open(folder)
    Bundle.open(folder, verify=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format_version=99), "format 99, this clip4str reads up to 1"),
        (lambda m: m.update(format_version="1"), "format_version is '1'"),
        (lambda m: m["stages"].update(image="../image.onnx"), "leaves the bundle"),
        (lambda m: m["files"].update({"/etc/passwd": {"sha256": "", "bytes": 1}}), "leaves the bundle"),
        (lambda m: m["files"].update({"..": {"sha256": "", "bytes": 1}}), "leaves the bundle"),
        (lambda m: m["stages"].update(image="other.onnx"), "not among its files"),
        (lambda m: m["stages"].pop("visual"), "no visual stage"),
        (lambda m: m["config"].update(steps=10**9), "steps is 1000000000"),
        (lambda m: m["config"].update(image_size=[10**6, 10**6]), "image_height"),
        (lambda m: m["config"].pop("context"), "damaged"),
        (lambda m: m.update(config=7), "config is not an object"),
        (lambda m: m.update(normalization="imagenet"), "unknown normalization"),
        (lambda m: m.update(precision="fp4"), "unknown precision"),
        (lambda m: m["files"]["image.onnx"].update(bytes=3), "the manifest says 3"),
        (lambda m: m["files"].update({"image.onnx": 5}), "no sha256"),
        (lambda m: m.pop("files"), "damaged"),
        (lambda m: m.update(max_batch=0), "max_batch is 0"),
        (lambda m: m.update(charset="".join(map(chr, range(300, 20300)))), "charset has 20000 characters"),
        (lambda m: m["config"].update(decoder_heads=0), "decoder_heads is 0"),
        (lambda m: m.update(max_batch=True), "max_batch is True"),
        (lambda m: m["config"].update(draft_frames=-1), "draft_frames is -1, expected 0 to 1024"),
        (lambda m: m["config"].update(draft_frames="9"), "draft_frames is '9'"),
        (lambda m: m["config"].update(draft_frames=10**12), "draft_frames is 1000000000000"),
        (lambda m: m["config"].update(draft_frames=1024), "a draft head of 16384 frames, expected at most 1024"),
    ],
)
def test_hostile_or_damaged_manifests(folder, change, message):
    edit(folder, change)
    with pytest.raises(BundleError, match=message) as caught:
        Bundle.open(folder)
    assert "\n" not in str(caught.value)


ENGINES = {
    "target": "tensorrt", "version": "10.3.0", "gpu": "Orin", "command": "clip4str build x",
    "profile": {"min": 1, "opt": 8, "max": 32}, "files": {"image": "image.plan"},
}  # fmt: skip


def with_engine(folder, **changes):
    (folder / "image.plan").write_bytes(b"plan")
    edit(folder, lambda m: m["files"].update({"image.plan": describe_file(folder / "image.plan")}))
    edit(folder, lambda m: m.update(engines={**ENGINES, **changes}))


def test_engines_are_files_of_the_bundle(folder):
    with_engine(folder)
    bundle = Bundle.open(folder)
    assert bundle.engine("image") == folder / "image.plan"
    with pytest.raises(BundleError, match="no text engine; clip4str build"):
        bundle.engine("text")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"files": {"image": "../image.plan"}}, "not among its files"),
        ({"files": {"image": "/etc/passwd"}}, "not among its files"),
        ({"files": {"soul": "image.plan"}}, "engine 'soul'"),
        ({"files": 5}, "damaged"),
        ({"profile": {"min": 1, "opt": 8, "max": 10**9}}, "expected 1 <= min <= opt <= max <= 4096"),
        ({"profile": {"min": 4, "opt": 2, "max": 8}}, "profile of"),
        ({"profile": {"min": 1, "opt": True, "max": 8}}, "no numbers"),
        ({"profile": {}}, "damaged"),
        ({"version": 10}, "engines' version"),
        ({"compute_capabilities": 5}, "compute_capabilities is not a list"),
        ({"compute_capabilities": [8.6]}, "compute_capabilities 0 is not a text"),
        ({"hardware_compatibility": []}, "hardware_compatibility is not a text"),
        ({"parity": 1}, "parity is not an object"),
    ],
)
def test_hostile_engines(folder, changes, message):
    with_engine(folder, **changes)
    with pytest.raises(BundleError, match=message) as caught:
        Bundle.open(folder)
    assert "\n" not in str(caught.value)


def test_unknown_fields_of_the_same_version_are_ignored(folder):
    edit(folder, lambda m: m.update(comment="hello"))
    Bundle.open(folder)


def test_missing_files_links_and_folders(folder, tmp_path):
    with pytest.raises(BundleError, match="no such bundle folder"):
        Recognizer.load(tmp_path / "nothing")
    with pytest.raises(BundleError, match=r"has no manifest\.json"):
        Bundle.open(tmp_path)
    outside = tmp_path / "outside.onnx"
    (folder / "text.onnx").rename(outside)
    with pytest.raises(BundleError, match=r"text\.onnx: missing"):
        Bundle.open(folder)
    (folder / "text.onnx").symlink_to(outside)
    with pytest.raises(BundleError, match="is a link"):
        Bundle.open(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, '"x"', "\x00"])
def test_manifests_that_are_no_json_object(folder, text):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match=r"manifest\.json: damaged"):
        Bundle.open(folder)


@pytest.mark.parametrize("place", ["initializer", "constant", "branch", "sparse"])
@pytest.mark.parametrize("location", ["../outside.data", "/etc/passwd", "beside.data"])
def test_a_graph_that_reads_files_the_manifest_does_not_cover(place, location, folder):
    """Wherever in a graph the tensor stands; written by the onnx package."""
    tensor = onnx.TensorProto(name="w", dims=[4], data_type=1, data_location=1)
    tensor.external_data.add(key="location", value=location)
    graph = helper.make_graph([], "g", [], [])
    if place == "initializer":
        graph.initializer.append(tensor)
    elif place == "sparse":
        graph.sparse_initializer.add(values=tensor)
    else:
        constant = helper.make_node("Constant", [], ["c"])
        constant.attribute.append(onnx.AttributeProto(name="value", type=4, t=tensor))
        branch = helper.make_graph([constant], "branch", [], [])
        graph.node.append(constant if place == "constant" else helper.make_node("If", ["x"], ["y"], then_branch=branch))
    onnx.save_model(helper.make_model(graph), folder / "text.onnx")
    (folder / "beside.data").write_bytes(bytes(16))

    def cover(manifest):
        manifest["files"]["text.onnx"] = describe_file(folder / "text.onnx")

    edit(folder, cover)
    refusal = f"reads '{location}', which is not in the manifest"
    if place != "initializer":
        refusal = f"a tensor of another file, '{location}', that is no initialiser"
    with pytest.raises(BundleError, match=rf"text\.onnx: .*{refusal}"):
        Bundle.open(folder)
    if location == "beside.data" and place == "initializer":
        edit(folder, lambda m: m["files"].update({location: describe_file(folder / location)}))
        Bundle.open(folder)


def test_stage_files_that_are_no_protobuf(folder):
    (folder / "text.onnx").write_bytes(b"\xff" * 300)
    edit(folder, lambda m: m["files"].update({"text.onnx": describe_file(folder / "text.onnx")}))
    with pytest.raises(BundleError, match=r"text\.onnx: damaged or unsafe ONNX file"):
        Bundle.open(folder)


def test_a_manifest_that_is_a_link_or_a_pipe(folder):
    manifest = folder / "manifest.json"
    manifest.unlink()
    manifest.symlink_to("/dev/zero")
    with pytest.raises(BundleError, match="is a link"):
        Bundle.open(folder)
    manifest.unlink()
    os.mkfifo(manifest)
    with pytest.raises(BundleError, match="not a plain file"):
        Bundle.open(folder)


def test_a_huge_manifest_is_not_read(folder):
    (folder / "manifest.json").write_bytes(b" " * 1_000_001)
    with pytest.raises(BundleError, match="larger than any manifest"):
        Bundle.open(folder)


def test_stage_files_that_are_no_graphs(folder):
    with pytest.raises(BundleError, match=r"image\.onnx: (onnxruntime cannot run it|pixels is None)") as caught:
        Recognizer.load(folder)
    assert "\n" not in str(caught.value)
