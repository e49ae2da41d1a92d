"""GPUs by their data sheets, and the time a kernel should take on one: the one table that every prediction uses.

Peaks are dense, at the clock of the power mode named; none was measured here. Most data sheets quote them with 2:1
sparsity, Jetsons' also with both DLAs, neither of which is used here: dense INT8 of an Orin is SMs x 4096
operations a clock (AGX Orin 64GB: 275 TOPS = 170 sparse on the GPU + 105 on the DLAs; 170 / 2 =
85 = 16 x 4096 x 1.3 GHz), and half precision is half of that.

A kernel takes the time of its launch plus the longest of: its bytes over the memory's bandwidth; the bytes that its
blocks load over the L2 cache's bandwidth; and, for each wave of blocks, the loads and arithmetic of one multiprocessor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from clip4str.benchmarks.launches import Launch

PEAK_MATRIX, PEAK_BANDWIDTH = 0.80, 0.85  # of the data sheet: reached by a large matrix product, a large copy
MATRIX_SHARE, BANDWIDTH_SHARE = 0.75, 0.9  # of these: reached by tuned kernels
# Bytes per clock from the L2 cache to one multiprocessor (64 at most), and the share of them that it feeds at once.
_BLOCK_BYTES, _CACHE_SHARE = 45, 0.55


@dataclass(frozen=True)
class Device:
    """int8, fp16: TOPS and TFLOP/s of dense matrix products. bandwidth: GB/s. clock: GHz. launch_us: a small kernel
    within a graph (an estimate). host: how many times slower than on the machine of the README's figures Python runs
    on its CPU (an estimate). bus: GB/s from host to GPU memory, None where they are the same. source: of the
    figures. fp8: has it that, as fast as int8?"""

    name: str
    mode: str
    multiprocessors: int
    clock: float
    int8: float
    fp16: float
    bandwidth: float
    launch_us: float
    source: str
    host: float = 1.0
    bus: float | None = None
    fp8: bool = False

    @property
    def precisions(self) -> tuple[str, ...]:
        """Of engines that run on it."""
        return ("fp16", "int8", "fp8") if self.fp8 else ("fp16", "int8")

    @property
    def copy_gbs(self) -> float:
        """GB/s of a large copy, read and written."""
        return PEAK_BANDWIDTH * self.bandwidth

    def peak(self, kind: str) -> float:
        """Data sheet: dense TFLOP/s ("fp16", "fp8") or TOPS ("int8")."""
        return {"int8": self.int8, "fp16": self.fp16, "fp8": self.int8}[kind]

    def product_rate(self, kind: str = "fp16") -> float:
        """TFLOP/s of a large matrix product."""
        return PEAK_MATRIX * self.peak(kind)

    def memory_us(self, launch: Launch) -> float:
        """One launch, if only its bytes mattered."""
        return launch.bytes / (BANDWIDTH_SHARE * self.copy_gbs * 1e3)

    def blocks_us(self, launch: Launch) -> float:
        """One launch, if only its blocks mattered: their arithmetic, and their loads from the cache."""
        rate = MATRIX_SHARE * self.product_rate(launch.kind) * 1e6 / self.multiprocessors
        block = _BLOCK_BYTES * self.clock * 1e3
        cache = _CACHE_SHARE * self.multiprocessors * block

        def us(blocks: int, loaded: float, flops: float) -> float:
            waves = ceil(blocks / self.multiprocessors)
            return max(waves * flops / rate, waves * loaded / block, blocks * loaded / cache)

        return min(us(cut.blocks, cut.bytes, cut.flops) for cut in launch.cuts)

    def us(self, launch: Launch) -> float:
        """One launch, launching included, in microseconds."""
        return self.launch_us + max(self.memory_us(launch), self.blocks_us(launch))

    def floor_us(self, moved: float, flops: Mapping[str, float]) -> float:
        """Lower bound by the data sheet: bytes over bandwidth, arithmetic, by kind, over peaks."""
        return max(moved / (self.bandwidth * 1e3), sum(n / (self.peak(kind) * 1e6) for kind, n in flops.items()))

    def bound_us(self, moved: float, flops: float) -> float:
        """Lower bound by what is reached: bytes over a large copy's rate, arithmetic over a large product's."""
        return max(moved / (self.copy_gbs * 1e3), flops / (self.product_rate() * 1e6))

    def kernel_us(self, moved: float, flops: float, launches: int = 1) -> float:
        """A tuned kernel of many blocks."""
        busy = max(moved / (BANDWIDTH_SHARE * self.copy_gbs * 1e3), flops / (MATRIX_SHARE * self.product_rate() * 1e6))
        return launches * self.launch_us + busy

    def measured(self, found: Mapping[str, Any], ceilings: Mapping[str, Any]) -> Device:
        """This device as the GPU suite found it: peaks and bandwidth that agree with the measured ceilings."""
        known = {
            "name": found.get("name"),
            "multiprocessors": found.get("multiprocessors"),
            "bandwidth": ceilings.get("copy_gbs", 0) / PEAK_BANDWIDTH,
            "fp16": ceilings.get("fp16_tflops", 0) / PEAK_MATRIX,
            "launch_us": ceilings.get("launch_us"),
        }
        return replace(self, **{k: v for k, v in known.items() if v})


_HOPPER = "SXM data sheet, with sparsity: 1979 FP16, 3958 INT8 and FP8, halved; peaks are at 1.83 GHz; PCIe 5.0 x16"
DEVICES = {
    "orin-nano": Device("Jetson Orin Nano 8GB", "MAXN SUPER", 8, 1.02, 33.4, 16.7, 102.0, 3.5,
                        "JetPack 6.2 data sheet, 67 sparse TOPS; 1024 CUDA cores; 128 bit LPDDR5 at 3200 MHz", 3.0),
    "orin-nx": Device("Jetson Orin NX 16GB", "MAXN SUPER", 8, 1.173, 38.4, 19.2, 102.0, 3.3,
                      "JetPack 6.2 data sheet, 157 sparse TOPS with the DLAs; 128 bit LPDDR5 at 3200 MHz", 2.5),
    "agx-orin": Device("Jetson AGX Orin 64GB", "MAXN", 16, 1.301, 85.0, 42.6, 204.8, 3.0,
                       "data sheet, 170 sparse TOPS without the DLAs; 256 bit LPDDR5 at 3200 MHz", 2.3),
    "thor": Device("Jetson AGX Thor (T5000)", "MAXN, 120 W", 20, 1.575, 517.0, 258.0, 273.0, 2.5,
                   "T5000 data sheet: 2070 FP4 sparse = 517 FP8 dense = 258 FP16 dense, boost clock; states no INT8: "
                   "taken as fast as FP8", 1.3, fp8=True),
    "t4": Device("T4", "70 W", 40, 1.59, 130.0, 65.0, 320.0, 2.5,
                 "data sheet, dense (Turing has no sparsity), boost clock; PCIe 3.0 x16", 1.0, 12.0),
    "l4": Device("L4", "72 W", 58, 2.04, 242.0, 121.0, 300.0, 2.0,
                 "data sheet, with sparsity: 242 FP16, 485 INT8 and FP8, halved; boost clock; PCIe 4.0 x16",
                 1.0, 24.0, True),
    "a10": Device("A10", "150 W", 72, 1.695, 250.0, 125.0, 600.0, 2.0,
                  "data sheet, dense, boost clock; PCIe 4.0 x16", 1.0, 24.0),
    "h100": Device("H100 SXM", "700 W", 132, 1.83, 1979.0, 989.0, 3350.0, 1.6, _HOPPER, 1.0, 48.0, True),
    "h200": Device("H200 SXM", "700 W", 132, 1.83, 1979.0, 989.0, 4800.0, 1.6, _HOPPER, 1.0, 48.0, True),
}  # fmt: skip


def device_called(name: str) -> Device:
    """The device for a driver's name ("NVIDIA H200", "Tesla T4", "Orin"); an H100 if the table has none."""
    words = name.upper().replace("-", " ").split()
    return next((d for key, d in DEVICES.items() if key.upper().split("-")[-1] in words), DEVICES["h100"])
