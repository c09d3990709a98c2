"""One simulated brain MR subject: anatomy warped from a template, tissues turned into a contrast.

What is random: the warp (global size, >= 4 mm between subjects, folding at 8-20 mm), tissue means,
lesions, bias field, Rician noise. The noise-free image is kept as truth.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from synth.errors import ConditionError, nearest
from synth.rng import numpy_rng
from synth.simulate import lesions, wording
from synth.simulate.template import GRID, SPACING_MM, template
from synth.simulate.warp import exponential, random_field, velocity_field
from synth.volume import Volume

CONTRASTS = ("T1", "T2", "FLAIR")
BRAIN_LABELS: Mapping[str, int] = {"csf": 1, "gm": 2, "wm": 3, "lesion": 4}
MARGIN_MM = 4.0

# Mean signal of (csf, gm, wm), how the template's texture shows, and a lesion's signal by its contrast.
_MEANS = {"T1": (190.0, 560.0, 800.0), "T2": (900.0, 540.0, 390.0), "FLAIR": (130.0, 620.0, 500.0)}
_TEXTURE = {"T1": 800.0, "T2": -520.0, "FLAIR": -330.0}
_LESION = {
    "mild": {"T1": 600.0, "T2": 640.0, "FLAIR": 770.0},
    "strong": {"T1": 400.0, "T2": 790.0, "FLAIR": 950.0},
}
_NOISE = 15.0
_STEP = 0.125
# Standard deviation in voxels of the point spread, full width at half maximum 3.1 mm at 2.6 mm voxels.
_POINT_SPREAD = 0.5
_WARP_BANDS = ((13.0, 3.4), (2.2, 1.3))


@dataclass(frozen=True, eq=False)
class Subject:
    """A simulated subject: image with noise, truth without, mask, and what its attributes and sentence say."""

    image: Volume
    truth: Volume
    mask: Volume
    attributes: Mapping[str, str | float | int]
    text: str


def reference_affine() -> np.ndarray:
    """Return the cohort's affine: RAS, 2.6 mm, centred on the world's origin."""
    affine = np.diag([SPACING_MM] * 3 + [1.0])
    affine[:3, 3] = [-SPACING_MM * (n - 1) / 2 for n in GRID]
    return affine


def subject_warp(seed: int) -> tuple[Tensor, np.ndarray]:
    """Return the subject's displacement (3, *GRID) in mm and its scale along each axis."""
    rng = numpy_rng(seed, "anatomy")
    displacement = exponential(velocity_field(GRID, _WARP_BANDS, spacing_mm=SPACING_MM, rng=rng), SPACING_MM)
    return displacement, rng.uniform(0.9, 0.97) * rng.uniform(0.98, 1.02, size=3)


def simulate_brain(seed: int, *, contrast: str | None = None) -> Subject:
    """Return the subject of `seed`, the same on every call; the contrast is drawn when None.

    Image and truth: (1, 64, 80, 64) float32 at 2.6 mm in MR units (white matter in T1 about 800). With tissue
    fractions f (csf, gm, wm, lesion), mean signals m, texture t and bias field b:
    truth = b (sum_k m_k f_k + t); image = sqrt((truth + n_1)^2 + n_2^2), n Gaussian (Rician noise,
    Gudbjartsson & Patz 1995), inside the head. Labels: the largest fraction, lesion where above 0.5.
    Errors: ConditionError for an unknown contrast; DataError where the template is not installed.

    >>> simulate_brain(7, contrast="FLAIR").text
    'FLAIR: one mild white matter lesion, large burden'
    """
    if contrast is not None and contrast not in CONTRASTS:
        raise ConditionError(f"contrast {contrast!r} is not simulated; {nearest(contrast, CONTRASTS)}")
    contrast = contrast or CONTRASTS[int(numpy_rng(seed, "contrast").integers(len(CONTRASTS)))]
    fine = _anatomy(seed)
    plan = lesions.plan(fine[2], numpy_rng(seed, "lesions"))
    lesion = lesions.paint(plan, fine.sum(dim=0) - fine[0] - fine[3], numpy_rng(seed, "lesion shapes"))
    tissues = fine[:3] * (1.0 - lesion)
    fractions = _seen(torch.cat([tissues, lesion[None], fine[3:] * (1.0 - lesion)]))
    truth = _truth(fractions.numpy(), contrast, plan.contrast, numpy_rng(seed, contrast))
    noise = numpy_rng(seed, contrast, "noise").standard_normal((2, *GRID)) * _NOISE
    inside = fractions[:4].sum(dim=0).numpy() > 0.02
    image = np.where(inside, np.sqrt((truth + noise[0]) ** 2 + noise[1] ** 2), 0.0)
    mask = _labels(fractions[:4])
    affine = reference_affine()
    attributes = {"contrast": contrast, **lesions.measure(mask, SPACING_MM, plan.contrast)}
    text = wording.sentence(attributes, numpy_rng(seed, "wording"))
    return Subject(
        image=Volume(_stored(image)[None], affine),
        truth=Volume(_stored(truth)[None], affine),
        mask=Volume(mask[None], affine, dict(BRAIN_LABELS)),
        attributes=attributes,
        text=text,
    )


def _anatomy(seed: int) -> Tensor:
    """Return (csf, gm, wm, texture) on the grid at half the spacing, whole brain inside the margin."""
    displacement, scale = subject_warp(seed)
    for _ in range(8):
        maps = _sample(displacement, scale)
        overlap = _overlap(maps)
        if overlap <= 0.0:
            return maps
        scale = scale * (1.0 - (overlap + 1.0) / 155.0)
    raise AssertionError(f"subject {seed} does not fit the field of view")


def _seen(fine: Tensor) -> Tensor:
    """Return maps (channel, *fine grid) as the scanner resolves them: voxel averages under its point spread."""
    voxels = functional.avg_pool3d(fine[None], 2)[0].numpy()
    return torch.from_numpy(ndimage.gaussian_filter(voxels, (0.0, *[_POINT_SPREAD] * 3), truncate=4.0))


def _sample(displacement: Tensor, scale: np.ndarray) -> Tensor:
    shape = template()
    fine = functional.interpolate(displacement[None], scale_factor=2, mode="trilinear", align_corners=False)[0]
    unit = []
    for axis, n in enumerate(GRID):
        places = (torch.arange(2 * n, dtype=torch.float64) + 0.5) * SPACING_MM / 2 - n * SPACING_MM / 2
        form = [1, 1, 1]
        form[axis] = -1
        position = (places.reshape(form) + fine[axis]) / float(scale[axis])
        unit.append(2.0 * position / shape.extent_mm[axis])
    points = torch.stack(unit[::-1], dim=-1)[None]
    return functional.grid_sample(shape.maps[None], points, align_corners=False, padding_mode="zeros")[0]


def _overlap(maps: Tensor) -> float:
    """Return by how many mm the brain reaches into the margin on its worst side (<= 0: it fits)."""
    inside = maps[:3].sum(dim=0) > 0.02
    worst = -MARGIN_MM
    for axis in range(3):
        others = [d for d in range(3) if d != axis]
        along = inside.any(dim=others[1]).any(dim=others[0]).nonzero().flatten()
        first, last = int(along[0]), int(along[-1])
        gap = min(first, inside.shape[axis] - 1 - last) * SPACING_MM / 2
        worst = max(worst, MARGIN_MM - gap)
    return worst


def _truth(fractions: np.ndarray, contrast: str, lesion_contrast: str, rng: np.random.Generator) -> np.ndarray:
    means = np.array(_MEANS[contrast]) * rng.uniform(0.96, 1.04, size=3)
    lesion = _LESION.get(lesion_contrast, {}).get(contrast, float(means[2])) * rng.uniform(0.97, 1.03)
    signal = np.tensordot(np.array([*means, lesion]), fractions[:4], axes=1)
    signal = signal + _TEXTURE[contrast] * fractions[4]
    bias = np.clip(np.exp(0.05 * random_field(GRID, 40.0, SPACING_MM, rng)), 0.88, 1.12)
    return np.clip(signal * bias, 0.0, None)


def _stored(signal: np.ndarray) -> np.ndarray:
    """Return a signal in steps of `_STEP`: what CPUs compute apart in the last bits is one volume."""
    return (np.round(signal / _STEP) * _STEP).astype(np.float32)


def _labels(fractions: Tensor) -> np.ndarray:
    background = 1.0 - fractions.sum(dim=0)
    label = torch.cat([background[None], fractions[:3]]).argmax(dim=0)
    label[fractions[3] > 0.5] = BRAIN_LABELS["lesion"]
    return label.to(torch.uint8).numpy()
