"""JSON that other programs and people may have changed: read, held to a form, its faults told by file and line.

A form is a TypedDict (of typing_extensions) or any annotation that pydantic knows; keys that it does not name are let
be. Nothing is coerced. Knows no file of ours by name.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from synth.errors import DataError

_SHOWN = 60


def read_document(path: Path, form: Any = dict, *, mend: str) -> dict[str, Any]:
    """Return the object of a JSON file. Errors: DataError with the line of what is wrong, and `mend`."""
    return document_of(_bytes(path, mend), path, form, mend=mend)


def read_lines(path: Path, form: Any = dict, *, mend: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, object) of a JSON Lines file, one at a time. Errors: as `read_document`."""
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                yield number, document_of(line, path, form, mend=mend, line=number)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); {mend}") from error


def document_of(raw: bytes, path: Path, form: Any = dict, *, mend: str, line: int | None = None) -> dict[str, Any]:
    """Return the object that `raw`, the content of `path` or its line number `line`, spells. Errors: DataError.

    >>> document_of(b'{"a": 1}', Path("a.json"), dict[str, int], mend="write it again")
    {'a': 1}
    >>> document_of(b'{"a": 1,\\n "b": "x"}', Path("a.json"), dict[str, int], mend="write it again")
    Traceback (most recent call last):
    synth.errors.DataError: a.json line 2 is broken (b should be a valid integer, got 'x'); write it again
    """
    at, why = line or 1, ""
    try:
        found = json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        at, why = line or raw.count(b"\n", 0, error.start) + 1, "it is not UTF-8"
    except json.JSONDecodeError as error:
        at, why = line or error.lineno, f"not valid JSON: {error.msg}"
    except (ValueError, RecursionError):  # numbers of thousands of digits, brackets thousands deep
        why = "it holds what no JSON of ours does"
    else:
        if not isinstance(found, dict):
            why = f"it is no object but {_short(found)}"
        elif fault := _fault(found, form):
            keys, why = fault
            at = line or _line_of(raw, keys)
        else:
            return found
    raise DataError(f"{path} line {at} is broken ({why}); {mend}")


def require_form(found: Mapping[str, Any], form: Any, *, what: str) -> None:
    """Errors: DataError that begins with `what` where an object that was read before does not fit a form."""
    if fault := _fault(dict(found), form):
        raise DataError(f"{what} is broken ({fault[1]})")


def _bytes(path: Path, mend: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; {mend}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); {mend}") from error


@lru_cache
def _adapter(form: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(form)


def _fault(found: dict[str, Any], form: Any) -> tuple[list[Any], str] | None:
    """Return the keys to the first thing that does not fit, and what is wrong; None where all fits."""
    from pydantic import ValidationError

    try:
        _adapter(form).validate_python(found, strict=True)
        return None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    keys: list[Any] = []
    here: Any = found
    part: Any
    for part in first["loc"]:  # the members of a union stand in it too, which are no keys
        if (isinstance(here, dict) and part in here) or (isinstance(here, list) and isinstance(part, int)):
            keys.append(part)
            here = cast(Any, here)[part]
        elif first["type"] == "missing" and part == first["loc"][-1]:
            return keys, f"{'.'.join(map(str, [*keys, part]))} is missing"
    said = first["msg"].removeprefix("Input ").removeprefix("Value error, ")
    return keys, f"{'.'.join(map(str, keys))} {said}, got {_short(here)}"


def _line_of(raw: bytes, keys: Sequence[Any]) -> int:
    """Return the line on which what `keys` lead to stands, or the innermost of them that is written out."""
    place = 0
    for key in keys:
        found = re.compile(re.escape(json.dumps(key).encode()) + rb"\s*:").search(raw, place)
        place = found.start() if isinstance(key, str) and found else place
    return raw.count(b"\n", 0, place) + 1


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
