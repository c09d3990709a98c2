"""The judge on phantoms: what the report says, that the control fails, that bytes repeat, how input is refused."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from evaluation.evidence import Bench, Evidence, Judged
from evaluation.judge import judge
from evaluation.report import Figure, Report
from synth.errors import DataError
from tests.conftest import phantom


class Oracle:
    """A segmenter that thresholds phantoms; stands in for a trained one."""

    config = SimpleNamespace(labels=("shell", "core"))

    def label(self, image: np.ndarray) -> tuple[np.ndarray, str]:
        return (image[0] > 0.25).astype(np.uint8) + (image[0] > 0.75).astype(np.uint8), "a"


def items(first: int, count: int, grid: tuple[int, ...] = (16, 18, 20)) -> list[Judged]:
    out = []
    for index in range(first, first + count):
        image, mask = phantom(index, grid)
        out.append(Judged(f"c{index}", image[None] / 800.0, mask, "a"))
    return out


def bench() -> Bench:
    return Bench(cast("Any", Oracle()), {"shell": 1.0, "core": 1.0})


def judged(made: list[Judged], **changes: Any) -> Report:
    settings: dict[str, Any] = {"holdout": items(20, 6), "training": items(40, 6), "population": "phantoms"}
    return judge(Evidence(made, **{**settings, "bench": bench(), **changes}))


@pytest.fixture(scope="module")
def report() -> Report:
    return judged(items(0, 6))


def test_the_report_has_the_published_form(report: Report) -> None:
    plain = cast("dict[str, Any]", report.plain())
    assert plain["schema"] == 1
    assert plain["population"] == "phantoms"
    families = {"fidelity", "diversity", "alignment", "condition", "utility", "privacy", "calibration", "artefact"}
    for name, row in plain["metrics"].items():
        assert name.split(".")[0] in families
        assert {"value", "interval", "n", "better", "unit"} <= set(row) <= {
            "value", "interval", "n", "better", "unit", "floor", "p_value",
        }  # fmt: skip
    assert all(set(verdict) == {"ok", "why"} for verdict in plain["verdicts"].values())
    assert not set(plain["metrics"]) & set(plain["not_computed"])
    assert "below 50" in plain["not_computed"]["fidelity.frechet"]
    assert [row["case"] for row in plain["samples"]] == [f"c{i}" for i in range(6)]


def test_right_pairs_agree_and_permuted_pairs_fail(report: Report) -> None:
    assert report.metrics["alignment.agreement"].value > 0.95
    assert report.verdicts["alignment"].ok is True
    assert report.metrics["alignment.permuted"].value < report.metrics["alignment.agreement"].value
    controls = {report.metrics[f"alignment.{name}"].better for name in ("permuted", "boundary_shifted")}
    assert controls == {"lower"}, "they must be clearly lower"
    assert all(one.floor is not None for one in report.metrics.values() if not one.better), "near which floor?"
    assert report.verdicts["control"].ok is True
    interval = report.metrics["alignment.agreement"].interval
    assert interval is not None
    assert interval[0] <= report.metrics["alignment.agreement"].value <= interval[1]


def test_pairs_handed_over_permuted_do_not_pass() -> None:
    made = items(0, 6)
    wrong = [Judged(a.case, a.image, b.mask) for a, b in zip(made, [*made[1:], made[0]], strict=True)]
    assert judged(wrong).verdicts["alignment"].ok is False


def test_bytes_repeat_and_the_shared_page_holds_no_reference_volume(report: Report, tmp_path: Path) -> None:
    report.write(tmp_path / "one")
    judged(items(0, 6)).write(tmp_path / "two")
    for name in ("report.json", "index.html", "share/index.html", "internal/index.html"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    shared, inside = ((tmp_path / "one" / name / "index.html").read_text() for name in ("share", "internal"))
    assert shared.count("<img") == 1
    assert inside.count("<img") == 3
    assert "http" not in shared
    assert not list((tmp_path / "one").rglob("*.part"))
    assert json.loads((tmp_path / "one" / "report.json").read_text())["schema"] == 1


def test_without_a_segmenter_or_references_the_report_says_what_is_missing() -> None:
    report = judged(items(0, 1), bench=Bench(why_not="none fits"), holdout=[], training=[])
    assert report.not_computed["alignment.agreement"] == "none fits"
    assert {"privacy.nearest", "privacy.copy_test", "diversity.ms_ssim", "fidelity.ssim"} <= set(report.not_computed)
    assert set(report.metrics) == {"alignment.boundary", "alignment.boundary_shifted"}, "all that one pair can tell"


def test_copies_are_flagged() -> None:
    training = items(100, 20, (12, 12))
    made = [*items(0, 18, (12, 12)), *[Judged(f"copy{i}", t.image, t.mask) for i, t in enumerate(training[:2])]]
    report = judged(made, holdout=items(200, 150, (12, 12)), training=training, bench=Bench())
    assert {row["case"] for row in report.samples if row["flagged"]} >= {"copy0", "copy1"}


def test_masks_without_any_known_label_give_no_number() -> None:
    empty = [Judged(item.case, item.image, 0 * item.mask) for item in items(0, 2)]
    assert "alignment.agreement" in judged(empty).not_computed


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ([], "no case"),
        ([Judged("x", np.full((1, 4, 4), np.nan), np.zeros((4, 4), dtype=np.uint8))], "NaN"),
        ([Judged("x", np.zeros((1, 4, 4)), np.zeros((4, 5), dtype=np.uint8))], "is not mask grid"),
        ([*items(0, 1), Judged("x", np.zeros((2, 4, 4, 4)), np.zeros((4, 4, 4), dtype=np.uint8))], "channels"),
    ],
)
def test_what_cannot_be_judged_is_refused(made: list[Judged], said: str) -> None:
    with pytest.raises(DataError, match=said):
        judged(made)


def test_every_family_is_drawn_and_no_volume_of_the_population_is_told(tmp_path: Path) -> None:
    drawn: dict[str, list[Any]] = {}
    report = judged(items(0, 24, (14, 14)), holdout=items(200, 24, (14, 14)), training=items(400, 24, (14, 14)))
    for family, chart in report.charts:
        drawn.setdefault(family, []).append(chart)
    assert set(drawn) == {"alignment", "fidelity", "privacy", "artefact"}
    assert {row[0] for row in drawn["alignment"][0].rows} == {"shell", "core"}
    assert all(row[3] is not None and abs(row[1]) <= 1 for chart in drawn["fidelity"] for row in chart.rows)
    assert {name: len(values) for name, values in drawn["privacy"][0].sets.items()} == {"synthetic": 24, "held out": 24}
    report.write(tmp_path)
    page = (tmp_path / "share" / "index.html").read_text()
    assert page.count("<svg") == len(report.charts)
    few = judged(items(0, 24, (14, 14)), holdout=items(200, 6, (14, 14)), training=items(400, 24, (14, 14)))
    assert not [chart for family, chart in few.charts if family in ("privacy", "artefact")], "six could be told apart"


def test_what_may_show_a_patient_stays_inside() -> None:
    """Training volumes among the samples, samples on real masks and edits of patients are no pictures for others."""
    training, made = items(40, 6), items(0, 6)
    made[1] = replace(made[1], mask_origin="real")
    made[5] = replace(made[5], edits_patient=True)
    made[4] = replace(training[2], case="copy")
    report = judged(made, training=training, interactive=6)
    assert report.verdicts["privacy.images"].ok is False and all(inside for _, _, inside in report.pictures)
    captions = [caption for caption, _, _ in report.pictures if "synthetic volumes" in caption]
    assert len(captions) == 1 and "3 of 6" in captions[0] and "3 that may show a patient are left out" in captions[0]
    assert all(one.inside for one in report.volumes)
    unasked = judge(Evidence(made, training, [], "phantoms"), only=["pictures"])
    assert all(inside for _, _, inside in unasked.pictures)


def test_a_floor_that_is_no_number_is_none() -> None:
    assert "floor" not in Figure(0.5, 3, "higher", floor=float("nan")).plain()
