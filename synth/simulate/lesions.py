"""White-matter lesions: where, how large and how strong; painted as smooth irregular blobs."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

FINE_MM = 1.3
_RADII_MM = {"small": (3.2, 4.4), "medium": (5.0, 7.0), "large": (8.5, 11.5)}
_COUNT_SHARES = (0.15, 0.2, 0.18, 0.16, 0.13, 0.1, 0.08)


@dataclass(frozen=True)
class Plan:
    """Lesions to paint: centre (fine voxels) and radius (mm) of each, and one contrast for all."""

    spots: tuple[tuple[tuple[int, int, int], float], ...]
    contrast: str


def plan(white: Tensor, rng: np.random.Generator) -> Plan:
    """Draw 0-6 lesions with centres in deep white matter, apart from each other."""
    count = int(rng.choice(len(_COUNT_SHARES), p=_COUNT_SHARES))
    contrast = ("mild", "strong")[int(rng.integers(2))] if count else "none"
    deep = ndimage.uniform_filter(white.numpy(), 5) > 0.85
    places = np.argwhere(deep)
    spots: list[tuple[tuple[int, int, int], float]] = []
    for _ in range(count):
        size = rng.choice(list(_RADII_MM), p=(0.45, 0.35, 0.2))
        radius = float(rng.uniform(*_RADII_MM[size]))
        for _ in range(30):
            centre = places[int(rng.integers(len(places)))]
            near = [np.linalg.norm(centre - np.array(c)) * FINE_MM < 1.3 * (r + radius) + 4.0 for c, r in spots]
            if not any(near):
                spots.append(((int(centre[0]), int(centre[1]), int(centre[2])), radius))
                break
    return Plan(tuple(spots), contrast)


def paint(plan: Plan, tissue: Tensor, rng: np.random.Generator) -> Tensor:
    """Return the lesion fraction on the fine grid: irregular, soft-edged, only where there is `tissue` (gm + wm)."""
    out = torch.zeros_like(tissue)
    for centre, radius in plan.spots:
        reach = int(np.ceil(radius * 1.7 / FINE_MM))
        window = tuple(
            slice(max(c - reach, 0), min(c + reach + 1, n)) for c, n in zip(centre, tissue.shape, strict=True)
        )
        axes = [np.arange(s.start, s.stop) - c for s, c in zip(window, centre, strict=True)]
        offsets = np.stack(np.meshgrid(*axes, indexing="ij")) * FINE_MM
        stretch = rng.uniform(0.8, 1.25, size=3)
        distance = np.sqrt(((offsets / stretch[:, None, None, None]) ** 2).sum(axis=0)) / radius
        ripple = ndimage.gaussian_filter(rng.standard_normal(distance.shape), 2.0)
        distance = distance + 0.18 * ripple / max(float(ripple.std()), 1e-6)
        fraction = torch.from_numpy(1.0 / (1.0 + np.exp((distance - 1.0) * radius / 0.5)))
        out[window] = torch.maximum(out[window], fraction * tissue[window].clamp(0.0, 1.0))
    return out


def measure(mask: np.ndarray, spacing_mm: float, contrast: str) -> dict[str, str | float | int]:
    """Return the attributes measured on the final mask: count of connected lesions, volume in ml, contrast."""
    found = mask == 4
    count = int(ndimage.label(found, structure=np.ones((3, 3, 3)))[1])  # pyright: ignore[reportIndexIssue]
    volume = round(float(found.sum()) * spacing_mm**3 / 1000.0, 3)
    return {"lesion_count": count, "lesion_volume_ml": volume, "lesion_contrast": contrast if count else "none"}
