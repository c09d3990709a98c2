"""The MNI152 brain (1 mm T1, grey and white matter maps; Fonov et al. 2009) as tissue fractions.

nilearn ships the maps; they are read from its folder without importing it. Skull-stripped: the brain
is the whole head there is.
"""

from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from synth.errors import DataError

GRID = (64, 80, 64)
SPACING_MM = 2.6
_FILE = "mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"


@dataclass(frozen=True, eq=False)
class Template:
    """Maps (csf, gm, wm, texture) at 1 mm, centred on the brain; texture is T1 unexplained by the tissues."""

    maps: Tensor
    extent_mm: tuple[float, float, float]


def _folder() -> Path:
    spec = find_spec("nilearn")
    if spec is None or not spec.submodule_search_locations:
        raise DataError('the brain template comes with nilearn, which is not installed; pip install "synthvol[cohort]"')
    return Path(spec.submodule_search_locations[0]) / "datasets" / "data"


@lru_cache(maxsize=1)
def template() -> Template:
    """Return the template, read once per process."""
    import nibabel

    folder = _folder()
    arrays = []
    for name in ("t1", "gm", "wm"):
        path = folder / _FILE.format(name)
        if not path.is_file():
            raise DataError(f"{path} is missing; reinstall nilearn")
        arrays.append(np.asarray(nibabel.load(path).dataobj).astype(np.float64) / 255.0)  # pyright: ignore[reportAttributeAccessIssue]
    t1, grey, white = arrays
    brain = np.asarray(ndimage.binary_fill_holes(ndimage.binary_opening(t1 > 0.12, iterations=2)), dtype=bool)
    inside = ndimage.gaussian_filter(brain.astype(np.float64), 0.6)
    grey, white = grey * inside, white * inside
    total = np.maximum(grey + white, 1e-6)
    over = np.minimum(inside / total, 1.0)
    grey, white = grey * over, white * over
    fluid = np.clip(inside - grey - white, 0.0, None)
    tissues = np.stack([fluid, grey, white])
    voxels = brain & (ndimage.uniform_filter(brain.astype(np.float64), 3) > 0.99)
    design = tissues[:, voxels].T
    means, *_ = np.linalg.lstsq(design, t1[voxels], rcond=None)
    texture = np.where(brain, t1 - np.tensordot(means, tissues, axes=1), 0.0) * inside
    texture = np.clip(texture / float(means[2]), -0.25, 0.25)
    low = np.argwhere(brain).min(axis=0)
    high = np.argwhere(brain).max(axis=0) + 1
    maps = np.concatenate([tissues, texture[None]])[:, low[0] : high[0], low[1] : high[1], low[2] : high[2]]
    extent = tuple(float(n) for n in high - low)
    return Template(torch.from_numpy(np.ascontiguousarray(maps)), extent)  # pyright: ignore[reportArgumentType]
