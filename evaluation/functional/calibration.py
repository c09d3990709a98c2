"""How far stated probabilities are from what happens."""

from typing import Any

import numpy as np

from evaluation.functional.arrays import array


def expected_calibration_error(prob: Any, target: Any, *, bins: int = 15) -> float:
    """Return the share-weighted gap between confidence and frequency over equal bins (Naeini et al. 2015).

    ECE = sum_b (n_b / n) |mean target in b - mean prob in b|

    prob (n,): probability of the positive class, target 0 or 1; prob (n, classes): the top class is judged,
    target its index. Bins are [l, u) and the last is closed, so that 0 and 1 are counted.
    Errors: ValueError for empty input, probabilities outside 0..1 or lengths that differ.

    >>> expected_calibration_error([0.0, 0.95], [1, 1])
    0.525
    """
    confidence, truth = array(prob), array(target)
    if confidence.ndim not in (1, 2) or len(confidence) != len(truth) or not len(truth) or bins < 1:
        raise ValueError(f"prob is (n,) or (n, classes) and target (n,), got {confidence.shape} and {truth.shape}")
    if not np.isfinite(confidence).all() or confidence.min() < 0 or confidence.max() > 1:
        raise ValueError("probabilities lie between 0 and 1")
    if confidence.ndim == 2:
        truth = (confidence.argmax(axis=1) == truth).astype(np.float64)
        confidence = confidence.max(axis=1)
    place = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    gap = np.bincount(place, truth - confidence, minlength=bins)
    return round(float(np.abs(gap).sum() / len(truth)), 12)
