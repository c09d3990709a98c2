"""Laws of the watermark: p is exact without it, it is found with it, marking is bounded and has the same bytes."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage, stats

from synth.data.orientation import on_spacing, turned_to
from synth.errors import ConfigError, DataError
from synth.simulate.phantoms import abdomen_organs_ct, retina
from synth.volume import Volume
from synth.watermark import Detector, Key, Verdict, decoy_keys, detect, embed, pooled_p


def keys(count: int, seed: int = 0) -> list[Key]:
    rng = np.random.default_rng(seed)
    return [Key(rng.bytes(32)) for _ in range(count)]


def head(seed: int = 0, spacing: float = 2.6) -> Volume:
    """A ball of textured tissue in exact air, oblique, in MR's units."""
    rng = np.random.default_rng(seed)
    grid = (56, 60, 52)
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in grid], indexing="ij")
    inside = sum(a**2 for a in axes) < 0.8
    texture = ndimage.gaussian_filter(rng.standard_normal(grid), 2.0) * 400 + rng.standard_normal(grid) * 15
    affine = np.diag([-spacing, spacing, spacing, 1.0])
    affine[:3, 3] = [70.0, -60.0, 4.0]
    return Volume(np.where(inside, 500 + texture, 0.0).astype(np.float32)[None], affine)


@pytest.fixture(scope="module")
def ct() -> Volume:
    return abdomen_organs_ct(3, grid=(80, 72, 56), spacing_mm=(4.0, 4.0, 4.0)).image


def test_p_is_uniform_whatever_the_image() -> None:
    """A host with a lattice of its own, which every key resembles or does not: what a fixed null law gets wrong."""
    at = np.indices((20, 20, 16)).sum(axis=0)
    rng = np.random.default_rng(1)
    host = Volume((100 + 20 * np.cos(at * np.pi / 4) + rng.normal(0, 5, at.shape)).astype(np.float32)[None])
    own = keys(200)
    scores = Detector(own).scores(host)
    p = []
    for key, score in zip(own, scores, strict=True):
        decoys = Detector(decoy_keys(key, 19)).scores(host)
        p.append((1 + int((decoys >= score).sum())) / 20)
    counts = np.bincount(np.rint(np.array(p) * 20).astype(int), minlength=21)[1:]
    assert stats.chisquare(counts).pvalue > 1e-3, counts


@given(st.integers(0, 2**32 - 1))
def test_one_p_of_many_images_is_a_rank_of_keys(seed: int) -> None:
    """Whichever key is the true one: over all of them, the p-values are 1/K to K/K, images depending on one another."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=30)
    rows = shared * rng.uniform(0, 1, (4, 1)) + rng.normal(size=(4, 30)) * rng.uniform(0.1, 9, (4, 1))
    found = sorted(pooled_p(np.roll(rows, -shift, axis=1)) for shift in range(30))
    assert np.allclose(found, np.arange(1, 31) / 30)


def _crop(volume: Volume) -> Volume:
    affine = volume.affine.copy()
    affine[:3, 3] = (volume.affine @ [5, 3, 7, 1.0])[:3]
    return Volume(volume.data[:, 5:-4, 3:-6, 7:-2], affine)


def _shown(volume: Volume) -> Volume:
    low, high = (-160, 240) if volume.data.dtype.kind == "i" else (0, float(np.quantile(volume.data, 0.995)))
    return volume.replace(data=np.rint(np.clip((volume.data - low) / (high - low), 0, 1) * 255).astype(np.uint8))


def _noisy(volume: Volume) -> Volume:
    extent = 1000.0 if volume.data.dtype.kind == "i" else float(volume.data.max())
    grain = np.random.default_rng(0).standard_normal(volume.data.shape) * 0.01 * extent
    return volume.replace(data=(volume.data + grain).astype(np.float32))


AFTER: dict[str, Callable[[Volume], Volume]] = {
    "nothing": lambda v: v,
    "crop": _crop,
    "resample": lambda v: on_spacing(v, tuple(1.25 * step for step in v.spacing_mm)),
    "8 bit": _shown,
    "noise": _noisy,
    "blur": lambda v: v.replace(data=ndimage.gaussian_filter(v.data.astype(np.float32), (0, 0.8, 0.8, 0.8))),
    "mirror": lambda v: v.replace(data=v.data[:, ::-1]),
    "re-orient": lambda v: turned_to(v, ("S", "L", "P")),
    "whole numbers": lambda v: v.replace(data=np.rint(v.data).astype(np.int16)),
}


@pytest.mark.parametrize("after", AFTER)
@pytest.mark.parametrize("kind", ["mr", "ct"])
def test_a_mark_is_found_after(after: str, kind: str, ct: Volume) -> None:
    volume, strength = (head(), 3.0) if kind == "mr" else (ct, 1.0)
    key, other = keys(2, seed=7)
    left = AFTER[after](embed(volume, key, strength))
    assert detect(left, key, decoys=199) <= 0.01
    assert detect(left, other, decoys=199) > 0.005, "another key is not the best of 200"
    assert detect(AFTER[after](volume), key, decoys=199) > 0.005, "nor is the key where nothing was marked"


@pytest.mark.parametrize("strength", [0.3, 1.0, 2.5])
def test_marking_is_bounded_and_leaves_the_background(strength: float, ct: Volume) -> None:
    for volume in (head(), ct):
        marked = embed(volume, keys(1)[0], strength)
        assert marked.data.dtype == volume.data.dtype and np.array_equal(marked.affine, volume.affine)
        change = np.abs(marked.data.astype(np.float64) - volume.data)
        whole = volume.data.dtype.kind == "i"
        assert 0 < change.max() <= (max(1.0, np.floor(strength)) if whole else strength * 1.001)
        assert not change[volume.data == volume.data.min()].any()
        assert marked.data.min() == volume.data.min() and marked.data.max() <= volume.data.max()
        assert abs(change.mean()) > 0.02 * strength, "a mark that is not there bounds itself"


def test_equal_images_are_marked_in_equal_bytes(ct: Volume) -> None:
    key = keys(1)[0]
    for volume in (head(), ct):
        marked = embed(volume, key, 1.0)
        backwards = np.asfortranarray(volume.data)
        assert np.array_equal(embed(volume.replace(data=backwards), key, 1.0).data, marked.data)
        # axes in another order: the same image
        turned = turned_to(volume, ("S", "L", "A") if volume.affine[0, 0] < 0 else ("S", "R", "A"))
        again = turned_to(embed(turned, key, 1.0), ("L", "A", "S") if volume.affine[0, 0] < 0 else ("R", "A", "S"))
        assert np.array_equal(again.data, marked.data)
        assert not np.array_equal(embed(volume, keys(1, seed=1)[0], 1.0).data, marked.data)


def test_detection_does_not_depend_on_who_asks(ct: Volume) -> None:
    key = keys(1)[0]
    assert detect(ct, key, decoys=99) == detect(ct, key, decoys=99)
    drawn = [detect(ct, key, decoys=99, rng=np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] and all(0.01 <= p <= 1 for p in drawn)


def test_pictures_in_colour_are_marked_and_found() -> None:
    picture, (key, other) = retina(2).image, keys(2)
    marked = embed(picture, key, 1.0)
    assert marked.data.dtype == np.uint8
    assert np.abs(marked.data.astype(int) - picture.data).max() == 1
    cut = marked.replace(data=marked.data[:, 20:-30, 11:-40])
    for left in (marked, cut, cut.replace(data=cut.data[:1])):  # one channel alone too
        assert detect(left, key, decoys=199) <= 0.01 < detect(left, other, decoys=199)
    assert detect(picture, key, decoys=199) > 0.01


def test_two_channels_carry_one_mark() -> None:
    one, other = head(1), head(2)
    both = Volume(np.concatenate([one.data, other.data * 4]), one.affine)
    marked = embed(both, keys(1)[0], (3.0, 12.0))
    gap = np.abs(marked.data - both.data).max(axis=(1, 2, 3))
    assert 1.0 < gap[0] <= 3.01 and 4.0 < gap[1] <= 12.01
    assert detect(marked, keys(1)[0], decoys=199) <= 0.01
    with pytest.raises(ConfigError, match="2 channels"):
        embed(both, keys(1)[0], (3.0,))


@pytest.mark.parametrize("grid", [(8, 8, 8), (5, 1, 3), (40, 30), (3, 3)])
def test_what_holds_nothing_is_left_alone_and_not_found(grid: tuple[int, ...]) -> None:
    flat = Volume(np.full((1, *grid), 7.0, dtype=np.float32))
    marked = embed(flat, keys(1)[0], 1.0)
    assert np.array_equal(marked.data, flat.data)
    assert detect(flat, keys(1)[0], decoys=19) == 1.0
    busy = Volume(np.random.default_rng(0).normal(size=(1, *grid)).astype(np.float32))
    assert np.isfinite(embed(busy, keys(1)[0], 0.1).data).all()
    assert 0 < detect(busy, keys(1)[0], decoys=19) <= 1


@pytest.mark.parametrize("strength", [0.0, -1.0, np.nan, np.inf])
def test_a_strength_that_is_none_is_refused(strength: float) -> None:
    with pytest.raises(ConfigError, match="above 0"):
        embed(head(), keys(1)[0], strength)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_image_that_is_no_numbers_is_refused(bad: float) -> None:
    volume = head()
    volume.data[0, 20, 20, 20] = bad
    with pytest.raises(DataError, match="NaN or infinite"):
        embed(volume, keys(1)[0], 1.0)
    with pytest.raises(DataError, match="NaN or infinite"):
        detect(volume, keys(1)[0], decoys=19)


def test_a_verdict_names_the_marked_ones() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(40, 1000))
    rows[:20, 0] = 12.0
    found = Verdict.of(rows, 0.05)
    assert all(found.marked[:20]) and sum(found.marked[20:]) <= 2
    assert found.found and found.p == 1 / 1000
    assert not any(Verdict.of(rng.normal(size=(40, 1000)), 0.01).marked)
