"""What layouts share: JSON and tables beside the images, names of labels and channels, values. Knows no layout."""

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from synth.data.dataset import Case
from synth.data.schema import spells_number
from synth.errors import DataError
from synth.io import PICTURES, read_header
from synth.sample import AttributeValue
from synth.volume import Label, Volume, palette

_WHOLE = re.compile(r"[+-]?(0|[1-9]\d*)")


def read_json(path: Path, *, needed_by: str) -> dict[str, Any]:
    """Return the object of a JSON file. Errors: DataError with the place of a fault."""
    if not path.is_file():
        raise DataError(f"{path} does not exist; {needed_by} needs it")
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise DataError(f"{path} {place} is not valid JSON ({error.msg}); mend or write it again") from error
    except (OSError, ValueError, RecursionError) as error:  # no UTF-8; numbers of thousands of digits
        raise DataError(f"{path} cannot be read ({error}); mend or write it again") from error
    if not isinstance(data, dict):
        raise DataError(f"{path} holds no JSON object; write it again")
    return data


def peek_json(path: Path) -> dict[str, Any]:
    """Return the object of a JSON file, empty where it is missing or broken: its reader says why."""
    try:
        return read_json(path, needed_by="")
    except DataError:
        return {}


@dataclass(frozen=True)
class Names:
    """What labels.json or dataset.json names: value -> label without the background, channels; None where silent."""

    labels: Mapping[int, str] | None = None
    channels: tuple[str, ...] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def beside(cls, folder: Path) -> "Names":
        """Return the names that stand in `folder`; labels.json may be the bare table of labels. Errors: DataError."""
        where = next((folder / name for name in ("dataset.json", "labels.json") if (folder / name).is_file()), None)
        if where is None:
            return cls()
        info = read_json(where, needed_by="the dataset")
        return cls.of(info, where, bare=where.name == "labels.json" and "labels" not in info)

    @classmethod
    def of(cls, info: Mapping[str, Any], where: Path, *, bare: bool = False) -> "Names":
        """Return the names that a JSON file says; `bare`: it is the table of labels itself. Errors: DataError."""
        table = info if bare else info.get("labels")
        channels = None if bare else info.get("channel_names")
        return cls(
            None if table is None else label_names(table, where),
            None if channels is None else channel_names(channels, where),
            {} if bare else info,
        )

    def describe(self, values: Sequence[int]) -> tuple[Label, ...]:
        """Return the labels named, or those of `values` by their numbers."""
        names = self.labels if self.labels is not None else {v: f"label_{v}" for v in sorted(set(values) - {0})}
        return tuple(Label(names[value], value, palette(n)) for n, value in enumerate(sorted(names)))


def label_names(table: object, where: Path) -> dict[int, str]:
    """Return value -> name, without 0, of a table spelled either way round. Errors: DataError."""
    if not isinstance(table, dict) or not table:
        raise DataError(f'{where}: labels is {table!r}; write {{"lesion": 1, ...}} or {{"1": "lesion", ...}}')
    out: dict[int, str] = {}
    for key, given in table.items():
        name, value = (given, key) if isinstance(given, str) else (key, given)
        if isinstance(value, bool) or not re.fullmatch(r"\d{1,9}", str(value)) or not str(name).strip():
            raise DataError(f"{where}: label {key!r}: {given!r} names no whole number; give one a label")
        if int(value) in out or (str(name) in out.values() and int(value) != 0):
            raise DataError(f"{where}: label {name!r} or value {value} comes twice; mend one")
        out[int(value)] = str(name)
    out.pop(0, None)
    if not out:
        raise DataError(f"{where} names the background alone; add the labels")
    return out


def channel_names(names: object, where: Path) -> tuple[str, ...]:
    """Return the channels in order, of {"0": "T1", ...}. Errors: DataError."""
    if not isinstance(names, dict) or set(names) != {str(i) for i in range(len(names))} or not names:
        raise DataError(f'{where}: channel_names is {names!r}; write {{"0": "T1", "1": ...}} counting from 0')
    return tuple(str(names[str(i)]) for i in range(len(names)))


def case_of(
    name: str, images: Sequence[Path], mask: Path | None, row: Mapping[str, AttributeValue], **more: Any
) -> Case:
    """Return a case with what its row of a table says: patient, text, and everything else as attributes."""
    said = dict(row)
    patient, text = said.pop("patient", None), said.pop("text", None)
    more.setdefault("patient", None if patient is None else str(patient))
    return Case(
        id=name, images=tuple(images), mask=mask, attributes=said, text=None if text is None else str(text), **more
    )


def require_one_grid(case: str, images: Sequence[Path], mask: Path | None) -> None:
    """Raise GeometryError unless the headers of all files of a case agree; of pictures the grid is all there is."""
    first = read_header(images[0]).outline()
    for path in (*images[1:], *([mask] if mask is not None else [])):
        other = read_header(path).outline()
        if path.name.lower().endswith(PICTURES) and other.grid == first.grid:
            continue
        first.require_same_geometry(other, case=case, what="mask" if path == mask else path.name)


def read_rows(
    path: Path, *, key: str = "case", delimiter: str = ",", absent: str = ""
) -> dict[str, dict[str, AttributeValue]]:
    """Return case -> {column: value} of a cases.csv; empty where there is none. Empty and `absent` cells are left out.

    A column of whole numbers gives int, of numbers float, any other str; patient and text are always str.
    Errors: DataError with the line.
    """
    if not path.is_file():
        return {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = list(csv.reader(file, strict=True, delimiter=delimiter))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a table ({error}); write it again as UTF-8") from error
    columns = table[0] if table else []
    if key not in columns or len(set(columns)) != len(columns):
        raise DataError(f"{path} line 1 is {columns}; name each column once, one of them {key!r}")
    cells: dict[str, dict[str, str]] = {}
    for number, line in enumerate(table[1:], start=2):
        if not line:
            continue
        row = dict(zip(columns, line, strict=False))
        if len(line) != len(columns) or row[key] in cells:
            why = "names its case again" if len(line) == len(columns) else f"has {len(line)} cells, not {len(columns)}"
            raise DataError(f"{path} line {number} {why}; mend the line")
        cells[row[key]] = {name: text for name, text in row.items() if text not in ("", absent) and name != key}
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
