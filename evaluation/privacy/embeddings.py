"""How far samples, hold-out volumes and planted copies lie from training volumes, by every embedding.

correlation   NCC of cells, the best over flips, small shifts and small rotations: no encoder, so none is trained
features      the report's features in principal components: of training alone where single samples are tested for
              being copies, so that samples and hold-out both lie outside the fit; of training and hold-out together
              where the two are to be alike
masks         soft Dice of the labels in cells, posed as the images are; only where masks are the generator's own
Knows the evidence and no test.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

from evaluation.evidence import Evidence, Judged, Tell
from evaluation.functional.blind_gate import LEAST_LEFT_OUT, LEAST_PATIENTS, whitened
from evaluation.functional.privacy import nearest_others, patient_index
from evaluation.privacy.plants import Planted
from evaluation.privacy.search import CELLS, Likeness, References, cell_grid, cells
from synth.rng import numpy_rng

DIMS = 32
_MASK_CELLS = CELLS // 2


@dataclass(frozen=True, eq=False)
class Distances:
    """Distances in one embedding.

    found, control, planted   of n samples, h hold-out volumes, k planted copies to their nearest training volume
    ..._beside                of the same to the nearest hold-out volume of another patient
    to_training, to_holdout   of samples to every volume, (n, t) and (n, h); planted_to_... of planted copies
    left, left_control        of training patients left out, and of hold-out patients, to the rest of training
    """

    name: str
    found: np.ndarray
    control: np.ndarray
    planted: np.ndarray
    found_beside: np.ndarray
    control_beside: np.ndarray
    planted_beside: np.ndarray
    to_training: np.ndarray
    to_holdout: np.ndarray
    planted_to_training: np.ndarray
    planted_to_holdout: np.ndarray
    left: np.ndarray
    left_control: np.ndarray


@dataclass(frozen=True, eq=False)
class Apart:
    """Which training volumes are left out as a control, which are the rest, and which hold-out volumes stand beside.

    One volume a patient of those left out and held out; half of the training patients are left out.
    """

    left: tuple[int, ...]
    rest: tuple[int, ...]
    held: tuple[int, ...]


def leave_out(evidence: Evidence) -> Apart:
    """Return half of the training patients, drawn, as left out; nobody where that leaves too few on a side."""
    rng = numpy_rng(evidence.seed, "left-out control")
    train, held = (_one_each(side, rng) for side in (evidence.training, evidence.holdout))
    gone = [list(train)[i] for i in rng.permutation(len(train))[: len(train) // 2]]
    if len(gone) < LEAST_LEFT_OUT or len(held) < LEAST_PATIENTS:
        return Apart((), (), ())
    rest = tuple(i for i, item in enumerate(evidence.training) if item.whose not in set(gone))
    return Apart(tuple(train[one] for one in gone), rest, tuple(held.values()))


def _one_each(items: Sequence[Judged], rng: np.random.Generator) -> dict[str, int]:
    """Return a drawn volume of each patient."""
    return {items[i].whose: int(i) for i in rng.permutation(len(items))}


def by_pose(evidence: Evidence, plants: Sequence[Planted], likeness: Likeness, tell: Tell, apart: Apart) -> Distances:
    """Return distances of images by correlation, or of labels by Dice, in the best pose.

    Errors: ValueError where a volume has fewer voxels along an axis than the first sample has cells.
    """
    grid = cell_grid(evidence.synthetic[0].mask.shape, CELLS if likeness == "correlation" else _MASK_CELLS)
    labels = _labels(evidence)

    def reduced(item: Judged) -> np.ndarray:
        if likeness == "correlation":
            return cells(item.image, grid)
        return cells(np.stack([item.mask == label for label in labels]), grid)

    train, held = ([reduced(item) for item in side] for side in (evidence.training, evidence.holdout))
    both = References(np.stack([*train, *held]).astype(np.float32), likeness)
    at = len(train)
    whose = patient_index([item.whose for item in evidence.holdout])

    def measured(volumes: Iterable[np.ndarray], own: Sequence[int] | np.ndarray = ()) -> tuple[np.ndarray, np.ndarray]:
        """Rows (n, t + h), and (n, 2) to the nearest training and the nearest hold-out volume not of the `own` patient:
        rotations are tried on both sides, else a sample that is turned would lean to training, copying nobody."""
        rows, nearest = [], []
        for index, volume in enumerate(volumes):
            beside = at + np.flatnonzero(whose != (own[index] if len(own) else -1))
            row, near = both.compare(volume, [slice(0, at), beside])
            rows.append(row)
            nearest.append(near)
            tell("compared")
        return np.array(rows).reshape(len(rows), len(both.volumes)), np.array(nearest).reshape(len(rows), 2)

    made, found = measured(map(reduced, evidence.synthetic))
    planted, planted_found = measured(reduced(one.item) for one in plants)
    held_rows, control = measured(held, whose)
    rest = list(apart.rest)
    others, left = References(both.volumes[rest], likeness), []
    for index in apart.left:
        left.append(others.compare(train[index], [])[0].min())
        tell("compared")
    name = "correlation" if likeness == "correlation" else "masks"
    return Distances(
        name,
        found[:, 0],
        control[:, 0],
        planted_found[:, 0],
        found[:, 1],
        control[:, 1],
        planted_found[:, 1],
        made[:, :at],
        made[:, at:],
        planted[:, :at],
        planted[:, at:],
        np.array(left),
        np.array([held_rows[index][rest].min() for index in apart.held]),
    )


def by_features(evidence: Evidence, plants: Sequence[Planted], tell: Tell, apart: Apart) -> Distances:
    """Return distances of features, whitened in up to 32 principal components.

    Were hold-out volumes in the fit of the copy test, they would lie further out than fresh samples, and clean sets
    would be accused.
    """
    rows = evidence.features(tell)
    disguised = evidence.features_of([one.item for one in plants], tell)
    sides = (rows.synthetic, rows.training, rows.holdout, disguised)
    made, train, held, planted = (whitened(side, DIMS, of=rows.training) for side in sides)
    nearest = [cdist(side, train).min(axis=1) for side in (made, held, planted)]
    beside = [
        cdist(made, held).min(axis=1),
        nearest_others(cdist(held, held), [item.whose for item in evidence.holdout]),
    ]
    beside.append(cdist(planted, held).min(axis=1))
    both = np.concatenate([rows.training, rows.holdout])
    made, train, held, planted = (whitened(side, DIMS, of=both) for side in sides)
    to_all = [cdist(side, other) for side in (made, planted) for other in (train, held)]
    rest = rows.training[list(apart.rest)]
    sides = (rows.training[list(apart.left)], rows.holdout[list(apart.held)])
    # half of the training patients span fewer axes: with as many as rows, all others lie equally far off
    dims = max(2, min(DIMS, len(rest) // 3))
    left = [np.zeros(0), np.zeros(0)]
    if len(rest):
        near = whitened(rest, dims)
        left = [cdist(whitened(side, dims, of=rest), near).min(axis=1) for side in sides]
    return Distances("features", *nearest, *beside, *to_all, *left)


def measure(evidence: Evidence, plants: Sequence[Planted], tell: Tell) -> tuple[dict[str, Distances], dict[str, str]]:
    """Return the distances by embedding, the one that drops first, and why others were not measured."""
    out: dict[str, Distances] = {}
    absent: dict[str, str] = {}
    apart = leave_out(evidence)
    try:
        out["correlation"] = by_pose(evidence, plants, "correlation", tell, apart)
    except ValueError as error:
        absent["correlation"] = f"volumes have different grids: {error}"
    out["features"] = by_features(evidence, plants, tell, apart)
    why = no_masks(evidence)
    if why:
        absent["masks"] = why
    elif "correlation" in out:
        out["masks"] = by_pose(evidence, plants, "dice", tell, apart)
    return out, absent


def no_masks(evidence: Evidence) -> str:
    """Return why masks are not compared; empty where they are."""
    if not _labels(evidence):
        return "no volume has a label"
    if any(item.mask_origin in ("real", "given") for item in evidence.synthetic):
        return "masks were given to the generator: how near they lie to others says nothing of it"
    return ""


def _labels(evidence: Evidence) -> list[int]:
    everyone = (*evidence.synthetic, *evidence.training, *evidence.holdout)
    return list(range(1, 1 + max((int(item.mask.max(initial=0)) for item in everyone), default=0)))
