"""Charsets as people have them: PaddleOCR's lists, published configurations, plain strings."""

import pytest
from charsets import BENGALI, CHINESE, VIETNAMESE

from clip4str.core.charset_file import read_charset
from clip4str.core.errors import CharsetError, UsageError
from clip4str.core.text import CHARSET_94

PUBLISHED = r"""# @package _global_
model:
  charset_train: "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
"""


@pytest.mark.parametrize(
    ("content", "characters", "said"),
    [
        (VIETNAMESE, VIETNAMESE, "c.txt: 229 characters, ' twice"),
        (VIETNAMESE + "\n", VIETNAMESE, "c.txt: 229 characters, ' twice"),
        ("\n".join(CHINESE) + "\n", CHINESE, "c.txt: 6,600 characters"),
        ("\r\n".join("日本 語") + "\r\n", "日本 語", "c.txt: 4 characters, 1 space"),
        ("\ufeffa\nb\n\nc\n", "abc", "c.txt: 3 characters; 1 empty line passed over"),
        (BENGALI, BENGALI, f"c.txt: {len(BENGALI)} characters, 1 space, 2 invisible characters, 32 unassigned"),
        (PUBLISHED, CHARSET_94, "c.txt: 94 characters"),
        ("charset_train: 'it''s'\n", "it's", "c.txt: 4 characters"),
    ],
)
def test_files_of_every_kind(tmp_path, content, characters, said):
    file = tmp_path / "c.txt"
    file.write_bytes(content.encode())
    given = read_charset(str(file))
    assert given.characters == characters and given.said.startswith(said)


@pytest.mark.parametrize("literal", ["0123456789", CHARSET_94, VIETNAMESE, CHINESE, "a\0b", "~/.x"])
def test_a_literal_string_is_taken_as_it_is(literal):
    assert read_charset(literal).characters == literal


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no characters"),
        (b"\n\n", "holds no characters"),
        ("日本".encode("utf-16"), "not UTF-8"),
        (b"a\nbc\nd", "line 2 has 2 characters"),
        (b"charset_train: [1, 2]\n", "no text under charset_train"),
        (b"charset_train: 'a\n", "no valid YAML"),
        (b"charset_train: !!python/object/apply:os.system ['true']\n", "no valid YAML"),
        (b"x" * (1 << 21), "larger than any charset"),
    ],
)
def test_what_is_no_charset_is_said_in_one_line(tmp_path, content, message):
    file = tmp_path / "c.txt"
    file.write_bytes(content)
    with pytest.raises(CharsetError, match=message) as caught:
        read_charset(str(file))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_no_literal():
    with pytest.raises(UsageError, match=r"dict\.txt: no such charset file"):
        read_charset("dict.txt")
