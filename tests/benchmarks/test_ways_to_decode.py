"""modes.py over words that the golden file knows, one by one for every way to decode."""

import json
import re

import pytest

from clip4str.benchmarks.modes import main, ways
from clip4str.core.errors import UsageError
from clip4str.core.reading import Decoding
from clip4str.runtime import Recognizer


@pytest.fixture
def words(golden):
    arrays = golden("tiny")
    found = list(zip(arrays["images"], map(str, arrays["text"])))[:5]
    return [(pixels, label) for pixels, label in found if re.sub("[^0-9a-z]", "", label.lower())]


def test_every_way_once_and_the_published_first(tiny_bundle, words):
    sides = ways(tiny_bundle, 1, [1, 0, 0])
    names = [side.name for side in sides]
    assert names[0] == "cross, ar, refine 1" and len(names) == len(set(names)) == 8
    for side in sides:
        branch, decode, rounds = re.fullmatch(r"(\w+), (\w+), refine (\d)", side.name).groups()
        direct = Recognizer.load(tiny_bundle, "onnxruntime", decoding=Decoding(decode, int(rounds), branch))
        assert [side.read(pixels) for pixels, _ in words] == [word.text for word in direct.read([p for p, _ in words])]


def test_the_report(tiny_bundle, words, write_lmdb, tmp_path, capsys):
    write_lmdb(tmp_path / "data" / "SVT", words)
    figures = tmp_path / "modes.json"
    options = ["--data", str(tmp_path / "data"), "--bundle", str(tiny_bundle), "--quiet", "--json", str(figures)]
    assert main([*options, "--refine", "1"]) == 0
    rows = json.loads(figures.read_text())["ways"]
    assert [row["name"] for row in rows] == [f"{b}, {d}, refine 1" for b in ("cross", "visual") for d in ("ar", "nar")]
    assert rows[0]["accuracy"]["SVT"]["percent"] == 100 and rows[0]["ratio"]["median"] == 1
    assert all(row["ratio"]["to"] == rows[0]["name"] for row in rows)
    assert "| visual, nar, refine 1 |" in capsys.readouterr().out


def test_mistakes(tiny_bundle, words, write_lmdb, tmp_path):
    write_lmdb(tmp_path / "SVT", words)
    for wrong in (["--threads", "0"], ["--refine", "-1"]):
        with pytest.raises(UsageError):
            main(["--data", str(tmp_path), "--bundle", str(tiny_bundle), *wrong])
