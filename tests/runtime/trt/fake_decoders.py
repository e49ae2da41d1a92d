"""A stand-in for kernels.loader.KernelLibrary on a FakeGpu: what decodes, tokenises and collapses runs when the stream
gets there, over the memory at the addresses that it was given. It computes the operators' references."""

from __future__ import annotations

import json
from dataclasses import fields

import fake_kernels
import numpy as np
import torch
from answers import answered
from fake_kernels import area

from clip4str.kernels import loader
from clip4str.kernels.collapse import collapse_frames
from clip4str.kernels.decode_pass import DecoderWeights, decode_pass
from clip4str.kernels.decode_pass.weights import pack_decoder
from clip4str.kernels.tokenize import TokenizerTables, tokenize
from clip4str.model import load_checkpoint
from clip4str.runtime.bundle import describe_file

FLOAT32 = ("scores", "base", "head_bias")
CONTEXT = 16


def packed_decoders(checkpoint):
    """What export/kernel_weights.py writes, for a network that no kernels were compiled for."""
    model, found = load_checkpoint(checkpoint), {"network": np.array("tiny")}
    for branch in ("visual", "cross"):
        packed = pack_decoder(getattr(model, f"{branch}_decoder"), torch.float16, "cpu")
        found |= {f"{branch}.{f.name}": getattr(packed, f.name).numpy() for f in fields(DecoderWeights)}
    return found


def add_kernels(folder, arrays, **how):
    with (folder / "decoders.npz").open("wb") as file:
        (np.savez_compressed if how.get("compressed") else np.savez)(file, **arrays)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["decoders.npz"] = describe_file(folder / "decoders.npz")
    manifest["stages"]["kernels"] = "decoders.npz"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def install(monkeypatch, gpu, open_error=None, pass_error=None, without=(), spoil=None):
    """Puts it in the loader's place; what reads frames is fake_kernels'. open_error, pass_error: what opening it or a
    pass raises. without: {operator: error}, those that it has no kernels for. spoil: (operator, what it makes of its
    answer)."""
    errors = {"decode_pass": pass_error, **dict(without)}
    frames = fake_kernels.install(monkeypatch, gpu, open_error)

    class Library(frames):
        def _called(self, name, detail):
            assert not self.closed and gpu.is_current()
            if errors.get(name):
                raise errors[name]
            gpu.called(name, detail)

        def decode_pass_workspace(self, decoder, n):
            return 1000 * n

        def decode_pass(self, decoder, *, mode, memory, text=None, stream, workspace, workspace_bytes, n, **at):
            assert workspace_bytes >= 1000 * n
            self._called("decode_pass", (mode, n))
            kept = [(name, getattr(decoder, name)) for name, _ in decoder._fields_]
            memories = [(m.data, m.length) for m in (memory, text) if m is not None]
            work = workspace, workspace_bytes
            gpu.send(stream, lambda: compute(gpu, dict(kept), mode, memories, work, n, at), "decode_pass")

        def tokenize(
            self, *, stream, n, T, ids, last, out, characters_count, characters, pairs_bits, pairs, start, end
        ):
            self._called("tokenize", n)
            assert not last and not pairs % 16

            def run():
                tables = TokenizerTables(
                    torch.from_numpy(area(gpu, characters, (characters_count,), np.int32)),
                    torch.from_numpy(area(gpu, pairs, (2, 1 << pairs_bits), np.int64)),
                    start, end, CONTEXT,
                )  # fmt: skip
                words = area(gpu, ids, (n, T), np.int32)
                given = {"words": words, "characters": tables.characters.numpy(), "pairs": tables.pairs.numpy()}
                answer = answered(
                    ("tokenize", start, end), given, lambda: tokenize(tables, torch.from_numpy(words.copy()))
                )
                self._store("tokenize", out, answer)

            gpu.send(stream, run, "tokenize")

        def collapse(self, *, stream, n, frames, T, C, ids, out):
            self._called("collapse", n)

            def run():
                shown = torch.from_numpy(area(gpu, ids, (n, frames), np.int32).copy())
                self._store("collapse", out, collapse_frames(shown, T, C))

            gpu.send(stream, run, "collapse")

        def _store(self, name, out, answer):
            if spoil and spoil[0] == name:
                answer = spoil[1](answer)
            area(gpu, out, answer.shape, np.int32)[:] = answer.numpy()

    monkeypatch.setattr(loader, "KernelLibrary", Library)
    return Library


def compute(gpu, d, mode, memories, workspace, n, at):
    gpu.view(*workspace)[:] = 0xEE
    T, K, C, width, h, F = (d[name] for name in ("T", "K", "C", "d", "heads", "F"))
    shapes = {
        "scores": (T, K, h, 32), "values": (T, K, h, width), "base": (T, width), "query_weight": (width, width),
        "query_bias": (width,), "out_weight": (width, width), "out_bias": (width,), "up_weight": (F, width),
        "up_bias": (F,), "down_weight": (width, F), "down_bias": (width,), "head_weight": (C, width), "head_bias": (C,),
    }  # fmt: skip
    found = {k: area(gpu, d[k], shape, np.float32 if k in FLOAT32 else np.float16) for k, shape in shapes.items()}
    for i, (address, length) in enumerate(memories):
        found[f"memory {i}"] = area(gpu, address, (n, 2, h, length, width // h), np.float16)
    assert (mode == "cloze") == bool(at["keep"]) and (mode == "start") == (not at["ids"])
    found["ids"] = area(gpu, at["ids"], (n, T), np.int32) if at["ids"] else None
    found["keep"] = area(gpu, at["keep"], (n,), np.int32) if at["keep"] else None
    found["limit"] = area(gpu, at["limit"], (n,), np.int32)
    assert at["out_ids"] != at["ids"]

    def run():
        given = {k: None if array is None else torch.from_numpy(array.copy()) for k, array in found.items()}
        kvs = [given[f"memory {i}"] for i in range(len(memories))]
        weights = DecoderWeights(**{name: given[name] for name in shapes})
        how = {"mode": mode, "keep": given["keep"], "limit": given["limit"], "logits": True}
        return decode_pass(weights, given["ids"], *kvs, **how)

    out = answered(("decode_pass", mode), found, run)
    area(gpu, at["out_ids"], (n, T), np.int32)[:] = out.ids.numpy()
    area(gpu, at["probs"], (n, T), np.float32)[:] = out.probs.numpy()
    area(gpu, at["last"], (n,), np.int32)[:] = out.last.numpy()
    area(gpu, at["unsettled"], (n,), np.int32)[:] = out.unsettled.numpy()
    if at["logits"]:
        area(gpu, at["logits"], (n, T, C), np.float32)[:] = out.logits.numpy()
