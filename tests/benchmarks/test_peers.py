"""peers.py over words that the golden file knows; the peers themselves are optional installs and not needed here."""

from __future__ import annotations

import json
import re

import pytest

from clip4str.benchmarks.peers import main
from clip4str.runtime.errors import UsageError


@pytest.fixture
def data(tmp_path, write_lmdb, golden):
    arrays = golden("tiny")
    words = list(zip(arrays["images"], map(str, arrays["text"])))[:6]
    words[2] = (words[2][0], "wrong")
    write_lmdb(tmp_path / "data" / "svt", words)
    return tmp_path / "data"


def test_ours_alone(data, tiny_bundle, golden, tmp_path, capsys):
    figures = tmp_path / "peers.json"
    assert main(["--data", str(data), "--bundle", str(tiny_bundle), "--peers", "--quiet", "--json", str(figures)]) == 0
    assert tiny_bundle.name in capsys.readouterr().out
    (tiny,) = json.loads(figures.read_text())["recognisers"]
    kept = [w for w in map(str, golden("tiny")["text"][:6]) if re.sub("[^0-9a-z]", "", w.lower())]
    assert len(kept) >= 4 and tiny["accuracy"]["SVT"] == pytest.approx(100 * (len(kept) - 1) / len(kept), abs=0.01)


def test_unknown_set_and_bad_numbers(data, tiny_bundle):
    with pytest.raises(UsageError, match="no set named CUTE80"):
        main(["--data", str(data), "--bundle", str(tiny_bundle), "--sets", "CUTE80"])
    with pytest.raises(UsageError, match="limit is 1 or more"):
        main(["--data", str(data), "--bundle", str(tiny_bundle), "--limit", "0"])
