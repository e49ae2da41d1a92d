"""Fine-tuning on another charset and on other lengths of words: what is kept, what begins anew, what is said."""

import unicodedata
from collections import Counter
from dataclasses import replace

import pytest
import torch
from charsets import BENGALI, DIGITS, VIETNAMESE
from tiny import TINY, WORDS, tiny_network, train, write_lmdb

from clip4str.core.errors import CheckpointError
from clip4str.core.text import CHARSET_94, Charset, default_test
from clip4str.model import load_checkpoint, save_checkpoint
from clip4str.model.clip4str import Clip4Str
from clip4str.training.data import clean_label, say_noted
from clip4str.training.start import start_from

VIET = replace(TINY, charset=VIETNAMESE, charset_test=default_test(VIETNAMESE))


def rows_by_character(network: Clip4Str) -> dict[tuple[str, str], torch.Tensor]:
    """(tensor, character) -> its row in heads, embeddings and the draft head; the character's last number counts."""
    rows, charset = {}, network.charset
    for name, tensor in network.state_dict().items():
        if name.endswith(("head.weight", "head.bias", "text_embed.embedding.weight")):
            numbers = {c: charset.encode(c)[0] for c in charset.characters} | {"end": 0}
            if "text_embed" in name:
                numbers |= {"start": charset.start, "pad": charset.pad}
            if name.startswith("draft_head."):
                tensor = tensor.unflatten(0, (-1, len(charset.characters) + 1)).transpose(0, 1)
            rows |= {(name, c): tensor[number] for c, number in numbers.items()}
    return rows


@pytest.mark.parametrize("charset", [VIETNAMESE, VIETNAMESE[::-1], BENGALI, DIGITS])
def test_characters_that_both_charsets_have_keep_their_weights(tmp_path, charset):
    torch.manual_seed(0)
    old = Clip4Str(replace(TINY, draft_frames=2))
    save_checkpoint(old, tmp_path / "old.safetensors")
    new = Clip4Str(replace(TINY, draft_frames=2, charset=charset, charset_test=default_test(charset)))
    fresh = {key: row.clone() for key, row in rows_by_character(new).items()}
    said = start_from(new, str(tmp_path / "old.safetensors"), "small")
    before, after = rows_by_character(old), rows_by_character(new)
    shared = before.keys() & after.keys()
    assert {c for _, c in shared} == (set(CHARSET_94) & set(charset)) | {"end", "start", "pad"}
    assert all(torch.equal(before[key], after[key]) for key in shared)
    assert all(torch.equal(fresh[key], after[key]) for key in after.keys() - shared)
    kept = sum(c in CHARSET_94 for c in charset)
    assert said == [
        f"charset: {kept} of {len(charset)} characters are the checkpoint's and keep their weights, "
        f"{len(charset) - kept} begin anew, {len(set(CHARSET_94) - set(charset))} are given up"
    ]
    other = {
        k: v for k, v in old.state_dict().items() if not k.endswith(("head.weight", "head.bias", "embedding.weight"))
    }
    assert all(torch.equal(new.state_dict()[name], tensor) for name, tensor in other.items())


def test_a_checkpoint_of_another_size_and_charset_is_still_refused(tmp_path):
    save_checkpoint(tiny_network(), tmp_path / "old.safetensors")
    with pytest.raises(CheckpointError, match="choose --size to match"):
        start_from(Clip4Str(replace(VIET, d=128)), str(tmp_path / "old.safetensors"), "small")


@pytest.mark.parametrize("steps", [101, 11])
def test_longer_and_shorter_words_keep_the_positions_that_there_are(tmp_path, steps):
    old = tiny_network()
    save_checkpoint(old, tmp_path / "old.safetensors")
    new = Clip4Str(replace(TINY, steps=steps))
    (line,) = start_from(new, str(tmp_path / "old.safetensors"), "small")
    assert f"of up to {steps - 1} characters, the checkpoint's of up to 25" in line
    kept = min(steps, 26)
    assert torch.equal(new.visual_decoder.pos_queries[:, :kept], old.visual_decoder.pos_queries[:, :kept])
    assert new.cross_decoder.pos_queries.shape[1] == steps


def test_labels_are_folded_only_where_the_charset_lacks_them_and_are_counted():
    noted, charset = Counter(), Charset(VIETNAMESE)
    labels = ["đăng", unicodedata.normalize("NFD", "Phở"), "hai từ", "Škoda", "日本", "x" * 30]
    words = [clean_label(label, charset, noted=noted) for label in labels]
    assert words == ["đăng", "Phở", "haitừ", "Skoda", None, None]
    assert say_noted(noted) == (
        "labels: 2 altered (what the charset lacks, taken off); 2 left out: 1 longer than 25 characters, "
        "1 with no character of the charset"
    )
    assert say_noted(Counter()) == ""


@pytest.mark.usefixtures("small_is_tiny")
def test_train_fine_tunes_on_a_charset_out_of_a_file_and_goes_on(tmp_path, capsys):
    data = write_lmdb(tmp_path / "data" / "viet", ["đăng", "Phở", "bún", "Ẵ", "日本"] * 6)
    save_checkpoint(tiny_network(), tmp_path / "latin.safetensors")
    (tmp_path / "viet.txt").write_text("\n".join(VIETNAMESE) + "\n", encoding="utf-8")
    given = ("--init", str(tmp_path / "latin.safetensors"), "--charset", str(tmp_path / "viet.txt"))
    run = tmp_path / "run"
    assert train(data.parent, run, "--steps", "2", *given) == 0
    out = capsys.readouterr().out
    assert "charset: viet.txt: 229 characters, ' twice" in out and "begin anew" in out
    assert "6 left out: 6 with no character of the charset" in out
    network = load_checkpoint(run / "model.safetensors")
    assert network.config.charset == VIETNAMESE and "ă" in network.config.charset_test
    assert train(data.parent, run, "--steps", "3", *given) == 0 and "going on at step 2" in capsys.readouterr().out
    assert train(data.parent, run, "--steps", "4", *given[:2], "--charset", VIETNAMESE[::-1]) == 2
    assert "the run began with another --charset" in capsys.readouterr().err
    # without --charset a checkpoint's own is learned
    assert train(data.parent, tmp_path / "more", "--steps", "1", "--init", str(run / "model.safetensors")) == 0
    assert "charset: that of the checkpoint, 229 characters" in capsys.readouterr().out
    assert load_checkpoint(tmp_path / "more" / "model.safetensors").config.charset == VIETNAMESE


@pytest.mark.usefixtures("small_is_tiny")
def test_training_follows_the_length_of_words(tmp_path, capsys):
    data = write_lmdb(tmp_path / "data" / "long", [*WORDS * 3, "x" * 11, "y" * 90])
    assert train(data.parent, tmp_path / "short", "--steps", "2", "--network", "steps=11") == 0
    assert "2 left out: 2 longer than 10 characters" in capsys.readouterr().out
    assert load_checkpoint(tmp_path / "short" / "model.safetensors").config.steps == 11
    assert train(data.parent, tmp_path / "long", "--steps", "2", "--network", "steps=101") == 0
    assert "left out" not in capsys.readouterr().out


@pytest.mark.usefixtures("small_is_tiny")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--network", "steps=1"), "2 to 256, not 1"),
        (("--network", "context=77"), "--network: a text context of 77 does not fit 16 text positions"),
        (("--charset", "missing.txt"), "missing.txt: no such charset file"),
        (("--charset", DIGITS, "--render", "0.5", "--render-atlas", "a"), "the charset lacks 'abcdefghijklmnopqrst'"),
        (("--network", "steps=11", "--render", "0.5", "--render-atlas", "a"), "the network writes 10: leave it out"),
    ],
)
def test_what_a_run_cannot_learn_is_one_line(words, tmp_path, capsys, options, message):
    assert train(words, tmp_path / "run", "--steps", "1", *options) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
