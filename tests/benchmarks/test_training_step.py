"""Where a training step's time goes: operations counted against formulas, shares that add up."""

import json

import pytest

pytest.importorskip("lightning")

from clip4str.benchmarks.training_step import PARTS, main
from clip4str.core.errors import UsageError


def test_operations_are_those_of_the_products(tmp_path, capsys):
    file = tmp_path / "step.json"
    options = ["--layers", "2", "--batch", "4", "--rounds", "2", "--cross-every", "4", "--json", str(file)]
    assert main(options) == 0
    report = json.loads(file.read_text())
    rows = {row["part"]: row for row in report["rows"]}
    assert list(rows) == list(PARTS) and rows["image tower"]["ms"] > 0
    tokens, width, classes = 33, 192, 95
    patches = 2 * 32 * width * 3 * 32 * 4
    block = 2 * tokens * width * width * (3 + 1 + 2 * 4) + 4 * tokens * tokens * width
    tower = patches + 2 * block + 2 * tokens * width * width
    assert rows["image tower"]["mflop"] == pytest.approx(tower / 1e6, rel=1e-3)
    assert rows["draft head"]["mflop"] == pytest.approx(2 * 32 * width * classes / 1e6, rel=1e-3)
    assert report["word"]["mflop"] == pytest.approx(sum(row["mflop"] * row["weight"] for row in rows.values()))
    assert rows["backward"]["weight"] + rows["backward, cross-modal too"]["weight"] == 1
    assert "words a second and core" in capsys.readouterr().out


@pytest.mark.parametrize("options, message", [
    (("--cross-every", "0"), "--cross-every is 1 or more"),
    (("--rounds", "0"), "--rounds is 1 or more"),
    (("--orders", "3"), "an even number"),
])  # fmt: skip
def test_mistakes_are_told_before_anything_is_timed(options, message):
    with pytest.raises(UsageError, match=message):
        main(list(options))
