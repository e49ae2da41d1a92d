"""One training step, the schedule and what a checkpoint holds: CLIP4STR as a LightningModule."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from clip4str.core.errors import CheckpointError, UsageError
from clip4str.core.normalization import NORMALIZATION
from clip4str.core.text import END, comparing
from clip4str.model.clip4str import Clip4Str
from clip4str.model.config import Config

from .data import Batch
from .muon import MuonAdamW
from .psm import draw_orders, psm_losses
from .schedule import learning_rate

# A step that takes longer than so many seconds, and than so many steps like the one before, has been stopped meanwhile,
# which is no time of training.
PAUSE, SLOWER = 120.0, 4.0


@dataclass(frozen=True)
class Settings:
    """How to train. The defaults of the first block are the published ones for CLIP's weights as the start.

    lr: of the towers, for the whole batch as it is; the decoders' is decoder_lr times that. freeze_text: the text
    tower's first layers that stay as they are, the embeddings with them; -1 for none at all. alone: see psm_losses.
    schedule, warm_up: see schedule.py. steps, minutes: how long the run is, whichever comes first; a constant
    schedule needs no end. muon_lr: of hidden matrices if not 0, see muon.py. ctc: weight of the draft head's loss,
    a help for image towers that begin with nothing. cross_start: share of the run after which the cross-modal
    branch begins, as a copy of the visual decoder. cross_every: it learns from every so many-th batch.
    """

    lr: float = 8.4e-5
    decoder_lr: float = 19.0
    weight_decay: float = 0.2
    dropout: float = 0.1
    orders: int = 6
    alone: bool = False
    freeze_text: int = 6
    clip_mean: bool = False

    schedule: str = "one-cycle"
    warm_up: int = 0
    steps: int = 0
    minutes: float = 0.0
    muon_lr: float = 0.0
    ctc: float = 0.0
    cross_start: float = 0.0
    cross_every: int = 1
    ema: float = 0.999
    seed: int = 0
    compile: bool = False


def ctc_loss(logits: Tensor, tokens: Tensor, pad: int) -> Tensor:
    """Of the draft head's logits (N, frames, C) for tokens (N, T + 1): [start] word [end], padded.

    Words that do not fit the frames count nothing.
    """
    words = tokens[:, 1:]
    lengths = ((words != END) & (words != pad)).sum(1)
    frames = torch.full((len(words),), logits.shape[1], device=words.device)
    chances = logits.float().log_softmax(-1).transpose(0, 1)
    return F.ctc_loss(chances, words, frames, lengths, blank=END, zero_infinity=True)


class Training(Clip4Str, L.LightningModule):
    """The network itself, under its published names, and all that training adds to it."""

    def __init__(self, config: Config, settings: Settings) -> None:
        super().__init__(config, dropout=settings.dropout)
        self.settings = settings
        self.clip_model.logit_scale.requires_grad_(False)  # of no use here
        self.elapsed = 0.0  # seconds trained, over all sessions
        self.began = (0, 0.0)  # steps and seconds of the run that this one branched off
        self.cross_running = settings.cross_start == 0
        self.ema: dict[str, Tensor] = {}
        self._clock = self._spent = 0.0
        if settings.freeze_text >= 0:
            self._freeze_text(settings.freeze_text)

    def _freeze_text(self, layers: int) -> None:
        frozen = [self.clip_model.token_embedding, *self.clip_model.transformer.resblocks[:layers]]
        for parameter in (p for module in frozen for p in module.parameters()):
            parameter.requires_grad_(False)
        self.clip_model.positional_embedding.requires_grad_(False)

    def progress(self, step: int | None = None) -> float:
        """How much of the run is done after `step` (default: all so far) optimiser steps, 0 to 1."""
        s, (first, seconds) = self.settings, self.began
        by_steps = ((self.global_step if step is None else step) - first) / s.steps if s.steps else 0.0
        return min(1.0, max(by_steps, (self.elapsed - seconds) / 60 / s.minutes if s.minutes else 0.0))

    def network_state(self) -> dict[str, Tensor]:
        """The state_dict under its published names, without what only training needs."""
        return dict(self.state_dict())

    # A step

    def training_step(self, batch: Batch, number: int) -> dict[str, Tensor]:
        rng = np.random.default_rng((self.settings.seed, 2, batch.number))
        torch.manual_seed(int(rng.integers(2**62)))  # dropout, the same after a resume
        with _attention(self.device):
            memory = self.clip_model.visual(self.normalise(batch.pixels))
            orders = draw_orders(batch.tokens.shape[1] - 2, self.settings.orders, rng)
            both = self.cross_running and batch.number // self.trainer.world_size % self.settings.cross_every == 0
            visual, cross, accuracy = psm_losses(self, memory, batch.tokens, orders, both, self.settings.alone)
            loss = visual if cross is None else visual + cross
            losses = {"visual": visual, "cross": cross, "accuracy": accuracy}
            if self.draft_head is not None and self.settings.ctc:
                # A decoder's attention cannot learn where to look before there are features to tell letters by; this
                # gives the tower a reason to make them.
                losses["ctc"] = ctc = ctc_loss(self.draft_head(memory), batch.tokens, self.charset.pad)
                loss = loss + self.settings.ctc * ctc
        if not torch.isfinite(loss.detach()):
            raise UsageError(f"the loss is {loss.item()} at step {self.global_step}; try a lower --lr or --muon-lr")
        return {"loss": loss, **{k: v.detach() for k, v in losses.items() if v is not None}}

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 (N, H, W, 3) -> (N, 3, H, W), mean and deviation one half, or CLIP's."""
        x = pixels.permute(0, 3, 1, 2).float() / 255
        if not self.settings.clip_mean:
            return x * 2 - 1  # NORMALIZATION["half"], without a tensor to copy to the GPU
        mean, deviation = (x.new_tensor(v).view(3, 1, 1) for v in NORMALIZATION["clip"])
        return (x - mean) / deviation

    def on_fit_start(self) -> None:
        if not self.ema:
            self.ema = {k: v.detach().clone() for k, v in self.named_parameters() if v.requires_grad}
        self.ema = {k: v.to(self.device) for k, v in self.ema.items()}
        self._clock = time.monotonic()
        if self.settings.compile:
            self.compile_parts()

    def compile_parts(self) -> None:
        """torch.compile for what takes the time, each at its first call."""
        self.clip_model.visual.compile()
        for part in (self.clip_model.transformer, self.visual_decoder, self.cross_decoder):
            part.compile(dynamic=True)

    def on_train_start(self) -> None:
        """A state brings the rates of its run along, but what is asked for now counts."""
        for group, (lr, weight_decay) in zip(self.trainer.optimizers[0].param_groups, self._rates, strict=True):
            group["full_lr"], group["weight_decay"] = lr, weight_decay

    def on_train_batch_start(self, batch: Batch, number: int) -> None:
        progress = self.trainer.strategy.broadcast(self.progress())  # clocks differ between processes
        if not self.cross_running and progress >= self.settings.cross_start:
            self._start_cross()
        s = self.settings
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = group["full_lr"] * learning_rate(s.schedule, progress, self.global_step, s.warm_up)

    def _start_cross(self) -> None:
        self.cross_running = True
        with torch.no_grad():
            for name, parameter in self.cross_decoder.named_parameters():
                parameter.copy_(self.visual_decoder.get_parameter(name))
                self.ema[f"cross_decoder.{name}"].copy_(self.ema[f"visual_decoder.{name}"])

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        now, step = time.monotonic(), self.global_step + 1
        spent = now - self._clock
        self.elapsed += 0.0 if spent > max(PAUSE, SLOWER * self._spent) else spent
        self._clock, self._spent = now, spent
        weight = 1 - min(self.settings.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            current: list[Tensor] = [self.get_parameter(name) for name in self.ema]
            torch._foreach_lerp_(list(self.ema.values()), current, weight)
        if self.trainer.strategy.broadcast(self.progress(step)) >= 1:
            self.trainer.should_stop = True

    def configure_optimizers(self) -> torch.optim.Optimizer:
        s = self.settings
        groups: dict[tuple[bool, bool, str], list[Tensor]] = {}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                muon = _muon_kind(name, parameter) if s.muon_lr else ""
                kind = (name.startswith("clip_model."), _decays(name, parameter), muon)
                groups.setdefault(kind, []).append(parameter)
        options = []
        for (tower, decays, muon), parameters in groups.items():
            lr = s.muon_lr if muon else s.lr * (1 if tower else s.decoder_lr)
            option = {"params": parameters, "lr": lr, "full_lr": lr, "weight_decay": s.weight_decay if decays else 0.0}
            if s.muon_lr:
                option |= {"muon": bool(muon), "stacked": 3 if muon == "stacked" else 1}
            options.append(option)
        self._rates = [(option["full_lr"], option["weight_decay"]) for option in options]
        if s.muon_lr:
            dtype = torch.bfloat16 if str(self.trainer.precision).startswith("bf16") else torch.float32
            return MuonAdamW(options, lr=s.lr, betas=(0.9, 0.98), eps=1e-6, dtype=dtype)
        return torch.optim.AdamW(options, lr=s.lr, betas=(0.9, 0.98), eps=1e-6)

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        c = self.config
        checkpoint["hyper_parameters"] = {
            "img_size": list(c.image_size), "charset_train": c.charset, "charset_test": c.charset_test,
            "context_length": c.context, "dec_num_heads": c.decoder_heads,
        }  # fmt: skip
        checkpoint["clip4str_training"] = {
            "ema": self.ema, "elapsed": self.elapsed, "began": self.began, "cross_running": self.cross_running,
            "settings": asdict(self.settings),
        }  # fmt: skip

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        extra = checkpoint.get("clip4str_training", {})
        shapes, own = ({k: v.shape for k, v in s.items()} for s in (checkpoint["state_dict"], self.state_dict()))
        if shapes != own:
            what = "--size, --network, --charset or --ctc"
            raise CheckpointError(f"the run began with another {what}; go on with the same command")
        if checkpoint.get("hyper_parameters", {}).get("charset_train", self.config.charset) != self.config.charset:
            raise CheckpointError("the run began with another --charset; go on with the same command")
        self.ema = extra.get("ema", {})
        self.elapsed = extra.get("elapsed", 0.0)
        self.began = tuple(extra.get("began", (0, 0.0)))
        self.cross_running = extra.get("cross_running", True)

    # Reading

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the weights are the averaged ones, and nothing is compiled or dropped out."""
        current = {name: self.get_parameter(name).data for name in self.ema}
        training = self.training
        try:
            for name, average in self.ema.items():
                self.get_parameter(name).data = average
            self.eval()
            with torch.compiler.set_stance("force_eager"):
                yield
        finally:
            for name, value in current.items():
                self.get_parameter(name).data = value
            self.train(training)

    def read_words(self, pixels: Tensor, batch: int = 128) -> list[str]:
        """uint8 (N, H, W, 3) -> words, as they are compared (core.text.comparing)."""
        words, compared = [], comparing(self.charset)
        for part in pixels.split(batch):
            reading = self.read(self.normalise(part.to(self.device)))
            words += [compared.caption(row) for row in reading.ids]
        return words


def word_accuracy(read: Sequence[str], labels: Sequence[str], model: Clip4Str) -> float:
    """Share of words right, both as core.text.comparing has them; labels of which nothing is left do not count."""
    wanted = list(map(comparing(model.charset).compared, labels))
    pairs = [(r, w) for r, w in zip(read, wanted) if w]
    return sum(r == w for r, w in pairs) / max(1, len(pairs))


def _attention(device: torch.device) -> AbstractContextManager[Any]:
    """The CPU's fused attention is slow backwards in bfloat16: with it a backward pass took twice as long."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


def _decays(name: str, parameter: Tensor) -> bool:
    return parameter.ndim >= 2 and not any(part in name for part in ("ln_", "norm", "pos_queries", "text_embed"))


def _muon_kind(name: str, parameter: Tensor) -> str:
    """Hidden matrices take Muon's steps; embeddings, heads and projections into another space do not."""
    if parameter.ndim != 2 or not ("resblocks." in name or ".layers." in name):
        return ""
    return "stacked" if name.endswith("in_proj_weight") else "plain"
