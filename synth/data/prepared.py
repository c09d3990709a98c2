"""The prepared folder: what `synth prepare` writes and training reads.

prepared.yaml (Schema), cases.jsonl, images/<case>.npy float32 (channel, *grid) mapped,
masks/<case>.npy uint8 (*grid) with labels 0..K in schema order, truth/<case>.npy where known.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from synth import config
from synth.data.schema import Schema
from synth.errors import DataError, nearest
from synth.sample import AttributeValue

Split = Literal["train", "holdout", "test"]
SPLITS: tuple[Split, ...] = ("train", "holdout", "test")


@dataclass(frozen=True, kw_only=True)
class PreparedCase:
    """One case of a prepared folder; levels are its own intensity levels per channel where it has any."""

    case: str
    patient: str
    split: Split
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    text: str | None = None
    levels: tuple[tuple[float, float], ...] = ()
    native_grid: tuple[int, ...] = ()
    native_affine: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class Prepared:
    """A prepared folder, opened; arrays are memory-mapped."""

    folder: Path
    schema: Schema
    cases: tuple[PreparedCase, ...]

    @classmethod
    def load(cls, folder: str | Path) -> "Prepared":
        """Open `folder`; DataError names what is missing or broken."""
        folder = Path(folder)
        if not (folder / "prepared.yaml").is_file():
            raise DataError(f"{folder} is not a prepared folder: prepared.yaml is missing; run `synth prepare` first")
        schema = config.load(Schema, folder / "prepared.yaml")
        path = folder / "cases.jsonl"
        if not path.is_file():
            raise DataError(f"{folder} has no cases.jsonl; run `synth prepare` again")
        cases = []
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            try:
                row = json.loads(line)
                row["levels"] = tuple(tuple(pair) for pair in row.get("levels", ()))
                row["native_grid"] = tuple(row.get("native_grid", ()))
                row["native_affine"] = tuple(row.get("native_affine", ()))
                cases.append(PreparedCase(**row))
                if cases[-1].split not in SPLITS:
                    raise ValueError(f"split is {cases[-1].split!r}")
            except (ValueError, TypeError, AttributeError) as error:
                raise DataError(f"{path} line {number} is broken ({error}); run `synth prepare` again") from error
        if not cases or len({case.case for case in cases}) != len(cases):
            raise DataError(f"{path} names no case, or one twice; run `synth prepare` again")
        return cls(folder, schema, tuple(cases))

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

    def split(self, name: Split) -> tuple[PreparedCase, ...]:
        """Return the cases of one split, in order."""
        return tuple(case for case in self.cases if case.split == name)

    def image(self, case: PreparedCase) -> np.ndarray:
        """Return mapped voxels (channel, *grid) float32."""
        return self._array("images", case.case)

    def mask(self, case: PreparedCase) -> np.ndarray:
        """Return labels (*grid) uint8, 0..K."""
        return self._array("masks", case.case)

    def truth(self, case: PreparedCase) -> np.ndarray | None:
        """Return the mapped noise-free voxels, or None where the source has none."""
        return self._array("truth", case.case) if (self.folder / "truth" / f"{case.case}.npy").is_file() else None

    def _array(self, kind: str, case: str) -> np.ndarray:
        path = self.folder / kind / f"{case}.npy"
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{path} cannot be read ({error}); run `synth prepare` again") from error
        if array.shape[array.ndim - len(self.schema.grid) :] != self.schema.grid:
            raise DataError(f"{path} has shape {array.shape}, not grid {self.schema.grid}; run `synth prepare` again")
        return array
