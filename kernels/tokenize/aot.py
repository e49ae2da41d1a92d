"""The tokenizer ahead of time: the same for every network."""

from __future__ import annotations

from ..shared.tiles import DEPENDENT_CAPABILITY
from ..shared.variants import Network, Variant, ranges
from .config import TokenizeConfig, configuration
from .kernel import tokenize_kernel
from .tables import SLOTS

NUMBERS = ("n", "row", "steps", "classes", "bits", "start", "end")


def variants(network: Network, dtype: str, capability: tuple[int, int]) -> list[Variant]:
    """With and without `last`."""
    early = capability >= DEPENDENT_CAPABILITY
    return [_variant(network, has_last, early, *cut) for has_last in (True, False) for cut in ranges(configuration)]


def _variant(network: Network, has_last: bool, early: bool, n: tuple[int, int], config: TokenizeConfig) -> Variant:
    absent = () if has_last else ("last",)
    pointers = dict.fromkeys(("ids", "last", "characters", "out"), "*i32")
    types = {**pointers, "pairs": "*i64", **dict.fromkeys(NUMBERS, "i32")}
    return Variant(
        launch="tokenize.tokenize",
        kernel=tokenize_kernel,
        types={name: kind for name, kind in types.items() if name not in absent},
        constexprs={
            "WORDS": config.words,
            "SLOTS": SLOTS,
            "CONTEXT": network.text,
            "DEPENDENT": early,
            **dict.fromkeys(absent, None),
        },
        where={"has_last": int(has_last), "n": n},
        grid=(f"ceil(n / {config.words})",),
        num_warps=config.warps,
        num_stages=1,
        aligned=("pairs",),
        matrix=False,
    )
