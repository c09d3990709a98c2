"""Phantoms: the same for a seed, right units, every label there, subjects that differ."""

import numpy as np
import pytest

from synth.simulate.phantoms import (
    CARDIAC_LABELS,
    CHEST_LABELS,
    CT_LABELS,
    ORGAN_LABELS,
    RETINA_LABELS,
    abdomen_ct,
    abdomen_organs_ct,
    brain_two_channels,
    cardiac_mr,
    chest_xray,
    retina,
)


def test_abdomen_is_in_hounsfield_and_its_organs_have_their_values() -> None:
    one, two = (abdomen_ct(seed, grid=(96, 96, 10), spacing_mm=(4.2, 4.2, 20.0)) for seed in (1, 2))
    image, mask = one.image.data, one.mask.data
    assert image.dtype == np.int16 and image.min() == -1000 and one.mask.labels == CT_LABELS
    assert one.image.same_geometry(one.mask) and np.allclose(one.image.spacing_mm, (4.2, 4.2, 20.0))
    for name, hu in (("liver", 110), ("kidney", 190), ("spine", 600)):
        assert abs(np.median(image[mask == CT_LABELS[name]]) - hu) < 25, name
    assert (mask != two.mask.data).mean() > 0.01
    again = abdomen_ct(1, grid=(96, 96, 10), spacing_mm=(4.2, 4.2, 20.0))
    assert np.array_equal(again.image.data, image) and np.array_equal(again.mask.data, mask)


def test_two_channels_share_their_anatomy() -> None:
    pair = brain_two_channels(3)
    t1, flair = pair.image.data
    white, csf = pair.mask.data[0] == 3, pair.mask.data[0] == 1
    assert pair.image.channels == 2 and pair.image.same_geometry(pair.mask)
    assert t1[white].mean() > 2 * t1[csf].mean() and flair[white].mean() > 1.5 * flair[csf].mean()
    assert np.corrcoef(t1[pair.mask.data[0] > 0], flair[pair.mask.data[0] > 0])[0, 1] < 0.9


@pytest.mark.parametrize("size", [64, 256])
def test_retina_is_a_colour_picture_with_a_disc_and_a_cup_inside(size: int) -> None:
    pair = retina(4, size=size)
    red, green, blue = (channel.astype(float) for channel in pair.image.data)
    disc, cup = pair.mask.data[0] >= 1, pair.mask.data[0] == 2
    assert pair.image.data.dtype == np.uint8 and pair.mask.labels == RETINA_LABELS
    assert red[100 * size // 256, size // 2] > green[100 * size // 256, size // 2] > blue[100 * size // 256, size // 2]
    assert green[cup].mean() > green[disc & ~cup].mean() > green[~disc & (red > 0)].mean()
    assert 0.1 < cup.sum() / disc.sum() < 0.6 and (pair.image.data[:, 0, 0] == 0).all()


def test_organs_of_the_abdomen_have_their_values_and_sides() -> None:
    one, two = (abdomen_organs_ct(seed, grid=(100, 100, 48), spacing_mm=(4.0, 4.0, 8.0)) for seed in (1, 2))
    image, mask = one.image.data[0], one.mask.data[0]
    assert image.dtype == np.int16 and image.min() == -1000 and one.mask.labels == ORGAN_LABELS
    assert set(np.unique(mask)) == {0, *ORGAN_LABELS.values()} and one.image.same_geometry(one.mask)
    for name, hu in (("liver", 110), ("right_kidney", 180), ("gallbladder", 12), ("aorta", 165)):
        assert abs(np.median(image[mask == ORGAN_LABELS[name]]) - hu) < 30, name
    right = {name: (np.argwhere(mask == ORGAN_LABELS[name])[:, 0].mean() > 50) for name in ORGAN_LABELS}
    assert right["liver"] and right["right_kidney"] and right["gallbladder"] and not right["spleen"]
    assert (mask != two.mask.data[0]).mean() > 0.01


def test_heart_is_a_ring_of_muscle_around_bright_blood_in_thick_oblique_slices() -> None:
    one, two = cardiac_mr(1), cardiac_mr(2)
    image, mask = one.image.data[0], one.mask.data[0]
    assert image.dtype == np.int16 and one.mask.labels == CARDIAC_LABELS and one.image.same_geometry(one.mask)
    assert np.allclose(one.image.spacing_mm, (1.4, 1.4, 8.0)) and np.count_nonzero(one.image.affine[:3, :3]) > 3
    right, muscle, left = (mask == CARDIAC_LABELS[name] for name in ("right_ventricle", "myocardium", "left_ventricle"))
    assert np.median(image[left]) > 2.5 * np.median(image[muscle]) and np.median(image[right]) > 2 * np.median(
        image[muscle]
    )
    voxel_ml = 1.4 * 1.4 * 8.0 / 1000
    assert 60 < left.sum() * voxel_ml < 220 and 60 < muscle.sum() * voxel_ml < 200 and right.sum() * voxel_ml > 60
    around = np.roll(left, 1, axis=0) | np.roll(left, -1, axis=0) | np.roll(left, 1, axis=1) | np.roll(left, -1, axis=1)
    assert not (around & ~left & ~muscle).any()  # nothing but muscle touches the cavity in a slice
    assert np.argwhere(right)[:, 0].mean() > np.argwhere(left)[:, 0].mean()
    assert (mask != two.mask.data[0]).mean() > 0.005


@pytest.mark.parametrize("size", [64, 256])
def test_chest_is_twelve_bits_with_dark_lungs_and_the_heart_to_the_left(size: int) -> None:
    one, two = chest_xray(1, size=size), chest_xray(2, size=size)
    image, mask = one.image.data[0].astype(float), one.mask.data[0]
    assert one.image.data.dtype == np.uint16 and 2048 < image.max() <= 4095 and one.mask.labels == CHEST_LABELS
    assert np.allclose(one.image.spacing_mm[:2], 358.4 / size) and one.image.same_geometry(one.mask)
    lungs, heart = mask == CHEST_LABELS["lungs"], mask == CHEST_LABELS["heart"]
    assert image[heart].mean() > 1.5 * image[lungs].mean()
    assert 0.12 < lungs.mean() < 0.4 and 0.03 < heart.mean() < 0.15
    assert np.argwhere(heart)[:, 0].mean() > size / 2 and np.argwhere(heart)[:, 1].mean() > size / 2
    assert (mask != two.mask.data[0]).mean() > 0.01
