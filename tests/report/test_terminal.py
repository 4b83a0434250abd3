"""Laws of the terminal output: plain lines without a terminal, no crash on a narrow one, never markup out of names."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable

import pytest
from rich.console import Console

from groklab.report.summary import summarise
from groklab.report.terminal import LiveProgress, summary_table

DEFINITIONS = {"memorised": 0.99, "grokked": 0.95, "stable_evaluations": 5}


class Clock:
    """Time that passes only when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def train(progress: LiveProgress, clock: Clock, runs: Iterable[str], steps: int = 800, memorised: int = 100) -> None:
    """Each run memorises at `memorised`, groks at 665 steps and ends at 720; an evaluation every 10 steps and 1/8 s."""
    for step in range(0, steps + 1, 10):
        clock.now += 0.125
        for run_id in runs:
            progress.update(
                run_id,
                step=step,
                train_accuracy=min(1.0, step / memorised),
                held_out_accuracy=min(1.0, step / 700),
                status="grokked" if step >= 720 else "running",
                steps_per_second=122.4,
            )


@pytest.fixture
def lines() -> Callable[..., list[str]]:
    """The plain lines of a training of the given arms."""

    def print_lines(*arms: str, **training: int) -> list[str]:
        file, clock = io.StringIO(), Clock()
        console = Console(file=file, force_terminal=False, width=40)
        with LiveProgress(console, DEFINITIONS, 3000, clock=clock) as progress:
            progress.start([(arm, arm, 0) for arm in arms])
            train(progress, clock, arms, **training)
        return file.getvalue().splitlines()

    return print_lines


def test_without_a_terminal_lines_are_plain_and_never_broken(lines):
    printed = lines("delayed-compression")
    assert not any("\x1b" in line for line in printed)
    assert "delayed-compression seed 0  step 670  train 1.000  held-out 0.957  grokked  122 steps/s" in printed[-2]
    assert printed[-1] == "delayed-compression seed 0  step 720  train 1.000  held-out 1.000  grokked  122 steps/s"


def test_each_phase_and_the_end_get_a_line_and_the_rest_at_most_one_in_two_seconds(lines):
    printed = lines("plain")
    for phase in ("memorising", "memorised", "generalising", "grokked"):
        assert any(f"  {phase}  " in line for line in printed)
    # Training takes 9 s: one line each for four phases and the end, and at most four more.
    assert len(printed) <= 9


def test_a_run_that_ended_is_silent(lines):
    assert lines("plain", steps=720) == lines("plain", steps=5000)


def test_the_time_left_is_the_whole_remaining_budget_at_the_measured_speed(clock):
    with LiveProgress(Console(file=io.StringIO()), DEFINITIONS, 3000, clock=clock) as progress:
        progress.start([("a", "plain", 0), ("b", "plain", 1)])
        assert progress.seconds_left() is None
        for step in (1000, 1100):  # resumed at 1000: those steps tell nothing about the speed
            clock.now += 10
            progress.update(
                "a", step=step, train_accuracy=0, held_out_accuracy=0, status="running", steps_per_second=10
            )
        assert progress.seconds_left() == pytest.approx((1900 + 3000) / 10)


@pytest.mark.parametrize("width", [1, 12, 40, 120])
def test_a_narrow_terminal_does_not_crash(width, clock, results):
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=width)
    with LiveProgress(console, DEFINITIONS, 3000, clock=clock) as progress:
        progress.start([(run.id, run.arm, run.seed) for run in results.runs])
        train(progress, clock, [results.runs[0].id])
        progress.message("saved [red]nothing[/red]")
    console.print(summary_table(summarise(results.experiment, results.runs)))
    assert file.getvalue()


def test_many_runs_show_the_running_ones_and_count_the_rest(clock):
    file = io.StringIO()
    with LiveProgress(Console(file=file, force_terminal=True, width=120), DEFINITIONS, 3000, clock=clock) as progress:
        progress.start([(f"{arm}-{seed}", arm, seed) for arm in ("shown", "hidden") for seed in range(15)])
        train(progress, clock, ["shown-3"], steps=500)
    assert "0 of 30 runs ended, 0 grokked, 29 not shown" in file.getvalue()
    assert "hidden" not in file.getvalue()


def test_messages_and_names_are_not_markup():
    file = io.StringIO()
    with LiveProgress(Console(file=file, force_terminal=False), DEFINITIONS, 10) as progress:
        progress.start([("r", "[red]arm[/]", 0)])
        progress.update("r", step=1, train_accuracy=0, held_out_accuracy=0, status="running", steps_per_second=1)
        progress.message("[bold]text[/]")
    assert "[red]arm[/] seed 0" in file.getvalue()
    assert "[bold]text[/]" in file.getvalue()


def test_the_summary_table_fits_eighty_columns_with_every_digit(results):
    file = io.StringIO()
    Console(file=file, width=80).print(summary_table(summarise(results.experiment, results.runs)))
    text = file.getvalue()
    assert all(word in text for word in ("delayed-compression", "2 of 3", "2,450", "(2,100 or more)", "690", "9 TFLOP"))
    assert "…" not in text
