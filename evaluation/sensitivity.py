"""What each fidelity metric must see: beside every metric the corruptions that it answers for.

A metric on sets is given features of a judged and of a real set; a paired one, images and what they were. The
benchmark `benchmarks.corruptions` holds each to its declaration: five severities in strict order, up to saturation,
for every seed. A metric is added by one line of PROBES. Knows no corruption's making and no file.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from evaluation.functional import (
    frechet_distance,
    frechet_radiomics_distance,
    kernel_distance,
    ms_ssim,
    nearest_neighbours,
    psnr,
    ssim,
)

VOXELS = frozenset(
    {
        "gaussian_noise", "rician_noise", "blur", "thick_slices", "low_resolution", "offset", "contrast", "bias_field",
        "ghosting", "motion", "gibbs", "spike", "slice_duplication", "slice_dropping", "zoom", "elastic",
        "checkerboard", "blocks",
    }
)  # fmt: skip
"""Every corruption of images."""
MODES, COPIES = frozenset({"mode_drop"}), frozenset({"duplication"})


@dataclass(frozen=True, eq=False)
class Sets:
    """What probes are given: features (n, d) standardised by the real set; images in pairs, judged and as they were."""

    made: np.ndarray
    real: np.ndarray
    images: Sequence[np.ndarray] = ()
    originals: Sequence[np.ndarray] = ()


@dataclass(frozen=True)
class Probe:
    """A metric, which way it goes when a set gets worse, what it must see, and where it can go no further.

    paired     compares each image with what it was, so that it says nothing of corruptions of sets
    saturates  the value at which it has nothing left to lose; None: it has no end
    """

    measure: Callable[[Sets], float]
    worse: Literal["higher", "lower"]
    sees: frozenset[str]
    paired: bool = False
    saturates: float | None = None


def _mean(measure: Callable[..., np.ndarray]) -> Callable[[Sets], float]:
    def mean(sets: Sets) -> float:
        pairs = zip(sets.images, sets.originals, strict=True)
        return float(np.mean([measure(a[None], b[None], data_range=1.0)[0] for a, b in pairs]))

    return mean


PROBES: Mapping[str, Probe] = {
    "frechet": Probe(lambda s: frechet_distance(s.made, s.real), "higher", VOXELS | MODES),
    "frechet_radiomics": Probe(lambda s: frechet_radiomics_distance(s.made, s.real), "higher", VOXELS | MODES),
    "kernel": Probe(lambda s: kernel_distance(s.made, s.real), "higher", VOXELS | MODES),
    "nearest": Probe(lambda s: float(np.median(nearest_neighbours(s.made, s.real))), "higher", VOXELS),
    "ssim": Probe(_mean(ssim), "lower", VOXELS - {"offset"}, paired=True, saturates=0.0),
    "ms_ssim": Probe(_mean(ms_ssim), "lower", VOXELS - {"offset", "contrast"}, paired=True, saturates=0.0),
    "psnr": Probe(_mean(psnr), "lower", VOXELS, paired=True),
}
"""By name. SSIM forgives a small change of mean and contrast by design."""


@dataclass(frozen=True)
class Order:
    """Whether values over severities 0 (clean) to 5 go strictly the way of worse, up to saturation.

    strict     severities 1 to 5 are in strict order, but for those at saturation
    rises      severity 1 is already worse than clean
    saturated  how many of the last severities are at saturation
    spearman   rank correlation of severities 1 to 5 with the values, signed so that 1 is right
    """

    strict: bool
    rises: bool
    saturated: int
    spearman: float


def order_of(probe: Probe, values: Sequence[float]) -> Order:
    """Return the order of a probe's values at severities 0 to 5.

    >>> order_of(PROBES["ssim"], [1.0, 0.9, 0.5, 0.2, 0.0, 0.0])
    Order(strict=True, rises=True, saturated=2, spearman=1.0)
    """
    sign = 1.0 if probe.worse == "higher" else -1.0
    worse = sign * np.array(values, dtype=np.float64)
    end = np.inf if probe.saturates is None else sign * probe.saturates
    saturated = int((worse[1:] >= end - 1e-6).sum())
    steps = np.diff(worse[1 : len(worse) - max(saturated - 1, 0)])
    kept = worse[1 : len(worse) - max(saturated - 1, 0)]
    rank = _spearman(kept) if len(set(kept)) > 1 else float(saturated > 0)
    return Order(bool((steps > 0).all()), bool(worse[1] > worse[0]), saturated, round(rank, 6))


def _spearman(values: np.ndarray) -> float:
    """Return the rank correlation of values with their order, ties sharing their mean rank."""
    from scipy import stats

    ranks = stats.rankdata(values)
    return float(np.corrcoef(np.arange(len(ranks)), ranks)[0, 1])
