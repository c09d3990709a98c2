"""Distances between feature sets against closed forms, brute force and peers."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import linalg, stats

from evaluation import functional as F

Rows = np.ndarray


def _sets(n: int, m: int, d: int, seed: int = 0) -> tuple[Rows, Rows]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(size=(m, d))


def _exactly(rows: Rows, mean: Rows, cov: Rows) -> Rows:
    """Return rows moved so that their mean and covariance are exactly these."""
    centred = rows - rows.mean(axis=0)
    white = np.linalg.solve(np.linalg.cholesky(np.cov(centred, rowvar=False)), centred.T).T
    return white @ np.linalg.cholesky(cov).T + mean


@pytest.mark.parametrize(("n", "m"), [(40, 70), (300, 25)])
def test_frechet_of_gaussians_is_the_closed_form(n: int, m: int) -> None:
    rng = np.random.default_rng(7)
    a, b = (root @ root.T + np.eye(6) for root in rng.normal(size=(2, 6, 6)))
    mean = rng.normal(size=6)
    root = linalg.sqrtm(a)
    expected = mean @ mean + np.trace(a + b - 2 * linalg.sqrtm(root @ b @ root).real)
    x, y = _sets(n, m, 6)
    assert F.frechet_distance(_exactly(x, np.zeros(6), a), _exactly(y, mean, b)) == pytest.approx(expected, rel=1e-9)


def test_frechet_is_torchmetrics_where_that_can_be_trusted() -> None:
    from torchmetrics.image.fid import _compute_fid

    x, y = _sets(400, 300, 24)
    y = 1.3 * y + 0.2
    peer = _compute_fid(*(torch.from_numpy(v) for side in (x, y) for v in (side.mean(0), np.cov(side, rowvar=False))))
    assert F.frechet_distance(x, y) == pytest.approx(float(peer), rel=1e-6)
    assert F.frechet_distance(torch.from_numpy(x), y) == F.frechet_distance(x, y)


@pytest.mark.parametrize("shape", [(9, 40), (200, 12)])
def test_frechet_stands_on_no_origin_and_no_axes(shape: tuple[int, int]) -> None:
    x, y = _sets(shape[0], 30, shape[1])
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(shape[1], shape[1])))[0]
    expected = F.frechet_distance(x, y)
    assert F.frechet_distance(x @ turn + 50, y @ turn + 50) == pytest.approx(expected, rel=1e-9)
    assert F.frechet_distance(y, x) == pytest.approx(expected, rel=1e-9)
    constant = np.ones((len(x), 1)), np.ones((len(y), 1))
    with_constant = F.frechet_distance(np.hstack([x, constant[0]]), np.hstack([y, constant[1]]))
    assert with_constant == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("n", "m", "d"), [(30, 45, 6), (14, 40, 30), (40, 14, 30), (12, 9, 60)])
def test_deleted_groups_are_the_plain_distance_of_what_is_left(n: int, m: int, d: int) -> None:
    from evaluation.functional.frechet import _Thinned

    x, y = _sets(n, m, d)
    dealt = np.arange(n) % 7
    thinned = _Thinned(x, y, dealt)
    for group, other in ((0, 0), (3, 3), (6, 1)):
        left = x[(dealt != group) & (dealt != other)]
        assert thinned((group, other)) == pytest.approx(F.frechet_distance(left, y), rel=1e-5)


@pytest.mark.parametrize(("n", "m"), [(200, 200), (120, 400)])
def test_extrapolation_takes_the_bias_off_and_leaves_the_distance(n: int, m: int) -> None:
    plain, null, far = [], [], []
    for seed in range(12):
        x, y = _sets(n, m, 16, seed)
        plain.append(F.frechet_distance(x, y))
        null.append(F.frechet_distance(x, y, debias=True))
        far.append(F.frechet_distance(x, y + 0.2, debias=True))
    assert np.mean(plain) > 0.7
    assert abs(np.mean(null)) <= 0.08
    assert np.mean(far) == pytest.approx(16 * 0.04, abs=0.1)


def test_frechet_intervals_cover_and_know_patients() -> None:
    honest = naive = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        person = np.repeat(rng.normal(size=(40, 4)), 6, axis=0)
        x, y = 0.9 * person + 0.3 * rng.normal(size=(240, 4)), rng.normal(size=(400, 4)) + 0.5
        truth = 4 * 0.5**2 + 4 * ((0.81 + 0.09) ** 0.5 - 1.0) ** 2
        found = F.frechet_interval(x, y, clusters_x=np.repeat(np.arange(40), 6), groups=10)
        honest += found.interval.low <= truth <= found.interval.high
        assert found.clusters == (40, 400)
        blind = F.frechet_interval(x, y, groups=10)
        naive += blind.interval.low <= truth <= blind.interval.high
    assert honest >= 34 and naive <= honest - 4


@pytest.mark.parametrize(("shift", "factor"), [(0.0, 1.0), (0.3, 1.2)])
def test_frechet_intervals_miss_as_often_as_they_say(shift: float, factor: float) -> None:
    # value +- t SE misses 2 equal sets of 150, and far ones 14 times, 13 of them from below
    sd, whose, missed = 1.0 / np.sqrt(np.arange(1, 17)), np.repeat(np.arange(50), 2), []
    step = shift * float(np.sqrt((sd**2).mean()))
    truth = 16 * step**2 + float((((factor - 1.0) * sd) ** 2).sum())
    for seed in range(150):
        rng = np.random.default_rng(seed)
        person, row = np.repeat(rng.normal(size=(50, 16)), 2, axis=0), rng.normal(size=(100, 16))
        real, made = 0.5**0.5 * (person + row) * sd, factor * rng.normal(size=(100, 16)) * sd + step
        low, high = F.frechet_interval(made, real, clusters_y=whose, seed=seed).interval
        missed.append((high < truth, low > truth))
    below, above = np.sum(missed, axis=0)
    assert 3 <= below + above <= 13 and below <= 10 and above <= 10


@pytest.mark.parametrize("bias", [1.0, 0.0, -0.5])
@pytest.mark.parametrize("value", [-0.6, -0.01, 0.0, 0.01, 0.3, 8.0])
@pytest.mark.parametrize(("linear", "pairs"), [(0.0, 0.0), (0.04, 0.0), (0.0, 0.01), (0.2, 0.01), (0.01, 0.04)])
def test_score_interval_holds_the_value_and_ends_t_standard_errors_away(
    value: float, bias: float, linear: float, pairs: float
) -> None:
    from evaluation.functional.frechet import _score_interval
    from evaluation.functional.statistics import Interval, Jackknife

    found = Jackknife(value + bias, (linear + pairs) ** 0.5, bias, 30.0, Interval(0.0, 0.0), pairs)
    (low, high), t = _score_interval(found, 0.95), stats.t.ppf(0.975, 30)
    assert np.isfinite([low, high]).all() and low <= found.mended.value + 1e-12 and found.mended.value <= high + 1e-12
    if pairs == 0.0:
        half = t * linear**0.5
        assert (low, high) == pytest.approx((value - half, value + half), abs=1e-12)
        return
    near = 2 * pairs / max(bias, (pairs / 2) ** 0.5)
    slope = min((linear + near * pairs**0.5) / (max(value, 0.0) + pairs**0.5), 3 * near)
    least = pairs + max(linear - slope * max(value, 0.0), 0.0)
    for end in (low, high):
        assert (value - end) ** 2 == pytest.approx(t**2 * (least + slope * max(end, 0.0)), rel=1e-6)
    assert least + slope * max(value, 0.0) >= (linear + pairs) * (1 - 1e-12)


def test_frechet_interval_has_the_features_unit_squared() -> None:
    x, y = _sets(60, 50, 5)
    low, high = F.frechet_interval(x, y + 0.4).interval
    assert F.frechet_interval(3 * x, 3 * y + 1.2).interval == pytest.approx((9 * low, 9 * high), rel=1e-6)


def test_frechet_interval_repeats_itself_and_refuses_too_few_patients() -> None:
    x, y = _sets(60, 50, 5)
    assert F.frechet_interval(x, y, seed=3) == F.frechet_interval(x, y, seed=3)
    assert F.frechet_interval(x, y).value == F.frechet_distance(x, y, debias=True)
    with pytest.raises(ValueError, match="patients"):
        F.frechet_interval(x, y, clusters_x=np.arange(60) % 3)


def test_kernel_distance_is_torchmetrics_and_the_double_sum() -> None:
    from torchmetrics.image.kid import poly_mmd

    x, y = _sets(30, 30, 8)
    peer = poly_mmd(torch.from_numpy(x), torch.from_numpy(y))
    assert F.kernel_distance(x, y) == pytest.approx(float(peer), rel=1e-9)

    def k(a: Rows, b: Rows) -> float:
        return float((a @ b / 8 + 1) ** 3)

    y = y[:11]
    slow = np.mean([k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
    slow += np.mean([k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
    slow -= 2 * np.mean([k(a, b) for a in x for b in y])
    assert F.kernel_distance(x, y) == pytest.approx(slow, rel=1e-9)


def test_kernel_distance_over_patients_is_free_of_their_likeness() -> None:
    blind, honest = [], []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        x = np.repeat(rng.normal(size=(8, 4)), 5, axis=0)
        y, who = rng.normal(size=(30, 4)), np.repeat(np.arange(8), 5)
        blind.append(F.kernel_distance(x, y))
        honest.append(F.kernel_distance(x, y, clusters_x=who))
    assert abs(np.mean(honest)) < 3 * np.std(honest) / 150**0.5
    assert np.mean(blind) > 3 * np.std(blind) / 150**0.5


def test_kernel_intervals_cover_the_closed_form() -> None:
    # E k of centred Gaussians of spread a and b is 1 + 3 a^2 b^2 / d, so MMD^2 = 3 / d (a^2 - b^2)^2
    for factor in (1.0, 1.5):
        truth, held = 3 / 6 * (factor**2 - 1.0) ** 2, 0
        for seed in range(60):
            x, y = _sets(80, 60, 6, seed)
            found = F.kernel_interval(factor * x, y, seed=seed)
            held += found.interval.low <= truth <= found.interval.high
            assert found.value == pytest.approx(F.kernel_distance(factor * x, y), abs=1e-12)
        assert held >= 51


def test_kernel_test_sees_a_threefold_spread_and_keeps_its_size() -> None:
    power = [
        F.kernel_test(3 * x, y, resamples=99, seed=seed).p_value
        for seed in range(40)
        for x, y in [_sets(40, 25, 8, seed)]
    ]
    assert np.mean(np.array(power) <= 0.05) >= 0.95
    null = [F.kernel_test(*_sets(40, 25, 8, seed), resamples=99, seed=seed).p_value for seed in range(200)]
    assert 0.01 <= np.mean(np.array(null) <= 0.05) <= 0.09
    assert stats.kstest(null, "uniform").pvalue > 1e-3


def test_kernel_test_permutes_patients() -> None:
    honest, blind, ragged = [], [], []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        x, y = (np.repeat(rng.normal(size=(n, 4)), 4, axis=0) for n in (12, 9))
        a, b = np.repeat(np.arange(12), 4), np.repeat(np.arange(9), 4)
        honest.append(F.kernel_test(x, y, clusters_x=a, clusters_y=b, resamples=99, seed=seed).p_value)
        blind.append(F.kernel_test(x, y, resamples=99, seed=seed).p_value)
        ragged.append(F.kernel_test(x, y[::4], clusters_x=a, resamples=99, seed=seed).p_value)
    assert np.mean(np.array(honest) <= 0.05) <= 0.11
    assert np.mean(np.array(ragged) <= 0.05) <= 0.11
    assert np.mean(np.array(blind) <= 0.05) > 0.3
    assert F.kernel_test(x, y, clusters_x=a, clusters_y=b).clusters == (12, 9)


def test_null_sd_is_the_spread_of_the_distance_between_like_sets() -> None:
    found = [F.kernel_test(*_sets(40, 30, 6, seed), resamples=199) for seed in range(60)]
    assert np.mean([one.null_sd for one in found]) == pytest.approx(np.std([one.value for one in found]), rel=0.35)


def _slow_density(made: Rows, real: Rows, k: int) -> float:
    def radius(j: int) -> float:
        return sorted(np.linalg.norm(real[j] - other) for i, other in enumerate(real) if i != j)[k - 1]

    radii = [radius(j) for j in range(len(real))]
    radii = [min(r, float(np.median(radii))) for r in radii]

    def share(point: Rows, skip: int = -1) -> float:
        inside = [np.linalg.norm(point - real[j]) <= radii[j] for j in range(len(real)) if j != skip]
        return min(1.0, sum(inside) / k)

    own = np.mean([share(point, j) for j, point in enumerate(real)])
    return min(1.0, float(np.mean([share(point) for point in made]) / own))


def test_density_is_the_double_loop() -> None:
    made, real = _sets(25, 31, 3)
    assert F.density_coverage(1.4 * made + 0.5, real, k=3).density == pytest.approx(
        _slow_density(1.4 * made + 0.5, real, 3)
    )


def test_manifold_scores_are_one_for_like_sets_even_constant_ones() -> None:
    for made, real in (_sets(300, 400, 6), (np.ones((20, 3)), np.ones((30, 3)))):
        found = (*F.precision_recall(made, real), *F.density_coverage(made, real))
        assert min(found) > 0.9 and max(found) <= 1.0
    assert F.precision_recall(made, real) == (1.0, 1.0)
    assert F.density_coverage(made, real) == (1.0, 1.0)


def test_manifold_scores_fall_linearly_with_bad_samples() -> None:
    made, real = _sets(400, 400, 8)
    for bad in (0.25, 0.5, 0.75):
        mixed = made.copy()
        mixed[: int(400 * bad)] += 100.0
        density, coverage = F.density_coverage(mixed, real)
        assert density == pytest.approx(1 - bad, abs=0.08)
        assert coverage == pytest.approx(1 - bad, abs=0.08)
        assert F.precision_recall(mixed, real).precision == pytest.approx(1 - bad, abs=0.08)


def test_precision_and_recall_are_not_swapped_and_shrug_at_outliers() -> None:
    made, real = _sets(200, 200, 4)
    narrow = F.precision_recall(0.1 * made, real)
    assert narrow.precision > 0.95 and narrow.recall < 0.4
    half = real.copy()
    half[::2] += 30.0
    dropped = F.precision_recall(made, half)
    assert dropped.precision > 0.9 and dropped.recall == pytest.approx(0.5, abs=0.1)
    far = made + 40.0
    real[:12] += np.linspace(20, 400, 12)[:, None]  # outliers, whose unclipped balls would hold everything
    assert F.precision_recall(far, real).precision == 0.0
    assert F.density_coverage(far, real).density == 0.0
    with pytest.raises(ValueError, match="6 samples"):
        F.precision_recall(made[:5], real)


def test_vendi_counts_what_differs() -> None:
    modes = 100.0 * np.eye(5)
    for count in (1, 2, 5):
        assert F.vendi_score(np.repeat(modes[:count], 6, axis=0), bandwidth=1.0) == pytest.approx(count)
        assert F.vendi_score(np.repeat(modes[:count], 6, axis=0), cosine=True) == pytest.approx(count)
    x, _ = _sets(40, 2, 3)
    wide = F.vendi_score(x, bandwidth=1.0)
    assert F.vendi_score(0.3 * x, bandwidth=1.0) < 0.6 * wide < wide <= 40
    assert F.vendi_score(0.3 * x) == pytest.approx(F.vendi_score(x))
    assert F.vendi_score(np.ones((4, 2))) == pytest.approx(1.0)


def test_sliced_wasserstein_in_one_dimension_is_the_sorted_distance() -> None:
    x, y = _sets(12, 12, 1)
    expected = np.sqrt(((np.sort(x, axis=0) - np.sort(3 * y, axis=0)) ** 2).mean())
    assert F.sliced_wasserstein(x, 3 * y) == pytest.approx(expected)
    x, y = _sets(6, 9, 1)  # the least common multiple repeats both to 18
    expected = np.sqrt(((np.sort(np.repeat(x, 3)) - np.sort(np.repeat(y, 2))) ** 2).mean())
    assert F.sliced_wasserstein(x, y) == pytest.approx(expected)


def test_mind_is_its_formula_at_equal_n() -> None:
    """alpha / (n M) sum_i sum_j |sort(u_i X)_j - sort(u_i Y)_j|^2 with alpha = 3 d."""
    from synth.rng import numpy_rng

    x, y = _sets(30, 30, 7)
    axes = numpy_rng(4, "directions").normal(size=(7, 50))
    axes /= np.linalg.norm(axes, axis=0)
    apart = np.sort(x @ axes, axis=0) - np.sort(2 * y @ axes, axis=0)
    assert F.mind(x, 2 * y, directions=50, seed=4) == pytest.approx(3 * 7 * (apart**2).mean())


def test_sliced_wasserstein_is_zero_for_itself_and_sees_modes_that_moments_do_not() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 3))
    assert F.sliced_wasserstein(x, x) == 0.0
    assert F.sliced_wasserstein(x, np.repeat(x, 2, axis=0)) == pytest.approx(0.0, abs=1e-12)
    two = _exactly(np.sign(rng.normal(size=(400, 3))) + 0.05 * rng.normal(size=(400, 3)), x.mean(0), np.cov(x.T))
    floor = F.sliced_wasserstein(x, rng.normal(size=(400, 3)))
    assert F.frechet_distance(x, two) < 1e-9 and F.sliced_wasserstein(x, two) > 2 * floor


@pytest.mark.parametrize(
    "measure",
    [F.frechet_distance, F.frechet_interval, F.kernel_distance, F.kernel_test, F.precision_recall, F.density_coverage],
)
def test_bad_features_are_refused(measure: Callable[[Rows, Rows], object]) -> None:
    x, y = _sets(10, 10, 3)
    for bad in (np.full_like(y, np.nan), y[:, :2], y[:1], y[0]):
        with pytest.raises(ValueError):
            measure(x, bad)
