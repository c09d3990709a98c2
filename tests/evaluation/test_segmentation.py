"""Overlap, surface distances and detection against values derived by hand, brute force and the peers' faults."""

import numpy as np
import pytest

from evaluation import functional as F
from evaluation.functional.surface import surface_distances

SQRT3 = float(np.sqrt(3.0))


def cube(grid: tuple[int, ...], first: tuple[int, ...], size: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros(grid, dtype=np.uint8)
    mask[tuple(slice(f, f + s) for f, s in zip(first, size, strict=True))] = 1
    return mask


def test_the_surface_of_a_box_has_the_area_of_its_marching_cubes() -> None:
    """n voxels along an edge give n - 1 elements there: 8 corner triangles, 12 bevelled edges, 6 flat faces."""
    a = cube((12, 12, 12), (2, 3, 4), (4, 5, 6)) > 0
    found = surface_distances(a, a, (1.0, 1.0, 1.0))
    corner, edge = SQRT3 / 8, np.sqrt(0.5)
    flat = 2 * (3 * 4 + 3 * 5 + 4 * 5)
    assert len(found.pred_mm) == 5 * 6 * 7 - 3 * 4 * 5  # corners between voxels that are not all alike
    assert found.pred_area.sum() == pytest.approx(8 * corner + 4 * (3 + 4 + 5) * edge + flat, abs=1e-9)
    assert found.pred_mm.max() == 0.0


def test_a_single_voxel_and_a_square_by_hand_with_unequal_spacing() -> None:
    voxel = cube((5, 5, 5), (2, 2, 2), (1, 1, 1)) > 0
    triangle = np.linalg.norm([0.125 * 3 * 2, 0.125 * 3 * 1, 0.125 * 2 * 1])
    assert surface_distances(voxel, voxel, (1.0, 2.0, 3.0)).pred_area == pytest.approx([triangle] * 8, abs=1e-12)
    square = cube((8, 8), (2, 2), (3, 2)) > 0  # contour: four slants, two steps down and one across on each side
    length = 4 * 0.5 * np.hypot(2.0, 5.0) + 2 * (2 * 2.0) + 2 * (1 * 5.0)
    assert surface_distances(square, square, (2.0, 5.0)).pred_area.sum() == pytest.approx(length, abs=1e-12)


def test_two_boxes_shifted_along_an_axis_by_hand() -> None:
    """6 x 4 x 4 voxels, 2 apart: of each surface 4 mantle layers and the ring of one end lie on the other's."""
    a, b = (cube((16, 9, 9), (first, 2, 2), (6, 4, 4)) for first in (3, 5))
    corner, edge = SQRT3 / 8, float(np.sqrt(0.5))
    shared = 4 * (12 + 4 * edge) + (4 * corner + 12 * edge)
    whole = 8 * corner + 44 * edge + 78
    asked = {"labels": [1], "spacing_mm": (1.0, 1.0, 1.0)}
    assert F.surface_dice(a, b, tolerance_mm=0.5, **asked)[0] == pytest.approx(shared / whole, abs=1e-9)
    assert F.surface_dice(a, b, tolerance_mm=2.0, **asked)[0] == 1.0
    assert F.hd95(a, b, **asked)[0] == pytest.approx(2.0), "a sixth of each surface, its far end, is 2 mm away"
    thick = {"labels": [1], "spacing_mm": (3.0, 1.0, 1.0)}
    assert F.hd95(a, b, **thick)[0] == pytest.approx(6.0)


def test_surface_dice_of_plates_is_half_where_one_layer_of_each_is_near() -> None:
    a, b = (cube((20, 20, 20), (first, 5, 5), (1, 10, 10)) for first in (5, 8))
    asked = {"labels": [1], "spacing_mm": (2.0, 1.0, 1.0)}
    assert F.hd95(a, b, **asked)[0] == pytest.approx(6.0, abs=1e-12)
    values = [F.surface_dice(a, b, tolerance_mm=mm, **asked)[0] for mm in (3.99, 4.0, 5.99, 6.0)]
    assert values == pytest.approx([0.0, 0.5, 0.5, 1.0], abs=1e-12)


# (Dice 1 mm, Dice 2.5 mm, HD95) of DeepMind's surface-distance 0.1, on the masks below
REFERENCE = {
    (3, (1.0, 1.0, 1.0)): (0.891400549, 1.0, 1.732050808),
    (3, (0.7, 1.3, 2.9)): (0.774215848, 0.95661982, 2.6),
    (2, (0.8, 1.7)): (0.652835565, 0.978177452, 2.4),
}


@pytest.mark.parametrize(("dims", "spacing"), list(REFERENCE))
def test_values_are_those_of_surface_distance(dims: int, spacing: tuple[float, ...]) -> None:
    a, b = waves(dims, 0.0), waves(dims, 2.5)
    asked = {"labels": [1], "spacing_mm": spacing}
    ours = [F.surface_dice(a, b, tolerance_mm=mm, **asked)[0] for mm in (1.0, 2.5)] + [F.hd95(a, b, **asked)[0]]
    assert ours == pytest.approx(REFERENCE[dims, spacing], abs=1e-6)


def waves(dims: int, phase: float) -> np.ndarray:
    """Blobs that a formula gives, so that no generator of random numbers is part of a fixture."""
    axes = np.meshgrid(*[np.arange(n) for n in (13, 11, 12)[:dims]], indexing="ij")
    return sum(np.sin(0.9 * a * (k + 2) / 2 + k + phase) for k, a in enumerate(axes)) > 0.4


def test_distances_equal_brute_force() -> None:
    a, b = waves(3, 0.0), waves(3, 2.5)
    spacing = np.array([0.7, 1.3, 2.9])
    found = surface_distances(a, b, tuple(spacing))

    def corners(mask: np.ndarray) -> np.ndarray:
        padded = np.pad(mask, 1)
        blocks = np.lib.stride_tricks.sliding_window_view(padded, (2, 2, 2)).reshape(*np.add(mask.shape, 1), 8)
        return np.argwhere(blocks.any(axis=-1) & ~blocks.all(axis=-1)) * spacing

    apart = np.linalg.norm(corners(a)[:, None] - corners(b)[None], axis=-1)
    assert np.sort(found.pred_mm) == pytest.approx(np.sort(apart.min(axis=1)), abs=1e-9)
    assert np.sort(found.ref_mm) == pytest.approx(np.sort(apart.min(axis=0)), abs=1e-9)


def test_nothing_scores_below_a_structure_that_is_missed() -> None:
    grid, spacing = (10, 12, 14), (1.0, 2.0, 3.0)
    ref, far = cube(grid, (0, 0, 0), (1, 1, 1)), cube(grid, (9, 11, 13), (1, 1, 1))
    asked = {"labels": [1], "spacing_mm": spacing}
    missed, found = F.hd95(0 * ref, ref, **asked)[0], F.hd95(far, ref, **asked)[0]
    assert missed == pytest.approx(float(np.linalg.norm([10, 24, 42]))) and found <= missed
    assert F.surface_dice(0 * ref, ref, **asked)[0] == F.dice(0 * ref, ref, labels=[1])[0] == 0.0


def test_ten_of_ten_missed_is_no_perfect_hd95() -> None:
    """MONAI's HausdorffDistanceMetric gives NaN for each and 0.0 for all of them (issue 9095): ours the diagonal."""
    import torch

    from evaluation import HD95

    metric, ref = HD95(labels=[1], spacing_mm=(1.0, 1.0, 1.0)), torch.zeros(10, 8, 8, 8)
    ref[:, 2:5, 2:5, 2:5] = 1
    metric.update(torch.zeros_like(ref), ref)
    assert float(metric.compute()) == pytest.approx(8 * SQRT3)


def test_lesions_are_counted_by_size() -> None:
    spacing = (10.0, 10.0, 10.0)  # a voxel is 1 ml
    ref = cube((16, 16, 16), (1, 1, 1), (1, 1, 1)) + cube((16, 16, 16), (5, 5, 5), (3, 3, 3))
    ref += cube((16, 16, 16), (11, 1, 1), (1, 1, 2))
    pred = cube((16, 16, 16), (6, 6, 6), (1, 1, 1)) + cube((16, 16, 16), (13, 13, 13), (2, 2, 2))
    asked = {"labels": [1], "spacing_mm": spacing, "edges_ml": (0.0, 1.5, 10.0)}
    one = F.detection(pred, ref, **asked)[0]
    assert one.lesions.tolist() == [1, 1, 1] and one.found.tolist() == [0, 0, 1] and one.false_positives == 1
    assert one.sensitivity.tolist() == [0.0, 0.0, 1.0]
    assert F.detection(pred, ref, overlap=0.5, **asked)[0].found.tolist() == [0, 0, 0]
    empty = F.detection(0 * ref, 0 * ref, **asked)[0]
    assert empty.lesions.sum() == 0 and empty.false_positives == 0 and np.isnan(empty.sensitivity).all()


def test_detection_touches_by_corners_and_pools_over_cases() -> None:
    import torch

    from evaluation import LesionDetection

    ref = np.zeros((6, 6), dtype=np.uint8)
    ref[1, 1] = ref[2, 2] = 1
    assert F.detection(ref, ref, labels=[1], spacing_mm=(1.0, 1.0))[0].lesions.sum() == 1
    metric = LesionDetection(label=1, spacing_mm=(1.0, 1.0), edges_ml=(0.0,))
    batch = torch.from_numpy(np.stack([ref, 0 * ref]))
    metric.update(batch, batch.flip(0))
    found = metric.compute()
    assert float(found["sensitivity"]) == 0.0 and float(found["false_positives"]) == 0.5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"spacing_mm": (1.0, 1.0)}, "spacing for each axis"),
        ({"spacing_mm": (1.0, 0.0, 1.0)}, "positive"),
        ({"pred": np.full((4, 4, 4), np.nan)}, "NaN"),
        ({"pred": np.zeros((4, 4, 5))}, "compare equal"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict, said: str) -> None:
    asked = {"pred": np.zeros((4, 4, 4)), "ref": np.zeros((4, 4, 4)), "labels": [1], "spacing_mm": (1.0, 1.0, 1.0)}
    for function in (F.hd95, F.surface_dice, F.detection):
        with pytest.raises(ValueError, match=said):
            function(**{**asked, **change})
