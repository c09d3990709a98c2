"""The Frechet distance of standardised radiomics features, on a logarithmic scale."""

from typing import Any, Literal

import numpy as np

from evaluation.functional.arrays import array
from evaluation.functional.frechet import frechet_distance

Log = Literal["paper", "code", "none"]


def frechet_radiomics_distance(x: Any, y: Any, *, log: Log = "paper", debias: bool = False) -> float:
    """Return the Frechet radiomics distance of features x (n, d), the judged set, to y (m, d), the real one.

    d^2 = Frechet distance of (x - mean_y) / sd_y and (y - mean_y) / sd_y; FRD = log d    (Konz, Osuala et al.,
    arXiv 2412.01496, equation 3). A feature that is constant in y is left out.

    log      paper: log d; code: log d^2 = 2 log d, the default of the frd-score package; none: d^2
    debias   as in frechet_distance; an extrapolated d^2 at or below 0 has no logarithm and gives -inf
    Sets that are equal give -inf under a logarithm. Features are those of this library's extractor, not of
    PyRadiomics: values compare within it only. Errors: those of frechet_distance; ValueError for another log, or
    where every feature of y is constant.

    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.normal(size=(60, 3)), rng.normal(1.0, 1.0, size=(60, 3))
    >>> paper, code = (frechet_radiomics_distance(x, y, log=name) for name in ("paper", "code"))
    >>> bool(abs(code - 2 * paper) < 1e-12)
    True
    """
    if log not in ("paper", "code", "none"):
        raise ValueError(f"log is paper, code or none, got {log!r}")
    first, second = array(x), array(y)
    if second.ndim != 2 or first.ndim != 2 or first.shape[1] != second.shape[1]:
        raise ValueError(f"features are (n, d) and (m, d), got {first.shape} and {second.shape}")
    centre, spread = second.mean(axis=0), second.std(axis=0)
    kept = spread > 1e-9 * np.maximum(np.abs(centre), 1.0)
    if not kept.any():
        raise ValueError("every feature of the real set is constant; give more, and different, volumes")
    scaled = [(rows[:, kept] - centre[kept]) / spread[kept] for rows in (first, second)]
    square = frechet_distance(scaled[0], scaled[1], debias=debias)
    if log == "none":
        return square
    # rounding leaves d^2 of equal sets at some 1e-13 on either side of 0
    value = float(np.log(square)) if square > 1e-9 else -np.inf
    return value / 2 if log == "paper" else value
