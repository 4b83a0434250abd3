"""Laws of the store: round trips bit for bit, nothing harmed by bad files, full disks, kills or a second writer."""

import os
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


def add(workspace: Workspace, id: str = E, name: str = "first", runs=(("plain", 0), ("plain", 1))) -> None:
    workspace.add_experiment(id, name, {"lr": 1e-3}, "lr = 0.001\n", {"jax": "0.10"}, list(runs))


def progress(
    steps: int, evaluated=(), run: str = RUN, checkpoint: bool | dict = True, status: str = "running"
) -> Progress:
    """A chunk that ended at `steps`; the arrays are functions of the step, so that a reader can check them."""
    at = np.array(evaluated, np.int32)
    arrays = {"w": np.full((3, 2), steps, np.float32), "key": np.array([steps, 7], np.uint32)}
    return Progress(
        run=run, status=status, steps=steps, t_memorised=None, t_grokked=None, t_stable=None, diverged_at=None,
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
    row = workspace.runs(E)[0]
    assert (row.status, row.steps, row.t_memorised, row.t_grokked, row.t_stable) == ("grokked", 50, 5, 40, 45)
    assert (row.diverged_at, row.seconds, row.flops, row.message, row.finished) == (None, 1.5, 2e12, "", True)


def test_a_run_without_curves_or_checkpoint_has_none(workspace):
    workspace.save([progress(10, checkpoint=False)])
    assert workspace.curves(RUN)["step"].tolist() == []
    assert workspace.checkpoint(RUN) is None
    for ask in (workspace.curves, workspace.checkpoint, workspace.rewind):
        with pytest.raises(WorkspaceError, match="no run 'x'"):
            ask("x")


def test_only_the_latest_checkpoint_of_each_run_stays(workspace):
    other = f"{E}/plain/1"
    for steps in (10, 20, 20, 30):  # twice at 20: saving again must not touch the valid file first
        workspace.save([progress(steps), progress(steps, run=other)])
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


def test_a_save_is_all_or_nothing(workspace):
    workspace.save([progress(10, [5, 10])])
    before = files(workspace), workspace.runs(E)
    with pytest.raises(WorkspaceError, match="no run"):
        workspace.save([progress(20, [15, 20]), progress(20, run="unknown")])
    with pytest.raises(WorkspaceError, match="up to step 10"):
        workspace.save([progress(20, [10, 20])])
    with pytest.raises(WorkspaceError, match="new ones cannot be"):
        workspace.save([replace(progress(20), curves={"step": np.array([20], np.int32)})])
    with pytest.raises(WorkspaceError, match="one length"):
        workspace.save([progress(20, [20, 15])])
    for strange in (np.zeros(2, np.complex64), np.zeros(2, ">f4"), np.array(["text"])):
        with pytest.raises(WorkspaceError, match="bool, int and float"):
            workspace.save([progress(20, run=f"{E}/plain/1"), progress(20, checkpoint={"w": strange})])
    with pytest.raises(ValueError, match="once per save"):
        workspace.save([progress(20), progress(20)])
    assert (files(workspace), workspace.runs(E)) == before
    assert workspace.curves(RUN)["step"].tolist() == [5, 10]


def checkpoint_file(workspace: Workspace) -> Path:
    return workspace.path / "checkpoints" / files(workspace)[0]


def flip_last_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("harm", "match"),
    [
        (flip_last_bit, "checksum"),
        (lambda p: p.write_bytes(p.read_bytes()[:-3]), "cannot be read"),
        (lambda p: p.write_bytes(b""), "cannot be read"),
        (lambda p: p.write_bytes(safetensors.numpy.save({"w": np.zeros(2)})), "is not that of"),
        (Path.unlink, "is missing"),
    ],
)
def test_a_bad_checkpoint_is_named_and_nothing_is_deleted(workspace, harm, match):
    workspace.save([progress(10, [5, 10])])
    workspace.save([progress(20, [15, 20], checkpoint=False)])
    path = checkpoint_file(workspace)
    harm(path)
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
    workspace.save([replace(progress(40, [35, 40], checkpoint=False), t_memorised=12, t_grokked=20)])
    rewound = workspace.rewind(RUN)
    assert rewound is not None
    step, arrays = rewound
    assert (step, arrays["w"][0, 0]) == (15, 15)
    curves = workspace.curves(RUN)
    assert curves["step"].tolist() == [5, 10, 12, 15]
    np.testing.assert_array_equal(curves["loss"], curves["step"].astype(np.float32) / 3)
    row = workspace.runs(E)[0]
    assert (row.steps, row.status, row.t_memorised, row.t_grokked) == (15, "running", 12, None)
    workspace.save([progress(30, [20, 30])])
    assert workspace.curves(RUN)["step"].tolist() == [5, 10, 12, 15, 20, 30]


def test_rewind_at_the_checkpoint_changes_nothing(workspace):
    workspace.save([replace(progress(10, [5, 10], status="grokked"), t_grokked=5)])
    before = workspace.runs(E)[0]
    assert workspace.rewind(RUN) is not None
    assert workspace.runs(E)[0] == before
    assert workspace.curves(RUN)["step"].tolist() == [5, 10]


def test_rewind_without_a_checkpoint_is_a_fresh_start(workspace):
    fresh = workspace.runs(E)[0]
    workspace.save([replace(progress(10, [0, 5, 10], checkpoint=False), t_memorised=0)])
    assert workspace.rewind(RUN) is None
    assert workspace.runs(E)[0] == fresh
    assert workspace.curves(RUN)["step"].size == 0


# Opening: what is refused is left as it is


def test_a_missing_workspace_says_how_to_make_one(tmp_path):
    for writable in (True, False):
        with pytest.raises(WorkspaceError, match="groklab run two-phase"):
            Workspace.open(tmp_path / "none", writable=writable)
    assert os.listdir(tmp_path) == []


def test_paths_that_cannot_be_a_workspace(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"x")
    with pytest.raises(WorkspaceError, match="is a file"):
        Workspace.open(file, create=True)
    with pytest.raises(WorkspaceError, match="Not a directory"):
        Workspace.open(file / "below", create=True)
    with pytest.raises(WorkspaceError, match="too long"):
        Workspace.open(tmp_path / ("x" * 300), create=True)
    (tmp_path / "w" / "groklab.sqlite").mkdir(parents=True)
    with pytest.raises(WorkspaceError, match="Is a directory"):
        Workspace.open(tmp_path / "w", create=True)
    assert file.read_bytes() == b"x"


def not_sqlite(path: Path) -> None:
    path.write_bytes(b"A diary, not a database. " * 400)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def truncated(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def cut_inside_a_page(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def scrambled(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:12288] = os.urandom(8192)
    path.write_bytes(data)


def foreign(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as db:
        db.executescript("PRAGMA journal_mode = WAL; CREATE TABLE photos (id); INSERT INTO photos VALUES (1);")


def newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")


@pytest.mark.parametrize(
    ("harm", "match"),
    [
        (not_sqlite, "not a SQLite database"), (empty, "not a SQLite database"), (truncated, "damaged"),
        (cut_inside_a_page, "damaged"), (scrambled, "damaged"), (foreign, "another program"), (newer, "version 99"),
    ],
)  # fmt: skip
def test_a_bad_database_is_refused_and_untouched(tmp_path, harm, match):
    folder = tmp_path / "w"
    with Workspace.open(folder, create=True) as workspace:
        add(workspace)
        for i in range(1, 20):
            workspace.save([progress(i, [i])])
    harm(folder / "groklab.sqlite")
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
    assert int.from_bytes(header[60:64], "big") == 1
    assert workspace._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert workspace._db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


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


WRITE_FOR_EVER = """
    with Workspace.open(sys.argv[1]) as w:
        start = max(r.steps for r in w.runs(E))
        for run in w.runs(E):
            w.rewind(run.id)
        print("ready", flush=True)
        for steps in range(start + 1, 10**6):
            w.save([progress(steps, [steps]), progress(steps, [steps], run=f"{E}/plain/1")])
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
                assert workspace.curves(row.id)["step"].tolist() == list(range(1, reached + 1))
    assert reached > 8
    with Workspace.open(tmp_path) as workspace:
        workspace.save([progress(reached + 1), progress(reached + 1, run=f"{E}/plain/1")])
        assert len(files(workspace)) == 2  # the remains of the killed writers are gone


def test_a_full_disk_is_said_and_what_was_committed_stays(tmp_path):
    with Workspace.open(tmp_path, create=True) as workspace:
        add(workspace)
        workspace.save([progress(10, [10])])
        before = files(workspace)
    # The kernel refuses files beyond a size as a full disk would. A large checkpoint meets it in its own file, large
    # curves in the WAL; after each refusal, and with the limit lifted, the workspace works on.
    code = """
        import resource

        def limit(size):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        wide = np.random.default_rng(0).random(10**6).astype(np.float32)
        with Workspace.open(sys.argv[1]) as w:
            for large in (
                progress(20, [20], checkpoint={"w": wide}),
                replace(progress(20), curves={"step": np.arange(11, 10**6, dtype=np.int32), "loss": wide[11:]}),
            ):
                limit(400_000)
                try:
                    w.save([progress(20, [20], run=f"{E}/plain/1"), large])
                    print("saved")
                except WorkspaceError as error:
                    print(error)
                print(w.runs(E)[0].steps, w.curves(RUN)["step"].tolist(), w.checkpoint(RUN)[0], w.runs(E)[1].steps)
                print(files(w))
                limit(resource.RLIM_INFINITY)
            w.save([progress(30, [30])])
            print(w.checkpoint(RUN)[0])
    """
    with run_python(code, tmp_path) as process:
        out, err = process.communicate(timeout=60)
    lines = out.splitlines()
    assert not err, err
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
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
        try:
            Workspace.open(sys.argv[1], create=True)
        except WorkspaceError as error:
            print(error)
    """
    with run_python(code, tmp_path / "w") as process:
        out, err = process.communicate(timeout=60)
    assert "full" in out, err
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
        with run_python(code, folder, prefix=powerless) as process:
            out, err = process.communicate(timeout=60)
    finally:
        folder.chmod(0o755)
    read, refused = out.splitlines() or pytest.fail(err)
    assert read == "[10]"
    assert "not writable" in refused
    assert str(folder) in refused
    assert contents(folder) == before
