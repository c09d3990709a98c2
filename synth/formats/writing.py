"""The one seam through which pairs become files: a Writer a layout. Knows values and checks, no layout and no model.

A writer adds case by case, in any order and from any number of processes; what makes the folder a dataset (its
index) comes last, in `finish`. Equal pairs give equal bytes. The same writer takes up cases of other folders and reads
one case back, without the rest of the set.
"""

import csv
import hashlib
import io
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from synth.errors import DataError, OutputError, nearest
from synth.formats.cases import check_mask, values_of
from synth.io import read, write_bytes, write_file
from synth.sample import AttributeValue
from synth.volume import Label, Volume

NOTICE = "SYNTHETIC - not for diagnosis"
_BLOCK = 1 << 20
_CASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")


@dataclass(frozen=True, kw_only=True)
class Description:
    """What all cases of a written set share. `labels` leave the background out; values are the source's own.

    patient_space   False for pictures, whose affine says a spacing and nothing about the patient
    """

    name: str
    channels: tuple[str, ...]
    labels: tuple[Label, ...]
    file_ending: str = ".nii.gz"
    population: str = ""
    software: str = "synthvol"

    @property
    def label_values(self) -> dict[str, int]:
        """Name -> value of every label."""
        return {label.name: label.value for label in self.labels}

    @property
    def patient_space(self) -> bool:
        """False where the files are pictures."""
        return self.file_ending != ".png"


@dataclass(frozen=True)
class Told:
    """What is said of one case: attributes and text it was asked with, and what tells it from any other sample."""

    case: str
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    text: str | None = None
    identity: tuple[str | int, ...] = ()

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Told":
        """Return what a line of manifest.jsonl says.

        >>> Told.of({"case": "syn_00001", "seed": 3, "index": 1, "condition": {"attributes": {"kind": "a"}}}).identity
        ('', 3, 1, 0)
        """
        said = row.get("condition") or {}
        model = row.get("model") or {}
        identity = (str(model.get("sha256", "")), row.get("seed", 0), row.get("index", 0), row.get("attempt", 0))
        return cls(str(row["case"]), dict(said.get("attributes") or {}), said.get("text"), identity)


class Writer(ABC):
    """Writes one dataset in one layout: `add` each case, `finish` when all are there.

    `index` names the files, relative to the folder, without which it is no dataset; `finish` writes them last.
    """

    index: tuple[str, ...] = ()
    keeps_grids: bool = True
    """False where a case comes back on another grid than it was given."""

    def __init__(self, folder: str | Path, about: Description) -> None:
        self.folder, self.about = Path(folder), about

    @abstractmethod
    def paths(self, case: str, grid: tuple[int, ...] = ()) -> list[Path]:
        """Return the files of a case, relative to the folder, in the order in which they are written.

        Where their number depends on the grid and none is given, the last alone. Errors: OutputError for an id that
        is no plain name.
        """

    @abstractmethod
    def write(self, case: str, image: Volume, mask: Volume, told: Told) -> None:
        """Write the files of a checked case, each whole, in the order of `paths`."""

    @abstractmethod
    def finish(self, count: int | None = None, told: Iterable[Told] = ()) -> None:
        """Write the index for the cases that are there. Errors: OutputError when they are fewer than `count`."""

    def has(self, case: str) -> bool:
        """True when the case was written whole."""
        return all((self.folder / path).is_file() for path in self.paths(case))

    def whole(self, case: str, files: Iterable[str]) -> bool:
        """True when the `files` that `add` named are there and hold something: a cut of power may leave empty ones."""
        try:
            return self.has(case) and all((self.folder / name).stat().st_size > 0 for name in files)
        except OSError:
            return False

    def add(self, case: str, image: Volume, mask: Volume, told: Told | None = None) -> dict[str, str]:
        """Write one case and return {relative path: sha256}; nothing is written of a case that is wrong.

        A mask that carries labels is matched by name, another one by value.
        Errors: DataError for other channels, strange values or voxels that are no numbers; GeometryError.
        """
        self.paths(case)
        require_pair(case, image, mask, self.about.channels)
        matched = mask.replace(data=renumbered(case, mask, self.about.label_values), labels=self.about.label_values)
        self.write(case, image, matched, told or Told(case))
        return {path.as_posix(): sha256_of(self.folder / path) for path in self.paths(case, image.grid)}

    def take(self, source: "Writer", case: str, files: Mapping[str, str]) -> None:
        """Write a case as another folder of this layout holds it; `files` is what its `add` answered.

        Every file is compared with its sha256 on the way. Errors: DataError for one that is missing or another.
        """
        for name, digest in files.items():
            copy_checked(source.folder / name, self.folder / name, digest)

    @contextmanager
    def opened(self, name: str) -> Iterator[IO[bytes]]:
        """Open for reading what `add` named. Errors: DataError where it is not there."""
        with readable(self.folder / name) as file:
            yield file

    @property
    def stored_values(self) -> Mapping[str, int]:
        """Name -> value of every label in the files."""
        return self.about.label_values

    def parts(self, told: Told) -> tuple[str, ...]:
        """Return the volumes of a case by name: its image, in one or more, then the mask."""
        return tuple(path.as_posix() for path in self.paths(told.case))

    def part(self, told: Told, name: str) -> Volume:
        """Return one of the `parts` as it was written; the last is a mask that carries labels. Errors: DataError."""
        is_mask = name == self.parts(told)[-1]
        return read(self.folder / name, labels=self.stored_values if is_mask else None)

    def reopen(self) -> None:
        """Take the index away, so that a set that is not finished is not taken for a dataset."""
        for name in self.index:
            (self.folder / name).unlink(missing_ok=True)

    def require(self, count: int | None, cases: Sequence[str]) -> int:
        """Return how many of the cases are there. Errors: OutputError where they are fewer than `count`."""
        found = sum(self.has(case) for case in cases)
        if found < (count or 0):
            raise OutputError(f"{self.folder} holds {found} of {count} cases; run the command again to complete it")
        return found

    def put_json(self, name: str, content: object) -> None:
        """Write a JSON file of the folder."""
        write_bytes(self.folder / name, (json.dumps(content, indent=2) + "\n").encode())


WriterMaker = Callable[[Path, Description], Writer]


def safe(case: str) -> str:
    """Return a case id that is a plain file name. Errors: OutputError."""
    if not _CASE.fullmatch(case) or ".." in case:
        raise OutputError(f"case id {case!r} is no plain file name; use letters, digits, _ . -")
    return case


def require_pair(case: str, image: Volume, mask: Volume, channels: Sequence[str]) -> None:
    """Raise DataError for other channels or voxels that are no numbers, GeometryError for grids that differ."""
    if image.channels != len(channels):
        raise DataError(f"case {case!r} has {image.channels} channels, the dataset {len(channels)}; give {channels}")
    image.require_same_geometry(mask, case=case)
    if image.data.dtype.kind == "f" and not np.isfinite(image.data).all():
        raise DataError(f"image of case {case!r} has voxels that are NaN or infinite; make it again")


def renumbered(case: str, mask: Volume, values: Mapping[str, int], own: Mapping[str, int] | None = None) -> np.ndarray:
    """Return the voxels of a mask under `values` (name -> value), in the smallest unsigned type that holds those.

    own   values of a mask that names none; `values` otherwise
    Errors: DataError for values that are no label's, and labels that `values` lacks.
    """
    given = {name: value for name, value in (mask.labels or own or values).items() if value != 0}
    present = values_of(mask.data)
    check_mask(mask, given, case=case)
    low, high = (present[0], present[-1]) if present else (0, 0)
    table = np.zeros(high - low + 1, dtype=mask_dtype(values))
    for name, value in given.items():
        if value not in present:
            continue
        if name not in values:
            raise DataError(f"mask of case {case!r} has label {name!r}; {nearest(name, values)}")
        table[value - low] = values[name]
    return table[mask.data.astype(np.int64, copy=False) - low]


def mask_dtype(values: Mapping[str, int]) -> np.dtype[Any]:
    """Return the type of masks that hold these label values."""
    return np.min_scalar_type(max(values.values(), default=0))


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextmanager
def readable(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading. Errors: DataError that tells of it where it cannot be opened."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); generate it again") from error
    with file:
        yield file


def require_digest(name: object, found: str, digest: str) -> None:
    """Errors: DataError where what was read of `name` has another sha256 than its record says."""
    if found != digest:
        raise DataError(f"{name} is not as its record says: it was cut short or changed; generate it again")


def copy_checked(source: Path, target: Path, digest: str | None = None) -> None:
    """Copy a file beside its place and swap it in. Errors: DataError where it is not of this sha256; OutputError."""
    found = hashlib.sha256()

    def blocks() -> Iterator[bytes]:
        with readable(source) as file:
            while block := file.read(_BLOCK):
                found.update(block)
                yield block
        if digest is not None:
            require_digest(source, found.hexdigest(), digest)

    write_file(target, blocks())


def table_of(rows: Sequence[Mapping[str, object]], *, delimiter: str = ",", absent: str = "") -> bytes:
    """Return a table in UTF-8: the columns of all rows, by first sight; what a row lacks is `absent`."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, restval=absent, delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: absent if value is None else value for name, value in row.items()} for row in rows)
    return out.getvalue().encode()


def write_cases(folder: Path, told: Iterable[Told]) -> None:
    """Write cases.csv (case, text, a column an attribute) where anything is said of any case."""
    rows = [{"case": one.case, **({} if one.text is None else {"text": one.text}), **one.attributes} for one in told]
    if any(len(row) > 1 for row in rows):
        write_bytes(folder / "cases.csv", table_of(rows))


def dataset_json(about: Description, **more: object) -> dict[str, object]:
    """Return what a dataset.json of our own says: name, channel_names, labels (name -> value), population."""
    return {
        "name": about.name,
        "description": NOTICE,
        "channel_names": {str(number): name for number, name in enumerate(about.channels)},
        "labels": {"background": 0, **about.label_values},
        "population": about.population,
        "synthetic": True,
        **more,
    }
