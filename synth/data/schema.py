"""Schema: what a dataset is, in terms a model needs to be used right. Free of torch; travels in model folders."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from synth.data.intensity import IntensityMap, Percentiles
from synth.errors import ConditionError, nearest
from synth.sample import AttributeValue
from synth.volume import Label

NUMBER = re.compile(r"[+-]?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
"""How tables spell numbers; 007 is none, nor is E10, which is a diagnosis."""
FEW_PATIENTS = 3
"""Up to so many training patients, levels keep their single patients: else next to none would be left."""
OWN_SHARE = 0.5
"""A column of which more than this share of cases have a level of their patient alone tells patients, not kinds."""
Said = tuple[str, Mapping[str, AttributeValue]]


@dataclass(frozen=True, kw_only=True)
class Attribute:
    """One named attribute: its levels, or the range its values had."""

    name: str
    kind: Literal["categorical", "number"]
    levels: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 1.0

    def check(self, value: AttributeValue) -> AttributeValue:
        """Return `value` as the model takes it; ConditionError when it is none of the levels or out of range."""
        if self.kind == "categorical":
            if str(value) not in self.levels:
                raise ConditionError(f"attribute {self.name}={value!r} is unknown; {nearest(str(value), self.levels)}")
            return str(value)
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise ConditionError(
                f"attribute {self.name}={value!r} is not a number; give {self.low} to {self.high}"
            ) from None
        slack = 1e-6 + 1e-3 * (self.high - self.low)
        if not self.low - slack <= number <= self.high + slack:
            raise ConditionError(
                f"attribute {self.name}={value} is outside what the model saw; give {self.low} to {self.high}"
            )
        return number


@dataclass(frozen=True, kw_only=True)
class Schema:
    """Population, channels, labels (background left out), attributes, working grid and native units.

    native_grid, native_spacing_mm   of a typical case, where models work on a coarser grid; empty where they do not
    directed   2D cases were turned to run as the affine does; those of older schemas kept each its own direction
    """

    population: str
    channels: tuple[str, ...]
    labels: tuple[Label, ...]
    attributes: tuple[Attribute, ...] = ()
    grid: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    affine: tuple[float, ...]
    intensities: tuple[IntensityMap, ...] = (Percentiles(),)
    dtype: str = "float32"
    file_ending: str = ".nii.gz"
    texts: bool = False
    native_grid: tuple[int, ...] = ()
    native_spacing_mm: tuple[float, ...] = ()
    directed: bool = False

    @property
    def reference_affine(self) -> np.ndarray:
        """The working affine (4, 4) of volumes that follow no given geometry."""
        return np.array(self.affine, dtype=np.float64).reshape(4, 4)

    @property
    def direction(self) -> np.ndarray | None:
        """Unit columns (3, 2) along which 2D axes run; None in 3D, which is RAS, and where they keep their own."""
        return np.sign(self.reference_affine[:3, :2]) if self.directed and len(self.grid) == 2 else None

    @property
    def native_affine(self) -> np.ndarray:
        """The affine (4, 4) of a typical case, centred as the working grid is."""
        assert self.native_grid, "the working grid is the native one"
        dims = len(self.grid)
        centre = self.reference_affine @ [*((n - 1) / 2 for n in self.grid), *[0.0] * (3 - dims), 1.0]
        affine = self.reference_affine
        # working axes run along world axes, so that signs are the whole direction
        affine[:3, :dims] = np.sign(affine[:3, :dims]) * np.array(self.native_spacing_mm)
        affine[:3, 3] = centre[:3]
        for axis, n in enumerate(self.native_grid):
            affine[:3, 3] -= affine[:3, axis] * (n - 1) / 2
        return affine

    @property
    def label_values(self) -> dict[str, int]:
        """Name -> value in the source's own numbering."""
        return {label.name: label.value for label in self.labels}

    def check_attributes(self, given: Mapping[str, AttributeValue]) -> dict[str, AttributeValue]:
        """Return the attributes as the model takes them; ConditionError names what is unknown."""
        known = {attribute.name: attribute for attribute in self.attributes}
        for name in given:
            if name not in known:
                raise ConditionError(f"attribute {name!r} is unknown to the model; {nearest(name, known)}")
        return {name: known[name].check(value) for name, value in given.items()}

    def seen_attributes(self, given: Mapping[str, AttributeValue]) -> dict[str, AttributeValue]:
        """Return the attributes of a case that training cases had too; of others the model knows only null.

        Left out are attributes and levels that no training case had, and words where they had numbers.
        """
        known = {attribute.name: attribute for attribute in self.attributes}
        out: dict[str, AttributeValue] = {}
        for name, value in given.items():
            if name not in known:
                continue
            if known[name].kind == "categorical":
                if str(value) in known[name].levels:
                    out[name] = str(value)
            elif isinstance(value, (int, float)) or spells_number(value):
                out[name] = float(value) if isinstance(value, str) else value
        return out


def spells_number(text: str) -> bool:
    """True where `text` is a finite number as tables spell it.

    >>> [spells_number(text) for text in ("1.5", "-2e3", "007", "n/a", ".", "E10", "1e999")]
    [True, True, False, False, False, False, False]
    """
    return NUMBER.fullmatch(text) is not None and math.isfinite(float(text))


def infer_attributes(said: Iterable[Said]) -> tuple[Attribute, ...]:
    """Return the attributes of cases: numbers where every value is or spells one, levels otherwise; by first sight.

    said   (patient, what is said of the case) of each case

    A level that one patient alone has may be a name, so it is none of the model's, and a column that mostly has such
    levels is left out (`of_one_patient` tells which). A table's column is text as soon as one cell is, of whatever
    case: what other cases say must not decide here.
    """
    said = list(said)
    own = of_one_patient(said)
    out: list[Attribute] = []
    for name in dict.fromkeys(key for _, row in said for key in row):
        values = [row[name] for _, row in said if name in row]
        if _numbers(values):
            numbers = [float(value) for value in values]
            out.append(Attribute(name=name, kind="number", low=min(numbers), high=max(numbers)))
        elif levels := {str(value) for value in values} - own.get(name, set()):
            out.append(Attribute(name=name, kind="categorical", levels=tuple(sorted(levels))))
    return tuple(out)


def of_one_patient(said: Iterable[Said]) -> dict[str, set[str]]:
    """Return column -> its levels that must not leave with a model; all of them where most cases have such a level.

    >>> rows = [(f"p{n}", {"sex": "fm"[n % 2], "name": f"n{n}", "site": "b" if n else "a"}) for n in range(4)]
    >>> {name: sorted(levels) for name, levels in of_one_patient(rows).items()}
    {'name': ['n0', 'n1', 'n2', 'n3'], 'site': ['a']}
    """
    said = list(said)
    if len({patient for patient, _ in said}) <= FEW_PATIENTS:
        return {}
    out: dict[str, set[str]] = {}
    for name in dict.fromkeys(key for _, row in said for key in row):
        values = [row[name] for _, row in said if name in row]
        if _numbers(values):
            continue
        whose: dict[str, set[str]] = defaultdict(set)
        for patient, row in said:
            if name in row:
                whose[str(row[name])].add(patient)
        single = {level for level, patients in whose.items() if len(patients) == 1}
        if sum(str(value) in single for value in values) > OWN_SHARE * len(values):
            single = set(whose)
        if single:
            out[name] = single
    return out


def _numbers(values: Iterable[AttributeValue]) -> bool:
    return all(isinstance(value, (int, float)) or spells_number(value) for value in values)
