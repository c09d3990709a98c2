"""Intensity maps: native units <-> the unit range networks see. They travel with the model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from synth.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Window:
    """CT: HU from low to high onto [0, 1], clipped; the inverse gives HU back inside the window.

    tissue   (from, to) HU that the middle half of [0, 1] shows, straight lines on either side; None = one line from
             low to high. Organs lie 50 HU apart while air and bone are 2000 apart, so on one line networks learn the
             outline of the body long before they tell its organs from one another

    >>> Window(low=-1024.0, high=1000.0, tissue=(-160.0, 240.0)).apply(np.array([-1024, -160, 40, 240])).tolist()
    [0.0, 0.25, 0.5, 0.75]
    """

    kind: Literal["window"] = "window"
    low: float = -1000.0
    high: float = 1000.0
    tissue: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.high <= self.low:
            raise ConfigError(f"window: high {self.high} is not above low {self.low}")
        if self.tissue is not None and not self.low < self.tissue[0] < self.tissue[1] < self.high:
            raise ConfigError(f"window: tissue {self.tissue} does not lie between low {self.low} and high {self.high}")

    @property
    def _knots(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        if self.tissue is None:
            return (self.low, self.high), (0.0, 1.0)
        return (self.low, *self.tissue, self.high), (0.0, *_TISSUE_SPAN, 1.0)

    def apply(self, data: np.ndarray) -> np.ndarray:
        """Return mapped float32 voxels."""
        return np.interp(data, *self._knots).astype(np.float32)

    def invert(self, mapped: np.ndarray) -> np.ndarray:
        """Return native units (float32)."""
        native, unit = self._knots
        return np.interp(mapped, unit, native).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Percentiles:
    """MR and all else: y = (x - p_low) / (p_high - p_low) with each volume's own percentiles, not clipped above.

    The inverse uses the population's median percentiles `low` and `high`, since a synthetic volume has
    none of its own; where `low` is not negative nothing is: magnitudes, counts and uptakes have no sign.
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
        native = (mapped * (self.high - self.low) + self.low).astype(np.float32)
        return np.maximum(native, 0.0) if self.low >= 0.0 else native


IntensityMap = Window | Percentiles
TISSUE_HU = (-160.0, 240.0)
"""Fat to contrasted organs: the usual window of the abdomen, 400 HU around 40."""
_TISSUE_SPAN = (0.25, 0.75)
WIDEST_HU = Window(low=-1024.0, high=3071.0)
"""The window in which CT is stored: twelve bits, of which a model sees the part that its training cases need."""
FOREGROUND_SHARE = 0.999
_MOST_CASES, _ROOM_HU, _LEAST_HU = 0.9, 200.0, 300.0


def learned_map(
    stored: IntensityMap, levels: Sequence[tuple[float, float]], foreground: Sequence[float | None]
) -> IntensityMap:
    """Return a channel's map as training cases show it; `stored` says which kind it is.

    levels       each case's own percentiles: their medians are the native levels of a synthetic volume
    foreground   each case's `foreground_top`: a CT window keeps air, shows soft tissue at half of its span, and ends
                 200 HU above the tops of nine cases in ten
    """
    if isinstance(stored, Window):
        tops = [top for top in foreground if top is not None]
        high = float(np.quantile(tops, _MOST_CASES)) if tops else 1000.0
        top = float(np.clip(high + _ROOM_HU, _LEAST_HU, stored.high))
        return Window(low=stored.low, high=top, tissue=TISSUE_HU)
    low, high = apart(*(float(level) for level in np.median(np.array(levels), axis=0)))
    return Percentiles(low=low, high=high)


def foreground_top(data: np.ndarray, labels: np.ndarray) -> float | None:
    """Return the value that 99.9 % of the labelled voxels stay below; None without a label."""
    inside = data[labels > 0]
    return float(np.quantile(inside.astype(np.float32), FOREGROUND_SHARE)) if inside.size else None


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
