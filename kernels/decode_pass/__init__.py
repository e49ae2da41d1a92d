"""One pass of the two-stream decoder: tokens in, predicted tokens and their probabilities out."""

from .api import Answer, decode_pass
from .weights import DecoderWeights, pack_decoder

__all__ = ["Answer", "DecoderWeights", "decode_pass", "pack_decoder"]
