"""Laws of the export: every run and every evaluation is in it, with the same bits, and files appear whole."""

import csv
import os
import sys
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy
from safetensors import safe_open

from groklab.errors import GroklabError
from groklab.store.export import export
from groklab.store.workspace import Progress, Workspace

ID = "feed01"
STEPS = np.array([0, 10, 20], np.int32)
LOSS = np.array([0.1, np.nan, 1e-30], np.float32)
RANK = np.array([1 / 3, 2.0, -0.0])


def progress(arm: str, **extra) -> Progress:
    return Progress(
        run=f"{ID}/{arm}/0", status="running", steps=20,
        t_memorised=10, t_grokked=None, t_stable=None, t_collapsed=None,
        diverged_at=None,
        seconds=0.1, flops=1e12, curves={"loss": LOSS, "step": STEPS} | extra, checkpoint=None,
    )  # fmt: skip


@pytest.fixture
def workspace(tmp_path):
    with Workspace.open(tmp_path / "w", create=True) as opened:
        opened.add_experiment(ID, "named", {}, "", {}, [("a, b", 0), ("β/γ", 0), ("never started", 0)])
        opened.save([replace(progress("a, b"), checkpoint={"w": np.ones((2, 3), np.float32)})])
        opened.save([progress("β/γ", rank=RANK)])
        yield opened


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_csv_reads_back_to_the_same_floats(workspace, tmp_path):
    paths = export(workspace, ID, "csv", tmp_path / "deep" / "out")
    assert [p.name for p in paths] == [f"{ID}-curves.csv", f"{ID}-runs.csv"]
    rows = read(paths[0])
    assert list(rows[0]) == ["experiment", "arm", "seed", "step", "loss", "rank"]
    assert [row["arm"] for row in rows] == ["a, b"] * 3 + ["β/γ"] * 3
    assert [row["rank"] for row in rows[:3]] == [""] * 3
    np.testing.assert_array_equal(np.array([row["loss"] for row in rows[:3]], np.float32), LOSS)
    assert np.array([row["rank"] for row in rows[3:]], np.float64).tobytes() == RANK.tobytes()
    assert rows[0]["loss"] == "0.1"


def test_csv_runs_count_every_run(workspace, tmp_path):
    rows = read(export(workspace, ID, "csv", tmp_path)[1])
    assert [(row["arm"], row["status"], row["t_memorised"], row["t_grokked"]) for row in rows] == [
        ("a, b", "running", "10", ""),
        ("β/γ", "running", "10", ""),
        ("never started", "pending", "", ""),
    ]


def test_parquet_keeps_types_and_tells_missing_from_nan(workspace, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    curves, runs = (pq.read_table(path) for path in export(workspace, "named", "parquet", tmp_path))
    assert curves.column_names == ["experiment", "arm", "seed", "step", "loss", "rank"]
    assert [str(curves.schema.field(name).type) for name in ("step", "loss", "rank")] == ["int32", "float", "double"]
    assert curves["rank"].to_pylist() == [None] * 3 + RANK.tolist()
    assert curves["loss"].to_numpy().tobytes() == np.tile(LOSS, 2).tobytes()
    assert runs["t_memorised"].to_pylist() == [10, 10, None]
    assert str(runs.schema.field("t_grokked").type) == "int64"


def test_safetensors_has_curves_and_checkpoint_of_each_run(workspace, tmp_path):
    paths = export(workspace, ID, "safetensors", tmp_path / "out")
    assert len(set(paths)) == 3
    arrays = safetensors.numpy.load_file(paths[0])
    assert sorted(arrays) == ["checkpoint/w", "curves/loss", "curves/step"]
    assert arrays["curves/loss"].tobytes() == LOSS.tobytes()
    with safe_open(paths[0], framework="np") as content:
        assert content.metadata()["arm"] == "a, b"
        assert content.metadata()["checkpoint_step"] == "20"
    assert sorted(safetensors.numpy.load_file(paths[1])) == ["curves/loss", "curves/rank", "curves/step"]


@pytest.mark.parametrize("to", ["csv", "parquet", "safetensors"])
def test_an_experiment_without_runs_exports(workspace, tmp_path, to):
    workspace.add_experiment("bare", "bare", {}, "", {}, [])
    for path in export(workspace, "bare", to, tmp_path):
        assert path.stat().st_size


def test_wrong_input_is_a_sentence(workspace, tmp_path, monkeypatch):
    with pytest.raises(GroklabError, match="did you mean 'parquet'"):
        export(workspace, ID, "parket", tmp_path)
    with pytest.raises(GroklabError, match="no experiment"):
        export(workspace, "elsewhere", "csv", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(GroklabError, match="cannot export"):
        export(workspace, ID, "csv", tmp_path / "file")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(GroklabError, match=r"pip install 'groklab\[parquet\]'"):
        export(workspace, ID, "parquet", tmp_path)


def test_a_failed_export_leaves_the_earlier_file(workspace, tmp_path, monkeypatch):
    out = tmp_path / "out"
    path = export(workspace, ID, "csv", out)[0]
    before = path.read_bytes()
    monkeypatch.setattr(Workspace, "curves", lambda *_: {"step": STEPS, "loss": LOSS[:1]})
    with pytest.raises(ValueError, match="shorter"):
        export(workspace, ID, "csv", out)
    assert path.read_bytes() == before
    assert sorted(os.listdir(out)) == [f"{ID}-curves.csv", f"{ID}-runs.csv"]
