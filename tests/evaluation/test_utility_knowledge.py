"""What a utility report says beside its gains: whom the generator knew, other scores, lesions in fixed sizes."""

import json
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch

from evaluation.evidence import Evidence
from evaluation.judge import judge
from evaluation.report import Report
from evaluation.utility.arms import Known, sides
from evaluation.utility.config import ARMS, Job, UtilityConfig
from evaluation.utility.knowledge import knowledge_of
from evaluation.utility.run import Result, UtilityScores, check, collected, work_of
from evaluation.utility.score import score
from evaluation.utility.tables import LEAST_LESIONS, further, lesions_of, measure, size_bins
from evaluation.utility.train import train
from synth.errors import DataError
from tests.evaluation.test_utility import volumes

SIZES = (0.0123457, 0.345678, 2.34567)
"""Exact sizes of the lesions of every case."""


def result(job: Job, *, better: float = 0.0, cases: int = 12) -> Result:
    """Rows of a network whose every score is better by `better`; R + S finds small lesions too."""
    rng = np.random.default_rng(job.seed)
    rows = []
    for case in range(cases):
        change = better + rng.normal(0, 0.005)
        row: dict[str, Any] = {"case": f"c{case}", "patient": f"p{case}"}
        values = {"dice": 0.6 + change, "nsd": 0.7 + change, "hd95": 9.0 - 20 * change}
        values |= {"ece": 0.2 - change, "brier": 0.2 - change, "crps": 0.5 - change}
        row |= {name: [value, value] for name, value in values.items()} | {"false_lesions": 1}
        rows.append(row | {"lesions": [[size, size > 0.1 or job.arm == "RS"] for size in SIZES]})
    return Result(job, 3, 5, 1e-2, tuple(rows))


def scored(config: UtilityConfig, known: Known | None = None) -> UtilityScores:
    data = replace(volumes(), generator=known or Known())
    jobs, left_out = check(data, config)
    added = {"RS": 0.05, "S": 0.01}
    found = [result(job, better=added.get(job.arm, 0.0) + (0.1 if job.fraction == 1.0 else 0.0)) for job in jobs]
    return collected(found, data, config, left_out)


def judged(scores: UtilityScores) -> Report:
    data = volumes()
    evidence = Evidence(data.synthetic, data.real, data.test, "phantoms", labels=data.labels, utility=[scores])
    return judge(evidence, only=("utility",))


def everyone() -> frozenset[str]:
    return frozenset(item.whose for item in volumes().real)


def test_a_generator_of_more_patients_than_the_segmenter_is_called_mixed() -> None:
    config = UtilityConfig(fractions=(0.5,), arms=("R", "RS", "G"))
    report = judged(scored(config, Known(everyone(), chose=3)))
    short = "the segmenter got 2 real patients, the generator 4"
    assert report.verdicts["utility"].why.endswith(f"{short} (mixed, see the notes)")
    assert short in report.metrics["utility.dice_gain"].unit and short in report.metrics["utility.dice.RS"].unit
    assert short not in report.metrics["utility.dice.R"].unit, "R has nothing of the generator"
    (note,) = (note for note in report.notes if "mixed" in note)
    assert "at 50 % of the real training patients" in note and "2 patients that the segmenter did not get" in note
    assert "(3 other cases chose its checkpoint)" in note and "Read R + S beside G" in note


def test_the_ceiling_is_real_volumes_of_all_patients_at_equal_steps_and_trained_once() -> None:
    config = UtilityConfig(fractions=(0.5, 1.0), arms=("R", "RS", "G"), seeds=(0, 1))
    assert config.job("G", 0.5, 0.0, 1) == config.job("R", 1.0, 0.0, 1)
    assert len(config.jobs()) == 2 * (2 + 2)
    assert {item.whose for item in sides(config.job("G", 0.5, 0.0, 0), volumes(), config).train} == everyone()
    report = judged(scored(config))
    assert report.metrics["utility.dice.G"].value == pytest.approx(0.7, abs=0.01)
    assert report.metrics["utility.dice_gain.RS_G"].value == pytest.approx(-0.05, abs=0.01)
    assert "utility.dice_gain.RS_G.real100" not in report.metrics, "there R is G itself"


def test_a_copying_generator_is_the_ceiling_of_the_synthetic_arm() -> None:
    report = judged(scored(UtilityConfig(fractions=(0.5,), arms=("R", "S", "RS", "T", "RT", "G"))))
    assert report.metrics["utility.dice_gain.S_T"].value == pytest.approx(0.01, abs=0.005)
    assert report.metrics["utility.dice_gain.RS_RT"].value == pytest.approx(0.05, abs=0.005)
    only = report.metrics["utility.synthetic_only"]
    assert only.value == pytest.approx(0.61 / 0.7, abs=0.02), "S against all real patients, beside S against T"
    assert "synthetic_only" in report.verdicts


def test_a_generator_of_exactly_the_segmenters_patients_is_called_clean() -> None:
    report = judged(scored(UtilityConfig(arms=("R", "RS")), Known(everyone())))
    assert report.verdicts["utility"].why.endswith("the segmenter got 4 real patients, the generator 4 (clean)")
    assert any("clean, the generator was trained on exactly those patients" in note for note in report.notes)


@pytest.mark.parametrize(
    ("known", "clean", "said"),
    [
        (Known(), None, "that they are the same is not recorded with the set"),
        (Known(frozenset({"p0"})), True, "some of those patients and no other"),
        (Known(frozenset({"p0"}), elsewhere="50 cases of another data"), False, "50 cases of another data"),
    ],
)
def test_what_is_recorded_decides_what_is_called_clean(known: Known, clean: bool | None, said: str) -> None:
    (one,) = knowledge_of(replace(volumes(), generator=known), (1.0,), (0, 1))
    assert one.clean is clean and said in one.words


def test_an_unrecorded_generator_is_taken_for_one_of_all_patients() -> None:
    first, second = knowledge_of(volumes(), (0.5, 1.0), (0, 1, 2))
    assert (first.got, first.generator, first.more, first.clean) == (2, 4, 2, False) and "as claimed" in first.words
    assert (second.more, second.clean) == (0, None)


def test_cells_that_lack_volumes_are_told_and_the_others_run() -> None:
    report = judged(scored(UtilityConfig(arms=("R", "RS"), fractions=(0.5, 1.0), ratios=(2.0, 0.5))))
    assert {name for name in report.not_computed if name.startswith("utility.dice_gain")} == {
        "utility.dice_gain.real50_ratio2",
        "utility.dice_gain.real100_ratio2",
    }
    assert "needs 16 synthetic ones" in report.not_computed["utility.dice_gain.real100_ratio2"]
    assert "utility.dice_gain" in report.metrics and "utility.dice_gain.real100_ratio0.5" in report.metrics


def test_curves_are_drawn_over_shares_and_over_ratios() -> None:
    report = judged(scored(UtilityConfig(arms=("R", "RS"), fractions=(0.5, 1.0), ratios=(0.25, 0.5))))
    titles = [chart.title for family, chart in report.charts if family == "utility"]
    assert len(titles) == 3 and "share of real training" in titles[1] and "synthetic to real" in titles[2]


def test_every_further_score_is_compared_and_better_is_above_zero() -> None:
    scores = scored(UtilityConfig(arms=("R", "RS")))
    report = judged(scores)
    for name in ("nsd", "hd95", "ece", "brier", "crps"):
        figure = report.metrics[f"utility.{name}_gain"]
        assert figure.value > 0 and figure.interval is not None and figure.interval[0] > 0, name
        assert f"utility.{name}.R" in report.metrics
    assert report.metrics["utility.hd95_gain"].unit.startswith("mm, R - RS")
    small = report.metrics["utility.detection_gain.small"]
    assert small.value == 1.0 and small.n == 12
    found = further(scores, (1.0, 0.0), "RS", "R", seed=0)
    assert all(one.p <= one.p_holm <= 1 for one in found.values()) and len(found) == 8
    assert further(scores, (1.0, 0.0), "RSA", "R", seed=0) == {}


def test_lesions_of_few_patients_cost_no_other_figure() -> None:
    scores = scored(UtilityConfig(arms=("R", "RS")))

    def few(row: Any) -> Any:
        return row if row["case"] in ("c0", "c1", "c2", "c3") else {**row, "lesions": []}

    rows = tuple(replace(one, rows=tuple(few(row) for row in one.rows)) for one in scores.results)
    report = judged(replace(scores, results=rows))
    assert report.not_computed["utility.detection_gain.any"] == "fewer than 5 test patients have such lesions"
    assert report.metrics["utility.detection.R.any"].interval is None and "utility.nsd_gain" in report.metrics
    assert "utility" in report.verdicts and "utility.dice_gain" not in report.not_computed


def test_exact_sizes_of_lesions_stay_inside() -> None:
    report = judged(scored(UtilityConfig(arms=("R", "RS"))))
    shared = json.dumps(report.plain())
    for size in SIZES:
        assert f"{size:g}"[:6] not in shared
    assert "of 0.1 to 1 cm^2 found" in report.metrics["utility.detection.R.medium"].unit
    inside = report.internal["utility-lesions.csv"].splitlines()
    assert len(inside) == 1 + 2 * 12 * len(SIZES) and inside[1] == "R,c0#0,p0,0.0123457,0"


def test_sizes_with_few_lesions_are_put_together() -> None:
    assert size_bins([0.05] * 5 + [0.5] * 5 + [5.0] * 5 + [50.0] * 5) == {
        "small": (0.0, 0.1),
        "medium": (0.1, 1.0),
        "large": (1.0, 10.0),
        "huge": (10.0, float("inf")),
    }
    assert size_bins([30.0]) == {"any": (0.0, float("inf"))}
    rng = np.random.default_rng(0)
    for _ in range(50):
        sizes = rng.lognormal(0, 3, int(rng.integers(1, 40)))
        bins = size_bins(sizes.tolist())
        counts = [int(((sizes >= low) & (sizes < high)).sum()) for low, high in bins.values()]
        assert sum(counts) == len(sizes) and (len(counts) == 1 or min(counts) >= LEAST_LESIONS)


def test_seeds_that_counted_other_lesions_are_refused() -> None:
    one = result(Job(task="segmentation", arm="R", fraction=1.0, ratio=-1.0, seed=0))
    other = replace(one, rows=tuple({**row, "lesions": [[9.0, True]] * 3} for row in one.rows))
    with pytest.raises(DataError, match="other lesions"):
        lesions_of([one, other])
    assert lesions_of([replace(one, rows=())]) is None


def test_ratios_take_as_many_as_asked_or_say_what_is_missing() -> None:
    data = volumes()
    config = UtilityConfig(ratios=(2.0, 0.5, 1.0), fractions=(0.5,))
    assert [sides(config.job("RS", 0.5, r, 1), data, config).synthetic for r in (0.5, 1.0)] == [2, 4]
    jobs, left_out = check(data, config)
    said = "ratio 2 to 4 real volumes needs 8 synthetic ones, there are 6"
    assert list(left_out) == [(0.5, 2.0)] and left_out[0.5, 2.0].startswith(said)
    assert {job.ratio for job in jobs} == {-1.0, 0.5, 1.0}, "the other cells are run"
    with pytest.raises(DataError, match=said):
        check(data, replace(config, ratios=(2.0,)))


def test_tuning_patients_are_real_and_apart_from_training_and_test() -> None:
    data = volumes()
    config = UtilityConfig(rates=(1e-3, 3e-3), arms=tuple(ARMS))
    for arm in ARMS:
        own = sides(config.job(arm, 1.0, 0.0, 0), data, config)
        tuned = {item.whose for item in own.tune}
        assert tuned and not tuned & {item.whose for item in own.rehearsal}
        assert not tuned & {item.whose for item in data.test}
        assert own.train == sides(config.job(arm, 1.0, 0.0, 0), data, UtilityConfig()).train, "none is lost to tuning"
    few = sides(config.job("R", 0.5, 0.0, 0), data, config)
    assert {item.whose for item in few.tune} < {item.whose for item in few.train}, "those of the fraction alone"
    with pytest.raises(DataError, match="1 real patients are too few to tune"):
        sides(config.job("R", 0.25, 0.0, 0), data, config)


def test_rates_are_compared_for_a_third_of_the_steps_on_training_patients_alone() -> None:
    config = UtilityConfig(arms=("R",), seeds=(0,), steps=60, width=8, blocks=False, rates=(1e-6, 1e-2))
    data, job = volumes(), config.job("R", 1.0, 0.0, 0)
    blank = replace(data, test=[replace(item, mask=0 * item.mask) for item in data.test])
    counted: list[int] = []
    rates = [
        train(job, sides(job, given, config), given, config, tell=lambda: counted.append(1))[1]
        for given in (data, blank)
    ]
    assert rates == [1e-2, 1e-2], "a rate that learns nothing is not taken, whatever the test volumes are"
    assert len(counted) == 2 * (60 + 2 * 20) == 2 * (work_of(data, config) - len(data.test))


def test_few_seeds_and_tuning_are_said_in_the_plan() -> None:
    report = judged(scored(UtilityConfig(arms=("R", "RS"), seeds=(0,), rates=(1e-3, 1e-2))))
    (plan,) = (note for note in report.notes if "DynUNet" in note)
    assert "1 seeds, fewer than the 3" in plan and "best of 2 learning rates" in plan
    (plain,) = (note for note in judged(scored(UtilityConfig(arms=("R", "RS")))).notes if "DynUNet" in note)
    assert "learning rate 0.01, not tuned" in plain and "fewer" not in plain


def test_networks_to_which_further_real_patients_are_worth_nothing_show_no_missing_gain() -> None:
    """R + S gains nothing; that is a finding only where the other real patients would have gained something."""
    data = volumes()
    config = UtilityConfig(fractions=(0.5,), arms=("R", "RS", "G"))
    jobs, left_out = check(data, config)
    for ceiling, ok, said in (
        (0.1, False, "no gain of 0.01"),
        (0.0, None, "further real patients show no gain either"),
    ):
        found = [result(job, better=ceiling if job.fraction == 1.0 else 0.0, cases=200) for job in jobs]
        report = judged(collected(found, data, config, left_out))
        verdict = report.verdicts["utility"]
        assert verdict.ok is ok and said in verdict.why, verdict
        assert report.metrics["utility.dice_gain.G_R"].value == pytest.approx(ceiling, abs=0.01)
    gained = judged(scored(config)).verdicts["utility"]
    assert gained.ok is True, "a gain that is shown needs no ceiling"


class _Blank:
    """Finds nothing anywhere."""

    def __call__(self, pixels: Any) -> Any:
        scores = torch.zeros(1, 3, *pixels.shape[2:])
        scores[:, 0] = 1.0
        return scores


def test_finding_nothing_earns_nothing_where_there_is_nothing() -> None:
    data, config = volumes(), UtilityConfig()
    item = data.test[0]
    assert len(data.labels) == 2
    without = replace(item, mask=np.where(item.mask == 2, 0, item.mask))
    row = score(cast("Any", _Blank()), without, data, config)
    assert row["dice"] == [0.0, None] and row["nsd"] == [0.0, None] and row["hd95"][1] is None
    assert measure("dice")(row) == 0.0 and np.isnan(measure("dice", 1)(row))
    empty = score(cast("Any", _Blank()), replace(item, mask=0 * item.mask), data, config)
    assert np.isnan(measure("dice")(empty)), "a case without any label is left out"
