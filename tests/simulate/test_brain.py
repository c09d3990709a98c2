"""The simulated brain: same seed same subject, room around the head, truth, labels and words that agree."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from synth.errors import ConditionError, DataError
from synth.simulate import BRAIN_LABELS, CONTRASTS, Subject, simulate_brain
from synth.simulate.brain import MARGIN_MM, reference_affine, subject_warp
from synth.simulate.cohort import cohort_subject, subject_seed
from synth.simulate.template import GRID, SPACING_MM, template
from synth.simulate.warp import jacobian, residual_rms_mm

COUNT = 6


@pytest.fixture(scope="module")
def subjects() -> list[Subject]:
    return [cohort_subject(5, index) for index in range(COUNT)]


@pytest.fixture(scope="module")
def lesioned() -> dict[str, Subject]:
    """One anatomy with a strong lesion, seen in every contrast."""
    for seed in range(40):
        subject = simulate_brain(seed, contrast="T1")
        if subject.attributes["lesion_contrast"] == "strong" and float(subject.attributes["lesion_volume_ml"]) > 1.0:
            return {"T1": subject, **{name: simulate_brain(seed, contrast=name) for name in ("T2", "FLAIR")}}
    raise AssertionError("no strong lesion in 40 seeds")


def medians(subject: Subject) -> dict[str, float]:
    return {k: float(np.median(subject.truth.data[subject.mask.data == v])) for k, v in BRAIN_LABELS.items()}


def margin_mm(inside: np.ndarray) -> float:
    places = np.argwhere(inside)
    return float(min(places.min(axis=0).min(), (np.array(inside.shape) - 1 - places.max(axis=0)).min())) * SPACING_MM


def digest(subject: Subject) -> str:
    """What tells two subjects apart to the last bit."""
    return hashlib.sha256(b"".join(v.data.tobytes() for v in (subject.image, subject.truth, subject.mask))).hexdigest()


def test_same_seed_gives_the_same_subject_whatever_the_threads(subjects: list[Subject]) -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3 - min(threads, 2))
        again = cohort_subject(5, 1)
    finally:
        torch.set_num_threads(threads)
    for name in ("image", "truth", "mask"):
        assert np.array_equal(getattr(again, name).data, getattr(subjects[1], name).data)
    assert again.text == subjects[1].text
    assert dict(again.attributes) == dict(subjects[1].attributes)


def test_a_cpu_without_vector_units_simulates_the_same_voxels(subjects: list[Subject]) -> None:
    """Who a model saw is known by voxels, so that they must not depend on where a cohort was made."""
    plain = {"ATEN_CPU_CAPABILITY": "default", "NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3", "OPENBLAS_CORETYPE": "Nehalem"}
    code = "from tests.simulate.test_brain import digest; from synth.simulate.cohort import cohort_subject as subject; "
    code += f"print(*(digest(subject(5, index)) for index in range({COUNT})))"
    told = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, **plain},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.split() == [digest(subject) for subject in subjects]
    assert all(not (8 * volume.data % 1).any() for one in subjects for volume in (one.image, one.truth))


def test_other_seeds_give_other_subjects(subjects: list[Subject]) -> None:
    assert len({subject.mask.data.tobytes() for subject in subjects}) == COUNT
    assert len({subject_seed(seed, index) for seed in range(3) for index in range(50)}) == 150


def test_geometry_and_types(subjects: list[Subject]) -> None:
    for subject in subjects:
        assert subject.image.data.shape == subject.truth.data.shape == subject.mask.data.shape == (1, *GRID)
        assert subject.image.data.dtype == subject.truth.data.dtype == np.float32
        assert subject.mask.data.dtype == np.uint8
        assert subject.mask.labels == BRAIN_LABELS
        assert subject.image.spacing_mm == pytest.approx((2.6, 2.6, 2.6))
        assert subject.image.same_geometry(subject.mask)
        assert np.isfinite(subject.image.data).all()
        assert subject.truth.data.min() >= 0.0 and 400.0 < subject.truth.data.max() < 1600.0
    assert np.allclose(reference_affine() @ [*(np.array(GRID) - 1) / 2, 1], [0, 0, 0, 1])


def test_head_keeps_its_margin(subjects: list[Subject]) -> None:
    for subject in subjects:
        truth = subject.truth.data[0]
        assert margin_mm(subject.mask.data[0] > 0) >= MARGIN_MM
        assert margin_mm(truth > 0.1 * np.percentile(truth, 99.5)) >= MARGIN_MM


def test_warps_do_not_fold_and_differ_by_4_mm_beyond_affine(subjects: list[Subject]) -> None:
    centred = np.stack(np.meshgrid(*[(np.arange(n) - (n - 1) / 2) * SPACING_MM for n in GRID], indexing="ij"))
    inside = subjects[0].mask.data[0] > 0
    points = []
    for index in range(COUNT):
        displacement, scale = subject_warp(subject_seed(5, index))
        assert float(jacobian(displacement, SPACING_MM).min()) > 0.0
        points.append(((centred + displacement.numpy())[:, inside].T / scale).T)
    residuals = [residual_rms_mm(points[a], points[b]) for a in range(COUNT) for b in range(a)]
    assert np.sqrt(np.mean(np.square(residuals))) >= 4.0
    assert min(residuals) >= 3.5


def test_attributes_are_measured_on_the_mask(subjects: list[Subject]) -> None:
    for subject in subjects:
        voxels = int((subject.mask.data == BRAIN_LABELS["lesion"]).sum())
        assert subject.attributes["lesion_volume_ml"] == pytest.approx(voxels * SPACING_MM**3 / 1000.0, abs=1e-3)
        assert (subject.attributes["lesion_contrast"] == "none") == (voxels == 0)
        assert (subject.attributes["lesion_count"] == 0) == (voxels == 0)
        assert str(subject.attributes["contrast"]) in subject.text
        assert (str(subject.attributes["lesion_contrast"]) in subject.text) == (voxels > 0)


def test_image_is_truth_with_rician_noise(subjects: list[Subject]) -> None:
    for subject in subjects:
        brain = subject.mask.data >= BRAIN_LABELS["gm"]
        noise = (subject.image.data - subject.truth.data)[brain]
        low, high = np.percentile(subject.image.data, [0.5, 99.5])
        assert 0.012 < noise.std() / (high - low) < 0.03
        assert abs(noise.mean()) < 0.1 * noise.std()


def test_every_label_is_there_in_plausible_shares(subjects: list[Subject]) -> None:
    for subject in subjects:
        shares = [float((subject.mask.data == value).mean()) * np.prod(GRID) for value in (1, 2, 3)]
        csf, grey, white = np.array(shares) / sum(shares)
        assert 0.02 < csf < 0.2 and 0.4 < grey < 0.75 and 0.2 < white < 0.5
        assert 0.9e6 < sum(shares) * SPACING_MM**3 < 2.2e6


def test_tissues_are_ordered_as_in_each_contrast(lesioned: dict[str, Subject]) -> None:
    t1, t2, flair = (medians(lesioned[name]) for name in CONTRASTS)
    assert t1["wm"] > t1["gm"] > t1["csf"] and t1["wm"] > t1["lesion"]
    assert t2["csf"] > t2["gm"] > t2["wm"] and t2["lesion"] > t2["wm"]
    assert flair["csf"] < flair["wm"] < flair["lesion"] and flair["csf"] < flair["gm"] < flair["lesion"]


def test_contrast_changes_the_signal_and_not_the_anatomy(lesioned: dict[str, Subject]) -> None:
    masks = {subject.mask.data.tobytes() for subject in lesioned.values()}
    assert len(masks) == 1
    assert len({subject.image.data.tobytes() for subject in lesioned.values()}) == 3


def test_contrast_is_drawn_from_the_seed() -> None:
    subject = simulate_brain(11)
    assert subject.attributes["contrast"] in CONTRASTS
    assert subject.image.data.shape == (1, *GRID)


def test_unknown_contrast_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConditionError, match="did you mean 'FLAIR'"):
        simulate_brain(0, contrast="FLAIRE")


def test_missing_template_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synth.simulate.template.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r'pip install "synthvol\[cohort\]"'):
        template.__wrapped__()
