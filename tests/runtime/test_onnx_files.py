"""Tensors of ONNX files that lie in other files: whatever onnx's parser or onnxruntime sees, the runtime has seen."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from clip4str.core.errors import BundleError
from clip4str.core.packaged import PACKAGED
from clip4str.runtime import Recognizer, onnx_files
from clip4str.runtime import bundle as bundles
from clip4str.runtime.bundle import Bundle, describe_file
from clip4str.runtime.onnx_files import external_tensors, without_denormals

PAYLOAD = np.array([17, 18, 19, 20], np.float32)
HERE = __file__


def tensor(location="beside.data", name="w", **places):
    made = TensorProto(name=name, dims=[4], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, "offset": "0", "length": "16", **places}.items():
        made.external_data.add(key=key, value=value)
    return made


def model(*initialisers, nodes=None):
    """y = w"""
    value = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])
    nodes = [helper.make_node("Identity", ["w"], ["y"])] if nodes is None else nodes
    graph = helper.make_graph(nodes, "g", [], [value], list(initialisers))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def seen(content, path=HERE):
    return {found.location for found in external_tensors(content, path)}


def locations(message):
    """Of every tensor in a message that onnx's own parser made, by walking all of its fields."""
    found = set()
    if isinstance(message, TensorProto) and message.data_location == TensorProto.EXTERNAL:
        found |= {entry.value for entry in message.external_data if entry.key == "location"}
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in [value] if hasattr(value, "ListFields") else value:
                found |= locations(inner)
    return found


def varint(value, length=0):
    """length: bytes to spend on it, more than are needed"""
    out = bytearray()
    while value > 127 or len(out) + 1 < length:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def rewritten(content, change, depth=0):
    """A message's bytes with its tags, lengths and order as `change` wants them."""
    parts, position = [], 0

    def read():
        nonlocal position
        value = shift = 0
        while True:
            byte = content[position]
            position += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while position < len(content):
        tag = read()
        kind = tag & 7
        if kind == 0:
            body = varint(read())
        elif kind == 2:
            length = read()
            body = content[position : position + length]
            position += length
            if depth < 6:
                with contextlib.suppress(IndexError, ValueError):  # a text
                    body = rewritten(body, change, depth + 1)
        else:
            if kind not in (1, 5):
                raise ValueError("no message")
            width = 8 if kind == 1 else 4
            body, position = content[position : position + width], position + width
        parts += change(tag, kind, body)
    return b"".join(parts)


def mutations(content, count, seed):
    rng = random.Random(seed)
    for _ in range(count):
        style = rng.choice(["tags", "bytes", "again"])
        if style == "bytes":
            data = bytearray(content)
            for _ in range(rng.randint(1, 3)):
                data[rng.randrange(len(data))] = rng.choice([rng.randrange(256), 1 << rng.randrange(8)])
            yield bytes(data)
            continue

        def change(tag, kind, body, style=style):
            if rng.random() < 0.94:
                return [varint(tag), varint(len(body)) if kind == 2 else b"", body]
            if style == "again":
                one = varint(tag) + (varint(len(body)) if kind == 2 else b"") + body
                return rng.choice([[one, one], [one, varint(7 << 3) + varint(5), one], []])
            tag = rng.choice(
                [
                    tag | 1 << rng.choice([29, 31, 32, 32, 32, 33, 34, 40, 63]),
                    tag + 8 * rng.randrange(4),
                    tag ^ rng.randrange(8),
                ]
            )
            tag_bytes = varint(tag, rng.choice([0, 0, 4, 5, 6, 9]))
            return [tag_bytes, varint(len(body), rng.choice([0, 3, 5, 8])) if kind == 2 else b"", body]

        yield rewritten(content, change)


def graphs():
    constant = helper.make_node("Constant", [], ["y"])
    constant.attribute.append(onnx.AttributeProto(name="value", type=4, t=tensor("c.data")))
    branch = helper.make_graph([constant], "b", [], [helper.make_tensor_value_info("y", 1, [4])])
    yes = TensorProto(name="yes", data_type=TensorProto.BOOL, int32_data=[1])
    chosen = helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch)
    return [
        model(tensor()),
        model(nodes=[constant]),
        model(yes, nodes=[chosen]),
        model(tensor(), tensor("v.data", "v")),
    ]


@pytest.mark.parametrize("index", range(4))
def test_thousands_of_mutated_graphs_hide_no_other_file_from_the_check(index, tmp_path, monkeypatch):
    """Where the check finds no tensor of another file, neither onnx's parser nor onnxruntime finds one."""
    monkeypatch.chdir(tmp_path)
    for name in ("beside.data", "c.data", "v.data"):
        (tmp_path / name).write_bytes(PAYLOAD.tobytes())
    content, passed, parsed = graphs()[index].SerializeToString(), 0, []
    for mutated in mutations(content, 1500, seed=index):
        try:
            found = seen(mutated)
        except BundleError as error:
            assert "\n" not in str(error)
            continue
        passed += 1
        with contextlib.suppress(Exception):  # protobuf's own kinds
            message = onnx.load_model_from_string(mutated)
            parsed.append(locations(message) <= found)
        if found:
            continue
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        try:
            (tmp_path / "mutated.onnx").write_bytes(mutated)  # by path it follows names, as it never does for us
            (y,) = onnxruntime.InferenceSession("mutated.onnx", options).run(None, {})
        except Exception:  # (onnxruntime's exceptions share no base class)
            continue
        assert not np.array_equal(y, PAYLOAD), "onnxruntime read a file that the check did not see"
    assert all(parsed) and passed > 20, "the mutations are not all refused"


@pytest.mark.parametrize("bit", [32, 35, 40, 60])
@pytest.mark.parametrize("field", [7, 5, 13])
def test_a_tag_of_more_than_32_bits_is_refused(bit, field):
    """Parsers that keep 32 bits of a tag find the field, a check that keeps all does not."""

    def change(tag, kind, body):
        tag |= (1 << bit) if tag >> 3 == field and kind == 2 else 0
        return [varint(tag), varint(len(body)) if kind == 2 else b"", body]

    with pytest.raises(BundleError, match=r"a number of more than|a field number"):
        seen(rewritten(model(tensor()).SerializeToString(), change))


def without(field):
    made = tensor()
    kept = [entry for entry in made.external_data if entry.key != field]
    del made.external_data[:]
    made.external_data.extend(kept)
    return made


def both():
    made = tensor()
    made.raw_data = bytes(16)
    return made


def twice():
    made = tensor()
    made.external_data.add(key="location", value="other.data")
    return made


def default():
    made = tensor()
    made.data_location = TensorProto.DEFAULT
    return made


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: model(tensor(length="17")), "has 17 bytes, its shape needs 16"),
        (lambda: model(tensor(offset="-1")), "offset of 'w' is '-1'"),
        (lambda: model(tensor(offset="9" * 30)), "offset of 'w' is"),
        (lambda: model(without("location")), "in another file that has no name"),
        (lambda: model(both()), "'w' is in this file and in another"),
        (lambda: model(default()), "'w' is in this file and in another"),
        (lambda: model(twice()), "two locations"),
        (lambda: model(tensor(), tensor()), "two initialisers are called 'w'"),
        (lambda: model(tensor("x" * 5000)), "a name of 5000 bytes"),
        (lambda: model(tensor(name="")), None),
    ],
)
def test_tensors_of_other_files_that_can_be_read_in_two_ways_are_refused(made, message):
    content = made().SerializeToString()
    if message is None:
        assert len(external_tensors(content, HERE)) == 1
        return
    with pytest.raises(BundleError, match=message) as caught:
        external_tensors(content, HERE)
    assert "\n" not in str(caught.value)


def test_a_file_of_nothing_but_fields_is_given_up(monkeypatch):
    monkeypatch.setattr(onnx_files, "MOST_FIELDS", 1000)
    with pytest.raises(BundleError, match="more than 1000 fields"):
        seen(b"\x08\x01" * 2000)


@pytest.fixture
def packaged(tmp_path):
    return shutil.copytree(PACKAGED, tmp_path / "packaged")


PIXELS = np.random.default_rng(0).standard_normal((2, 3, 32, 128)).astype(np.float32)


@pytest.fixture(params=["sealed files in memory", "bytes"])
def way(request, monkeypatch):
    """How graphs are handed over: as Linux can, and as everybody can."""
    if request.param == "bytes":
        monkeypatch.delattr(os, "memfd_create", raising=False)
    elif not hasattr(os, "memfd_create"):
        pytest.skip("this system has no such files")


def test_onnxruntime_opens_no_file_of_the_bundle(way, packaged, monkeypatch):
    """What it gets is neither a path in the folder nor a graph whose tensors it would have to look for."""
    expected = Recognizer.load(PACKAGED, "onnxruntime", threads=1).read_pixels(PIXELS)
    original, loaded = onnxruntime.InferenceSession, []

    def session(*args, **kwargs):
        packaged.rename(packaged.with_name("away"))
        try:
            return original(*args, **kwargs)
        finally:
            packaged.with_name("away").rename(packaged)
            loaded.append(args[0])

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    assert Recognizer.load(packaged, "onnxruntime", threads=1).read_pixels(PIXELS) == expected
    assert len(loaded) == 4


def test_a_file_swapped_or_overwritten_after_the_check_is_not_read(way, packaged, monkeypatch):
    """The very bytes that were compared are those that are loaded."""
    expected = Recognizer.load(PACKAGED, "onnxruntime", threads=1).read_pixels(PIXELS)
    original = bundles.external_tensors

    def check(content, path):
        for name in [path.name, "weights.safetensors"] if path.name == "cross.onnx" else [path.name]:
            with (packaged / name).open("r+b") as file:
                file.write(bytes(1000))
        return original(content, path)

    monkeypatch.setattr(bundles, "external_tensors", check)
    assert Recognizer.load(packaged, "onnxruntime", threads=1).read_pixels(PIXELS) == expected
    with pytest.raises(BundleError, match="its sha256 is not the manifest's"):
        Recognizer.load(packaged, "onnxruntime", threads=1)


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no such files")
def test_a_sealed_copy_can_be_changed_by_nobody(packaged):
    with Bundle.open(packaged, later=True).graph("image") as (source, _):
        assert Path(source).read_bytes() == (packaged / "image.onnx").read_bytes()
        with pytest.raises(PermissionError), Path(source).open("r+b", buffering=0) as file:
            file.write(b"x")
    assert not Path(source).exists()


def test_what_no_backend_loaded_is_compared_too(packaged):
    (packaged / "MODEL_CARD.md").write_text("true")
    manifest = json.loads((packaged / "manifest.json").read_text())
    manifest["files"]["MODEL_CARD.md"] = describe_file(packaged / "MODEL_CARD.md")
    (packaged / "manifest.json").write_text(json.dumps(manifest))
    (packaged / "MODEL_CARD.md").write_text("fake")
    with pytest.raises(BundleError, match=r"MODEL_CARD\.md: its sha256"):
        Recognizer.load(packaged, "onnxruntime", threads=1)
    Recognizer.load(packaged, "onnxruntime", threads=1, verify=False)


def test_weights_cut_short_in_the_file_beside_the_graphs(packaged):
    weights = packaged / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    manifest = json.loads((packaged / "manifest.json").read_text())
    manifest["files"][weights.name] = describe_file(weights)
    (packaged / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"image\.onnx: .* ends behind the end of weights\.safetensors"):
        Recognizer.load(packaged, "onnxruntime", threads=1)


def test_denormal_weights_are_0_and_nothing_else_changes():
    """Seen by onnx's own parser. Values that are not raw bytes, and those of other types, are left as they are."""
    values = np.array([1.5, 1e-40, -1e-45, 2.0**-126, -(2.0**-127), 0.0, np.nan], np.float32)
    raw = helper.make_tensor("w", TensorProto.FLOAT, [7], values.tobytes(), raw=True)
    listed = helper.make_tensor("listed", TensorProto.FLOAT, [7], values.tolist())
    whole = helper.make_tensor("whole", TensorProto.INT32, [7], values.tobytes(), raw=True)
    before = model(raw, listed, whole)
    after = onnx.load_model_from_string(without_denormals(before.SerializeToString(), Path(HERE)))
    want = np.array([1.5, 0, 0, 2.0**-126, 0, 0, np.nan], np.float32)
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(after.graph.initializer[0]), want)
    for ours, theirs in zip(after.graph.initializer[1:], before.graph.initializer[1:], strict=True):
        assert (
            ours == theirs or onnx.numpy_helper.to_array(ours).tobytes() == onnx.numpy_helper.to_array(theirs).tobytes()
        )
    assert after.graph.node == before.graph.node and after.graph.output == before.graph.output


def test_an_onnx_file_that_is_cut_has_no_weights_to_clean():
    content = model(helper.make_tensor("w", TensorProto.FLOAT, [4], PAYLOAD.tobytes(), raw=True)).SerializeToString()
    for length in range(3, len(content) - 1, 7):
        with contextlib.suppress(BundleError):  # a cut between two fields is a shorter file
            without_denormals(content[:length], Path(HERE))
    with pytest.raises(BundleError, match="damaged"):
        without_denormals(content[:-9], Path(HERE))
