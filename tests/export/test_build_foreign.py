"""clip4str build over other people's checkpoints: what was assumed is said, what is broken leaves nothing behind."""

import json

import pytest
import torch
from PIL import Image

from clip4str.core.errors import UsageError
from clip4str.export.build_engine import main
from clip4str.runtime import Recognizer
from clip4str.runtime.read_command import main as read


@pytest.fixture(scope="module")
def wide(random_model):
    return random_model(seed=2, image_size=(64, 256), patch_size=(16, 16))


def test_the_input_size_that_was_assumed_is_said_and_can_be_chosen(wide, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(wide.state_dict(), "wide.pt")
    assert main(["wide.pt", "--min-agreement", "0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("assumed: an input of 128x128 (--image-size), 8 heads in the decoders" in line for line in lines) == 1
    assert main(["wide.pt", "--min-agreement", "0", "--image-size", "64x256", "--output", "chosen"]) == 0
    assert "an input of" not in capsys.readouterr().out
    assert Recognizer.load("chosen").manifest.image_size == (64, 256)


def test_reading_with_a_checkpoint_warns_and_takes_a_size(wide, tmp_path, capsys, recwarn):
    torch.save(wide.state_dict(), tmp_path / "wide.pt")
    Image.new("RGB", (64, 16), "white").save(tmp_path / "a.png")
    assert read([str(tmp_path / "a.png"), "--bundle", str(tmp_path / "wide.pt"), "--image-size", "64x256"]) == 0
    assert [str(w.message) for w in recwarn if "assumed" in str(w.message)] == [
        "wide.pt: the file does not say, so assumed: 8 heads in the decoders, 16 tokens of caption, "
        "the first 94 of CLIP4STR's characters (--charset)"
    ]
    recognizer = Recognizer.load(tmp_path / "wide.pt", image_size=(64, 256))
    assert recognizer.manifest.image_size == (64, 256)
    (tmp_path / "letters.txt").write_text("".join(map(chr, range(0x410, 0x410 + 94))), encoding="utf-8")
    recwarn.clear()
    given = ["--image-size", "64x256", "--charset", str(tmp_path / "letters.txt"), "--json"]
    capsys.readouterr()
    assert read([str(tmp_path / "a.png"), "--bundle", str(tmp_path / "wide.pt"), *given]) == 0
    assert not [w for w in recwarn if "characters (--charset)" in str(w.message)]
    assert all(ord(c) >= 0x410 for c in json.loads(capsys.readouterr().out)["text"])


def test_an_image_size_for_a_bundle_is_an_error(tiny_bundle):
    with pytest.raises(UsageError, match="a bundle has its image size"):
        Recognizer.load(tiny_bundle, image_size=(32, 64))
    with pytest.raises(UsageError, match="a bundle has its charset"):
        Recognizer.load(tiny_bundle, charset="abc")


def test_one_weight_that_is_no_number_builds_nothing(wide, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = {k: v.clone() for k, v in wide.state_dict().items()}
    state["clip_model.visual.proj"][0, 0] = float("nan")
    torch.save(state, "broken.pt")
    assert main(["broken.pt", "--min-agreement", "0"]) == 2
    error = capsys.readouterr().err
    assert "clip_model.visual.proj has numbers that are not finite" in error and error.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["broken.pt"]
