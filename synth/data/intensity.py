"""Intensity maps: native units <-> the unit range networks see. They travel with the model."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from synth.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Window:
    """CT: y = (HU - low) / (high - low), clipped to [0, 1]; the inverse gives HU back inside the window."""

    kind: Literal["window"] = "window"
    low: float = -1000.0
    high: float = 1000.0

    def __post_init__(self) -> None:
        if self.high <= self.low:
            raise ConfigError(f"window: high {self.high} is not above low {self.low}")

    def apply(self, data: np.ndarray) -> np.ndarray:
        """Return mapped float32 voxels."""
        return np.clip((data.astype(np.float32) - self.low) / (self.high - self.low), 0.0, 1.0).astype(np.float32)

    def invert(self, mapped: np.ndarray) -> np.ndarray:
        """Return native units (float32)."""
        return (np.clip(mapped, 0.0, 1.0) * (self.high - self.low) + self.low).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Percentiles:
    """MR and all else: y = (x - p_low) / (p_high - p_low) with each volume's own percentiles, not clipped above.

    The inverse uses the population's median percentiles `low` and `high`, since a synthetic volume has
    none of its own.
    """

    kind: Literal["percentiles"] = "percentiles"
    low_share: float = 0.005
    high_share: float = 0.995
    low: float = 0.0
    high: float = 1.0

    def levels(self, data: np.ndarray) -> tuple[float, float]:
        """Return the volume's own (p_low, p_high); its extremes where nearly all voxels are one value.

        >>> sparse = np.zeros(1000); sparse[0] = 8.0
        >>> Percentiles().levels(sparse)
        (0.0, 8.0)
        """
        low, high = (float(level) for level in np.quantile(data.astype(np.float32), [self.low_share, self.high_share]))
        return (low, high) if high > low else apart(float(data.min()), float(data.max()))

    def apply(self, data: np.ndarray, levels: tuple[float, float] | None = None) -> np.ndarray:
        """Return mapped float32 voxels, limited to [-0.5, 2] so that a few hot voxels cannot rule the losses."""
        low, high = levels or self.levels(data)
        return np.clip((data.astype(np.float32) - low) / (high - low), -0.5, 2.0).astype(np.float32)

    def invert(self, mapped: np.ndarray) -> np.ndarray:
        """Return native units (float32)."""
        return (mapped * (self.high - self.low) + self.low).astype(np.float32)


IntensityMap = Window | Percentiles


def apart(low: float, high: float) -> tuple[float, float]:
    """Return (low, high) with high above low, on the scale of the values: diffusivities are of order 1e-9."""
    return low, high if high > low else low + (abs(low) * 1e-6 or 1.0)


def to_dtype(data: np.ndarray, dtype: str) -> np.ndarray:
    """Return `data` as `dtype`; whole-number types are rounded and limited to their range.

    >>> to_dtype(np.array([300.4, -2.0]), "uint8").tolist()
    [255, 0]
    """
    kind = np.dtype(dtype)
    if kind.kind in "iu":
        info = np.iinfo(kind)
        return np.clip(np.rint(data), info.min, info.max).astype(kind)
    return data.astype(kind)
