"""The machine and the software that the other figures come from."""

from __future__ import annotations

import os
import platform
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import jax

from benchmarks.products import SquareProducts, matrix_product_rate
from benchmarks.report import Report, Table, main
from groklab.engine.ensemble import prepare_jax

PACKAGES = ("groklab", "jax", "jaxlib", "optax", "equinox", "numpy", "torch")


def measure(quick: bool) -> Report:
    """Processor, devices, versions, and the rate of large float32 matrix products."""
    prepare_jax()
    side = 256 if quick else SquareProducts.usual_side()
    rate = matrix_product_rate(side, 0.1 if quick else 1.0)
    devices = jax.local_devices()
    rows = [
        ["date", date.today().isoformat()],
        ["processor", f"{_processor()}, {os.cpu_count()} cores"],
        ["devices", f"{len(devices)} x {devices[0].platform} ({devices[0].device_kind})"],
        [f"float32 products of side {side}, all devices", f"{rate / 1e9:,.0f} GFLOP/s"],
        ["system", f"{platform.system()} {platform.release()}, Python {platform.python_version()}"],
        ["packages", ", ".join(f"{name} {_version(name)}" for name in PACKAGES)],
    ]
    if (statistics := devices[0].memory_stats()) and "bytes_limit" in statistics:
        rows.insert(3, ["memory of a device", f"{statistics['bytes_limit'] / 1e9:.3g} GB for JAX"])
    method = "Products on every core or device at once, the median of five measurements."
    return Report("Machine", method, tables=[Table(["", ""], rows)])


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


if __name__ == "__main__":
    main(measure)
