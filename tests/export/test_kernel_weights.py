"""The decoders as the compiled kernels read them, against the stage graphs that compute the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clip4str.core.masks import Rule
from clip4str.export.bundles import build_bundle
from clip4str.export.kernel_weights import network_name, write_decoders
from clip4str.kernels.decode_pass import DecoderWeights, decode_pass
from clip4str.kernels.tokenize import TokenizerTables, tokenize
from clip4str.model import load_checkpoint
from clip4str.model.checkpoint import BUNDLED
from clip4str.runtime.backends.ort import OrtBackend
from clip4str.runtime.bundle import KERNELS, Bundle


@pytest.fixture(scope="module")
def bundled():
    return load_checkpoint(BUNDLED)


@pytest.fixture(scope="module")
def arrays(bundled, tmp_path_factory):
    path = write_decoders(bundled, tmp_path_factory.mktemp("kernels") / "decoders.npz", lambda _: None)
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file}


def weights_of(arrays, branch):
    prefix = f"{branch}."
    return DecoderWeights(
        **{n.removeprefix(prefix): torch.from_numpy(a) for n, a in arrays.items() if n.startswith(prefix)}
    )


def test_passes_over_them_give_the_stages_answers(bundled, arrays, tmp_path):
    stages = OrtBackend(Bundle.open(build_bundle(output=tmp_path / "b")), threads=1)
    random = np.random.default_rng(5)
    pixels = torch.from_numpy(random.standard_normal((3, 3, *bundled.config.image_size)).astype(np.float32))
    ids = random.integers(1, 95, (3, 26)).astype(np.int32)
    tokens = np.concatenate((np.full((3, 1), 95, np.int32), ids[:, :-1]), axis=1)
    causal = Rule("causal", np.full(3, 25), 26)
    with torch.inference_mode():
        memory = bundled.image(pixels)
        text = bundled.text(bundled.tokenizer(["ab", "cde", "street"]))
        for branch, kv, extra in (("visual", memory[0], ()), ("cross", memory[1], (text,))):
            want = getattr(stages, branch)(tokens, causal, *(x.numpy() for x in (kv, *extra)))
            half = [x.half() for x in (kv, *extra)]
            got = decode_pass(weights_of(arrays, branch), torch.from_numpy(ids), *half, mode="causal", logits=True)
            assert np.abs(got.logits.numpy() - want.logits).max() < 0.05 * np.abs(want.logits).max()
            assert (got.ids.numpy() == want.ids).mean() > 0.95


def test_captions_are_tokenised_by_them(bundled, arrays):
    t = bundled.tokenizer
    tables = TokenizerTables(
        *(torch.from_numpy(arrays[f"tokenizer.{n}"]) for n in ("characters", "pairs")), t.start, t.end, t.context
    )
    words = ["street", "COFFEE", "24h", ""]
    ids = torch.zeros(4, 26, dtype=torch.int32)
    for row, word in zip(ids, words):
        row[: len(word)] = torch.tensor(bundled.charset.encode(word))
    assert np.array_equal(tokenize(tables, ids).numpy(), t([w.lower() for w in words]))
    assert str(arrays["network"]) == "small"


def test_a_network_without_kernels_has_none(tiny_model, tmp_path):
    said = []
    assert network_name(tiny_model) is None
    assert write_decoders(tiny_model, tmp_path / "d.npz", said.append) is None
    assert "engines' own decoders" in said[0] and not list(tmp_path.iterdir())


def test_bundles_for_a_gpu_hold_them(tmp_path):
    bundle = Bundle.open(build_bundle(output=tmp_path / "b", precision="fp16", for_gpu=True), verify=True)
    assert bundle.path(KERNELS).name == "decoders.npz"
