"""What the audit claims holds as often as it says: bounds, joint intervals, one test of several, the n that decide."""

import numpy as np
import pytest
from scipy import stats

from evaluation import functional as F  # noqa: N812 - the name users type
from evaluation.functional.blind_gate import left_out_test
from evaluation.functional.membership import members_needed, membership_test
from evaluation.functional.privacy import (
    Mixtures,
    combined_p_values,
    conformal_p_values,
    copy_rate_bound,
    copy_test_of_distances,
    holdout_needed,
    nearest_distances,
    patients_needed,
)
from evaluation.functional.statistics import clopper_pearson
from evaluation.privacy.findings import found_by
from synth.rng import numpy_rng
from synth.statistics import benjamini_hochberg


@pytest.mark.parametrize("shift", [0.0, 1.5])
@pytest.mark.parametrize(("members", "others"), [(300, 400), (1000, 1000)])
def test_the_interval_of_members_found_covers_though_the_threshold_is_drawn(
    members: int, others: int, shift: float
) -> None:
    """With the threshold taken for known, the interval covered in 52 % (shifted) to 93 % of runs."""
    truth, covered, runs = float(stats.norm.sf(stats.norm.isf(0.01) - shift)), 0, 120
    for run in range(runs):
        rng = numpy_rng("members found", run)
        found = membership_test(rng.normal(size=members) + shift, rng.normal(size=others), rates=[0.01]).claims[0.01]
        covered += found.interval[0] <= truth <= found.interval[1]
        assert found.interval[0] <= found.tpr <= found.interval[1]
    assert covered >= 0.95 * runs


def test_too_few_others_bound_members_found_from_above_alone() -> None:
    """Of 300 others none is certainly (97.5 %) above 99 % of the population, so that the lower end says nothing."""
    rng = numpy_rng("few others")
    far = membership_test(rng.normal(size=100) + 9, rng.normal(size=300)).claims[0.01]
    assert far.interval[0] == 0.0 and far.tpr == far.interval[1] == 1.0
    assert membership_test(np.zeros(50), np.zeros(400)).claims[0.01].interval == (0.0, 1.0), "ties say nothing"


def test_so_many_members_bound_what_guessing_finds() -> None:
    needed, runs = members_needed(0.01, 0.03), 60
    assert needed is not None and members_needed(0.01, 0.01) is None
    held = []
    for run in range(runs):
        rng = numpy_rng("guessing", run)
        held.append(membership_test(rng.random(needed), rng.random(needed), rates=[0.01]).claims[0.01].interval[1])
    assert np.mean(np.array(held) <= 0.03) >= 0.8 - 3 * np.sqrt(0.16 / runs)
    assert np.mean(np.array(held) <= 0.025) < 0.8, "and not many more than are needed"


def test_one_p_value_over_embeddings_is_that_of_the_definition() -> None:
    """Slowly, pool by pool: best ranks, ties by the distance over the pool's median."""
    rng = numpy_rng("pool")
    found, control = rng.random((3, 6)), rng.random((3, 20))
    p = combined_p_values(found, control)
    for i in range(6):
        pool = np.concatenate([control, found[:, [i]]], axis=1)
        ranks = stats.rankdata(pool, method="max", axis=1)
        scores = []
        for j in range(21):
            best = ranks[:, j].min()
            scores.append((best, min(pool[e, j] / np.median(pool[e]) for e in range(3) if ranks[e, j] == best)))
        assert p[i] == pytest.approx(sum(score <= scores[-1] for score in scores) / 21)
    alone = combined_p_values(found[:1], control[:1], patients=list("aabbccddeeffgghhiijj"))
    assert alone == pytest.approx(conformal_p_values(found[0], control[0], patients=list("aabbccddeeffgghhiijj")))


def test_three_embeddings_are_one_chance_and_lose_no_resolution() -> None:
    """A Benjamini-Hochberg in each would flag some sample in a quarter of clean sets of four."""
    once, thrice, size, runs = 0, 0, [], 300
    for run in range(runs):
        rng = numpy_rng("three embeddings", run)
        found, control = rng.random((3, 4)), rng.random((3, 199))
        test = copy_test_of_distances(found, control)
        once += len(test.flagged) > 0
        thrice += any(len(copy_test_of_distances(a, b).flagged) for a, b in zip(found, control, strict=True))
        size.append((test.p_values <= 0.05).mean())
    assert once <= 0.1 * runs + 3 * np.sqrt(0.09 * runs) < thrice
    assert 0.03 <= np.mean(size) <= 0.07
    near, control = np.array([[0.5], [1e-6], [0.5]]), numpy_rng("one control").random((3, 199))
    assert combined_p_values(near, control)[0] == pytest.approx(1 / 200), "one embedding sets the copy apart"


def test_every_embedding_that_finds_the_copies_is_named() -> None:
    """Ties went to the first embedding, and the others counted as independent of what was dropped."""
    rng = numpy_rng("found by")
    found, control = rng.random((3, 100)) + 1, rng.random((3, 199)) + 1
    found[:2, :20] = 0.01
    test = copy_test_of_distances(found, control)
    alone = {name: copy_test_of_distances(a, b) for name, a, b in zip("abc", found, control, strict=True)}
    by = found_by(test, alone)
    assert by["a"] >= 20 and by["b"] >= 20 and by.get("c", 0) <= 0.1 * len(test.flagged)
    clean = copy_test_of_distances(found[:, 20:] + 1, control)
    assert not len(clean.flagged) and not found_by(clean, {"a": clean})


@pytest.mark.parametrize(("seen", "near"), [(0.95, 0.0005), (0.6, 0.02)])
@pytest.mark.parametrize(("holdout", "n"), [(60, 100), (60, 400), (200, 200), (400, 400)])
def test_the_bound_of_the_copy_rate_covers_whatever_is_flagged(holdout: int, n: int, seen: float, near: float) -> None:
    """Copies lie nearer than all but a share `near` of patients in `seen` of cases, planted ones alike."""

    def distances(count: int, rng: np.random.Generator) -> np.ndarray:
        return np.where(rng.random(count) < seen, near * rng.random(count), rng.random(count))

    runs = 40
    for rate in (0.0, 0.02, 0.05, 0.2):
        covered = []
        for run in range(runs):
            rng = numpy_rng("bound", run, round(100 * rate))
            control = rng.random(holdout)
            is_copy = rng.random(n) < rate
            found = np.where(is_copy, distances(n, rng), rng.random(n))
            p, planted = (conformal_p_values(x, control) for x in (found, distances(12, rng)))
            bound = copy_rate_bound(p, planted, holdout=holdout)
            covered.append(bound is None or bound >= max(rate, float(is_copy.mean())))
        assert np.mean(covered) >= 0.95


def test_the_bound_of_a_clean_set_is_near_what_its_size_allows() -> None:
    clean, seen = np.linspace(0.006, 1, 200), np.full(24, 1 / 201)
    bound = copy_rate_bound(clean, seen, holdout=200)
    assert bound is not None and clopper_pearson(0, 200).high < bound < 0.025
    assert copy_rate_bound(clean, np.full(24, 0.5), holdout=200) is None, "no planted copy is seen"
    half = copy_rate_bound(clean, np.where(np.arange(24) % 2, 0.5, seen), holdout=200)
    assert half is not None and half > 1.5 * bound
    # copies that Benjamini-Hochberg needs company for are counted all the same
    some = np.where(np.arange(200) < 10, 1 / 201, clean)
    more = copy_rate_bound(some, seen, holdout=200)
    assert more is not None and more > 10 / 200


def test_copies_better_disguised_than_the_planted_ones_are_not_bounded() -> None:
    seen, disguised = np.full(24, 1 / 101), np.where(np.arange(60) < 59, 2 / 101, 0.9)
    flagged = len(benjamini_hochberg(disguised, q=0.1))
    assert flagged == 59
    assert copy_rate_bound(disguised, seen, holdout=100) is not None, "a threshold below them counts none"
    assert copy_rate_bound(disguised, seen, holdout=100, flagged=flagged) is None


def test_so_many_hold_out_patients_decide() -> None:
    planted, rate, n = np.full(24, 1 / 21), 0.05, 100
    needed = holdout_needed(planted, rate, n=n, holdout=20)
    assert needed is not None and needed > patients_needed(rate), "all copies at once, in every set"
    drawn = Mixtures.draw([1 / (needed + 1)], n=n, holdout=needed, repeats=400, seed=7)
    assert drawn.at(rate).power >= 0.8 - 3 * np.sqrt(0.16 / 400)
    fewer = patients_needed(rate)
    assert Mixtures.draw([1 / (fewer + 1)], n=n, holdout=fewer, repeats=400, seed=7).at(rate).power < 0.75
    assert holdout_needed(np.full(24, 0.5), rate, n=n, holdout=20) is None


def test_the_left_out_control_keeps_its_level_and_can_fail() -> None:
    fair, nearer, farther, runs = 0, 0, 0, 200
    for run in range(runs):
        rng = numpy_rng("left out", run)
        left, held = rng.random((2, 30)), rng.random((2, 60))
        fair += left_out_test(left, held).p_value <= 0.05
        nearer += left_out_test(0.8 * left, 0.2 + 0.8 * held).p_value <= 0.05
        farther += left_out_test(0.2 + rng.random((1, 300)), rng.random((1, 60))).p_value <= 0.05
    assert fair <= 0.05 * runs + 3 * np.sqrt(0.0475 * runs)
    assert nearer >= 0.9 * runs and farther >= 0.7 * runs
    with pytest.raises(ValueError, match="needs 4 and 8"):
        left_out_test(np.zeros((1, 3)), np.zeros((1, 20)))


def test_samples_that_vary_less_than_patients_are_not_accused_and_copies_among_them_are() -> None:
    """Nearer to everybody is not nearer to training: by that distance alone nearly all of them would be flagged."""
    rng = np.random.default_rng(5)
    training, holdout, narrow = rng.normal(size=(200, 24)), rng.normal(size=(250, 24)), 0.5 * rng.normal(size=(100, 24))
    alone = copy_test_of_distances(nearest_distances(narrow, training), nearest_distances(holdout, training))
    assert len(alone.flagged) > 50
    assert not len(F.copy_test(narrow, training, holdout).flagged)
    copied = np.concatenate([training[:12] + 0.05 * rng.normal(size=(12, 24)), narrow[12:]])
    assert F.copy_test(copied, training, holdout).flagged.tolist() == list(range(12))
    others = np.concatenate([holdout[:12] + 0.05 * rng.normal(size=(12, 24)), narrow[12:]])
    assert not len(F.copy_test(others, training, holdout).flagged), "hold-out patients were never trained on"


def test_a_patient_who_was_scanned_twice_is_beside_others_only() -> None:
    rng = np.random.default_rng(6)
    training, first = rng.normal(size=(60, 8)), rng.normal(size=(60, 8))
    twice, names = np.concatenate([first, first + 1e-3]), [*range(60), *range(60)]
    samples = rng.normal(size=(200, 8))
    found = F.copy_test(samples, training, twice, patients=names)
    assert (found.p_values <= 0.05).mean() < 0.1, "his own second scan would make every sample look near to training"
