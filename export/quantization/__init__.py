"""Eight-bit bundles, int8 and fp8: calibration, the plan, the graphs' quantised products, and the accuracy gate."""

from clip4str.export.quantization.build import QuantizationOptions, quantise
from clip4str.export.quantization.plan import Quantization

__all__ = ["Quantization", "QuantizationOptions", "quantise"]
