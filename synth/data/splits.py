"""Patient-level splits: every case of a patient lies on one side, overlapping crops included."""

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from synth.data.dataset import Case
from synth.data.folds import Fold, check_folds, make_folds, read_folds
from synth.data.prepared import Split
from synth.errors import ConfigError, DataError
from synth.rng import numpy_rng

TEST_SHARE = 0.1


@dataclass(frozen=True, kw_only=True)
class Division:
    """Whose each case is (case -> patient), on which side it lies, and the folds; all by patient.

    assumed   nothing said whose the cases are, so each was taken as its own patient
    """

    patients: Mapping[str, str]
    splits: Mapping[str, Split]
    folds: tuple[Fold, ...] = ()
    assumed: bool = False

    @property
    def unnamed(self) -> tuple[str, ...]:
        """Cases that no fold names, where there are folds."""
        named = {case for fold in self.folds for case in (*fold.train, *fold.val)}
        return tuple(case for case in self.patients if case not in named) if self.folds else ()


@dataclass(frozen=True, kw_only=True)
class DivisionOptions:
    """How to divide: whose the cases are, shares of patients, and how many folds, or a file of given ones.

    test   None: a tenth; with a file of folds, the patients that it leaves out
    """

    patients: str | None = None
    holdout: float = 0.1
    test: float | None = None
    folds: int | None = None
    given: Path | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.folds is not None and self.given is not None:
            raise ConfigError("--folds and --splits both make folds; give one of them")
        if self.test is not None and self.given is not None:
            raise ConfigError("--splits says who is in no fold, and these are the test patients; leave --test out")


def divide(cases: Sequence[Case], options: DivisionOptions) -> Division:
    """Return who is whose, and on which side; the test patients are in no fold.

    Errors: ConfigError, DataError for options, tables and folds that do not fit the cases.
    """
    patients, assumed = patients_of(cases, options.patients)
    if options.given is None:
        test = TEST_SHARE if options.test is None else options.test
        splits = split_patients(patients, holdout=options.holdout, test=test, seed=options.seed)
        folds: tuple[Fold, ...] = ()
        if options.folds is not None:
            inside = {case: patient for case, patient in patients.items() if splits[case] != "test"}
            held = {patient for case, patient in inside.items() if splits[case] == "holdout"}
            folds = make_folds(inside, count=options.folds, seed=options.seed, first=held)
        return Division(patients=patients, splits=splits, folds=folds, assumed=assumed)
    folds = read_folds(options.given)
    check_folds(folds, patients, options.given)
    named = {patients[case] for fold in folds for case in (*fold.train, *fold.val)}
    inside = {case: patient for case, patient in patients.items() if patient in named}
    sides = split_patients(inside, holdout=options.holdout, test=0.0, seed=options.seed)
    around: dict[str, Split] = {case: sides.get(case, "test") for case in patients}
    return Division(patients=patients, splits=around, folds=folds, assumed=assumed)


def patients_of(cases: Sequence[Case], rule: str | None) -> tuple[dict[str, str], bool]:
    """Return case -> patient, and whether that was assumed.

    rule   None: the dataset's own patient column, else each case its own (assumed); "each"; a CSV with
           columns case, patient; or a regular expression whose first group names the patient
    Errors: ConfigError, DataError naming the case whose patient is not known: to guess would leak.
    """
    if rule is None:
        unknown = [case.id for case in cases if not case.patient]
        if not unknown:
            return {case.id: str(case.patient) for case in cases}, False
        if len(unknown) < len(cases):
            raise DataError(
                f"there is no patient for case {unknown[0]!r}, others have one; name all in cases.csv, "
                "or say with --patients whose they are"
            )
        return {case.id: case.id for case in cases}, True
    if rule == "each":
        return {case.id: case.id for case in cases}, False
    if rule.endswith(".csv"):
        return _from_table(cases, Path(rule)), False
    try:
        pattern = re.compile(rule)
    except re.error as error:
        raise ConfigError(
            f"--patients {rule!r} is no regular expression ({error}); mend it, or give each or a CSV"
        ) from error
    out: dict[str, str] = {}
    for case in cases:
        match = pattern.search(case.id)
        if match is None or not match.groups() or not match.group(1):
            raise ConfigError(
                f"--patients {rule!r} finds no patient in case {case.id!r}; give a pattern with one (group)"
            )
        out[case.id] = match.group(1)
    return out, False


def _from_table(cases: Sequence[Case], path: Path) -> dict[str, str]:
    if not path.is_file():
        raise DataError(f"{path} does not exist; give a CSV with columns case, patient")
    rows: dict[str, str] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            for row in csv.DictReader(file):
                case, patient = row.get("case") or "", row.get("patient") or ""
                if rows.setdefault(case, patient) != patient:
                    raise DataError(f"{path} names two patients for case {case!r}; mend one line")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as CSV ({error}); write it again as UTF-8") from error
    for case in cases:
        if not rows.get(case.id):
            raise DataError(f"{path} names no patient for case {case.id!r}; add a line")
    return {case.id: str(rows[case.id]) for case in cases}


def split_patients(patients: Mapping[str, str], *, holdout: float, test: float, seed: int) -> dict[str, Split]:
    """Return case -> split; shares are of patients, each side gets at least one where there are three or more.

    One or two patients: all train, since nothing can then be judged apart.
    """
    if not (0 <= holdout < 1 and 0 <= test < 1 and holdout + test < 1):
        raise ConfigError(f"--holdout {holdout} and --test {test} are shares that leave some for training")
    names = sorted(set(patients.values()))
    order = [names[i] for i in numpy_rng(seed, "split").permutation(len(names))]
    held = max(round(holdout * len(names)), 1) if holdout and len(names) >= 3 else 0
    tested = max(round(test * len(names)), 1) if test and len(names) >= 3 else 0
    while held + tested >= len(names) > 0:  # rounding may not take the last patient from training
        held, tested = (held - 1, tested) if held >= tested else (held, tested - 1)
    sides: dict[str, Split] = {}
    for number, name in enumerate(order):
        sides[name] = "holdout" if number < held else "test" if number < held + tested else "train"
    return {case: sides[patient] for case, patient in patients.items()}
