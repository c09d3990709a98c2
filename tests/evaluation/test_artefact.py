"""The artefact gate: real images pass at the stated rate, faults do not, files round-trip, and what a report says."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf
from sklearn.metrics import roc_auc_score

from evaluation.artefact import _shrunk, auroc, describe, fit_gate, load_gate, save_gate
from evaluation.evidence import Evidence, Judged
from evaluation.judge import judge
from evaluation.report import Report
from synth.augment import corrupt
from synth.errors import CheckpointError, DataError
from tests.conftest import phantom


def images(first: int, count: int, grid: tuple[int, ...] = (24, 26, 24)) -> list[np.ndarray]:
    return [np.abs(phantom(n, grid)[0][None]) / 800.0 for n in range(first, first + count)]


def items(volumes: list[np.ndarray], name: str = "c") -> list[Judged]:
    return [Judged(f"{name}{n}", image, np.zeros(image.shape[1:], np.uint8)) for n, image in enumerate(volumes)]


@pytest.mark.parametrize("grid", [(48, 52), (24, 26, 24)])
@pytest.mark.parametrize("name", ["gaussian_noise", "blur", "slice_duplication", "checkerboard", "offset", "blocks"])
def test_corrupted_images_score_above_real_ones(grid: tuple[int, ...], name: str) -> None:
    gate = fit_gate(images(0, 24, grid))
    clean = [gate.score(image) for image in images(50, 10, grid)]
    faulty = [gate.score(corrupt(image, name, 3, seed=n)[0]) for n, image in enumerate(images(50, 10, grid))]
    assert auroc(faulty, clean) > 0.9


def test_a_fault_in_one_corner_is_seen() -> None:
    gate = fit_gate(images(0, 24, (32, 32, 32)))
    clean, faulty = images(50, 8, (32, 32, 32)), []
    for image in clean:
        spoilt = image.copy()
        spoilt[:, 8:16, 8:16, 8:16] = corrupt(image, "gaussian_noise", 5, seed=1)[0][:, 8:16, 8:16, 8:16]
        faulty.append(gate.score(spoilt))
    assert all(spoilt > 1.05 * gate.score(image) for spoilt, image in zip(faulty, clean, strict=True))


def test_blank_images_do_not_pass() -> None:
    gate = fit_gate(images(0, 24))
    worst = max(gate.score(image) for image in images(50, 10))
    for value in (0.0, 1.0):
        assert gate.score(np.full((1, 24, 26, 24), value)) > 2 * worst


def test_images_without_air_can_be_learned_from() -> None:
    rng = np.random.default_rng(0)
    gate = fit_gate([0.5 + 0.05 * rng.standard_normal((2, 20, 20)) for _ in range(12)])
    assert gate.score(0.5 + 0.05 * rng.standard_normal((2, 20, 20))) < 3
    assert gate.score(0.5 + 0.3 * rng.standard_normal((2, 20, 20))) > 3


@pytest.mark.parametrize("grid", [(3, 40), (5, 9, 13), (1, 8)])
def test_odd_and_short_axes_have_patches(grid: tuple[int, ...]) -> None:
    rows, tissue = describe(np.random.default_rng(0).random((2, *grid)))
    assert len(rows) == len(tissue)
    assert np.isfinite(rows).all()
    assert rows.shape[1] == 2 * (1 + 3 * len(grid) + 3)


def test_shrinkage_and_auroc_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(30, 12)) @ rng.normal(size=(12, 12))
    z = z - z.mean(axis=0)
    theirs, _ = ledoit_wolf(z, assume_centered=True)
    assert np.allclose(_shrunk(z), theirs + 1e-6 * np.eye(12), atol=1e-9)
    a, b = rng.integers(0, 9, 40), rng.integers(2, 11, 30)
    assert auroc(b, a) == pytest.approx(roc_auc_score([0] * 40 + [1] * 30, np.concatenate([a, b])))
    with pytest.raises(ValueError, match="both sides"):
        auroc([], [1.0])


def test_a_gate_is_saved_and_read_bit_by_bit(tmp_path: Path) -> None:
    gate = fit_gate(images(0, 12)).calibrated(images(20, 5))
    save_gate(gate, tmp_path / "a" / "gate.safetensors")
    save_gate(gate, tmp_path / "b.safetensors")
    assert (tmp_path / "a" / "gate.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    again = load_gate(tmp_path / "b.safetensors")
    image = images(40, 1)[0]
    assert again.score(image) == gate.score(image)
    assert np.array_equal(again.calibration, gate.calibration) and len(gate.calibration) == 5
    (tmp_path / "broken").write_bytes((tmp_path / "b.safetensors").read_bytes()[:100])
    for name in ("broken", "absent"):
        with pytest.raises(CheckpointError, match="no artefact gate"):
            load_gate(tmp_path / name)


@pytest.mark.parametrize(
    ("learned", "said"),
    [
        (images(0, 9, (8, 8)), "at least 10"),
        ([*images(0, 10, (8, 8)), *images(0, 1, (8, 8, 8))], "one form"),
        ([*images(0, 10, (8, 8)), np.full((1, 8, 8), np.nan)], "finite"),
    ],
)
def test_what_no_gate_is_learned_from(learned: list[np.ndarray], said: str) -> None:
    with pytest.raises(DataError, match=said):
        fit_gate(learned)


def test_an_image_of_another_form_is_refused() -> None:
    with pytest.raises(DataError, match="1 channels in 2D"):
        fit_gate(images(0, 10, (8, 8))).score(np.zeros((2, 8, 8)))


def judged(made: list[np.ndarray], holdout: int = 24, training: int = 20) -> Report:
    sides: dict[str, Any] = {"training": items(images(100, training)), "holdout": items(images(200, holdout))}
    return judge(Evidence(items(made), **sides, population="phantoms"), only=["artefact"])


def test_a_report_flags_faulty_samples_and_not_real_ones() -> None:
    spoilt = [corrupt(image, "blur", 3, seed=0)[0] for image in images(0, 8)]
    bad, good, few = judged(spoilt), judged(images(8, 40), holdout=40), judged(images(8, 8))
    assert bad.metrics["artefact.share_flagged"].value == 1.0
    assert bad.verdicts["artefact"].ok is False
    assert good.verdicts["artefact"].ok is True
    assert few.verdicts["artefact"].ok is None and "more would decide" in few.verdicts["artefact"].why
    assert good.metrics["artefact.share_flagged"].value < 0.5
    for report in (bad, few):
        control = report.metrics["artefact.auroc"]
        assert control.value > 0.8 and control.interval is not None
        assert control.interval[0] <= control.value <= control.interval[1]
        assert report.metrics["artefact.share_flagged"].floor == pytest.approx(0.04)
        for row in report.samples:
            assert isinstance(row["artefact"], float) and isinstance(row["artefact_p"], float)
            assert row["flagged"] is None, "flagged is the privacy audit's, which was not asked"
    assert bad.plain() == judged(spoilt).plain()


def test_patients_are_counted_and_not_their_volumes() -> None:
    def of(patients: int, some: list[Judged]) -> list[Judged]:
        return [replace(item, patient=f"p{n % patients}") for n, item in enumerate(some)]

    held, train = items(images(200, 40)), items(images(100, 20))
    made = items(images(0, 6))
    few = judge(Evidence(made, train, of(10, held), population="phantoms"), only=["artefact"])
    assert "10 held-out patients; below 19" in few.not_computed["artefact.share_flagged"]
    assert few.metrics["artefact.auroc"].n == 10
    none = judge(Evidence(made, of(5, train), held, population="phantoms"), only=["artefact"])
    assert "10 real training patients, there are 5" in none.not_computed["artefact.auroc"]
    some = judge(Evidence(made, train, of(20, held), population="phantoms"), only=["artefact"])
    assert some.metrics["artefact.share_flagged"].floor == pytest.approx(1 / 21)
    p = [row["artefact_p"] for row in some.samples]
    assert all(isinstance(one, float) and one >= round(1 / 21, 6) for one in p)
    scores = {row["case"]: row["artefact"] for row in some.samples}
    gate = fit_gate([item.image for item in train]).calibrated([item.image for item in held])
    above = (gate.calibration >= gate.score(made[0].image)).reshape(2, 20).mean(axis=0).sum()
    assert scores["c0"] == pytest.approx(gate.score(made[0].image), rel=1e-5)
    assert p[0] == pytest.approx((1 + above) / 21, rel=1e-5)


def test_too_few_real_volumes_give_reasons_and_no_share() -> None:
    few = judged(images(0, 3), holdout=6)
    assert "19" in few.not_computed["artefact.share_flagged"]
    assert all("artefact" in row and "artefact_p" not in row for row in few.samples)
    none = judged(images(0, 3), training=4)
    assert {"artefact.share_flagged", "artefact.auroc"} <= set(none.not_computed)
    assert not none.metrics
    alone = judged(images(0, 3), holdout=0)
    assert "artefact.auroc" in alone.not_computed
