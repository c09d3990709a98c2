"""What may leave the house names no patient and no case: reasons, verdicts, notes, pages; internal/ alone does."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import evaluation
import pipelines
from evaluation.evidence import Evidence, Judged
from evaluation.judge import judge
from evaluation.privacy.plants import plant
from evaluation.utility.arms import Volumes
from evaluation.utility.compare import by_case
from synth.errors import DataError
from tests.evaluation.test_audit import volumes

NAMED = re.compile(r"meier|schulze|visit", re.IGNORECASE)


def patients(side: str, name: str, count: int) -> list[Judged]:
    found = enumerate(volumes(side, count))
    return [replace(item, case=f"visit_{name}_{i}", patient=f"{name}_{i}") for i, item in found]


def named(made: list[Judged], **more: Any) -> Evidence:
    return Evidence(made, patients("t", "meier", 12), patients("h", "schulze", 12), "pictures", **more)


def odd() -> Judged:
    return Judged("odd", np.full((1, 9, 9), 0.5), np.zeros((9, 9), dtype=np.uint8))


CASES = {
    "copies": lambda: named(
        [
            *volumes("s", 8),
            *(replace(one.item, case=f"c{one.source}", patient="") for one in plant(patients("t", "meier", 12), 6)),
        ]
    ),
    "other grids": lambda: named([*volumes("s", 8), odd()]),
    "weights": lambda: named(
        volumes("s", 8), loss=lambda item: 0.0, selection=frozenset(f"schulze_{i}" for i in range(12))
    ),
    "unaudited": lambda: named(volumes("s", 8), unaudited="nothing is known"),
}


@pytest.mark.parametrize("name", CASES)
def test_no_name_leaves_the_inside(name: str, tmp_path: Path) -> None:
    report = judge(CASES[name](), only=["privacy", "pictures"])
    report.write(tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    outside = [path for path in files if "internal" not in path.relative_to(tmp_path).parts]
    assert {path.name for path in outside} == {"index.html", "report.json"}
    assert not [path for path in outside if NAMED.search(path.read_text())]
    inside = [path for path in files if path.name == "exposure.csv"]
    assert bool(inside) == (name != "unaudited") and all(NAMED.search(path.read_text()) for path in inside)


def test_errors_with_names_say_the_same_without() -> None:
    train, test = patients("t", "meier", 3), patients("h", "schulze", 3)
    grown = replace(train[0], image=np.zeros((1, 5, 5)), mask=np.zeros((5, 5), dtype=np.uint8))
    rows = {0: {item.case: 0.5 for item in test[:2]}}
    for act in (
        lambda: Volumes([grown, *train[1:]], volumes("s", 2), test, ("bright",), (1.0, 1.0)),
        lambda: Volumes(train, volumes("s", 2), train, ("bright",), (1.0, 1.0)),
        lambda: by_case(rows, {item.case: item.whose for item in test}),
    ):
        with pytest.raises(DataError) as told:
            act()
        assert NAMED.search(str(told.value)) and not NAMED.search(told.value.unnamed), told.value.unnamed
    assert DataError("as it is").unnamed == "as it is"


def test_reasons_of_a_report_are_errors_without_names() -> None:
    """`str(error)` may name a case: what goes into a report takes `error.unnamed`."""
    places = [Path(str(room.__file__)).parent for room in (evaluation, pipelines)]
    for path in (path for place in places for path in place.rglob("*.py")):
        assert not re.search(r"(why_not=|not_computed\[.*\] = )str\(", path.read_text()), path
