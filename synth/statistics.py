"""Tests over many p-values at once. Knows numbers only."""

import numpy as np


def benjamini_hochberg(p_values: np.ndarray, *, q: float) -> np.ndarray:
    """Return the indices rejected at false-discovery rate q (Benjamini & Hochberg 1995), ascending.

    Rejected are the k smallest, ties with the k-th included, for the largest k with p_(k) <= q k / n.

    >>> benjamini_hochberg(np.array([0.01, 0.9, 0.02, 0.5]), q=0.1).tolist()
    [0, 2]
    """
    order = np.argsort(p_values, kind="stable")
    below = np.flatnonzero(p_values[order] <= q * np.arange(1, len(order) + 1) / len(order) + 1e-12)
    return np.sort(order[: below[-1] + 1]) if len(below) else np.zeros(0, dtype=np.int64)
