"""Take over what another workspace holds, so that runs split over several machines are read and judged in one.

A run belongs to one machine: it is taken whole or not at all, and one that has begun here stays as it is. Both have the
same id only if they have the same spec, which is what ids are made of.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from groklab.store.workspace import MILESTONES, ExperimentRow, Progress, RunRow, Workspace


class Taken(NamedTuple):
    """How many runs of an experiment were taken over, and how many had begun here and stay as they are."""

    experiment: str
    taken: int
    kept: int


def merge(store: Workspace, other: Workspace) -> list[Taken]:
    """Take over every run of `other` that has begun there and not here, oldest experiments first.

    One that is not finished comes with what it had at its checkpoint, and can be resumed. `other` is only read. Raises
    WorkspaceError; what was taken before stays.
    """
    return [_experiment(store, other, row) for row in reversed(other.experiments())]


def _experiment(store: Workspace, other: Workspace, row: ExperimentRow) -> Taken:
    theirs = other.runs(row.id)
    if not store.has_experiment(row.id):
        runs = [(run.arm, run.seed) for run in theirs]
        store.add_experiment(row.id, row.name, row.spec, row.spec_toml, row.versions, runs)
    begun = {run.id for run in store.runs(row.id) if run.status != "pending"}
    found = [progress for run in theirs if run.id not in begun and (progress := _progress(other, run))]
    for progress in found:
        store.save([progress])
    if found:
        made = ", ".join(f"{package} {version}" for package, version in row.versions.items())
        store.log(row.id, None, "merged", f"{len(found)} runs of {other.path}, made with {made}")
    done = all(run.finished for run in store.runs(row.id))
    store.set_status(row.id, "finished" if done else "interrupted")
    return Taken(row.id, len(found), len(begun))


def _progress(other: Workspace, run: RunRow) -> Progress | None:
    """The run as it stood at its end, else at its checkpoint; None if it has neither."""
    stored, curves = other.checkpoint(run.id), other.curves(run.id)
    names = ("status", "steps", *MILESTONES, "seconds", "flops", "message")
    whole = Progress(
        run=run.id,
        curves=curves,
        checkpoint=None if stored is None else stored[1],
        **{name: getattr(run, name) for name in names},
    )
    if run.finished:
        return whole
    if stored is None:
        return None
    step = stored[0]  # a checkpoint is of the state before its step is evaluated
    before = {name: values[curves["step"] < step] for name, values in curves.items()}
    reached = {name: None if (at := getattr(run, name)) is None or at >= step else at for name in MILESTONES}
    return replace(whole, steps=step, curves=before, message="", **reached)
