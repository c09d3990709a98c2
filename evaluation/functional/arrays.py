"""Turns what callers have into float64 numpy arrays."""

from typing import Any

import numpy as np


def array(values: Any) -> np.ndarray:
    """Return torch tensors and array-likes as a float64 numpy array."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    return np.asarray(values, dtype=np.float64)


def pair(x: Any, y: Any, least: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Return two feature sets (n, d), (m, d) as float64.

    Errors: ValueError for other shapes, fewer than `least` rows a side, NaN or infinity.
    """
    first, second = array(x), array(y)
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise ValueError(f"features are (n, d) and (m, d), got {first.shape} and {second.shape}")
    if min(len(first), len(second)) < least:
        raise ValueError(f"needs at least {least} samples on each side, got {len(first)} and {len(second)}")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("features hold NaN or infinity; drop those volumes first")
    return first, second
