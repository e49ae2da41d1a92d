"""The largest networks that the kernels take, which are cut for published ones: what is said before work starts."""

from __future__ import annotations

from clip4str.model.config import Config

from .cross_attention.api import MOST_HEAD_DIM, MOST_MEMORY, MOST_TEXT
from .decode_pass.weights import LEAST_WIDTH, MOST_CLASSES, MOST_STEPS, MOST_WIDTH
from .tokenize.tables import SLOTS


def beyond_kernels(c: Config) -> str:
    """What of a network is too large for the fused kernels, in words; "" if nothing is."""
    sizes = {
        "words of up to {} characters": (c.steps - 1, MOST_STEPS - 1),
        "{} characters in the charset": (len(c.charset), MOST_CLASSES - 1),
        "a text context of {}": (c.context, min(MOST_TEXT, SLOTS)),
        "{} tokens of an image": (c.memory_tokens, MOST_MEMORY),
        "decoders {} wide": (c.d, MOST_WIDTH),
        "decoder heads {} wide": (c.d // c.decoder_heads, MOST_HEAD_DIM),
    }
    over = [f"{what.format(f'{value:,}')} ({most:,} at most)" for what, (value, most) in sizes.items() if value > most]
    if c.d < LEAST_WIDTH:
        over.append(f"decoders {c.d} wide ({LEAST_WIDTH} at least)")
    return f"the fused kernels do not take {', '.join(over)}" if over else ""
