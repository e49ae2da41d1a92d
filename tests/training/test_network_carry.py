"""What of the long run is carried away, and to another machine: weights, and the whole state in pieces."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from stand_in import HEADER
from tiny import TINY, tiny_network

from clip4str.core.errors import Clip4StrError, DataError, UsageError
from clip4str.model import load_checkpoint, save_checkpoint

if sys.platform != "linux":
    pytest.skip("the run needs Linux", allow_module_level=True)

from network_home import LOG, spoil, write_run

from clip4str.training.network import carry, processes, states
from clip4str.training.network.places import places


def test_exported_weights_say_how_many_words_they_have_seen(where, tmp_path):
    write_run(where, 9, words=1000)
    with pytest.raises(UsageError, match="no averaged weights yet"):
        carry.export_weights(where, tmp_path / "out.safetensors")
    save_checkpoint(tiny_network(2), where.run / states.AVERAGED, torch.float16)
    (where.run / "log.csv").write_text(HEADER + "9,90,1,0.1,1,1,1,\n")
    assert carry.export_weights(where, tmp_path / "out.safetensors") == 1090
    with safe_open(tmp_path / "out.safetensors", "pt") as file:
        assert file.metadata()["words_seen"] == "1090"
    before, after = load_file(where.run / states.AVERAGED), load_file(tmp_path / "out.safetensors")
    assert before.keys() == after.keys() and all(torch.equal(v, after[k]) for k, v in before.items())
    assert load_checkpoint(tmp_path / "out.safetensors").config == TINY
    assert states.words_seen(tmp_path / "out.safetensors") == 1090
    branch = tmp_path / "branch"
    branch.mkdir()
    save_checkpoint(tiny_network(3), branch / states.AVERAGED)
    (branch / "log.csv").write_text(LOG)
    assert carry.export_weights(where, tmp_path / "branch.safetensors", branch) == 2500
    with pytest.raises(UsageError, match="exists already"):
        carry.export_weights(where, tmp_path / "out.safetensors")


@pytest.fixture
def pieces(where, tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(carry, "PIECE", 300_000)
    write_run(where, 9, words=1000)
    (where.run / "log.csv").write_text(LOG)
    assert carry.export_pieces(where, tmp_path / "state") == 6
    return tmp_path / "state"


def test_a_state_in_pieces_arrives_as_it_was(where, pieces, tmp_path):
    assert max(path.stat().st_size for path in pieces.iterdir()) <= 300_000
    there = places(tmp_path / "other" / "project", {})
    there.project.mkdir(parents=True)
    assert carry.import_pieces(there, pieces).startswith("step 9, 90 words (1,090 in all), commit ")
    names = sorted(path.name for path in there.run.iterdir())
    assert names == [states.LAST, "log.csv", states.START]
    assert all((there.run / name).read_bytes() == (where.run / name).read_bytes() for name in names)
    assert "what was here: run-1" in carry.import_pieces(there, pieces)


def test_damaged_or_foreign_pieces_change_nothing(where, pieces):
    before = (where.run / states.LAST).read_bytes()
    manifest = json.loads((pieces / carry.MANIFEST).read_text())

    def refused(message: str) -> None:
        with pytest.raises(Clip4StrError, match=message):
            carry.import_pieces(where, pieces)
        assert (where.run / states.LAST).read_bytes() == before and not (where.home / "run-1").exists()

    spoil(pieces / "last.ckpt.001", "one bit")
    refused("last.ckpt.001: damaged")
    (pieces / "last.ckpt.001").unlink()
    refused("last.ckpt.001: cannot be read")
    manifest["files"]["../../escape"] = manifest["files"].pop("log.csv")
    (pieces / carry.MANIFEST).write_text(json.dumps(manifest))
    refused("escape")
    manifest["files"] = {states.LAST: {"sha256": "", "pieces": [{"bytes": 2**40, "sha256": ""}]}}
    (pieces / carry.MANIFEST).write_text(json.dumps(manifest))
    refused("impossible sizes")
    manifest["files"] = {states.LAST: {"sha256": "", "pieces": [{"bytes": 1}]}}
    (pieces / carry.MANIFEST).write_text(json.dumps(manifest))
    refused("not what export --pieces writes")
    (pieces / carry.MANIFEST).write_text("[" * 100_000)
    refused("not what export --pieces writes")


def test_nothing_is_imported_under_a_running_run(where, pieces):
    from clip4str.training.network.processes import take_lock

    lock = take_lock(where.lock)
    with pytest.raises(UsageError, match="make network-stop first"):
        carry.import_pieces(where, pieces)
    assert lock is not None


def test_while_a_state_is_carried_in_the_keeper_before_it_is_not_taken_for_running(where, pieces, monkeypatch):
    """Its number stands in a file, and the lock is held again."""
    where.process.write_text(json.dumps({"pid": 2**22 + 1, "start": 1, "since": 0.0, "commit": "0" * 40}))
    seen = []
    monkeypatch.setattr(carry, "_join", lambda *_: seen.append(processes.keeper_of(where)))
    with pytest.raises(DataError, match="cannot be gone on from"):  # nothing was joined
        carry.import_pieces(where, pieces)
    assert seen and not any(seen)


def test_weights_of_a_branch_are_not_exported_in_pieces(tmp_path, monkeypatch):
    from clip4str.training.network_run import main

    monkeypatch.setenv("CLIP4STR_NETWORK", str(tmp_path / "network"))
    with pytest.raises(UsageError, match="--pieces carry the run itself away"):
        main(["export", "--output", str(tmp_path / "x"), "--pieces", "--branch", str(tmp_path)])
    with pytest.raises(DataError, match=r"network-state.json: cannot be read \(No such file"):
        main(["import", str(tmp_path / "absent")])
    assert not (tmp_path / "network").exists()  # nothing was begun
