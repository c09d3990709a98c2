"""Whether samples lie nearer to training volumes than volumes never trained on do."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.functional.distribution import nearest_neighbours

_SHARE = 0.1


@dataclass(frozen=True, eq=False)
class CopyTest:
    """Conformal p-values (n,), indices flagged at false-discovery rate q, whether this data can decide, and why."""

    p_values: np.ndarray
    flagged: np.ndarray
    decidable: bool
    note: str


def copy_test(synthetic: Any, training: Any, holdout: Any, *, q: float = 0.10) -> CopyTest:
    """Test each sample of embeddings (n, d) for being a copy of `training` (t, d), against `holdout` (h, d).

    p_i = (1 + #{j: c_j <= s_i}) / (h + 1) with s_i, c_j the distances of sample i and hold-out j to their nearest
    training row (conformal p-values, Bates et al. 2023), then Benjamini-Hochberg at q.
    Decidable when a tenth of the set being copies could be flagged: the smallest p is 1 / (h + 1), so k copies
    must be found at once, k >= n / (q (h + 1)). Errors: ValueError for an empty set or q outside 0..1.
    """
    if not 0 < q < 1:
        raise ValueError(f"q is a rate between 0 and 1, got {q}")
    if min(len(synthetic), len(training), len(holdout)) < 1:
        raise ValueError("a copy test needs synthetic, training and hold-out rows")
    found = nearest_neighbours(synthetic, training)
    control = np.sort(nearest_neighbours(holdout, training))
    p = (1 + np.searchsorted(control, found, side="right")) / (len(control) + 1)
    flagged = benjamini_hochberg(p, q=q)
    needed = int(np.ceil(len(p) / (q * (len(control) + 1)) - 1e-9))
    decidable = needed <= max(1, _SHARE * len(p))
    note = (
        f"{len(control)} hold-out volumes: at q = {q:g} at least {needed} of {len(p)} samples must be copies "
        f"at once to be flagged{'' if decidable else '; more hold-out volumes are needed to decide'}"
    )
    return CopyTest(p, flagged, decidable, note)


def benjamini_hochberg(p_values: np.ndarray, *, q: float) -> np.ndarray:
    """Return the indices rejected at false-discovery rate q (Benjamini & Hochberg 1995), ascending.

    >>> benjamini_hochberg(np.array([0.01, 0.9, 0.02, 0.5]), q=0.1).tolist()
    [0, 2]
    """
    order = np.argsort(p_values, kind="stable")
    below = np.flatnonzero(p_values[order] <= q * np.arange(1, len(order) + 1) / len(order))
    return np.sort(order[: below[-1] + 1]) if len(below) else np.zeros(0, dtype=np.int64)
