"""Laws of the store: round trips bit for bit, nothing harmed by bad files, full disks, kills or a second writer."""

import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from groklab.errors import WorkspaceError
from groklab.store.workspace import Progress, Workspace

E = "a1b2c3"
RUN = f"{E}/plain/0"
OTHER = f"{E}/plain/1"


def add(workspace: Workspace, id: str = E, name: str = "first", runs=(("plain", 0), ("plain", 1))) -> None:
    workspace.add_experiment(id, name, {"lr": 1e-3}, "lr = 0.001\n", {"jax": "0.10"}, list(runs))


def progress(
    steps: int, evaluated=(), run: str = RUN, checkpoint: bool | dict = True, status: str = "running"
) -> Progress:
    """A chunk that ended at `steps`; the arrays are functions of the step, so that a reader can check them."""
    at = np.array(evaluated, np.int32)
    arrays = {"w": np.full((3, 2), steps, np.float32), "key": np.array([steps, 7], np.uint32)}
    return Progress(
        run=run, status=status, steps=steps, t_memorised=None, t_grokked=None, t_stable=None, t_collapsed=None,
        diverged_at=None,
        seconds=steps / 10, flops=steps * 1e9, curves={"step": at, "loss": at.astype(np.float32) / 3},
        checkpoint=arrays if checkpoint is True else checkpoint or None,
    )  # fmt: skip


@pytest.fixture
def workspace(tmp_path):
    with Workspace.open(tmp_path / "w", create=True) as opened:
        add(opened)
        yield opened


def stored(workspace: Workspace, run: str = RUN) -> tuple[int, dict[str, np.ndarray]]:
    """The checkpoint of a run that must have one."""
    found = workspace.checkpoint(run)
    assert found is not None
    return found


def files(workspace: Workspace) -> list[str]:
    return sorted(os.listdir(workspace.path / "checkpoints"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# Experiments and runs


def test_an_experiment_comes_back_as_it_was_added(workspace):
    row = workspace.experiment(E)
    assert (row.id, row.name, row.spec, row.spec_toml) == (E, "first", {"lr": 1e-3}, "lr = 0.001\n")
    assert (row.versions, row.status) == ({"jax": "0.10"}, "running")
    assert row.created.endswith("+00:00")
    assert workspace.has_experiment(E)
    assert not workspace.has_experiment(E[:3])


def test_runs_keep_the_order_of_arms_then_seeds(workspace):
    add(workspace, "b", runs=[("zeta", 2), ("zeta", 10), ("alpha", 10), ("alpha", 2)])
    rows = workspace.runs("b")
    assert [(r.arm, r.seed) for r in rows] == [("zeta", 2), ("zeta", 10), ("alpha", 2), ("alpha", 10)]
    assert rows[0].id == "b/zeta/2"
    assert (rows[0].status, rows[0].steps, rows[0].finished) == ("pending", 0, False)
    assert workspace.runs("nowhere") == []


def test_lookup_by_id_prefix_and_name(workspace):
    add(workspace, "a1ffff", "second")
    add(workspace, "c0ffee", "first")
    assert workspace.experiment("a1b").id == E
    assert workspace.experiment("first").id == "c0ffee"  # of two with one name the newest
    assert [row.id for row in workspace.experiments()] == ["c0ffee", "a1ffff", E]
    with pytest.raises(WorkspaceError, match=r"'a1' begins several ids: a1b2c3, a1ffff"):
        workspace.experiment("a1")
    with pytest.raises(WorkspaceError, match="did you mean 'second'"):
        workspace.experiment("secnd")
    with pytest.raises(WorkspaceError, match="no experiment ''"):
        workspace.experiment("")


def test_status_and_events(workspace):
    workspace.set_status(E, "finished")
    assert workspace.experiment(E).status == "finished"
    workspace.log(E, RUN, "grokked", "at step 10")
    workspace.log(E, None, "stopped", "by the user")
    assert [(e.run, e.kind, e.text) for e in workspace.events(E)] == [
        (RUN, "grokked", "at step 10"),
        (None, "stopped", "by the user"),
    ]
    with pytest.raises(WorkspaceError, match="does not accept"):
        workspace.set_status(E, "asleep")
    with pytest.raises(WorkspaceError, match="did you mean 'a1b2c3'"):
        workspace.set_status("a1b2c4", "finished")
    with pytest.raises(WorkspaceError, match="does not accept"):
        workspace.log("nowhere", None, "x", "y")


def test_an_experiment_is_added_once_and_whole(workspace):
    with pytest.raises(WorkspaceError, match="already"):
        add(workspace)
    with pytest.raises(WorkspaceError, match="does not accept"):
        add(workspace, "b", runs=[("plain", 0), ("plain", 0)])
    assert not workspace.has_experiment("b")


# Curves and checkpoints


def test_curves_and_checkpoints_keep_every_bit(workspace):
    odd = np.array([0x7FC00001, 0xFFC12345, 0x80000000, 1], np.uint32).view(np.float32)  # NaN payloads, -0, subnormal
    kinds = {
        "odd": odd, "double": np.array([np.pi, np.nan, -0.0, 5e-324]), "flag": np.array([True, False, True, True]),
        "count": np.array([1, -2, 2**62, 0]),
    }  # fmt: skip
    steps = np.array([0, 10, 20, 30], np.int32)
    state = kinds | {
        "empty": np.empty((0, 3), np.float32), "scalar": np.array(3, np.int32), "key": np.array([1, 2], np.uint32),
        "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T, "half": np.array([1.5], np.float16),
    }  # fmt: skip
    for part in (slice(0, 1), slice(1, 4)):
        curves = {"step": steps[part]} | {name: values[part] for name, values in kinds.items()}
        workspace.save([replace(progress(int(steps[part][-1])), curves=curves, checkpoint=state)])
    for got, expected in ((workspace.curves(RUN), {"step": steps} | kinds), (stored(workspace)[1], state)):
        assert got.keys() == expected.keys()
        for name, values in expected.items():
            assert (got[name].dtype, got[name].shape) == (values.dtype, values.shape)
            assert got[name].tobytes() == values.tobytes()


def test_progress_reaches_the_run_row(workspace):
    workspace.save(
        [replace(progress(50, status="grokked"), t_memorised=5, t_grokked=40, t_stable=45, seconds=1.5, flops=2e12)]
    )
    row, untouched = workspace.runs(E)
    assert (row.status, row.steps, row.t_memorised, row.t_grokked, row.t_stable) == ("grokked", 50, 5, 40, 45)
    assert (row.diverged_at, row.seconds, row.flops, row.message, row.finished) == (None, 1.5, 2e12, "", True)
    workspace.save([replace(progress(7, run=untouched.id, status="diverged"), diverged_at=7, message="loss is NaN")])
    row = workspace.runs(E)[1]
    assert (row.status, row.diverged_at, row.message, row.finished) == ("diverged", 7, "loss is NaN", True)


def test_a_run_without_curves_or_checkpoint_has_none(workspace):
    workspace.save([progress(10, checkpoint=False)])
    assert workspace.curves(RUN)["step"].tolist() == []
    assert workspace.checkpoint(RUN) is None
    for ask in (workspace.curves, workspace.checkpoint, workspace.rewind):
        with pytest.raises(WorkspaceError, match="no run 'x'"):
            ask("x")


def test_only_the_latest_checkpoint_of_each_run_stays(workspace):
    for steps in (10, 20, 20, 30):  # twice at 20: saving again must not touch the valid file first
        workspace.save([progress(steps), progress(steps, run=OTHER)])
        assert stored(workspace)[0] == steps
    workspace.save([progress(40, checkpoint=False)])
    assert stored(workspace)[0] == 30
    assert len(files(workspace)) == 2


def test_files_nobody_asked_about_stay(workspace):
    foreign = workspace.path / "checkpoints" / "mine-10.safetensors"
    foreign.write_bytes(b"mine")
    workspace.save([progress(10)])
    assert foreign.read_bytes() == b"mine"


def test_arm_names_with_odd_characters_make_safe_distinct_files(workspace):
    arms = ["../../etc", "a/b", "a_b", "λ = 1e-3", "x" * 300, ".hidden", "A_B"]
    add(workspace, "odd", runs=[(arm, 0) for arm in arms])
    workspace.save([progress(i + 1, run=f"odd/{arm}/0") for i, arm in enumerate(arms)])
    assert len({name.lower() for name in files(workspace)}) == len(arms)
    for i, arm in enumerate(arms):
        assert stored(workspace, f"odd/{arm}/0")[0] == i + 1


@pytest.mark.parametrize(
    ("refused", "match"),
    [
        (progress(20, run="unknown"), "no run"),
        (progress(20, [10, 20]), "up to step 10"),
        (progress(20, [20, 15]), "one length"),
        (replace(progress(20), curves={"step": np.array([20], np.int32)}), "new ones cannot be"),
        (progress(20, status="asleep"), "does not accept"),
        (progress(20, checkpoint={"w": np.zeros(2, np.complex64)}), "bool, int and float"),
        (progress(20, checkpoint={"w": np.zeros(2, ">f4")}), "bool, int and float"),
        (progress(20, checkpoint={"w": np.array(["text"])}), "bool, int and float"),
        (progress(20, run=OTHER), "once per save"),
    ],
)  # fmt: skip
def test_a_save_is_all_or_nothing(workspace, refused, match):
    workspace.save([progress(10, [5, 10])])
    before = files(workspace), workspace.runs(E)
    with pytest.raises((WorkspaceError, ValueError), match=match):
        workspace.save([progress(20, run=OTHER), refused])
    assert (files(workspace), workspace.runs(E)) == before
    assert workspace.curves(RUN)["step"].tolist() == [5, 10]


@pytest.mark.parametrize(
    ("harm", "match"),
    [
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "checksum"),
        (lambda data: data[:-3], "cannot be read"),
        (lambda data: b"", "cannot be read"),
        (lambda data: safetensors.numpy.save({"w": np.zeros(2)}), "is not that of"),
        (None, "is missing"),
    ],
    ids=["flipped bit", "truncated", "empty", "another file", "deleted"],
)
def test_a_bad_checkpoint_is_named_and_nothing_is_deleted(workspace, harm, match):
    workspace.save([progress(10, [5, 10])])
    workspace.save([progress(20, [15, 20], checkpoint=False)])
    path = workspace.path / "checkpoints" / files(workspace)[0]
    if harm is None:
        path.unlink()
    else:
        path.write_bytes(harm(path.read_bytes()))
    before = contents(workspace.path / "checkpoints")
    for ask in (workspace.checkpoint, workspace.rewind):
        with pytest.raises(WorkspaceError, match=match) as caught:
            ask(RUN)
        assert str(path) in str(caught.value)
    assert contents(workspace.path / "checkpoints") == before
    assert workspace.curves(RUN)["step"].tolist() == [5, 10, 15, 20]
    assert workspace.runs(E)[0].steps == 20


def test_rewind_goes_back_to_the_checkpoint_and_splits_a_straddling_block(workspace):
    workspace.save([progress(10, [5, 10])])
    workspace.save([progress(15)])  # the checkpoint at 15 lies inside the next block
    later = progress(30, [12, 15, 20, 30], checkpoint=False, status="grokked")
    workspace.save([replace(later, t_memorised=12, t_grokked=20)])
    last = progress(40, [35, 40], checkpoint=False)
    workspace.save([replace(last, t_memorised=12, t_grokked=20, seconds=4.5, message="at 20")])
    rewound = workspace.rewind(RUN)
    assert rewound is not None
    assert (rewound[0], rewound[1]["w"][0, 0]) == (15, 15)
    curves = workspace.curves(RUN)
    assert curves["step"].tolist() == [5, 10, 12]
    np.testing.assert_array_equal(curves["loss"], curves["step"].astype(np.float32) / 3)
    row = workspace.runs(E)[0]
    assert (row.steps, row.status, row.t_memorised, row.t_grokked) == (15, "running", 12, None)
    assert (row.seconds, row.message) == (4.5, "")  # the time was spent, whatever became of the steps
    workspace.save([progress(30, [15, 20])])
    assert workspace.curves(RUN)["step"].tolist() == [5, 10, 12, 15, 20]


def test_rewind_at_the_checkpoint_changes_nothing(workspace):
    workspace.save([replace(progress(10, [0, 5], status="running"), t_grokked=5)])
    before = workspace.runs(E)[0]
    assert workspace.rewind(RUN) is not None
    assert workspace.runs(E)[0] == before
    assert workspace.curves(RUN)["step"].tolist() == [0, 5]


def test_rewind_without_a_checkpoint_is_a_fresh_start(workspace):
    fresh = workspace.runs(E)[0]
    workspace.save([replace(progress(10, [0, 5, 10], checkpoint=False), t_memorised=0, message="x")])
    assert workspace.rewind(RUN) is None
    assert workspace.runs(E)[0] == fresh
    assert workspace.curves(RUN)["step"].size == 0


# Opening: what is refused is left as it is


def test_a_missing_workspace_says_how_to_make_one(tmp_path):
    for writable in (True, False):
        with pytest.raises(WorkspaceError, match="groklab run two-phase"):
            Workspace.open(tmp_path / "none", writable=writable)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("path", "match"),
    [("file", "is a file"), ("file/below", "Not a directory"), ("x" * 300, "too long"), ("odd", "Is a directory")],
)
def test_a_path_that_cannot_be_a_workspace_is_refused(tmp_path, path, match):
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "odd" / "groklab.sqlite").mkdir(parents=True)
    with pytest.raises(WorkspaceError, match=match):
        Workspace.open(tmp_path / path, create=True)
    assert contents(tmp_path) == {"file": b"x"}


@pytest.mark.parametrize(
    ("harm", "match"),
    [
        (lambda data: b"A diary, not a database. " * 400, "not a SQLite database"),
        (lambda data: b"", "not a SQLite database"),
        (lambda data: data[: len(data) // 2], "damaged"),
        (lambda data: data[:-1000], "damaged"),
        (lambda data: data[:4096] + b"\xa5" * 8192 + data[12288:], "damaged"),
        (lambda data: data[:60] + (99).to_bytes(4, "big") + data[64:], "version 99"),
        (lambda data: data[:68] + bytes(4) + data[72:], "another program"),
    ],
    ids=["no database", "empty", "truncated", "cut inside a page", "scrambled", "newer", "foreign"],
)
def test_a_bad_database_is_refused_and_untouched(tmp_path, harm, match):
    folder = tmp_path / "w"
    with Workspace.open(folder, create=True) as workspace:
        add(workspace)
        for i in range(1, 20):
            workspace.save([progress(i, [i])])
    database = folder / "groklab.sqlite"
    database.write_bytes(harm(database.read_bytes()))
    (folder / "writer.lock").unlink()
    before = contents(folder)
    assert not any(name.endswith(("-wal", "-shm")) for name in before)
    for options in ({"writable": True}, {"writable": False}, {"create": True}):
        with pytest.raises(WorkspaceError, match=match):
            Workspace.open(folder, **options)
    assert contents(folder) == before


def test_schema_constants_stand_in_the_header(workspace):
    header = (workspace.path / "groklab.sqlite").read_bytes()[:100]
    assert header[68:72] == b"GROK"
    assert int.from_bytes(header[60:64], "big") == 2
    assert workspace._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert workspace._db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


def test_a_workspace_of_the_first_layout_is_read_and_brought_up_to_date(tmp_path):
    """Version 1 had no column t_collapsed. A reader changes nothing, a writer adds it, and no value is lost."""
    with Workspace.open(tmp_path, create=True) as workspace:
        add(workspace)
        workspace.save([replace(progress(50, status="grokked"), t_grokked=40)])
    database = tmp_path / "groklab.sqlite"
    with closing(sqlite3.connect(database)) as connection:
        connection.executescript("ALTER TABLE runs DROP COLUMN t_collapsed; PRAGMA user_version = 1")
    before = database.read_bytes()
    for writable in (False, True):
        with Workspace.open(tmp_path, writable=writable) as workspace:
            row = next(row for row in workspace.runs(E) if row.status == "grokked")
            assert (row.steps, row.t_grokked, row.t_collapsed) == (50, 40, None)
        if not writable:
            assert database.read_bytes() == before
    with Workspace.open(tmp_path) as workspace:
        workspace.save([replace(progress(60, status="grokked"), t_collapsed=55)])
        assert next(row for row in workspace.runs(E) if row.status == "grokked").t_collapsed == 55


def test_a_workspace_opens_again_with_all_it_held(tmp_path):
    with Workspace.open(tmp_path, create=True) as workspace:
        add(workspace)
        workspace.save([progress(10, [5, 10])])
        workspace.close()  # closing twice is harmless
    for options in ({"create": True}, {"create": False}, {"writable": False}):
        with Workspace.open(tmp_path, **options) as workspace:
            assert workspace.curves(RUN)["step"].tolist() == [5, 10]


# One writer, any number of readers


def test_a_second_writer_is_refused_and_a_reader_is_not(workspace):
    with pytest.raises(WorkspaceError, match=f"another process .id {os.getpid()}.*readers are welcome"):
        Workspace.open(workspace.path)
    with Workspace.open(workspace.path, writable=False) as reader:
        assert reader.has_experiment(E)
    workspace.save([progress(10)])
    workspace.close()
    Workspace.open(workspace.path).close()


def test_a_reader_sees_each_commit_and_cannot_write(workspace):
    with Workspace.open(workspace.path, writable=False) as reader:
        for steps in (10, 20, 30):
            workspace.save([progress(steps, [steps])])
            assert reader.runs(E)[0].steps == steps
            assert stored(reader)[0] == steps
            assert reader.curves(RUN)["step"][-1] == steps
        for write in (lambda: reader.save([]), lambda: reader.set_status(E, "finished"), lambda: reader.rewind(RUN)):
            with pytest.raises(WorkspaceError, match="reading only"):
                write()


def run_python(code: str, *arguments: object, prefix: Sequence[str] = ()) -> subprocess.Popen:
    """A Python process that has this module's helpers at hand."""
    preamble = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\nfrom test_workspace import *\n"
    return subprocess.Popen(
        [*prefix, sys.executable, "-c", preamble + textwrap.dedent(code), *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def lines_of(process: subprocess.Popen) -> list[str]:
    """What a process prints until it ends, which must be without an error."""
    with process:
        out, err = process.communicate(timeout=60)
    assert not err, err
    return out.splitlines()


def limit_files(size: int) -> None:
    """Let the kernel refuse this process files beyond `size` bytes, as a full disk would."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


WRITE_FOR_EVER = """
    with Workspace.open(sys.argv[1]) as w:
        start = max(r.steps for r in w.runs(E))
        for run in w.runs(E):
            w.rewind(run.id)
        print("ready", flush=True)
        for steps in range(start + 1, 10**6):
            w.save([progress(steps, [steps - 1]), progress(steps, [steps - 1], run=OTHER)])
"""


def test_a_reader_stays_consistent_while_another_process_writes(tmp_path):
    with Workspace.open(tmp_path, create=True) as workspace:
        add(workspace)
    with run_python(WRITE_FOR_EVER, tmp_path) as writer:
        assert writer.stdout is not None
        try:
            assert writer.stdout.readline() == "ready\n", writer.communicate()
            with Workspace.open(tmp_path, writable=False) as reader:
                seen, deadline = 0, time.monotonic() + 10
                while seen < 50 and time.monotonic() < deadline:
                    found = reader.checkpoint(RUN)  # never missing, though the writer deletes files all the time
                    if found is not None:
                        assert found[0] >= seen
                        assert np.all(found[1]["w"] == found[0])
                        seen = found[0]
            assert seen >= 50
        finally:
            writer.kill()


def test_killing_the_writer_at_any_moment_leaves_a_consistent_workspace(tmp_path):
    with Workspace.open(tmp_path, create=True) as workspace:
        add(workspace)
    random = np.random.default_rng(0)
    reached = 0
    for _ in range(8):
        with run_python(WRITE_FOR_EVER, tmp_path) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n", writer.communicate()
            time.sleep(random.uniform(0.005, 0.15))
            writer.send_signal(signal.SIGKILL)
        with Workspace.open(tmp_path) as workspace:  # the kernel has released the lock
            rows = workspace.runs(E)
            assert rows[0].steps == rows[1].steps >= reached
            reached = rows[0].steps
            for row in rows if reached else ():
                step, arrays = stored(workspace, row.id)
                assert step == reached
                assert np.all(arrays["w"] == step)
                assert workspace.curves(row.id)["step"].tolist() == list(range(reached))
    assert reached > 8
    with Workspace.open(tmp_path) as workspace:
        workspace.save([progress(reached + 1), progress(reached + 1, run=OTHER)])
        assert len(files(workspace)) == 2  # the remains of the killed writers are gone


def test_a_full_disk_is_said_and_what_was_committed_stays(tmp_path):
    with Workspace.open(tmp_path, create=True) as workspace:
        add(workspace)
        workspace.save([progress(10, [10])])
        before = files(workspace)
    # A large checkpoint meets the limit in its own file, large curves in the WAL. After each the workspace works on.
    code = """
        wide = np.random.default_rng(0).random(10**6).astype(np.float32)
        with Workspace.open(sys.argv[1]) as w:
            for large in (
                progress(20, [20], checkpoint={"w": wide}),
                replace(progress(20), curves={"step": np.arange(11, 10**6, dtype=np.int32), "loss": wide[11:]}),
            ):
                limit_files(400_000)
                try:
                    w.save([progress(20, run=OTHER), large])
                    print("saved")
                except WorkspaceError as error:
                    print(error)
                print(w.runs(E)[0].steps, w.curves(RUN)["step"].tolist(), w.checkpoint(RUN)[0], w.runs(E)[1].steps)
                print(files(w))
                limit_files(resource.RLIM_INFINITY)
            w.save([progress(30, [30])])
            print(w.checkpoint(RUN)[0])
    """
    lines = lines_of(run_python(code, tmp_path))
    for said, state, listing in (lines[:3], lines[3:6]):
        assert "full" in said
        assert str(tmp_path) in said
        assert state == "10 [10] 10 0"
        assert listing == str(before)
    assert lines[6] == "30"
    with Workspace.open(tmp_path, writable=False) as workspace:
        assert workspace.curves(RUN)["step"].tolist() == [10, 30]


def test_a_full_disk_while_creating_leaves_no_half_database(tmp_path):
    code = """
        limit_files(10_000)
        try:
            Workspace.open(sys.argv[1], create=True)
        except WorkspaceError as error:
            print(error)
    """
    (said,) = lines_of(run_python(code, tmp_path / "w"))
    assert "full" in said
    assert [name for name in os.listdir(tmp_path / "w") if "sqlite" in name] == []
    Workspace.open(tmp_path / "w", create=True).close()


def test_a_copied_workspace_opens_with_its_wal(workspace, tmp_path):
    workspace.save([progress(10, [10])])
    shutil.copytree(workspace.path, tmp_path / "copy", ignore=shutil.ignore_patterns("*-shm"))
    for writable in (False, True):
        with Workspace.open(tmp_path / "copy", writable=writable) as copy:
            assert copy.curves(RUN)["step"].tolist() == [10]


@pytest.mark.skipif(os.geteuid() == 0 and shutil.which("setpriv") is None, reason="root may write anywhere")
def test_a_folder_without_permission_to_write_can_be_read(tmp_path):
    folder = tmp_path / "w"
    with Workspace.open(folder, create=True) as workspace:
        add(workspace)
        workspace.save([progress(10, [10])])
    code = """
        with Workspace.open(sys.argv[1], writable=False) as w:
            print(w.curves(RUN)["step"].tolist())
        try:
            Workspace.open(sys.argv[1])
        except WorkspaceError as error:
            print(error)
    """
    before = contents(folder)
    folder.chmod(0o555)
    # Root ignores permissions by a capability, so as root the process runs without capabilities.
    powerless = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    try:
        read, refused = lines_of(run_python(code, folder, prefix=powerless))
    finally:
        folder.chmod(0o755)
    assert read == "[10]"
    assert "not writable" in refused
    assert str(folder) in refused
    assert contents(folder) == before
