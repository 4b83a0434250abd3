"""Frozen, validated specs: the values from which everything in groklab follows.

A spec is a pydantic model that refuses unknown keys and never changes. Whatever comes in several kinds (tasks, models,
methods, ...) forms a *family*: a base class whose concrete subclasses register themselves under their `kind` the moment
their file is imported. Adding a member to a family is therefore adding one file.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema, core_schema

from groklab.errors import SpecError, nearest


S = TypeVar("S", bound="Spec")


class Spec(BaseModel):
    """An immutable, hashable value whose unknown keys are errors and whose floats are finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True, defer_build=True)


class Family(Spec):
    """Base of everything that comes in several kinds; fields typed with a family base accept each registered kind.

    A family base names the package that holds its members; a member sets `kind: Literal["name"] = "name"`. In TOML a
    member is a table with a `kind`, or just the kind's name where all its defaults will do.
    """

    package: ClassVar[str]
    registry: ClassVar[dict[str, type[Family]]]

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if "package" in cls.__dict__:
            cls.registry = {}
        elif "kind" in cls.__annotations__:
            cls.registry[cls.model_fields["kind"].default] = cls

    @classmethod
    def members(cls) -> dict[str, type[Family]]:
        """Every registered kind of this family, after importing the family's package."""
        package = importlib.import_module(cls.package)
        for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
            importlib.import_module(module.name)
        return dict(sorted(cls.registry.items()))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        if "package" not in cls.__dict__:
            return handler(source)
        members = {kind: handler.generate_schema(member) for kind, member in cls.members().items()}
        union = core_schema.tagged_union_schema(members, discriminator=_kind_of)
        return core_schema.no_info_before_validator_function(_kind_alone, union)


def _kind_alone(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


def _kind_of(value: Any) -> Any:
    return value.get("kind") if isinstance(value, Mapping) else getattr(value, "kind", None)


# --- numbers that are traced, not compiled in ----------------------------------------------------------------------


@dataclass(frozen=True)
class Traced:
    """Marks a float field as an argument of the compiled program: specs that differ only there share one program."""


Number = Annotated[float, Traced()]


def traced_numbers(spec: Spec, prefix: str = "") -> dict[str, float]:
    """The traced numbers of `spec` and of the specs inside it, by dotted path."""
    numbers: dict[str, float] = {}
    for name, field in type(spec).model_fields.items():
        value, path = getattr(spec, name), f"{prefix}{name}"
        if any(isinstance(mark, Traced) for mark in field.metadata):
            numbers[path] = value
        elif isinstance(value, Spec):
            numbers |= traced_numbers(value, path + ".")
        elif isinstance(value, tuple):
            for i, item in enumerate(value):
                if isinstance(item, Spec):
                    numbers |= traced_numbers(item, f"{path}.{i}.")
    return numbers


def with_numbers(spec: S, numbers: Mapping[str, Any], prefix: str = "") -> S:
    """`spec` with its traced numbers replaced by `numbers` (path to float or tracer); nothing is validated again."""
    update: dict[str, Any] = {}
    for name, field in type(spec).model_fields.items():
        value, path = getattr(spec, name), f"{prefix}{name}"
        if any(isinstance(mark, Traced) for mark in field.metadata):
            update[name] = numbers[path]
        elif isinstance(value, Spec):
            update[name] = with_numbers(value, numbers, path + ".")
        elif isinstance(value, tuple):
            update[name] = tuple(
                with_numbers(item, numbers, f"{path}.{i}.") if isinstance(item, Spec) else item
                for i, item in enumerate(value)
            )
    return spec.model_copy(update=update)


def structure(spec: S) -> S:
    """`spec` with every traced number set to zero: equal structures share one compiled program."""
    return with_numbers(spec, dict.fromkeys(traced_numbers(spec), 0.0))


# --- from plain data, with errors for people ------------------------------------------------------------------------


def parse(cls: type[S], data: Mapping[str, Any]) -> S:
    """Validate plain data (from TOML or JSON) strictly: no silent "12" to 12, no true to 1.

    Raises SpecError with one sentence a problem: where, what was given, what is allowed.
    """
    try:
        return cls.model_validate_json(json.dumps(data, default=str), strict=True)
    except ValidationError as error:
        raise SpecError("; ".join(dict.fromkeys(_sentence(cls, problem) for problem in error.errors()))) from None


def _sentence(root: type[Spec], problem: Any) -> str:
    cls, path = _resolve(root, problem["loc"])
    given, kind = problem["input"], problem["type"]
    if kind == "extra_forbidden":
        where = f" in {path.rpartition('.')[0]}" if "." in path else ""
        return f"unknown key '{problem['loc'][-1]}'{where}: {nearest(str(problem['loc'][-1]), cls.model_fields)}"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        tag = _kind_of(given)
        return f"unknown kind '{tag}' for {path}: {nearest(str(tag), cls.members())}"  # type: ignore[attr-defined]
    if kind == "missing":
        return f"{path} is missing"
    if kind == "literal_error":
        allowed = [str(value) for value in _literals(cls, str(problem["loc"][-1]))]
        return f"{path} is {given!r}: {nearest(str(given), allowed)}"
    if kind in ("value_error", "assertion_error"):
        message = problem["msg"].partition(", ")[2]
        return f"{path}: {message}" if path else message
    message = problem["msg"].removeprefix("Input should be ")
    return f"{path} is {given!r}, but should be {message}"


def _resolve(root: type[Spec], loc: tuple[int | str, ...]) -> tuple[type[Spec], str]:
    """The spec class that owns the last item of a pydantic error location, and the location in `--set` notation."""
    cls, path = root, ""
    for i, item in enumerate(loc):
        if isinstance(item, int):
            path += f"[{item}]"
        elif "package" in cls.__dict__ and issubclass(cls, Family) and item in cls.registry:
            cls = cls.registry[item]
        else:
            path += f".{item}" if path else item
            field = cls.model_fields.get(item)
            if field is not None and (inner := _spec_inside(field.annotation)) is not None:
                if i + 1 < len(loc) or "package" in inner.__dict__:
                    cls = inner
    return cls, path


def _spec_inside(annotation: Any) -> type[Spec] | None:
    """The first spec class inside an annotation such as `tuple[Method, ...]` or `dict[str, Recipe]`."""
    if isinstance(annotation, type) and issubclass(annotation, Spec):
        return annotation
    return next((found for part in get_args(annotation) if (found := _spec_inside(part)) is not None), None)


def _literals(cls: type[Spec], field: str) -> tuple[Any, ...]:
    return get_args(cls.model_fields[field].annotation) if field in cls.model_fields else ()
