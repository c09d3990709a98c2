"""The privacy audit on volumes that copy and volumes that do not: verdicts in words, controls, drops, pooled folds."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from evaluation import audit, pool
from evaluation.evidence import Bench, Evidence, Features, Judged
from evaluation.functional import conformal_p_values
from evaluation.functional.blind_gate import BlindGate, LeftOut
from evaluation.functional.membership import membership_test
from evaluation.functional.privacy import leaning
from evaluation.judge import judge
from evaluation.privacy.audit import Audit
from evaluation.privacy.checks import shows_a_face
from evaluation.privacy.embeddings import Apart, by_features
from evaluation.privacy.findings import Design, Options
from evaluation.privacy.plants import DISGUISES, RMS_VOXELS, plant
from evaluation.privacy.power import Control
from evaluation.privacy.search import References, cell_grid, cells, rotations
from evaluation.privacy.verdict import weights_verdict
from evaluation.report import Verdict
from synth.errors import DataError
from synth.rng import numpy_rng

GRID = (20, 24)
QUICK = Options(permutations=199, plants=12)


def subject(*name: int | str) -> tuple[np.ndarray, np.ndarray]:
    """A smooth picture of its own, and where it is bright."""
    rng = numpy_rng("subject", *name)
    image = ndimage.gaussian_filter(rng.normal(size=GRID), 2.0)
    image = (image - image.min()) / (image.max() - image.min())
    return image[None], (image > np.quantile(image, 0.8)).astype(np.uint8)


def volumes(side: str, count: int, first: int = 0) -> list[Judged]:
    return [Judged(f"{side}{i}", *subject(side, i)) for i in range(first, first + count)]


def copied(training: list[Judged], count: int) -> list[Judged]:
    """Copies of as many patients, in the disguises in turn."""
    return [replace(one.item, case=f"copy{i}") for i, one in enumerate(plant(training, count, seed=5))]


def evidence(made: list[Judged], *, training: int = 60, holdout: int = 120, **more: Any) -> Evidence:
    return Evidence(made, volumes("t", training), volumes("h", holdout), "pictures", **more)


@pytest.fixture(scope="module")
def clean() -> Audit:
    return audit(evidence(volumes("s", 100)), options=QUICK)


@pytest.fixture(scope="module")
def leaky() -> Audit:
    made = [*volumes("s", 85), *copied(volumes("t", 60), 15)]
    return audit(evidence(made), options=QUICK)


def test_a_set_that_a_near_copy_test_chose_is_neither_bounded_nor_passed(clean: Audit, leaky: Audit) -> None:
    """Copies that such a test let through are not like the planted ones; what is seen for all that still fails."""
    assert "copy_rate_bound" in clean.figures
    for made, free in ((volumes("s", 100), clean), ([*volumes("s", 85), *copied(volumes("t", 60), 15)], leaky)):
        found = audit(evidence(made, chosen="chosen by a test"), options=QUICK)
        for name in ("copy_rate_bound", "minimum_detectable"):
            assert name not in found.figures
            assert found.not_computed[name] == "chosen by a test"
        assert found.images.ok is (False if free is leaky else None)
        assert ("chosen by a test" in found.images.why) == (free is clean) and "bound:" not in found.images.why
        assert found.flagged == free.flagged
        assert found.after_drop is None or found.after_drop.ok is None


def test_a_set_that_copies_nobody_is_not_accused(clean: Audit) -> None:
    assert clean.images.ok is not False, clean.images.why
    assert not clean.flagged and clean.after_drop is None
    for word in ("threat:", "no formal (DP) guarantee, not a legal finding", "100 samples against 60 training and 120"):
        assert word in clean.images.why
    assert clean.figures["set_level_p"].value > 0.05
    interval = clean.figures["blind_gate_auc"].interval
    assert interval is not None and interval[0] <= 0.5 <= interval[1]
    assert clean.weights.ok is None and "give the model" in clean.weights.why
    assert "299 can" in clean.not_computed["mia_tpr_1"] and "mia_tpr_01" in clean.not_computed
    assert not set(clean.figures) & set(clean.not_computed)
    assert "at most 3 % of members found at 1 % false positives is asked for, it cannot be claimed" in clean.images.why


def test_the_controls_run_with_every_audit(clean: Audit) -> None:
    control = clean.figures["negative_control"]
    assert 0.03 <= control.value <= 0.07 and control.interval is not None and control.n == 120
    assert control.interval[0] < 0.03 and control.interval[1] > 0.07, "so few volumes do not fix it better"
    assert control.better == clean.figures["blind_gate_auc"].better == "", "they should lie at their floors"
    left = clean.figures["left_out_control"]
    assert left.n == 30 + 120 and left.better == "" and left.interval is not None
    assert left.p_value is not None and left.p_value * 4 > 0.05 and left.floor == pytest.approx(6 / 121)
    assert clean.figures["planted_seen"].value > 0.7
    assert 0 < clean.figures["copy_rate_bound"].value < 0.2
    assert {"copy_test.correlation", "copy_test.features", "copy_test.masks"} <= set(clean.figures), "detail"


def test_copies_in_disguise_are_flagged_and_dropped(leaky: Audit) -> None:
    assert leaky.images.ok is False and "flagged as copies by correlation" in leaky.images.why
    found = {case for case in leaky.flagged if case.startswith("copy")}
    assert len(found) >= 12 and len(leaky.flagged) - len(found) <= 3
    assert leaky.figures["copy_test"].value == pytest.approx(len(leaky.flagged) / 100), "as it was before dropping"
    assert leaky.figures["set_level_p"].value < 0.05
    assert leaky.after_drop is not None and leaky.after_drop.ok is None
    assert "undecidable: every embedding finds samples that are dropped, so nothing indep" in leaky.after_drop.why
    assert "nothing independent" in leaky.not_computed["copy_test_after_drop"], "all three find most of the disguises"
    assert "copy_test_after_drop" not in leaky.figures


def test_the_rest_is_judged_by_embeddings_that_find_none_of_what_is_dropped() -> None:
    """Masks of training patients under images of nobody: seen by the embedding of masks alone."""
    training = volumes("t", 60)
    masks = [replace(one, case=f"copy{i}", mask=training[i].mask) for i, one in enumerate(volumes("x", 15))]
    found = audit(evidence([*volumes("s", 85), *masks], real_masks_allowed=True), options=QUICK)
    assert "flagged as copies by masks" in found.images.why
    after = found.figures["copy_test_after_drop"]
    assert after.n == 100 - len(found.flagged) and "masks" not in after.unit and "correlation" in after.unit
    assert found.after_drop is not None and found.after_drop.ok is not False, found.after_drop


def test_exposure_names_the_copied_patients(leaky: Audit) -> None:
    sources = {f"t{one.source}" for one in plant(volumes("t", 60), 15, seed=5)}
    most = [row.patient for row in leaky.exposure[:10]]
    assert len(leaky.exposure) == 60 and set(most) <= sources
    assert all(row.sample.startswith("copy") for row in leaky.exposure[:10])
    assert leaky.exposure[0].p_value == pytest.approx(1 / 121)


def test_few_patients_are_undecidable_and_the_n_that_decides_is_said() -> None:
    few = audit(evidence(volumes("s", 30), training=20, holdout=20), options=QUICK)
    assert few.images.ok is None and few.images.why.startswith("undecidable")
    told = re.search(r"about (\d+) hold-out patients \(here 20\)", few.images.why)
    assert told is not None and int(told[1]) > 199, "with 199, every copy must have the smallest p at once"
    assert "a tenth of copies needs 99 patients at least" in few.not_computed["copy_test"]
    rare = audit(evidence(volumes("s", 8), training=8, holdout=8), options=QUICK)
    assert "as so few samples hold a copy too seldom" in rare.images.why, "whatever the hold-out"
    none = audit(evidence(volumes("s", 3), holdout=0), options=QUICK)
    assert none.images.ok is None and not none.figures and "at least 2" in none.not_computed["copy_test"]


def test_many_volumes_of_one_patient_are_no_hold_out() -> None:
    held = [replace(one, patient="one") for one in volumes("h", 30)]
    found = audit(Evidence(volumes("s", 30), volumes("t", 30), held, "pictures"), options=QUICK)
    assert found.images.ok is None and "patients, at least 2" in found.not_computed["copy_test"]


def test_images_and_weights_pass_only_where_members_found_are_bounded() -> None:
    """5 % of copies would be seen, and there are none; 310 others bound membership at 1 % by some, but not by 3 %."""

    def loss(item: Judged) -> float:
        return float(numpy_rng("loss", item.case).normal())

    whole = evidence(volumes("s", 200), training=300, holdout=310, loss=loss)
    found = audit(whole, options=replace(QUICK, tpr_at_most=0.2))
    assert found.images.ok is True, found.images.why
    assert found.weights.ok is True, found.weights.why
    assert found.figures["copy_rate_bound"].value <= 0.05
    assert found.figures["weights_tpr_1"].n == 300


def test_a_verdict_on_weights_follows_the_interval_of_members_found() -> None:
    rng = numpy_rng("members of a verdict")
    members, others = rng.random(300), rng.random(310)
    few = np.where(np.arange(300) < 30, 2.0, members)

    def verdict(scores: np.ndarray, non_members: np.ndarray, **asked: float) -> Verdict:
        gate, left = BlindGate(0.5, (0.4, 0.6), True, 0.5, (300, 310)), LeftOut(0.05, 0.05, (0, 0.1), 1.0, (150, 310))
        design = Design(
            training=300,
            holdout=310,
            folds=1,
            twins=0,
            control=Control(0.05, (0.03, 0.07), 310),
            gates=(gate,),
            no_gate="",
            left=(("features", left),),
            no_left="",
            weights=membership_test(scores, non_members),
            no_weights="",
        )
        return weights_verdict(design, Options(**asked), images=Verdict(None, ""))  # pyright: ignore[reportArgumentType]

    bounded = verdict(members, others)
    assert bounded.ok is None and "% only with 300 and 310 patients; about 1270 training" in bounded.why
    refused = verdict(members, others[:200])
    assert refused.ok is None and "it cannot be claimed with 300 and 200 patients" in refused.why
    assert verdict(members, others, tpr_at_most=0.2).ok is True
    assert verdict(few, np.concatenate([others] * 2)).ok is False, "a tenth of members is found, whatever the AUC"


def test_weights_that_saw_all_hold_out_patients_are_undecidable() -> None:
    """Those that chose the checkpoint are no non-members; test patients are."""
    whole = evidence(volumes("s", 20), holdout=40, loss=lambda item: float(numpy_rng("loss", item.case).normal()))
    patients = [item.whose for item in whole.holdout]
    none = audit(replace(whole, selection=frozenset(patients)), options=QUICK)
    assert none.weights.ok is None and "all hold-out patients chose the checkpoint" in none.weights.why
    assert "chose the checkpoint" in none.not_computed["weights_auc"]
    asked: list[str] = []

    def loss(item: Judged) -> float:
        asked.append(item.case)
        return -3.0 * item.case.startswith("t") + float(numpy_rng("loss", item.case).normal())

    some = audit(replace(whole, selection=frozenset(patients[:25]), loss=loss), options=QUICK)
    assert some.figures["weights_auc"].n == 60 + 15 and some.weights.ok is False
    assert len(asked) == 75 and not set(asked) & set(patients[:25])


def test_a_cohort_whose_hold_out_is_another_population_fails_the_left_out_control() -> None:
    whole = evidence(volumes("s", 40), holdout=60)
    other = [replace(item, image=ndimage.gaussian_filter(item.image, (0, 1.5, 1.5))) for item in whole.holdout]
    found = audit(replace(whole, holdout=other), options=QUICK)
    left = found.figures["left_out_control"]
    assert left.p_value is not None and left.p_value * 4 <= 0.05
    assert found.images.ok is None and "are not equally near to the rest of training by" in found.images.why


def test_a_shifted_hold_out_makes_the_design_invalid() -> None:
    whole = evidence(volumes("s", 40), holdout=60)
    brighter = [replace(item, image=item.image * 0.8 + 0.2) for item in whole.holdout]
    found = audit(replace(whole, holdout=brighter), options=QUICK)
    assert found.images.ok is None and "told apart without any generator" in found.images.why


def test_a_patient_on_both_sides_is_refused_and_equal_volumes_are_told() -> None:
    whole = evidence(volumes("s", 20), holdout=40)
    with pytest.raises(DataError, match="1 patients are in training and hold-out both"):
        audit(replace(whole, holdout=[*whole.holdout, replace(whole.training[0], case="other", patient="t0")]))
    renamed = [replace(whole.training[0], case="other"), *whole.holdout]
    found = audit(replace(whole, holdout=renamed), options=QUICK)
    assert found.images.ok is None and "1 hold-out volumes are training volumes" in found.images.why


def test_a_training_volume_among_the_samples_fails_whatever_the_n() -> None:
    whole = evidence([*volumes("s", 9), replace(volumes("t", 1)[0], case="same")], training=9, holdout=9)
    found = audit(whole, options=QUICK)
    assert found.images.ok is False and "voxel for voxel" in found.images.why and "same" in found.flagged


def test_masks_of_real_patients_fail_unless_allowed() -> None:
    made = [replace(item, mask_origin="real") for item in volumes("s", 20)]
    found = audit(evidence(made), options=QUICK)
    assert found.images.ok is False and "20 of 20 samples carry the mask of a real patient" in found.images.why
    assert "masks were given" in found.not_computed["copy_test.masks"]
    allowed = audit(evidence(made, real_masks_allowed=True), options=QUICK)
    assert allowed.images.ok is not False and "which was allowed" in " ".join(allowed.notes)
    taken = [replace(one, mask=two.mask) for one, two in zip(volumes("s", 20), volumes("h", 20), strict=True)]
    assert "20 of 20 samples carry the mask" in audit(evidence(taken), options=QUICK).images.why


def test_edits_of_patients_fail_though_real_masks_are_allowed_and_are_not_held_against_the_weights() -> None:
    """Of hold-out patients, whom no copy test against training finds."""
    made = [replace(item, mask_origin="given", edits_patient=item.case != "h0") for item in volumes("h", 20)]
    whole = evidence(made, real_masks_allowed=True, loss=lambda item: np.zeros(8))
    whole = replace(whole, holdout=[replace(item, case=f"again{item.case}") for item in whole.holdout])
    found = audit(whole, options=QUICK)
    assert found.images.ok is False and "19 of 20 samples are edits of images" in found.images.why
    assert "they make" not in found.weights.why


@pytest.mark.parametrize(("gain", "ok"), [(0.0, None), (3.0, False)])
def test_weights_are_judged_by_the_losses_handed_over(gain: float, ok: bool | None) -> None:
    def loss(item: Judged) -> np.ndarray:
        return numpy_rng("loss", item.case).normal(size=8) - gain * item.case.startswith("t")

    found = audit(evidence(volumes("s", 20), loss=loss), options=QUICK)
    assert found.weights.ok is ok and "weights" in found.weights.why
    assert found.figures["weights_auc"].n == 180 and "weights_tpr_1" in found.not_computed
    assert found.images.ok is not False


def test_weights_that_make_copies_are_no_safer_than_the_copies() -> None:
    made = [*volumes("s", 20), replace(volumes("t", 1)[0], case="copy")]
    found = audit(evidence(made, loss=lambda item: np.zeros(8)), options=QUICK)
    assert found.images.ok is False and found.weights.ok is False and "they make" in found.weights.why


def test_pooled_folds_hold_every_patient_out_once() -> None:
    people = volumes("p", 60)

    def folds(copies: bool) -> list[Evidence]:
        out = []
        for k in range(3):
            held, train = people[k::3], [one for i, one in enumerate(people) if i % 3 != k]
            made = volumes(f"s{k}", 20)
            if copies:
                made = [*made[:12], *[replace(one, case=f"{k}{one.case}") for one in copied(train, 8)]]
            out.append(Evidence(made, train, held, "pictures"))
        return out

    clean, leaky = pool(folds(False), options=QUICK), pool(folds(True), options=QUICK)
    assert clean.images.ok is not False and "3 folds pooled" in clean.images.why
    assert "60 training and 60 hold-out patients" in clean.images.why
    assert leaky.images.ok is False and leaky.figures["set_level_p"].value < 0.05
    assert clean.figures["negative_control"].n == 60 and len(clean.exposure) == 60
    with pytest.raises(DataError, match="held out of two folds"):
        pool([folds(False)[0]] * 2)


def test_a_report_keeps_patients_inside(tmp_path: Path) -> None:
    made = [*volumes("s", 40), *copied(volumes("t", 60), 8)]
    report = judge(evidence(made, bench=Bench()), only=["privacy"])
    report.write(tmp_path)
    content = json.loads((tmp_path / "report.json").read_text())
    assert {"privacy.images", "privacy.weights"} <= set(content["verdicts"])
    assert [row["case"] for row in content["samples"] if row["flagged"]]
    rows = (tmp_path / "internal" / "exposure.csv").read_text().splitlines()
    assert rows[0] == "patient,nearest_sample,distance,p" and len(rows) == 61
    shared = [path for path in tmp_path.rglob("*") if path.is_file() and "internal" not in path.parts]
    assert not any(f'"t{i}"' in path.read_text() or f">t{i}<" in path.read_text() for path in shared for i in range(60))
    assert not (tmp_path / "share" / "exposure.csv").exists()
    again = judge(evidence(made, bench=Bench()), only=["privacy"])
    again.write(tmp_path / "again")
    assert (tmp_path / "again" / "report.json").read_bytes() == (tmp_path / "report.json").read_bytes()


@pytest.mark.parametrize("kind", DISGUISES)
def test_every_disguise_is_seen_through(kind: str) -> None:
    training = volumes("t", 30)
    grid = cell_grid(GRID)
    known = References(np.stack([cells(item.image, grid) for item in training]).astype(np.float32))
    image, mask = DISGUISES[kind](training[7].image.astype(float), training[7].mask, numpy_rng("disguise", kind))
    row, (nearest,) = known.compare(cells(image, grid), [slice(0, 30)])
    others = [known.compare(cells(item.image, grid), [slice(0, 30)])[1][0] for item in volumes("h", 40)]
    assert int(row.argmin()) == 7 and nearest < min(others)
    assert image.shape == training[7].image.shape and mask.shape == GRID


def test_the_search_finds_a_volume_moved_flipped_and_turned_in_3d() -> None:
    rng = numpy_rng("3d")
    base = np.stack([ndimage.gaussian_filter(rng.normal(size=(10, 12, 11)), 1.5) for _ in range(6)])[:, None]
    known = References(base.astype(np.float32))
    moved = np.flip(np.roll(base[2], 1, axis=2), 3)
    assert known.compare(moved, [slice(0, 6)])[0][2] < 0.15 < known.compare(base[4], [slice(0, 4)])[0][:4].min()
    turned = rotations(base[3], 5.0)[1]
    row, (nearest,) = known.compare(turned, [slice(0, 6)])
    assert nearest <= row[3] and row.argmin() == 3
    assert known.compare(base[5] * 3 + 7, [slice(0, 6)])[1][0] == pytest.approx(0, abs=1e-5)
    assert known.compare(np.ones((1, 10, 12, 11)), [slice(0, 6)])[1][0] == 1.0


def test_cells_are_means_and_refuse_what_is_smaller() -> None:
    image = numpy_rng("cells").random((2, 7, 9))
    out = cells(image, (7, 3))
    assert out[1, 4, 2] == pytest.approx(image[1, 4, 6:9].mean())
    with pytest.raises(ValueError, match="no"):
        cells(image, (8, 3))


def test_an_elastic_copy_moves_by_one_voxel_rms() -> None:
    ramp = np.stack(np.meshgrid(*[np.arange(n, dtype=float) for n in (30, 32, 28)], indexing="ij"))
    moved, _ = DISGUISES["elastic"](ramp, np.zeros((30, 32, 28), dtype=np.uint8), numpy_rng("elastic"))
    inside = (slice(None), slice(4, -4), slice(4, -4), slice(4, -4))
    rms = np.sqrt(((moved - ramp)[inside] ** 2).sum(axis=0).mean())
    assert 0.5 * RMS_VOXELS < rms <= 1.3 * RMS_VOXELS


def _head(*, skin: bool) -> Callable[[], Judged]:
    def make() -> Judged:
        axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in (44, 52, 44)], indexing="ij")
        radius = np.sqrt(sum(a**2 for a in axes))
        brain = radius < 0.62
        image = np.where(brain, 0.8, 0.0) + (np.where((radius > 0.7) & (radius < 0.9), 0.6, 0.0) if skin else 0.0)
        return Judged("head", image[None], brain.astype(np.uint8))

    return make


def test_heads_with_their_skin_are_told_from_brains() -> None:
    spacing = (4.5, 4.5, 4.5)
    assert shows_a_face(_head(skin=True)(), spacing)
    assert not shows_a_face(_head(skin=False)(), spacing)
    assert not shows_a_face(_head(skin=True)(), (1.0, 1.0, 1.0)), "too small for a head"
    assert not shows_a_face(volumes("s", 1)[0], (1.0, 1.0))


def test_volumes_of_other_grids_are_compared_by_features_alone() -> None:
    odd = [Judged("odd", np.full((1, 9, 9), 0.5), np.zeros((9, 9), dtype=np.uint8))]
    found = audit(evidence([*volumes("s", 12), *odd], training=12, holdout=12), options=QUICK)
    assert "different grids" in found.not_computed["copy_test.correlation"]


def test_fresh_samples_are_not_nearer_than_hold_out_in_the_space_of_features() -> None:
    """Hold-out volumes in the fit of the space would lie further out, and a quarter of a clean set would be accused."""
    rng, early, both = np.random.default_rng(0), [], []
    for _ in range(12):
        axes = rng.normal(size=(10, 60))
        made, train, held = (rng.normal(size=(n, 10)) @ axes + 0.3 * rng.normal(size=(n, 60)) for n in (60, 60, 40))
        sides = SimpleNamespace(
            features=lambda _, sides=(made, train, held): Features(*sides),
            features_of=lambda *_: np.zeros((0, 60)),
            holdout=[SimpleNamespace(whose=f"h{n}") for n in range(len(held))],
        )
        found = by_features(sides, [], lambda _: None, Apart((), (), ()))  # pyright: ignore[reportArgumentType]
        early.append((conformal_p_values(found.found, found.control) <= 0.05).mean())
        leaned = (leaning(found.found, found.found_beside), leaning(found.control, found.control_beside))
        both.append((conformal_p_values(*leaned) <= 0.05).mean())
    assert np.mean(early) < 0.09 and np.mean(both) < 0.09
