"""The first and the last kernel of a decoder pass ahead of time; linear and cross_attention have those between."""

from __future__ import annotations

from clip4str.core.masks import MODES

from ..shared.tiles import DEPENDENT_CAPABILITY
from ..shared.variants import Network, Variant, ranges, torch_dtype
from .config import TableConfig, head_configuration, table_configuration
from .kernel import head_constexprs, head_kernel, self_attention_kernel, table_constexprs


def variants(network: Network, dtype: str, capability: tuple[int, int]) -> list[Variant]:
    early = capability >= DEPENDENT_CAPABILITY
    cuts = ranges(lambda n: table_configuration(n, network.d, torch_dtype(dtype)))
    ends = [_head(network, dtype, before, logits, early) for before in (False, True) for logits in (False, True)]
    return [*(_table(network, dtype, mode, early, *cut) for mode in MODES for cut in cuts), *ends]


def _table(network: Network, dtype: str, mode: str, early: bool, n: tuple[int, int], config: TableConfig) -> Variant:
    absent = [*(["ids"] if mode == "start" else []), *([] if mode == "cloze" else ["keep"])]
    types = {
        "ids": "*i32", "keep": "*i32", "scores": "*fp32", "values": f"*{dtype}", "base": "*fp32", "x": f"*{dtype}",
    }  # fmt: skip
    start = network.classes
    sizes = network.steps, network.tokens, network.heads, network.d
    constants = table_constexprs(*sizes, start, mode, config, False, early)
    return Variant(
        launch="decode_pass.self_attention",
        kernel=self_attention_kernel,
        types={name: kind for name, kind in types.items() if name not in absent},
        constexprs={**constants, **dict.fromkeys(absent, None)},
        where={
            "d": network.d,
            "heads": network.heads,
            "steps": network.steps,
            "tokens": network.tokens,
            "classes": network.classes,
            "mode": MODES.index(mode),
            "n": n,
        },
        grid=("n", f"ceil(d / {config.block_d})"),
        num_warps=config.warps,
        num_stages=config.stages,
        aligned=("scores", "values", "base", "x"),
    )


def _head(network: Network, dtype: str, before: bool, logits: bool, early: bool) -> Variant:
    """Always with a limit: the library requires one."""
    config = head_configuration(network.d, torch_dtype(dtype))
    absent = [*([] if before else ["before"]), *([] if logits else ["logits"])]
    types = {
        "x": f"*{dtype}", "weight": f"*{dtype}", "bias": "*fp32", "before": "*i32", "limit": "*i32", "ids": "*i32",
        "probs": "*fp32", "last": "*i32", "unsettled": "*i32", "logits": "*fp32",
    }  # fmt: skip
    return Variant(
        launch="decode_pass.head",
        kernel=head_kernel,
        types={name: kind for name, kind in types.items() if name not in absent},
        constexprs={
            **head_constexprs(network.steps, network.d, network.classes, config, False, False, early),
            **dict.fromkeys(absent, None),
        },
        where={
            "d": network.d,
            "steps": network.steps,
            "classes": network.classes,
            "has_before": int(before),
            "has_logits": int(logits),
        },
        grid=("n",),
        num_warps=config.warps,
        num_stages=config.stages,
        aligned=("x", "weight"),  # what is read in vectors; a word's 26 ids and 95 logits are not
    )
