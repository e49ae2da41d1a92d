"""Charsets as published forks have them: other scripts, repeated characters, code points without a character."""

from __future__ import annotations

from clip4str.core.text import CHARSET_94

_ACCENTED = "àáạảãâầấậẩẫăằắặẳẵèéẹẻẽêềếệểễìíịỉĩòóọỏõôồốộổỗơờớợởỡùúụủũưừứựửữỳýỵỷỹđ"
VIETNAMESE = CHARSET_94[:62] + _ACCENTED + _ACCENTED.upper() + "!\"#$%&''()*+,-./:;<=>?@[\\]^_`{|}~"  # ' twice
BENGALI = "".join(map(chr, range(0x980, 0xA00))) + " \u200c\u200d0123456789"  # unassigned code points in the block
CHINESE = "".join(map(chr, range(0x4E00, 0x4E00 + 6564))) + CHARSET_94[:36]
DIGITS = "0123456789"
