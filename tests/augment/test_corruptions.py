"""Corruptions: each grows with severity, repeats for a seed, keeps form and type; masks follow where anatomy moves."""

from collections import Counter

import numpy as np
import pytest

from synth.augment import CORRUPTIONS, SET_CORRUPTIONS, SEVERITIES, corrupt, corrupt_set
from synth.augment.sets import modes_of
from synth.errors import ConfigError, DataError
from tests.conftest import phantom


def pair(grid: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    image, mask = phantom(3, grid)
    return np.maximum(image[None] / 800.0, 0.0).astype(np.float32), mask


@pytest.mark.parametrize("grid", [(40, 44), (20, 26, 24)])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_every_severity_changes_more_than_the_one_below(name: str, grid: tuple[int, ...]) -> None:
    image, mask = pair(grid)
    before = image.copy()
    for seed in (0, 1):
        changes = []
        for severity in SEVERITIES:
            found, moved = corrupt(image, name, severity, seed=seed, mask=mask)
            assert (found.shape, found.dtype) == (image.shape, image.dtype)
            assert np.isfinite(found).all()
            assert moved is not None and moved.dtype == mask.dtype
            assert CORRUPTIONS[name].moves or np.array_equal(moved, mask)
            again, _ = corrupt(image, name, severity, seed=seed, mask=mask)
            assert np.array_equal(found, again)
            changes.append(float(((found.astype(np.float64) - image) ** 2).mean()))
        assert np.all(np.diff([0.0, *changes]) > 0), changes
    assert np.array_equal(image, before)


def test_there_are_enough_in_3d_and_the_named_ones_are_there() -> None:
    assert len(CORRUPTIONS) >= 10
    assert {"offset", "slice_duplication", "slice_dropping", "motion", "gibbs"} <= set(CORRUPTIONS)
    assert {"mode_drop", "duplication"} == set(SET_CORRUPTIONS)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_amplitudes_follow_the_native_range(name: str) -> None:
    image, _ = pair((24, 26))
    mapped = corrupt(image.astype(np.float64), name, 3, seed=4)[0]
    native = corrupt(image.astype(np.float64) * 400.0, name, 3, seed=4, value_range=400.0)[0]
    assert np.allclose(native, mapped * 400.0, atol=1e-6)


def test_noise_has_the_stated_spread_and_magnitudes_are_not_negative() -> None:
    image = np.zeros((1, 60, 60))
    for severity, level in zip(SEVERITIES, CORRUPTIONS["gaussian_noise"].levels, strict=True):
        assert corrupt(image, "gaussian_noise", severity, seed=0)[0].std() == pytest.approx(level, rel=0.05)
        rayleigh = corrupt(image, "rician_noise", severity, seed=0)[0]
        assert rayleigh.mean() == pytest.approx(level * np.sqrt(np.pi / 2), rel=0.05)
        assert rayleigh.min() >= 0


def test_an_offset_of_fifty_hounsfield_units() -> None:
    image = np.full((1, 4, 4, 4), 40.0)
    assert np.allclose(corrupt(image, "offset", 4, seed=0, value_range=400.0)[0], 90.0)


def test_slices_are_doubled_and_dropped() -> None:
    image, _ = pair((10, 12, 20))
    doubled = corrupt(image, "slice_duplication", 5, seed=0)[0]
    assert np.array_equal(doubled[..., ::2], doubled[..., 1::2])
    assert np.array_equal(doubled[..., ::2], image[..., ::2])
    dropped = corrupt(image, "slice_dropping", 5, seed=0)[0]
    empty = [k for k in range(20) if dropped[..., k].std() == 0 and image[..., k].std() > 0]
    assert len(empty) == round(0.4 * 16)


def test_ghosts_lie_half_a_field_of_view_away() -> None:
    image = np.zeros((1, 32, 8))
    image[0, 4:8] = 1.0
    ghost = corrupt(image, "ghosting", 5, seed=0)[0] - image
    assert np.allclose(ghost[0, 20:24], 0.5 / 2)
    assert np.allclose(ghost[0, 4:8], -0.5 / 2)


def test_mean_intensity_survives_k_space_faults() -> None:
    image, _ = pair((20, 26, 24))
    for name in ("ghosting", "motion", "gibbs", "spike"):
        assert corrupt(image, name, 4, seed=0)[0].mean() == pytest.approx(image.mean(), abs=1e-5)


def test_masks_go_where_the_anatomy_goes() -> None:
    image, mask = pair((30, 32, 34))
    for name in ("zoom", "elastic"):
        found, moved = corrupt(image, name, 5, seed=0, mask=mask)
        assert moved is not None
        assert not np.array_equal(moved, mask)
        inside = [float(found[0][moved == label].mean()) for label in (1, 2)]
        assert inside == pytest.approx([0.5, 1.0], abs=0.08)
    grown = corrupt(image, "zoom", 5, seed=0, mask=mask)[1]
    assert grown is not None
    assert (grown > 0).sum() > 1.5 * (mask > 0).sum()


@pytest.mark.parametrize(
    ("name", "severity", "image", "error"),
    [
        ("blurr", 1, np.zeros((1, 4, 4)), ConfigError),
        ("blur", 6, np.zeros((1, 4, 4)), ConfigError),
        ("blur", 1, np.zeros((4, 4)), DataError),
        ("blur", 1, np.full((1, 4, 4), np.inf), DataError),
    ],
)
def test_what_cannot_be_corrupted_is_refused(name: str, severity: int, image: np.ndarray, error: type) -> None:
    with pytest.raises(error):
        corrupt(image, name, severity, seed=0)


def test_a_mode_leaves_in_steps_and_nothing_comes_twice() -> None:
    modes = [("T1", "T2", "FLAIR")[i % 3] for i in range(120)]
    counts, gone = [], set[int]()
    for severity in range(6):
        chosen = corrupt_set(modes, "mode_drop", severity, count=60, seed=1)
        assert len(set(chosen)) == len(chosen) == 60
        counts.append(Counter(modes[i] for i in chosen)["FLAIR"])
        now = set(corrupt_set(modes, "mode_drop", 0, count=60, seed=1)) - set(chosen)
        assert gone <= now
        gone = now
    assert counts[-1] == 0
    assert np.all(np.diff(counts) < 0)


def test_copies_grow_in_share() -> None:
    modes = ["a"] * 40
    distinct = [len(set(corrupt_set(modes, "duplication", severity, count=40, seed=0))) for severity in range(6)]
    assert distinct == [40, 36, 30, 22, 14, 6]


def test_a_pool_too_small_is_said() -> None:
    with pytest.raises(DataError, match="larger pool"):
        corrupt_set(["a"] * 10 + ["b"] * 2, "mode_drop", 5, count=10, seed=0)
    with pytest.raises(ConfigError, match="mode_drop"):
        corrupt_set(["a"] * 4, "mode_dropp", 1, count=2, seed=0)
    assert modes_of(["x", 1]) == ["x", "1"]
