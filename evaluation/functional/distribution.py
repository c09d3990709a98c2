"""Distances between sets of feature vectors."""

from typing import Any

import numpy as np

from evaluation.functional.arrays import array


def frechet_distance(x: Any, y: Any, *, debias: bool = False) -> float:
    """Return the Frechet distance between Gaussians fitted to features x (n, d) and y (m, d).

    d^2 = |mu_x - mu_y|^2 + tr(S_x + S_y - 2 (S_x S_y)^(1/2))    (Dowson & Landau 1982)

    The cross term is the nuclear norm of X^T Y / sqrt((n - 1)(m - 1)) for centred X, Y, exact for any n and d.
    debias extrapolates 1/n and 1/m to zero together, from halves and wholes, since plain values shrink as 1/n.
    Errors: ValueError for fewer than 2 samples or feature widths that differ.

    >>> x = np.random.default_rng(0).normal(size=(50, 4))
    >>> bool(abs(frechet_distance(x, x)) < 1e-9)
    True
    """
    first, second = array(x), array(y)
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise ValueError(f"features are (n, d) and (m, d), got {first.shape} and {second.shape}")
    if min(len(first), len(second)) < 2:
        raise ValueError("a Frechet distance needs at least 2 samples on each side")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("features hold NaN or infinity; drop those volumes first")
    whole = _plain(first, second)
    if not debias:
        return whole
    if min(len(first), len(second)) < 4:
        raise ValueError("extrapolation halves both sides: it needs at least 4 samples on each")
    rng = np.random.default_rng(0)
    halves = []
    for _ in range(16):
        a, b = rng.permutation(len(first)), rng.permutation(len(second))
        for part in (0, 1):
            halves.append(_plain(first[a[part::2]], second[b[part::2]]))
    return 2.0 * whole - float(np.mean(halves))


def _plain(x: np.ndarray, y: np.ndarray) -> float:
    mean = x.mean(axis=0) - y.mean(axis=0)
    left = (x - x.mean(axis=0)) / np.sqrt(len(x) - 1)
    right = (y - y.mean(axis=0)) / np.sqrt(len(y) - 1)
    # tr (S_x S_y)^(1/2) is the sum of singular values of L R^T; for n > d through the d x d Gram factors
    if len(left) > left.shape[1]:
        left = np.asarray(np.linalg.qr(left, mode="r"))
    if len(right) > right.shape[1]:
        right = np.asarray(np.linalg.qr(right, mode="r"))
    cross = np.linalg.svd(left @ right.T, compute_uv=False).sum()
    return float(mean @ mean + (left**2).sum() + (right**2).sum() - 2.0 * cross)


def kernel_distance(x: Any, y: Any) -> float:
    """Return the unbiased squared maximum mean discrepancy of features x (n, d) and y (m, d), n != m allowed.

    MMD^2 = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean k(x_i, y_j), k(a, b) = (a.b / d + 1)^3
    (Gretton et al. 2012; kernel of Binkowski et al. 2018). Unbiased, so it is at times below 0.
    Errors: ValueError for fewer than 2 samples or feature widths that differ.
    """
    first, second = array(x), array(y)
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise ValueError(f"features are (n, d) and (m, d), got {first.shape} and {second.shape}")
    if min(len(first), len(second)) < 2:
        raise ValueError("a kernel distance needs at least 2 samples on each side")

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / a.shape[1] + 1.0) ** 3

    def within(a: np.ndarray) -> float:
        values = kernel(a, a)
        return float((values.sum() - np.trace(values)) / (len(a) * (len(a) - 1)))

    return within(first) + within(second) - 2.0 * float(kernel(first, second).mean())


def nearest_neighbours(x: Any, y: Any) -> np.ndarray:
    """Return for each row of x (n, d) the Euclidean distance to its nearest row of y (m, d): (n,)."""
    first, second = array(x), array(y)
    out = np.empty(len(first))
    for index, row in enumerate(first):
        out[index] = np.sqrt(((second - row) ** 2).sum(axis=1).min())
    return out
