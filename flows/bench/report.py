"""What every benchmark prints: its machine, its figures, and with `--json` one object on the last line."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from typing import Any

import llvmlite.binding as llvm
import numpy as np


def timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def spread(values: list[float], scale: float = 1.0) -> dict[str, float]:
    """Median, 95th percentile and extremes."""
    scaled = np.asarray(values) * scale
    names = {"p50": np.median(scaled), "p95": np.percentile(scaled, 95), "min": scaled.min(), "max": scaled.max()}
    return {name: digits(value) for name, value in names.items()}


def digits(value: float) -> float:
    """To three digits, which is more than a shared machine gives."""
    return float(f"{value:.3g}")


def report(name: str, figures: Mapping[str, Any], as_json: bool) -> None:
    where = f"{machine()}, load {os.getloadavg()[0]:.1f}"
    print(f"twin bench {name} · {where}")
    for key, value in figures.items():
        print(f"  {key:<26} {value}")
    if as_json:
        print(json.dumps({"bench": name, "machine": where, **figures}))


def machine() -> str:
    return f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"


_VECTORS = {"avx512f": 512, "avx2": 256, "avx": 256, "sse2": 128, "neon": 128}  # widest first


def processor() -> dict[str, Any]:
    """What the compiler sees: the processor, bits of its widest vectors, how many numbers they hold."""
    features = llvm.get_host_cpu_features()
    bits = next((bits for name, bits in _VECTORS.items() if features.get(name)), 64)
    return {"cpu": llvm.get_host_cpu_name(), "bits": bits, "double": bits // 64, "single": bits // 32}
