"""What a judge is compared with: its own score on patients who did not train it, each counted once."""

from dataclasses import replace

import numpy as np
import pytest

from evaluation import functional as F
from evaluation.evidence import Evidence, Judged
from evaluation.segmented import own_score, segmented
from tests.evaluation.test_sections_alignment import Stated, bench, eroded, items, judged


def test_what_a_judge_says_of_itself_counts_for_nothing_where_it_can_be_measured() -> None:
    made, held = items(0, 8), items(40, 8)
    poor = [replace(item, mask=eroded(item.mask)) for item in held]
    told = [
        judged(made, holdout=side, bench=replace(bench(), recorded=[{"shell": said, "core": said}] * 8))
        for side, said in ((held, 0.2), (held, 1.0), (poor, 1.0))
    ]
    values = [report.metrics["alignment.agreement"].value for report in told]
    assert values[0] == values[1] == pytest.approx(1.0, abs=0.02) and values[2] > values[0] + 0.05
    assert "8 held-out patients whom it was not trained on" in told[0].verdicts["alignment"].why
    assert told[2].metrics["alignment.dice.shell"].floor == pytest.approx(
        np.mean([row[0] for row in _dices(poor)]), abs=1e-6
    )


def _dices(held: list[Judged]) -> list[np.ndarray]:
    return [F.dice(Stated().label(item.image)[0], item.mask, labels=[1, 2]) for item in held]


def test_those_who_trained_the_judge_are_not_those_it_is_measured_on() -> None:
    held = [replace(item, patient=f"p{n // 2}") for n, item in enumerate(items(40, 16))]
    # the patients who trained it are segmented perfectly, the others not
    held = [replace(item, mask=eroded(item.mask)) if n >= 6 else item for n, item in enumerate(held)]
    some, every = frozenset({"p0", "p1", "p2"}), frozenset(f"p{n}" for n in range(8))
    report = judged(items(0, 8), holdout=held, bench=replace(bench(), saw=some))
    assert "5 held-out patients" in report.verdicts["alignment"].why, "patients, not volumes"
    assert report.metrics["alignment.dice.core"].floor == pytest.approx(np.mean([row[1] for row in _dices(held[6:])]))
    assert any("3 of 8 held-out patients trained the segmenter" in note for note in report.notes)
    refused = judged(items(0, 8), holdout=held, bench=replace(bench(), saw=every))
    assert "trained on every patient held out" in refused.not_computed["alignment.agreement"]
    assert "alignment" not in refused.verdicts and "alignment.agreement" not in refused.metrics
    assert refused.metrics["alignment.dice.core"].floor is None
    nobody = judged(items(0, 8, site="x"), holdout=[], bench=replace(bench(), recorded=()))
    assert "no held-out patients" in nobody.not_computed["alignment.agreement"]


def test_a_recorded_score_counts_as_the_patients_it_was_recorded_on() -> None:
    some = [{"shell": 0.9 + 0.01 * n, "core": 0.95} for n in range(8)]
    told = {
        n: judged(items(0, 12), holdout=[], bench=replace(bench(), recorded=some[:n])).verdicts["alignment"]
        for n in (2, 8)
    }
    assert told[8].ok is True and "8 held-out patients where it was made, as recorded with it" in told[8].why
    assert told[2].ok is None and "with 12 samples and 2 held-out patients; it takes 5 of each" in told[2].why
    poor = [{"shell": 0.6 if n % 2 else 1.0, "core": 0.95} for n in range(8)]
    report = judged(
        [replace(i, mask=eroded(i.mask)) for i in items(0, 12)], holdout=[], bench=replace(bench(), recorded=poor)
    )
    interval = report.metrics["alignment.agreement"].interval
    assert interval is not None and interval[1] - interval[0] > 0.05, "the recorded patients move it too"
    assert report.metrics["alignment.dice.shell"].floor == pytest.approx(0.8)
    only_core = judged(items(0, 12), holdout=[], bench=replace(bench(), recorded=[{"core": 0.95}] * 8))
    assert only_core.metrics["alignment.dice.shell"].floor is None


def test_samples_without_a_label_are_not_counted() -> None:
    made = items(0, 7)
    made = [replace(item, mask=0 * item.mask) if n > 2 else item for n, item in enumerate(made)]
    report = judged(made)
    assert report.metrics["alignment.agreement"].n == 3 and report.metrics["alignment.agreement"].interval is None
    assert "with 3 samples and 8 held-out patients" in report.verdicts["alignment"].why


def test_a_patient_who_was_scanned_often_counts_once() -> None:
    first, rest = items(40, 5), items(50, 3)
    held = [replace(item, patient=f"p{n}") for n, item in enumerate(first)]
    held += [replace(item, patient="p0", mask=eroded(item.mask)) for item in rest for _ in range(6)]
    one = Evidence(items(0, 5), [], held, "phantoms", bench=bench())
    found = own_score(one, lambda _: None)
    assert found is not None and found.rows.shape == (5, 2)
    expected = np.array(_dices(held))
    mine = expected[[item.patient == "p0" for item in held]].mean(axis=0)
    assert found.rows[0] == pytest.approx(mine)
    assert found.mean == pytest.approx(np.mean([mine, *expected[1:5]], axis=0))
    many = [replace(item, patient="p0" if n < 60 else f"q{n}") for n, item in enumerate(items(100, 70))]
    kept = segmented(Evidence(items(0, 1), [], many, "phantoms", bench=bench()), lambda _: None).holdout
    assert {one.item.patient for one in kept} == {item.patient for item in many}, "everybody before anybody twice"


def test_masks_that_samples_share_are_no_control() -> None:
    made = items(0, 6)
    same = [replace(item, mask=made[0].mask) for item in made]
    assert "unlike masks" in judged(same).not_computed["alignment.permuted"]
    assert "control" not in judged(same).verdicts
    assert 0 < judged([*same[:4], *made[4:]]).metrics["alignment.permuted"].n < 6


def test_anatomy_counts_patients() -> None:
    held = [replace(item, patient=f"p{n % 4}") for n, item in enumerate(items(40, 16))]
    report = judged(items(0, 10), holdout=held)
    assert "4 hold-out patients; needs 5" in report.not_computed["alignment.volume.core"]
    held = [replace(item, patient=f"p{n % 8}") for n, item in enumerate(items(40, 24))]
    figure = judged(items(0, 10), holdout=held).metrics["alignment.volume.core"]
    assert "against 8 patients" in figure.unit and figure.n == 10 and figure.p_value is not None


def test_classes_that_the_judge_does_not_know_are_no_errors() -> None:
    kinds = ["a", "a", "a", "c", "d", "d"]
    made = [
        replace(item, asked=kind, text=f"{kind} scan", attributes={"kind": kind, "site": "x" if kind == "a" else "y"})
        for item, kind in zip(items(0, 6), kinds, strict=True)
    ]
    report = judged(made, holdout=[*items(40, 6), *items(50, 2, kind="d")])
    figure = report.metrics["condition.class"]
    assert (figure.value, figure.n, figure.floor) == (1.0, 3, 1.0), "the floor is of the 6 whose class it knows"
    assert "2 samples ask for it, the classifier of the bench knows a, b" in report.not_computed["condition.class.d"]
    assert report.metrics["condition.text.kind"].n == 3 and "condition.text.kind.d" in report.not_computed
    rows = {
        row["level"]: row["n"]
        for row in report.subgroups
        if (row["figure"], row["attribute"]) == ("condition.class", "site")
    }
    assert rows == {"x": 3, "y": 0}
    none = judged([replace(item, asked="c") for item in items(0, 5)])
    assert "condition.class" not in none.metrics and "no sample asks" in none.not_computed["condition.class"]
