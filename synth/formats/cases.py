"""What layouts share: the sidecar of attributes, label values of masks, the voxels of a case. Knows no layout."""

import csv
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from synth.data.schema import spells_number
from synth.errors import DataError
from synth.sample import AttributeValue
from synth.volume import Volume

_WHOLE = re.compile(r"[+-]?(0|[1-9]\d*)")


def read_rows(path: Path) -> dict[str, dict[str, AttributeValue]]:
    """Return case -> {column: value} of a cases.csv; empty where there is none. Empty cells are left out.

    A column of whole numbers gives int, of numbers float, any other str; patient and text are always str.
    Errors: DataError with the line.
    """
    if not path.is_file():
        return {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = list(csv.reader(file, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as CSV ({error}); write it again as UTF-8") from error
    columns = table[0] if table else []
    if "case" not in columns or len(set(columns)) != len(columns):
        raise DataError(f"{path} line 1 is {columns}; name each column once, one of them 'case'")
    cells: dict[str, dict[str, str]] = {}
    for number, line in enumerate(table[1:], start=2):
        if not line:
            continue
        row = dict(zip(columns, line, strict=False))
        if len(line) != len(columns) or row["case"] in cells:
            why = "names its case again" if len(line) == len(columns) else f"has {len(line)} cells, not {len(columns)}"
            raise DataError(f"{path} line {number} {why}; mend the line")
        cells[row["case"]] = {name: text for name, text in row.items() if text != "" and name != "case"}
    kinds = {name: _kind([row[name] for row in cells.values() if name in row]) for name in columns}
    kinds.update(patient=str, text=str)
    return {case: {name: kinds[name](text) for name, text in row.items()} for case, row in cells.items()}


def _kind(texts: list[str]) -> type[int] | type[float] | type[str]:
    if all(_WHOLE.fullmatch(text) for text in texts):
        return int
    if all(spells_number(text) for text in texts):
        return float
    return str


def values_of(data: np.ndarray) -> list[int]:
    """Return the values in whole-number voxels, ascending.

    >>> values_of(np.array([[0, 3], [200, 3]], dtype=np.uint8))
    [0, 3, 200]
    """
    if data.size == 0:
        return []
    low, high = int(data.min()), int(data.max())
    if data.dtype.kind == "f" or high - low > 1 << 16:
        return [int(value) for value in np.unique(data)]
    seen = np.zeros(high - low + 1, dtype=np.bool_)
    seen[data.astype(np.int32, copy=False).ravel() - low] = True
    return [int(value) + low for value in np.flatnonzero(seen)]


def check_mask(mask: Volume, labels: Mapping[str, int], *, case: str) -> None:
    """Raise DataError when the mask of `case` has a value that is no label's."""
    known = sorted({0, *labels.values()})
    strange = [value for value in values_of(mask.data) if value not in known]
    if strange:
        raise DataError(f"mask of case {case!r} has value {strange[0]}, dataset.json knows {known}; mend one of them")
