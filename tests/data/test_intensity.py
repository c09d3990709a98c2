"""Intensity maps: there and back, sparse and tiny values, types limited to their range."""

import numpy as np
import pytest

from synth.data.intensity import WIDEST_HU, Percentiles, Window, apart, learned_map, to_dtype
from synth.errors import ConfigError


def test_window_is_exact_inside_and_clips_metal() -> None:
    window = Window(low=-1024.0, high=1000.0)
    hounsfield = np.array([-1024, -1000, 0, 40, 1000, 20_000, -3000], dtype=np.int16)
    mapped = window.apply(hounsfield)
    assert mapped.dtype == np.float32 and mapped.min() == 0.0 and mapped.max() == 1.0
    back = to_dtype(window.invert(mapped), "int16")
    assert back.tolist() == [-1024, -1000, 0, 40, 1000, 1000, -1024]


def test_soft_tissue_has_half_of_the_span_and_comes_back() -> None:
    window = Window(low=-1024.0, high=900.0, tissue=(-160.0, 240.0))
    hounsfield = np.arange(-1024, 901, dtype=np.int16)
    mapped = window.apply(hounsfield)
    assert np.all(np.diff(mapped) > 0) and mapped[0] == 0.0 and mapped[-1] == 1.0
    liver, muscle = window.apply(np.array([110, 50]))
    assert liver - muscle == pytest.approx(0.075)
    np.testing.assert_allclose(window.invert(mapped), hounsfield, atol=1e-3)
    assert window.apply(np.array([3000, -3000])).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("tissue", [(-2000.0, 240.0), (-160.0, 900.0), (240.0, -160.0)])
def test_tissue_lies_inside_the_window(tissue: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="does not lie between"):
        Window(low=-1024.0, high=900.0, tissue=tissue)


def test_a_ct_window_is_learned_with_its_tissue() -> None:
    found = learned_map(WIDEST_HU, [], [400.0, 700.0, None])
    assert isinstance(found, Window) and found.tissue == (-160.0, 240.0) and found.high > 800.0
    assert learned_map(WIDEST_HU, [], [-100.0]) == Window(low=-1024.0, high=300.0, tissue=(-160.0, 240.0))


def test_window_needs_a_width() -> None:
    with pytest.raises(ConfigError, match="not above"):
        Window(low=5.0, high=5.0)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e6])
def test_percentiles_do_not_depend_on_the_unit(scale: float) -> None:
    """A diffusivity of order 1e-9 is mapped as a signal of order 1000 is."""
    data = np.random.default_rng(0).uniform(0.0, 1.0, (9, 9, 9))
    rule = Percentiles()
    mapped = rule.apply(data * scale)
    np.testing.assert_allclose(mapped, rule.apply(data), atol=1e-5)
    low, high = rule.levels(data * scale)
    back = Percentiles(low=low, high=high).invert(mapped)
    np.testing.assert_allclose(back, data * scale, rtol=1e-4, atol=1e-4 * scale)


def test_sparse_image_keeps_its_levels() -> None:
    """Where more than 99.5 % of voxels are air, the rest is not squeezed into one value."""
    data = np.zeros(10_000)
    data[:3] = [100.0, 200.0, 400.0]
    assert Percentiles().apply(data)[:3].tolist() == [0.25, 0.5, 1.0]


def test_magnitudes_come_back_without_a_sign_and_signed_data_with_one() -> None:
    mapped = np.array([-0.1, 0.5], dtype=np.float32)
    assert Percentiles(low=0.0, high=100.0).invert(mapped).tolist() == [0.0, 50.0]
    assert Percentiles(low=20.0, high=120.0).invert(mapped).tolist() == [10.0, 70.0]
    assert Percentiles(low=-50.0, high=50.0).invert(mapped).tolist() == [-60.0, 0.0]


def test_apart_keeps_the_scale() -> None:
    assert apart(1e-9, 2e-9) == (1e-9, 2e-9)
    low, high = apart(1e-9, 1e-9)
    assert low < high < 1.1e-9 and apart(0.0, 0.0) == (0.0, 1.0)


def test_types_are_rounded_and_limited() -> None:
    assert to_dtype(np.array([-4e4, 0.6, 4e4]), "int16").tolist() == [-32768, 1, 32767]
    assert to_dtype(np.array([0.25]), "float32").tolist() == [0.25]
