"""Plans: what is asked of each sample of a set, a row for so many samples. Read here; knows no model."""

import csv
import io
import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

from pipelines.generate import LARGEST_COUNT
from synth.sample import AttributeValue

OWN = ("count", "text", "mask")
"""Columns that are no attributes."""


@dataclass(frozen=True)
class Row:
    """One row of a plan: where it stands, how many samples it asks for, and what of each; None: nothing is said."""

    place: str
    count: int
    text: str | None
    mask: str | None
    attributes: tuple[tuple[str, AttributeValue], ...]


@dataclass(frozen=True)
class Plan:
    """The rows of a plan in order; row r makes the samples after those of rows 0 to r - 1."""

    rows: tuple[Row, ...]

    @property
    def count(self) -> int:
        """Number of samples in all."""
        return self._ends[-1]

    @property
    def says_text(self) -> bool:
        """True where a row says a text."""
        return any(row.text is not None for row in self.rows)

    @property
    def says_masks(self) -> bool:
        """True where a row names a mask."""
        return any(row.mask is not None for row in self.rows)

    @property
    def attributes(self) -> list[str]:
        """The attributes that rows name, each once."""
        return list(dict.fromkeys(name for row in self.rows for name, _ in row.attributes))

    def row(self, index: int) -> Row:
        """Return the row that sample `index` is of."""
        return self.rows[bisect_right(self._ends, index)]

    def runs(self, samples: int) -> Iterator[tuple[Row, int]]:
        """Yield (row, how many of the first `samples` it asks for)."""
        left = samples
        for row in self.rows:
            if left <= 0:
                return
            yield row, min(row.count, left)
            left -= row.count

    @cached_property
    def _ends(self) -> tuple[int, ...]:
        return tuple(accumulate(row.count for row in self.rows))


def read_plan(path: Path) -> Plan:
    """Return the plan of a .csv or .jsonl file: columns count, text, mask and attributes by name; count is 1 unsaid.

    Errors: DataError with the line for what is no row of a plan.
    """
    from synth.errors import DataError

    kinds = {".csv": _csv_rows, ".jsonl": _json_rows}
    if path.suffix.lower() not in kinds:
        raise DataError(f"--plan {path} is neither .csv nor .jsonl; give one of these")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"--plan {path} does not exist; check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--plan {path} cannot be read ({error}); write it again as UTF-8") from error
    rows: list[Row] = []
    total = 0
    for line, cells in kinds[path.suffix.lower()](text, path):
        rows.append(_row(cells, f"{path.name} line {line}"))
        total += rows[-1].count
        if total > LARGEST_COUNT:
            raise DataError(f"{rows[-1].place}: the plan asks for more than {LARGEST_COUNT} samples; ask for fewer")
    if not rows:
        raise DataError(f"{path} has no row; write one for each kind of sample")
    return Plan(tuple(rows))


def _csv_rows(text: str, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    from synth.errors import DataError

    table = csv.reader(io.StringIO(text, newline=""), strict=True)
    columns: list[str] = []
    begun = 1
    try:
        for cells in table:
            line, begun = begun, table.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if not columns:
                columns = [cell.strip() for cell in cells]
                if len(set(columns)) != len(columns) or not all(columns):
                    raise DataError(f"{path.name} line {line} names columns {columns}; name each once")
                continue
            if len(cells) != len(columns):
                raise DataError(
                    f"{path.name} line {line} has {len(cells)} cells for {len(columns)} columns; mend the line"
                )
            yield line, {name: cell.strip() for name, cell in zip(columns, cells, strict=True) if cell.strip()}
    except csv.Error as error:
        raise DataError(f"{path.name} line {table.line_num} is no CSV ({error}); mend the line") from error


def _json_rows(text: str, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    from synth.errors import DataError

    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        try:
            cells = json.loads(content, object_pairs_hook=_once)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path.name} line {line} is no JSON ({error}); mend the line") from error
        if not isinstance(cells, dict):
            raise DataError(f'{path.name} line {line} is no object; write {{"count": 2, "text": "..."}}')
        yield line, {name: cell for name, cell in cells.items() if cell is not None}


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{twice!r} stands there twice")
    return dict(pairs)


def _row(cells: Mapping[str, Any], place: str) -> Row:
    """Return a row. Errors: DataError that begins with `place`."""
    from synth.errors import DataError

    said = str(cells.get("count", 1))
    if isinstance(cells.get("count"), bool) or not said.isascii() or not said.isdigit() or not int(said[:9]) > 0:
        raise DataError(f"{place}: count is {said!r}; give a whole number from 1")
    if int(said) > LARGEST_COUNT:
        raise DataError(f"{place}: count is {said}; give 1 to {LARGEST_COUNT}")
    for name, cell in cells.items():
        known = (str,) if name in ("text", "mask") else (str, int, float)
        if isinstance(cell, bool) or not isinstance(cell, known):
            what = "a text" if known == (str,) else "a text or a number"
            raise DataError(f"{place}: {name} is {json.dumps(cell)}; give {what}")
    attributes = tuple((name, cell) for name, cell in cells.items() if name not in OWN)
    return Row(place, int(said), cells.get("text"), cells.get("mask"), attributes)
