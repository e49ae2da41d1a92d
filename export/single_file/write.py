"""A bundle -> one ONNX file, checked against the bundle before it appears."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from onnx import TensorProto

import clip4str
from clip4str.core.bpe import BytePairTokenizer
from clip4str.core.errors import UsageError
from clip4str.core.reading import Decoding
from clip4str.core.text import Charset, chosen_charset
from clip4str.export.graph import OPSET, Graph
from clip4str.export.half_storage import Halves
from clip4str.runtime.bundle import Bundle, stage_shapes

from . import PASSES_SHOWN
from .bodies import BOOL, FLOAT, INT32, iota, number, reduce
from .characters import Characters
from .passes import first_end
from .pixels import pixels_input
from .program import Network, Program
from .stages import StageGraphs
from .tokens import Tokens

MOST_PASSES = 64
STRINGS_OPSET = 20  # the first that joins strings
CLIPS_LICENSE = "MIT (the byte pairs of OpenAI's CLIP)"

Say = Callable[[str], object]


@dataclass(frozen=True)
class Options:
    """How a single file reads.

    passes: decoder passes of the visual branch, the guess from the start token included where there is no draft, and of
    the cross-modal branch: then nothing in the file loops, and `settled` says which rows may differ from the bundle's;
    None for as many as each batch needs. static: all positions are computed in every pass, so that no shape depends on
    the words, as engines want it; always so with `passes`. uint8: pictures (N, H, W, 3) of bytes. resize: of any size,
    which implies uint8. strings: also give the text. half_storage: float32 weights are stored as float16.
    charset_test: None for the bundle's. license: of the network.
    """

    passes: tuple[int, int] | None = None
    static: bool = False
    uint8: bool = False
    resize: bool = False
    strings: bool = False
    half_storage: bool = False
    decoding: Decoding = field(default_factory=Decoding)
    charset_test: str | None = None
    license: str = ""

    def check(self) -> None:
        """Raises UsageError."""
        if self.passes is not None and not all(1 <= count <= MOST_PASSES for count in self.passes):
            raise UsageError(
                f"passes are two numbers from 1 to {MOST_PASSES}, such as {PASSES_SHOWN}, not {self.passes}"
            )
        if self.passes is not None and self.static:
            raise UsageError("passes are run without a loop, static is for the shapes of a loop: give one of them")
        if self.passes is not None and self.decoding.decode == "nar":
            raise UsageError("passes are those of decode ar: nar takes one of each branch")

    def licensed(self, said: str) -> Options:
        return replace(self, license=said)


def write_graph(bundle: Bundle, path: Path, options: Options) -> list[Path]:
    """Write the file, and FILE.data beside it if it is too large for protobuf; returns the paths. Checked by onnx's
    checker and shape inference, but not compared with the bundle.

    Input: pixels. Outputs: ids (N, T) int32, probs (N, T) and confidence (N,) float32, length (N,) int32, settled (N,)
    bool, with strings text (N,). docs/single-file.md says what they mean.

    Raises BundleError, CharsetError, UsageError.
    """
    options.check()
    m, how = bundle.manifest, options.decoding
    steps, cross = m.config["steps"], how.branch == "cross"
    charset = chosen_charset(m.charset, m.charset_test, options.charset_test)
    tokenizer = BytePairTokenizer(m.config["vocabulary"], m.config["context"])
    unrolled = options.passes is not None
    tokens = Tokens(tokenizer, Characters.build(charset, tokenizer), steps, unrolled) if cross else None
    names = ("image", "visual", "text", "cross") if cross else ("image", "visual")
    stages = StageGraphs(bundle, names, STRINGS_OPSET if options.strings else OPSET)
    text = (stages.type_of("text", "text_kv"), stage_shapes(m)["text"]["text_kv"]) if cross else (FLOAT, ())
    network = Network(stages, tokens, steps, len(m.charset), bool(m.draft_positions), text)
    program = Program(network, how, options.passes, not unrolled and not options.static)
    g = Graph("clip4str", "fp32", stages.opset)
    pixels = pixels_input(g, m.image_size, m.normalization, options.uint8 or options.resize, options.resize)
    ids, probs, settled, finite = program.read(g, pixels)
    _outputs(g, charset, steps, m.temperature, options.strings, ids, probs, settled, finite)
    doc = f"CLIP4STR {m.name}: pixels in, words out. Contract: docs/single-file.md of clip4str"
    return g.save(path, _metadata(bundle, charset, options), doc, Halves() if options.half_storage else None)


def _outputs(
    g: Graph, charset: Charset, steps: int, temperature: float, strings: bool, ids: str, probs: str, settled: str,
    finite: str,
) -> None:  # fmt: skip
    """Rows that are not finite are empty words without confidence."""
    ids = g.op("Where", finite, ids, number(g, 0))
    probs = g.op("Where", finite, probs, g.constant("f32_0", np.array(0, np.float32)))
    confidence = reduce(g, "Prod", probs, 1, keepdims=0)
    if temperature != 1:  # core.calibration
        one, power = (g.constant(f"f32_{v:g}", np.array(v, np.float32)) for v in (1, 1 / temperature))
        odds = g.op("Div", g.op("Sub", one, confidence), confidence)
        confidence = g.op("Div", one, g.op("Add", one, g.op("Pow", odds, power)))
    end = first_end(g, ids, steps)
    flat = g.integers(1)
    outputs = {
        "ids": (ids, INT32, ("N", steps)),
        "probs": (probs, FLOAT, ("N", steps)),
        "confidence": (confidence, FLOAT, ("N",)),
        "length": (g.op("Squeeze", end, flat), INT32, ("N",)),
        "settled": (g.op("Squeeze", settled, flat), BOOL, ("N",)),
    }
    if strings:
        outputs["text"] = (spelled(g, charset.characters, ids, end, steps), TensorProto.STRING, ("N",))
    for name, (value, dtype, shape) in outputs.items():
        g.output(g.op("Identity", value), name, dtype, shape)


def spelled(g: Graph, characters: str, ids: str, end: str, steps: int) -> str:
    """ids (N, T) int32 and where they end (N, 1) -> texts (N,)."""
    table = g.constant("characters", np.array(["", *characters], object))
    inside = g.op("Where", g.op("Less", iota(g, steps), end), ids, number(g, 0))
    letters = g.op("Split", g.op("Gather", table, inside), axis=1, num_outputs=steps, outputs=steps)
    while len(letters) > 1:
        pairs = [letters[i : i + 2] for i in range(0, len(letters), 2)]
        letters = [g.op("StringConcat", *pair) if len(pair) > 1 else pair[0] for pair in pairs]
    return g.op("Squeeze", letters[0], g.integers(1))


def _metadata(bundle: Bundle, charset: Charset, options: Options) -> dict[str, str]:
    """What the file says of itself. Lists and the charset's characters as JSON."""
    m, how = bundle.manifest, options.decoding
    return {
        "clip4str": clip4str.__version__,
        "name": m.name,
        "precision": m.precision,
        "charset": m.charset,
        "charset_test": charset.test,
        "image_size": json.dumps(m.image_size),
        "normalization": m.normalization,
        "steps": str(m.config["steps"]),
        "temperature": f"{m.temperature:g}",
        "input": "uint8" if options.uint8 or options.resize else "float32",
        "resize": str(options.resize).lower(),
        "half_storage": str(options.half_storage).lower(),
        "form": "exact" if options.passes is None else "fixed",
        "passes": json.dumps(options.passes),
        "decode": how.decode,
        "refine": str(how.refine),
        "branch": how.branch,
        "checkpoint": m.checkpoint.get("sha256", ""),
        "license": "; ".join(part for part in (options.license, CLIPS_LICENSE) if part),
    }
