"""Authenticity against hold-out: exact under the null whatever the dimension, and low for copies and for smoothness."""

import numpy as np
import pytest

from evaluation import functional as F


@pytest.mark.parametrize("d", [2, 64])
def test_without_copies_z_is_standard_whatever_the_dimension(d: int) -> None:
    """The share itself is far from one half, and another in each dimension: it has no value to be judged by."""
    found = []
    for seed in range(200):
        rng = np.random.default_rng([seed, d])
        made, train, held = (rng.normal(size=(n, d)) for n in (40, 50, 30))
        found.append(F.authenticity_test(made, train, held))
    z = np.array([one.z for one in found])
    assert abs(z.mean()) < 0.25 and 0.8 < z.std() < 1.2
    assert np.mean([one.p_value <= 0.05 for one in found]) <= 0.09, "counts are discrete: no more than 5 %"
    assert found[0].n == (40, 30)


def test_copies_and_smooth_samples_lie_low() -> None:
    rng = np.random.default_rng(0)
    train, held = rng.normal(size=(60, 16)), rng.normal(size=(50, 16))
    for made in (train[:40] + 0.01, 0.3 * rng.normal(size=(40, 16))):
        found = F.authenticity_test(made, train, held)
        assert found.z < -3 and found.p_value < 0.001


def test_patients_count_once() -> None:
    rng = np.random.default_rng(1)
    made = rng.normal(size=(30, 4))
    train = np.repeat(rng.normal(size=(25, 4)), 2, axis=0) + 0.001 * rng.normal(size=(50, 4))
    held = np.repeat(rng.normal(size=(20, 4)), 3, axis=0)
    whose = np.repeat(np.arange(25), 2)
    found = F.authenticity_test(
        made, train, held, training_patients=whose.tolist(), holdout_patients=np.repeat(np.arange(20), 3).tolist()
    )
    assert found.n == (30, 20)
    # a second scan of the same patient is no neighbour that tells how near is near
    assert F.authenticity_test(train[::2] + 0.002, train, held, training_patients=whose.tolist()).z < -3
    with pytest.raises(ValueError, match="name one for each"):
        F.authenticity_test(made, train, held, holdout_patients=[1])
    with pytest.raises(ValueError, match="2 patients"):
        F.authenticity_test(made, train, held, training_patients=[0] * 50)


def test_all_alike_tells_nothing() -> None:
    assert F.authenticity_test(np.zeros((3, 2)), np.zeros((4, 2)), np.zeros((5, 2))) == F.AuthenticityTest(
        0.0, 1.0, (3, 5)
    )
