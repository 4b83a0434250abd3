"""The `--set path=value` grammar: change one place of a spec given as plain data.

    task.operation="*"                        a value is TOML; what is not TOML is taken as a bare string
    arms.adamw.optimizer.learning_rate=3e-3   paths go through tables by name
    arms.adamw.methods[0].strength=9          and through lists by index
    arms.adamw.methods+={kind="grokfast_ma"}  += appends to a list

Setting a `kind` to another value drops the other keys beside it, because they belonged to the old kind.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any

from groklab.errors import SpecError, nearest

_PART = re.compile(r"([A-Za-z0-9_ -]+)((?:\[\d+\])*)$")


def apply_setting(data: dict[str, Any], setting: str) -> None:
    """Apply one `path=value` or `path+=value` to `data` in place. Raises SpecError if the path does not exist."""
    path, equals, text = setting.partition("=")
    if not equals:
        raise SpecError(f"setting '{setting}' has no '=': write path=value, for example task.modulus=113")
    appends = path.endswith("+")
    keys = _keys(path.removesuffix("+").strip(), setting)
    holder: Any = data
    for i, key in enumerate(keys[:-1]):
        holder = _step(holder, key, keys[:i], setting)
        if not isinstance(holder, dict | list):
            raise SpecError(f"setting '{setting}': {_name(keys[: i + 1])} is a plain value, it has no parts")
    last, value = keys[-1], _value(text.strip())
    if appends:
        items = _step(holder, last, keys[:-1], setting)
        if not isinstance(items, list):
            raise SpecError(f"setting '{setting}': {_name(keys)} is not a list, so += cannot append to it")
        items.append(value)
    elif isinstance(last, int):
        _step(holder, last, keys[:-1], setting)
        holder[last] = value
    elif not isinstance(holder, dict):
        raise SpecError(f"setting '{setting}': {_name(keys[:-1])} has no parts named '{last}'")
    else:
        if last == "kind" and holder.get("kind", value) != value:
            holder.clear()
        holder[last] = value


def _keys(path: str, setting: str) -> list[str | int]:
    keys: list[str | int] = []
    for part in path.split("."):
        match = _PART.match(part)
        if match is None:
            raise SpecError(f"setting '{setting}': '{path}' is not a path such as arms.adamw.methods[0].strength")
        keys.append(match[1])
        keys.extend(int(index) for index in re.findall(r"\d+", match[2]))
    return keys


def _step(holder: Any, key: str | int, walked: list[str | int], setting: str) -> Any:
    place = _name(walked) or "the spec"
    if isinstance(key, int):
        if not isinstance(holder, list):
            raise SpecError(f"setting '{setting}': {place} is not a list, there is no [{key}]")
        if key >= len(holder):
            raise SpecError(f"setting '{setting}': {place} has {len(holder)} entries, there is no [{key}]")
        return holder[key]
    names = holder if isinstance(holder, dict) else {}
    if key not in names:
        raise SpecError(f"setting '{setting}': unknown key '{key}' in {place}: {nearest(key, names)}")
    return names[key]


def _name(keys: list[str | int]) -> str:
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).lstrip(".")


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except ValueError:  # not TOML, or an integer of more digits than Python reads
        return text
