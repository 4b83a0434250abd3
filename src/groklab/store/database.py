"""The database file of a workspace: verified, made, opened, locked against a second writer.

Whatever the file is, a refusal leaves no byte changed in it or beside it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib import resources
from pathlib import Path
from typing import IO

from groklab.errors import WorkspaceError
from groklab.store.checkpoint_files import sync_folder, written_whole

APPLICATION_ID = 0x47524F4B  # both as in schema.sql
SCHEMA_VERSION = 2
_UPGRADES = {  # from the version before: for good by a writer, in appearance for a reader
    1: (
        "ALTER TABLE runs ADD COLUMN t_collapsed INTEGER",
        "CREATE TEMP VIEW runs AS SELECT *, NULL AS t_collapsed FROM main.runs",
    )
}
# For a file opened as immutable SQLite makes no -wal and no -shm, which a reader in WAL mode needs otherwise.
_IMMUTABLE = "mode=ro&immutable=1"


def verify(database: Path) -> None:
    """Raise WorkspaceError unless `database` is a sound database of ours, in the layout this version reads."""
    with database.open("rb") as file:
        header = file.read(100)  # https://sqlite.org/fileformat.html, section 1.3
    if len(header) < 100 or not header.startswith(b"SQLite format 3\0"):
        raise WorkspaceError(f"{database} is not a SQLite database, or its beginning is lost; it is left as it is")
    version, application = int.from_bytes(header[60:64], "big"), int.from_bytes(header[68:72], "big")
    if application != APPLICATION_ID:
        raise WorkspaceError(f"{database} is another program's database; it is left as it is")
    if version not in {*_UPGRADES, SCHEMA_VERSION}:
        raise WorkspaceError(
            f"{database} has version {version} of the layout, this groklab reads {SCHEMA_VERSION}: use another groklab"
        )
    finding = _check(database)
    if finding != "ok":
        raise WorkspaceError(f"{database} is damaged ({finding}); it is left as it is")


def create(database: Path) -> None:
    """Make an empty database, complete before it has its name."""
    with written_whole(database) as temporary:
        temporary.unlink(missing_ok=True)
        with closing(_open(temporary, "mode=rwc")) as connection:
            connection.executescript(resources.files("groklab.store").joinpath("schema.sql").read_text("utf-8"))
            connection.execute("PRAGMA journal_mode = WAL")  # kept in the file, hence set once
    sync_folder(database.parent)


def connect(database: Path, writable: bool) -> sqlite3.Connection:
    """Open a verified database. Transactions are begun and ended by the caller; threads may share the connection.

    A database of an earlier layout is brought up to date by a writer; a reader sees it as if it had been.
    """
    if writable:
        connection = _open(database, "mode=rw")
        connection.execute("PRAGMA synchronous = FULL")  # why: see workspace.py
        connection.execute("PRAGMA foreign_keys = ON")
        for version in range(_version(connection), SCHEMA_VERSION):
            upgrade = f"{_UPGRADES[version][0]}; PRAGMA user_version = {version + 1}"
            connection.executescript(f"BEGIN IMMEDIATE; {upgrade}; COMMIT")
        return connection
    # On a read-only disk or in somebody else's folder nothing can be made beside the file.
    sealed = not os.access(database.parent, os.W_OK) and not _wal(database).exists()
    connection = _open(database, _IMMUTABLE if sealed else "mode=ro")
    for version in range(_version(connection), SCHEMA_VERSION):
        connection.execute(_UPGRADES[version][1])
    return connection


def acquire_lock(folder: Path) -> IO[str]:
    """The lock of the one writer. The kernel releases it when the process ends, however it ends."""
    lock = (folder / "writer.lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with lock:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
        raise WorkspaceError(
            f"{folder} is being written by another process (id {holder}); there can be one writer, readers are welcome"
        ) from None
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Turn errors of the operating system and of SQLite into a WorkspaceError: one sentence, the path, the reason."""
    try:
        yield
    except sqlite3.IntegrityError as error:
        raise WorkspaceError(f"the workspace {folder} does not accept this: {error}") from error
    except sqlite3.Error as error:
        failing = _primary_code(error) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
        raise WorkspaceError(_sentence(folder, failing, str(error))) from error
    except OSError as error:
        failing = error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO)
        raise WorkspaceError(_sentence(folder, failing, error.strerror or str(error))) from error


def _sentence(folder: Path, failing: bool, reason: str) -> str:
    if failing:
        return f"the disk under {folder} is full or failing ({reason}); what was saved before is intact"
    return f"cannot use the workspace {folder}: {reason}"


def _open(database: Path, options: str) -> sqlite3.Connection:
    uri = f"{database.absolute().as_uri()}?{options}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=30.0)


def _version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def _wal(database: Path) -> Path:
    return database.with_name(f"{database.name}-wal")


def _check(database: Path) -> str:
    """The first thing SQLite's quick check finds wrong, or "ok"."""
    live = _wal(database).exists()
    try:
        with closing(_open(database, "mode=ro" if live else _IMMUTABLE)) as connection:
            finding: str = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if not live and database.stat().st_size % connection.execute("PRAGMA page_size").fetchone()[0]:
                finding = "its end is cut off"  # the check takes the missing part of a page for zeros
    except sqlite3.DatabaseError as error:
        if _primary_code(error) not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise
        finding = str(error)
    if finding != "ok" and not live and _wal(database).exists():
        return _check(database)  # a writer began meanwhile, and what we took for immutable changed under us
    return finding


def _primary_code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
