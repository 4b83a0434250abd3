"""Checkpoint files: one safetensors file per checkpoint, written whole or not at all, read with a checksum.

<readable run id>-<digest>-<step>[.<n>].safetensors    metadata: program, run, step, crc32
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from groklab.errors import WorkspaceError
from groklab.store.blocks import Arrays, pack

_FILE_NAME = re.compile(r"(?P<stem>.+)-\d+(\.\d+)?\.safetensors(\.tmp)?")


def write(folder: Path, run: str, step: int, arrays: Arrays) -> str:
    """Write a checkpoint under a name not yet taken, which is returned: the valid file of the run is never touched."""
    content = pack(arrays, {"program": "groklab", "run": run, "step": str(step), "crc32": _checksum(arrays)})
    names = (f"{file_stem(run)}-{step}{f'.{n}' if n else ''}.safetensors" for n in itertools.count())
    file = next(file for file in map(folder.joinpath, names) if not file.exists())
    with written_whole(file) as temporary:
        temporary.write_bytes(content)
    return file.name


def read(file: Path, run: str, step: int) -> Arrays:
    """The arrays of a checkpoint by name.

    Raises FileNotFoundError, and WorkspaceError where the file is damaged or not that of `run` at `step`.
    """
    try:
        with safe_open(file, framework="np") as content:
            metadata = content.metadata() or {}
            arrays = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise
    except (OSError, SafetensorError) as error:
        raise WorkspaceError(f"the checkpoint {file} cannot be read ({error}); it is left as it is") from error
    if (metadata.get("run"), metadata.get("step")) != (run, str(step)):
        raise WorkspaceError(f"the checkpoint {file} is not that of {run} at step {step}; it is left as it is")
    if metadata.get("crc32") != _checksum(arrays):
        raise WorkspaceError(f"the checkpoint {file} is damaged (checksum); it is left as it is")
    return arrays


def delete_all_but(folder: Path, current: Mapping[str, str | None]) -> None:
    """Delete the files of the runs in `current` except the one named there, remains of killed writers included."""
    names = {file_stem(run): name for run, name in current.items()}
    with suppress(OSError):  # a file too many harms nobody
        for name in os.listdir(folder) if names else ():
            match = _FILE_NAME.fullmatch(name)
            if match and names.get(match["stem"], name) != name:
                (folder / name).unlink()


def file_stem(run: str) -> str:
    """A file name for a run, whatever its arm is called: readable, and distinct by a digest of the id."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", run).lstrip("._-")[:80]
    return f"{readable}-{hashlib.sha256(run.encode()).hexdigest()[:12]}"


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; on success it is synced and renamed to `path`, else deleted."""
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _checksum(arrays: Arrays) -> str:
    """CRC-32 over names, types, shapes and bits: safetensors itself does not notice a flipped bit."""
    value = 0
    for name in sorted(arrays):
        array = np.asarray(arrays[name], order="C")
        value = zlib.crc32(f"{name} {array.dtype} {array.shape} ".encode(), value)
        value = zlib.crc32(array.reshape(-1).view(np.uint8).data, value)
    return f"{value:08x}"
