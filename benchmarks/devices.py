"""GPUs that engines may run on, as their makers describe them, and what of that a network may hope for.

Peaks are dense: NVIDIA quotes Jetsons' TOPS with 2:1 sparsity and, where there are any, with both DLAs; no graph here
uses either. Dense INT8 of Orin is SMs x 4096 operations a clock, which is what remains of the datasheets' figures
(AGX Orin 64GB: 275 TOPS = 170 sparse on the GPU + 105 on the DLAs; 170 / 2 = 85 = 16 x 4096 x 1.3 GHz); half precision
is half of that, TF32 half of half. All of it at the clock of the power mode named; none of it was measured here.
"""

from __future__ import annotations

from dataclasses import dataclass

from clip4str.benchmarks.gpu.predict import BANDWIDTH_SHARE, MATRIX_SHARE, Machine

PEAK_MATRIX, PEAK_BANDWIDTH = 0.80, 0.85  # of the datasheet, what one large matrix product, one large copy reach
# Bytes a clock from the second-level cache to one multiprocessor (64 at most), and how many of them it feeds at once.
_BLOCK_BYTES, _CACHE_SHARE = 45, 0.55


@dataclass(frozen=True)
class Device:
    """int8, fp16, fp32: TOPS and TFLOP/s of dense matrix products; fp32 is TF32 where `tf32`. bandwidth: GB/s. clock:
    GHz. launch_us: a small kernel within a graph. host: how much slower its CPU runs Python than the machine of the
    README's figures. bus: GB/s from the host's memory to the GPU's, None where they are one."""

    name: str
    mode: str
    multiprocessors: int
    clock: float
    int8: float
    fp16: float
    fp32: float
    bandwidth: float
    launch_us: float
    host: float = 1.0
    bus: float | None = None
    tf32: bool = True

    def machine(self, kind: str) -> Machine:
        """What predict.Machine makes times of, multiplying matrices in `kind`: "int8", "fp16" or "fp32"."""
        block = _BLOCK_BYTES * self.clock
        return Machine(
            name=self.name,
            multiprocessors=self.multiprocessors,
            bandwidth=PEAK_BANDWIDTH * self.bandwidth,
            rate=PEAK_MATRIX * self.peak(kind),
            launch_us=self.launch_us,
            cache_gbs=_CACHE_SHARE * self.multiprocessors * block,
            block_gbs=block,
        )

    def peak(self, kind: str) -> float:
        """Datasheet: dense TFLOP/s or TOPS."""
        return {"int8": self.int8, "fp16": self.fp16, "fp32": self.fp32}[kind]

    def floor_us(self, moved: float, flops: dict[str, float]) -> float:
        """Nothing is faster: bytes over the datasheet's bandwidth, arithmetic over its peaks."""
        return max(moved / (self.bandwidth * 1e3), sum(n / (self.peak(kind) * 1e6) for kind, n in flops.items()))


DEVICES = {
    # Jetson Orin modules: data sheets and technical brief, with JetPack 6.2's "Super" clocks (67 and 157 sparse TOPS;
    # 1024 CUDA cores = 8 SMs). Memory 128 bit LPDDR5 at 3200 MHz = 102.4 GB/s; AGX 256 bit = 204.8 GB/s.
    "orin-nano": Device("Jetson Orin Nano 8GB", "MAXN SUPER", 8, 1.02, 33.4, 16.7, 8.4, 102.0, 3.5, 3.0),
    "orin-nx": Device("Jetson Orin NX 16GB", "MAXN SUPER", 8, 1.173, 38.4, 19.2, 9.6, 102.0, 3.3, 2.5),
    "agx-orin": Device("Jetson AGX Orin 64GB", "MAXN", 16, 1.301, 85.0, 42.6, 21.3, 204.8, 3.0, 2.3),
    # Jetson T5000 data sheet: 2070 FP4 sparse = 1035 FP8 sparse = 517 FP8 dense = 258 FP16 dense; 2560 cores = 20 SMs.
    # It states no INT8: taken as fast as FP8, as on other Blackwells of that kind (not B300).
    "thor": Device("Jetson AGX Thor (T5000)", "MAXN, 120 W", 20, 1.575, 517.0, 258.0, 129.0, 273.0, 2.5, 1.3),
    # T4 data sheet: 65 FP16, 130 INT8, 8.1 FP32 on CUDA cores (Turing has no TF32), 320 GB/s, PCIe 3.0 x16.
    "t4": Device("T4", "70 W", 40, 1.59, 130.0, 65.0, 8.1, 320.0, 2.5, 1.0, 12.0, tf32=False),
    # L4 data sheet, without its "with sparsity": 242 FP16 / 2, 485 INT8 / 2, 120 TF32 / 2; 300 GB/s; PCIe 4.0 x16.
    "l4": Device("L4", "72 W", 58, 2.04, 242.0, 121.0, 60.0, 300.0, 2.0, 1.0, 24.0),
    # A10 data sheet: 125 FP16, 250 INT8, 62.5 TF32 dense; 600 GB/s; PCIe 4.0 x16.
    "a10": Device("A10", "150 W", 72, 1.695, 250.0, 125.0, 62.5, 600.0, 2.0, 1.0, 24.0),
    # H100 SXM5 data sheet, halved to dense: 1979 FP16 / 2, 3958 INT8 / 2, 989 TF32 / 2; 3350 GB/s; PCIe 5.0 x16.
    "h100": Device("H100 SXM", "700 W", 132, 1.83, 1979.0, 989.0, 494.0, 3350.0, 1.6, 1.0, 48.0),
}


def attainable() -> tuple[float, float]:
    """Shares of the datasheet's rate and bandwidth that a tuned kernel is taken to reach at best."""
    return PEAK_MATRIX * MATRIX_SHARE, PEAK_BANDWIDTH * BANDWIDTH_SHARE
