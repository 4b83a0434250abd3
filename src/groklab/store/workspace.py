"""A workspace: one folder that keeps experiments, their curves and their checkpoints.

    groklab.sqlite               specs, runs, curve blocks, events (SQLite in WAL mode, see schema.sql)
    checkpoints/*.safetensors    the latest checkpoint of each run
    writer.lock                  held by the one process that writes; any number of processes read

What holds at every instant, across a killed process and a power cut: each checkpoint row points to a complete file. A
file is written under a temporary name, synced and renamed, its folder is synced, then the row is committed, then the
file it replaces is deleted. That order needs `synchronous = FULL`: under NORMAL, which WAL mode would allow, a power
cut may take back the last commits, and the row that comes back would point to a file deleted since.

The store knows neither JAX nor specs: it takes and gives NumPy arrays, dictionaries and text.
"""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from groklab.errors import WorkspaceError, nearest
from groklab.store import blocks, checkpoint_files, database
from groklab.store.blocks import Arrays

MILESTONES = ("t_memorised", "t_grokked", "t_stable", "t_collapsed", "diverged_at")
_UPDATED = ("status", "steps", *MILESTONES, "seconds", "flops", "message")  # columns of runs, fields of Progress
_UPDATE_RUN = f"UPDATE runs SET {', '.join(f'{name} = :{name}' for name in _UPDATED)} WHERE id = :run"


@dataclass(frozen=True)
class ExperimentRow:
    """One stored experiment. `status` is "running", "interrupted" or "finished"; `created` is ISO 8601 in UTC."""

    id: str
    name: str
    spec: dict[str, Any]
    spec_toml: str
    versions: dict[str, str]
    created: str
    status: str


@dataclass(frozen=True)
class RunRow:
    """One arm with one seed. `status` is "pending", "running", "grokked", "exhausted" or "diverged".

    `steps` taken so far; `t_memorised`, `t_grokked`, `t_stable`, `t_collapsed` and `diverged_at` in steps, None = not
    reached.
    """

    id: str
    experiment: str
    arm: str
    seed: int
    status: str
    steps: int
    t_memorised: int | None
    t_grokked: int | None
    t_stable: int | None
    t_collapsed: int | None
    diverged_at: int | None
    seconds: float
    flops: float
    message: str

    @property
    def finished(self) -> bool:
        """Whether no further step is due."""
        return self.status in ("grokked", "exhausted", "diverged")


@dataclass(frozen=True)
class Progress:
    """What one run hands over at the end of a chunk.

    `curves`: [E] each, one of them "step" (int32, increasing, beyond the steps stored); [0] = nothing evaluated.
    `checkpoint`: the state at `steps`, by name; None = no checkpoint this time, the stored one stays.
    `message`: one sentence for a person about the run's end, such as why it diverged.
    """

    run: str
    status: str
    steps: int
    t_memorised: int | None
    t_grokked: int | None
    t_stable: int | None
    t_collapsed: int | None
    diverged_at: int | None
    seconds: float
    flops: float
    curves: Arrays
    checkpoint: Arrays | None
    message: str = ""


class Event(NamedTuple):
    """One line of an experiment's history; `time` is ISO 8601 in UTC, `run` None = the experiment as a whole."""

    time: str
    run: str | None
    kind: str
    text: str


class Workspace:
    """An open workspace; a context manager that closes itself. Threads of one process may share it.

    Every method raises WorkspaceError, one sentence for a person, where the folder, the database or the disk refuses.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, lock: IO[str] | None):
        self.path = path
        self._checkpoints = path / "checkpoints"
        self._db = connection
        self._lock = lock  # None = reader
        self._mutex = threading.RLock()

    @classmethod
    def open(cls, path: str | Path, create: bool = False, writable: bool = True) -> Workspace:
        """Open the workspace at `path`; with `create`, make folder and database where there are none.

        A reader (`writable=False`) changes nothing, needs no lock and may read while another process writes. A
        database that is not ours, from a newer groklab or damaged is refused before SQLite can touch it.
        """
        if create and not writable:
            raise ValueError("a workspace cannot be created read-only")
        folder = Path(path)
        file = folder / "groklab.sqlite"
        with database.explained(folder):
            if folder.exists() and not folder.is_dir():
                raise WorkspaceError(f"{folder} is a file, a workspace is a folder")
            if file.exists():
                database.verify(file)
            elif not create:
                raise WorkspaceError(f"there is no workspace at {folder}; `groklab run two-phase` makes one")
            if not writable:
                return cls(folder, database.connect(file, writable=False), None)
            folder.mkdir(parents=True, exist_ok=True)
            if not all(os.access(part, os.W_OK) for part in (folder, file) if part.exists()):
                raise PermissionError(errno.EACCES, "the folder or its database is not writable")
            lock = database.acquire_lock(folder)
            try:
                (folder / "checkpoints").mkdir(exist_ok=True)
                if not file.exists():
                    database.create(file)
                return cls(folder, database.connect(file, writable=True), lock)
            except BaseException:
                lock.close()
                raise

    def __enter__(self) -> Workspace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database and let the next writer in; closing twice is harmless."""
        self._db.close()
        if self._lock is not None:
            self._lock.close()

    # Experiments

    def add_experiment(
        self,
        id: str,
        name: str,
        spec: Mapping[str, Any],
        spec_toml: str,
        versions: Mapping[str, str],
        runs: Sequence[tuple[str, int]],
    ) -> None:
        """Store an experiment with status "running" and its `runs`, (arm, seed) each, with status "pending"."""
        position = {arm: i for i, arm in enumerate(dict.fromkeys(arm for arm, _ in runs))}
        with self._transaction():
            if self.has_experiment(id):
                raise WorkspaceError(f"experiment {id} is already in {self.path}")
            self._db.execute(
                "INSERT INTO experiments VALUES (?, ?, ?, ?, ?, ?, 'running')",
                (id, name, json.dumps(dict(spec)), spec_toml, json.dumps(dict(versions)), _now()),
            )
            self._db.executemany(
                "INSERT INTO runs (id, experiment, arm, seed, position) VALUES (?, ?, ?, ?, ?)",
                [(f"{id}/{arm}/{seed}", id, arm, seed, position[arm]) for arm, seed in runs],
            )

    def experiments(self) -> list[ExperimentRow]:
        """All experiments, newest first."""
        rows = self._query("SELECT * FROM experiments ORDER BY created DESC, rowid DESC")
        return [
            ExperimentRow(id, name, json.loads(spec), spec_toml, json.loads(versions), created, status)
            for id, name, spec, spec_toml, versions, created, status in rows
        ]

    def experiment(self, which: str) -> ExperimentRow:
        """The experiment with this id, name or unique beginning of an id; of several with one name, the newest."""
        rows = self.experiments()
        exact = [row for row in rows if row.id == which] or [row for row in rows if row.name == which]
        if exact:
            return exact[0]
        begun = [row for row in rows if which and row.id.startswith(which)]
        if len(begun) > 1:
            raise WorkspaceError(f"'{which}' begins several ids: {', '.join(sorted(row.id for row in begun))}")
        if not begun:
            known = {row.name for row in rows}
            raise WorkspaceError(f"there is no experiment '{which}' in {self.path}: {nearest(which, known)}")
        return begun[0]

    def has_experiment(self, id: str) -> bool:
        """Whether an experiment with exactly this id is stored."""
        return bool(self._query("SELECT 1 FROM experiments WHERE id = ?", id))

    def runs(self, experiment_id: str) -> list[RunRow]:
        """The runs of an experiment, arms in the order given, then by seed; empty for an unknown id."""
        columns = ", ".join(field.name for field in fields(RunRow))
        sql = f"SELECT {columns} FROM runs WHERE experiment = ? ORDER BY position, seed"
        return [RunRow(*row) for row in self._query(sql, experiment_id)]

    def set_status(self, experiment_id: str, status: str) -> None:
        """Set an experiment's status: "running", "interrupted" or "finished"."""
        with self._transaction():
            changed = self._db.execute("UPDATE experiments SET status = ? WHERE id = ?", (status, experiment_id))
            if not changed.rowcount:
                known = [row.id for row in self.experiments()]
                raise WorkspaceError(f"there is no experiment '{experiment_id}': {nearest(experiment_id, known)}")

    def log(self, experiment_id: str, run_id: str | None, kind: str, text: str) -> None:
        """Add an event to an experiment's history."""
        with self._transaction():
            self._db.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?)", (_now(), experiment_id, run_id, kind, text))

    def events(self, experiment_id: str) -> list[Event]:
        """The events of an experiment, oldest first."""
        sql = "SELECT time, run, kind, text FROM events WHERE experiment = ? ORDER BY rowid"
        return [Event(*row) for row in self._query(sql, experiment_id)]

    # Curves and checkpoints

    def save(self, progress: Sequence[Progress]) -> None:
        """Store what the runs hand over, all of it or nothing.

        On an error (a full disk, say) nothing of this call remains and everything before it stays readable.
        """
        self._require_writable()
        if len({p.run for p in progress}) < len(progress):
            raise ValueError("a run can hand over its progress only once per save")
        saved = [p.run for p in progress if p.checkpoint is not None]
        with self._mutex:
            try:
                with self._transaction():
                    for p in progress:
                        self._record(p)
                    if saved:
                        checkpoint_files.sync_folder(self._checkpoints)
            except WorkspaceError as error:
                if getattr(error.__cause__, "sqlite_errorcode", None) == sqlite3.SQLITE_IOERR_FSYNC:
                    saved = []  # the commit may have reached the disk all the same: keep the old files and the new
                raise
            finally:
                self._delete_orphans(saved)

    def curves(self, run_id: str) -> Arrays:
        """All curves of a run, [E] each, in step order and with the bits that were saved."""
        rows = self._query("SELECT block FROM curves WHERE run = ? ORDER BY first_step", run_id)
        if not rows:
            self._require_run(run_id)
            return {"step": np.empty(0, np.int32)}
        parts = [blocks.unpack(run_id, block) for (block,) in rows]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def checkpoint(self, run_id: str) -> tuple[int, Arrays] | None:
        """The latest checkpoint of a run as (step, arrays by name), None if it has none.

        A file that is missing, damaged or not this run's is an error that names it; nothing is deleted.
        """
        sql = "SELECT step, file FROM checkpoints WHERE run = ?"
        rows = self._query(sql, run_id)
        while rows:
            step, name = rows[0]
            try:
                return step, checkpoint_files.read(self._checkpoints / name, run_id, step)
            except FileNotFoundError:
                before, rows = rows, self._query(sql, run_id)
                if rows == before:  # otherwise the writer has replaced it since we asked: read the new one
                    raise WorkspaceError(f"the checkpoint {self._checkpoints / name} is missing") from None
        self._require_run(run_id)
        return None

    def rewind(self, run_id: str) -> tuple[int, Arrays] | None:
        """Take a run back to its checkpoint, to resume from it: the checkpoint as (step, arrays).

        A checkpoint is of the state before its step is evaluated, so curves from that step on are dropped, and so are
        the message and milestones the run reached only then or later. Without a checkpoint the run goes back to its
        start and the answer is None. An unreadable checkpoint changes nothing.
        """
        stored = self.checkpoint(run_id)
        last = -1 if stored is None else stored[0]
        key = {"run": run_id, "last": last}
        status = "status = 'pending', seconds = 0, flops = 0" if stored is None else "status = 'running'"
        milestones = ", ".join(f"{name} = CASE WHEN {name} < :last THEN {name} END" for name in MILESTONES)
        with self._transaction():
            beyond = "FROM curves WHERE run = :run AND last_step >= :last"
            straddling = self._db.execute(f"SELECT block {beyond} AND first_step < :last", key).fetchall()
            self._db.execute(f"DELETE {beyond}", key)
            for (block,) in straddling:
                curves = blocks.unpack(run_id, block)
                self._add_block(run_id, {name: values[curves["step"] < last] for name, values in curves.items()})
            self._db.execute(
                f"UPDATE runs SET {status}, steps = max(:last, 0), message = '', {milestones}"
                " WHERE id = :run AND steps > :last",
                key,
            )
        return stored

    # Below: how it is done

    def _require_writable(self) -> None:
        if self._lock is None:
            raise WorkspaceError(f"{self.path} was opened for reading only")

    def _require_run(self, run_id: str) -> None:
        if not self._query("SELECT 1 FROM runs WHERE id = ?", run_id):
            raise WorkspaceError(f"there is no run '{run_id}' in {self.path}")

    def _query(self, sql: str, *parameters: object) -> list[tuple]:
        with self._mutex, database.explained(self.path):
            return self._db.execute(sql, parameters).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._require_writable()
        with self._mutex, database.explained(self.path), self._db:  # the connection commits or rolls back
            self._db.execute("BEGIN IMMEDIATE")
            yield

    def _record(self, p: Progress) -> None:
        """The rows and the checkpoint file of one run's progress, inside the transaction of `save`."""
        self._require_run(p.run)
        self._db.execute(_UPDATE_RUN, vars(p))
        if p.curves.get("step", np.empty(0)).size:
            sql = "SELECT block FROM curves WHERE run = ? ORDER BY first_step DESC LIMIT 1"
            before = [blocks.unpack(p.run, block) for (block,) in self._query(sql, p.run)]
            blocks.require_continuation(p.run, before, p.curves)
            self._add_block(p.run, p.curves)
        if p.checkpoint is not None:
            name = checkpoint_files.write(self._checkpoints, p.run, p.steps, p.checkpoint)
            self._db.execute("REPLACE INTO checkpoints VALUES (?, ?, ?)", (p.run, p.steps, name))

    def _add_block(self, run_id: str, curves: Arrays) -> None:
        first, last = int(curves["step"][0]), int(curves["step"][-1])
        self._db.execute("INSERT INTO curves VALUES (?, ?, ?, ?)", (run_id, first, last, blocks.pack(curves)))

    def _delete_orphans(self, run_ids: Sequence[str]) -> None:
        """Delete the files of these runs that no row points to: the older ones, or the new ones of a failed save."""
        if run_ids:
            with suppress(WorkspaceError):
                files = dict(self._query("SELECT run, file FROM checkpoints"))
                checkpoint_files.delete_all_but(self._checkpoints, {run: files.get(run) for run in run_ids})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
