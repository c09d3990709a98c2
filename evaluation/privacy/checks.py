"""What is wrong with a design or a set before any test: patients on both sides, equal volumes, real masks, faces."""

import hashlib
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from evaluation.evidence import Evidence, Judged
from synth.errors import DataError

_AIR = 0.08
_HEAD_LITRES = (1.8, 7.0)
_BEYOND_MM = 12.0
_BEYOND_SHARE = 0.12


def require_apart(evidence: Evidence) -> None:
    """Raise DataError where a patient is in training and hold-out both: nothing was held out of him."""
    both = {item.whose for item in evidence.training} & {item.whose for item in evidence.holdout}
    if both:
        raise DataError(
            f"{len(both)} patients are in training and hold-out both; split by patient (`synth prepare --patients`)"
        )


def digest(item: Judged) -> str:
    """Return the sha256 of a volume's voxels, in single precision."""
    image = np.ascontiguousarray(item.image, dtype=np.float32)
    return hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).hexdigest()


def same_voxels(items: Sequence[Judged], others: Sequence[Judged]) -> list[int]:
    """Return which of `items` have the voxels of one of `others`."""
    known = {digest(item) for item in others}
    return [index for index, item in enumerate(items) if digest(item) in known]


def near_duplicates(control: np.ndarray, planted: np.ndarray) -> list[int]:
    """Return the hold-out volumes that lie as near to training as half of the planted copies, where that is rare.

    Where copies are not at half the distance of other patients, or more than a twentieth of these lie so near, the
    embedding does not tell them apart, and says nothing.
    """
    limit = float(np.median(planted))
    near = np.flatnonzero(control <= limit)
    telling = limit <= 0.5 * float(np.median(control)) and len(near) <= max(1, len(control) // 20)
    return near.tolist() if telling else []


def real_masks(evidence: Evidence) -> list[int]:
    """Return the samples that carry the mask of a real patient: said so, or voxel for voxel that of a real volume."""
    known = {_mask_digest(item) for item in (*evidence.training, *evidence.holdout)} - {""}
    return [
        index
        for index, item in enumerate(evidence.synthetic)
        if item.mask_origin == "real" or _mask_digest(item) in known
    ]


def patient_edits(evidence: Evidence) -> list[int]:
    """Return the samples that are edits of images of patients, as their set says."""
    return [index for index, item in enumerate(evidence.synthetic) if item.edits_patient]


def _mask_digest(item: Judged) -> str:
    """Return the sha256 of a mask; empty for one of a single value, which tells nothing."""
    mask = np.ascontiguousarray(item.mask, dtype=np.uint8)
    if mask.min() == mask.max():
        return ""
    return hashlib.sha256(f"{mask.shape}".encode() + mask.tobytes()).hexdigest()


def shows_a_face(item: Judged, spacing_mm: Sequence[float]) -> bool:
    """Say whether a volume looks like a head with its skin: from the surface a face can be rebuilt.

    A guess, by stated rules: 3D with known spacing; one body above 8 % of the range, of 1.8 to 7 litres, that reaches
    the border at no more than two of six sides (neck and, cut close, one more); and, where labels tell the organ, at
    least 12 % of it further than 12 mm outside them. A skull-stripped brain, a chest or an abdomen does not pass.
    """
    if item.mask.ndim != 3 or len(spacing_mm) != 3:
        return False
    image = np.asarray(item.image[0], dtype=np.float64)
    low, high = np.quantile(image, [0.005, 0.995])
    marked = np.zeros(image.shape, dtype=np.int32)
    if not ndimage.label(image > low + _AIR * max(high - low, 1e-9), output=marked):
        return False
    body = marked == 1 + int(np.bincount(marked.ravel())[1:].argmax())
    litres = float(np.asarray(ndimage.binary_fill_holes(body)).sum() * np.prod(spacing_mm) / 1e6)
    sides = [np.take(body, at, axis=axis).mean() > 0.02 for axis in range(3) for at in (0, -1)]
    if not _HEAD_LITRES[0] <= litres <= _HEAD_LITRES[1] or sum(sides) > 2:
        return False
    if not item.mask.any():
        return True
    away = ndimage.distance_transform_edt(item.mask == 0, sampling=tuple(spacing_mm))
    return bool((np.asarray(away)[body] > _BEYOND_MM).mean() >= _BEYOND_SHARE)
