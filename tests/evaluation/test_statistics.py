"""Intervals and tests against SciPy, brute force and their own promises."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from evaluation.functional import statistics as S  # noqa: N812


@pytest.mark.parametrize(("successes", "n"), [(0, 7), (3, 7), (7, 7), (120, 400)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_binomial_intervals_are_scipys(successes: int, n: int, level: float) -> None:
    peer = stats.binomtest(successes, n)
    for ours, method in ((S.clopper_pearson, "exact"), (S.wilson, "wilson")):
        assert ours(successes, n, level) == pytest.approx(tuple(peer.proportion_ci(level, method)), abs=1e-9)


def test_zero_of_299_certifies_one_percent_one_sided() -> None:
    assert S.clopper_pearson(0, 299, 0.9).high < 0.01 < S.clopper_pearson(0, 297, 0.9).high


def test_bad_counts_and_levels_are_refused() -> None:
    for bad in ((3, 2, 0.95), (-1, 2, 0.95), (0, 0, 0.95), (1, 2, 1.0)):
        with pytest.raises(ValueError):
            S.clopper_pearson(*bad)


def test_cluster_bootstrap_covers_where_rows_of_a_patient_agree() -> None:
    honest = naive = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        values = np.repeat(rng.normal(size=12), 5) + 0.3 * rng.normal(size=60)
        low, high = S.cluster_bootstrap(values, np.repeat(np.arange(12), 5), seed=seed, resamples=400)
        honest += low <= 0 <= high
        low, high = S.cluster_bootstrap(values, seed=seed, resamples=400)
        naive += low <= 0 <= high
    assert 0.92 <= honest / 400 <= 0.98
    assert naive / 400 < 0.75


def test_cluster_bootstrap_of_the_mean_is_that_of_any_mean() -> None:
    rng = np.random.default_rng(0)
    values, who = rng.normal(size=60), rng.integers(20, size=60)
    fast = S.cluster_bootstrap(values, who, seed=1, resamples=4000)
    slow = S.cluster_bootstrap(values, who, seed=1, resamples=4000, statistic=lambda rows: rows.mean())
    assert fast == pytest.approx(slow, abs=0.03)
    assert S.cluster_bootstrap(values, who, seed=1) == S.cluster_bootstrap(values, who, seed=1)


def test_cluster_bootstrap_refuses_what_says_nothing() -> None:
    for values, who in (([1.0, 2.0], ["a", "a"]), ([1.0, np.nan], None), ([1.0, 2.0], ["a"]), ([], None)):
        with pytest.raises(ValueError):
            S.cluster_bootstrap(values, who, seed=0)


def test_jackknife_of_a_difference_of_means_is_welchs() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=15), 2 * rng.normal(size=9) + 1
    found = S.grouped_jackknife(lambda a, b: a.mean() - b.mean(), [x, y], [None, None])
    peer = stats.ttest_ind(x, y, equal_var=False)
    assert found.interval == pytest.approx(tuple(peer.confidence_interval()), rel=1e-9)
    assert found.freedom == pytest.approx(peer.df)


def test_jackknife_bias_mends_the_plain_variance() -> None:
    x = np.random.default_rng(4).normal(size=18)
    found = S.grouped_jackknife(lambda a: a.var(), [x], [None])
    assert found.value - found.bias == pytest.approx(x.var(ddof=1))
    # 1/n is removed for groups of uneven size too
    uneven = S.grouped_jackknife(lambda a: 2.0 + 3.0 / len(a), [x], [None], groups=5)
    assert uneven.value - uneven.bias == pytest.approx(2.0)


def test_quadratic_jackknife_is_right_where_the_statistic_has_no_slope() -> None:
    def statistic(a: np.ndarray, b: np.ndarray) -> float:
        return float(((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum())

    found = []
    for seed in range(60):
        x, y = np.random.default_rng(seed).normal(size=(2, 40, 30))
        both = [
            S.grouped_jackknife(statistic, [x, y], [None, None], quadratic=quadratic).mended
            for quadratic in (True, False)
        ]
        found.append([both[0].value, both[0].standard_error ** 2, both[1].standard_error ** 2])
    mean, variance, surplus = np.mean(found, axis=0)
    truth = 2 * 30 * (1 / 40 + 1 / 40) ** 2
    assert abs(mean) < 4 * (truth / 60) ** 0.5
    assert variance == pytest.approx(truth, rel=0.4) and surplus > 1.6 * truth


def test_jackknife_deletes_whole_patients_in_at_most_so_many_groups() -> None:
    who = np.repeat(np.arange(50), 3)
    seen = []

    def statistic(rows: np.ndarray) -> float:
        seen.append(np.unique(rows, return_counts=True))
        return float(rows.mean())

    S.grouped_jackknife(statistic, [who], [who], groups=10)
    assert len(seen) == 11
    assert all((counts == 3).all() for _, counts in seen)
    assert all(len(names) == 45 for names, _ in seen[1:])


def test_sign_flips_are_those_listed_by_hand() -> None:
    rng = np.random.default_rng(5)
    values, who = rng.normal(size=14) + 0.4, np.repeat(np.arange(7), 2)
    sums = np.bincount(who, values)
    listed = [abs(np.dot(signs, sums)) for signs in product((1, -1), repeat=7)]
    exact = np.mean([value >= abs(sums.sum()) - 1e-12 for value in listed])
    assert S.paired_permutation(values, who, seed=0) == pytest.approx(exact)
    assert S.paired_permutation(values, who, seed=0, resamples=100) == pytest.approx(exact, abs=0.15)
    one = S.paired_permutation(values, who, seed=0, alternative="greater")
    assert one + S.paired_permutation(values, who, seed=0, alternative="less") >= 1.0
    peer = stats.permutation_test(
        (sums, np.zeros(7)), lambda a, b, axis: (a - b).sum(axis=axis), permutation_type="samples", vectorized=True
    )
    assert exact == pytest.approx(peer.pvalue)


def test_sign_flips_hold_their_size_over_patients() -> None:
    honest, naive = [], []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        values = np.repeat(rng.normal(size=10), 4) + 0.2 * rng.normal(size=40)
        honest.append(S.paired_permutation(values, np.repeat(np.arange(10), 4), seed=seed, resamples=199))
        naive.append(S.paired_permutation(values, seed=seed, resamples=199))
    assert np.mean(np.array(honest) <= 0.05) <= 0.08
    assert np.mean(np.array(naive) <= 0.05) > 0.2


def test_holm_by_hand() -> None:
    assert S.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert S.holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    assert S.holm([]).shape == (0,)
    with pytest.raises(ValueError):
        S.holm([0.5, 1.2])
