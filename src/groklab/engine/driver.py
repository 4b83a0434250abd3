"""Drives an experiment: which run trains when, what is stored when, and what happens when someone says stop.

Between chunks the host saves curves (every second or so), checkpoints (every few seconds, and whenever a run ends or is
interrupted) and tells the listener. A run that was cut off continues from its last checkpoint, with the same bits.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import jax
import numpy as np

from groklab.engine import checkpoint
from groklab.engine.ensemble import (
    MACHINE_DECIDES,
    Device,
    Ensemble,
    Plan,
    Sharing,
    empty_model,
    empty_run,
    flops_per_step,
    prepare_jax,
)
from groklab.engine.loop import Curves, Program, State
from groklab.experiment import Experiment
from groklab.store.workspace import Progress, RunRow, Workspace

SAVE_SECONDS, CHECKPOINT_SECONDS = 1.0, 5.0


class Listener(Protocol):
    """Who is told how the runs are doing."""

    def start(self, runs: Sequence[tuple[str, str, int]]) -> None: ...

    def update(
        self,
        run_id: str,
        *,
        step: int,
        train_accuracy: float,
        held_out_accuracy: float,
        status: str,
        steps_per_second: float,
    ) -> None: ...


def train(
    experiment: Experiment,
    id: str,
    workspace: Workspace,
    listener: Listener,
    stop: threading.Event,
    sharing: Sharing = MACHINE_DECIDES,
) -> bool:
    """Train every unfinished run of the stored experiment `id`. Returns False if `stop` was set before all were done.

    One worker a device; on a CPU every core is a device, because two networks on a core each get further than
    one network on two. Runs whose arms differ only in traced numbers share one program and may also train
    side by side on a device.
    """
    prepare_jax()
    listener = _OneAtATime(listener)
    rows = workspace.runs(id)
    listener.start([(row.id, row.arm, row.seed) for row in rows])
    for row in rows:
        if row.finished:
            _tell_stored(workspace, listener, row)
    queue = _Queue(experiment, rows)

    def work(device: Device) -> None:
        try:
            while not stop.is_set() and (program := queue.next_program(stop)) is not None:
                plan = Plan.choose(device, queue.size_of[program], sharing).fitted(program)
                while (crew := _Crew(experiment, program, plan, workspace, listener)).train(queue, stop) == "too many":
                    runs = {row.id: row for row in workspace.runs(id)}  # as they were last saved
                    queue.put_back(program, [runs[member.row.id] for member in crew.members if member is not None])
                    plan = replace(plan, width=plan.width // 2)
        except BaseException:
            stop.set()  # the other workers save what they have and end
            raise

    workspace.set_status(id, "running")
    devices = jax.local_devices()[: sharing.workers]
    with ThreadPoolExecutor(len(devices)) as pool:
        for worker in [pool.submit(work, device) for device in devices[: max(1, len(rows))]]:
            worker.result()
    done = all(row.finished for row in workspace.runs(id))
    workspace.set_status(id, "finished" if done else "interrupted")
    return done


class _Queue:
    """Runs that wait, by program; workers take from it, preferring the program they have compiled already.

    Programs of later arms come first: the first arm is the baseline that the others are meant to beat, so first results
    come sooner that way. A run that starts from another one's parameters waits until that has ended.
    """

    def __init__(self, experiment: Experiment, rows: Sequence[RunRow]):
        self._changed = threading.Condition()
        self._waiting: dict[Program, deque[RunRow]] = {}
        self._ended = {(row.arm, row.seed) for row in rows if row.finished}
        for arm, recipe in [*list(experiment.arms.items())[1:], *list(experiment.arms.items())[:1]]:
            runs = [row for row in rows if row.arm == arm and not row.finished]
            if runs:
                self._waiting.setdefault(Program.of(experiment, recipe), deque()).extend(runs)
        self._sources = {arm: {s.arm for s in recipe.sources} for arm, recipe in experiment.arms.items()}
        self.size_of = {program: len(runs) for program, runs in self._waiting.items()}
        self._taken_by: dict[Program, int] = dict.fromkeys(self._waiting, 0)

    def next_program(self, stop: threading.Event) -> Program | None:
        """The program with a run that may start which the fewest workers have taken up; None if nothing waits.

        Where all that wait have to wait for others, so does the caller, until `stop` is set.
        """
        with self._changed:
            while not stop.is_set() and any(self._waiting.values()):
                ready = [program for program, runs in self._waiting.items() if any(map(self._may_start, runs))]
                if ready:
                    chosen = min(ready, key=lambda program: self._taken_by[program])
                    self._taken_by[chosen] += 1
                    return chosen
                self._changed.wait(timeout=0.2)
        return None

    def take(self, program: Program) -> RunRow | None:
        """The next run of this program that may start."""
        with self._changed:
            runs = self._waiting[program]
            row = next(filter(self._may_start, runs), None)
            if row is not None:
                runs.remove(row)
            return row

    def put_back(self, program: Program, rows: Sequence[RunRow]) -> None:
        """Let runs that were taken wait again, first in line."""
        with self._changed:
            self._waiting[program].extendleft(reversed(rows))

    def ended(self, row: RunRow) -> None:
        """Tell that a run has ended, and been saved."""
        with self._changed:
            self._ended.add((row.arm, row.seed))
            self._changed.notify_all()

    def _may_start(self, row: RunRow) -> bool:
        return all((arm, row.seed) in self._ended for arm in self._sources[row.arm])


class _OneAtATime:
    """A listener that several workers may speak to."""

    def __init__(self, listener: Listener):
        self._listener, self._lock = listener, threading.Lock()

    def start(self, runs: Sequence[tuple[str, str, int]]) -> None:
        with self._lock:
            self._listener.start(runs)

    def update(self, run_id: str, **now: Any) -> None:
        with self._lock:
            self._listener.update(run_id, **now)


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C or SIGTERM sets, so that a run can end at the next chunk.

    A second signal acts at once.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    previous: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def request(number: int, frame: object) -> None:
        stop.set()
        signal.signal(number, previous[number])

    for number in previous:
        signal.signal(number, request)
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class _NothingToStartFromError(Exception):
    """The run of another arm from which a run is to start never came to the moment in question."""


@dataclass
class _Member:
    """A run in a place of the ensemble, with what is not yet saved of it."""

    row: RunRow
    step: int
    seconds: float
    blocks: list[dict[str, np.ndarray]] = field(default_factory=list)
    status: str = "running"


class _Crew:
    """Trains the runs of one program, as many at a time as the plan has places."""

    def __init__(self, experiment: Experiment, program: Program, plan: Plan, workspace: Workspace, listener: Listener):
        self.experiment, self.program, self.workspace, self.listener = experiment, program, workspace, listener
        self.ensemble = Ensemble(program, plan)
        self.members: list[_Member | None] = [None] * plan.width
        self.saved_at = self.checkpointed_at = time.monotonic()
        self.checkpoint_seconds = 0.0  # that the last one of all runs took

    def train(self, queue: _Queue, stop: threading.Event) -> Literal["done", "too many"]:
        """Take runs of this program from the queue until none is left, or until told to stop.

        Returns "too many" if the device ran out of memory with more than one run at a time. What the members did
        since they were last saved is lost then, and nothing else.
        """
        try:
            self._train(queue, stop)
        except jax.errors.JaxRuntimeError as error:
            if self.ensemble.plan.width == 1 or "RESOURCE_EXHAUSTED" not in str(error):
                raise
            return "too many"
        return "done"

    def _train(self, queue: _Queue, stop: threading.Event) -> None:
        while True:
            for i in range(len(self.members)):
                while self.members[i] is None and not stop.is_set() and (row := queue.take(self.program)) is not None:
                    try:
                        self._join(i, row)
                    except _NothingToStartFromError as reason:
                        self._end_unstarted(row, str(reason))
                        queue.ended(row)
            active = [i for i, member in enumerate(self.members) if member is not None]
            if not active:
                return
            if self.ensemble.plan.lowering == "vmap" and 2 * len(active) <= len(self.members):
                self._close_ranks(active)
                active = list(range(len(active)))
            states = self._advance(active)
            ended = [i for i in active if states[i].finished]
            now = time.monotonic()
            # However large the ensemble, checkpoints take no more than a tenth of the time.
            due = max(CHECKPOINT_SECONDS, 10 * self.checkpoint_seconds)
            checkpoint_all = stop.is_set() or now - self.checkpointed_at > due
            if checkpoint_all or ended or now - self.saved_at > SAVE_SECONDS:
                self._save(states, active, checkpoints=active if checkpoint_all else ended)
            if stop.is_set():
                return
            for i in ended:
                member, self.members[i] = self.members[i], None
                assert member is not None
                queue.ended(member.row)

    def _close_ranks(self, active: list[int]) -> None:
        """Go on in an ensemble with no more places than runs are left, since empty ones cost as much as taken ones."""
        plan = replace(self.ensemble.plan, width=len(active))
        runs = self.ensemble.runs(active)
        self.ensemble, self.members = Ensemble(self.program, plan), [self.members[i] for i in active]
        for i, run in enumerate(runs):
            self.ensemble.place(i, *run)

    def _join(self, i: int, row: RunRow) -> None:
        """Start a run, or continue it from its checkpoint."""
        seeds = self.experiment.seeds.streams(row.seed)
        inputs = self.program.inputs(self.experiment.arms[row.arm], seeds)
        found = self.workspace.rewind(row.id)
        if found is None:
            state = self.ensemble.fresh(inputs, seeds.init, self._given(row))
        else:
            state = checkpoint.from_arrays(found[1], empty_run(self.program)[1], f"run {row.id}")
        self.ensemble.place(i, inputs, state)
        self.members[i] = _Member(row, int(state.step), seconds=row.seconds if found else 0.0)

    def _given(self, row: RunRow) -> dict[str, Any]:
        """The models of the runs that this one starts from."""
        given = {}
        for source in self.program.sources:
            run = next(r for r in self.workspace.runs(row.experiment) if (r.arm, r.seed) == (source.arm, row.seed))
            if isinstance(source.moment, int):
                reached = run.steps >= source.moment
            else:
                reached = source.moment == "end" or getattr(run, f"t_{source.moment}") is not None
            found = self.workspace.checkpoint(run.id)
            if not reached or found is None:
                raise _NothingToStartFromError(f"it starts from {source.name}, which run {run.id} never reached")
            given[source.name] = checkpoint.model_from_arrays(
                found[1], source.moment, empty_model(self.program), f"run {run.id}"
            )
        return given

    def _end_unstarted(self, row: RunRow, reason: str) -> None:
        """A run without a network to start from counts as one that never grokked."""
        nothing = dict.fromkeys(("t_memorised", "t_grokked", "t_stable", "t_collapsed", "diverged_at", "checkpoint"))
        ended = Progress(
            run=row.id,
            status="exhausted",
            steps=0,
            seconds=0.0,
            flops=0.0,
            curves=_joined([]),
            message=reason,
            **nothing,
        )
        self.workspace.save([ended])
        nan = float("nan")
        self.listener.update(
            row.id, step=0, train_accuracy=nan, held_out_accuracy=nan, status="exhausted", steps_per_second=nan
        )

    def _advance(self, active: list[int]) -> list[State]:
        states, curves, seconds = self.ensemble.advance()
        for i in active:
            member, state = self.members[i], states[i]
            assert member is not None
            block = _columns(curves[i])
            member.seconds += seconds / len(active)
            member.status = _status(state)
            if len(block["step"]):
                member.blocks.append(block)
                self.listener.update(
                    member.row.id,
                    step=int(block["step"][-1]),
                    train_accuracy=float(block["train_accuracy"][-1]),
                    held_out_accuracy=float(block["held_out_accuracy"][-1]),
                    status=member.status,
                    steps_per_second=(int(state.step) - member.step) * len(active) / seconds,
                )
            member.step = int(state.step)
        return states

    def _save(self, states: list[State], active: list[int], checkpoints: list[int]) -> None:
        """Hand the progress of all active runs to the workspace, whole states for those in `checkpoints` too."""
        began = time.monotonic()
        whole = dict(zip(checkpoints, self.ensemble.runs(checkpoints) if checkpoints else [], strict=True))
        progress = []
        for i in active:
            member, state = self.members[i], states[i]
            assert member is not None
            arrays = None
            if i in whole:
                arrays = checkpoint.to_arrays(whole[i][1])
                if state.finished:
                    arrays = checkpoint.parameters_only(arrays)
            diverged_at = _time(state.diverged_at)
            progress.append(
                Progress(
                    run=member.row.id,
                    status=member.status,
                    steps=int(state.step),
                    t_memorised=_time(state.t_memorised),
                    t_grokked=_time(state.t_grokked),
                    t_stable=_time(state.t_stable),
                    t_collapsed=_time(state.t_collapsed),
                    diverged_at=diverged_at,
                    seconds=member.seconds,
                    flops=int(state.step) * flops_per_step(self.program),
                    curves=_joined(member.blocks),
                    checkpoint=arrays,
                    message="" if diverged_at is None else f"the training loss was not finite at step {diverged_at}",
                )
            )
            member.blocks = []
        self.workspace.save(progress)
        self.saved_at = time.monotonic()
        if len(checkpoints) == len(active):
            self.checkpointed_at, self.checkpoint_seconds = self.saved_at, self.saved_at - began


def _status(state: State) -> str:
    if not state.finished:
        return "running"
    if state.diverged_at >= 0:
        return "diverged"
    return "grokked" if state.t_stable >= 0 else "exhausted"


def _time(step: jax.Array) -> int | None:
    return int(step) if step >= 0 else None


def _columns(curves: Curves) -> dict[str, np.ndarray]:
    """The evaluations that took place, by column."""
    scalars = {name: value for name, value in curves._asdict().items() if name not in ("valid", "measures")}
    return {name: np.asarray(value)[curves.valid] for name, value in (scalars | curves.measures).items()}


def _joined(blocks: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    if not blocks:
        return {"step": np.zeros(0, np.int32)}
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def _tell_stored(workspace: Workspace, listener: Listener, row: RunRow) -> None:
    curves = workspace.curves(row.id)
    if len(curves["step"]):
        listener.update(
            row.id,
            step=row.steps,
            train_accuracy=float(curves["train_accuracy"][-1]),
            held_out_accuracy=float(curves["held_out_accuracy"][-1]),
            status=row.status,
            steps_per_second=float("nan"),
        )


def device() -> str:
    """The device that trains, in words."""
    found = jax.devices()[0]
    return f"{found.platform} ({found.device_kind})"
