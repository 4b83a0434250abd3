"""Stopped in whatever way, at whatever moment, an experiment resumes and ends with the same bits."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from groklab.store.workspace import Workspace

SPEC = """
name = "interrupted"
[task]
kind = "modular"
modulus = 23
[model]
kind = "transformer"
layers = 1
width = 32
heads = 2
[budget]
steps = 2000
batch_size = 128
stop = "never"
[seeds]
count = 1
[arms.adamw]
[arms.filtered]
optimizer = { kind = "adam", l2 = 1e-3 }
methods = [{ kind = "grokfast_ma", window = 20 }, "delayed_compression"]
"""


def command(spec: Path, workspace: Path, *more: str) -> list[str]:
    arguments = ["run", str(spec), "--no-report", "--workspace", str(workspace), *more]
    # Save after every chunk, and make chunks short, so that there is something to interrupt between.
    code = (
        "import sys; from groklab.engine import driver, ensemble; ensemble.CHUNK_SECONDS = 0.05;"
        "driver.SAVE_SECONDS = 0; driver.CHECKPOINT_SECONDS = 0.2;"
        f"from groklab.cli import main; sys.exit(main({arguments!r}))"
    )
    return [sys.executable, "-c", code]


def steps_stored(workspace: Path) -> list[int]:
    try:
        with Workspace.open(workspace, writable=False) as store:
            return [run.steps for e in store.experiments() for run in store.runs(e.id)]
    except (Exception, sqlite3.Error):  # not there yet
        return []


def interrupted(spec: Path, workspace: Path, how: int, arm: int, after: int) -> int:
    """Start the experiment, send it a signal once the given arm is beyond `after` steps, and return its exit code."""
    process = subprocess.Popen(command(spec, workspace), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 90
    while process.poll() is None and time.monotonic() < deadline:
        steps = steps_stored(workspace)
        if steps and steps[arm] > after:
            process.send_signal(how)
            break
        time.sleep(0.02)
    assert process.poll() is None or process.returncode != 0, "the run ended before it could be interrupted"
    process.communicate(timeout=60)
    return process.returncode


def everything(workspace: Path) -> dict[str, tuple]:
    with Workspace.open(workspace, writable=False) as store:
        (experiment,) = store.experiments()
        found = {}
        for run in store.runs(experiment.id):
            saved = store.checkpoint(run.id)
            assert saved is not None
            facts = (run.status, run.steps, run.t_memorised, run.t_grokked)
            found[run.id] = (*facts, store.curves(run.id), saved[1])
        return found


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("spec") / "interrupted.toml"
    path.write_text(SPEC)
    return path


@pytest.fixture(scope="module")
def uninterrupted(spec: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple]:
    workspace = tmp_path_factory.mktemp("uninterrupted")
    subprocess.run(command(spec, workspace), check=True, capture_output=True, timeout=120)
    return everything(workspace)


@pytest.mark.parametrize(
    ("how", "arm", "after"),
    [
        (signal.SIGKILL, 0, 100),
        (signal.SIGKILL, 1, 700),
        (signal.SIGTERM, 0, 900),
        (signal.SIGINT, 1, 300),
    ],
)
def test_resume_equals_uninterrupted(spec: Path, uninterrupted, tmp_path: Path, how: int, arm: int, after: int):
    code = interrupted(spec, tmp_path, how, arm, after)
    assert code == (-signal.SIGKILL if how == signal.SIGKILL else 130)
    with Workspace.open(tmp_path, writable=False) as store:
        (experiment,) = store.experiments()
    arguments = ["-m", "groklab.cli", "resume", "interrupted", "--no-report", "--workspace", str(tmp_path)]
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120, env=os.environ)
    assert done.returncode == 0, done.stderr
    resumed = everything(tmp_path)
    assert resumed.keys() == uninterrupted.keys()
    for run, (*facts, curves, parameters) in uninterrupted.items():
        *other_facts, other_curves, other_parameters = resumed[run]
        assert other_facts == facts
        assert other_curves.keys() == curves.keys()
        for name in curves:
            np.testing.assert_array_equal(other_curves[name], curves[name])
        assert other_parameters.keys() == parameters.keys()
        for name in parameters:
            np.testing.assert_array_equal(other_parameters[name], parameters[name])
    assert experiment.status in ("running", "interrupted")
