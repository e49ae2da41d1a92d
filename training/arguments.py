"""What `python training/train.py` can be told, and what it makes of it."""

from __future__ import annotations

import argparse
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from clip4str.core.console import Parser
from clip4str.core.errors import CheckpointError, UsageError
from clip4str.model import Config
from clip4str.model.config import check_config
from clip4str.model.sizes import SIZES, size_name

from .schedule import SCHEDULES

MOST_STEPS = 256  # what a bundle may have

# fmt: off


def parser(description: str) -> Parser:
    p = Parser(
        prog="clip4str train", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data = p.add_argument_group("data").add_argument
    data("--data", nargs="+", default=[], metavar="DIR",
         help="folders of real words: LMDBs, at any depth; 5%% of the pictures are held out for validation, unless "
              "--validation names whole sets")
    data("--validation", nargs="+", default=[], metavar="DIR",
         help="whole sets held out for validation: LMDBs, at any depth; nothing is learned from them or from copies of "
              "their pictures, even where --data holds them; accuracy is logged for each")
    data("--weights", type=weights, default={}, metavar="NAME=W,...",
         help="how often words of a set below --data are seen, beside those of other sets: as if it had W times its "
              "rows; 0 leaves it out (default 1; a set is called as its folder)")
    data("--caseless", nargs="+", default=[], metavar="NAME",
         help="sets below --data whose labels do not tell case (all capitals, whatever is printed): only their words "
              "without letters are learned, so that no letter is taught in the wrong case")
    data("--leave-out", metavar="FILE",
         help="pictures of --data to leave out: a list from data/near_duplicates.py --write-exclusions")
    data("--synthetic", nargs="+", default=[], metavar="DIR", help="folders of rendered words: LMDBs, at any depth")
    data("--render", type=float, default=0.0, metavar="SHARE",
         help="share of words rendered on the fly, where the training runs, from --render-atlas (default 0)")
    data("--render-atlas", metavar="FILE", help="glyph atlas to render from, made by clip4str atlas")
    data("--real-fraction", type=float, default=0.25, metavar="SHARE",
         help="share of real words where there are others too (default 0.25)")
    data("--textless", type=float, default=0.0, metavar="SHARE",
         help="share of every batch that are crops without text, or with none to be told, which teach the empty word; "
              "the other shares are of the rest (default 0)")
    data("--photos", metavar="DIR",
         help="photos for --textless, with their words' places (ICDAR 2015's layout): pieces away from every word; a "
              "third of the photos, by name, is left for measuring")
    data("--words", metavar="FILE", help="word list for --render, most frequent first")
    data("--workers", type=int, default=None,
         help="processes that prepare words, per device (default: one for two cores, at most 8)")
    data("--validation-words", type=int, default=1000, metavar="N",
         help="most words of a set to validate on (default 1000)")

    run = p.add_argument_group("run").add_argument
    run("--output", required=True, metavar="DIR", help="folder of the run")
    run("--resume", choices=("auto", "never"), default="auto",
        help="auto: go on if the folder holds a checkpoint (default); never: refuse if it does")
    run("--branch", metavar="RUN",
        help="begin as a copy of this run's folder, which stays as it is (for --schedule decay)")
    run("--steps", type=int, default=0, help="optimiser steps of the whole run, or since --branch")
    run("--minutes", type=float, default=0.0, help="minutes of the whole run, or since --branch, over all sessions")
    run("--devices", type=int, default=1, help="GPUs, or CPU processes (default 1)")
    run("--accelerator", default="auto", choices=("auto", "cpu", "gpu"))
    run("--strategy", default="auto", help="how to use several devices (default with more than one: ddp)")
    run("--precision", default="auto", choices=("auto", "32", "bf16-mixed", "16-mixed"),
        help="auto: bf16-mixed where the GPU has it, or the CPU is faster with it")
    run("--threads", type=int, default=0, help="CPU threads per process (default: torch's choice)")
    run("--compile", action="store_true", help="torch.compile: some minutes at the start, a quarter faster afterwards")
    run("--save-minutes", type=float, default=3.0, help="minutes between checkpoints (default 3)")
    run("--validate-every", type=int, default=500, metavar="STEPS", help="steps between validations (default 500)")
    run("--seed", type=int, default=0)

    net = p.add_argument_group("network").add_argument
    net("--size", type=size_name, choices=tuple(SIZES), default="small",
        help="small: the bundled one, 32x128 input (default)")
    net("--network", default="", metavar="FIELD=VALUE,...",
        help="change the size: fields of model.Config, for example image_layers=9,patch_size=8x4")
    net("--charset", metavar="FILE",
        help="characters to learn: a file (one line, a character on each, or a published configuration in YAML), or "
             "the string itself; of a checkpoint's weights those of shared characters are kept (default: the "
             "checkpoint's own, else the 94 of ASCII)")
    net("--init", default=None, metavar="START",
        help="random (default for small), clip (of open_clip; default for the others), clip:NAME:TAG of it, clip:FILE "
        "(OpenAI's, open_clip's or Hugging Face's layout), or a CLIP4STR checkpoint")
    net("--dropout", type=float, default=None, help="in the decoders (default 0.1; 0 from random weights)")
    net("--freeze-text", type=int, default=None, metavar="LAYERS",
        help="text layers kept as they are, and the embeddings (default 6 from CLIP's weights, else -1: nothing)")
    net("--half-precision-result", action="store_true", help="write model.safetensors as float16")

    learn = p.add_argument_group("learning").add_argument
    learn("--batch", type=int, default=128, help="words per device and step (default 128)")
    learn("--accumulate", type=int, default=1, help="batches per optimiser step (default 1)")
    learn("--lr", type=float, default=None,
          help="towers' peak rate (default 8.4e-5 x words per step / 512; 1e-3 from random weights)")
    learn("--decoder-lr", type=float, default=None,
          help="decoders' multiple of it (default 19; 1 from random weights)")
    learn("--schedule", choices=SCHEDULES, default="one-cycle",
          help="one-cycle: the published one (default); constant: goes on until it is stopped, and can be extended at "
               "any time; decay: to zero, of a --branch of such a run")
    learn("--warm-up", type=int, default=300, metavar="STEPS", help="of the constant schedule (default 300)")
    learn("--optimizer", choices=("adamw", "muon"), default=None,
          help="adamw as published (default); muon (default from random weights)")
    learn("--muon-lr", type=float, default=3e-3, help="rate of the hidden matrices under muon (default 3e-3)")
    learn("--weight-decay", type=float, default=None, help="default 0.2; 0.05 from random weights")
    learn("--orders", type=int, default=6, help="permutations per batch, an even number (default 6)")
    learn("--alone", action="store_true",
          help="learn each word once more, every character knowing none of the others: what decoding nar needs and "
               "few orders do not teach")
    learn("--ctc", type=float, default=None,
          help="weight of the draft head's loss; 0: no draft head (default 0; 0.5 from random weights)")
    learn("--cross-start", type=float, default=0.0, metavar="SHARE",
          help="share of the run after which the cross-modal branch begins (default 0)")
    learn("--cross-every", type=int, default=1, metavar="N",
          help="let the cross-modal branch learn from every N-th batch only (default 1: all)")
    learn("--ema", type=float, default=0.999, help="decay of the weight average (default 0.999)")
    learn("--clip-mean", action="store_true", help="normalise with CLIP's mean and deviation instead of one half")
    return p


# fmt: on


def weights(text: str) -> dict[str, float]:
    """NAME=W,... -> {name: weight}. Raises argparse.ArgumentTypeError."""
    found = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.rpartition("=")
        try:
            found[name] = float(value)
        except ValueError:
            found[name] = -1.0
        if not name or not 0 <= found[name] < math.inf:
            raise argparse.ArgumentTypeError(f"weights are written like SVT=2,receipts=0.5, not {part!r}")
    return found


def config_from(args: argparse.Namespace, charset: tuple[str, str] | None = None) -> Config:
    """The network of --size with the changes of --network, for a charset and test charset, None for the usual ones.
    Raises UsageError for what no network has."""
    changes: dict[str, Any] = {}
    kinds = {field.name: field.type for field in fields(Config)}
    for change in filter(None, args.network.split(",")):
        name, _, value = change.partition("=")
        if kinds.get(name) not in ("int", "tuple[int, int]"):
            known = ", ".join(name for name, kind in kinds.items() if kind != "str")
            raise UsageError(f"--network: a network has no size called {name!r}; it has {known}")
        numbers = [int(part) for part in value.split("x") if part.isdecimal()]
        pair = kinds[name] != "int"
        if len(numbers) != 1 + pair or not all(numbers) or "x".join(map(str, numbers)) != value:
            example = "16x4 (height x width)" if pair else "192"
            raise UsageError(f"--network: {name} is written like {name}={example}, not {change!r}")
        changes[name] = tuple(numbers) if pair else numbers[0]
    config = replace(SIZES[args.size], **changes)
    if charset is not None:
        config = replace(config, charset=charset[0], charset_test=charset[1])
    if not 2 <= config.steps <= MOST_STEPS:
        raise UsageError(f"--network: steps is the longest word and one more, 2 to {MOST_STEPS}, not {config.steps}")
    if _ctc(args) and not config.draft_frames:
        from clip4str.model.draft import frames_per_column

        config = replace(config, draft_frames=frames_per_column(config.grid, config.steps))
    try:
        check_config(config)
    except CheckpointError as error:
        raise UsageError(f"--network: {error}") from None
    return config


def _ctc(args: argparse.Namespace) -> float:
    return args.ctc if args.ctc is not None else 0.5 if args.init == "random" else 0.0


def settings_from(args: argparse.Namespace) -> Any:
    from clip4str.training.module import Settings

    random = args.init == "random"
    clip = args.init.partition(":")[0] == "clip"

    def default(value: Any, if_random: Any, otherwise: Any) -> Any:
        return value if value is not None else if_random if random else otherwise

    published = 8.4e-5 * args.batch * args.accumulate * args.devices / 512
    return Settings(
        lr=default(args.lr, 1e-3, published),
        decoder_lr=default(args.decoder_lr, 1.0, 19.0),
        weight_decay=default(args.weight_decay, 0.05, 0.2),
        dropout=default(args.dropout, 0.0, 0.1),
        orders=args.orders,
        alone=args.alone,
        freeze_text=args.freeze_text if args.freeze_text is not None else 6 if clip else -1,
        clip_mean=args.clip_mean,
        schedule=args.schedule,
        warm_up=args.warm_up,
        steps=args.steps,
        minutes=args.minutes,
        muon_lr=args.muon_lr if default(args.optimizer, "muon", "adamw") == "muon" else 0.0,
        ctc=_ctc(args),
        cross_start=args.cross_start,
        cross_every=args.cross_every,
        ema=args.ema,
        seed=args.seed,
        compile=args.compile,
    )


def check(args: argparse.Namespace) -> None:
    """Raises UsageError for what cannot be meant."""
    if Path(args.output).exists() and not Path(args.output).is_dir():
        raise UsageError(f"{args.output}: is a file; --output names a folder, a new one or of a run to go on with")
    if not args.steps and not args.minutes and args.schedule != "constant":
        raise UsageError("say how long to train: --steps N or --minutes M (or --schedule constant, which needs no end)")
    if args.schedule == "constant" and args.cross_start:
        raise UsageError("--cross-start is a share of the run, and a constant one has no end: leave it at 0")
    if args.schedule == "decay" and not args.branch:
        raise UsageError("--schedule decay ends a run that has been learning at a constant rate: name it, --branch RUN")
    if not args.data and not args.synthetic and not args.render:
        raise UsageError("say what to train on: --data DIR, --synthetic DIR or --render SHARE")
    for name in ("batch", "accumulate", "devices", "validate_every", "cross_every"):
        if getattr(args, name) < 1:
            raise UsageError(f"--{name.replace('_', '-')} is at least 1, not {getattr(args, name)}")
    if args.orders < 2 or args.orders % 2:
        raise UsageError(f"--orders is an even number, each order comes with its mirror; not {args.orders}")
    for name in ("render", "real_fraction", "textless", "cross_start"):
        if not 0 <= getattr(args, name) <= 1:
            raise UsageError(f"--{name.replace('_', '-')} is between 0 and 1, not {getattr(args, name)}")
    if args.photos and not args.textless:
        raise UsageError("--photos is where crops without text are cut from; say how many, too: --textless SHARE")
    if (args.weights or args.caseless) and not args.data:
        raise UsageError("--weights and --caseless name sets below --data DIR")
    if args.render_atlas and not args.render:
        raise UsageError("--render-atlas says what to render from; say how much, too: --render SHARE")
    if args.render and args.data and args.render + args.real_fraction > 1:
        raise UsageError("--render and --real-fraction add up to more than 1")
    if args.render and not args.render_atlas:
        make = "clip4str atlas --output atlas.safetensors"
        raise UsageError(f"--render draws from a glyph atlas: make one ({make}) and give it as --render-atlas FILE")
