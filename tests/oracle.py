"""Predict and refine for ONE image, as naive as it can be written: one step at a time, nothing shared, nothing
reused. DESIGN's numbered steps over the network's modules; knows nothing of core/driver.py."""

from __future__ import annotations

import re

import torch


@torch.inference_mode()
def read_alone(model, pixels, decode="ar", refine=1, branch="cross"):
    """One image (1, 3, H, W) -> dict of the word's ids, its probabilities, both branches' strings and captions."""
    T, start, chars = model.config.steps, len(model.config.charset) + 1, model.config.charset
    memory = model.clip_model.visual(pixels)

    def caption(ids):
        word = "".join(chars[i - 1] for i in until_end(ids))
        test = model.charset.test
        if test == test.lower():
            word = word.lower()
        elif test == test.upper():
            word = word.upper()
        return re.sub(f"[^{re.escape(test)}]", "", word)

    def predict(decoder, position, context, allowed, memory):
        """Logits of one position given the context tokens it may see (a list of booleans)."""
        attend = torch.zeros(1, position + 1, len(context), dtype=torch.bool)
        attend[0, :, 0] = True
        attend[0, position] = torch.tensor(allowed)
        kv = decoder.project_memory(memory)
        return decoder(torch.tensor([context]), attend, kv)[0, position]

    def greedy(decoder, memory, most, stop):
        context, ids, logits = [start], [], []
        for i in range(most):
            seen = context if decode == "ar" else context[:1]
            step = predict(decoder, i, seen, [True] * len(seen), memory)
            logits.append(step)
            ids.append(int(step.argmax()))
            context.append(ids[-1])
            if stop and ids[-1] == 0:
                break
        return ids, logits

    def cloze(decoder, ids, memory):
        context = [start, *ids[: T - 1]]
        dead = [0 in context[: j + 1] for j in range(len(context))]
        new, logits = [], []
        for i in range(T):
            seen = [j != i + 1 and not dead[j] for j in range(len(context))]
            step = predict(decoder, i, context, seen, memory)
            logits.append(step)
            new.append(int(step.argmax()))
        return new, logits

    def both(text_of):
        bpe = torch.from_numpy(model.tokenizer([text_of]))
        return torch.cat((memory, model.clip_model.encode_text(bpe)), dim=1)

    visual, logits = greedy(model.visual_decoder, memory, T, stop=decode == "ar")
    trace = {"visual_ar": visual, "caption_1": caption(visual)}
    if branch == "cross":
        cross, logits = greedy(model.cross_decoder, both(caption(visual)), len(visual), stop=False)
    answer = cross if branch == "cross" else visual
    for _ in range(refine):
        # [start] + all predictions but the last; after a refinement there are T of them
        visual, visual_logits = cloze(model.visual_decoder, visual[:-1], memory)
        if branch == "cross":
            trace["caption_2"] = caption(visual)
            answer, logits = cloze(model.cross_decoder, answer[:-1], both(caption(visual)))
        else:
            answer, logits = visual, visual_logits
    probs = [float(step.softmax(-1)[i]) for step, i in zip(logits, answer)]
    word = until_end(answer)
    margin = min(float(step.topk(2).values.diff().abs()) for step in logits)
    return {
        **trace,
        "ids": word,
        "probs": probs[: len(word) + 1],
        "logits": torch.stack(logits),
        "margin": margin,
    }


def until_end(ids):
    return ids[: ids.index(0)] if 0 in ids else ids
