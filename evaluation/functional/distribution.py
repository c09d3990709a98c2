"""Distances between sets and to neighbours that need no moments or kernels. Knows feature rows only."""

from typing import Any

import numpy as np

from evaluation.functional.arrays import array, pair
from synth.rng import numpy_rng

_BLOCK = 64


def sliced_wasserstein(x: Any, y: Any, *, directions: int = 256, seed: int = 0) -> float:
    """Return the sliced 2-Wasserstein distance of features x (n, d) and y (m, d), n != m allowed.

    SW = (mean over directions u of W_2^2(x.u, y.u))^(1/2), W_2^2 = int_0^1 (F_x^-1(q) - F_y^-1(q))^2 dq

    over seeded unit directions, each one-dimensional distance exact (Bonneel et al. 2015); `mind` is its square by
    another factor. In the unit of the features; sensitive to more than two moments, and as every plain distance above
    0 for finite sets of one distribution, by more the smaller they are: set it beside that of real sets of these sizes.
    Errors: ValueError for fewer than 2 samples, feature widths that differ, NaN.

    >>> x = np.random.default_rng(0).normal(size=(50, 4))
    >>> round(sliced_wasserstein(x, x + [3.0, 0.0, 0.0, 0.0]) / 1.5, 1)  # 3 / sqrt(4)
    1.0
    """
    first, second = pair(x, y)
    if directions < 1:
        raise ValueError(f"needs at least 1 direction, got {directions}")
    axes = numpy_rng(seed, "directions").normal(size=(first.shape[1], directions))
    axes /= np.linalg.norm(axes, axis=0)
    # both quantile functions are constant between the merged steps i / n and j / m
    steps = np.unique(np.concatenate([_steps(len(first), len(second)), _steps(len(second), len(first))]))
    widths = np.diff(steps) / (len(first) * len(second))
    left, right = steps[:-1] // len(second), steps[:-1] // len(first)
    total = 0.0
    for start in range(0, directions, _BLOCK):
        block = axes[:, start : start + _BLOCK]
        a, b = np.sort(first @ block, axis=0), np.sort(second @ block, axis=0)
        total += float((widths[:, None] * (a[left] - b[right]) ** 2).sum())
    return float(np.sqrt(total / directions))


def mind(x: Any, y: Any, *, directions: int = 256, seed: int = 0) -> float:
    """Return MIND of features x (n, d) and y (m, d): the sliced distance squared, on the scale of a Frechet distance.

    MIND = 3 d mean over directions u of W_2^2(x.u, y.u)    (Monge Inception Distance, Berthet et al. 2026,
    arXiv 2605.06797)

    The name is that of the formula: theirs are Inception features, and of the larger set they drop rows, where this is
    exact for n != m. Biased as `sliced_wasserstein` is. Errors: as there.

    >>> x = np.random.default_rng(0).normal(size=(50, 1))
    >>> round(mind(x, x + 2.0), 6)  # 3 d shift^2
    12.0
    """
    return 3.0 * pair(x, y)[0].shape[1] * sliced_wasserstein(x, y, directions=directions, seed=seed) ** 2


def _steps(n: int, m: int) -> np.ndarray:
    """Return i / n for i = 0..n in units of 1 / (n m)."""
    return np.arange(n + 1) * m


def nearest_neighbours(x: Any, y: Any) -> np.ndarray:
    """Return for each row of x (n, d) the Euclidean distance to its nearest row of y (m, d): (n,)."""
    first, second = array(x), array(y)
    out = np.empty(len(first))
    for index, row in enumerate(first):
        out[index] = np.sqrt(((second - row) ** 2).sum(axis=1).min())
    return out
