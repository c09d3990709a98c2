"""Privacy statistics: their level where nobody copies, their power on planted copies, and what they refuse to say."""

import itertools

import numpy as np
import pytest
from scipy import stats

from evaluation import functional as F
from evaluation.functional.membership import auc_interval, log_density, loss_scores, non_members_needed
from evaluation.functional.privacy import Mixtures, copies_needed, nearest_distances, patients_needed
from evaluation.functional.set_level import pooled_set_level_test
from evaluation.functional.statistics import clopper_pearson
from synth.rng import numpy_rng

WIDTH = 12


def normal(*name: int | str, count: int) -> np.ndarray:
    return numpy_rng("privacy", *name).normal(size=(count, WIDTH))


@pytest.mark.parametrize(("training", "holdout", "repeats"), [(904, 120, 20), (5000, 500, 6), (400, 400, 8)])
def test_the_copy_test_keeps_its_level_whatever_the_sizes(training: int, holdout: int, repeats: int) -> None:
    """Dar's rule flags 29 % at 904 and 120, for training to validation is no nearest training to nearest training."""
    size, discoveries = [], 0
    for run in range(repeats):
        sides = (normal("s", run, count=200), normal("t", run, count=training), normal("h", run, count=holdout))
        found = F.copy_test(*sides)
        size.append((found.p_values <= 0.05).mean())
        discoveries += bool(len(found.flagged))
    assert 0.03 <= np.mean(size) <= 0.07
    assert discoveries <= 0.10 * repeats + 1


def test_planted_near_copies_are_found() -> None:
    training, holdout, made = normal("T", count=400), normal("H", count=400), normal("S", count=400)
    made[:20] = training[:20] + 0.05 * normal("N", count=20)
    found = F.copy_test(made, training, holdout)
    assert found.decidable and len(set(found.flagged) & set(range(20))) >= 18
    assert len(found.flagged) <= 24


def test_p_values_are_those_of_the_definition() -> None:
    found, control, patients = [0.5, 2.0, 9.0], [1.0, 2.0, 2.0, 7.0], ["a", "a", "b", "c"]
    by_hand = []
    for s in found:
        groups = [np.mean([c <= s for c, p in zip(control, patients) if p == one]) for one in "abc"]
        by_hand.append((1 + sum(groups)) / 4)
    assert F.conformal_p_values(found, control, patients=patients) == pytest.approx(by_hand)
    assert F.conformal_p_values(found, control) == pytest.approx([1 / 5, 4 / 5, 1.0])


def test_randomised_ties_are_uniform_and_conservative_ones_never_smaller() -> None:
    rng = numpy_rng("ties")
    control, found = rng.integers(0, 3, size=50).astype(float), rng.integers(0, 3, size=4000).astype(float)
    drawn = F.conformal_p_values(found, control, ties="randomised")
    assert (drawn <= F.conformal_p_values(found, control)).all()
    both = [
        F.conformal_p_values(np.array([x[0]]), x[1:], ties="randomised", seed=i)[0]
        for i, x in enumerate(rng.integers(0, 3, size=(2000, 20)).astype(float))
    ]
    assert stats.kstest(both, "uniform").pvalue > 0.001


def test_several_volumes_of_a_patient_do_not_raise_the_level() -> None:
    """Ten volumes a patient, near one another: as so many volumes they would make p-values far too sure."""
    small, rows = [], 400
    for run in range(rows):
        rng = numpy_rng("clustered", run)
        patients = np.repeat(np.arange(19), 10)
        centres = rng.normal(size=20)
        control = centres[patients] + 0.01 * rng.normal(size=190)
        small.append(F.conformal_p_values([centres[19]], control, patients=patients.tolist())[0] <= 0.05)
    assert np.mean(small) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / rows)


def test_limits_are_said() -> None:
    found = F.copy_test(normal("s", count=904), normal("t", count=30), normal("h", count=120))
    assert "at least 75 of 904" in found.note and found.decidable
    few = F.copy_test(normal("s", count=100), normal("t", count=30), normal("h", count=40))
    assert not few.decidable and "a tenth of copies needs 99 patients at least" in few.note
    assert copies_needed(100, patients_needed(0.05)) == 5
    with pytest.raises(ValueError, match="NaN"):
        F.copy_test(np.full((2, 3), np.nan), np.zeros((2, 3)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="name one for each"):
        F.conformal_p_values([1.0], [1.0, 2.0], patients=["a"])


def test_nearest_distances_are_brute_force() -> None:
    x, y = normal("x", count=7), normal("y", count=300)
    brute = [min(float(np.linalg.norm(a - b)) for b in y) for a in x]
    assert nearest_distances(x, y) == pytest.approx(brute)


def test_the_minimum_detectable_rate_falls_with_hold_out_patients() -> None:
    rates = [F.minimum_detectable_rate(np.full(6, 1 / (h + 1)), n=200, holdout=h, repeats=60) for h in (60, 200, 800)]
    assert all(rate is not None for rate in rates)
    assert rates[0] > rates[1] > rates[2]  # pyright: ignore[reportOptionalOperand]
    assert rates[1] >= copies_needed(200, 200) / 200  # pyright: ignore[reportOptionalOperand]
    drawn = Mixtures.draw(np.full(6, 1 / 801), n=200, holdout=800)
    assert drawn.at(0.05).recall > 0.9 and drawn.at(0.0).power == 0.0
    # one mixture by hand: the same flags as the test itself gives
    p = np.where(drawn.chance < 0.05, drawn.copied, drawn.null)[0]
    hit = np.isin(np.flatnonzero(drawn.chance[0] < 0.05), F.benjamini_hochberg(p, q=0.1)).any()
    one = Mixtures(drawn.null[:1], drawn.copied[:1], drawn.chance[:1])
    assert one.at(0.05).power == float(hit)


def test_the_set_level_test_is_calibrated_and_a_binomial_is_not() -> None:
    small, binomial, runs = [], [], 60
    for run in range(runs):
        sides = normal("a", run, count=80), normal("b", run, count=30), normal("c", run, count=20)
        found = F.set_level_test(*sides, permutations=59, matched=bool(run % 2), seed=run)
        small.append(found.p_value <= 0.1)
        matched = F.set_level_test(*sides, permutations=1, seed=run)
        binomial.append(stats.binomtest(round(matched.share * 80), 80).pvalue <= 0.1)
    assert np.mean(small) <= 0.1 + 3 * np.sqrt(0.09 / runs)
    assert np.mean(binomial) > np.mean(small), "samples share neighbours"


def test_the_set_level_test_counts_patients_and_not_copies() -> None:
    """Many copies of one patient are one coin; of ten patients they are ten."""
    training, holdout, made = normal("t", count=30), normal("h", count=30), normal("s", count=200)
    one, ten = made.copy(), made.copy()
    one[:10] = training[0] + 0.01 * normal("n", count=10)
    ten[:10] = training[:10] + 0.01 * normal("n", count=10)
    assert F.set_level_test(one, training, holdout).p_value > 0.05
    assert F.set_level_test(ten, training, holdout).p_value < 0.05
    assert F.set_level_test(ten, holdout, training).p_value > 0.5
    with pytest.raises(ValueError, match="needs 4 of each"):
        F.set_level_test(made, training[:3], holdout)


def test_permuting_patients_keeps_their_volumes_together() -> None:
    """Every volume thrice: the same p as once, where a permutation of volumes would be three times too sure."""
    training, holdout, made = normal("t3", count=10), normal("h3", count=10), normal("s3", count=60)
    whose = np.tile(np.arange(10), 3).tolist()
    once = F.set_level_test(made, training, holdout, permutations=199)
    thrice = F.set_level_test(
        made,
        np.tile(training, (3, 1)),
        np.tile(holdout, (3, 1)),
        training_patients=whose,
        holdout_patients=whose,
        permutations=199,
    )
    assert (once.p_value, once.share) == (thrice.p_value, thrice.share)


def test_pooled_folds_find_copies_in_every_fold_and_keep_their_level() -> None:
    patients = [f"p{i}" for i in range(30)]
    held = [patients[k::3] for k in range(3)]
    rows = dict(zip(patients, normal("real", count=30), strict=True))

    def distances(leak: float, run: int) -> list[np.ndarray]:
        out = []
        for k, outside in enumerate(held):
            made = normal("made", run, k, count=40)
            inside = [one for one in patients if one not in outside]
            for i in range(int(leak * 40)):
                made[i] = rows[inside[i]] + 0.01
            out.append(np.stack([np.linalg.norm(made - rows[one], axis=1) for one in patients], axis=1))
        return out

    names = [patients] * 3
    assert pooled_set_level_test(distances(0.3, 0), names, held, permutations=199).p_value <= 0.02
    small = [pooled_set_level_test(distances(0, run), names, held, permutations=39).p_value <= 0.1 for run in range(30)]
    assert np.mean(small) <= 0.1 + 3 * np.sqrt(0.09 / 30)
    with pytest.raises(ValueError, match="exactly one"):
        pooled_set_level_test(distances(0, 0), names, [held[0], held[0], held[1]])


def test_the_blind_gate_catches_a_shift_and_a_spread() -> None:
    caught, widened, passed, runs = 0, 0, 0, 20
    for run in range(runs):
        training, holdout = normal("gt", run, count=60), normal("gh", run, count=40)
        passed += F.blind_gate(training, holdout, permutations=99, seed=run).ok
        caught += not F.blind_gate(training, holdout + 0.5, permutations=99, seed=run).ok
        widened += not F.blind_gate(training, 2 * holdout, permutations=99, seed=run).ok
    assert caught >= 19 and widened >= 19 and passed >= 16
    gate = F.blind_gate(normal("gt", 0, count=60), normal("gh", 0, count=40) + 0.5)
    assert gate.auc > 0.8 and gate.interval[0] > 0.5 and gate.patients == (60, 40)
    with pytest.raises(ValueError, match="needs 8 of each"):
        F.blind_gate(normal("a", count=7), normal("b", count=20))


def test_the_blind_gate_splits_by_patient() -> None:
    """Volumes of a patient are alike: split by volume they would be recognised, and a fair design called unfair."""
    passed = 0
    for run in range(10):
        centres = normal("centres", run, count=24)
        rows = np.repeat(centres, 4, axis=0) + 0.05 * normal("volumes", run, count=96)
        whose = np.repeat(np.arange(12), 4).tolist()
        passed += F.blind_gate(
            rows[:48], rows[48:], training_patients=whose, holdout_patients=whose, permutations=99
        ).ok
    assert passed >= 8


@pytest.mark.parametrize(("others", "carried"), [(298, ()), (299, (0.01,)), (2994, (0.01,)), (2995, (0.01, 0.001))])
def test_claims_that_the_non_members_cannot_carry_are_refused(others: int, carried: tuple[float, ...]) -> None:
    rng = numpy_rng("claims")
    found = F.membership_test(rng.normal(size=200), rng.normal(size=others))
    assert tuple(found.claims) == carried
    assert set(found.claims) | set(found.refused) == {0.01, 0.001}
    for rate, why in found.refused.items():
        assert f"{non_members_needed(rate)} can" in why and "of 200 members at most" in why


def test_membership_figures_are_those_of_scikit_learn_by_hand() -> None:
    inside, outside = np.array([3.0, 2.0, 2.0, 5.0]), np.array([1.0, 2.0, 4.0])
    pairs = [(a > b) + 0.5 * (a == b) for a, b in itertools.product(inside, outside)]
    assert F.membership_test(inside, outside).auc == pytest.approx(np.mean(pairs))
    rng = numpy_rng("leak")
    others = rng.normal(size=400)
    leaky = F.membership_test(np.concatenate([rng.normal(size=90), np.full(10, 9.0)]), others)
    claim = leaky.claims[0.01]
    threshold = np.sort(others)[-5]
    known = clopper_pearson(round(claim.tpr * 100), 100)
    assert claim.tpr >= 0.10 and claim.interval[0] <= known.low and claim.interval[1] >= known.high
    assert (others > threshold).mean() <= 0.01
    averaged = F.membership_test([1.0, 3.0, 0.0], [0.5, 0.6], member_patients=["a", "a", "b"])
    assert averaged.members == 2 and averaged.auc == 0.5


def test_the_interval_of_an_auc_covers() -> None:
    covered = []
    for run in range(200):
        rng = numpy_rng("auc", run)
        found = F.membership_test(rng.normal(size=30) + 0.74, rng.normal(size=40))
        covered.append(found.interval[0] <= 0.7 <= found.interval[1])
    assert 0.90 <= np.mean(covered) <= 0.99
    assert auc_interval(1.0, 20, 20)[0] < 0.97 and auc_interval(0.0, 20, 20)[1] > 0.03


def test_a_density_ratio_finds_an_over_fitted_generator_and_no_other() -> None:
    training, holdout = normal("mt", count=60), normal("mh", count=60)
    copying = training[np.arange(120) % 60] + 0.1 * normal("mn", count=120)
    leaky = F.density_ratio_test(copying, training, holdout, rng=numpy_rng("r"))
    assert leaky.interval[0] > 0.7 and leaky.members == leaky.non_members == 60
    fair = F.density_ratio_test(normal("ms", count=120), training, holdout, rng=numpy_rng("r"))
    assert fair.interval[0] <= 0.5 <= fair.interval[1]
    with pytest.raises(ValueError, match="needs 8 of each"):
        F.density_ratio_test(copying, training, holdout[:5], rng=numpy_rng("r"))


def test_the_kernel_density_is_scipys_for_unit_spread() -> None:
    sample, points = normal("k", count=50)[:, :2], normal("q", count=5)[:, :2]
    sample = (sample - sample.mean(axis=0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(sample.T))).T
    own, scipys = log_density(points, sample), stats.gaussian_kde(sample.T).logpdf(points.T)
    assert own == pytest.approx(scipys, abs=0.05)
    wide = log_density(normal("k", count=10), normal("q", count=4))
    assert np.isfinite(wide).all(), "fewer rows than dimensions"


def test_losses_at_all_noise_levels_weigh_alike() -> None:
    rng = numpy_rng("losses")
    training, holdout = rng.normal(size=(40, 8)), rng.normal(size=(40, 8))
    training[:, 2:5] -= 1.0
    scale = 10.0 ** np.arange(8)
    found = F.membership_test(*loss_scores(training * scale, holdout * scale))
    assert found.interval[0] > 0.5
    assert found.auc == pytest.approx(F.membership_test(*loss_scores(training, holdout)).auc)
    with pytest.raises(ValueError, match="measure both sides alike"):
        loss_scores(training, holdout[:, :4])


def test_clopper_pearson_is_exact() -> None:
    low, high = clopper_pearson(3, 20)
    own = stats.binomtest(3, 20).proportion_ci(0.95, method="exact")
    assert (low, high) == pytest.approx((own.low, own.high))
    assert clopper_pearson(20, 20)[1] == 1.0 and clopper_pearson(0, 20)[0] == 0.0
    with pytest.raises(ValueError, match="successes"):
        clopper_pearson(5, 4)
