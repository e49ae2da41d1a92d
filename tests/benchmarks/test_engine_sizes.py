"""The table of engine sizes: its figures are those of the files."""

from __future__ import annotations

import json
import re

import pytest

from clip4str.benchmarks.engine_sizes import PROGRAM, main
from clip4str.core.console import run_script
from clip4str.runtime.bundle import STAGES


def test_sizes_of_the_bundled_network(tmp_path, capsys):
    pytest.importorskip("tensorrt_rtx")
    file = tmp_path / "engines.json"
    assert main(["--networks", "small", "--precisions", "fp16", "int8", "--json", str(file)]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| small")]
    written = json.loads(file.read_text())
    rows = {(row["precision"], row["stage"]): row for row in written["rows"]}
    assert set(rows) == {(p, s) for p in ("fp16", "int8") for s in STAGES} and len(lines) == len(rows)
    assert written["compute_capability"] == "8.6" and written["tensorrt_rtx"] and written["machine"]["cores"]
    image = rows["fp16", "image"]
    layers, ends = 9, 3  # four products a block; patches, keys and values, draft head
    assert image["onnx_bytes"] == pytest.approx(8.64e6, rel=0.02) and image["engine_bytes"] > image["onnx_bytes"]
    assert image["attentions"] == layers and image["products"] == {"Half": 4 * layers + ends}
    assert rows["int8", "image"]["products"] == {"Half": ends, "Int8": 4 * layers}
    assert rows["int8", "image"]["onnx_bytes"] < 0.7 * image["onnx_bytes"]
    for line, row in zip(lines, written["rows"]):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[:3] == [row["network"], row["precision"], row["stage"]]
        assert float(cells[4]) == pytest.approx(row["engine_bytes"] / 1e6, abs=0.06)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--compute-capability", "nine"], "expected numbers"),
        (["--json", "/nowhere/x.json"], "its folder does not exist"),
    ],
)
def test_one_line_errors(arguments, message, capsys):
    assert run_script(PROGRAM, main, arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and re.search(message, error)
