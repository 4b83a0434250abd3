"""Named arrays as bytes, and the rule by which the blocks of a run's curves follow one another.

A block is one stretch of the curves of a run: "step" and the measured columns, [E] each.
"""

from __future__ import annotations

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from groklab.errors import WorkspaceError

Arrays = dict[str, np.ndarray]


def pack(arrays: Arrays, metadata: dict[str, str] | None = None) -> bytes:
    """Arrays as safetensors; raises WorkspaceError for types that could not be read back everywhere."""
    for name, values in arrays.items():
        # A type that another package adds to NumPy (bfloat16) could be read only where that package is imported.
        if values.dtype.isbuiltin != 1 or values.dtype.kind not in "biuf" or values.dtype.itemsize > 8:
            raise WorkspaceError(f"'{name}' is {values.dtype}: the store keeps bool, int and float of up to 64 bits")
    return safetensors.numpy.save({name: np.asarray(values, order="C") for name, values in arrays.items()}, metadata)


def unpack(run: str, block: bytes) -> Arrays:
    """The arrays of a block, bit for bit; `run` is named in the WorkspaceError for a damaged one."""
    try:
        return safetensors.numpy.load(block)
    except SafetensorError as error:
        raise WorkspaceError(f"a block of the curves of {run} is damaged ({error})") from error


def require_continuation(run: str, before: list[Arrays], curves: Arrays) -> None:
    """Raise WorkspaceError unless `curves` can be joined to the blocks `before`: steps go on, columns stay."""
    steps = curves["step"]
    if any(values.shape != steps.shape for values in curves.values()) or np.any(np.diff(steps) <= 0):
        raise WorkspaceError(f"the curves of {run} must have one length and increasing steps")
    for block in before:
        last = block["step"][-1]
        if steps[0] <= last:
            raise WorkspaceError(f"{run} has curves up to step {last}, new ones cannot begin at {steps[0]}")
        if _columns(block) != _columns(curves):
            raise WorkspaceError(f"{run} has curves {_columns(block)}, new ones cannot be {_columns(curves)}")


def _columns(curves: Arrays) -> str:
    return ", ".join(f"{name} ({values.dtype})" for name, values in sorted(curves.items()))
