"""Progress: the plan is what sections do, and a bar reaches its end and not beyond, whatever they find."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from evaluation.evidence import Bench, Evidence, Judged
from evaluation.judge import judge, steps
from evaluation.report import Report
from evaluation.sections import SECTIONS
from evaluation.work import planned
from tests.conftest import phantom
from tests.evaluation.test_sections_alignment import bench


def volumes(name: str, first: int, count: int, *, grid: tuple[int, ...] = (12, 14), **known: Any) -> list[Judged]:
    out = []
    for index in range(first, first + count):
        image, mask = phantom(index, grid)
        out.append(Judged(f"{name}{index}", image[None] / 800.0, mask, "a", attributes={"kind": "a"}, **known))
    return out


def evidence(**changes: Any) -> Evidence:
    told: dict[str, Any] = {
        "synthetic": volumes("s", 0, 7),
        "training": volumes("t", 20, 11),
        "holdout": volumes("h", 40, 6),
        "population": "phantoms",
        "labels": ("shell", "core"),
        "spacing_mm": (2.0, 2.0),
        "bench": bench(),
    }
    return Evidence(**{**told, **changes})


CASES: dict[str, dict[str, Any]] = {
    "everything": {},
    "losses": {"loss": lambda item: np.array([float(item.image.mean())])},
    "losses of those apart": {
        "loss": lambda item: np.array([float(item.image.mean())]),
        "selection": frozenset(f"h{i}" for i in range(40, 45)),
    },
    "losses of nobody": {"loss": lambda item: 0.0, "selection": frozenset(f"h{i}" for i in range(40, 46))},
    "left out": {"training": volumes("t", 20, 9), "holdout": volumes("h", 40, 8)},
    "masks given": {"synthetic": volumes("s", 0, 7, mask_origin="given")},
    "no segmenter": {"bench": Bench(why_not="none fits")},
    "no training": {"training": []},
    "no real": {"training": [], "holdout": []},
    "unaudited": {"unaudited": "nothing is known"},
    "one patient": {"holdout": volumes("h", 40, 3, patient="p")},
    "no masks": {
        side: [replace(item, mask=0 * item.mask) for item in volumes(side[0], first, 4)]
        for side, first in (("synthetic", 0), ("training", 20), ("holdout", 40))
    },
}


@pytest.mark.parametrize("name", CASES)
def test_the_plan_is_what_sections_do(name: str) -> None:
    """Counted without the judge, which would hide what is too many or too few."""
    one = evidence(**CASES[name])
    report, found = Report("phantoms"), {}
    report.samples = [{"case": item.case, "flagged": False} for item in one.synthetic]
    for section, run in SECTIONS.items():
        words: list[str] = []
        run(one, report, words.append)
        found[section] = len(words) + 1
    assert found == dict(planned(evidence(**CASES[name])))


@pytest.mark.parametrize("only", [(), ("privacy",), ("pictures", "diversity"), ("calibration",)])
def test_the_bar_reaches_its_end_and_not_beyond(only: tuple[str, ...]) -> None:
    one, told = evidence(), []
    total = steps(one, only)
    judge(one, only=only, progress=told.append)
    assert len(told) == total
    told.clear()
    judge(one, only=only, progress=told.append)  # features are known by now
    assert len(told) == total


def test_a_section_that_fails_to_measure_does_not_hold_the_bar() -> None:
    """Volumes of several grids are not compared in pose: less work than planned."""
    one, told = evidence(holdout=volumes("h", 40, 6, grid=(5, 5))), []
    judge(one, only=["privacy"], progress=told.append)
    assert len(told) == steps(one, ["privacy"])
