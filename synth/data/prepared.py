"""The prepared folder: what `synth prepare` writes and training reads.

prepared.yaml (Contents), cases.jsonl, splits_final.json where there are folds, images/<case>.npy float32
(channel, *grid), masks/<case>.npy uint8 (*grid) with labels 0..K in schema order, truth/<case>.npy where known.

Nothing in a case's files or row was learned from another case: images are stored by maps that need none (a
volume's own percentiles; for CT one fixed window), rows keep attributes as the source gives them. What is learned
(the CT window, native levels, attributes, the type) is learned from the rows of the training patients alone, anew
for every fold. Only the geometry, grid and spacing, comes from all cases: one held out could not be judged otherwise.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from synth import config
from synth.data.folds import SPLITS_FILE, Fold, check_folds, read_folds
from synth.data.intensity import IntensityMap, Window, learned_map
from synth.data.schema import Attribute, Schema, infer_attributes
from synth.errors import ConfigError, DataError, nearest
from synth.sample import AttributeValue

Split = Literal["train", "holdout", "val", "test"]
"""Where a case lies; val is known to a fold only."""
SPLITS: tuple[Split, ...] = ("train", "holdout", "test")


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What prepared.yaml says.

    schema   as the training patients show it, without folds
    stored   the maps by which images/ and truth/ are written, one a channel; none was learned
    """

    schema: Schema
    stored: tuple[IntensityMap, ...]
    patients_assumed: bool = False


@dataclass(frozen=True, kw_only=True)
class PreparedCase:
    """One case of a prepared folder, and what it alone says.

    levels       its own intensity levels per channel
    foreground   per channel the value that 99.9 % of its labelled voxels stay below; None without such voxels
    digest       sha256 of its native voxels: tells whether two cases are the same, whatever they are called
    mask_digest  `mask_digest` of its native mask; None in folders of before, which do not say
    """

    case: str
    patient: str
    split: Split
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    text: str | None = None
    levels: tuple[tuple[float, float], ...] = ()
    foreground: tuple[float | None, ...] = ()
    dtype: str = "float32"
    digest: str = ""
    mask_digest: str | None = None
    native_grid: tuple[int, ...] = ()
    native_affine: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class Prepared:
    """A prepared folder, opened, as a fold sees it where one is chosen; arrays are memory-mapped.

    cases              with the attributes that the training patients had, and the side on which each lies
    rows               as they stand in cases.jsonl
    patients_assumed   each case was taken as its own patient; None: an older folder, which does not say
    numbering          what masks/ calls 0..K in the numbers of schema.labels; empty where those are the same
    """

    folder: Path
    schema: Schema
    cases: tuple[PreparedCase, ...]
    rows: tuple[PreparedCase, ...]
    stored: tuple[IntensityMap, ...]
    folds: tuple[Fold, ...] = ()
    fold: int | None = None
    patients_assumed: bool | None = None
    numbering: tuple[int, ...] = ()

    @classmethod
    def load(cls, folder: str | Path) -> "Prepared":
        """Open `folder`; DataError names what is missing or broken. Folders of before folds are read as they are."""
        folder = Path(folder)
        if not (folder / "prepared.yaml").is_file():
            raise DataError(f"{folder} is not a prepared folder: prepared.yaml is missing; run `synth prepare` first")
        rows = _read_rows(folder)
        if not config.has_field(folder / "prepared.yaml", "schema"):
            schema = config.load(Schema, folder / "prepared.yaml")
            return cls(folder, schema, rows, rows, schema.intensities)
        contents = config.load(Contents, folder / "prepared.yaml")
        folds: tuple[Fold, ...] = ()
        if (folder / SPLITS_FILE).is_file():
            folds = read_folds(folder / SPLITS_FILE)
            tested = {row.patient for row in rows if row.split == "test"}
            check_folds(folds, {row.case: row.patient for row in rows}, folder / SPLITS_FILE, test=tested)
        # anew: folders of before kept columns that name patients
        contents = replace(contents, schema=replace(contents.schema, attributes=_attributes(rows)))
        cases = _as_trained(contents.schema, rows)
        return cls(
            folder,
            contents.schema,
            cases,
            rows,
            contents.stored,
            folds,
            patients_assumed=contents.patients_assumed,
        )

    def at_fold(self, number: int) -> "Prepared":
        """Return the folder as fold `number` sees it: what is learned comes from its training patients alone.

        Its training patients keep their side, train or holdout (all train where none would be left); its
        validation patients are `val`. Cases that the fold does not name are left out, but for the test patients.
        Errors: DataError where there are no folds, ConfigError for one that is not there.
        """
        if not self.folds:
            raise DataError(f"{self.folder} has no folds; run `synth prepare` again with --folds K or --splits FILE")
        if not 0 <= number < len(self.folds):
            raise ConfigError(f"fold {number} is not there; {self.folder} has folds 0 to {len(self.folds) - 1}")
        train, val = (frozenset(names) for names in (self.folds[number].train, self.folds[number].val))
        some = any(row.split == "train" for row in self.rows if row.case in train)
        rows: list[PreparedCase] = []
        for row in self.rows:
            if row.case in train:
                rows.append(row if some else replace(row, split="train"))
            elif row.case in val:
                rows.append(replace(row, split="val"))
            elif row.split == "test":
                rows.append(row)
        schema = learned(self.schema, self.stored, rows)
        return replace(self, schema=schema, cases=_as_trained(schema, rows), fold=number)

    def read_as(self, schema: Schema) -> "Prepared":
        """Return the folder in the terms of a schema that knows all its labels: numbered by name, windows as there.

        Errors: ConfigError where a label is not in `schema`.
        """
        assert not self.numbering, "a folder is read in other terms once"
        names = [label.name for label in schema.labels]
        for label in self.schema.labels:
            if label.name not in names:
                raise ConfigError(f"label {label.name!r} of {self.folder} is unknown; {nearest(label.name, names)}")
        numbering = (0, *(names.index(label.name) + 1 for label in self.schema.labels))
        same = numbering == tuple(range(len(numbering)))
        return replace(self, schema=schema, numbering=() if same else numbering)

    def case(self, name: str) -> PreparedCase:
        """Return the case called `name`; DataError with the nearest name otherwise."""
        for case in self.cases:
            if case.case == name:
                return case
        raise DataError(f"{self.folder} has no case {name!r}; {nearest(name, (case.case for case in self.cases))}")

    @property
    def sha256(self) -> str:
        """Hash of everything in the folder: schema, cases and arrays, whatever the folder is called."""
        whole = hashlib.sha256()
        for path in sorted(path for path in self.folder.rglob("*") if path.is_file()):
            with path.open("rb") as file:
                whole.update(path.relative_to(self.folder).as_posix().encode() + b"\0")
                whole.update(hashlib.file_digest(file, "sha256").digest())
        return whole.hexdigest()

    @property
    def held_out(self) -> tuple[PreparedCase, ...]:
        """The cases that no training step sees: hold-out, then validation, then test."""
        return (*self.split("holdout"), *self.split("val"), *self.split("test"))

    def split(self, name: Split) -> tuple[PreparedCase, ...]:
        """Return the cases of one split, in order."""
        return tuple(case for case in self.cases if case.split == name)

    def image(self, case: PreparedCase, window: tuple[slice, ...] = ()) -> np.ndarray:
        """Return mapped voxels (channel, *grid) float32, those inside `window` where one is given."""
        return self._mapped("images", case, window)

    def mask(self, case: PreparedCase) -> np.ndarray:
        """Return labels (*grid) uint8, 0..K."""
        labels = self._array("masks", case.case)
        return np.array(self.numbering, dtype=np.uint8)[labels] if self.numbering else labels

    def truth(self, case: PreparedCase) -> np.ndarray | None:
        """Return the mapped noise-free voxels, or None where the source has none."""
        return self._mapped("truth", case, ()) if (self.folder / "truth" / f"{case.case}.npy").is_file() else None

    def digest(self, case: PreparedCase) -> str:
        """Return what tells the case from others by its voxels; of its working arrays where the row has none."""
        if case.digest:
            return case.digest
        return voxel_digest(self._array("images", case.case), self._array("masks", case.case))

    @cached_property
    def _rewindowed(self) -> tuple[tuple[Window, IntensityMap] | None, ...]:
        """By channel the window an image is stored in and the one it is seen in, where they differ."""
        pairs = zip(self.stored, self.schema.intensities, strict=True)
        return tuple((own, seen) if isinstance(own, Window) and own != seen else None for own, seen in pairs)

    def _mapped(self, kind: str, case: PreparedCase, window: tuple[slice, ...]) -> np.ndarray:
        array = self._array(kind, case.case)
        array = array[(slice(None), *window)] if window else array
        moves = self._rewindowed[: len(array)]
        if not any(moves):
            return array
        return np.stack(
            [channel if m is None else m[1].apply(m[0].invert(channel)) for channel, m in zip(array, moves)]
        )

    def _array(self, kind: str, case: str) -> np.ndarray:
        path = self.folder / kind / f"{case}.npy"
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{path} cannot be read ({error}); run `synth prepare` again") from error
        if array.shape[array.ndim - len(self.schema.grid) :] != self.schema.grid:
            raise DataError(f"{path} has shape {array.shape}, not grid {self.schema.grid}; run `synth prepare` again")
        return array


def learned(schema: Schema, stored: Sequence[IntensityMap], rows: Sequence[PreparedCase]) -> Schema:
    """Return `schema` with what its training cases say: attributes, texts, intensity maps and type."""
    train = [row for row in rows if row.split == "train"]
    maps = tuple(
        learned_map(own, [row.levels[channel] for row in train], [row.foreground[channel] for row in train])
        for channel, own in enumerate(stored)
    )
    return replace(
        schema,
        attributes=_attributes(train),
        intensities=maps,
        dtype=str(np.result_type(*(np.dtype(row.dtype) for row in train))),
        texts=any(row.text for row in train),
    )


def _attributes(rows: Sequence[PreparedCase]) -> tuple[Attribute, ...]:
    return infer_attributes((row.patient, row.attributes) for row in rows if row.split == "train")


def voxel_digest(*arrays: np.ndarray) -> str:
    """Return the sha256 of arrays: types, shapes and values."""
    whole = hashlib.sha256()
    for array in arrays:
        whole.update(f"{array.dtype.str} {array.shape}".encode())
        whole.update(np.ascontiguousarray(array).tobytes())
    return whole.hexdigest()


def mask_digest(labels: np.ndarray) -> str:
    """Return what tells a mask from others, however its labels are numbered; empty for one value, which tells nothing.

    It is the sha256 of the voxels with 0, 1, ... for their values in order: 0 and 255 are the same mask as 0 and 1.
    """
    values = np.unique(labels)
    if values.size < 2:
        return ""
    return voxel_digest(np.searchsorted(values, labels).astype(np.uint32))


def _as_trained(schema: Schema, rows: Sequence[PreparedCase]) -> tuple[PreparedCase, ...]:
    return tuple(replace(row, attributes=schema.seen_attributes(row.attributes)) for row in rows)


def _read_rows(folder: Path) -> tuple[PreparedCase, ...]:
    """Return the cases of cases.jsonl. Errors: DataError with the line."""
    path = folder / "cases.jsonl"
    if not path.is_file():
        raise DataError(f"{folder} has no cases.jsonl; run `synth prepare` again")
    rows: list[PreparedCase] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
            row["levels"] = tuple(tuple(pair) for pair in row.get("levels", ()))
            for name in ("foreground", "native_grid", "native_affine"):
                row[name] = tuple(row.get(name, ()))
            rows.append(PreparedCase(**row))
            if rows[-1].split not in SPLITS:
                raise ValueError(f"split is {rows[-1].split!r}")
        except (ValueError, TypeError, AttributeError) as error:
            raise DataError(f"{path} line {number} is broken ({error}); run `synth prepare` again") from error
    if not rows or len({row.case for row in rows}) != len(rows):
        raise DataError(f"{path} names no case, or one twice; run `synth prepare` again")
    return tuple(rows)
