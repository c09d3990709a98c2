"""Paired comparisons against scikit-image, closed forms and laws."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from evaluation import functional as F

FUNCTIONS = {
    "psnr": lambda x, y, **more: F.psnr(x, y, data_range=1.0, **more),
    "mae": F.mae,
    "ncc": F.ncc,
    "ssim": lambda x, y, **more: F.ssim(x, y, data_range=1.0, **more),
    "ms_ssim": lambda x, y, **more: F.ms_ssim(x, y, data_range=1.0, **more),
}


def pair(grid: tuple[int, ...], noise: float = 0.1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = ndimage.gaussian_filter(rng.random((2, 1, *grid)), (0, 0, *[1.5] * len(grid)))
    x = (x - x.min()) / np.ptp(x)
    return x, x + noise * rng.normal(size=x.shape)


def naive_ssim(x: np.ndarray, y: np.ndarray, data_range: float, sigma: tuple[float, ...]) -> np.ndarray:
    """The formula with ndimage's own filter: the map where the window fits."""
    blur = lambda v: ndimage.gaussian_filter(v, sigma, truncate=3.5)  # noqa: E731
    a, b = blur(x), blur(y)
    s_a, s_b, s_ab = blur(x * x) - a * a, blur(y * y) - b * b, blur(x * y) - a * b
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    value = (2 * a * b + c1) * (2 * s_ab + c2) / ((a * a + b * b + c1) * (s_a + s_b + c2))
    radius = [int(3.5 * s + 0.5) for s in sigma]
    return value[tuple(slice(r, n - r) for r, n in zip(radius, value.shape, strict=True))]


@pytest.mark.parametrize("sigma", [(1.5, 1.5, 0.5), (0.8, 2.0, 0.0)])
def test_windows_of_any_shape(sigma: tuple[float, ...]) -> None:
    x, y = pair((24, 26, 12))
    ours = F.ssim(x, y, data_range=1.0, sigma=sigma)
    theirs = [naive_ssim(a[0], b[0], 1.0, sigma).mean() for a, b in zip(x, y, strict=True)]
    assert ours == pytest.approx(theirs, abs=1e-9)


def test_a_thin_axis_is_compared_with_a_window_round_in_mm() -> None:
    x, y = pair((24, 24, 5))
    with pytest.raises(ValueError, match="shorter"):
        F.ssim(x, y, data_range=1.0)
    sigma = F.window_sigma((0.8, 0.8, 4.0))
    assert sigma == pytest.approx((1.5, 1.5, 0.3))
    assert (F.ssim(x, y, data_range=1.0, sigma=sigma) < 1).all()


def test_ssim_is_scikit_images_over_channels_and_offsets() -> None:
    x, y = pair((20, 22, 24))
    x, y = (np.concatenate([v, 1 - v**2], axis=1) * 400 + 3000 for v in (x, y))
    ours = F.ssim(x, y, data_range=500.0)
    for a, b, value in zip(x, y, ours, strict=True):
        theirs = structural_similarity(
            a, b, data_range=500.0, gaussian_weights=True, use_sample_covariance=False, channel_axis=0
        )
        assert value == pytest.approx(theirs, abs=1e-6)


def test_similarity_in_a_mask_is_the_mean_of_the_map_there() -> None:
    x, y = pair((30, 32))
    mask = np.zeros((1, 1, 30, 32))
    mask[..., 8:20, 9:25] = 1
    inside = mask[0, 0, 5:-5, 5:-5] > 0
    theirs = [naive_ssim(a[0], b[0], 1.0, (1.5, 1.5))[inside].mean() for a, b in zip(x, y, strict=True)]
    assert F.ssim(x, y, data_range=1.0, mask=mask) == pytest.approx(theirs, abs=1e-9)
    assert F.ssim(x, y, data_range=1.0, mask=np.ones_like(mask)) == pytest.approx(F.ssim(x, y, data_range=1.0))


def test_ms_ssim_is_the_product_over_halved_volumes() -> None:
    x, y = pair((48, 50))
    scales = F.ms_ssim_scales((48, 50))
    assert scales == 3
    weights = np.array([0.0448, 0.2856, 0.3001]) / (0.0448 + 0.2856 + 0.3001)
    a, b, product = x[:1], y[:1], 1.0
    for scale in range(scales):
        full = F.ssim(a, b, data_range=1.0)[0]
        blur = lambda v: ndimage.gaussian_filter(v[0, 0], 1.5, truncate=3.5)  # noqa: E731
        mean_a, mean_b = blur(a), blur(b)
        spread = blur(a * a) - mean_a**2 + blur(b * b) - mean_b**2
        contrast = (2 * (blur(a * b) - mean_a * mean_b) + 0.03**2) / (spread + 0.03**2)
        term = full if scale == scales - 1 else contrast[5:-5, 5:-5].mean()
        product *= max(term, 0.0) ** weights[scale]
        a, b = (v[..., : v.shape[2] // 2 * 2, : v.shape[3] // 2 * 2] for v in (a, b))
        a, b = (v.reshape(1, 1, v.shape[2] // 2, 2, v.shape[3] // 2, 2).mean(axis=(3, 5)) for v in (a, b))
    assert F.ms_ssim(x, y, data_range=1.0)[0] == pytest.approx(product, abs=1e-9)


def test_ms_ssim_in_a_mask_ignores_the_rest_at_every_scale() -> None:
    x, _ = pair((40, 64, 32))
    y, mask = x.copy(), np.zeros_like(x)
    y[..., 40:, :] = np.random.default_rng(0).random(y[..., 40:, :].shape)
    mask[..., :20, :] = 1
    assert F.ms_ssim(x, y, data_range=1.0, mask=mask) == pytest.approx([1.0, 1.0], abs=1e-9)
    assert (F.ms_ssim(x, y, data_range=1.0) < 0.9).all()


@pytest.mark.parametrize("grid", [(32, 32, 32), (33, 47), (32, 128, 40)])
def test_ms_ssim_of_any_grid_from_32_voxels(grid: tuple[int, ...]) -> None:
    x, y = pair(grid)
    value = F.ms_ssim(x, y, data_range=1.0)
    assert (value > 0).all() and (value < 1).all() and F.ms_ssim_scales(grid) == 2


def test_closed_forms() -> None:
    x, y = pair((9, 10, 11))
    theirs = [peak_signal_noise_ratio(a[0], b[0], data_range=2.0) for a, b in zip(x, y, strict=True)]
    assert F.psnr(torch.from_numpy(x), y, data_range=2.0) == pytest.approx(theirs)
    assert F.psnr(x, x, data_range=1.0).tolist() == [np.inf, np.inf]
    assert F.ncc(x, y) == pytest.approx([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(x, y, strict=True)])
    assert F.ncc(x, 3 - 2 * x) == pytest.approx([-1.0, -1.0])
    hu = np.full((1, 1, 4, 4), -1000.0)
    body = np.zeros_like(hu)
    body[..., 1:3, 1:3] = 1
    assert F.mae(hu, hu + 40 * body, mask=body).tolist() == [40.0]
    assert F.mae(hu, hu + 40 * body).tolist() == [10.0]


@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_what_is_no_pair_is_refused(name: str) -> None:
    function, (x, y) = FUNCTIONS[name], pair((34, 32))
    with pytest.raises(ValueError, match="shapes"):
        function(x, y[..., :-1])
    with pytest.raises(ValueError, match="NaN"):
        function(x, np.where(y > y.mean(), np.nan, y))
    with pytest.raises(ValueError, match="empty"):
        function(x, y, mask=np.zeros_like(x))
    with pytest.raises(ValueError, match="batch, channel"):
        function(x[0], y[0])


def test_correlation_of_a_constant_is_refused_not_invented() -> None:
    x, _ = pair((8, 8))
    with pytest.raises(ValueError, match="constant"):
        F.ncc(x, np.full_like(x, 0.3))


# of piq 0.8.0 (chromatic=False) on the images of `drawn`, float64
PIQ = {(64, 80): 0.9715482, (65, 51): 0.9740047}


def drawn(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture that a formula gives: rings, a ramp and a square; and a worse one of it."""
    i, j = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    image = 0.5 + 0.25 * np.sin(np.hypot(i - 20, j - 24) / 2.5) + 0.2 * (j / columns) - 0.2 * ((i > 40) & (j > 30))
    worse = 0.9 * image + 0.05 * np.sin(1.7 * i) * np.cos(2.3 * j) + 0.03
    return image.clip(0, 1)[None, None], worse.clip(0, 1)[None, None]


@pytest.mark.parametrize("grid", list(PIQ))
def test_fsim_is_that_of_the_authors_code(grid: tuple[int, int]) -> None:
    assert F.fsim(*drawn(*grid), data_range=1.0)[0] == pytest.approx(PIQ[grid], abs=1e-4)


def test_fsim_is_one_for_equals_symmetric_and_falls_with_damage() -> None:
    x, _ = drawn(40, 48)
    noise = np.random.default_rng(0).normal(size=x.shape)
    assert F.fsim(x, x, data_range=1.0)[0] == pytest.approx(1.0)
    values = [F.fsim(x, x + s * noise, data_range=1.0)[0] for s in (0.02, 0.1, 0.3)]
    assert 1 > values[0] > values[1] > values[2]
    assert F.fsim(x + noise, x, data_range=1.0) == pytest.approx(F.fsim(x, x + noise, data_range=1.0))
    assert F.fsim(255 * x, 255 * (x + 0.1 * noise), data_range=255.0)[0] == pytest.approx(values[1])


def test_fsim_of_a_volume_pools_its_slices() -> None:
    x, y = drawn(32, 36)
    flat = np.zeros_like(x)
    volume, other = (np.stack([v, flat, v], axis=-1) for v in (x, y))
    assert F.fsim(volume, other, data_range=1.0) == pytest.approx(F.fsim(x, y, data_range=1.0)), "air weighs nothing"
    turned = [np.moveaxis(v, -1, 2) for v in (volume, other)]
    assert F.fsim(*turned, data_range=1.0, axis=0) == pytest.approx(F.fsim(x, y, data_range=1.0))
    with pytest.raises(ValueError, match="structure"):
        F.fsim(flat, flat, data_range=1.0)
    with pytest.raises(ValueError, match="16 pixels"):
        F.fsim(volume[..., :9, :], other[..., :9, :], data_range=1.0)


def test_phase_congruency_does_not_depend_on_contrast() -> None:
    x, _ = drawn(48, 48)
    low, high = F.phase_congruency(60 * x[0, 0]), F.phase_congruency(240 * x[0, 0])
    assert np.abs(low - high).max() < 0.02 and 0 <= high.min() <= high.max() <= 1


def test_perceptual_distance_by_hand_and_its_laws() -> None:
    def corners(images: np.ndarray) -> list[np.ndarray]:
        return [images[:, :, ::2, ::2], images.reshape(len(images), -1)]

    x = np.zeros((1, 2, 2, 2))
    y = x.copy()
    x[:, 0] = 3.0
    y[:, 1] = 5.0  # maps of unit vectors e0 and e1 at each place; vectors of 8 with 4 entries of 1/2 apart each
    assert F.perceptual_distance(x, y, corners)[0] == pytest.approx(2.0 + 2.0)
    assert F.perceptual_distance(x, y, corners, weights=[[1.0, 0.0], np.ones(8)])[0] == pytest.approx(1.0 + 2.0)
    assert F.perceptual_distance(x, 7 * x, corners)[0] == pytest.approx(0.0, abs=1e-9)
    with pytest.raises(ValueError, match="one for each"):
        F.perceptual_distance(x, y, corners, weights=[[1.0, 0.0]])
    with pytest.raises(ValueError, match="NaN"):
        F.perceptual_distance(x, np.nan * y, lambda v: v)


def test_perceptual_distance_on_a_network() -> None:
    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Conv3d(1, 4, 3), torch.nn.ReLU(), torch.nn.Conv3d(4, 6, 3))

    def extractor(images: torch.Tensor) -> list[torch.Tensor]:
        first = layers[:2](images)
        return [first, layers[2](first)]

    x = torch.rand(2, 1, 8, 8, 8)
    near, far = (F.perceptual_distance(x, x + s * torch.randn(x.shape), extractor) for s in (0.02, 0.5))
    assert (near > 0).all() and (near < far).all()


def test_metrics_gather_batches_masks_and_scales() -> None:
    import evaluation as E

    x, y = (torch.from_numpy(v) for v in pair((32, 34)))
    mask = torch.zeros(1, 1, 32, 34)
    mask[..., 8:20, 8:24] = 1
    for metric, whole in (
        (E.SSIM(data_range=1.0, sigma=(1.5, 1.0)), F.ssim(x, y, data_range=1.0, mask=mask, sigma=(1.5, 1.0))),
        (E.MultiScaleSSIM(data_range=1.0), F.ms_ssim(x, y, data_range=1.0, mask=mask)),
        (E.PSNR(data_range=1.0), F.psnr(x, y, data_range=1.0, mask=mask)),
        (E.MAE(), F.mae(x, y, mask=mask)),
        (E.NCC(), F.ncc(x, y, mask=mask)),
    ):
        for a, b in zip(x.split(1), y.split(1), strict=True):
            metric.update(a, b, mask)
        assert float(metric.compute()) == pytest.approx(whole.mean())
        if isinstance(metric, E.MultiScaleSSIM):
            assert metric.scales == 2
    for metric in (E.FSIM(data_range=1.0), E.PerceptualDistance(lambda v: v)):
        metric.update(x, y)
        assert 0 < float(metric.compute()) < 1
