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
import fcntl
import hashlib
import itertools
import json
import os
import re
import sqlite3
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from groklab.errors import WorkspaceError, nearest

Arrays = dict[str, np.ndarray]

APPLICATION_ID = 0x47524F4B  # as in schema.sql
SCHEMA_VERSION = 1
_FULL_ERRNO = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
_BUSY_SECONDS = 30.0


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

    `steps` taken so far; `t_memorised`, `t_grokked`, `t_stable`, `diverged_at` in steps, None = not reached.
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
    """

    run: str
    status: str
    steps: int
    t_memorised: int | None
    t_grokked: int | None
    t_stable: int | None
    diverged_at: int | None
    seconds: float
    flops: float
    curves: Arrays
    checkpoint: Arrays | None


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
        database = folder / "groklab.sqlite"
        with _explained(folder):
            if folder.exists() and not folder.is_dir():
                raise WorkspaceError(f"{folder} is a file, a workspace is a folder")
            if database.exists():
                _verify(database)
            elif not create:
                raise WorkspaceError(f"there is no workspace at {folder}; `groklab run two-phase` makes one")
            if not writable:
                return cls(folder, _connect_reader(database), None)
            folder.mkdir(parents=True, exist_ok=True)
            if not all(os.access(part, os.W_OK) for part in (folder, database) if part.exists()):
                raise PermissionError(errno.EACCES, "the folder or its database is not writable")
            lock = _acquire_lock(folder)
            try:
                (folder / "checkpoints").mkdir(exist_ok=True)
                if not database.exists():
                    _create(database)
                return cls(folder, _connect_writer(database), lock)
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
        rows = self._query(f"SELECT {_columns(ExperimentRow)} FROM experiments ORDER BY created DESC, rowid DESC")
        return [_experiment(row) for row in rows]

    def experiment(self, which: str) -> ExperimentRow:
        """The experiment with this id, name or unique beginning of an id; of several with one name, the newest."""
        rows = self.experiments()
        for exact in ([row for row in rows if row.id == which], [row for row in rows if row.name == which]):
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
        sql = f"SELECT {_columns(RunRow)} FROM runs WHERE experiment = ? ORDER BY position, seed"
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

        Checkpoint files come first under fresh names, so the stored ones stay valid until the rows are committed in
        one transaction; files no row points to any more are deleted after it. On an error (a full disk, say) nothing
        of this call remains and everything before it stays readable.
        """
        self._require_writable()
        if len({p.run for p in progress}) < len(progress):
            raise ValueError("a run can hand over its progress only once per save")
        written: dict[str, Path] = {}
        try:
            with _explained(self.path):
                for p in progress:
                    if p.checkpoint is not None:
                        file = self._fresh_file(p.run, p.steps)
                        with written_whole(file) as temporary:
                            temporary.write_bytes(_pack_checkpoint(p.run, p.steps, p.checkpoint))
                        written[p.run] = file
                if written:
                    _sync_folder(self.path / "checkpoints")
            with self._transaction():
                for p in progress:
                    self._record(p, written.get(p.run))
        except BaseException as error:
            self._take_back(written, error)
            raise
        self._delete_superseded(written)

    def curves(self, run_id: str) -> Arrays:
        """All curves of a run, [E] each, in step order and with the bits that were saved."""
        rows = self._query("SELECT block FROM curves WHERE run = ? ORDER BY first_step", run_id)
        if not rows:
            self._require_run(run_id)
            return {"step": np.empty(0, np.int32)}
        blocks = [_unpack_block(run_id, block) for (block,) in rows]
        return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}

    def checkpoint(self, run_id: str) -> tuple[int, Arrays] | None:
        """The latest checkpoint of a run as (step, arrays by name), None if it has none.

        A file that is missing, damaged or not this run's is an error that names it; nothing is deleted.
        """
        sql = "SELECT step, file FROM checkpoints WHERE run = ?"
        rows = self._query(sql, run_id)
        if not rows:
            self._require_run(run_id)
            return None
        while True:
            step, name = rows[0]
            file = self.path / "checkpoints" / name
            try:
                return step, _unpack_checkpoint(file, run_id, step)
            except FileNotFoundError:
                before, rows = rows, self._query(sql, run_id)
                if rows == before:
                    raise WorkspaceError(f"the checkpoint {file} is missing") from None
                # The writer has replaced it since we asked: read the new one.

    def rewind(self, run_id: str) -> tuple[int, Arrays] | None:
        """Take a run back to its checkpoint, to resume from it: the checkpoint as (step, arrays).

        Curves after the checkpoint's step are dropped, and so are milestones the run reached only later. Without a
        checkpoint the run goes back to its start and the answer is None. An unreadable checkpoint changes nothing.
        """
        self._require_writable()
        stored = self.checkpoint(run_id)
        last = -1 if stored is None else stored[0]
        with self._transaction():
            self._db.execute("DELETE FROM curves WHERE run = ? AND first_step > ?", (run_id, last))
            straddling = "SELECT first_step, block FROM curves WHERE run = ? AND last_step > ?"
            for first_step, block in self._db.execute(straddling, (run_id, last)).fetchall():
                arrays = _unpack_block(run_id, block)
                kept = {name: values[arrays["step"] <= last] for name, values in arrays.items()}
                self._db.execute(
                    "UPDATE curves SET last_step = ?, block = ? WHERE run = ? AND first_step = ?",
                    (int(kept["step"][-1]), _pack(kept), run_id, first_step),
                )
            milestones = ", ".join(
                f"{name} = CASE WHEN {name} <= :last THEN {name} END"
                for name in ("t_memorised", "t_grokked", "t_stable", "diverged_at")
            )
            restart = ", status = 'pending', steps = 0, seconds = 0, flops = 0"
            resume = ", status = CASE WHEN steps > :last THEN 'running' ELSE status END, steps = :last"
            self._db.execute(
                f"UPDATE runs SET {milestones}{restart if stored is None else resume} WHERE id = :run",
                {"last": last, "run": run_id},
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
        with self._mutex, _explained(self.path):
            return self._db.execute(sql, parameters).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._require_writable()
        with self._mutex, _explained(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # after some errors SQLite has rolled back by itself
                    self._db.execute("ROLLBACK")
                raise

    def _record(self, p: Progress, file: Path | None) -> None:
        """The rows of one run's progress, inside the transaction of `save`."""
        self._require_run(p.run)
        self._db.execute(
            "UPDATE runs SET status = ?, steps = ?, t_memorised = ?, t_grokked = ?, t_stable = ?, diverged_at = ?,"
            " seconds = ?, flops = ? WHERE id = ?",
            (p.status, p.steps, p.t_memorised, p.t_grokked, p.t_stable, p.diverged_at, p.seconds, p.flops, p.run),
        )
        steps = p.curves.get("step", np.empty(0))
        if steps.size:
            self._require_continuation(p)
            self._db.execute(
                "INSERT INTO curves VALUES (?, ?, ?, ?)", (p.run, int(steps[0]), int(steps[-1]), _pack(p.curves))
            )
        if file is not None:
            self._db.execute("REPLACE INTO checkpoints VALUES (?, ?, ?)", (p.run, p.steps, file.name))

    def _require_continuation(self, p: Progress) -> None:
        """A block must extend the stored curves: steps go on, columns stay. Otherwise `curves` could not join them."""
        sql = "SELECT last_step, block FROM curves WHERE run = ? ORDER BY first_step DESC LIMIT 1"
        steps = p.curves["step"]
        if any(values.shape != steps.shape for values in p.curves.values()) or np.any(np.diff(steps) <= 0):
            raise WorkspaceError(f"the curves of {p.run} must have one length and increasing steps")
        for last_step, block in self._query(sql, p.run):
            if steps[0] <= last_step:
                raise WorkspaceError(f"{p.run} has curves up to step {last_step}, new ones cannot begin at {steps[0]}")
            before, now = ({n: a.dtype for n, a in c.items()} for c in (_unpack_block(p.run, block), p.curves))
            if before != now:
                raise WorkspaceError(f"{p.run} has curves {_names(before)}, new ones cannot be {_names(now)}")

    def _fresh_file(self, run_id: str, step: int) -> Path:
        """A checkpoint file that does not exist yet: a run saved again at one step must not touch its valid file."""
        folder = self.path / "checkpoints"
        for again in itertools.count():
            file = folder / f"{file_stem(run_id)}-{step}{f'.{again}' if again else ''}.safetensors"
            if not file.exists():
                return file
        raise AssertionError("unreachable")

    def _take_back(self, written: Mapping[str, Path], error: BaseException) -> None:
        """Delete the files of a save that failed, except where a row may point to them all the same."""
        if getattr(error.__cause__, "sqlite_errorcode", None) == sqlite3.SQLITE_IOERR_FSYNC:
            return  # the commit may have reached the disk even so; the next save of the run clears up
        for run_id, file in written.items():
            with suppress(OSError, WorkspaceError):
                if (file.name,) not in self._query("SELECT file FROM checkpoints WHERE run = ?", run_id):
                    file.unlink()

    def _delete_superseded(self, written: Mapping[str, Path]) -> None:
        """Delete what is left of older checkpoints of these runs, remains of killed writers included."""
        current = {file_stem(run_id): file.name for run_id, file in written.items()}
        with suppress(OSError):  # a file too many harms nobody
            for name in os.listdir(self.path / "checkpoints") if current else ():
                match = re.fullmatch(r"(.+)-\d+(\.\d+)?\.safetensors(\.tmp)?", name)
                if match and current.get(match[1], name) != name:
                    (self.path / "checkpoints" / name).unlink()


def file_stem(run_id: str) -> str:
    """A file name for a run, whatever its arm is called: readable, and distinct by a digest of the id."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", run_id).lstrip("._-")[:80]
    return f"{readable}-{hashlib.sha256(run_id.encode()).hexdigest()[:12]}"


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


def _sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Errors of the operating system and of SQLite as one sentence with the path and the reason."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL_ERRNO:
            raise WorkspaceError(f"the disk under {folder} is full; what was saved before is intact") from error
        raise WorkspaceError(f"cannot use the workspace {folder}: {error.strerror or error}") from error
    except sqlite3.IntegrityError as error:
        raise WorkspaceError(f"the workspace {folder} does not accept this: {error}") from error
    except sqlite3.Error as error:
        if _primary_code(error) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            reason = f"the disk under {folder} is full or failing ({error}); what was saved before is intact"
            raise WorkspaceError(reason) from error
        raise WorkspaceError(f"cannot use the workspace {folder}: {error}") from error


def _primary_code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _acquire_lock(folder: Path) -> IO[str]:
    """The lock of the one writer. The kernel releases it when the process ends, however it ends."""
    lock = (folder / "writer.lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        holder = lock.read().strip() or "unknown"
        lock.close()
        raise WorkspaceError(
            f"{folder} is being written by another process (id {holder}); there can be one writer, readers are welcome"
        ) from None
    except BaseException:
        lock.close()
        raise
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock


def _uri(database: Path, options: str) -> str:
    return f"{database.absolute().as_uri()}?{options}"


def _connect(database: Path, options: str) -> sqlite3.Connection:
    return sqlite3.connect(
        _uri(database, options), uri=True, isolation_level=None, check_same_thread=False, timeout=_BUSY_SECONDS
    )


def _connect_writer(database: Path) -> sqlite3.Connection:
    connection = _connect(database, "mode=rw")
    try:
        connection.execute("PRAGMA synchronous = FULL")  # see the module's docstring
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("SELECT 1 FROM experiments LIMIT 1")  # recovers what a killed writer left in the WAL
    except BaseException:
        connection.close()
        raise
    return connection


def _connect_reader(database: Path) -> sqlite3.Connection:
    connection = _connect(database, "mode=ro")
    try:
        connection.execute("SELECT 1 FROM experiments LIMIT 1")
        return connection
    except sqlite3.OperationalError as error:
        connection.close()
        if _primary_code(error) not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
            raise
    # WAL mode needs a -shm file even to read, and here none can be made: a read-only disk or somebody else's folder.
    # Nobody can write there either, so the main file can be read as it lies, provided that nothing is left in the WAL.
    wal = _beside(database, "-wal")
    if wal.exists() and wal.stat().st_size:
        raise WorkspaceError(f"{wal} holds records that cannot be read in a folder that is not writable: copy it first")
    return _connect(database, "mode=ro&immutable=1")


def _beside(database: Path, suffix: str) -> Path:
    return database.with_name(database.name + suffix)


def _create(database: Path) -> None:
    """Make an empty database, complete before it has its name."""
    with written_whole(database) as temporary:
        temporary.unlink(missing_ok=True)
        with closing(_connect(temporary, "mode=rwc")) as connection:
            connection.executescript(resources.files("groklab.store").joinpath("schema.sql").read_text("utf-8"))
            connection.execute("PRAGMA journal_mode = WAL")  # kept in the file, hence set once
    _sync_folder(database.parent)


def _verify(database: Path) -> None:
    """Refuse what is not a sound database of ours, without a byte written in or beside it."""
    with database.open("rb") as file:
        header = file.read(100)  # https://sqlite.org/fileformat.html, section 1.3
    if len(header) < 100 or not header.startswith(b"SQLite format 3\0"):
        raise WorkspaceError(f"{database} is not a SQLite database, or its beginning is lost; it is left as it is")
    version, application = int.from_bytes(header[60:64], "big"), int.from_bytes(header[68:72], "big")
    if application != APPLICATION_ID:
        raise WorkspaceError(f"{database} is another program's database; it is left as it is")
    if version != SCHEMA_VERSION:
        raise WorkspaceError(
            f"{database} has version {version} of the layout, this groklab reads {SCHEMA_VERSION}: use another groklab"
        )
    problem = _damage(database)
    if problem:
        raise WorkspaceError(f"{database} is damaged ({problem}); it is left as it is")


def _damage(database: Path) -> str | None:
    """What SQLite's quick check finds wrong, None if nothing.

    Where no WAL lies beside the database it is opened as immutable, for which SQLite makes no files. A writer may
    begin just then and make that reading inconsistent, so a finding counts only if there is still no WAL after it.
    """
    wal = _beside(database, "-wal")
    live = wal.exists()
    while True:
        with closing(_connect(database, "mode=ro" if live else "mode=ro&immutable=1")) as connection:
            try:
                findings = [text for (text,) in connection.execute("PRAGMA quick_check(1)")]
                if not live and database.stat().st_size % connection.execute("PRAGMA page_size").fetchone()[0]:
                    findings = ["its end is cut off"]  # the check takes the missing part of a page for zeros
            except sqlite3.DatabaseError as error:
                if _primary_code(error) not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                    raise
                findings = [str(error)]
        if findings == ["ok"]:
            return None
        if live or not wal.exists():
            return findings[0]
        live = True


def _pack(arrays: Mapping[str, np.ndarray], metadata: dict[str, str] | None = None) -> bytes:
    for name, values in arrays.items():
        # A type that another package adds to NumPy (bfloat16) could be read only where that package is imported.
        if values.dtype.isbuiltin != 1 or values.dtype.kind not in "biuf" or values.dtype.itemsize > 8:
            raise WorkspaceError(f"'{name}' is {values.dtype}: the store keeps bool, int and float of up to 64 bits")
    return safetensors.numpy.save({name: np.asarray(values, order="C") for name, values in arrays.items()}, metadata)


def _unpack_block(run_id: str, block: bytes) -> Arrays:
    try:
        return safetensors.numpy.load(block)
    except SafetensorError as error:
        raise WorkspaceError(f"a block of the curves of {run_id} is damaged ({error})") from error


def _pack_checkpoint(run_id: str, step: int, arrays: Arrays) -> bytes:
    return _pack(arrays, {"program": "groklab", "run": run_id, "step": str(step), "crc32": _checksum(arrays)})


def _unpack_checkpoint(file: Path, run_id: str, step: int) -> Arrays:
    try:
        with safe_open(file, framework="np") as content:
            metadata = content.metadata() or {}
            arrays = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise
    except (OSError, SafetensorError) as error:
        raise WorkspaceError(f"the checkpoint {file} cannot be read ({error}); it is left as it is") from error
    if (metadata.get("run"), metadata.get("step")) != (run_id, str(step)):
        raise WorkspaceError(f"the checkpoint {file} is not that of {run_id} at step {step}; it is left as it is")
    if metadata.get("crc32") != _checksum(arrays):
        raise WorkspaceError(f"the checkpoint {file} is damaged (checksum); it is left as it is")
    return arrays


def _checksum(arrays: Arrays) -> str:
    """CRC-32 over names, types, shapes and bits: safetensors itself does not notice a flipped bit."""
    value = 0
    for name in sorted(arrays):
        array = np.asarray(arrays[name], order="C")
        value = zlib.crc32(f"{name} {array.dtype} {array.shape} ".encode(), value)
        value = zlib.crc32(array.reshape(-1).view(np.uint8).data, value)
    return f"{value:08x}"


def _experiment(row: tuple) -> ExperimentRow:
    stored = ExperimentRow(*row)
    return replace(stored, spec=json.loads(row[2]), versions=json.loads(row[4]))


def _columns(row_type: type[ExperimentRow] | type[RunRow]) -> str:
    return ", ".join(field.name for field in fields(row_type))


def _names(columns: Mapping[str, np.dtype]) -> str:
    return ", ".join(f"{name} ({dtype})" for name, dtype in sorted(columns.items()))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
