"""Configuration: frozen dataclasses, spelled in YAML, strict. Free of torch; pydantic and PyYAML load on use."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from synth.errors import ConfigError, nearest

T = TypeVar("T")
_EXPONENT = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")


def load(kind: type[T], source: str | Path, *, overrides: Sequence[str] = ()) -> T:
    """Return the `kind` that a YAML file (Path) or text (str) spells, with dotted overrides `a.b=value` on top.

    Errors: ConfigError with the dotted path, what was given and the nearest known name.
    """
    import yaml

    where = str(source) if isinstance(source, Path) else "configuration"
    try:
        text = source.read_text() if isinstance(source, Path) else source
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where} cannot be read ({error}); give a YAML file") from error
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{where}{place} is not valid YAML: {getattr(error, 'problem', error)}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{where} holds no fields; write `name: value` lines")
    for override in overrides:
        _override(data, override)
    return build(kind, data, where=where)


def build(kind: type[T], data: Mapping[str, Any], *, where: str = "configuration") -> T:
    """Return the `kind` of plain data, validated strictly."""
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    adapter = TypeAdapter(_forbidding(kind, ConfigDict(extra="forbid")))
    try:
        return adapter.validate_python(data)
    except ValidationError as error:
        raise ConfigError(f"{where}: {_say(kind, error.errors()[0])}") from None


def dump(value: Any) -> str:
    """Return YAML that `load` reads back to an equal value."""
    import yaml

    return yaml.safe_dump(plain(value), sort_keys=False, allow_unicode=True, width=100)


def plain(value: Any) -> Any:
    """Return dataclasses, mappings and tuples as dicts, lists and scalars."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def _forbidding(kind: Any, config: Any, seen: dict[Any, Any] | None = None) -> Any:
    """Mark `kind` and every dataclass inside it as refusing unknown fields; unions are told apart by `kind`."""
    import typing

    seen = {} if seen is None else seen
    if dataclasses.is_dataclass(kind):
        if kind not in seen:
            seen[kind] = kind
            kind.__pydantic_config__ = config  # pyright: ignore[reportAttributeAccessIssue]
            for annotation in typing.get_type_hints(kind).values():
                _forbidding(annotation, config, seen)
        return kind
    for part in typing.get_args(kind):
        _forbidding(part, config, seen)
    return kind


def _override(data: dict[str, Any], override: str) -> None:
    import yaml

    path, equals, text = override.partition("=")
    if not equals:
        raise ConfigError(f"override {override!r} has no value; write name.field=value")
    *parents, last = path.split(".")
    place: Any = data
    for name in parents:
        place = place.setdefault(name, {})
        if not isinstance(place, dict):
            raise ConfigError(f"override {path}: {name} is a value, not a section")
    place[last] = yaml.safe_load(text)


def _fields_at(kind: Any, path: Sequence[Any]) -> tuple[str, list[str]]:
    """Return the name and fields of the dataclass that `path` ends in."""
    import typing

    current: list[Any] = [kind]
    for step in path:
        following: list[Any] = []
        for item in _dataclasses_in(current):
            if item.__name__ == step:
                following.append(item)
            elif step in (hints := typing.get_type_hints(item)):
                following.append(hints[step])
        current = following or current
    found = _dataclasses_in(current)
    names = sorted({f.name for item in found for f in dataclasses.fields(item)})
    return "/".join(item.__name__ for item in found), names


def _dataclasses_in(kinds: Sequence[Any]) -> list[Any]:
    import typing

    out: list[Any] = []
    for kind in kinds:
        if dataclasses.is_dataclass(kind):
            out.append(kind)
        else:
            out.extend(_dataclasses_in(typing.get_args(kind)))
    return out


def _say(kind: Any, error: Any) -> str:
    place = [step for step in error["loc"] if not (isinstance(step, str) and step[:1].isupper())]
    path = ".".join(str(step) for step in place)
    given = error.get("input")
    if error["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        owner, names = _fields_at(kind, error["loc"][:-1])
        return f"{path}: unknown field of {owner}; {nearest(str(place[-1]), names)}"
    if error["type"] in ("missing", "missing_argument"):
        return f"{path}: is missing; write a value"
    if isinstance(given, str) and _EXPONENT.fullmatch(given):
        return f"{path}: YAML reads {given!r} as text; write it with a dot, like 1.0e-4"
    if error["type"] == "literal_error":
        return f"{path}: {given!r} is not known; use {error['ctx']['expected']}"
    if error["type"] == "value_error":
        return str(error["ctx"]["error"]) if "error" in error.get("ctx", {}) else error["msg"]
    return f"{path}: {error['msg'].lower()}, got {given!r}"
