"""How far stated probabilities are from what happens: calibration error and its null, Brier score, CRPS of volumes.

Probabilities come as rows, (n,) of the positive class or (n, classes), or as volumes, (*grid) or (classes, *grid)
beside a label map (*grid); `roi_rows` turns the second into the first. Knows no network.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from evaluation.functional.arrays import array
from synth.rng import numpy_rng

_LEVELS = 100


def expected_calibration_error(prob: Any, target: Any, *, bins: int = 15) -> float:
    """Return the share-weighted gap between confidence and frequency over equal bins (Naeini et al. 2015).

    ECE = sum_b (n_b / n) |mean target in b - mean prob in b|

    prob (n,): probability of the positive class, target 0 or 1; prob (n, classes): the top class is judged,
    target its index. Bins are [l, u) and the last is closed, so that 0 and 1 are counted.
    Errors: ValueError for empty input, probabilities outside 0..1 or lengths that differ.

    >>> expected_calibration_error([0.0, 0.95], [1, 1])
    0.525
    """
    confidence, truth = _judged(prob, target, bins)
    return _gap(confidence, truth, bins)


@dataclass(frozen=True)
class CalibrationTest:
    """A calibration error beside what a calibrated predictor of the same probabilities would show by chance.

    error       the plain ECE
    null_mean   mean ECE of the calibrated predictor: the bias of the plain ECE at this n
    null_band   the range that holds 95 % of its ECEs
    debiased    error - null_mean: 0 on average for a calibrated predictor, may fall below 0
    p_value     share of null draws at least as large as the error, (1 + k) / (draws + 1)
    """

    error: float
    null_mean: float
    null_band: tuple[float, float]
    debiased: float
    p_value: float


def calibration_test(prob: Any, target: Any, *, bins: int = 15, draws: int = 200, seed: int = 0) -> CalibrationTest:
    """Return the expected calibration error debiased, and its null band, by consistency resampling.

    The null draws each target as Bernoulli of its own probability and measures ECE again (Broecker & Smith 2007,
    Vaicenavicius et al. 2019): that predictor is calibrated by construction, and its ECE is not 0 (0.04 at n = 1,000).
    Where a predictor is far off, the plain error has less of that bias, so that `debiased` is then up to `null_mean`
    too small. Rows count as independent: voxels of one volume are not, and their band is too narrow.
    Errors: as expected_calibration_error.
    """
    confidence, truth = _judged(prob, target, bins)
    rng = numpy_rng(seed, "calibration null")
    null = np.array([_gap(confidence, rng.random(len(truth)) < confidence, bins) for _ in range(draws)])
    error = _gap(confidence, truth, bins)
    low, high = np.quantile(null, (0.025, 0.975))
    p = (1 + int((null >= error).sum())) / (draws + 1)
    return CalibrationTest(error, float(null.mean()), (float(low), float(high)), error - float(null.mean()), p)


def reliability_curve(prob: Any, target: Any, *, bins: int = 15) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean confidence, frequency and count of each bin (bins,), NaN where it is empty: the reliability diagram.

    Input, bins and errors as in expected_calibration_error.
    """
    confidence, truth = _judged(prob, target, bins)
    place = _places(confidence, bins)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(place, values, minlength=bins) / count for values in (confidence, truth)]
    return means[0], means[1], count


def brier_score(prob: Any, target: Any) -> float:
    """Return the mean squared error of probabilities (Brier 1950).

    prob (n,): mean (p - y)^2 with y 0 or 1, 0..1; prob (n, classes): mean sum_c (p_c - 1[target = c])^2, 0..2.
    Errors: as expected_calibration_error.

    >>> brier_score([0.5, 1.0], [1, 1]), brier_score([[0.5, 0.5]], [1])
    (0.125, 0.5)
    """
    rows, truth = _rows(prob, target)
    if rows.ndim == 1:
        return float(((rows - truth) ** 2).mean())
    hot = truth[:, None] == np.arange(rows.shape[1])
    return float(((rows - hot) ** 2).sum(axis=1).mean())


def region_of_interest(
    prob: Any, ref: Any, *, margin: float = 2.0, spacing_mm: Sequence[float] | None = None
) -> np.ndarray:
    """Return where calibration is asked for: voxels within `margin` of predicted or true foreground, (*grid) bool.

    Predicted foreground: p >= 0.5, or a top class that is not the first. `margin` is in mm with a spacing, else in
    voxels. Over a whole volume the background, right and sure, hides what a small lesion has.
    Errors: ValueError for grids that differ; False everywhere where neither holds foreground.
    """
    volume, truth = _volume(prob, ref)
    union = (truth > 0) | ((volume >= 0.5) if volume.ndim == truth.ndim else (volume.argmax(axis=0) > 0))
    if not union.any() or margin <= 0:
        return union
    sampling = tuple(spacing_mm) if spacing_mm is not None else (1.0,) * union.ndim
    # the transform runs inside a box that holds all that is near enough
    reach = [int(np.ceil(margin / step)) for step in sampling]
    box = tuple(
        slice(max(int(w.min()) - r, 0), int(w.max()) + r + 1) for w, r in zip(np.nonzero(union), reach, strict=True)
    )
    out = np.zeros_like(union)
    out[box] = np.asarray(ndimage.distance_transform_edt(~union[box], sampling=sampling)) <= margin
    return out


def roi_rows(
    prob: Any, ref: Any, *, margin: float = 2.0, spacing_mm: Sequence[float] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows (n,) or (n, classes) and targets (n,) of the voxels of `region_of_interest`."""
    volume, truth = _volume(prob, ref)
    inside = region_of_interest(volume, truth, margin=margin, spacing_mm=spacing_mm)
    if volume.ndim == truth.ndim:
        return volume[inside], (truth[inside] > 0).astype(np.float64)
    return volume[:, inside].T, truth[inside]


def roi_calibration_error(
    prob: Any, ref: Any, *, bins: int = 15, margin: float = 2.0, spacing_mm: Sequence[float] | None = None
) -> float:
    """Return the expected calibration error in the dilated union of predicted and true foreground.

    prob (*grid) with ref above 0 as foreground, or (classes, *grid) with ref the class. Errors: ValueError for grids
    that differ, and where neither holds foreground.
    """
    rows, truth = roi_rows(prob, ref, margin=margin, spacing_mm=spacing_mm)
    if not len(truth):
        raise ValueError("neither prediction nor reference holds foreground; there is no region to judge")
    return expected_calibration_error(rows, truth, bins=bins)


def crps(samples: Any, observed: Any) -> np.ndarray:
    """Return the continuous ranked probability score in its energy form (Gneiting & Raftery 2007): (n,).

    CRPS = E|X - y| - E|X - X'| / 2, over samples X of the prediction (n, samples) and y observed (n,), or (n, raters):
    then its mean over them. In the unit of y; with one sample it is the absolute error. Errors: ValueError for shapes
    that do not fit or values that are no numbers.

    >>> crps([[1.0, 3.0]], [2.0]).tolist(), crps([[1.0]], [[2.0, 4.0]]).tolist()
    ([0.5], [2.0])
    """
    drawn, seen = np.sort(array(samples), axis=-1), array(observed)
    if drawn.ndim != 2 or not drawn.shape[1] or seen.ndim not in (1, 2) or len(seen) != len(drawn):
        raise ValueError(f"samples are (n, samples), observed (n,) or (n, raters); got {drawn.shape} and {seen.shape}")
    if not (np.isfinite(drawn).all() and np.isfinite(seen).all()):
        raise ValueError("samples or observations hold NaN or infinite values")
    seen = seen.reshape(len(drawn), -1)
    apart = np.abs(drawn[:, :, None] - seen[:, None, :]).mean(axis=(1, 2))
    count = drawn.shape[1]
    ranks = 2 * np.arange(count) - count + 1  # sum_ij |x_i - x_j| = 2 sum_i rank_i x_(i)
    return apart - (drawn @ ranks) / count**2


def volume_crps(prob: Any, refs: Any, *, labels: Sequence[int], spacing_mm: Sequence[float]) -> np.ndarray:
    """Return the CRPS of each label's volume in ml (cm^2 in 2D), against one or several raters: (labels,).

    prob (classes, *grid); refs label maps (*grid) or (raters, *grid). The predicted distribution of the volume is that
    of its level sets: V(u) = |{p > u}| with u uniform over 0..1, of mean sum p, as wide as the edges are uncertain.
    Errors: ValueError for grids, labels or spacings that do not fit.
    """
    volume, truth = array(prob), array(refs)
    if truth.ndim == volume.ndim - 1:
        truth = truth[None]
    if truth.ndim != volume.ndim or truth.shape[1:] != volume.shape[1:] or len(spacing_mm) != volume.ndim - 1:
        raise ValueError(
            f"prob is (classes, *grid), refs (*grid) or (raters, *grid) with a spacing for each axis, got "
            f"{volume.shape}, {array(refs).shape} and {tuple(spacing_mm)}"
        )
    if not all(0 <= label < len(volume) for label in labels):
        raise ValueError(f"labels are classes below {len(volume)}, got {tuple(labels)}")
    unit = float(np.prod(spacing_mm)) / (1000.0 if volume.ndim == 4 else 100.0)
    levels = (np.arange(_LEVELS) + 0.5) / _LEVELS
    sets = [volume[0].size - np.searchsorted(np.sort(volume[label], axis=None), levels, "right") for label in labels]
    seen = [[float((rater == label).sum()) for rater in truth] for label in labels]
    return crps(np.array(sets) * unit, np.array(seen) * unit) if len(labels) else np.zeros(0)


def _rows(prob: Any, target: Any) -> tuple[np.ndarray, np.ndarray]:
    rows, truth = array(prob), array(target)
    if rows.ndim not in (1, 2) or len(rows) != len(truth) or truth.ndim != 1 or not len(truth):
        raise ValueError(f"prob is (n,) or (n, classes) and target (n,), got {rows.shape} and {truth.shape}")
    if not np.isfinite(rows).all() or rows.min() < -1e-6 or rows.max() > 1 + 1e-6:
        raise ValueError("probabilities lie between 0 and 1")
    if not np.isfinite(truth).all():
        raise ValueError("targets hold NaN or infinite values")
    return rows.clip(0.0, 1.0), truth


def _judged(prob: Any, target: Any, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the confidence and whether it was right, of each row."""
    if bins < 1:
        raise ValueError(f"bins is at least 1, got {bins}")
    rows, truth = _rows(prob, target)
    if rows.ndim == 1:
        return rows, truth
    return rows.max(axis=1), (rows.argmax(axis=1) == truth).astype(np.float64)


def _places(confidence: np.ndarray, bins: int) -> np.ndarray:
    return np.minimum((confidence * bins).astype(np.int64), bins - 1)


def _gap(confidence: np.ndarray, truth: np.ndarray, bins: int) -> float:
    gap = np.bincount(_places(confidence, bins), truth - confidence, minlength=bins)
    return round(float(np.abs(gap).sum() / len(truth)), 12)


def _volume(prob: Any, ref: Any) -> tuple[np.ndarray, np.ndarray]:
    volume, truth = array(prob), array(ref)
    if volume.shape not in (truth.shape, (len(volume), *truth.shape)):
        raise ValueError(f"prob is (*grid) or (classes, *grid) of ref's grid, got {volume.shape} and {truth.shape}")
    return volume, truth
