"""From nothing to the first grokked network: `groklab run two-phase` as a user starts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.report import Claim, Report, Table, main

COLD_GOAL, WARM_GOAL = 25, 12
PHASE = 4  # the field of a progress line that says how far the run is


def measure(quick: bool) -> Report:
    """Seconds from the start of the process to its first line that says grokked, without and with a compile cache."""
    settings = ["--set", "definitions.grokked=0.001"] if quick else []
    cold, warm = [], []
    for _ in range(1 if quick else 3):
        with tempfile.TemporaryDirectory() as cache:
            cold.append(_seconds_to_grok(cache, settings))
            warm.append(_seconds_to_grok(cache, settings))
    claims, rows = [], []
    for name, times, goal in (("cold, empty compile cache", cold, COLD_GOAL), ("warm compile cache", warm, WARM_GOAL)):
        first, grokked = ([each[i] for each in times] for i in (0, 1))
        claims.append(Claim(name, median(grokked), min(grokked), max(grokked), at_most=goal, unit=" s"))
        rows.append([name, f"{median(first):.3g}", f"{median(grokked):.3g}"])
    method = (
        "`groklab run two-phase` as a process with a workspace and a compile cache of its own, cold and warm in turn, "
        f"{len(cold)} times; seconds from its start to the first progress line that reports a run as grokked."
    )
    table = Table(["", "s to the first evaluation reported", "s to the first grokked network"], rows)
    return Report("Cold start", method, claims, [table])


def _seconds_to_grok(cache: str, settings: list[str]) -> tuple[float, float]:
    """Seconds to the first progress line, and to the first that says grokked; the process is then told to stop."""
    command = [str(Path(sys.executable).with_name("groklab")), "run", "two-phase", *settings]
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache, "GROKLAB_WORKSPACE": f"{folder}/workspace"}
        started, first = time.perf_counter(), None
        process = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert process.stdout is not None
        try:
            for line in process.stdout:
                lines.append(line)
                passed, fields = time.perf_counter() - started, line.split("  ")
                if len(fields) > PHASE:
                    first = first or passed
                    if fields[PHASE] == "grokked":
                        return first, passed
        finally:
            _end(process)
    raise RuntimeError("no network grokked; groklab said:\n" + "".join(lines))


def _end(process: subprocess.Popen[str]) -> None:
    """Ask the process to stop as Ctrl-C does, and wait until it has."""
    process.send_signal(signal.SIGINT)
    try:
        process.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


if __name__ == "__main__":
    main(measure)
