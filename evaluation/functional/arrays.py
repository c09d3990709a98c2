"""Turns what callers have into float64 numpy arrays."""

from typing import Any

import numpy as np


def array(values: Any) -> np.ndarray:
    """Return torch tensors and array-likes as a float64 numpy array."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    return np.asarray(values, dtype=np.float64)
