"""What the arguments of clip4str train cannot mean is said before anything is read."""

import pytest

from clip4str.core.errors import UsageError
from clip4str.training.arguments import check, parser


def test_a_file_is_no_folder_of_a_run(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    there = parser("").parse_args(["--output", str(tmp_path / "notes.txt"), "--synthetic", "x", "--steps", "1"])
    with pytest.raises(UsageError, match=r"notes\.txt: is a file; --output names a folder"):
        check(there)
    for folder in (tmp_path, tmp_path / "new"):
        check(parser("").parse_args(["--output", str(folder), "--synthetic", "x", "--steps", "1"]))
