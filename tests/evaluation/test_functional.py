"""Metrics against closed forms, peers and the fixtures on which peers go wrong."""

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from evaluation import functional as F


def eigen_frechet(x: np.ndarray, y: np.ndarray) -> float:
    """The textbook form through eigenvalues of the product of covariances."""
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    cross = np.sqrt(np.clip(np.linalg.eigvals(a @ b).real, 0, None)).sum()
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a) + np.trace(b) - 2 * cross)


@pytest.mark.parametrize(("n", "m", "d"), [(300, 200, 8), (40, 60, 16), (12, 9, 30)])
def test_frechet_equals_the_eigenvalue_form(n: int, m: int, d: int) -> None:
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=(n, d)), 1.5 * rng.normal(size=(m, d)) + 0.3
    # eigenvalues of a rank-deficient product lose digits in their square roots
    assert F.frechet_distance(x, y) == pytest.approx(eigen_frechet(x, y), rel=1e-6 if n > d else 1e-4)


@pytest.mark.parametrize("shape", [(20, 64), (200, 12)])
def test_frechet_of_a_set_with_itself_is_zero(shape: tuple[int, int]) -> None:
    x = np.random.default_rng(1).normal(size=shape)
    assert abs(F.frechet_distance(x, x)) <= 1e-9


def test_debiased_frechet_has_no_null_bias_and_finds_the_true_distance() -> None:
    null, far, plain = [], [], []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        x, y = rng.normal(size=(400, 16)), rng.normal(size=(300, 16))
        plain.append(F.frechet_distance(x, y))
        null.append(F.frechet_distance(x, y, debias=True))
        far.append(F.frechet_distance(x, y + 0.2, debias=True))
    assert np.mean(plain) > 0.1
    assert abs(np.mean(null)) <= 0.05
    assert np.mean(far) == pytest.approx(16 * 0.04, abs=0.1)


def test_kernel_distance_is_unbiased_and_sees_spread() -> None:
    rng = np.random.default_rng(0)
    null = [F.kernel_distance(rng.normal(size=(60, 8)), rng.normal(size=(40, 8))) for _ in range(60)]
    assert abs(np.mean(null)) < 3 * np.std(null) / np.sqrt(60)
    assert F.kernel_distance(3 * rng.normal(size=(60, 8)), rng.normal(size=(40, 8))) > 5 * np.std(null)


@pytest.mark.parametrize("grid", [(33, 40), (24, 20, 28)])
@pytest.mark.parametrize("offset", [0.0, 3000.0])
def test_ssim_is_scikit_images(grid: tuple[int, ...], offset: float) -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(2, 1, *grid)) * 100 + offset
    y = x + rng.normal(size=x.shape) * 40
    ours = F.ssim(torch.from_numpy(x), y, data_range=500.0)
    for index in range(2):
        theirs = structural_similarity(
            x[index, 0], y[index, 0], data_range=500.0, gaussian_weights=True, use_sample_covariance=False
        )
        assert ours[index] == pytest.approx(theirs, abs=1e-6)


def test_ssim_in_a_mask_ignores_the_rest() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(1, 1, 40, 40))
    y, mask = x.copy(), np.zeros((1, 1, 40, 40))
    y[..., 28:] += rng.normal(size=(40, 12))
    mask[..., :18] = 1
    assert F.ssim(x, y, data_range=4.0, mask=mask)[0] == pytest.approx(1.0, abs=1e-9)
    assert F.ssim(x, y, data_range=4.0)[0] < 0.95
    with pytest.raises(ValueError, match="empty"):
        F.ssim(x, y, data_range=4.0, mask=0 * mask)


def test_ms_ssim_from_32_voxels_on() -> None:
    x = np.random.default_rng(4).normal(size=(1, 1, 32, 33, 34))
    assert F.ms_ssim(x, x, data_range=4.0)[0] == pytest.approx(1.0)
    worse = [F.ms_ssim(x, x + s * np.random.default_rng(5).normal(size=x.shape), data_range=4.0)[0] for s in (0.1, 1)]
    assert 1 > worse[0] > worse[1] >= 0
    assert F.ms_ssim_scales(x.shape[2:]) == 2


@pytest.mark.parametrize("function", [F.ssim, F.ms_ssim])
def test_similarity_refuses_what_cannot_be_compared(function) -> None:  # noqa: ANN001
    with pytest.raises(ValueError, match="shapes"):
        function(np.zeros((1, 1, 32, 32)), np.zeros((1, 1, 32, 31)), data_range=1.0)
    with pytest.raises(ValueError, match="shorter"):
        function(np.zeros((1, 1, 8, 32)), np.zeros((1, 1, 8, 32)), data_range=1.0)
    with pytest.raises(ValueError, match="data_range"):
        function(np.zeros((1, 1, 32, 32)), np.zeros((1, 1, 32, 32)), data_range=0.0)


def test_psnr() -> None:
    x = np.zeros((1, 1, 4, 4))
    assert F.psnr(x, x + 0.1, data_range=1.0)[0] == pytest.approx(20.0)


def test_a_missed_structure_gets_the_worst_and_two_empty_masks_the_best() -> None:
    ref = np.zeros((10, 12, 14), dtype=np.uint8)
    ref[3:6, 3:6, 3:6] = 1
    asked = {"labels": [1, 2], "spacing_mm": (1.0, 2.0, 3.0)}
    diagonal = float(np.linalg.norm([10, 24, 42]))
    assert F.hd95(0 * ref, ref, **asked).tolist() == [diagonal, 0.0]
    assert F.surface_dice(0 * ref, ref, tolerance_mm=2.0, **asked).tolist() == [0.0, 1.0]
    assert F.dice(0 * ref, ref, labels=[1, 2]).tolist() == [0.0, 1.0]
    assert F.dice(ref, ref, labels=[1]).tolist() == [1.0]


def test_surface_distances_are_in_mm() -> None:
    a = np.zeros((20, 20, 20), dtype=np.uint8)
    b = a.copy()
    a[5, 5:15, 5:15] = 1
    b[8, 5:15, 5:15] = 1
    assert F.hd95(a, b, labels=[1], spacing_mm=(2.0, 1.0, 1.0))[0] == pytest.approx(6.0)
    assert F.surface_dice(a, b, labels=[1], spacing_mm=(2.0, 1.0, 1.0), tolerance_mm=3.9)[0] == 0.0
    assert F.surface_dice(a, b, labels=[1], spacing_mm=(2.0, 1.0, 1.0), tolerance_mm=4.0)[0] == pytest.approx(0.5)
    assert F.surface_dice(a, b, labels=[1], spacing_mm=(2.0, 1.0, 1.0), tolerance_mm=6.0)[0] == 1.0


def test_calibration_error_counts_zero_and_one() -> None:
    assert F.expected_calibration_error([0.0] * 50 + [0.95] * 50, [1] * 100) == pytest.approx(0.525)
    assert F.expected_calibration_error([0.0] * 9, [0] * 9) == 0.0
    assert F.expected_calibration_error([1.0] * 9, [1] * 9) == 0.0
    assert F.expected_calibration_error([[0.2, 0.8], [0.9, 0.1]], [1, 1]) == pytest.approx((0.2 + 0.9) / 2)


def test_copy_test_holds_its_size_and_finds_copies() -> None:
    rng = np.random.default_rng(0)
    training, holdout, rates = np.zeros(0), np.zeros(0), []
    for _ in range(20):
        training, holdout = rng.normal(size=(400, 6)), rng.normal(size=(100, 6))
        rates.append((F.copy_test(rng.normal(size=(100, 6)), training, holdout).p_values <= 0.05).mean())
    assert 0.02 < np.mean(rates) < 0.08
    made = rng.normal(size=(60, 6))
    made[:6] = training[:6] + 0.001
    found = F.copy_test(made, training, rng.normal(size=(400, 6)))
    assert set(range(6)) <= set(found.flagged.tolist())
    assert found.decidable
    assert not F.copy_test(made, training, holdout[:5]).decidable


def test_spectrum_peaks_at_the_frequency_of_a_wave() -> None:
    x = np.arange(64) * 2.0
    wave = np.sin(2 * np.pi * 0.125 * x)[:, None, None] * np.ones((1, 32, 32))
    frequency, power = F.radial_power_spectrum(wave, spacing_mm=(2.0, 2.0, 2.0))
    assert frequency[int(np.nanargmax(power))] == pytest.approx(0.125, abs=0.02)


def test_texture_is_seen_inside_a_tissue_only() -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((24, 24, 24), dtype=np.uint8)
    mask[:, :, 12:] = 1
    grain = rng.normal(size=mask.shape)
    flat, rough = F.texture_deviation(100.0 * mask + grain * mask, mask, labels=[0, 1])
    assert flat == pytest.approx(0.0, abs=1e-9)
    assert 0.7 < rough < 1.1
    assert np.isnan(F.texture_deviation(grain, mask, labels=[9])[0])


def test_metrics_gather_batches() -> None:
    from evaluation import SSIM, CalibrationError, Dice, FrechetDistance, KernelDistance, MultiScaleSSIM

    rng = np.random.default_rng(0)
    x, y = torch.from_numpy(rng.normal(size=(30, 4))), torch.from_numpy(rng.normal(size=(20, 4)))
    for metric, whole in ((FrechetDistance(), F.frechet_distance), (KernelDistance(), F.kernel_distance)):
        for part in x.split(7):
            metric.update(part, real=True)
        metric.update(y, real=False)
        assert float(metric.compute()) == pytest.approx(whole(y, x), rel=1e-9)
    images = torch.rand(3, 1, 32, 32)
    for metric in (SSIM(data_range=1.0), MultiScaleSSIM(data_range=1.0)):
        metric.update(images, images)
        assert float(metric.compute()) == pytest.approx(1.0)
    overlap = Dice(labels=[1, 2])
    overlap.update(torch.ones(2, 5, 5), torch.ones(2, 5, 5))
    assert overlap.compute().tolist() == [1.0, 1.0]
    error = CalibrationError()
    error.update(torch.tensor([0.0, 0.95]), torch.tensor([1, 1]))
    assert float(error.compute()) == pytest.approx(0.525, abs=1e-6)
