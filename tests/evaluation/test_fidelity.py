"""The distribution figures of a report: what they see, whose rows they keep together, what they refuse."""

import json

import numpy as np
import pytest
import torch

from evaluation import functional as F
from evaluation.evidence import Evidence, Features, Judged
from evaluation.report import Report
from evaluation.sections.distribution import (
    PATIENTS_A_FEATURE,
    Sides,
    at_equal_n,
    directions_of,
    distribution,
    halves,
    one_each,
    real_pairs,
    spread,
)
from evaluation.sections.diversity import diversity

NAMES = ("frechet", "kernel", "precision", "recall", "density", "coverage", "sliced_wasserstein")


def _evidence(
    made: np.ndarray, held: np.ndarray, patients: int | None = None, trained: np.ndarray | None = None
) -> Evidence:
    """Return evidence whose features are these rows, held-out ones dealt to so many patients."""
    trained = np.zeros((0, 1)) if trained is None else trained
    image, mask = np.zeros((1, 4, 4)), np.zeros((4, 4), dtype=np.uint8)
    real = [Judged(f"r{i}", image, mask, patient=f"p{i % (patients or len(held))}") for i in range(len(held))]
    seen = [Judged(f"t{i}", image, mask, patient=f"q{i}") for i in range(len(trained))]
    evidence = Evidence([Judged(f"s{i}", image, mask) for i in range(len(made))], seen, real, "rows", seed=3)
    evidence.__dict__["_features"] = Features(made, trained, held)
    return evidence


def _judge(made: np.ndarray, held: np.ndarray, patients: int | None = None) -> Report:
    report = Report("rows")
    distribution(_evidence(made, held, patients), report, lambda _: None)
    return report


def _rows(n: int, seed: int, d: int = 8) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.hstack([rng.normal(size=(n, d)) * np.geomspace(1, 1000, d) + 7, np.full((n, 1), 4.0)])


def test_like_sets_are_at_their_floors_and_unlike_ones_are_not() -> None:
    like, unlike = _judge(_rows(60, 0), _rows(70, 1)), _judge(1.6 * _rows(60, 0), _rows(70, 1))
    assert not like.not_computed
    assert set(like.metrics) == {f"fidelity.{name}" for name in NAMES}
    frechet, far = like.metrics["fidelity.frechet"], unlike.metrics["fidelity.frechet"]
    assert frechet.interval is not None and frechet.interval[0] <= 0.1 and abs(frechet.value) < 0.6
    assert far.interval is not None and far.interval[0] > frechet.interval[1]
    assert frechet.floor is not None and abs(frechet.floor) < 1.0
    for name in ("precision", "recall", "density", "coverage"):
        assert like.metrics[f"fidelity.{name}"].value > 0.75
    assert unlike.metrics["fidelity.density"].value < like.metrics["fidelity.density"].value - 0.2
    p_like, p_far = (report.metrics["fidelity.kernel"].p_value for report in (like, unlike))
    assert p_like is not None and p_far is not None and p_far <= 0.01 < p_like
    for report in (like, unlike):
        json.dumps(report.plain(), allow_nan=False)
    assert like.plain() == _judge(_rows(60, 0), _rows(70, 1)).plain()


def test_floors_are_those_of_training_patients_where_there_are_enough() -> None:
    made, held, trained = _rows(30, 0), _rows(40, 1), _rows(200, 2)
    few, many = (real_pairs(_evidence(made, held, None, trained[:count]), lambda _: None) for count in (19, 200))
    assert all(len(sides.first) == 20 and sides.whose_first is not None for sides in few)
    assert all(len(sides.first) == 30 and len(sides.second) == 40 for sides in many) and len(many) > 1
    report = Report("rows")
    distribution(_evidence(made, held, None, trained), report, lambda _: None)
    halved = _judge(made, held)
    figure, other = (one.metrics["fidelity.sliced_wasserstein"] for one in (report, halved))
    assert figure.floor is not None and other.floor is not None and figure.floor < other.floor
    assert (figure.n, other.n) == (30, 20) and other.value > figure.value, "at the floor's n, where it is larger"
    assert "training patients, who stand in" in report.notes[0] and "one half" in halved.notes[0]
    # a training patient who is held out too is no other patient
    same = [Judged("t", item.image, item.mask, patient=item.patient) for item in _evidence(made, held).holdout]
    evidence = Evidence(_evidence(made, held).synthetic, same, _evidence(made, held).holdout, "rows")
    evidence.__dict__["_features"] = Features(made, held, held)
    assert all(sides.whose_first is not None for sides in real_pairs(evidence, lambda _: None))


@pytest.mark.parametrize("trained", [0, 14, 60])
def test_of_like_sets_the_sliced_distance_is_its_floor(trained: int) -> None:
    """At another n it is not: the distance of finite sets of one distribution falls with their size."""
    off, less = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        made, held, train = (rng.normal(size=(n, 5)) for n in (60, 30, max(trained, 1)))
        sides = Sides(made, held)
        if trained:
            pairs = [Sides(train[:60], held)]
        else:
            pairs = [Sides(held[a], held[b]) for a, b in halves(np.arange(30).astype(str), seed)]
        mine, floors = at_equal_n(sides, *pairs, seed=seed)
        assert {(len(one.first), len(one.second)) for one in (*mine, *floors)} == {
            (trained or 15, 30 if trained else 15)
        }
        distance, floor = (
            np.mean([F.sliced_wasserstein(one.first, one.second, directions=32) for one in some])
            for some in (mine, floors)
        )
        off.append(distance - floor)
        less.append(distance - F.sliced_wasserstein(made, held, directions=32))
    assert trained == 60 or np.mean(less) > 0.05
    assert abs(np.mean(off)) < 3 * np.std(off) / np.sqrt(len(off))


def test_few_patients_carry_few_directions_and_those_never_depend_on_the_data() -> None:
    assert directions_of(9, 50) is None
    few, more = directions_of(112, 50), directions_of(112, 150)
    assert few is not None and more is not None
    assert few.shape == (112, 50 // PATIENTS_A_FEATURE)
    assert few.T @ few == pytest.approx(np.eye(few.shape[1]), abs=1e-12)
    assert np.abs(few.T @ more[:, : few.shape[1]]) == pytest.approx(np.eye(few.shape[1]), abs=1e-12), "one series"
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 112)), rng.normal(size=(60, 112)) + 0.3
    assert F.frechet_distance(x @ few, y @ few) < F.frechet_distance(x @ more, y @ more) < F.frechet_distance(x, y)


@pytest.mark.parametrize("tails", [False, True])
def test_frechet_of_like_sets_holds_zero_at_fifty_patients_of_many_features(tails: bool) -> None:
    held, above = [], []
    axes = directions_of(112, 50)
    assert axes is not None
    for seed in range(60):
        rng = np.random.default_rng(seed)
        x, y = (rng.normal(size=(50, 112)) for _ in range(2))
        x, y = (np.exp(side) / 2.16 if tails else side for side in (x, y))
        low, high = F.frechet_interval(x @ axes, y @ axes, seed=seed).interval
        held.append(low <= 0 <= high)
        above.append(low > 0)
    assert np.mean(held) >= 0.9 and np.mean(above) <= 0.05


def test_the_report_says_along_what_frechet_was_measured() -> None:
    rng = np.random.default_rng(0)
    report = _judge(rng.normal(size=(60, 40)), rng.normal(size=(72, 40)))
    figure = report.metrics["fidelity.frechet"]
    assert "along 12 fixed random directions of 40 features: all would need 120 patients" in figure.unit
    assert figure.interval is not None and figure.interval[0] <= 0 <= figure.interval[1]
    assert figure.floor is not None and abs(figure.floor) < 3.0
    assert "MIND's formula" in report.metrics["fidelity.sliced_wasserstein"].unit


def test_a_feature_that_is_constant_in_real_volumes_does_not_explode() -> None:
    made, held = _rows(60, 0), _rows(70, 1)
    made[:, -1] += np.random.default_rng(2).normal(size=60) * 1e-3
    calm, loud = _judge(_rows(60, 0), held), _judge(made, held)
    assert loud.metrics["fidelity.frechet"].value - calm.metrics["fidelity.frechet"].value < 8.0
    assert spread(held, _rows(60, 0))[-1] == 1.0
    assert spread(held, held)[:-1] == pytest.approx(held.std(axis=0)[:-1])


def test_few_patients_are_few_however_many_volumes_they_have() -> None:
    report = _judge(_rows(60, 0), _rows(90, 1), patients=15)
    assert "15 held-out patients; below 50" in report.not_computed["fidelity.frechet"]
    assert "below 20" in report.not_computed["fidelity.coverage"]
    assert "fidelity.kernel" in report.metrics
    assert set(_judge(_rows(6, 0), _rows(0, 1)).not_computed) == {f"fidelity.{name}" for name in NAMES}


def test_volumes_of_a_patient_stay_together() -> None:
    whose = np.repeat([f"p{i}" for i in range(11)], 3)
    for first, second in halves(whose, 0):
        assert not set(whose[first]) & set(whose[second])
        assert sorted([*first, *second]) == list(range(33))
    assert sorted(whose[one_each(whose, 0)]) == sorted(set(whose))
    rng = np.random.default_rng(0)
    person = np.repeat(rng.normal(size=(60, 5)), 3, axis=0)
    held = np.concatenate([person[i::3] for i in range(3)])  # patient i has rows i, i + 60, i + 120
    honest, blind = _judge(rng.normal(size=(60, 5)), held, 60), _judge(rng.normal(size=(60, 5)), held)
    wide, narrow = (report.metrics["fidelity.frechet"].interval for report in (honest, blind))
    assert wide is not None and narrow is not None and wide[1] - wide[0] > narrow[1] - narrow[0]


def test_vendi_sees_a_set_of_few_modes() -> None:
    rng = np.random.default_rng(0)
    held, whole, modes = rng.normal(size=(50, 6)), rng.normal(size=(40, 6)), rng.normal(size=(4, 6))
    collapsed = modes[rng.integers(4, size=40)] + 0.01 * rng.normal(size=(40, 6))
    found = []
    for made in (whole, collapsed, whole[:10]):
        report = Report("rows")
        diversity(_evidence(made, held), report, lambda _: None)
        found.append(report)
    like, few = (report.metrics["diversity.vendi"] for report in found[:2])
    assert like.value == pytest.approx(1.0, abs=0.15) and like.floor == pytest.approx(1.0, abs=0.15)
    assert few.value < 0.5 and few.n == 40
    assert "below 20" in found[2].not_computed["diversity.vendi"]


def test_metrics_are_their_functions_over_batches() -> None:
    from evaluation import (
        DensityCoverage,
        FrechetDistance,
        KernelDistance,
        PrecisionRecall,
        SlicedWasserstein,
        VendiScore,
    )

    rng = np.random.default_rng(1)
    real, made = (torch.from_numpy(rng.normal(size=(n, 4))) for n in (48, 30))
    who = torch.arange(48) // 2
    pairs = (
        (FrechetDistance(debias=True), lambda x, y: F.frechet_distance(x, y, debias=True)),
        (PrecisionRecall(k=3), lambda x, y: F.precision_recall(x, y, k=3)),
        (DensityCoverage(k=3), lambda x, y: F.density_coverage(x, y, k=3)),
        (SlicedWasserstein(seed=2), lambda x, y: F.sliced_wasserstein(x, y, seed=2)),
    )
    for metric, whole in pairs:
        for part in real.split(7):
            metric.update(part, real=True)
        metric.update(made, real=False)
        assert metric.compute().tolist() == pytest.approx(whole(made, real), rel=1e-12)
    frechet, kernel = FrechetDistance(debias=True), KernelDistance()
    for metric in (frechet, kernel):
        for part, own in zip(real.split(7), who.split(7), strict=True):
            metric.update(part, real=True, clusters=own)
        metric.update(made, real=False)
    assert frechet.interval() == F.frechet_interval(made, real, clusters_y=who.tolist())
    assert float(frechet.compute()) == frechet.interval().value
    assert float(kernel.compute()) == F.kernel_distance(made, real, clusters_y=who.tolist())
    assert kernel.permutation_test(resamples=99).clusters == (30, 24)
    vendi = VendiScore(bandwidth=1.0)
    vendi.update(made[:20])
    vendi.update(made[20:])
    assert float(vendi.compute()) == F.vendi_score(made, bandwidth=1.0)
    with pytest.raises(ValueError, match="one per row"):
        frechet.update(made, real=False, clusters=who)
