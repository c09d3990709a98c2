"""Configuration: frozen dataclasses, spelled in YAML, strict. Free of torch; pydantic and PyYAML load on use.

A section becomes the dataclass that the annotation names; where several are allowed, `kind` tells them apart.
Nothing is guessed: text is no number, true is no 1, and a key written twice is refused.
"""

import dataclasses
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from synth.errors import ConfigError, nearest

T = TypeVar("T")
_EXPONENT = re.compile(r"([+-]?\d+)(\.\d*)?[eE]([+-]?)(\d+)")


def load(kind: type[T], source: str | Path, *, overrides: Sequence[str] = ()) -> T:
    """Return the `kind` that a YAML file (Path) or text (str) spells, with dotted overrides `a.b=value` on top.

    Errors: ConfigError with the dotted path, what was given and the nearest known name.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Shift:
    ...     shift: float = 1.0
    >>> load(Shift, "shift: 3.0").shift
    3.0
    >>> load(Shift, "shfit: 3.0")
    Traceback (most recent call last):
    synth.errors.ConfigError: configuration: shfit: unknown field of Shift; did you mean 'shift'?
    """
    where = str(source) if isinstance(source, Path) else "configuration"
    try:
        text = source.read_text(encoding="utf-8") if isinstance(source, Path) else source
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where} cannot be read ({error}); give a YAML file") from error
    data = _parse(text, where)
    if not isinstance(data, dict):
        raise ConfigError(f"{where} holds no fields; write `name: value` lines")
    for override in overrides:
        _override(data, override)
    return build(kind, data, where=where)


def has_field(path: Path, name: str) -> bool:
    """True where a YAML file has a field called `name` at its top. Errors: ConfigError as `load`."""
    try:
        data = _parse(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({error}); give a YAML file") from error
    return isinstance(data, dict) and name in data


def build(kind: type[T], data: Mapping[str, Any], *, where: str = "configuration") -> T:
    """Return the `kind` of plain data, validated strictly; ConfigError names the place."""
    try:
        return _section(kind, data, ())
    except _Fault as fault:
        raise ConfigError(f"{where}: {fault}") from None


def dump(value: Any) -> str:
    """Return YAML that `load` reads back to an equal value."""
    import yaml

    class Exact(yaml.SafeDumper):
        """PyYAML writes U+0085 bare in some quotes and reads it back as a space: such text is escaped."""

        def represent_str(self, data: str) -> Any:
            return self.represent_scalar("tag:yaml.org,2002:str", data, style='"' if "\x85" in data else None)

    Exact.add_representer(str, Exact.represent_str)
    return yaml.dump(plain(value), Dumper=Exact, sort_keys=False, allow_unicode=True, width=100)


def plain(value: Any) -> Any:
    """Return dataclasses, mappings and tuples as dicts, lists and scalars."""
    if type(value).__module__ == "numpy":
        return plain(value.tolist())  # YAML has no word for numpy's scalars
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


class _Fault(Exception):  # noqa: N818 - becomes a ConfigError
    """What is wrong at a dotted path."""

    def __init__(self, path: Sequence[Any], text: str) -> None:
        place = ".".join(map(str, path))
        super().__init__(f"{place}: {text}" if place else text)


def _parse(text: str, where: str) -> Any:
    """Return the plain data of YAML text. Errors: ConfigError with line and column, duplicate keys included."""
    import yaml

    class Strict(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen: set[str] = set()
            for key, _ in node.value:
                name = getattr(key, "value", None)
                if isinstance(name, str) and name in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{name!r} is written twice", key.start_mark)
                seen.add(str(name))
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(text, Strict)  # noqa: S506 - Strict is a SafeLoader
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        said = getattr(error, "problem", None) or " ".join(str(error).split())
        raise ConfigError(f"{where}{place} is not valid YAML: {said}") from None


def _override(data: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals or not all(path.split(".")):
        raise ConfigError(f"override {override!r} has no name or no value; write name.field=value")
    *parents, last = path.split(".")
    place: Any = data
    for name in parents:
        if place.get(name) is None:
            place[name] = {}
        place = place[name]
        if not isinstance(place, dict):
            raise ConfigError(f"override {path}: {name} is a value, not a section")
    place[last] = _parse(text, f"override {path}")


def _section(kind: Any, data: Any, path: tuple[Any, ...]) -> Any:
    """Return the dataclass `kind` of a mapping; unknown and missing fields are refused by name."""
    if isinstance(data, kind):
        return data
    if not isinstance(data, Mapping):
        raise _Fault(path, f"should be a section of {kind.__name__}, got {data!r}; write its fields as `name: value`")
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind) if f.init}
    for name in data:
        if name not in fields:
            hint = nearest(str(name), fields)
            raise _Fault((*path, name), f"unknown field of {kind.__name__}; {hint}")
    for name, field in fields.items():
        if name not in data and field.default is field.default_factory is dataclasses.MISSING:
            raise _Fault((*path, name), "is missing; write a value")
    values = {name: _value(hints[name], item, (*path, name)) for name, item in data.items()}
    try:
        return kind(**values)
    except ValueError as error:  # a check across fields; it names its field itself
        raise _Fault(path, str(error)) from error


def _value(kind: Any, data: Any, path: tuple[Any, ...]) -> Any:
    """Return `data` as the annotation `kind` says."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _value(parts[0], data, path)
    if origin in (typing.Union, types.UnionType):
        return _union(parts, data, path)
    if dataclasses.is_dataclass(kind):
        return _section(kind, data, path)
    if origin is tuple or origin is list:
        if not isinstance(data, (list, tuple)):
            raise _Fault(path, f"should be a list, got {data!r}; write [a, b]")
        if origin is list or parts[-1] is Ellipsis:
            kinds = [parts[0]] * len(data)
        elif len(parts) == len(data):
            kinds = list(parts)
        else:
            raise _Fault(path, f"should have {len(parts)} values, got {len(data)}")
        return origin(_value(k, item, (*path, i)) for i, (k, item) in enumerate(zip(kinds, data, strict=True)))
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(data, Mapping):
            raise _Fault(path, f"should be a section, got {data!r}; write `name: value` lines")
        return {_scalar(parts[0], k, (*path, k)): _value(parts[1], item, (*path, k)) for k, item in data.items()}
    return _scalar(kind, data, path)


def _union(members: tuple[Any, ...], data: Any, path: tuple[Any, ...]) -> Any:
    """Return `data` as the one member it is: None, the dataclass of its `kind`, a container or a scalar."""
    if data is None and type(None) in members:
        return None
    members = tuple(member for member in members if member is not type(None))
    sections: list[Any] = [member for member in members if dataclasses.is_dataclass(member)]
    if len(members) == 1:
        return _value(members[0], data, path)
    if any(isinstance(data, member) for member in sections):
        return data
    if sections and (isinstance(data, Mapping) or len(sections) == len(members)):
        return _section(_of_kind(sections, data, path), data, path)
    for member in members:
        origin = typing.get_origin(member)
        if (origin in (tuple, list)) == isinstance(data, (list, tuple)) and origin is not None:
            return _value(member, data, path)
    scalars = tuple(member for member in members if member not in sections)
    return _scalar(typing.Union[scalars], data, path)  # noqa: UP007 - the members are known only here


def _of_kind(sections: Sequence[Any], data: Any, path: tuple[Any, ...]) -> Any:
    """Return the section whose `kind` the data names."""
    known = {typing.get_args(typing.get_type_hints(section)["kind"])[0]: section for section in sections}
    names = ", ".join(known)
    if not isinstance(data, Mapping):
        raise _Fault(path, f"should be a section with a kind, got {data!r}; known kinds: {names}")
    if "kind" not in data:
        raise _Fault((*path, "kind"), f"is missing; write one of {names}")
    asked = data["kind"]
    if asked not in known:
        raise _Fault((*path, "kind"), _unknown(asked, known))
    return known[asked]


def _unknown(given: Any, known: Iterable[str]) -> str:
    names = sorted(known)
    hint = nearest(str(given), names)
    return f"{given!r} is not known; {hint}" + ("" if hint.startswith("known") else f" (known: {', '.join(names)})")


def _scalar(kind: Any, data: Any, path: tuple[Any, ...]) -> Any:
    """Return a scalar, a literal or a path, checked by pydantic without coercion."""
    from pydantic import TypeAdapter, ValidationError

    if kind is Path and isinstance(data, str):
        return Path(data)
    try:
        return TypeAdapter(kind).validate_python(data, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
    if isinstance(data, str) and (number := _EXPONENT.fullmatch(data)):
        whole, part, sign, exponent = number.groups()
        mend = f"{whole}{part if part and part != '.' else '.0'}e{sign or '+'}{exponent}"
        raise _Fault(path, f"YAML reads {data!r} as text; write {mend}")
    if first["type"] == "literal_error":
        raise _Fault(path, _unknown(data, [str(value) for value in typing.get_args(kind)]))
    raise _Fault(path, f"{first['msg'].lower()}, got {data!r}")
