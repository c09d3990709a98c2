"""Placement: native <-> working geometry, exact where spacings agree, in 2D and 3D, oblique, turned, flipped."""

import itertools

import numpy as np
import pytest

from synth.data.placement import Placement
from synth.errors import GeometryError
from synth.volume import Volume

SPACING = (1.5, 2.0, 3.0)


def rotation(degrees: float) -> np.ndarray:
    """Rotation about a skew axis."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_rotvec(np.deg2rad(degrees) * np.array([0.6, 0.0, 0.8])).as_matrix()


def placed(order: tuple[int, ...], flips: tuple[bool, ...], degrees: float) -> Volume:
    """Voxels whose axes are turned and flipped against RAS, then rotated; spacing follows the world axis."""
    linear = np.zeros((3, 3))
    for axis, world in enumerate(order):
        linear[world, axis] = -SPACING[world] if flips[axis] else SPACING[world]
    affine = np.eye(4)
    affine[:3, :3] = rotation(degrees) @ linear
    affine[:3, 3] = [-31.5, 12.25, 80.0]
    data = np.random.default_rng(1).normal(size=(2, 7, 9, 6)).astype(np.float32)
    return Volume(data, affine)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("flips", [(False, False, False), (True, False, True), (True, True, True)])
@pytest.mark.parametrize("degrees", [0.0, 17.0])
def test_equal_spacing_only_moves_voxels(order: tuple[int, ...], flips: tuple[bool, ...], degrees: float) -> None:
    volume = placed(order, flips, degrees)
    placement = Placement.of(volume, grid=(12, 12, 12), spacing_mm=SPACING)
    assert placement.exact
    working = placement.to_working(volume, fill=-1.0)
    assert working.grid == (12, 12, 12) and np.allclose(working.spacing_mm, SPACING, atol=1e-9)
    back = placement.to_native(working)
    assert back.same_geometry(volume, tolerance_mm=1e-4) and np.array_equal(back.data, volume.data)
    towards_ras = np.diag(working.affine[:3, :3]) / np.linalg.norm(working.affine[:3, :3], axis=0)
    assert (towards_ras > 0.9).all()
    index = (3, 1, 4)
    world = volume.affine @ [*index, 1.0]
    there = np.rint(np.linalg.inv(working.affine) @ world)[:3].astype(int)
    assert np.abs(working.affine @ [*there, 1.0] - world).max() < 1e-4
    assert working.data[(slice(None), *there)].tolist() == volume.data[(slice(None), *index)].tolist()


def test_crop_keeps_the_middle_and_fills_what_was_cut() -> None:
    volume = placed((0, 1, 2), (False, False, False), 0.0)
    placement = Placement.of(volume, grid=(4, 4, 4), spacing_mm=SPACING)
    working = placement.to_working(volume)
    assert np.array_equal(working.data, volume.data[:, 2:6, 3:7, 1:5])
    back = placement.to_native(working, fill=-7.0)
    assert back.grid == volume.grid and back.data[0, 0, 0, 0] == -7.0
    assert np.array_equal(back.data[:, 2:6, 3:7, 1:5], working.data)


@pytest.mark.parametrize("degrees", [0.0, 25.0])
@pytest.mark.parametrize("spacing", [(2.0, 2.0, 2.0), (3.1, 1.1, 2.4)])
def test_resampling_finds_the_same_places(degrees: float, spacing: tuple[float, ...]) -> None:
    """A linear field of the world is what linear interpolation gives back at every voxel inside."""
    volume = placed((1, 0, 2), (True, False, False), degrees)
    index = np.stack(np.meshgrid(*[np.arange(n) for n in volume.grid], indexing="ij"), axis=-1)
    world = index @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    volume = volume.replace(data=(world @ [0.3, -0.2, 0.5])[None].astype(np.float32))
    placement = Placement.of(volume, grid=(4, 4, 4), spacing_mm=spacing)
    assert not placement.exact
    working = placement.to_working(volume)
    assert np.allclose(working.spacing_mm, spacing)
    inner = (1, 2, 2)
    expected = (working.affine @ [*inner, 1.0])[:3] @ [0.3, -0.2, 0.5]
    assert abs(working.data[(0, *inner)] - expected) < 0.25
    assert placement.to_native(working).same_geometry(volume, tolerance_mm=1e-4)


def test_centres_agree_when_resampled() -> None:
    volume = placed((2, 0, 1), (False, True, False), 12.0)
    placement = Placement.of(volume, grid=(8, 8, 8), spacing_mm=(2.0, 2.0, 2.0))
    native = volume.affine @ [*((n - 1) / 2 for n in volume.grid), 1.0]
    assert np.abs(placement.affine @ [3.5, 3.5, 3.5, 1.0] - native).max() < 1e-9


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.5), (0.7, 1.1, 1.3)])
def test_finer_grids_are_filled_to_the_faces_of_the_volume(spacing: tuple[float, ...]) -> None:
    """A voxel reaches half a step beyond its centre: tissue cut by the field of view is not air there."""
    volume = placed((1, 2, 0), (False, True, False), 14.0)
    volume = volume.replace(data=np.full(volume.data.shape, 5.0, dtype=np.float32))
    placement = Placement.of(volume, grid=(14, 16, 24), spacing_mm=spacing)
    working = placement.to_working(volume, fill=-7.0)
    index = np.stack(np.meshgrid(*[np.arange(n) for n in working.grid], indexing="ij"), axis=-1)
    to_native = np.linalg.inv(volume.affine) @ working.affine
    places = index @ to_native[:3, :3].T + to_native[:3, 3]
    outside = ((places < -0.501) | (places > np.array(volume.grid) - 0.499)).any(axis=-1)
    assert outside.any() and (working.data[:, outside] == -7.0).all() and (working.data[:, ~outside] == 5.0).all()
    mask = volume.replace(data=np.full(volume.data.shape, 200, dtype=np.uint8), labels={"core": 200})
    assert (placement.to_working(mask).data[:, ~outside] == 200).all()


@pytest.mark.parametrize("step", [2.0, 1.6])
def test_coarser_models_answer_to_the_faces_of_the_volume(step: float) -> None:
    volume = placed((0, 1, 2), (False, False, False), 0.0)
    grid = tuple(int(np.ceil(n / step)) for n in volume.grid)
    placement = Placement.of(volume, grid=grid, spacing_mm=tuple(s * step for s in SPACING))
    working = Volume(np.full((1, *grid), 40.0, dtype=np.float32), placement.affine)
    back = placement.to_native(working, fill=-1024.0)
    assert back.grid == volume.grid and (back.data == 40.0).all()


def test_masks_keep_their_values() -> None:
    volume = placed((0, 1, 2), (False, False, True), 9.0)
    data = np.random.default_rng(0).choice([0, 3, 200], size=(1, *volume.grid)).astype(np.uint8)
    mask = Volume(data, volume.affine, {"shell": 3, "core": 200})
    working = Placement.of(mask, grid=(12, 12, 12), spacing_mm=(1.0, 1.0, 1.0)).to_working(mask)
    assert working.data.dtype == np.uint8 and set(np.unique(working.data)) <= {0, 3, 200}
    assert dict(working.labels or {}) == {"shell": 3, "core": 200}


def test_two_dimensions() -> None:
    volume = Volume(np.arange(35, dtype=np.float32).reshape(1, 5, 7), np.diag([0.5, 0.8, 1.0, 1.0]))
    placement = Placement.of(volume, grid=(8, 8), spacing_mm=(0.5, 0.8))
    working = placement.to_working(volume)
    assert working.grid == (8, 8)
    back = placement.to_native(working)
    assert np.array_equal(back.data, volume.data) and back.same_geometry(volume, tolerance_mm=1e-6)


@pytest.mark.parametrize("spacing", [SPACING, (1.0, 1.0, 1.0)])
@pytest.mark.parametrize("flips", [(False, False, False), (True, True, True)])
def test_labelled_voxels_beyond_the_grid_are_refused_and_counted(
    spacing: tuple[float, ...], flips: tuple[bool, ...]
) -> None:
    volume = placed((2, 0, 1), flips, 17.0)
    inner = np.zeros((1, *volume.grid), dtype=np.uint8)
    inner[:, 2:5, 3:6, 2:4] = 1
    grid = tuple(int(np.ceil(4 * own / step)) for own, step in zip(SPACING, spacing, strict=True))
    mask = volume.replace(data=inner)
    placement = Placement.of(mask, grid=grid, spacing_mm=spacing)
    placement.require_inside(mask, "x")
    outside = inner.copy()
    outside[0, 0, 0, 0] = outside[0, -1, -1, -1] = 3
    with pytest.raises(GeometryError, match="x: 2 of 20 labelled voxels lie outside"):
        placement.require_inside(mask.replace(data=outside), "x")
    whole = Placement.of(mask, grid=tuple(2 * n for n in volume.grid), spacing_mm=SPACING)
    whole.require_inside(mask.replace(data=np.ones_like(inner)), "x")


def test_labels_come_back_smooth_on_a_finer_grid() -> None:
    """A ball of labels on a coarse grid is a ball on the fine one, not a stack of blocks."""
    grid, fine = (16, 16, 16), (64, 64, 64)
    working, native = np.diag([4.0, 4.0, 4.0, 1.0]), np.eye(4)
    working[:3, 3] = 1.5
    placement = Placement.onto(fine, native, working=grid, spacing_mm=(4.0, 4.0, 4.0))
    assert np.allclose(placement.affine, working)

    def ball(n: int, step: float) -> np.ndarray:
        axis = (np.arange(n) + 0.5) * step - 32.0
        return (axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None] ** 2 < 20.0**2).astype(np.uint8)

    mask = Volume(5 * ball(16, 4.0)[None], working, {"ball": 5})
    made, true = placement.labels_to_native(mask).data[0] == 5, ball(64, 1.0) == 1
    blocks = np.kron(ball(16, 4.0), np.ones((4, 4, 4))) == 1
    assert set(np.unique(placement.labels_to_native(mask).data)) == {0, 5}
    wrong = [float((found != true).sum() / true.sum()) for found in (made, blocks)]
    assert wrong[0] < 0.12 < wrong[1]
