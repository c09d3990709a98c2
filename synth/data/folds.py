"""Folds of a cross-validation, as nnU-Net's splits_final.json tells them: [{"train": [case, ...], "val": [...]}].

They are of patients: no patient is on both sides of a fold, whoever made it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from synth.errors import ConfigError, DataError
from synth.rng import numpy_rng

SPLITS_FILE = "splits_final.json"
_SIDES = ("train", "val")


@dataclass(frozen=True)
class Fold:
    """The cases that train and those that validate, each in order."""

    train: tuple[str, ...]
    val: tuple[str, ...]


def make_folds(patients: Mapping[str, str], *, count: int, seed: int, first: Iterable[str] = ()) -> tuple[Fold, ...]:
    """Return `count` folds of case -> patient: every patient validates once, sizes differ by one patient at most.

    first   patients dealt out before the others, so that no fold validates more of them than it must
    Errors: ConfigError where there are fewer patients than folds, or fewer than 2 folds.

    >>> folds = make_folds({"a1": "a", "a2": "a", "b1": "b"}, count=2, seed=0)
    >>> sorted(fold.val for fold in folds)
    [('a1', 'a2'), ('b1',)]
    """
    names, early = sorted(set(patients.values())), set(first)
    if count < 2 or count > len(names):
        mend = f"give 2 to {len(names)}" if len(names) > 1 else "leave it out"
        raise ConfigError(f"--folds is {count}, there are {len(names)} patients outside the test split; {mend}")
    drawn = [names[i] for i in numpy_rng(seed, "folds").permutation(len(names))]
    dealt = [*(name for name in drawn if name in early), *(name for name in drawn if name not in early)]
    number = {name: place % count for place, name in enumerate(dealt)}
    cases = sorted(patients)
    return tuple(
        Fold(
            tuple(case for case in cases if number[patients[case]] != fold),
            tuple(case for case in cases if number[patients[case]] == fold),
        )
        for fold in range(count)
    )


def read_folds(path: Path) -> tuple[Fold, ...]:
    """Return the folds of a splits_final.json; what they name is for `check_folds` to judge.

    Errors: DataError where it cannot be read or has another form.
    """
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error}); give nnU-Net's splits_final.json") from error
    form = 'write [{"train": [case, ...], "val": [case, ...]}, ...]'
    if not isinstance(given, list) or not given:
        raise DataError(f"{path} holds no list of folds; {form}")
    out = []
    for number, fold in enumerate(given):
        sides: dict[str, tuple[str, ...]] = {}
        for side in _SIDES:
            names = fold.get(side) if isinstance(fold, dict) else None
            if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
                raise DataError(f"{path}: fold {number} has no list of cases {side!r}; {form}")
            sides[side] = tuple(sorted(names))
        out.append(Fold(**sides))
    return tuple(out)


def check_folds(folds: Sequence[Fold], patients: Mapping[str, str], where: object, *, test: Iterable[str] = ()) -> None:
    """Refuse folds that leak. Errors: DataError with the names.

    A case that is not known, is named twice in a fold or belongs to a patient of `test`; a patient on both sides.
    """
    tested = set(test)
    for number, fold in enumerate(folds):
        named = [*fold.train, *fold.val]
        for wrong, why, mend in (
            ([case for case in named if case not in patients], "names cases that are not there", "remove them"),
            (set(fold.train) & set(fold.val), "has cases in train and val", "take them out of one"),
            ([case for case in named if named.count(case) > 1], "names cases twice", "name each once"),
            ([case for case in named if patients.get(case) in tested], "names cases of test patients", "remove them"),
        ):
            if wrong:
                raise DataError(f"{where}: fold {number} {why}: {_listed(wrong)}; {mend}")
        both = {patients[case] for case in fold.train} & {patients[case] for case in fold.val}
        if both:
            cases = [case for case in named if patients[case] in both]
            raise DataError(
                f"{where}: fold {number} has patients in train and val: {_listed(both)} (cases {_listed(cases)}); "
                "keep every patient on one side"
            )


def dump_folds(folds: Iterable[Fold]) -> bytes:
    """Return the splits_final.json of folds; equal folds give equal bytes."""
    rows = [{"train": list(fold.train), "val": list(fold.val)} for fold in folds]
    return (json.dumps(rows, indent=4) + "\n").encode()


def _listed(names: Iterable[str], most: int = 8) -> str:
    each = sorted(set(names))
    return ", ".join(each[:most]) + (f" and {len(each) - most} more" if len(each) > most else "")
