"""What there is to choose from, one line each, read from the source files without importing them (or JAX)."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from importlib import resources
from typing import NamedTuple

PACKAGES = ("tasks", "models", "methods", "measures")


class Entry(NamedTuple):
    """One kind of task, model, method, ... and its first sentence."""

    kind: str
    family: str  # Task, Model, Method, Optimizer, Trigger, ...
    summary: str


def entries(package: str) -> list[Entry]:
    """Every kind defined in the files of `package`, which is one of PACKAGES."""
    files = resources.files("groklab").joinpath(package).iterdir()
    found = [entry for file in files if file.name.endswith(".py") for entry in _entries(file.read_text("utf-8"))]
    return sorted(found, key=lambda entry: (entry.family, entry.kind))


def experiments() -> list[Entry]:
    """The built-in experiments."""
    files = resources.files("groklab").joinpath("experiments").iterdir()
    specs = [tomllib.loads(file.read_text("utf-8")) for file in files if file.name.endswith(".toml")]
    return sorted(Entry(spec["name"], "Experiment", spec.get("description", "")) for spec in specs)


def _entries(source: str) -> Iterator[Entry]:
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and (kind := _kind(node)) is not None:
            summary = (ast.get_docstring(node) or "").partition("\n\n")[0].replace("\n", " ")
            yield Entry(kind, ast.unparse(node.bases[0]), summary)


def _kind(node: ast.ClassDef) -> str | None:
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and ast.unparse(statement.target) == "kind" and statement.value:
            return ast.literal_eval(statement.value)
    return None
