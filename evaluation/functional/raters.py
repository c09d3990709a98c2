"""Several raters of one case: where they agree, how much, and a prediction against them. Knows no files.

Regions are those of CURVAS (Riera-Marin et al. 2025): consensus foreground (all raters), consensus background (none),
dissensus (some). `raters` is always label maps (raters, *grid).
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from evaluation.functional.arrays import array
from evaluation.functional.calibration import expected_calibration_error
from evaluation.functional.segmentation import dice


class RaterRegions(NamedTuple):
    """Boolean regions (*grid) of one label that part the image."""

    foreground: np.ndarray
    background: np.ndarray
    dissensus: np.ndarray


def rater_regions(raters: Any, *, label: int) -> RaterRegions:
    """Return where all, none and some raters see `label`. Errors: ValueError for fewer than 2 raters."""
    votes = _raters(raters) == label
    every, some = votes.all(axis=0), votes.any(axis=0)
    return RaterRegions(every, ~some, some & ~every)


def rater_agreement(raters: Any, *, labels: Sequence[int]) -> np.ndarray:
    """Return the mean Dice over pairs of raters, of each label: (labels,); NaN where no rater sees it.

    What a prediction can be held to: it can't agree with raters better than they with one another.
    Errors: ValueError for fewer than 2 raters.
    """
    maps = _raters(raters)
    mean = np.mean([dice(a, b, labels=labels) for a, b in combinations(maps, 2)], axis=0)
    return np.where([(maps == label).any() for label in labels], mean, np.nan)


def consensus_dice(pred: Any, raters: Any, *, labels: Sequence[int]) -> np.ndarray:
    """Return the Dice of a label map (*grid) with the consensus, dissensus voxels left out, of each label: (labels,).

    NaN where the raters have no consensus foreground. Errors: ValueError for fewer than 2 raters or other grids.
    """
    found, maps = array(pred), _raters(raters)
    if found.shape != maps.shape[1:]:
        raise ValueError(f"prediction has grid {found.shape}, raters {maps.shape[1:]}; compare equal ones")
    out = []
    for label in labels:
        region = rater_regions(maps, label=label)
        a = (found == label) & ~region.dissensus
        size = a.sum() + region.foreground.sum()
        out.append(2.0 * (a & region.foreground).sum() / size if region.foreground.any() else np.nan)
    return np.array(out)


def dissensus_error(prob: Any, raters: Any, *, label: int) -> float:
    """Return the mean |p - share of raters who see `label`| where they disagree; NaN where they never do.

    prob (*grid) is the label's probability. Errors: ValueError for fewer than 2 raters or other grids.
    """
    stated, maps = array(prob), _raters(raters)
    if stated.shape != maps.shape[1:]:
        raise ValueError(f"prob has grid {stated.shape}, raters {maps.shape[1:]}; compare equal ones")
    where = rater_regions(maps, label=label).dissensus
    return float(np.abs(stated - (maps == label).mean(axis=0))[where].mean()) if where.any() else float("nan")


def rater_calibration_error(prob: Any, raters: Any, *, bins: int = 15) -> float:
    """Return the expected calibration error against each rater, averaged (CURVAS).

    prob (classes, *grid), the raters' values its classes. Errors: ValueError for fewer than 2 raters or other grids.
    """
    stated, maps = array(prob), _raters(raters)
    if stated.shape[1:] != maps.shape[1:]:
        raise ValueError(f"prob has grid {stated.shape[1:]}, raters {maps.shape[1:]}; compare equal ones")
    rows = stated.reshape(len(stated), -1).T
    return float(np.mean([expected_calibration_error(rows, rater.ravel(), bins=bins) for rater in maps]))


def _raters(raters: Any) -> np.ndarray:
    maps = array(raters)
    if maps.ndim not in (3, 4) or len(maps) < 2:
        raise ValueError(f"raters are 2 label maps at least, (raters, *grid), got {maps.shape}")
    return maps
