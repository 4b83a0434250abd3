"""The command line: `groklab run | resume | list | show | report | phases | warnings | export | analyze | ...`.

Wrong input gets one sentence and exit code 2. With --json, standard output carries one JSON object and nothing else.
Nothing heavy is imported before it is needed, so --help and list answer at once.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from groklab.errors import GroklabError, nearest

if TYPE_CHECKING:
    from groklab.result import Result

LISTS = ("experiments", "tasks", "models", "methods", "measures", "studies", "runs")
MOMENTS = ("memorised", "grokked", "stable", "end")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 2 wrong input, 130 interrupted."""
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
        sys.stdout.flush()
    except GroklabError as error:
        print(f"groklab: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print(f"groklab: {interrupt or 'stopped'}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone, for example `groklab list methods | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is flushed at exit
        return 1
    return 0


# --- commands --------------------------------------------------------------------------------------------------------


def _run(options: argparse.Namespace) -> None:
    from groklab import api

    _conclude(
        options,
        lambda console: api.run(
            options.experiment,
            settings=options.set,
            seeds=options.seeds,
            again=options.again,
            console=console,
            **_where_and_how(options),
        ),
    )


def _resume(options: argparse.Namespace) -> None:
    from groklab import api

    _conclude(options, lambda console: api.resume(options.id, console=console, **_where_and_how(options)))


def _show(options: argparse.Namespace) -> None:
    if options.kind is not None:
        from groklab import catalogue

        if f"{options.id}s" not in catalogue.PACKAGES:
            families = [package.removesuffix("s") for package in catalogue.PACKAGES]
            raise GroklabError(f"cannot show a kind of '{options.id}': {nearest(options.id, families)}")
        print(catalogue.page(f"{options.id}s", options.kind))
        return
    from groklab import api

    result = api.load(options.id, workspace=options.workspace)
    if options.json:
        print(json.dumps(result.summary))
    else:
        _print_result(result)
        print(f"\n{result.experiment.spec_toml}")


def _report(options: argparse.Namespace) -> None:
    from groklab import api

    result = api.load(options.id, workspace=options.workspace)
    print(result.report(options.out or _report_path(result)))


def _phases(options: argparse.Namespace) -> None:
    from rich.console import Console

    from groklab import api
    from groklab.report.timeline import timeline_table

    result = api.load(options.id, workspace=options.workspace)
    found = [run.timeline for run in result.runs if len(run.curves.get("step", ()))]
    if options.json:
        print(json.dumps({"experiment": result.id, "runs": [timeline.to_json() for timeline in found]}))
    elif found:
        Console(highlight=False).print(timeline_table(found))
    else:
        print(f"no run of {result.id} has been evaluated yet")


def _warnings(options: argparse.Namespace) -> None:
    from dataclasses import asdict

    from rich.console import Console

    from groklab import api
    from groklab.report.timeline import warnings_table
    from groklab.statistics.early_warning import Alarm

    directions = [name for name in ("above", "below") if getattr(options, name) is not None]
    if directions and (len(directions) > 1 or options.measure is None):
        raise GroklabError("an alarm is --above or --below a number, not both, and needs --measure")
    alarm = Alarm(directions[0], getattr(options, directions[0])) if directions else None  # pyright: ignore
    result = api.load(options.id, workspace=options.workspace)
    found = result.warnings(options.measure, alarm, options.since)
    if options.json:
        columns = {name: asdict(warnings) for name, warnings in found.items()}
        runs = [{"arm": run.arm, "seed": run.seed} for run in result.runs]
        print(json.dumps({"experiment": result.id, "since": options.since, "runs": runs, "columns": columns}))
    else:
        Console(highlight=False).print(warnings_table(found, options.since))


def _survival(options: argparse.Namespace) -> None:
    from rich.console import Console

    from groklab.survival_table import SurvivalTable, survival_report

    table = SurvivalTable.read(options.file, options.time, options.event, options.group)
    analysis = table.analyse(options.horizon)
    if options.json:
        print(json.dumps(analysis))
    else:
        Console(highlight=False).print(survival_report(analysis))
    if options.chart:
        from groklab.report import charts

        try:
            charts.save(table.chart(), options.chart)
        except OSError as error:
            raise GroklabError(f"cannot write the chart {options.chart}: {error.strerror}") from None


def _analyze(options: argparse.Namespace) -> None:
    from groklab.analysis import analyze

    named = ("operation", "group", "split", "seed", "train_fraction", "activation", "index", "config", "workspace")
    given = {name: getattr(options, name) for name in (*named, "loss_threshold")}
    at = int(options.at) if options.at.isdigit() else options.at
    if isinstance(at, str) and at not in MOMENTS:
        raise GroklabError(f"unknown moment '{at}': {nearest(at, MOMENTS)}, or a step")
    analysis = analyze(options.what, at=at, measures=options.measure, **given)
    if options.json:
        print(json.dumps(analysis.to_json(), allow_nan=False), flush=True)
    else:
        from rich.console import Console

        from groklab.report.analysis import terminal

        Console(highlight=False).print(terminal(analysis))
    if options.report or not (options.json or options.no_report):
        name = Path(options.what).with_suffix("").name
        path = analysis.report(options.report or f"{name}-analysis.html")
        if not options.json:
            print(f"\nreport: {path}")


def _export(options: argparse.Namespace) -> None:
    from groklab.api import workspace_path
    from groklab.store.export import export
    from groklab.store.workspace import Workspace

    with Workspace.open(workspace_path(options.workspace), writable=False) as store:
        if options.to == "transformer-lens":
            from groklab.interop import transformer_lens

            for path in transformer_lens.export(store, options.id, Path(options.out)):
                print(path)
            return
        for path in export(store, store.experiment(options.id).id, options.to, Path(options.out)):
            print(path)


def _merge(options: argparse.Namespace) -> None:
    from groklab.api import workspace_path
    from groklab.store.merging import merge
    from groklab.store.workspace import Workspace

    path = workspace_path(options.workspace)
    for folder in options.folders:
        if Path(folder).resolve() == path.resolve():
            raise GroklabError(f"{folder} is the workspace to merge into")
        with Workspace.open(folder, writable=False) as other, Workspace.open(path, create=True) as store:
            for found in merge(store, other):
                kept = f", {found.kept} had begun here and stay" if found.kept else ""
                print(f"{found.experiment}: {found.taken} runs taken over{kept}", flush=True)


def _reproduce(options: argparse.Namespace) -> None:
    from rich.console import Console

    from groklab import api
    from groklab.studies import record, study

    path = api.workspace_path(options.workspace)
    chosen = {
        "quick": options.quick,
        "settings": options.set,
        "workspace": path,
        "console": Console(stderr=options.json),
    }
    try:
        if options.only:
            ran = study.run_only(options.study, options.only, **chosen)
            print(json.dumps({"ran": ran}) if options.json else f"in {path}, not judged: {', '.join(ran)}")
            return
        judged = study.reproduce(options.study, **chosen)
    except api.Interrupted:
        raise KeyboardInterrupt(
            "stopped; everything so far is stored, and the same command goes on from there"
        ) from None
    file = record.write_results(judged, Path(options.out or path / "studies"))
    if options.json:
        print(json.dumps(record.to_json(judged)["findings"]))
    else:
        Console(highlight=False).print(record.verdict_table(judged))
        print(f"\nevidence: {file}")


def _list(options: argparse.Namespace) -> None:
    if options.what == "runs":
        rows = _stored_runs(options.workspace)
    elif options.what == "studies":
        from groklab.studies import study

        rows = [(listed.name, study.state_of(listed.name), listed.summary) for listed in study.studies()]
    else:
        from groklab import catalogue

        found = catalogue.experiments() if options.what == "experiments" else catalogue.entries(options.what)
        several = len({entry.family for entry in found}) > 1
        rows = [(entry.kind, *([entry.family.lower()] if several else []), entry.summary) for entry in found]
    for line in _aligned(rows):
        print(line)


def _stored_runs(workspace: str | None) -> list[tuple[str, ...]]:
    from groklab.api import workspace_path
    from groklab.store.workspace import Workspace

    with Workspace.open(workspace_path(workspace), writable=False) as store:
        rows = [
            (run.id, run.status, f"step {run.steps}", f"t_grokked {'-' if run.t_grokked is None else run.t_grokked}")
            for experiment in store.experiments()
            for run in store.runs(experiment.id)
        ]
    return rows or [("no runs yet: `groklab run two-phase` makes some",)]


# --- what they share -------------------------------------------------------------------------------------------------


def _where_and_how(options: argparse.Namespace) -> dict[str, Any]:
    """The workspace and the sharing of the machine, which every command that trains takes."""
    return {name: getattr(options, name) for name in ("workspace", "lowering", "width", "workers")}


def _conclude(options: argparse.Namespace, train: Any) -> None:
    """Train with progress on the right stream, then print the result and write the report."""
    from rich.console import Console

    from groklab import api

    try:
        result = train(Console(stderr=options.json))
    except api.Interrupted as interrupt:
        workspace = f" --workspace {options.workspace}" if options.workspace else ""
        message = f"stopped; everything so far is stored: `groklab resume {interrupt.id}{workspace}` continues"
        raise KeyboardInterrupt(message) from None
    if options.json:
        print(json.dumps(result.summary), flush=True)
    else:
        _print_result(result)
    if options.no_report:
        return
    path = result.report(options.report or _report_path(result))
    if not options.json:
        print(f"\nreport: {path}")


def _print_result(result: Result) -> None:
    from rich.console import Console

    from groklab.report.summary import verdict_sentences
    from groklab.report.terminal import summary_table

    console = Console(highlight=False)
    console.print(summary_table(result.summary))
    for sentence in verdict_sentences(result.summary):
        console.print(sentence, markup=False)


def _report_path(result: Result) -> Path:
    return result.workspace / "reports" / result.id / "report.html"


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


# --- the grammar -----------------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """argparse whose errors are one sentence with the nearest valid name."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"groklab: {message}; see `{self.prog} --help`\n")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            what = action.metavar or action.dest
            raise argparse.ArgumentError(None, f"unknown {what} '{value}': {nearest(str(value), action.choices)}")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:  # type: ignore[override]
        options, unknown = self.parse_known_args(args, namespace)
        if unknown:
            known = [action.option_strings[-1] for action in _actions(self, options) if action.option_strings]
            kind = "option" if unknown[0].startswith("-") else "argument"
            hint = f": {nearest(unknown[0].partition('=')[0], known)}" if kind == "option" else ""
            self.error(f"unknown {kind} '{unknown[0]}'{hint}")
        return options


def _actions(parser: argparse.ArgumentParser, options: argparse.Namespace) -> list[argparse.Action]:
    """The options of the verb that was given, or of the program itself."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return action.choices[options.verb]._actions if getattr(options, "verb", None) else parser._actions
    return parser._actions


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="groklab",
        description="Train networks that grok, many at a time, and judge honestly what makes them grok sooner.",
        epilog="Start with: groklab run two-phase",
        allow_abbrev=False,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="command")

    def verb(name: str, command: Any, summary: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        added.set_defaults(command=command)
        added.add_argument(
            "--workspace", metavar="DIR", help="folder of results (default: $GROKLAB_WORKSPACE or ./groklab-workspace)"
        )
        return added

    run = verb("run", _run, "train an experiment: a built-in one by name, or a TOML file")
    run.add_argument("experiment", help="name or path; `groklab list experiments` shows the names")
    run.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="change the spec; repeatable")
    run.add_argument("--seeds", metavar="N", help="seeds for each arm (short for --set seeds.count=N)")
    run.add_argument("--again", action="store_true", help="train anew although this very spec is already stored")
    resume = verb("resume", _resume, "continue an experiment that was interrupted")
    resume.add_argument("id", help="id, beginning of an id, or name; `groklab list runs` shows them")
    for training in (run, resume):
        training.add_argument("--json", action="store_true", help="print one JSON object, progress on standard error")
        training.add_argument("--report", metavar="FILE", help="where to write the report (default: in the workspace)")
        training.add_argument("--no-report", action="store_true", help="write no report")
        training.add_argument(
            "--lowering", choices=("map", "vmap"), help="how runs share the machine (default: automatic)"
        )
        training.add_argument(
            "--width", type=int, metavar="RUNS", help="runs at a time on one device (default: automatic)"
        )
        training.add_argument(
            "--workers", type=int, metavar="N", help="devices, or cores of a CPU, at work (default: all)"
        )

    show = verb("show", _show, "print a stored result and its spec, or all about a task, model, method or measure")
    show.add_argument("id", help="id, beginning of an id, or name of a result; or task, model, method, measure")
    show.add_argument("kind", nargs="?", help="with `task` and so on: which one, such as `groklab show task modular`")
    show.add_argument("--json", action="store_true", help="print one JSON object")
    report = verb("report", _report, "write the HTML report of a stored result")
    report.add_argument("id", help="id, beginning of an id, or name")
    report.add_argument("--out", metavar="FILE", help="where to write it (default: in the workspace)")
    phases = verb("phases", _phases, "when each run memorised, formed circuits, cleaned up, generalised")
    warnings = verb("warnings", _warnings, "which recorded columns warned of grokking, and how often in vain")
    for looking in (phases, warnings):
        looking.add_argument("id", help="id, beginning of an id, or name")
        looking.add_argument("--json", action="store_true", help="print one JSON object")
    warnings.add_argument("--measure", metavar="COLUMN", help="judge this column only (default: all of them)")
    warnings.add_argument(
        "--above", type=float, metavar="X", help="alarm at or above X (default: found on the other runs)"
    )
    warnings.add_argument("--below", type=float, metavar="X", help="alarm at or below X")
    warnings.add_argument(
        "--since",
        choices=("memorised", "start"),
        default="memorised",
        metavar="TIME",
        help="watch each run from then on: %(choices)s (default: memorised)",
    )
    survival = verb("survival", _survival, "survival analysis of any CSV table of times")
    survival.add_argument("file", help="a CSV file with a header")
    survival.add_argument("--time", required=True, metavar="COLUMN", help="time of the event, or of censoring")
    survival.add_argument("--event", required=True, metavar="COLUMN", help="1, true or yes; 0, false or no = censored")
    survival.add_argument("--group", metavar="COLUMN", help="what to compare (default: all rows are one group)")
    survival.add_argument("--horizon", type=float, metavar="X", help="means are up to there (default: common to all)")
    survival.add_argument("--json", action="store_true", help="print one JSON object")
    survival.add_argument("--chart", metavar="FILE", help="draw the curves as .svg, .png, .pdf or .json")
    analyze = verb("analyze", _analyze, "measure a network in a file (safetensors, .pt, .pth), or one of a stored run")
    analyze.add_argument("what", help="path of a file; or a run as experiment/arm/seed, or an experiment of one run")
    analyze.add_argument("--json", action="store_true", help="print one JSON object, and write no report unless asked")
    analyze.add_argument("--report", metavar="FILE", help="where to write the report (default: here)")
    analyze.add_argument("--no-report", action="store_true", help="write no report")
    analyze.add_argument("--measure", action="append", default=[], metavar="NAME", help="one more measure; repeatable")
    analyze.add_argument(
        "--at", default="end", metavar="MOMENT", help="of a stored run: memorised, grokked, stable, end"
    )
    analyze.add_argument("--operation", metavar="OP", help="of a file that does not say, such as a+b")
    analyze.add_argument("--group", metavar="NAME", help="likewise, such as S5")
    analyze.add_argument("--split", choices=("nanda", "torch", "groklab"), metavar="RULE", help="%(choices)s")
    analyze.add_argument("--seed", type=int, metavar="N", help="of the split")
    analyze.add_argument("--train-fraction", type=float, metavar="SHARE", help="of the split")
    analyze.add_argument("--activation", metavar="NAME", help="of a file that does not say, such as gelu")
    analyze.add_argument("--index", type=int, metavar="N", help="which of several state dicts (default: the last)")
    analyze.add_argument("--config", metavar="FILE", help="the JSON of a file, where it is not beside it")
    analyze.add_argument(
        "--loss-threshold", type=float, default=0.01, metavar="LOSS", help="for crossings of recorded losses (0.01)"
    )
    export = verb("export", _export, "write curves and runs as files")
    export.add_argument("id", help="id, beginning of an id, or name")
    formats = ("parquet", "csv", "safetensors", "transformer-lens")
    export.add_argument("--to", required=True, choices=formats, metavar="FORMAT", help="%(choices)s")
    export.add_argument("--out", default=".", metavar="DIR", help="folder to write to (default: here)")
    reproduce = verb("reproduce", _reproduce, "run a study of a published paper, and judge its claims")
    reproduce.add_argument("study", help="name; `groklab list studies` shows them")
    reproduce.add_argument("--quick", action="store_true", help="few seeds, under ten minutes on two cores")
    reproduce.add_argument(
        "--set", action="append", default=[], metavar="EXPERIMENT:PATH=VALUE", help="change an experiment; repeatable"
    )
    reproduce.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="EXPERIMENT",
        help="run this one, with those it builds on, and judge nothing; repeatable",
    )
    reproduce.add_argument("--json", action="store_true", help="print the findings as one JSON object")
    reproduce.add_argument("--out", metavar="DIR", help="where to keep the evidence (default: in the workspace)")
    merge = verb("merge", _merge, "take over the runs of other workspaces, such as those of other machines")
    merge.add_argument("folders", nargs="+", metavar="DIR", help="a workspace, which is only read")
    listing = verb("list", _list, "list what there is, one line each")
    listing.add_argument("what", choices=LISTS, metavar="list", help="%(choices)s")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
