"""Anatomy of label maps by hand, and laws of its comparisons: boundaries, sets of rows."""

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance

from evaluation import functional as F
from tests.conftest import phantom


def test_volumes_and_intensities_by_hand() -> None:
    mask = np.zeros((4, 5, 6), dtype=np.uint8)
    mask[:2], mask[3, 0, 0] = 1, 2
    assert F.label_volumes(mask, labels=[1, 2, 3], spacing_mm=(5.0, 10.0, 2.0)).tolist() == [6.0, 0.1, 0.0]
    image = np.arange(120.0).reshape(4, 5, 6)
    rows = F.label_intensities(torch.from_numpy(image), mask, labels=[1, 2, 3])
    assert rows[0, 2] == pytest.approx(29.5) and rows[1].tolist() == [90.0] * 5 and np.isnan(rows[2]).all()
    with pytest.raises(ValueError, match="one grid"):
        F.label_intensities(image[:3], mask, labels=[1])
    with pytest.raises(ValueError, match="spacing"):
        F.label_volumes(mask, labels=[1], spacing_mm=(1.0, 1.0))


def test_adjacency_counts_faces_by_their_area() -> None:
    mask = np.zeros((6, 6), dtype=np.uint8)
    mask[1:3, 1:5], mask[3:5, 1:5] = 1, 2
    table = F.adjacency(mask, labels=3, spacing_mm=(1.0, 1.0))
    assert table[1].tolist() == [8 / 12, 0.0, 4 / 12, 0.0] and table[3].tolist() == [0.0] * 4
    wide = F.adjacency(mask, labels=2, spacing_mm=(1.0, 3.0))  # faces across the first axis are 3 long
    assert wide[1].tolist() == [(4 * 3 + 4) / (8 * 3 + 4), 0.0, 12 / 28]
    assert F.adjacency(mask.T, labels=2, spacing_mm=(3.0, 1.0)) == pytest.approx(wide)
    with pytest.raises(ValueError, match="labels are 0 to 1"):
        F.adjacency(mask, labels=1, spacing_mm=(1.0, 1.0))


def test_topology_counts_pieces_and_cavities() -> None:
    mask = np.zeros((9, 9, 9), dtype=np.uint8)
    mask[1:6, 1:6, 1:6] = 1
    mask[3, 3, 3] = 0  # a cavity
    mask[6, 6, 6] = 1  # touches by a corner: the same piece
    mask[8, 8, 0] = 1  # another piece
    assert F.topology(mask, labels=[1, 2]).tolist() == [[2.0, 1.0], [0.0, 0.0]]
    mask[1:3, 3, 3] = 0  # a tunnel opens the cavity
    assert F.topology(mask, labels=[1]).tolist() == [[2.0, 0.0]]
    ring = np.zeros((5, 5), dtype=np.uint8)
    ring[1:4, 1:4] = 1
    ring[2, 2] = 0
    assert F.topology(ring, labels=[1]).tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize("grid", [(24, 26), (18, 20, 22)])
def test_a_mask_out_of_place_aligns_less_and_less(grid: tuple[int, ...]) -> None:
    image, mask = phantom(3, grid)
    spacing = (1.0, 2.0, 0.5)[: len(grid)]
    values = [F.boundary_alignment(image, np.roll(mask, shift, axis=0), spacing_mm=spacing) for shift in range(4)]
    assert values[0] > 1.5 and values[0] > values[1] > max(values[2:])
    assert F.boundary_alignment(3 * image - 7, mask, spacing_mm=spacing) == pytest.approx(values[0])
    two = np.stack([image, image])
    assert F.boundary_alignment(two, mask, spacing_mm=spacing) == pytest.approx(values[0])


def test_an_image_that_knows_nothing_of_the_mask_aligns_at_one() -> None:
    _, mask = phantom(3, (24, 26, 22))
    noise = np.random.default_rng(0).normal(size=mask.shape)
    assert F.boundary_alignment(noise, mask, spacing_mm=(1.0, 1.0, 1.0)) == pytest.approx(1.0, abs=0.05)


def test_a_step_by_hand() -> None:
    mask = np.zeros((20, 8), dtype=np.uint8)
    mask[10:] = 1
    image = 5.0 * mask + 0.5 * np.arange(20)[:, None]
    # the step's slope is 5.5 per row; shifted along rows 0.5, along columns still 5.5: 6 shifts each way
    assert F.boundary_alignment(image, mask, spacing_mm=(1.0, 1.0)) == pytest.approx(5.5 / ((0.5 + 5.5) / 2))


@pytest.mark.parametrize(
    ("image", "mask", "said"),
    [
        (np.zeros((8, 8)), np.zeros((8, 8)), "no boundary"),
        (np.zeros((8, 8)), np.eye(8), "no edge"),
        (np.full((8, 8), np.nan), np.eye(8), "NaN"),
        (np.zeros((8, 9)), np.eye(8), "one grid"),
    ],
)
def test_nothing_to_align_is_refused(image: np.ndarray, mask: np.ndarray, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        F.boundary_alignment(image, mask, spacing_mm=(1.0, 1.0))


def test_set_distance_is_wasserstein_over_spread() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 2)), 2 * rng.normal(size=(45, 2)) + 1
    found = F.set_distance(x, y, draws=50)
    exact = np.mean([wasserstein_distance(a, b) / b.std() for a, b in zip(x.T, y.T, strict=True)])
    assert found.distance == pytest.approx(exact) and found.difference < 0
    assert found.p_value == pytest.approx(1 / 51) and found.null_mean < found.distance
    assert found == F.set_distance(x, y, draws=50)


@pytest.mark.parametrize(("n", "m", "d"), [(12, 20, 40), (20, 6, 5)])
def test_set_distance_holds_its_size_with_many_columns_of_long_tails(n: int, m: int, d: int) -> None:
    """A scale of the reference that all re-divisions share is not exchangeable: the size was several times too large."""
    small = []
    for seed in range(600):
        rng = np.random.default_rng([seed, d])
        x, y = np.exp(1.5 * rng.normal(size=(n, d))), np.exp(1.5 * rng.normal(size=(m, d)))
        small.append(F.set_distance(x, y, draws=19, seed=seed).p_value <= 0.05)
    assert 0.03 <= np.mean(small) <= 0.07


def test_set_distance_sees_a_shift_under_long_tails_and_its_floor_is_what_chance_does() -> None:
    seen, floors, found = [], [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        x, y = np.exp(rng.normal(size=(20, 6))), np.exp(rng.normal(size=(24, 6)))
        seen.append(F.set_distance(2.5 * x, y, draws=99, seed=seed).p_value <= 0.05)
        like = F.set_distance(x, y, draws=99, seed=seed)
        found.append(like.distance)
        floors.append(like.null_mean)
    assert np.mean(seen) >= 0.9
    off = np.subtract(found, floors)
    assert abs(off.mean()) < 3 * off.std() / np.sqrt(len(off)), "the same function of labels, drawn or not"


def test_rows_that_lack_a_label_are_left_out_and_constants_are_no_distance() -> None:
    x = np.array([1.0, np.nan, 2.0, 3.0])
    assert F.set_distance(x, x, draws=20).distance == 0.0
    assert F.set_distance(np.zeros(4), np.zeros(5), draws=5) == F.set_distance(np.ones(4), np.ones(5), draws=5)
    assert F.set_distance(np.zeros(4), np.zeros(5), draws=5).p_value == 1.0
    with pytest.raises(ValueError, match="2 values a side"):
        F.set_distance([np.nan, np.nan, 1.0], x)
    with pytest.raises(ValueError, match="2 rows"):
        F.set_distance([1.0], x)


def test_metrics_gather_batches() -> None:
    from evaluation import BoundaryAlignment, LabelVolumeError

    pairs = [phantom(seed, (18, 20)) for seed in range(3)]
    images, masks = (torch.from_numpy(np.stack(side)) for side in zip(*pairs, strict=True))
    metric = BoundaryAlignment(spacing_mm=(1.0, 1.0))
    metric.update(images[:, None], masks)
    each = [F.boundary_alignment(i, m, spacing_mm=(1.0, 1.0)) for i, m in zip(images, masks, strict=True)]
    assert float(metric.compute()) == pytest.approx(np.mean(each))
    volumes = LabelVolumeError(labels=[1, 2], spacing_mm=(1.0, 1.0))
    volumes.update(masks, masks)
    assert volumes.compute().tolist() == [0.0, 0.0]
