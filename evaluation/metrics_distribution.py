"""Distances and scores of feature sets as torchmetrics.Metric: update() with rows, compute() once.

Knows no files, models or images. Rows are kept in float64, whatever comes in; what is computed stands in
evaluation.functional.
"""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from evaluation import functional as F  # noqa: N812 - the name users type
from evaluation.metrics_base import joined


class _Features(Metric):
    """Gathers feature rows of both sets, and of which patient each is."""

    full_state_update = False
    real: list[Tensor]
    synthetic: list[Tensor]
    real_clusters: list[Tensor]
    synthetic_clusters: list[Tensor]

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for name in ("real", "synthetic", "real_clusters", "synthetic_clusters"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, features: Tensor, *, real: bool, clusters: Tensor | None = None) -> None:
        """Add rows (n, d) of the real or the synthetic set; clusters (n,) whole numbers say whose, all or none."""
        rows = features.detach().double()
        (self.real if real else self.synthetic).append(rows)
        if clusters is not None:
            if len(clusters) != len(rows):
                raise ValueError(f"{len(clusters)} clusters for {len(rows)} rows; give one per row")
            (self.real_clusters if real else self.synthetic_clusters).append(clusters.detach().long())

    def _sets(self) -> tuple[Tensor, Tensor]:
        if not len(self.real) or not len(self.synthetic):
            raise ValueError("update() with real=True and with real=False before compute()")
        return joined(self.synthetic), joined(self.real)

    def _clusters(self) -> dict[str, Any]:
        given = {"clusters_x": self.synthetic_clusters, "clusters_y": self.real_clusters}
        return {name: joined(state).tolist() if len(state) else None for name, state in given.items()}


class FrechetDistance(_Features):
    """Frechet distance between features of two sets; see functional.frechet_distance and frechet_interval."""

    higher_is_better = False

    def __init__(self, *, debias: bool = False, **settings: Any) -> None:
        super().__init__(**settings)
        self.debias = debias

    def compute(self) -> Tensor:
        """Return the distance."""
        return _scalar(F.frechet_distance(*self._sets(), debias=self.debias, **self._clusters()))

    def interval(self, level: float = 0.95) -> F.FrechetInterval:
        """Return the distance without bias and its interval over patients."""
        return F.frechet_interval(*self._sets(), level=level, **self._clusters())


class KernelDistance(_Features):
    """Unbiased kernel distance (KID) between features of two sets; see functional.kernel_distance and kernel_test."""

    higher_is_better = False

    def compute(self) -> Tensor:
        """Return the squared distance."""
        return _scalar(F.kernel_distance(*self._sets(), **self._clusters()))

    def permutation_test(self, *, resamples: int = 999, seed: int = 0) -> F.KernelTest:
        """Return the permutation test of equal distributions."""
        return F.kernel_test(*self._sets(), resamples=resamples, seed=seed, **self._clusters())


class PrecisionRecall(_Features):
    """Precision and recall (2,) of the synthetic set; see functional.precision_recall."""

    higher_is_better = True

    def __init__(self, *, k: int = 5, **settings: Any) -> None:
        super().__init__(**settings)
        self.k = k

    def compute(self) -> Tensor:
        """Return (precision, recall)."""
        return torch.tensor(F.precision_recall(*self._sets(), k=self.k), dtype=torch.float64)


class DensityCoverage(_Features):
    """Clipped Density and Clipped Coverage (2,) of the synthetic set; see functional.density_coverage."""

    higher_is_better = True

    def __init__(self, *, k: int = 5, **settings: Any) -> None:
        super().__init__(**settings)
        self.k = k

    def compute(self) -> Tensor:
        """Return (density, coverage)."""
        return torch.tensor(F.density_coverage(*self._sets(), k=self.k), dtype=torch.float64)


class SlicedWasserstein(_Features):
    """Sliced 2-Wasserstein distance between features of two sets; see functional.sliced_wasserstein."""

    higher_is_better = False

    def __init__(self, *, directions: int = 256, seed: int = 0, **settings: Any) -> None:
        super().__init__(**settings)
        self.directions, self.seed = directions, seed

    def compute(self) -> Tensor:
        """Return the distance."""
        return _scalar(F.sliced_wasserstein(*self._sets(), directions=self.directions, seed=self.seed))


class VendiScore(Metric):
    """Vendi score of one set of features; see functional.vendi_score."""

    full_state_update = False
    higher_is_better = True
    rows: list[Tensor]

    def __init__(self, *, bandwidth: float | None = None, cosine: bool = False, **settings: Any) -> None:
        super().__init__(**settings)
        self.bandwidth, self.cosine = bandwidth, cosine
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    def update(self, features: Tensor) -> None:
        """Add rows (n, d)."""
        self.rows.append(features.detach().double())

    def compute(self) -> Tensor:
        """Return the effective number of different rows."""
        if not len(self.rows):
            raise ValueError("update() before compute()")
        return _scalar(F.vendi_score(joined(self.rows), bandwidth=self.bandwidth, cosine=self.cosine))


def _scalar(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)
