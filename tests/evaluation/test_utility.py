"""Downstream utility: arms that differ in data alone, statistics that find what is there, runs that go on after a kill."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch.fx.experimental import _config

from evaluation.evidence import Evidence, Judged
from evaluation.functional import lesions
from evaluation.judge import judge
from evaluation.utility.arms import Volumes, sides
from evaluation.utility.augment import affine, bias_field, classical, cutmix, gamma, noise
from evaluation.utility.compare import Scores, adjusted, gain, ratio
from evaluation.utility.config import ARMS, Job, UtilityConfig
from evaluation.utility.network import build, patch_of, reduced, scores_of
from evaluation.utility.run import Result, UtilityScores, check, collected, digest_of, run_job
from evaluation.utility.score import COVERED, calibration
from evaluation.utility.tables import compared, measure, results_of, table
from synth.errors import ConfigError, DataError
from tests.conftest import phantom
from tests.laws.device import META, Strict

SMALL = UtilityConfig(arms=("R", "S", "RS"), seeds=(0, 1), steps=2, width=8, lesions=("core",))


def items(first: int, count: int, grid: tuple[int, ...], *, patient: str = "", inverted: bool = False) -> list[Judged]:
    """Phantoms of two kinds; with `inverted`, the second is dark on bright."""
    out = []
    for index in range(first, first + count):
        image, mask = phantom(index, grid)
        name = f"{patient}{index // 2}" if patient else ""
        kind = ("a", "b")[index % 2]
        image = image / 800.0
        image = 1.0 - image if inverted and kind == "b" else image
        out.append(Judged(f"c{index}", image[None], mask, patient=name, attributes={"kind": kind}))
    return out


def volumes(grid: tuple[int, ...] = (16, 16), *, inverted: bool = False) -> Volumes:
    real, test = (items(first, n, grid, patient=p, inverted=inverted) for first, n, p in ((0, 8, "p"), (20, 12, "t")))
    made = items(40, 6, grid, inverted=inverted)
    return Volumes(real, made, test, ("shell", "core"), (2.0,) * len(grid), "kind", ("a", "b"))


def scores(values: Any, *, each: int = 1) -> Scores:
    rows = np.atleast_2d(np.asarray(values, dtype=np.float64))
    names = tuple(f"c{n:03d}" for n in range(rows.shape[1]))
    return Scores(rows, names, tuple(f"p{n // each}" for n in range(rows.shape[1])))


def test_arms_of_a_seed_share_their_real_patients_and_differ_in_the_rest() -> None:
    data, config = volumes(), UtilityConfig(arms=tuple(ARMS), fractions=(0.5, 1.0))
    found = {arm: sides(config.job(arm, 0.5, 0.0, 0), data, config) for arm in ARMS}
    real = [item.case for item in found["R"].train]
    assert len(real) == 4 and len({item.whose for item in found["R"].train}) == 2, "two cases of two patients"
    for arm in ("RS", "RSA", "RA", "RX"):
        assert [item.case for item in found[arm].train][:4] == real
    assert {item.case for item in found["RR"].train} == set(real)
    assert len(found["RR"].train) == len(found["RS"].train) == len(found["RT"].train) == 10
    assert {item.case for item in found["S"].train} == {item.case for item in data.synthetic}
    assert {item.case for item in found["T"].train} <= {item.case for item in data.real}
    assert (found["RS"].real, found["RS"].synthetic, found["S"].real) == (4, 6, 0)
    whole = {item.case for item in sides(config.job("R", 1.0, 0.0, 0), data, config).train}
    assert set(real) < whole and len(whole) == 8


def test_jobs_are_named_once_and_real_ones_do_not_depend_on_ratios() -> None:
    config = UtilityConfig(arms=("R", "S", "RS"), fractions=(0.1, 1.0), ratios=(1.0, 2.0), seeds=(0, 1))
    names = [job.name for job in config.jobs()]
    assert len(names) == len(set(names)) == 2 * (2 + 4 + 4)
    whole = UtilityConfig(arms=("R", "S", "RS"), fractions=(0.1, 1.0), seeds=(0,))
    assert sum("_S_" in job.name for job in whole.jobs()) == 1, "the whole set depends on no fraction"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"arms": ("R", "Q")}, "arms names 'Q'"),
        ({"steps": 0}, "steps is 0"),
        ({"fractions": (0.0,)}, "fractions"),
        ({"seeds": ()}, "seeds"),
        ({"width": 12}, "width is 12"),
        ({"ratios": (-1.0,)}, "ratios"),
        ({"task": "classification", "arms": ("R", "RX")}, "CutMix"),
    ],
)
def test_wrong_settings_are_named(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        UtilityConfig(**change)


def test_a_patient_on_both_sides_is_refused() -> None:
    data = volumes()
    with pytest.raises(DataError, match="in training and test"):
        replace(data, test=[*data.test, data.real[0]])
    with pytest.raises(DataError, match="no synthetic volume"):
        replace(data, synthetic=[])


@pytest.mark.parametrize("grid", [(12, 14), (10, 12, 8)])
def test_augmentation_keeps_pairs_together(grid: tuple[int, ...]) -> None:
    image, mask = phantom(0, grid)
    image = (mask * 0.4)[None].astype(np.float32)
    for seed in range(6):
        rng = np.random.default_rng(seed)
        moved, labels = affine(image, mask, rng)
        assert moved.shape == image.shape and labels.shape == mask.shape and set(np.unique(labels)) <= {0, 1, 2}
        sure = np.abs(moved[0] - labels * 0.4) < 0.01
        assert sure.mean() > 0.5 and np.corrcoef(moved[0].ravel(), labels.ravel())[0, 1] > 0.85
        both, kept = classical(image, mask, rng)
        assert both.dtype == np.float32 and kept.dtype == mask.dtype and np.isfinite(both).all()
        mixed, pasted = cutmix((image, mask), (image + 1.0, 0 * mask), rng)
        assert np.array_equal(mixed[0] > 0.95, pasted != mask) or (pasted[mixed[0] > 0.95] == 0).all()


def test_intensity_changes_are_what_they_say() -> None:
    rng = np.random.default_rng(0)
    image = np.linspace(0.0, 1.0, 256, dtype=np.float32).reshape(1, 16, 16)
    bent = gamma(image, rng)
    assert bent.min() == 0 and bent.max() == pytest.approx(1) and (np.diff(bent.ravel()) > 0).all()
    added = noise(np.zeros((1, 64, 64), dtype=np.float32), rng)
    assert 0 < added.std() <= 0.05 * 1.1
    field = bias_field(np.ones((1, 16, 16), dtype=np.float32), rng)[0]
    assert np.log(field).mean() == pytest.approx(0, abs=1e-5)
    # a polynomial of order 3 has no fourth difference
    assert np.abs(np.diff(np.log(field.astype(np.float64)), n=4, axis=0)).max() < 1e-4 < np.log(field).std()


def test_a_known_gain_is_found_and_none_is_not() -> None:
    rng = np.random.default_rng(0)
    plain = rng.uniform(0.5, 0.9, size=40)
    seeds = np.stack([plain + rng.normal(0, 0.02, 40) for _ in range(3)])
    better = np.stack([plain + 0.03 + rng.normal(0, 0.02, 40) for _ in range(3)])
    (one,) = adjusted([gain("RS-R", scores(better), scores(seeds))])
    assert one.found is True and one.interval[0] < 0.03 < one.interval[1] and one.seeds == (3, 3)
    assert adjusted([gain("R-RS", scores(seeds), scores(better))])[0].found is False
    again = np.stack([plain + rng.normal(0, 0.02, 40) for _ in range(3)])
    (null,) = adjusted([gain("RR-R", scores(again), scores(seeds))])
    assert null.found is None and null.interval[0] < 0 < null.interval[1] and null.detectable < 0.03


def test_lower_is_better_turns_the_sign() -> None:
    one = gain("hd95", scores(np.full(8, 3.0)), scores(np.linspace(4, 5, 8)), better="lower")
    assert one.value == pytest.approx(1.5)


def test_nulls_are_called_at_their_rate_and_intervals_cover() -> None:
    """Patients of two cases each, correlated: tested case by case this would be called twice as often."""
    rng = np.random.default_rng(1)
    called = covered = 0
    rounds = 120
    for number in range(rounds):
        shared = np.repeat(rng.normal(0, 0.05, 24), 2)
        drawn = 0.7 + shared + rng.normal(0, 0.01, 48)
        one = gain("null", scores(drawn, each=2), scores(np.full(48, 0.7), each=2), seed=number)
        called += one.p < 0.05
        covered += one.interval[0] <= 0 <= one.interval[1]
    assert stats.binomtest(called, rounds, 0.05).pvalue > 0.01
    assert covered / rounds > 0.85


def test_sign_flips_match_scipy() -> None:
    rng = np.random.default_rng(2)
    for count, tolerance in ((9, 1e-12), (30, 0.02)):
        drawn = rng.normal(0.4, 1.0, count)
        wanted = stats.permutation_test(
            (drawn,),
            lambda x, axis: np.mean(x, axis=axis),
            permutation_type="samples",
            vectorized=True,
            n_resamples=9999,
        ).pvalue
        assert gain("x", scores(drawn), scores(np.zeros(count))).p == pytest.approx(wanted, abs=tolerance)


def test_holm_by_hand() -> None:
    drawn = [scores(np.linspace(0.1, 0.2, 10) * sign) for sign in (1, 1, 1)]
    made = [
        replace(gain("x", one, scores(np.zeros(10))), p=p) for one, p in zip(drawn, (0.01, 0.04, 0.03), strict=True)
    ]
    assert [one.p_holm for one in adjusted(made)] == pytest.approx([0.03, 0.06, 0.06])


def test_ratios_are_held_against_their_margin() -> None:
    rng = np.random.default_rng(3)
    real = rng.uniform(0.7, 0.9, 30)
    for share, found in ((0.97, True), (0.9, None), (0.5, False)):
        noise = rng.normal(0, 0.02, 30)
        (one,) = adjusted([ratio("S/R", scores(share * real + noise), scores(real), margin=0.9)])
        assert one.found is found and one.value == pytest.approx(share, abs=0.02)


def test_unlike_and_few_cases_are_refused() -> None:
    with pytest.raises(DataError, match="different cases"):
        gain("x", scores(np.ones(6)), scores(np.ones(7)))
    with pytest.raises(DataError, match="4 test patients; 5 at least"):
        gain("x", scores(np.ones(4)), scores(np.ones(4)))
    with pytest.raises(DataError, match="NaN"):
        scores([np.nan, 1.0])


def test_lesions_are_found_by_size_and_false_ones_counted() -> None:
    mask, found = np.zeros((20, 20, 6), dtype=np.uint8), np.zeros((20, 20, 6), dtype=np.uint8)
    mask[1:3, 1:3, 1:3] = 2  # 8 voxels, none of it found
    mask[10:16, 10:16, 1:5] = 2  # 144 voxels, a tenth found
    found[10:14, 10:14, 1:2] = 2
    found[18:20, 0:2, 0:1] = 2  # false
    (one,) = lesions(found, mask, labels=[2], spacing_mm=(1.0, 1.0, 1.0), overlap=COVERED)
    rows = sorted(zip(one.sizes_ml.round(9).tolist(), one.found.tolist(), strict=True))
    assert rows == [(0.008, False), (0.144, True)] and one.false_positives == 1
    mask[10:16, 10:16, 1:6], found[10:14, 10:14, 1:2] = 2, 0
    found[10:13, 10:16, 1:2] = 2  # 18 of 180 voxels are a tenth, though 0.1 * 180 is a little more in floating point
    assert lesions(found, mask, labels=[2], spacing_mm=(1.0, 1.0, 1.0), overlap=COVERED)[0].found.tolist() == [
        False,
        True,
    ]


def test_calibration_is_of_the_region_and_not_of_the_easy_background() -> None:
    mask = np.zeros((40, 40), dtype=np.uint8)
    mask[18:22, 18:22] = 1
    prob = np.zeros((2, 40, 40))
    prob[1][mask == 1] = 0.6
    prob[0] = 1 - prob[1]
    (error,), (brier,) = calibration(prob, mask, labels=[1])
    region = 4 * 4 + 4 * 4 * 2 + 4 * 1  # the square, its four sides twice over, one voxel at each corner
    assert error == pytest.approx(0.4 * 16 / region) and brier == pytest.approx(0.16 * 16 / region)
    prob[1][2:6, 2:6] = 1.0  # a false positive far from the truth
    (worse,), _ = calibration(prob, mask, labels=[1])
    assert worse == pytest.approx((0.4 * 16 + 16) / (2 * region), abs=1e-5)
    assert calibration(prob, 0 * mask, labels=[1]) == ([None], [None])


def test_patches_are_whole_and_short_ones_stay_in_float32() -> None:
    config = UtilityConfig()
    assert reduced(patch_of((64, 80, 64), config), config) and not reduced(patch_of((16, 16, 16), config), config)


@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_windows_cover_an_image_longer_than_the_patch(task: Any) -> None:
    config = UtilityConfig(task=task, width=8, patch=16)
    model = build(config, channels=1, classes=3, dims=2, seed=0).eval()
    image = np.random.default_rng(0).random((1, 21, 50), dtype=np.float32)
    found = scores_of(model, image, config)
    assert found.shape == ((3, 21, 50) if task == "segmentation" else (3,))
    assert torch.allclose(found.sum(dim=0), torch.ones(()), atol=1e-5)


class Killed(Exception):
    pass


def kill_after(calls: int) -> Callable[[], None]:
    left = [calls]

    def tell() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed

    return tell


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def run_jobs(
    data: Volumes, config: UtilityConfig, folder: Path, *, tell: Callable[[], None] = lambda: None
) -> UtilityScores:
    """Run every job here, one after another."""
    digest, (jobs, left_out) = digest_of(data, config), check(data, config)
    return collected(
        [run_job(job, data, config, folder, digest=digest, tell=tell) for job in jobs], data, config, left_out
    )


def test_a_killed_run_goes_on_to_the_same_scores(tmp_path: Path) -> None:
    data = volumes()
    before = torch.get_rng_state()
    counted: list[int] = []
    whole = run_jobs(data, SMALL, tmp_path / "whole", tell=lambda: counted.append(1))
    assert torch.equal(before, torch.get_rng_state()), "no global random state is touched"
    assert len(counted) == 6 * (SMALL.steps + len(data.test)), "every arm takes the same steps"
    with pytest.raises(Killed):
        run_jobs(data, SMALL, tmp_path / "killed", tell=kill_after(3 * (SMALL.steps + 12) + 5))
    assert len(files(tmp_path / "killed")) == 3
    left: list[int] = []
    again = run_jobs(data, SMALL, tmp_path / "killed", tell=lambda: left.append(1))
    assert len(left) == 3 * (SMALL.steps + 12), "what is finished is not trained again"
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
    assert [one.rows for one in again.results] == [one.rows for one in whole.results]


def test_scores_of_other_settings_or_volumes_are_not_taken(tmp_path: Path) -> None:
    data, one = volumes(), replace(SMALL, arms=("R",), seeds=(0,))
    run_jobs(data, one, tmp_path)
    assert digest_of(data, one) == digest_of(data, replace(one, seeds=(0, 1), fractions=(0.5,)))
    gpu = replace(one, device="cuda")
    assert digest_of(data, gpu) == digest_of(data, replace(gpu, device="cuda:1")), "which GPU does not matter"
    for other, config in ((data, replace(one, steps=3)), (replace(data, real=data.real[1:]), one), (data, gpu)):
        with pytest.raises(DataError, match="other settings or volumes"):
            run_jobs(other, config, tmp_path)
    next(tmp_path.iterdir()).write_text("{")
    with pytest.raises(DataError, match="broken"):
        run_jobs(data, one, tmp_path)


@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_networks_are_trained_and_asked_on_the_device(task: Any, tmp_path: Path) -> None:
    data, config = volumes(), replace(SMALL, task=task, arms=("RS",), seeds=(0,), device=META.type)
    job = config.jobs()[0]
    with Strict() as mode, _config.patch(meta_nonzero_assume_all_nonzero=True):
        found = run_job(job, data, config, tmp_path, digest=digest_of(data, config), tell=lambda: None)
    assert mode.crossings == len(data.test) == len(found.rows), "each test case's probabilities come to the host once"


@pytest.mark.parametrize(("grid", "steps"), [((16, 16), 60), ((16, 16, 16), 40)])
def test_a_network_learns_from_either_side_and_the_report_says_so(
    grid: tuple[int, ...], steps: int, tmp_path: Path
) -> None:
    data = volumes(grid)
    config = replace(
        SMALL,
        arms=("R", "S", "RS", "RA", "RR") if len(grid) == 2 else ("R", "S"),
        steps=steps,
        seeds=(0,),
        blocks=False,
    )
    report = judged(data, run_jobs(data, config, tmp_path))
    dices = {arm: report.metrics[f"utility.dice.{arm}"] for arm in config.arms}
    assert all(figure.value > 0.8 and figure.n == 12 and figure.interval for figure in dices.values())
    assert report.metrics["utility.synthetic_only"].value > 0.9 and "synthetic_only" in report.verdicts
    assert ("utility" in report.verdicts) == ("RS" in config.arms)
    assert {"utility.hd95.R", "utility.nsd.R", "utility.ece.R", "utility.brier.R"} <= set(report.metrics)
    found = [one for name, one in report.metrics.items() if name.startswith("utility.detection.R.")]
    assert found and all(one.value > 0.9 for one in found) and sum(one.n for one in found) >= 12
    if "RR" in config.arms:
        found = report.metrics["utility.dice_gain"]
        assert found.interval is not None and found.floor is not None
    json.dumps(report.plain(), allow_nan=False)


def test_classes_are_learned(tmp_path: Path) -> None:
    data = volumes(inverted=True)
    config = UtilityConfig(task="classification", arms=("R", "RS"), seeds=(0,), steps=30, width=8)
    report = judged(data, run_jobs(data, config, tmp_path))
    assert report.metrics["utility.accuracy.R"].value > 0.8
    assert {"utility.brier_class.RS", "utility.ece_class.RS"} <= set(report.metrics)
    assert "utility_class" in report.verdicts
    assert report.not_computed["utility.dice_gain"] == "not part of this evaluation"


def judged(data: Volumes, *found: UtilityScores) -> Any:
    evidence = Evidence(data.synthetic, data.real, data.test, "phantoms", labels=data.labels, utility=found)
    return judge(evidence, only=("utility",))


def test_tables_with_a_known_gain_reach_the_report() -> None:
    rng = np.random.default_rng(4)
    config = UtilityConfig(fractions=(0.1, 1.0), arms=("R", "S", "RS"))
    level = {"R": 0.70, "RS": 0.75, "S": 0.55}
    base = rng.normal(0, 0.05, 30)

    def result(job: Job) -> Result:
        added = 0.05 if job.fraction == 1.0 else 0.0
        rows = []
        for case in range(30):
            dices = level[job.arm] + added + base[case] + rng.normal(0, 0.01)
            row = {"case": f"c{case}", "patient": f"p{case}", "dice": [dices], "nsd": [0.5], "hd95": [1.0]}
            rows.append(row | {"ece": [None], "brier": [0.1], "crps": [0.2]})
        return Result(job, 3, 5, 1e-3, tuple(rows))

    scored = UtilityScores(config, tuple(result(job) for job in config.jobs()), ("lesion",))
    assert table(results_of(scored, "R", (0.1, 0.0)), measure("ece")) is None
    report = judged(volumes(), scored)
    assert report.verdicts["utility"].ok is True and report.verdicts["utility"].why.startswith("gain")
    assert report.metrics["utility.dice_gain"].value == pytest.approx(0.05, abs=0.01)
    assert report.metrics["utility.p_holm.RS_R"].value < 0.01
    assert "utility.dice_gain.real100" in report.metrics and "utility.dice.S.real100" not in report.metrics
    only = report.metrics["utility.synthetic_only"]
    assert only.value == pytest.approx(0.55 / 0.75, abs=0.02), "against the real arm at the largest fraction"
    assert report.verdicts["synthetic_only"].ok is False
    assert not any("the real arm itself" in note for note in report.notes)
    rows = [tuple({**row, "dice": [0.3]} for row in one.rows) for one in scored.results]
    low = replace(scored, results=tuple(replace(one, rows=row) for one, row in zip(scored.results, rows, strict=True)))
    assert any("the real arm itself scores 0.30" in note for note in judged(volumes(), low).notes)
    dots, curves = (chart for family, chart in report.charts if family == "utility")
    assert [row[0] for row in dots.rows] == ["R", "S", "RS"] and [x for x, _ in curves.lines["RS"]] == [0.1, 1.0]
    few = replace(scored, results=tuple(replace(one, rows=one.rows[:4]) for one in scored.results))
    assert "4 test patients" in judged(volumes(), few).not_computed["utility.dice_gain"]


def test_what_was_not_asked_or_cannot_be_is_said() -> None:
    data = volumes()
    assert judged(data).not_computed["utility.dice_gain"] == "not part of this evaluation"
    one = UtilityScores(SMALL, (), why_not="one patient only")
    assert judged(data, one).not_computed["utility.dice_gain"] == "one patient only"
    assert compared({}, None, seed=0) == {}
