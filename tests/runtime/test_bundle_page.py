"""A reader written from docs/bundle.md alone, over ONNX Runtime: it must read what the published code read."""

from __future__ import annotations

import json

import numpy as np
import onnxruntime
import pytest

from clip4str.core.bpe import BytePairTokenizer


class Reader:
    """The page's pseudo code, line by line; one picture at a time."""

    def __init__(self, folder):
        self.manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        config = self.manifest["config"]
        self.T, self.n = config["steps"], len(self.manifest["charset"])
        self.stages = {
            stage: onnxruntime.InferenceSession(str(folder / name)) for stage, name in self.manifest["stages"].items()
        }
        self.byte_pairs = BytePairTokenizer(config["vocabulary"], config["context"])
        i, j = np.arange(self.T)[:, None], np.arange(self.T)[None]
        self.rules = {"start": (j == 0) & (i >= 0), "causal": j <= i, "cloze": j != i + 1}

    def run(self, stage, **inputs):
        session = self.stages[stage]
        return dict(zip([value.name for value in session.get_outputs()], session.run(None, inputs)))

    def end(self, ids):
        return list(ids).index(0) if 0 in ids else self.T

    def decode(self, stage, ids, rule, keep, **memory):
        tokens = np.array([[self.n + 1, *ids[: self.T - 1]]], np.int32)
        attend = self.rules[rule] & (np.arange(self.T) <= keep)
        out = self.run(stage, tokens=tokens, attend=attend[None], **memory)
        return out["ids"][0], out["probs"][0].copy()

    def fixed_point(self, stage, ids, limit, **memory):
        for _ in range(self.T):
            before = ids
            ids, probs = self.decode(stage, before, "causal", self.T - 1, **memory)
            needed = min(self.end(ids), limit - 1)
            if (before[:needed] == ids[:needed]).all():
                break
        return ids, probs

    def refine(self, stage, ids, length, **memory):
        return self.decode(stage, ids, "cloze", min(self.end(ids), length - 1), **memory)

    def caption_kv(self, ids):
        test = self.manifest["charset_test"]
        word = self.text(ids)
        word = word.lower() if test == test.lower() else word.upper() if test == test.upper() else word
        return self.run("text", bpe=self.byte_pairs(["".join(c for c in word if c in test)]))["text_kv"]

    def text(self, ids):
        return "".join(self.manifest["charset"][i - 1] for i in ids[: self.end(ids)])

    def collapse(self, draft):
        merged = [a for k, a in enumerate(draft) if k == 0 or draft[k - 1] != a]
        word = [a for a in merged if 1 <= a <= self.n][: self.T - 1]
        return np.array(word + [0] * (self.T - len(word)))

    def read(self, pixels):
        image = self.run("image", pixels=pixels)
        visual, cross = {"visual_kv": image["visual_kv"]}, {"cross_kv": image["cross_kv"]}
        if "draft" in image:
            guess = self.collapse(image["draft"][0])
        else:
            guess, _ = self.decode("visual", np.zeros(self.T, int), "start", self.T - 1, **visual)
        word, _ = self.fixed_point("visual", guess, self.T, **visual)
        length = min(self.end(word) + 1, self.T)
        answer, p = self.fixed_point("cross", word, length, **cross, text_kv=self.caption_kv(word))
        answer = np.where(np.arange(self.T) >= length, 0, answer)
        word, _ = self.refine("visual", word, length, **visual)
        answer, p = self.refine("cross", answer, length, **cross, text_kv=self.caption_kv(word))
        p[self.end(answer) + 1 :] = 1
        confidence, temperature = float(p.prod()), self.manifest["config"]["temperature"]
        if temperature != 1 and 0 < confidence < 1:
            confidence = 1 / (1 + ((1 - confidence) / confidence) ** (1 / temperature))
        return self.text(answer), confidence


@pytest.mark.parametrize("name", ["tiny", "tiny-charset94"])
def test_a_reader_written_from_the_page_reads_as_the_published_code(name, golden, golden_checkpoint, tmp_path):
    from clip4str.export.bundles import build_bundle

    arrays = golden(name)
    folder = build_bundle(
        golden_checkpoint(name), tmp_path / name, min_agreement=0, charset_test=str(arrays["charset_test"])
    )
    reader = Reader(folder)
    for image, text, confidence in zip(arrays["images"], arrays["text"], arrays["confidence"]):
        pixels = ((image.astype(np.float32) / 255 - 0.5) / 0.5).transpose(2, 0, 1)[None]
        read, sure = reader.read(pixels)
        assert read == str(text) and sure == pytest.approx(float(confidence), rel=1e-3, abs=1e-6)
