"""Many runs of one program, advanced together.

    lowering "map"    one run after the other inside one compiled call: same bits as each run alone
    lowering "vmap"   all runs in every operation: for accelerators; equal to a run alone up to rounding

An ensemble has `width` places on one device. A run that is finished leaves at the end of a chunk
and the next one takes its place.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from groklab.engine.loop import Curves, Inputs, Program, State
from groklab.engine.randomness import init_key

Device: TypeAlias = jax.Device  # pyright: ignore[reportInvalidTypeForm]  # jaxlib has no stubs
Lowering = Literal["map", "vmap"]


class Sharing(NamedTuple):
    """How runs are to share the machine; what is None is decided by the machine."""

    lowering: Lowering | None = None
    width: int | None = None  # runs at a time on one device
    workers: int | None = None  # devices, or cores of a CPU, at work


MACHINE_DECIDES = Sharing()


@dataclass(frozen=True)
class Plan:
    """How the runs of one program share one device."""

    device: Device
    lowering: Lowering
    width: int
    intervals: int  # per chunk

    @classmethod
    def choose(cls, device: Device, runs: int, sharing: Sharing = MACHINE_DECIDES) -> Plan:
        """What suits the device, unless told otherwise.

        A network of the field's size keeps a core busy by itself, so on a CPU runs go one by one: nothing is lost, and
        the first result comes soonest. An accelerator is filled by many runs at once.
        """
        accelerated = device.platform != "cpu"
        lowering = sharing.lowering or ("vmap" if accelerated else "map")
        return cls(device, lowering, min(runs, sharing.width or (runs if accelerated else 1)), intervals=10)


def prepare_jax() -> None:
    """Make every core of a CPU a device, and keep compiled programs on disk between starts.

    They are kept in JAX_COMPILATION_CACHE_DIR or the user's cache folder, in a place particular to the processor,
    because programs compiled for one may not run on another. Where JAX is already at work its devices
    stay as they are.
    """
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", _cores())
    if jax.config.jax_compilation_cache_dir is None:  # pyright: ignore[reportAttributeAccessIssue]
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(base) / "groklab" / f"xla-{_processor()}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            return  # nowhere to keep them: compile anew at each start
        jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def _cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    import hashlib
    import platform

    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        features = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    except OSError:
        features = platform.processor()
    return hashlib.sha256(f"{platform.machine()} {features}".encode()).hexdigest()[:8]


class Ensemble:
    """The places of a batch of runs, and the compiled program that advances them."""

    def __init__(self, program: Program, plan: Plan):
        self.program, self.plan = program, plan
        self._inputs: list[Inputs | None] = [None] * plan.width
        self._states: list[State | None] = [None] * plan.width  # on the host, only while places change
        self._on_device: tuple[Inputs, State] | None = None

    def fresh(self, inputs: Inputs, init_seed: int) -> State:
        """The state of a run before its first step."""
        model = self._compiled_init()(init_seed)
        return jax.device_get(jax.jit(self.program.init)(inputs, model))

    def empty_state(self, inputs: Inputs) -> State:
        """Shapes and types of a state, without values."""
        model = jax.eval_shape(self._compiled_init(), 0)
        return jax.eval_shape(self.program.init, inputs, model)

    def _compiled_init(self) -> Callable[[int], Any]:
        # Pydantic's frozen specs are hashable, which pyright cannot see.
        return _compiled_init(self.program.model, self.program.task)  # pyright: ignore[reportArgumentType]

    def place(self, i: int, inputs: Inputs, state: State) -> None:
        """Put a run into place i."""
        self._to_host()
        self._inputs[i], self._states[i] = inputs, state

    def state(self, i: int) -> State:
        """The present state of the run in place i, on the host."""
        if self._on_device is None:
            state = self._states[i]
            assert state is not None
            return state
        return jax.device_get(jax.tree.map(lambda leaf: leaf[i], self._on_device[1]))

    def advance(self) -> tuple[list[State], list[Curves], float]:
        """Run one chunk. Returns per place the small part of its state and its curves [E], and the seconds it took."""
        inputs, states = self._to_device()
        chunk = _compiled_chunk(self.program, self.plan, inputs, states)
        started = time.perf_counter()
        states, curves = jax.block_until_ready(chunk(inputs, states))
        seconds = time.perf_counter() - started
        self._on_device = (inputs, states)
        small = jax.device_get(states._replace(model=None, optimizer=None))
        curves = jax.device_get(curves)
        places = range(self.plan.width)
        return [_at(small, i) for i in places], [_at(curves, i) for i in places], seconds

    def flops_per_step(self, inputs: Inputs) -> float:
        """Floating-point operations of one training step as XLA counts them, method and optimiser included."""
        if self.program not in _flops:
            batch = self.program.batch_size(inputs)
            rows, weights = jax.ShapeDtypeStruct((batch,), jnp.int32), jax.ShapeDtypeStruct((batch,), jnp.float32)
            step = jax.jit(self.program.step).lower(inputs, self.empty_state(inputs), rows, weights)
            cost = step.cost_analysis()
            _flops[self.program] = float(cost["flops"]) if cost else float("nan")
        return _flops[self.program]

    def _to_device(self) -> tuple[Inputs, State]:
        if self._on_device is None:
            taken, state = next((i, state) for i, state in enumerate(self._states) if state is not None)
            idle = state._replace(finished=np.array(True))
            inputs = [self._inputs[taken] if given is None else given for given in self._inputs]
            states = [idle if given is None else given for given in self._states]
            placed: tuple[Inputs, State] = jax.device_put((_stack(inputs), _stack(states)), self.plan.device)
            self._on_device = placed
        return self._on_device

    def _to_host(self) -> None:
        if self._on_device is not None:
            states = jax.device_get(self._on_device[1])
            self._states = [_at(states, i) for i in range(self.plan.width)]
            self._on_device = None


_flops: dict[Program, float] = {}
_chunks: dict[tuple[Program, Plan], jax.stages.Compiled] = {}


def _compiled_chunk(program: Program, plan: Plan, inputs: Inputs, states: State) -> jax.stages.Compiled:
    """The program of one chunk; compiled ahead, so that no timing includes it."""

    def one(run: tuple[Inputs, State]) -> tuple[State, Curves]:
        return program.chunk(*run, plan.intervals)

    def all_runs(inputs: Inputs, states: State) -> tuple[State, Curves]:
        runs = (inputs, states)
        return jax.vmap(one)(runs) if plan.lowering == "vmap" else jax.lax.map(one, runs)

    if (program, plan) not in _chunks:
        _chunks[program, plan] = jax.jit(all_runs, donate_argnums=1).lower(inputs, states).compile()
    return _chunks[program, plan]


@lru_cache(maxsize=16)
def _compiled_init(model: Any, task: Any) -> Callable[[int], Any]:
    table = task.table()
    return jax.jit(lambda seed: model.init(init_key(seed), table))


def _stack(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def _at(tree: Any, i: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[i], tree)
