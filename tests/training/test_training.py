"""The run: learns, stops and goes on, writes checkpoints that load_checkpoint reads; the schedule and the optimizer."""

import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import TINY, WORDS, train, write_lmdb

from clip4str.core.errors import CheckpointError, UsageError
from clip4str.core.reading import Decoding
from clip4str.model import load_checkpoint, save_checkpoint
from clip4str.model.clip4str import Clip4Str
from clip4str.training import start
from clip4str.training.arguments import parser
from clip4str.training.data import Stream, load_validation, load_words
from clip4str.training.logbook import HeldOut
from clip4str.training.module import Settings, Training, word_accuracy
from clip4str.training.psm import draw_orders, psm_losses
from clip4str.training.schedule import one_cycle
from clip4str.training.textless import crops, plain
from clip4str.training.train import main, strategy


def test_four_words_are_learned_to_zero_error(words):
    torch.manual_seed(0)
    model = Clip4Str(TINY)
    start.initialize(model)
    data, _ = load_words([words], model.charset)
    stream = Stream([(data, 1.0, 0.0)], model.charset, TINY.image_size, batch=8, augment=False)
    parameters = [p for n, p in model.named_parameters() if "logit_scale" not in n]
    optimizer = torch.optim.AdamW(parameters, lr=2e-3)
    for number in range(150):
        batch = stream.make(number)
        memory = model.clip_model.visual(batch.pixels.permute(0, 3, 1, 2).float() / 127.5 - 1)
        orders = draw_orders(batch.tokens.shape[1] - 2, 6, np.random.default_rng(number))
        losses = psm_losses(model, memory, batch.tokens, orders)
        optimizer.zero_grad()
        (losses.visual + losses.cross).backward()
        optimizer.step()
        if losses.visual + losses.cross < 0.02:
            break
    model.eval()
    reading = model.read(batch.pixels.permute(0, 3, 1, 2).float() / 127.5 - 1)
    assert [model.charset.decode(row) for row in reading.ids] == [
        model.charset.decode(row[1:].tolist()) for row in batch.tokens
    ]


def test_a_run_writes_what_it_promises(words, tmp_path, small_is_tiny, capsys):
    assert train(words, tmp_path / "run", "--steps", "5", "--validate-every", "2", "--cross-start", "0.5") == 0
    assert "5 steps, 20 words" in capsys.readouterr().out
    raw = load_checkpoint(tmp_path / "run" / "last.ckpt")
    averaged = load_checkpoint(tmp_path / "run" / "model.safetensors")
    assert raw.config == averaged.config == replace(TINY, draft_frames=2)
    pixels = torch.randn(2, 3, *TINY.image_size)
    assert raw(pixels).shape == averaged(pixels).shape == (2, 26, 95)
    with (tmp_path / "run" / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [r["step"] for r in rows] == ["1", "2", "4", "5"]
    assert rows[1]["validation_visual"] and not rows[1]["validation_cross"]
    assert rows[2]["validation_cross"] and rows[3]["validation_visual"]
    assert (tmp_path / "run" / "log.png").read_bytes()[:4] == b"\x89PNG"
    assert not list((tmp_path / "run").glob(".*"))


def test_a_run_with_crops_without_text(words, tmp_path, small_is_tiny, capsys, monkeypatch):
    """Also batches of nothing else; drawn words come beside them."""
    monkeypatch.setattr(crops, "MADE", {"blank": plain.blank, "noise": plain.noise})
    assert train(words, tmp_path / "some", "--textless", "0.25", "--steps", "2") == 0
    assert "crops without text (25 %)" in capsys.readouterr().out
    with (tmp_path / "some" / "log.csv").open() as file:
        assert 0 <= float(list(csv.DictReader(file))[-1]["validation_textless"]) <= 1
    assert train(words, tmp_path / "all", "--textless", "1", "--steps", "2", "--orders", "6") == 0
    with (tmp_path / "all" / "log.csv").open() as file:
        assert all(float(row["ctc"]) > 0 and float(row["visual"]) > 0 for row in csv.DictReader(file))


def test_empty_words_are_learned_beside_others(tmp_path):
    """Nothing is read where nothing is, and something where a word is."""
    torch.manual_seed(0)
    model = Training(TINY, Settings(dropout=0.0, freeze_text=-1))
    start.initialize(model)
    data, _ = load_words([write_lmdb(tmp_path / "two", ["stop", "24"] * 6)], model.charset)
    blank = crops.Textless(0, made={"blank": plain.blank})
    stream = Stream([(data, 1.0, 0.0)], model.charset, TINY.image_size, 8, augment=False, textless=(0.25, blank))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3)
    for number in range(100):
        batch = stream.make(number)
        memory = model.clip_model.visual(model.normalise(batch.pixels))
        orders = draw_orders(batch.tokens.shape[1] - 2, 2, np.random.default_rng(number))
        loss = psm_losses(model, memory, batch.tokens, orders, cross=False).visual
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss < 0.1:
            break
    model.eval()
    model.decoding = Decoding(branch="visual")
    for number in range(300, 304):
        batch = stream.make(number)
        wanted = [model.charset.caption(row[1:].numpy()) for row in batch.tokens]
        assert [word == "" for word in model.read_words(batch.pixels)] == [word == "" for word in wanted]
        assert wanted.count("") == 2


def test_whole_sets_are_validated_on_apart(words, tmp_path, small_is_tiny):
    """Each has its column in the log, also in that of a run begun without them."""
    for name in ("SVT", "IC03"):
        write_lmdb(tmp_path / "held" / name, [name] * 3, first=100)
    output, both = tmp_path / "run", [str(tmp_path / "held"), "--validate-every", "1"]
    assert train(words, output, "--steps", "1", "--validate-every", "1") == 0
    assert train(words, output, "--steps", "2", "--validation", *both) == 0
    with (output / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["1", "2"] and rows[0]["validation_visual"]
    assert rows[0]["validation_SVT"] == "" and 0 <= float(rows[1]["validation_SVT"]) <= 1
    assert rows[1]["validation_IC03"] and None not in rows[1]


def test_accuracy_by_set_is_that_of_its_words(words, tmp_path, monkeypatch):
    """The network reads "stop" everywhere: right in a fourth of one set, in all of the other."""
    folders = [write_lmdb(tmp_path / name, labels) for name, labels in (("a", WORDS), ("b", ["stop"] * 2))]
    held = HeldOut(load_validation(folders, Clip4Str(TINY).charset)[0], TINY.image_size, 10)
    monkeypatch.setattr(Training, "read_words", lambda self, pixels: ["stop"] * len(pixels))
    scores = held.accuracy(Training(TINY, Settings()))
    assert scores == {"visual": 0.5, "cross": 0.5, "a": 0.25, "b": 1.0} and held.names == ("a", "b")


def test_unread_crops_are_counted_apart(tmp_path, monkeypatch):
    """One of four is read; accuracy stays that of the words."""
    folder = write_lmdb(tmp_path / "a", ["stop", "exit"])
    blanks = [Image.new("RGB", (9, 9))] * 4
    held = HeldOut(load_validation([folder], Clip4Str(TINY).charset)[0], TINY.image_size, 10, blanks)
    monkeypatch.setattr(Training, "read_words", lambda self, pixels: ["stop", "x", "", "sale", "", ""])
    assert held.accuracy(Training(TINY, Settings())) == {"visual": 0.5, "cross": 0.5, "textless": 0.75}
    assert held.names == ("textless",) and len(held) == 2 and len(held.pixels) == 6


@pytest.mark.parametrize(
    "optimizer, stop, code", [("adamw", KeyboardInterrupt, 130), ("muon", UsageError("power cut"), 2)]
)
def test_going_on_equals_never_stopping(words, tmp_path, small_is_tiny, monkeypatch, optimizer, stop, code):
    # With 0 minutes between checkpoints, the run that is stopped goes on from one written in full flow.
    options = ("--steps", "6", "--dropout", "0.1", "--cross-start", "0.3", "--optimizer", optimizer)
    options = (*options, "--save-minutes", "0")
    assert train(words, tmp_path / "whole", *options) == 0

    step = Training.training_step

    def interrupted(self, batch, number):
        if self.global_step == 3:
            raise stop
        return step(self, batch, number)

    monkeypatch.setattr(Training, "training_step", interrupted)
    assert train(words, tmp_path / "parts", *options) == code
    monkeypatch.setattr(Training, "training_step", step)
    assert train(words, tmp_path / "parts", *options) == 0

    whole, parts = (torch.load(tmp_path / n / "last.ckpt", weights_only=True) for n in ("whole", "parts"))
    assert whole["global_step"] == parts["global_step"] == 6
    for key in ("state_dict", "clip4str_training"):
        torch.testing.assert_close(_tensors(parts[key]), _tensors(whole[key]), rtol=0, atol=0)
    # Finished runs have nothing more to do.
    assert train(words, tmp_path / "whole", *options) == 0
    assert torch.load(tmp_path / "whole" / "last.ckpt", weights_only=True)["global_step"] == 6


def _tensors(tree):
    return {k: v if isinstance(v, torch.Tensor) else _tensors(v) for k, v in tree.items()
            if isinstance(v, (dict, torch.Tensor))}  # fmt: skip


@pytest.mark.parametrize(
    "options, message",
    [
        ([], "say how long"),
        (["--steps", "2", "--orders", "3"], "even number"),
        (["--steps", "2", "--batch", "0"], "at least 1"),
        (["--steps", "2", "--real-fraction", "1.5"], "between 0 and 1"),
        (["--steps", "2", "--render", "0.9"], "more than 1"),
        (["--steps", "2", "--render", "0.5"], "clip4str atlas --output atlas.safetensors"),
        (["--steps", "2", "--render", "0.5", "--render-atlas", "absent"], "no such atlas"),
        (["--steps", "2", "--data", "missing-folder"], "does not exist"),
        (["--steps", "2", "--words", "missing-file"], "word list"),
        (["--steps", "2", "--init", "missing.ckpt"], "does not exist"),
        (["--steps", "2", "--weights", "words"], "weights are written like"),
        (["--steps", "2", "--weights", "absent=2"], "no set is called 'absent'; there are words"),
        (["--steps", "2", "--textless", "-0.1"], "--textless is between 0 and 1"),
        (["--steps", "2", "--photos", "missing"], "say how many, too: --textless SHARE"),
        (["--steps", "2", "--textless", "0.5", "--photos", "missing"], "missing: no photo"),
        (["--steps", "2", "--validation", "missing-folder"], "does not exist"),
        (["--steps", "many"], "invalid int value: 'many'"),
        (["--steps", "2", "--resum", "never"], "unrecognized arguments: --resum never"),
        (["--steps", "2", "--init", "clip"], "no CLIP weights for size"),
    ],
)
def test_mistakes_are_one_line(words, tmp_path, small_is_tiny, capsys, options, message):
    assert train(words, tmp_path / "run", *options) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error and error.startswith("clip4str train: error: ")


def test_other_mistakes(words, tmp_path, small_is_tiny, capsys, monkeypatch):
    assert main(["--output", str(tmp_path), "--steps", "1"]) == 2
    assert "what to train on" in capsys.readouterr().err
    assert train(words, tmp_path / "run", "--steps", "1") == 0
    assert train(words, tmp_path / "run", "--steps", "1", "--resume", "never") == 2
    (tmp_path / "run" / "last.ckpt").write_bytes(b"PK\x03\x04 cut off")
    assert train(words, tmp_path / "run", "--steps", "1") == 2
    assert "damaged" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(UsageError, match=r"pip install 'clip4str\[clip\]'"):
        start.start_from(Clip4Str(TINY), "clip", "base16")


def test_another_network_does_not_go_on(words, tmp_path, small_is_tiny, capsys, monkeypatch):
    assert train(words, tmp_path / "run", "--steps", "1") == 0
    assert train(words, tmp_path / "run", "--steps", "2", "--ctc", "0") == 2
    assert "the same command" in capsys.readouterr().err
    monkeypatch.setattr(Training, "normalise", lambda self, pixels: torch.full((4, 3, 16, 64), torch.nan))
    assert train(words, tmp_path / "run", "--steps", "2") == 2
    assert "the loss is nan at step 1" in capsys.readouterr().err


def test_rendered_words_and_collected_gradients(atlas_file, tmp_path, small_is_tiny, capsys):
    (tmp_path / "words.txt").write_text("bar\ncafe\n")
    options = ["--render", "1", "--words", str(tmp_path / "words.txt"), "--output", str(tmp_path / "run"),
               "--batch", "2", "--accumulate", "3", "--steps", "2", "--workers", "0"]  # fmt: skip
    assert main([*options, "--render-atlas", str(atlas_file), "--accelerator", "cpu"]) == 0
    assert "2 steps, 12 words" in capsys.readouterr().out


def test_a_share_too_small_for_a_word(atlas_file, words, tmp_path, small_is_tiny, capsys):
    assert train(words, tmp_path / "run", "--render", "0.01", "--render-atlas", str(atlas_file), "--steps", "1") == 0
    assert "1 steps, 4 words" in capsys.readouterr().out


def test_starting_from_a_checkpoint(tmp_path):
    torch.manual_seed(0)
    one, two = Clip4Str(TINY), Clip4Str(TINY)
    save_checkpoint(one, tmp_path / "one.safetensors")
    start.start_from(two, str(tmp_path / "one.safetensors"), "small")
    assert all(torch.equal(v, two.state_dict()[k]) for k, v in one.state_dict().items())
    with pytest.raises(CheckpointError, match="another size"):
        start.start_from(Clip4Str(replace(TINY, d=128)), str(tmp_path / "one.safetensors"), "small")


def test_schedule_is_torchs_one_cycle():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    steps = 4001
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, steps, pct_start=0.075, cycle_momentum=False)
    for step in range(steps):
        # Torch counts the warm-up's last step, hence the slack of one step in 4000.
        assert optimizer.param_groups[0]["lr"] == pytest.approx(one_cycle(step / (steps - 1)), abs=6e-3)
        optimizer.step()
        if step < steps - 1:
            schedule.step()


def test_groups_follow_the_paper():
    module = Training(TINY, Settings(lr=1.0, decoder_lr=19.0, freeze_text=0))
    names = {id(p): n for n, p in module.named_parameters()}
    groups = module.configure_optimizers().param_groups
    assert sum(len(g["params"]) for g in groups) == sum(p.requires_grad for p in module.parameters())
    for group in groups:
        for p in group["params"]:
            name = names[id(p)]
            assert group["lr"] == (1.0 if name.startswith("clip_model.") else 19.0)
            plain = p.ndim < 2 or "pos_queries" in name or "text_embed" in name
            assert group["weight_decay"] == (0.0 if plain else 0.2), name
    assert not module.clip_model.token_embedding.weight.requires_grad
    assert module.clip_model.transformer.resblocks[0].attn.in_proj_weight.requires_grad


def test_word_accuracy_counts_as_the_test_charset_writes():
    model = Clip4Str(TINY)
    assert word_accuracy(["stop", "exit", "x"], ["STOP!", "Exit", "y"], model) == pytest.approx(2 / 3)
    assert word_accuracy(["stop", "x"], ["stop", "?!"], model) == 1.0


@pytest.mark.parametrize(
    "options, unused", [((), False), (("--cross-every", "4"), True), (("--cross-start", "0.5"), True)]
)
def test_processes_outwait_a_long_pause(options, unused):
    args = parser("").parse_args(["--output", "x", "--devices", "2", *options])
    found = strategy(args)
    assert found._timeout.days >= 7 and found._ddp_kwargs == {"find_unused_parameters": unused}
    args.devices = 1
    assert strategy(args) == "auto"


@pytest.mark.slow
def test_two_processes(words, tmp_path):
    """Under DDP, started as a script: one log, one result, twice the words."""
    script = Path(start.__file__).parent / "train.py"
    command = [sys.executable, str(script), "--data", str(words), "--output", str(tmp_path / "run"),
               "--batch", "2", "--devices", "2", "--accelerator", "cpu", "--threads", "1", "--workers", "0",
               "--cross-start", "0.5"]  # fmt: skip
    for steps in ("2", "3"):
        done = subprocess.run([*command, "--steps", steps], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
        assert f"done: {steps} steps, {4 * int(steps)} words" in done.stdout
    load_checkpoint(tmp_path / "run" / "model.safetensors")
