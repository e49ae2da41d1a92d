"""Crops for an int8 build: where they are from, how they are split, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from clip4str.core.errors import ImageError, UsageError
from clip4str.export.quantization import samples
from clip4str.export.quantization.samples import CALIBRATED, GATED, load_samples, multiplications, rendered_words
from clip4str.model.config import Config

SMALL = Config(image_size=(32, 128), patch_size=(32, 4), image_width=192, image_layers=6)


def fill(folder, count, name="{:02}-word{}.png"):
    folder.mkdir(exist_ok=True)
    for i in range(count):
        Image.fromarray(np.full((8, 16, 3), i, np.uint8)).save(folder / name.format(i, i))
    return folder


def seen(found):
    """Which of the pictures of `fill`, by their grey."""
    return [sample.image.getpixel((0, 0))[0] for sample in found]


def test_a_folder_is_split_and_the_same_way_again(tmp_path):
    found = load_samples(fill(tmp_path / "crops", 40), SMALL)
    calibration, gate = seen(found.calibration), seen(found.gate)
    assert sorted(calibration + gate) == list(range(40)) and len(calibration) == 10
    assert calibration != sorted(calibration)  # not the first ones: names often go by kind
    again = load_samples(tmp_path / "crops", SMALL)
    assert (seen(again.calibration), seen(again.gate)) == (calibration, gate)
    assert all(sample.label == f"word{grey}" for sample, grey in zip(found.gate, gate))
    assert found.source == "40 crops of crops"


@pytest.mark.parametrize("name, label", [("{:03}-Word's end-{}.png", True), ("word{}.png", False), ("{}.png", False)])
def test_labels_are_in_file_names(tmp_path, name, label):
    found = load_samples(fill(tmp_path / "crops", 8, name), SMALL)
    expected = {f"Word's end-{i}" for i in range(8)} if label else {None}
    assert {sample.label for sample in (*found.gate, *found.calibration)} == expected


@pytest.mark.parametrize("count", [0, 1, 7])
def test_too_few_are_refused(tmp_path, count):
    with pytest.raises(UsageError, match=rf"{count or 'no'} image.* at least 8 .*--calib-data"):
        load_samples(fill(tmp_path / "crops", count), SMALL)


def test_eight_are_enough(tmp_path):
    found = load_samples(fill(tmp_path / "crops", 8), SMALL)
    assert len(found.calibration) == len(found.gate) == 4


def test_no_folder(tmp_path):
    with pytest.raises(UsageError, match="no such folder"):
        load_samples(tmp_path / "nowhere", SMALL)


def test_a_damaged_image_is_named(tmp_path):
    folder = fill(tmp_path / "crops", 9)
    (folder / "05-word5.png").write_bytes(b"\x89PNG\r\n\x1a\n not really")
    with pytest.raises(ImageError, match=r"05-word5\.png"):
        load_samples(folder, SMALL)


def test_an_lmdb(tmp_path, write_lmdb):
    words = [(np.full((8, 16, 3), i, np.uint8), f"Wo{i}") for i in range(12)]
    found = load_samples(write_lmdb(tmp_path / "SVT", words), SMALL)
    assert {sample.label: sample.image.getpixel((0, 0))[0] for sample in (*found.gate, *found.calibration)} == {
        f"Wo{i}": i for i in range(12)
    }
    words[7] = (b"nothing", "x")
    with pytest.raises(ImageError, match=r"ICDAR: image-000000008: not an image"):
        load_samples(write_lmdb(tmp_path / "ICDAR", words), SMALL)


def test_of_many_crops_an_even_share_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(samples, "CALIBRATED", 4)
    monkeypatch.setattr(samples, "GATED", 12)
    found = load_samples(fill(tmp_path / "crops", 61, "{:02}-w{}.png"), SMALL)
    assert sorted(seen(found.calibration + found.gate)) == list(range(0, 61, 4))


def test_without_a_folder_there_are_enough_for_tenths_of_a_point(monkeypatch):
    drawn = []
    monkeypatch.setattr(samples, "rendered_words", lambda n: drawn.append(n) or [samples.Sample(None, "x")] * n)
    found = load_samples(None, SMALL)
    assert len(found.calibration) == CALIBRATED and len(found.gate) == GATED == 1000
    assert drawn == [CALIBRATED + GATED - 32]
    large = load_samples(None, Config(image_width=1024, image_layers=24, patch_size=(14, 14)))
    assert multiplications(SMALL) < 1e9 and len(large.gate) == 500


def test_rendered_words_are_the_same_everywhere(monkeypatch):
    """Whatever fonts the machine has, and drawn so that they can be read."""
    from clip4str.training import fonts

    files = samples._font_files
    monkeypatch.setattr(samples, "_font_files", lambda folder: files(folder)[:2])  # drawing all takes seconds
    first = rendered_words(40)
    monkeypatch.setattr(fonts, "font_files", lambda folders=None: [])
    fonts._references.cache_clear()
    second = rendered_words(40)
    fonts._references.cache_clear()
    assert [a.label for a in first] == [b.label for b in second]
    assert all(np.array_equal(np.asarray(a.image), np.asarray(b.image)) for a, b in zip(first, second))
    assert len({a.label for a in first}) > 30 and np.asarray(first[0].image).shape == (32, 128, 3)
    assert np.mean([np.asarray(a.image).std() for a in first]) > 20
