"""What a checkpoint says of its network beside the tensors: read where it can be, refused where it cannot.

Names are those of the published code's configuration (configs/model/vl4str.yaml there) and of our own Config. What
that code never looks at says nothing of the network: embed_dim and enc_* are those of B/16 in all its checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from clip4str.core.errors import CheckpointError

from .config import Config
from .pickles import Foreign

HOLDERS = ("hyper_parameters", "hparams", "config", "cfg", "args", "opt")  # beside a state_dict
_NESTED = (*HOLDERS, "model")
_DEEPEST = 4
UNREADABLE = object()

_TEXT, _NUMBER, _SIZE, _FLAG = "text", "number", "size", "flag"
_HINTS = {
    "charset_train": _TEXT, "charset_test": _TEXT, "charset": _TEXT, "context_length": _NUMBER, "context": _NUMBER,
    "dec_num_heads": _NUMBER, "decoder_heads": _NUMBER, "img_size": _SIZE, "image_size": _SIZE,
}  # fmt: skip
_GIVEN_BY = {"charset_train": "charset", "charset": "charset", "charset_test": "charset_test", "img_size": "image_size",
             "image_size": "image_size"}  # fmt: skip
# What changes the words and is not implemented: the value that is, and what another one means.
_OPTIONS = {
    "use_language_model": (True, "no cross-modal branch"),
    "use_share_dim": (True, "a visual decoder over features that are not projected"),
    "clip_cls_eot_feature": (False, "one feature an image and one a text in place of all tokens'"),
    "cross_token_embeding": (False, "the text tower's embeddings in place of its features"),
    "cross_token_embedding": (False, "the text tower's embeddings in place of its features"),
    "cross_fast_decode": (False, "a cross-modal branch that is decoded in one pass"),
}
_IDLE = ("type_embedding", "fusion_model", "cross_extra_attn", "cross_correct_once", "enc_del_cls")
_FACTS: dict[str, Callable[[Config], int]] = {
    "max_label_length": lambda c: c.steps - 1, "dec_depth": lambda _: 1,
    "dec_mlp_ratio": lambda c: c.decoder_mlp // c.d,
}  # fmt: skip


def read_hints(said: Any, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The hints of config_from_shapes among hyper-parameters of any kind, and notes for the user.

    given: what the caller says (image_size, charset, charset_test): then it need not be readable here. Raises
    CheckpointError: a value that cannot be read, two that differ, an option that is not implemented.
    """
    values = dict[str, Any]()
    for place in _places(said):
        for name in {*_HINTS, *_OPTIONS, *_IDLE, *_FACTS, "decode_ar", "refine_iters"} & place.keys():
            value = _of_kind(_HINTS.get(name, ""), plain(place[name]))
            if name in values and values[name] != value:
                raise CheckpointError(f"its hyper-parameters say two things of {name}: {values[name]!r} and {value!r}")
            values[name] = value
    hints = {}
    for name in _HINTS.keys() & values.keys():
        if values[name] is UNREADABLE and given.get(_GIVEN_BY.get(name, "")) is None:
            flag = _GIVEN_BY.get(name)
            advice = f"give it (--{flag.replace('_', '-')})" if flag else "save it as a plain value"
            raise CheckpointError(f"its hyper-parameters' {name} cannot be read: {advice}")
        if values[name] is not UNREADABLE and values[name] is not None:
            hints[name] = values[name]
    for name, (expected, meaning) in _OPTIONS.items():
        if values.get(name, expected) != expected:
            shown = "a value that cannot be read" if values[name] is UNREADABLE else values[name]
            raise CheckpointError(f"it was trained with {name}={shown}, {meaning}: not supported")
    notes = [f"{name} is set, which the published code ignores, and so does this" for name in _IDLE if values.get(name)]
    if values.get("decode_ar", True) is False:
        notes.append("its hyper-parameters set decode_ar=False; it is read left to right unless told: --decode nar")
    if values.get("refine_iters", 1) != 1:
        rounds = values["refine_iters"] if type(values["refine_iters"]) is int else "another number"
        notes.append(f"its hyper-parameters set refine_iters={rounds}; one round is done unless told: --refine N")
    return hints | {name: values[name] for name in _FACTS.keys() & values.keys()}, notes


def check_facts(hints: Mapping[str, Any], config: Config) -> None:
    """Raises CheckpointError where hyper-parameters say other than the tensors."""
    for name, of in _FACTS.items():
        if type(hints.get(name)) is int and hints[name] != of(config):
            raise CheckpointError(f"its hyper-parameters say {name}={hints[name]}, its tensors {of(config)}")


def assumed(config: Config, hints: Mapping[str, Any], image_size: tuple[int, int] | None) -> str:
    """One line on what neither tensors nor hyper-parameters nor the caller told; empty where all is known."""
    parts = {
        ("img_size", "image_size"): f"an input of {config.image_size[0]}x{config.image_size[1]} (--image-size)",
        ("dec_num_heads", "decoder_heads"): f"{config.decoder_heads} heads in the decoders",
        ("context_length", "context"): f"{config.context} tokens of caption",
        ("charset_train", "charset"): f"the first {len(config.charset)} of CLIP4STR's characters (--charset)",
    }
    missing = [text for names, text in parts.items() if not any(name in hints for name in names)]
    if image_size is not None:
        missing = [text for text in missing if "--image-size" not in text]
    return f"the file does not say, so assumed: {', '.join(missing)}" if missing else ""


def mapping(value: Any) -> Mapping[Any, Any] | None:
    """The entries of a dictionary, or of what stands for another class: omegaconf's, a Namespace, a dataclass."""
    if isinstance(value, dict):
        return value
    if not isinstance(value, Foreign):
        return None
    if value.items is not None:
        return value.items
    state = value.state[0] if isinstance(value.state, tuple) and value.state else value.state
    if not isinstance(state, dict):
        return None
    content = state.get("_content", state)
    return content if isinstance(content, dict) else None


def plain(value: Any, deepest: int = _DEEPEST) -> Any:
    """A number, text, flag, None, or list of them, out of whatever holds it; else UNREADABLE."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if deepest == 0:
        return UNREADABLE
    if isinstance(value, Foreign):
        state = value.state if isinstance(value.state, dict) else {}
        inner = next((state[key] for key in ("_val", "_content") if key in state), value.elements)
        if inner is None and len(value.args) == 1 and isinstance(value.args[0], (list, tuple)):
            inner = value.args[0]  # torch.Size
        if isinstance(inner, str) and (inner == "???" or inner.startswith("${")):
            return UNREADABLE  # omegaconf's for what is missing, or said elsewhere
        return UNREADABLE if inner is None and "_val" not in state else plain(inner, deepest - 1)
    if isinstance(value, (list, tuple)) and len(value) <= 4:
        return [plain(part, deepest - 1) for part in value]
    return UNREADABLE


def _places(said: Any) -> Iterator[Mapping[Any, Any]]:
    """Where names may stand: the hyper-parameters, and what is nested in them under a usual name."""
    waiting = [(said, 0)]
    while waiting:
        value, depth = waiting.pop()
        if (place := mapping(value)) is not None:
            yield place
            if depth < _DEEPEST:
                waiting += [(place[name], depth + 1) for name in _NESTED if name in place]


def _of_kind(kind: str, value: Any) -> Any:
    """The value, a size as (height, width); UNREADABLE where it is of another kind."""
    if value is None or not kind:
        return value
    if kind == _SIZE:
        value = [value, value] if type(value) is int else value
        pair = isinstance(value, list) and len(value) == 2 and all(type(part) is int for part in value)
        return tuple(value) if pair else UNREADABLE
    return value if type(value) is {_TEXT: str, _NUMBER: int}[kind] else UNREADABLE
