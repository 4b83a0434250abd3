"""Curves, runs and checkpoints of one experiment as files for other programs.

    csv, parquet   <id>-curves.*: experiment, arm, seed, step and one column per curve, a row per evaluation
                   <id>-runs.*:   a row per run, failures included; times not reached are empty
    safetensors    <id>-<arm>-<seed>-<digest>.safetensors per run: curves/<name> [E] and checkpoint/<name>,
                   the run's row in the metadata

Numbers keep their bits: CSV has the shortest decimal that reads back to the same float of the same width. A curve that
only some arms have is empty (CSV) or null (Parquet) in the others, which is not the same as a measured NaN.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from groklab.errors import GroklabError, nearest
from groklab.store.checkpoint_files import file_stem, written_whole
from groklab.store.workspace import MILESTONES, RunRow, Workspace

_RUN_COLUMNS = [field.name for field in fields(RunRow)]


def export(workspace: Workspace, experiment_id: str, to: str, directory: Path) -> list[Path]:
    """Write an experiment in the format `to` ("parquet", "csv" or "safetensors") into `directory`, made if missing.

    `experiment_id` may be anything `Workspace.experiment` accepts. Returns the files written; each appears whole or not
    at all, and one of the same name is replaced.

    Raises GroklabError for an unknown format, for Parquet without pyarrow, and where `directory` cannot be written.
    """
    writers: dict[str, Callable[[Workspace, str, Path], list[Path]]] = {
        "csv": _csv,
        "parquet": _parquet,
        "safetensors": _safetensors,
    }
    if to not in writers:
        raise GroklabError(f"there is no export to '{to}': {nearest(to, writers)}")
    experiment = workspace.experiment(experiment_id).id
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return writers[to](workspace, experiment, directory)
    except OSError as error:
        raise GroklabError(f"cannot export to {directory}: {error.strerror or error}") from error


def _csv(workspace: Workspace, experiment: str, directory: Path) -> list[Path]:
    runs = workspace.runs(experiment)
    columns = _curve_columns(workspace, runs)
    with written_whole(directory / f"{experiment}-curves.csv") as temporary, temporary.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["experiment", "arm", "seed", *columns])
        for run in runs:
            curves = workspace.curves(run.id)
            blank = [""] * curves["step"].size
            texts = [list(map(str, curves[name])) if name in curves else blank for name in columns]
            table.writerows([experiment, run.arm, run.seed, *row] for row in zip(*texts, strict=True))
    with written_whole(directory / f"{experiment}-runs.csv") as temporary, temporary.open("w", newline="") as file:
        table = csv.DictWriter(file, _RUN_COLUMNS)
        table.writeheader()
        table.writerows(asdict(run) for run in runs)
    return [directory / f"{experiment}-curves.csv", directory / f"{experiment}-runs.csv"]


def _parquet(workspace: Workspace, experiment: str, directory: Path) -> list[Path]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise GroklabError("Parquet needs pyarrow: pip install 'groklab[parquet]'") from error

    runs = workspace.runs(experiment)
    key = [("experiment", pa.string()), ("arm", pa.string()), ("seed", pa.int64())]
    tables = [pa.schema([*key, ("step", pa.int32())]).empty_table()]
    for run in runs:
        curves = workspace.curves(run.id)
        evaluations = curves["step"].size
        columns: dict[str, Any] = {
            name: pa.array([value] * evaluations, kind)
            for (name, kind), value in zip(key, (experiment, run.arm, run.seed), strict=True)
        }
        tables.append(pa.table(columns | {name: pa.array(curves[name]) for name in _step_first(curves)}))
    types = {
        **dict.fromkeys(("seed", "steps", *MILESTONES), pa.int64()),
        **dict.fromkeys(("seconds", "flops"), pa.float64()),
    }
    of_runs = pa.table(
        {name: pa.array([getattr(run, name) for run in runs], types.get(name, pa.string())) for name in _RUN_COLUMNS}
    )
    written = {"curves": pa.concat_tables(tables, promote_options="permissive"), "runs": of_runs}
    files = []
    for name, table in written.items():
        files.append(directory / f"{experiment}-{name}.parquet")
        with written_whole(files[-1]) as temporary:
            pq.write_table(table, temporary)
    return files


def _safetensors(workspace: Workspace, experiment: str, directory: Path) -> list[Path]:
    files = []
    for run in workspace.runs(experiment):
        arrays = {f"curves/{name}": values for name, values in workspace.curves(run.id).items()}
        metadata = {name: str(value) for name, value in asdict(run).items() if value is not None}
        stored = workspace.checkpoint(run.id)
        if stored is not None:
            metadata["checkpoint_step"] = str(stored[0])
            arrays |= {f"checkpoint/{name}": values for name, values in stored[1].items()}
        files.append(directory / f"{file_stem(run.id)}.safetensors")
        with written_whole(files[-1]) as temporary:
            temporary.write_bytes(safetensors.numpy.save(arrays, metadata))
    return files


def _curve_columns(workspace: Workspace, runs: list[RunRow]) -> list[str]:
    """Every curve any run has, in order of first appearance, "step" first."""
    return list(dict.fromkeys(name for run in runs for name in _step_first(workspace.curves(run.id)))) or ["step"]


def _step_first(curves: dict[str, np.ndarray]) -> list[str]:
    return ["step", *(name for name in curves if name != "step")]
