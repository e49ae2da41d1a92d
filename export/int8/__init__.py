"""Eight-bit bundles: calibration, the plan, the graphs' quantised products, and the accuracy gate."""

from clip4str.export.int8.build import Int8Options, quantise
from clip4str.export.int8.plan import Quantization

__all__ = ["Int8Options", "Quantization", "quantise"]
