"""Two small nnU-Net raw datasets that the cohort code did not make: crops of one real scan, and a CT phantom.

Files are written by nibabel, labels have gaps (0, 3, 7 or 1, 200), axes are turned, flipped and oblique. The scan
is ch2 of MRIcron (the single-subject brain, T1, 1 mm) with the label map drawn on it (AAL). Knows no model.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from synth.io import read
from synth.volume import Volume

CH2_LABELS = {"cortex": 3, "deep_grey": 7, "cerebellum": 200}
CT_LABELS = {"lung": 1, "soft_tissue": 3, "bone": 200}
CT_SPACING = (3.0, 3.0, 5.0)
CT_NOISE = 12.0
TISSUES = {"air": -1000, "lung": -850, "fat": -100, "soft_tissue": 40, "bone": 700, "metal": 3000}
"""What the phantom is made of, in HU before partial volume and noise; air is exact, metal too."""


@dataclass(frozen=True)
class View:
    """One crop of the scan: centre and spacing in world order (R, A, S), rotation in degrees, axes on disk."""

    centre: tuple[float, float, float]
    degrees: tuple[float, float, float]
    order: tuple[int, int, int] = (0, 1, 2)
    flips: tuple[int, int, int] = (1, 1, 1)
    spacing: tuple[float, float, float] = (2.0, 2.0, 4.0)
    grid: tuple[int, int, int] = (48, 56, 22)

    @property
    def affine(self) -> np.ndarray:
        """Voxel -> mm: disk axis d runs along turned world axis order[d], backwards where flips[d] is -1."""
        turned = Rotation.from_euler("xyz", self.degrees, degrees=True).as_matrix()
        steps = [turned[:, w] * self.spacing[w] * f for w, f in zip(self.order, self.flips, strict=True)]
        affine = np.eye(4)
        affine[:3, :3] = np.stack(steps, axis=1)
        middle = (np.array(self.disk_grid) - 1) / 2
        affine[:3, 3] = np.array(self.centre) - affine[:3, :3] @ middle
        return affine

    @property
    def disk_grid(self) -> tuple[int, ...]:
        """Voxels along the axes on disk."""
        return tuple(self.grid[world] for world in self.order)


VIEWS = (
    View((0, -15, 12), (0, 0, 0)),
    View((4, -20, 6), (11, -7, 5), flips=(-1, 1, 1)),
    View((-6, -8, 14), (-9, 4, 14), flips=(-1, -1, 1)),
    View((2, -26, 2), (16, 0, -6), order=(1, 0, 2), flips=(1, 1, -1)),
    View((-3, -12, 8), (-6, 12, 0), order=(2, 0, 1), flips=(-1, 1, 1)),
    View((0, -18, 10), (5, 5, 5), order=(1, 2, 0), spacing=(4.0, 2.0, 2.0), grid=(24, 56, 44)),
)
"""Overlapping crops of the one scan; the last is a sagittal stack, whose thick axis is another one."""


def brain_regions(atlas: np.ndarray) -> np.ndarray:
    """Return labels 0, 3, 7, 200 of AAL numbers: cortex 1-70 and 79-90, deep grey 71-78, cerebellum 91-116."""
    out = np.zeros(atlas.shape, dtype=np.int16)
    out[(atlas >= 1) & (atlas <= 90)] = CH2_LABELS["cortex"]
    out[(atlas >= 71) & (atlas <= 78)] = CH2_LABELS["deep_grey"]
    out[atlas >= 91] = CH2_LABELS["cerebellum"]
    return out


def write_ch2(templates: Path, folder: Path) -> Path:
    """Write the crops of `templates`/ch2.nii.gz as int16 with their regions, all of patient ch2."""
    scan, atlas = read(templates / "ch2.nii.gz"), read(templates / "aal.nii.gz")
    scan.require_same_geometry(atlas, case="ch2", what="aal.nii.gz")
    regions = Volume(brain_regions(atlas.data), atlas.affine, CH2_LABELS)
    for number, view in enumerate(VIEWS):
        image = scan.resample_to(view.disk_grid, view.affine).data[0]
        mask = regions.resample_to(view.disk_grid, view.affine).data[0]
        noted = number % 2 == 0
        save(np.rint(image).astype(np.int16), view.affine, folder / f"imagesTr/ch2_{number:02d}_0000.nii.gz", noted)
        save(mask.astype(np.int16), view.affine, folder / f"labelsTr/ch2_{number:02d}.nii.gz", noted)
    return describe(folder, "Colin27_crops", "T1", CH2_LABELS, len(VIEWS))


@dataclass(frozen=True, eq=False)
class Phantom:
    """One CT: int16 HU and labels (0, 1, 3, 200) on disk axes, its affine, and what each voxel is made of."""

    image: np.ndarray
    labels: np.ndarray
    tissue: np.ndarray
    affine: np.ndarray


def ct_phantom(index: int, grid: tuple[int, int, int] = (56, 44, 20)) -> Phantom:
    """Return patient `index`: a thorax of fat around soft tissue, two lungs, a spine, and a metal rod beside it.

    Soft tissue and fat are one label, metal has none. Edges are smooth but for the metal's; air is -1000 exactly.
    """
    rng = np.random.default_rng([2, index])
    at = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in grid], indexing="ij"))
    wide, deep, shift = rng.uniform(0.72, 0.9), rng.uniform(0.66, 0.85), rng.uniform(-0.06, 0.06, size=2)

    def oval(x: float, y: float, a: float, b: float, taper: float = 0.0) -> np.ndarray:
        along = 1.0 - taper * (at[2] + 0.3) ** 2
        return ((at[0] - shift[0] - x) / (a * along)) ** 2 + ((at[1] - shift[1] - y) / (b * along)) ** 2 < 1

    tissue = np.zeros(grid, dtype=np.uint8)
    tissue[oval(0, 0, wide, deep, 0.1)] = 2
    tissue[oval(0, 0, wide - rng.uniform(0.08, 0.16), deep - rng.uniform(0.1, 0.18), 0.1)] = 3
    for side in (-1, 1):
        tissue[oval(side * 0.42 * wide, 0.15, 0.3 * wide, 0.52 * deep, rng.uniform(0.2, 0.5))] = 1
    tissue[oval(0, -0.45 * deep, 0.17, 0.2)] = 4
    hounsfield = np.array(list(TISSUES.values()), dtype=np.float64)
    clean = ndimage.gaussian_filter(hounsfield[tissue], [0.5, 0.5, 0.3])
    image = clean + rng.normal(0, CT_NOISE, grid) * (clean > TISSUES["air"] + 1)
    rod = (np.abs(at[0] - shift[0] - 0.3) < 2.1 / grid[0]) & (np.abs(at[1] - shift[1] + 0.5 * deep) < 2.1 / grid[1])
    tissue[rod & (np.abs(at[2]) < 0.6)] = 5
    image[tissue == 5] = TISSUES["metal"]
    labels = np.array([0, 1, 3, 3, 200, 0], dtype=np.int16)[tissue]
    stored = np.clip(np.rint(image), -1000, 3071).astype(np.int16)
    flips = ((-1, -1, 1), (1, 1, 1))[index % 2]
    view = View((5.0 * index, -120, 300), (0, 0, 0) if index % 3 else (3, -2, 6), (0, 1, 2), flips, CT_SPACING, grid)
    turned = [np.flip(part, tuple(axis for axis in range(3) if flips[axis] < 0)) for part in (stored, labels, tissue)]
    return Phantom(turned[0], turned[1], turned[2], view.affine)


def write_ct(folder: Path, patients: int, grid: tuple[int, int, int] = (56, 44, 20)) -> Path:
    """Write CT phantoms of `patients` patients, one case each."""
    for index in range(patients):
        made = ct_phantom(index, grid)
        save(made.image, made.affine, folder / f"imagesTr/p{index:02d}_ct_0000.nii.gz", noted=True)
        save(made.labels, made.affine, folder / f"labelsTr/p{index:02d}_ct.nii.gz", noted=True)
    return describe(folder, "CT_phantom", "CT", CT_LABELS, patients)


def save(data: np.ndarray, affine: np.ndarray, path: Path, noted: bool) -> None:
    """Write by nibabel: sform and qform where `noted`, else the sform alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(data, affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine if noted else None, code=int(noted))
    nibabel.save(image, path)


def describe(folder: Path, name: str, channel: str, labels: Mapping[str, int], count: int) -> Path:
    """Write dataset.json and return the folder."""
    info = {
        "name": name,
        "channel_names": {"0": channel},
        "labels": {"background": 0, **labels},
        "numTraining": count,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(info, indent=2) + "\n")
    return folder


def files_of(folder: Path) -> Sequence[tuple[Path, Path]]:
    """Return (first channel, mask) of the cases of an nnU-Net folder, in order."""
    masks = sorted((folder / "labelsTr").glob("*.nii.gz"))
    return [(folder / "imagesTr" / path.name.replace(".nii.gz", "_0000.nii.gz"), path) for path in masks]
