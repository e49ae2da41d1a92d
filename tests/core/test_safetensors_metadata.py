"""Metadata of safetensors files, against the library that the format comes from."""

import json
import struct

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from clip4str.core.errors import CheckpointError
from clip4str.core.safetensors_metadata import read_metadata, write_metadata


def test_what_a_file_says_is_read_and_changed_and_its_tensors_stay(tmp_path):
    path, copy = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    tensors = {"x": np.arange(7, dtype=np.float16), "y": np.ones((2, 3), np.int8)}
    save_file(tensors, path)
    assert read_metadata(path) == {}
    write_metadata(path, copy, {"a": "1", "b": "ü"})
    write_metadata(copy, copy, {"a": "2"})
    with safe_open(copy, "np") as file:
        assert file.metadata() == read_metadata(copy) == {"a": "2", "b": "ü"}
    assert all((load_file(copy)[name] == tensor).all() for name, tensor in tensors.items())
    assert read_metadata(path) == {} and sorted(p.name for p in tmp_path.iterdir()) == [path.name, copy.name]


@pytest.mark.parametrize(
    "header, data",
    [
        ('{"x": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}', b"cut"),
        ('{"x": {"dtype": "U8", "shape": [4], "data_offsets": [0, 1e999]}}', b"1234"),
        ('{"x": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}, "__metadata__": {"a": 1}}', b"1234"),
        ('{"x": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}, "__metadata__": null}', b"1234"),
        ('{"x": 1}', b"1234"),
        ("{}", b""),
        ("[" * 10**5, b""),
    ],
)
def test_a_damaged_file_is_refused_and_left_alone(tmp_path, header, data):
    path = tmp_path / "a.safetensors"
    content = struct.pack("<Q", len(header)) + header.encode() + data
    path.write_bytes(content)
    for attempt in (read_metadata, lambda path: write_metadata(path, path, {"a": "b"})):
        with pytest.raises(CheckpointError, match="not a whole safetensors file"):
            attempt(path)
    assert path.read_bytes() == content


def test_a_header_is_not_read_beyond_its_bound(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", 2**60) + json.dumps({}).encode())
    with pytest.raises(CheckpointError, match="header too large"):
        read_metadata(path)
