"""How many different samples a set holds. Knows feature rows only."""

from typing import Any

import numpy as np
from scipy.spatial.distance import cdist, pdist

from evaluation.functional.arrays import array


def vendi_score(x: Any, *, bandwidth: float | None = None, cosine: bool = False) -> float:
    """Return the Vendi score of features x (n, d): the effective number of different rows, 1 (all equal) to n.

    VS = exp(-sum_i l_i log l_i), l the eigenvalues of K / n    (Friedman & Dieng 2023)

    K is Gaussian, exp(-|a - b|^2 / (2 h^2)) with h = `bandwidth` (the median distance between rows where None; take
    that of the real set to compare sets, since a set's own hides that it is narrow), or the cosine of rows, which is
    blind to their lengths. It grows with n: compare sets of one size.
    Errors: ValueError for other shapes, no rows, NaN, a bandwidth that is not above 0.

    >>> round(vendi_score([[0.0], [0.0], [9.0], [9.0]], bandwidth=1.0), 6)
    2.0
    """
    rows = array(x)
    if rows.ndim != 2 or not len(rows):
        raise ValueError(f"features are (n, d), got {rows.shape}")
    if not np.isfinite(rows).all():
        raise ValueError("features hold NaN or infinity; drop those volumes first")
    if cosine:
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        if not lengths.all():
            raise ValueError("a row of zeros has no direction; use the Gaussian kernel")
        kernel = (rows / lengths) @ (rows / lengths).T
    else:
        width = median_distance(rows) if bandwidth is None else bandwidth
        if bandwidth is None and width == 0.0:
            width = 1.0  # at least half of all pairs are equal: any width tells them from the others
        if width <= 0.0:
            raise ValueError(f"bandwidth is above 0, got {bandwidth}")
        kernel = np.exp(-cdist(rows, rows, "sqeuclidean") / (2.0 * width**2))
    values = np.clip(np.linalg.eigvalsh(kernel / len(rows)), 0.0, None)
    values = values[values > 0.0] / values.sum()
    return float(np.exp(-(values * np.log(values)).sum()))


def median_distance(x: Any) -> float:
    """Return the median Euclidean distance between rows of x (n, d); 0 for one row."""
    rows = array(x)
    return float(np.median(pdist(rows))) if len(rows) > 1 else 0.0
