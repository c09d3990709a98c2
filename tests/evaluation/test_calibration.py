"""Calibration at its edges, its null, regions, volumes and raters: closed forms and fixtures that can fail."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from evaluation import functional as F


def calibrated(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    p = rng.random(n)
    return p, (rng.random(n) < p).astype(float)


def test_zero_and_one_are_in_a_bin() -> None:
    """MetricsReloaded's (l, u] bins give 0.05 for the first, for p = 0 is in none, and NaN for the second."""
    assert F.expected_calibration_error([0.0] * 50 + [0.95] * 50, [1] * 100) == pytest.approx(0.525)
    assert F.expected_calibration_error([0.0] * 9, [0] * 9) == 0.0
    assert F.expected_calibration_error([0.0] * 9 + [1.0] * 9, [1] * 9 + [0] * 9) == 1.0


def test_a_calibrated_predictor_is_debiased_to_nothing_at_a_thousand() -> None:
    found = [F.calibration_test(*calibrated(1000, seed), draws=60, seed=seed) for seed in range(24)]
    assert np.mean([one.error for one in found]) > 0.03, "the plain error is biased"
    assert abs(np.mean([one.debiased for one in found])) <= 0.01
    assert np.mean([one.null_band[0] <= one.error <= one.null_band[1] for one in found]) >= 0.8
    assert np.mean([one.p_value <= 0.05 for one in found]) <= 0.2


def test_a_predictor_that_is_off_leaves_the_band() -> None:
    p, y = calibrated(1000, 0)
    one = F.calibration_test(np.clip(1.3 * p, 0, 1), y, draws=60)
    assert one.error > one.null_band[1] and one.p_value < 0.05
    assert one.debiased == pytest.approx(one.error - one.null_mean)
    assert one == F.calibration_test(np.clip(1.3 * p, 0, 1), y, draws=60), "equal for a seed"


def test_brier_in_both_forms_and_the_reliability_curve() -> None:
    p, y = calibrated(500, 1)
    two = np.stack([1 - p, p], axis=1)
    assert F.brier_score(two, y) == pytest.approx(2 * F.brier_score(p, y))
    assert F.brier_score(p, y) == pytest.approx(((p - y) ** 2).mean())
    confidence, frequency, count = F.reliability_curve(p, y, bins=10)
    gap = np.nansum(np.abs(confidence - frequency) * count) / count.sum()
    assert gap == pytest.approx(F.expected_calibration_error(p, y, bins=10), abs=1e-9) and count.sum() == 500
    assert np.isnan(F.reliability_curve([0.05], [0], bins=10)[0][1:]).all()


def lesion() -> tuple[np.ndarray, np.ndarray]:
    """A sure and right background, and a lesion of 64 voxels of which 0.6 are there though 0.9 is stated."""
    prob, ref = np.zeros((24, 24, 24)), np.zeros((24, 24, 24), dtype=np.uint8)
    where = np.argwhere(np.ones((4, 4, 4))) + 10
    prob[tuple(where.T)] = 0.9
    ref[tuple(where[: round(0.6 * 64)].T)] = 1
    return prob, ref


def test_whole_volumes_hide_what_the_region_shows() -> None:
    prob, ref = lesion()
    whole = F.expected_calibration_error(prob.ravel(), ref.ravel())
    assert whole < 0.0015
    assert F.roi_calibration_error(prob, ref, margin=0.0) == pytest.approx(0.9 - 38 / 64)
    dilated = F.roi_calibration_error(prob, ref, margin=1.0)
    assert dilated == pytest.approx((0.9 - 38 / 64) * 64 / (64 + 6 * 16)), "one layer of sure background on each face"
    both = np.stack([1 - prob, prob])
    assert F.roi_calibration_error(both, ref, margin=0.0) == pytest.approx(0.9 - 38 / 64)
    with pytest.raises(ValueError, match="foreground"):
        F.roi_calibration_error(0 * prob, 0 * ref)


def test_the_margin_is_in_mm_where_a_spacing_is_given() -> None:
    prob, ref = lesion()
    region = F.region_of_interest(prob, ref, margin=2.0, spacing_mm=(1.0, 2.0, 4.0))
    union = (prob >= 0.5) | (ref > 0)
    exact = ndimage.distance_transform_edt(~union, sampling=(1.0, 2.0, 4.0)) <= 2.0
    assert (region == exact).all() and region.sum() > union.sum()


def test_crps_is_brute_force_and_the_normal_closed_form() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(3, 7)), rng.normal(size=(3, 2))
    brute = [np.abs(a[:, None] - b).mean() - np.abs(a[:, None] - a).mean() / 2 for a, b in zip(x, y, strict=True)]
    assert F.crps(x, y) == pytest.approx(brute)
    normal = F.crps(rng.normal(size=(1, 20000)), [0.0])[0]
    assert normal == pytest.approx(2 / np.sqrt(2 * np.pi) - 1 / np.sqrt(np.pi), abs=0.01)
    assert F.crps([[3.0]], [1.0]).tolist() == [2.0]


def test_volumes_of_sure_probabilities_err_by_their_difference_and_doubt_is_rewarded_where_it_is_due() -> None:
    ref = np.zeros((10, 10, 10), dtype=int)
    ref[2:6, 2:6, 2:6] = 1
    bigger = np.zeros_like(ref)
    bigger[1:7, 1:7, 1:7] = 1
    asked = {"labels": [1], "spacing_mm": (10.0, 10.0, 10.0)}  # a voxel is 1 ml
    sure = np.stack([1.0 - bigger, 1.0 * bigger])
    assert F.volume_crps(sure, ref, **asked) == pytest.approx([216.0 - 64.0])
    assert F.volume_crps(np.stack([1.0 - ref, 1.0 * ref]), ref, **asked) == pytest.approx([0.0], abs=1e-9)
    doubtful = np.where(bigger > ref, 0.5, sure[1])
    doubt = F.volume_crps(np.stack([1 - doubtful, doubtful]), ref, **asked)
    # half of the level sets are 64, half 216: E|X - y| = 76, E|X - X'| / 2 = 38
    assert doubt == pytest.approx([38.0])
    several = F.volume_crps(sure, np.stack([ref, bigger]), **asked)
    assert several == pytest.approx([76.0])


def test_raters_consensus_and_dissensus() -> None:
    raters = np.zeros((3, 6, 6), dtype=int)
    raters[:, 1:4, 1:4] = 1
    raters[0, 4, 1:4] = 1
    region = F.rater_regions(raters, label=1)
    assert [int(part.sum()) for part in region] == [9, 24, 3]
    assert sum(part.astype(int) for part in region).tolist() == np.ones((6, 6)).tolist()
    assert F.rater_agreement(raters, labels=[1, 2])[0] == pytest.approx((1 + 2 * (2 * 9 / 21)) / 3)
    assert np.isnan(F.rater_agreement(raters, labels=[1, 2])[1])
    assert F.consensus_dice(raters[0], raters, labels=[1]).tolist() == [1.0]
    assert F.consensus_dice(0 * raters[0], raters, labels=[1]).tolist() == [0.0]
    prob = np.zeros((6, 6))
    prob[1:4, 1:4], prob[4, 1:4] = 1.0, 1 / 3
    assert F.dissensus_error(prob, raters, label=1) == pytest.approx(0.0)
    assert F.dissensus_error(np.round(prob), raters, label=1) == pytest.approx(1 / 3)
    both = np.stack([1 - prob, prob])
    each = [F.expected_calibration_error(both.reshape(2, -1).T, rater.ravel()) for rater in raters]
    assert F.rater_calibration_error(both, raters) == pytest.approx(np.mean(each)) and np.mean(each) > 0
    with pytest.raises(ValueError, match="2 label maps"):
        F.rater_regions(raters[:1], label=1)


@pytest.mark.parametrize(
    ("prob", "target", "said"),
    [([], [], "prob is"), ([1.2], [1], "between 0 and 1"), ([np.nan], [1], "between"), ([0.5], [1, 0], "prob is")],
)
def test_what_is_no_probability_is_refused(prob: list, target: list, said: str) -> None:
    for function in (F.expected_calibration_error, F.brier_score, F.calibration_test, F.reliability_curve):
        with pytest.raises(ValueError, match=said):
            function(np.array(prob), np.array(target))


def test_metrics_gather_batches() -> None:
    import evaluation as E

    p, y = calibrated(400, 3)
    rows, truth = torch.from_numpy(p), torch.from_numpy(y)
    for metric, whole in (
        (E.CalibrationError(bins=10), F.expected_calibration_error(p, y, bins=10)),
        (E.CalibrationError(debias=True), F.calibration_test(p, y).debiased),
        (E.BrierScore(), F.brier_score(p, y)),
    ):
        for a, b in zip(rows.split(150), truth.split(150), strict=True):
            metric.update(a, b)
        assert float(metric.compute()) == pytest.approx(whole)
    prob, ref = (torch.from_numpy(v)[None] for v in lesion())
    near = E.ROICalibrationError(margin=1.0)
    near.update(torch.cat([prob, 0 * prob]), torch.cat([ref, 0 * ref]))
    assert float(near.compute()) == pytest.approx(F.roi_calibration_error(prob[0], ref[0], margin=1.0))
    volume = E.VolumeCRPS(labels=[1], spacing_mm=(1.0, 1.0, 1.0))
    both = torch.stack([1 - prob, prob], dim=1)
    volume.update(both, ref)
    whole = F.volume_crps(both[0], ref[0], labels=[1], spacing_mm=(1.0, 1.0, 1.0))
    assert float(volume.compute()) == pytest.approx(whole[0])
