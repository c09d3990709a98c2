"""nnU-Net's own scores as arms: reads its summary.json files, several folds or seeds an arm. Trains and writes nothing.

nnU-Net leaves Dice undefined (NaN) where a label is in neither mask; that counts as 1 here, as in
`evaluation.functional.dice`, so that a false alarm on a healthy case costs the arm that raised it.
"""

import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.utility.compare import Comparison, Scores, adjusted, gain
from evaluation.utility.config import COMPARED
from synth.errors import ConfigError, DataError

SUMMARY = "summary.json"


def arms_of(pairs: Sequence[str]) -> dict[str, tuple[Path, ...]]:
    """Return arm -> its folders or files, of NAME=PLACE[,PLACE...]. Errors: ConfigError for one without, or twice.

    >>> arms_of(["R=a,b", "RS=c"])["R"] == (Path("a"), Path("b"))
    True
    """
    out: dict[str, tuple[Path, ...]] = {}
    for pair in pairs:
        name, equals, places = pair.partition("=")
        if not equals or not name or not all(places.split(",")):
            raise ConfigError(f"--nnunet {pair!r} names no arm or no folder; write --nnunet R=FOLDER RS=FOLDER")
        if not re.fullmatch(r"[\w+-]+", name):
            raise ConfigError(f"--nnunet: {name!r} is no name of an arm; use letters, digits, _, + and -")
        if name in out:
            raise ConfigError(f"--nnunet names {name!r} twice; give several folders of an arm with commas, R=A,B")
        out[name] = tuple(Path(place) for place in places.split(","))
    if len(out) < 2:
        raise ConfigError(f"--nnunet names {len(out)} arm; give two or more, R=FOLDER RS=FOLDER")
    return out


def read_arms(
    places: Mapping[str, Sequence[Path]], patients: Mapping[str, str] | None = None
) -> dict[str, dict[str, Scores]]:
    """Return arm -> metric -> scores: `dice` is the mean over labels, `dice.<label>` that of one.

    Cases are known by their reference file's name. A case that several files of an arm score (seeds) is averaged by
    seed; files of other cases (folds) are put together.

    patients   case -> patient; None: each case is its own
    Errors: DataError for no or broken files, arms of different cases, labels or references, patients not known.
    """
    files = {arm: _files(arm, given) for arm, given in places.items()}
    owner: dict[Path, str] = {}
    for arm, own in files.items():
        for file in own:
            if owner.setdefault(file.resolve(), arm) != arm:
                both = f"{owner[file.resolve()]} and {arm}"
                raise DataError(f"--nnunet: {file} is in the folders of both {both}; give each arm its own")
    read = {arm: _rows(arm, own) for arm, own in files.items()}
    first = next(iter(read))
    cases = set(read[first])
    for arm, rows in read.items():
        if set(rows) != cases:
            only = sorted(set(rows) ^ cases)
            where = first if only[0] in cases else arm
            raise DataError(
                f"--nnunet: arms {first} and {arm} were scored on different cases ({len(only)} differ; {only[0]!r} is "
                f"in {where} alone); predict the same test set with both"
            )
        for case in sorted(cases):
            if _described(read[first][case][0]) != _described(rows[case][0]):
                raise DataError(
                    f"--nnunet: arms {first} and {arm} have other labels or another reference of case {case!r}; "
                    "evaluate both against the same labelsTs"
                )
    unknown = sorted(case for case in cases if patients is not None and case not in patients)
    if unknown:
        raise DataError(f"--nnunet: nothing says which patient case {unknown[0]!r} is of; give the --data it is in")
    return {arm: _scores(rows, patients or {case: case for case in cases}) for arm, rows in read.items()}


def compare_arms(arms: Mapping[str, Scores], *, seed: int = 0) -> dict[tuple[str, str], Comparison]:
    """Return (arm, other) -> gain: those of `config.COMPARED` that are there, every other arm against the first.

    p is adjusted over all of them. Errors: DataError for fewer than 5 patients.
    """
    first = next(iter(arms))
    pairs = [(arm, other) for arm, other in COMPARED if {arm, other} <= set(arms)]
    pairs += [(arm, first) for arm in arms if arm != first and (arm, first) not in pairs]
    found = [gain(f"{arm}-{other}", arms[arm], arms[other], seed=seed) for arm, other in pairs]
    return dict(zip(pairs, adjusted(found), strict=True))


Rows = dict[str, list[Mapping[str, Mapping[str, Any]]]]
"""Case -> one table of labels for each file that scores it."""


def _files(arm: str, places: Sequence[Path]) -> list[Path]:
    """Return the summaries of an arm, each once. Errors: DataError for a place without one."""
    files: dict[Path, Path] = {}
    for place in places:
        found = [place] if place.is_file() else sorted(place.rglob(SUMMARY)) if place.is_dir() else []
        if not found:
            raise DataError(f"--nnunet {arm}={place} holds no {SUMMARY}; run nnUNetv2_evaluate_folder first")
        files |= {file.resolve(): file for file in found}
    return list(files.values())


def _rows(arm: str, files: Sequence[Path]) -> Rows:
    """Return the rows of an arm; every case as often as any other, with the same labels in each."""
    rows: Rows = defaultdict(list)
    for file in files:
        for case, metrics in _summary(file):
            rows[case].append(metrics)
    counts = {case: len(many) for case, many in rows.items()}
    if len(set(counts.values())) > 1:
        few, many = min(counts, key=lambda c: counts[c]), max(counts, key=lambda c: counts[c])
        raise DataError(
            f"--nnunet {arm}: case {few!r} is scored {counts[few]} times and {many!r} {counts[many]} times by "
            f"{len(files)} files; give whole seeds, or name one folder of the arm alone"
        )
    labels = set(next(iter(rows.values()))[0])
    for case, tables in rows.items():
        if any(set(one) != labels for one in tables) or len({_described(one) for one in tables}) > 1:
            raise DataError(
                f"--nnunet {arm}: case {case!r} has other labels or another reference than other cases or runs; "
                "evaluate all against one labelsTs and dataset.json"
            )
    return dict(rows)


def _summary(file: Path) -> list[tuple[str, Mapping[str, Mapping[str, Any]]]]:
    """Return (case, label -> metrics) of one file. Errors: DataError."""
    try:
        # nnU-Net writes NaN, which Python reads
        told = json.loads(file.read_text(encoding="utf-8"))["metric_per_case"]
        rows = [(_case(str(row["reference_file"])), row["metrics"]) for row in told]
        scored = [
            (case, label, float(values["Dice"]), [int(values[name]) for name in ("n_ref", "n_pred")])
            for case, metrics in rows
            for label, values in metrics.items()
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise DataError(f"{file} is no {SUMMARY} of nnU-Net v2 ({error!r}); evaluate again") from error
    for one in scored:
        _require_dice(file, *one)
    if not rows or not all(metrics for _, metrics in rows):
        raise DataError(f"{file} scores no case; evaluate again")
    if len({case for case, _ in rows}) != len(rows):
        raise DataError(f"{file} scores a case twice; evaluate again")
    return rows


def _require_dice(file: Path, case: str, label: str, dice: float, voxels: Sequence[int]) -> None:
    """Errors: DataError for a Dice that is none: undefined where a mask holds the label, or outside 0..1."""
    if math.isnan(dice) and not any(voxels):
        return
    if not 0.0 <= dice <= 1.0 or min(voxels) < 0:
        raise DataError(
            f"{file}: case {case!r} has Dice {dice:g} of label {label}, with {voxels[0]} reference and {voxels[1]} "
            "predicted voxels; evaluate again"
        )


def _case(reference: str) -> str:
    """Return the case of a reference file, of either kind of path.

    >>> _case("/data/labelsTs/brain_01.nii.gz"), _case("C:\\\\data\\\\labelsTs\\\\a.b.png")
    ('brain_01', 'a.b')
    """
    name = reference.replace("\\", "/").rsplit("/", 1)[-1]
    name = name.removesuffix(".gz") if name.endswith(".nii.gz") else name
    return name.rsplit(".", 1)[0]


def _described(metrics: Mapping[str, Mapping[str, Any]]) -> tuple[tuple[str, int], ...]:
    """Return each label and the voxels its reference has: what runs and arms must share."""
    return tuple(sorted((label, int(values["n_ref"])) for label, values in metrics.items()))


def _scores(rows: Rows, patients: Mapping[str, str]) -> dict[str, Scores]:
    names = tuple(sorted(rows))
    whose = tuple(patients[case] for case in names)
    labels = sorted(rows[names[0]][0])
    seeds = len(rows[names[0]])
    values = np.array(
        [[[_dice(rows[case][seed][label]) for label in labels] for case in names] for seed in range(seeds)]
    )
    out = {"dice": Scores(values.mean(axis=2), names, whose)}
    for number, label in enumerate(labels if len(labels) > 1 else ()):
        out[f"dice.{label}"] = Scores(values[:, :, number], names, whose)
    return out


def _dice(values: Mapping[str, Any]) -> float:
    found = float(values["Dice"])
    return 1.0 if math.isnan(found) else found
