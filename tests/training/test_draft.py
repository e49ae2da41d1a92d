"""A draft head for a frozen network, from crops without labels."""

import hashlib
import io

import lmdb
import numpy as np
import pytest
import torch
from tiny import draw, write_lmdb

from clip4str.core.reading import Decoding
from clip4str.model import load_checkpoint, save_checkpoint
from clip4str.model.draft import DraftHead
from clip4str.training import draft
from clip4str.training.train import main


@pytest.fixture(scope="module")
def network(random_model):
    """Short words, many different ones."""
    return random_model(seed=5, steps=6)


@pytest.fixture(scope="module")
def checkpoint(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("network") / "net.safetensors"
    save_checkpoint(network, path)
    return path


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    """A folder of pictures, one of which is none, and an LMDB that has no labels."""
    folder = tmp_path_factory.mktemp("crops")
    (folder / "pictures" / "more").mkdir(parents=True)
    for i in range(60):
        draw(f"word{i}", i).save(folder / "pictures" / ("more" if i % 2 else ".") / f"{i}.png")
    (folder / "pictures" / "broken.png").write_bytes(b"\x89PNG but no more")
    (folder / "pictures" / "notes.txt").write_text("no picture")
    with lmdb.open(str(folder / "set"), map_size=2**24) as environment, environment.begin(write=True) as txn:
        for i in range(1, 61):
            buffer = io.BytesIO()
            draw(f"more{i}", 100 + i).save(buffer, "PNG")
            txn.put(b"image-%09d" % i, buffer.getvalue())
        txn.put(b"num-samples", b"60")
    return folder


def test_the_command_adds_a_head_and_changes_no_word(network, checkpoint, crops, tmp_path, capsys):
    output = tmp_path / "new" / "drafting.safetensors"
    options = ["--data", str(crops / "pictures"), str(crops / "set"), "--steps", "60", "--batch", "32"]
    assert main(["--draft-head", str(checkpoint), "--output", str(output), *options, "--lr", "0.03"]) == 0
    said = capsys.readouterr().out
    assert "120 crops, " in said and "words changed: 0" in said
    model = load_checkpoint(output)
    assert model.config.draft_frames == 8 and not any(p.requires_grad for p in model.parameters())
    for name, tensor in network.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)
    pixels = torch.randn(8, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    reading = model.read(pixels)
    assert reading.stats.drafted == 8 and np.array_equal(reading.ids, network.read(pixels).ids)
    assert [p.name for p in output.parent.iterdir()] == [output.name]
    # A network that has one gets another.
    again = tmp_path / "again.safetensors"
    how = ["--draft-head", str(output), "--output", str(again), *options, "--half-precision-result"]
    assert main([*how, "--seed", "1"]) == 0
    assert not torch.equal(load_checkpoint(again).draft_head.weight, model.draft_head.weight)


def test_what_is_learned_is_what_the_visual_branch_reads(network, crops):
    learned = draft.look(network, draft.find_crops([str(crops)], 1000), "half")
    assert len(learned.held) == len(learned.memory) == len(learned.ids) == 120 and 2 < learned.held.sum() < 40
    pictures = [draw(f"word{i}", i) for i in (0, 10)]
    pixels = torch.from_numpy(draft.prepare(pictures, network.config.image_size, "half"))
    network.decoding = Decoding(refine=0, branch="visual")
    for ids in network.read(pixels).ids:
        assert (learned.ids == ids).all(axis=1).any()
    network.decoding = Decoding()


def test_a_head_learns_the_words_it_is_shown(network, crops):
    """Held out words of random weights cannot be foreseen; those shown can be learned by heart."""
    learned = draft.look(network, draft.find_crops([str(crops)], 1000), "half")
    assert len(np.unique(learned.ids, axis=0)) > 20
    torch.manual_seed(0)
    head = DraftHead(draft.replace(network.config, draft_frames=8))
    shown = learned._replace(held=~learned.held)

    def right():
        readings = [draft.read_visual(network, shown.memory[row : row + 1], head) for row in np.flatnonzero(shown.held)]
        return np.mean([reading.stats.visual_passes == 1 for reading in readings])

    before = right()
    draft.fit(head, learned, steps=300, batch=64, lr=0.1)
    assert before == 0 and right() > 0.5
    assert "words changed: 0" in draft.report(network, head, shown)


def test_copies_of_a_picture_are_on_one_side_and_memory_is_bounded(network, checkpoint, crops, tmp_path, capsys):
    contents = draft.find_crops([str(crops / "set"), str(crops / "set")], 1000)
    learned = draft.look(network, contents, "half")
    assert np.array_equal(learned.held[:60], learned.held[60:])
    digests = [hashlib.sha256(content()).digest() for content in contents]
    assert len(set(digests)) == 60
    few = draft.find_crops([str(crops)], 7)
    assert len(few) == 7
    every = {content() for content in draft.find_crops([str(crops)], 1000)}
    pictures = {path.read_bytes() for path in crops.rglob("*.png")}
    assert len(pictures) == 61 and every == pictures | {content() for content in contents}
    # 17 tokens of 32 features in half precision are 1088 bytes
    big = tmp_path / "big"
    write_lmdb(big, [f"w{i}" for i in range(1100)])
    output = tmp_path / "out.safetensors"
    how = ["--draft-head", str(checkpoint), "--data", str(big), "--output", str(output), "--steps", "1"]
    assert main([*how, "--memory", "1"]) == 0
    assert f"{(1 << 20) // 1088} crops, " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--steps", "0"], "--steps is at least 1, not 0"),
        (["--lr", "-1"], "--lr is above 0"),
        (["--output", "head.ckpt"], "ends in .safetensors"),
        (["--data", "nowhere"], "nowhere: does not exist"),
        (["--draft-head", "none.ckpt"], "none.ckpt: does not exist"),
        (["--size", "base16"], "unrecognized arguments: --size base16"),
        (["--crops", "1"], "1 crops are too few"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(checkpoint, crops, tmp_path, monkeypatch, capsys, change, message):
    monkeypatch.chdir(tmp_path)
    how = {"--draft-head": str(checkpoint), "--data": str(crops), "--output": "out.safetensors", "--steps": "2"}
    how.update([change] if len(change) == 2 else [])
    assert main([word for pair in how.items() for word in pair]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    assert not list(tmp_path.glob("*.safetensors"))


def test_an_output_that_is_there_stays(checkpoint, crops, tmp_path, capsys):
    (tmp_path / "out.safetensors").write_text("precious")
    how = ["--draft-head", str(checkpoint), "--data", str(crops), "--output", str(tmp_path / "out.safetensors")]
    assert main(how) == 2 and "exists; choose another --output" in capsys.readouterr().err
    assert (tmp_path / "out.safetensors").read_text() == "precious"


def test_a_folder_without_crops(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(draft.DataError, match="empty: neither pictures nor LMDB data sets"):
        draft.find_crops([str(tmp_path / "empty")], 10)
