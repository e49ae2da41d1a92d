"""Lines of text in other scripts, with the fonts this machine has. None whose letters pass for Latin ones in a line
(Greek, Cyrillic, Armenian, Coptic ...), nor single characters that do: 工, 口, ノ, 〇, ο."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from clip4str.training.fonts import font_files

from .paint import Size, two_colours
from .shapes import ground

HEIGHT = 36


@dataclass(frozen=True)
class Script:
    """names: how its font files are called, in small letters. ranges: first and last code points of its characters.

    left_out: those of them that look like Latin letters or digits. joined: marks that follow a character.
    least: fewest characters of a line.
    """

    names: tuple[str, ...]
    ranges: tuple[tuple[int, int], ...]
    left_out: str = ""
    joined: tuple[int, ...] = ()
    least: int = 2


_CJK = ("notosanscjk", "notoserifcjk", "wqy", "droidsansfallback", "ukai", "uming", "fandol")
# fmt: off
SCRIPTS = {
    "Chinese": Script(_CJK, ((0x4E03, 0x9FA5),),
                      "丁丅丄上下丌不丨丩丫中串丶丸丿乀乁乂乙乚乛九了亅二亍亞亚人入八冂几凵刀力匚匸十卄千卅卜卩厂厶又口囗土士夊夕大小尸屮山川巛工己已巳巾干幺广廴廾弋弓彐彡彳日曰月木"
                      "止正王田由甲申目臼自凸凹〇三口品回吕呂"),
    "Japanese": Script(("notosanscjk", "notoserifcjk", "wqy", "takao", "ipa", "vlgothic"),
                       ((0x3042, 0x3093), (0x30A2, 0x30F3), (0x4E03, 0x7FFF)),
                       "くしつってとのへこいりハニノロトイエコユヨソンレルリヘミムクフラメナチテス工口一二三十八人入力了",
                       least=3),
    "Korean": Script(("notosanscjk", "notoserifcjk", "wqy", "nanum", "unfonts", "baekmuk"), ((0xAC00, 0xD7A3),),
                     "이미머더니어이", least=2),
    "Arabic": Script(("notosansarabic", "notonaskh", "notokufi", "notonastaliq", "amiri", "kacst", "dejavusans"),
                     ((0x0628, 0x063A), (0x0641, 0x064A)), "", (0x0627,), 4),
    "Hebrew": Script(("notosanshebrew", "notoserifhebrew", "notorashi", "culmus", "frank", "david"),
                     ((0x05D0, 0x05EA),), "וויןסםחטנ", least=4),
    "Devanagari": Script(("devanagari", "lohit-deva"), ((0x0905, 0x0939),), "ट ठ ढ", (0x093E, 0x0940, 0x0947, 0x094B)),
    "Bengali": Script(("bengali",), ((0x0985, 0x098B), (0x0995, 0x09A8), (0x09AA, 0x09B0)), "",
                      (0x09BE, 0x09BF, 0x09C7)),
    "Gurmukhi": Script(("gurmukhi",), ((0x0A15, 0x0A28), (0x0A2A, 0x0A30)), "ਠ", (0x0A3E, 0x0A40, 0x0A47)),
    "Tamil": Script(("tamil",), ((0x0B85, 0x0B8A), (0x0BA3, 0x0BA4), (0x0BA8, 0x0BAA), (0x0BAE, 0x0BB5)), "ப",
                    (0x0BBE, 0x0BBF, 0x0BC6)),
    "Malayalam": Script(("malayalam",), ((0x0D05, 0x0D0A), (0x0D15, 0x0D28), (0x0D2A, 0x0D39)), "ഠറ",
                        (0x0D3E, 0x0D3F), 3),
    "Thai": Script(("notoserifthai", "notoloopedthai", "tlwg"), ((0x0E04, 0x0E2E),), "ทนบพรงวอ",
                   (0x0E31, 0x0E34, 0x0E35, 0x0E48, 0x0E49), 4),
    "Ethiopic": Script(("ethiopic",), ((0x1208, 0x1246), (0x1260, 0x1286)), "ዐዑበሀህሆሃሁሂሄ", least=3),
    "Mongolian": Script(("mongolian",), ((0x1820, 0x1842),), least=4),
    # kept for measuring, see benchmarks/textless.py
    "Gujarati": Script(("gujarati",), ((0x0A95, 0x0AA8), (0x0AAA, 0x0AB0)), "ઙટઠડર", (0x0ABE, 0x0AC0, 0x0AC7), 3),
    "Telugu": Script(("telugu",), ((0x0C15, 0x0C28), (0x0C2A, 0x0C39)), "ంఠ", (0x0C3E, 0x0C3F, 0x0C46), 3),
    "Khmer": Script(("khmer",), ((0x1780, 0x17A2),), "", (0x17B6, 0x17B7, 0x17C1), 3),
    "Sinhala": Script(("sinhala",), ((0x0D9A, 0x0DB1), (0x0DB3, 0x0DBB)), "ට", (0x0DCF, 0x0DD2), 3),
    "Tibetan": Script(("tibetan",), ((0x0F40, 0x0F47), (0x0F49, 0x0F69)), "", (0x0F72, 0x0F7A), 3),
}
# fmt: on
MEASURED = ("Gujarati", "Telugu", "Khmer", "Sinhala", "Tibetan")
LEARNED = tuple(name for name in SCRIPTS if name not in MEASURED)


@functools.lru_cache(maxsize=2)
def script_faces(names: tuple[str, ...] = LEARNED) -> dict[str, tuple[ImageFont.FreeTypeFont, ...]]:
    """Faces by script, only those scripts that this machine can draw; it may be none."""
    files = {Path(path).stem.lower(): path for path in font_files()}
    found = {}
    for name in names:
        paths = [path for stem, path in sorted(files.items()) if stem.startswith(SCRIPTS[name].names)
                 or any(part in stem for part in SCRIPTS[name].names)]  # fmt: skip
        faces = [face for face in map(_open, paths[:8]) if face is not None and _draws(face, SCRIPTS[name])]
        if faces:
            found[name] = tuple(faces)
    return found


def other_script(rng: np.random.Generator, size: Size, names: tuple[str, ...] = LEARNED) -> np.ndarray:
    """A line of random characters of one script, on plain or graded ground, as tight as word crops are."""
    known = script_faces(names)
    name = list(known)[rng.integers(len(known))]
    face = known[name][rng.integers(len(known[name]))]
    box = face.getbbox(text := _text(rng, SCRIPTS[name]))
    margin = [round(HEIGHT * v) for v in rng.uniform(-0.02, 0.25, 4)]
    wide = max(8, round(box[2] - box[0]) + margin[0] + margin[1])
    high = max(8, round(box[3] - box[1]) + margin[2] + margin[3])
    mask = Image.new("L", (wide, high))
    ImageDraw.Draw(mask).text((margin[0] - box[0], margin[2] - box[1]), text, 255, face)
    if rng.random() < 0.25:
        mask = mask.rotate(float(rng.normal(0, 5)), Image.Resampling.BILINEAR, expand=True)
    scale = size[0] / mask.height
    mask = mask.resize((max(4, round(mask.width * scale)), size[0]), Image.Resampling.BILINEAR, reducing_gap=2)
    below = ground(rng, (mask.height, mask.width)).astype(np.float32)
    ink, paper = two_colours(rng, 60)
    if rng.random() < 0.7 or abs(below.mean() - ink.mean()) < 60:
        below = np.broadcast_to(paper, below.shape)
    share = np.asarray(mask, np.float32)[..., None] / 255
    return np.clip(below + share * (ink - below), 0, 255).astype(np.uint8)


def _text(rng: np.random.Generator, script: Script) -> str:
    letters, text = _letters(script), ""
    for _ in range(script.least + int(rng.gamma(2.0, 1.2))):
        text += letters[rng.integers(len(letters))]
        if script.joined and rng.random() < 0.35:
            text += chr(script.joined[rng.integers(len(script.joined))])
    return text


@functools.lru_cache(maxsize=32)
def _letters(script: Script) -> str:
    every = (chr(code) for first, last in script.ranges for code in range(first, last + 1))
    return "".join(c for c in every if c not in script.left_out)


def _open(path: str) -> ImageFont.FreeTypeFont | None:
    try:
        return ImageFont.truetype(path, HEIGHT)
    except OSError:
        return None


def _draws(face: ImageFont.FreeTypeFont, script: Script) -> bool:
    """Has glyphs of its own for some of the characters, all different and none the missing-glyph box."""
    letters = _letters(script)
    some = [letters[len(letters) * k // 5] for k in range(5)]
    drawn = [bytes(face.getmask(c)) for c in ("\U0010ffff", *some)]
    return len(set(drawn)) == len(drawn)
