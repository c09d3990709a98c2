"""Phantoms: the same for a seed, right units, every label there, subjects that differ."""

import numpy as np
import pytest

from synth.simulate.phantoms import CT_LABELS, RETINA_LABELS, abdomen_ct, brain_two_channels, retina


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
