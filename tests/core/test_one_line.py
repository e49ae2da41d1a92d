"""What is printed of a stranger's text."""

from clip4str.core.errors import one_line


def test_control_characters_are_escaped_and_words_stay_as_they_are_spelled():
    assert one_line("a\nb\x1b[31m\u202e") == "a\\nb\\x1b[31m\\u202e"
    for word in ("ক্\u200dষ", "می\u200cخواهم", "đăng", "日本"):
        assert one_line(word) == word
