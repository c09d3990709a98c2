"""Volumes: geometry laws, in 2D and 3D."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth.errors import GeometryError
from synth.volume import Volume, palette

from .test_io import affines


@given(affine=affines())
@settings(max_examples=30, deadline=None)
def test_spacing_and_shear_do_not_depend_on_orientation(affine: np.ndarray) -> None:
    volume = Volume(np.zeros((1, 3, 4, 5)), affine)
    np.testing.assert_allclose(volume.spacing_mm, np.linalg.norm(affine[:3, :3], axis=0))
    assert not volume.sheared
    tilt = np.eye(4)
    tilt[0, 1] = 0.1
    assert Volume(volume.data, affine @ np.diag([1 / s for s in (*volume.spacing_mm, 1.0)]) @ tilt).sheared


@given(affine=affines(), dims=st.sampled_from([2, 3]), gap=st.sampled_from([1e-5, 0.1]))
@settings(max_examples=30, deadline=None)
def test_same_geometry_is_judged_in_millimetres(affine: np.ndarray, dims: int, gap: float) -> None:
    volume = Volume(np.zeros((1, *(5, 6, 7)[:dims])), affine)
    moved = affine.copy()
    moved[2, 3] += gap
    other = volume.replace(affine=moved)
    assert volume.same_geometry(other) == other.same_geometry(volume) == (gap < 1e-3)
    if gap > 1e-3:
        with pytest.raises(GeometryError, match=r"affine does not match .* case 'a'.*Volume.resample_like"):
            volume.require_same_geometry(other, case="a")


def test_grids_that_differ_are_named() -> None:
    image, mask = Volume(np.zeros((1, 4, 5, 6))), Volume(np.zeros((1, 4, 5, 7)))
    with pytest.raises(GeometryError, match=r"mask grid \(4, 5, 7\) does not match image grid \(4, 5, 6\) of case 'a'"):
        image.require_same_geometry(mask, case="a")


@given(affine=affines(), dims=st.sampled_from([2, 3]))
@settings(max_examples=20, deadline=None)
def test_resampling_to_the_own_grid_changes_nothing(affine: np.ndarray, dims: int) -> None:
    grid = (5, 6, 7)[:dims]
    rng = np.random.default_rng(0)
    flat = affine if dims == 3 else np.diag([2.0, 3.0, 1.0, 1.0])
    mask = Volume(rng.integers(0, 4, (1, *grid)).astype(np.uint8), flat, {"a": 1, "b": 2, "c": 3})
    image = Volume(rng.normal(size=(2, *grid)).astype(np.float32), flat)
    same = mask.resample_like(image)
    np.testing.assert_array_equal(same.data, mask.data)
    assert (same.data.dtype, dict(same.labels or {})) == (np.uint8, dict(mask.labels or {}))

    np.testing.assert_allclose(image.resample_like(image).data, image.data, atol=1e-4)


def test_a_volume_is_refused_without_a_place() -> None:
    with pytest.raises(GeometryError, match="shape"):
        Volume(np.zeros((4, 5)))
    with pytest.raises(GeometryError, match="singular"):
        Volume(np.zeros((1, 4, 5)), np.diag([1.0, 0.0, 1.0, 1.0]))
    with pytest.raises(GeometryError, match="finite"):
        Volume(np.zeros((1, 4, 5)), np.full((4, 4), np.nan))


def test_volumes_do_not_change_behind_ones_back() -> None:
    volume = Volume(np.zeros((1, 4, 5)), labels={"a": 1})
    with pytest.raises(ValueError, match="read-only"):
        volume.affine[0, 0] = 2.0
    with pytest.raises(TypeError):
        volume.labels["b"] = 2  # pyright: ignore
    assert len({palette(index) for index in range(40)}) == 40
