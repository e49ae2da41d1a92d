"""The power law through accuracies over words seen."""

import json

import numpy as np
import pytest
from PIL import Image

from clip4str.benchmarks import words_seen


def test_a_power_law_is_found_again():
    words = np.array([1e5, 7e5, 2e6, 9e6])
    law = words_seen.power_law(words, 100 - 900 * words**-0.25)
    assert law[1] == pytest.approx(-0.25) and words_seen.right_at(law, 1e8) == pytest.approx(91.0)
    assert words_seen.words_for(law, 91.0) == pytest.approx(1e8)


@pytest.mark.parametrize("right", [[80.0, 80.0, 80.0], [80.0, 79.0, 78.0], [80.0, 80.00001, 80.00001]])
def test_where_more_words_do_not_help_no_number_of_them_reaches_the_target(right):
    law = words_seen.power_law(np.array([1e5, 1e6, 1e7]), np.array(right))
    assert words_seen.words_for(law, 95.0) == np.inf


def test_intervals_hold_the_law_and_are_wider_for_fewer_words():
    history = json.loads(words_seen.RUNS.read_text())
    seen, right = words_seen.points(history, "SVT")
    few, many = (np.percentile(words_seen.draws(seen, right, n)[:, 1], (2.5, 97.5)) for n in (300, 30_000))
    slope = words_seen.power_law(seen, right)[1]
    assert few[0] < many[0] < slope < many[1] < few[1]


def test_the_command_prints_a_row_a_set_and_draws(capsys, tmp_path):
    assert words_seen.main(["--chart", str(tmp_path / "seen.png")]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [row.split("|")[1].strip() for row in rows[2:]] == ["SVT", "CUTE80"] and "nan" not in "".join(rows)
    assert Image.open(tmp_path / "seen.png").size[0] > 800
