"""Alignment, condition, calibration and subgroups on phantoms: what is right passes, what is planted is found."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from evaluation.charts import Curves
from evaluation.evidence import Bench, Evidence, Judged
from evaluation.functional.statistics import mean_interval, simultaneous_gap
from evaluation.judge import judge
from evaluation.report import Report
from evaluation.sections.alignment import NON_INFERIORITY, _bounds, _drawn, _non_inferiority
from evaluation.segmented import segmented
from synth.errors import ConfigError
from tests.conftest import phantom

GRID = (16, 18, 20)
SPACING = (2.0, 2.0, 2.0)
SECTIONS = ("alignment", "condition", "calibration", "subgroups")


class Stated:
    """A segmenter of phantoms that states probabilities: sure of its labels to a degree; counts its looks."""

    config = SimpleNamespace(labels=("shell", "core"), attribute="kind", classes=("a", "b"))

    def __init__(self, sure: float = 0.95) -> None:
        self.sure, self.looks = sure, 0

    def probabilities(self, image: np.ndarray) -> tuple[np.ndarray, str]:
        self.looks += 1
        found = (image[0] > 0.25).astype(int) + (image[0] > 0.75)
        shares = np.full((3, *found.shape), (1 - self.sure) / 2)
        np.put_along_axis(shares, found[None], self.sure, axis=0)
        return shares, "a" if image[0].max() < 1.5 else "b"

    def label(self, image: np.ndarray) -> tuple[np.ndarray, str]:
        shares, name = self.probabilities(image)
        return shares.argmax(axis=0).astype(np.uint8), name


def items(first: int, count: int, **attributes: Any) -> list[Judged]:
    out = []
    for index in range(first, first + count):
        image, mask = phantom(index, GRID)
        volume = float((mask == 2).sum()) * np.prod(SPACING) / 1000
        told = {"kind": "a", "core_volume_ml": volume, "core_count": 1, **attributes}
        out.append(Judged(f"c{index}", image[None] / 800.0, mask, "a", attributes=told))
    return out


def bench(**settings: Any) -> Bench:
    return Bench(cast("Any", Stated(**settings)), [{"shell": 1.0, "core": 1.0}] * 8)


def judged(made: list[Judged], **changes: Any) -> Report:
    told: dict[str, Any] = {"holdout": items(40, 8), "population": "phantoms", "labels": ("shell", "core")}
    return judge(Evidence(made, [], **{**told, "spacing_mm": SPACING, "bench": bench(), **changes}), only=SECTIONS)


def with_masks(made: list[Judged], change: Any) -> list[Judged]:
    return [replace(item, mask=change(item.mask)) for item in made]


def eroded(mask: np.ndarray) -> np.ndarray:
    return np.where(np.roll(mask, 1, axis=0) == mask, mask, 0).astype(mask.dtype)


@pytest.fixture(scope="module")
def right() -> Report:
    return judged(items(0, 10))


def test_right_pairs_are_shown_not_inferior(right: Report) -> None:
    verdict = right.verdicts["alignment"]
    assert verdict.ok is True and "lower 95 % bound" in verdict.why and "phantoms" in verdict.why
    for label in ("shell", "core"):
        assert right.metrics[f"alignment.nsd.{label}"].value > 0.99
        assert right.metrics[f"alignment.hd95.{label}"].value < 1.0
        assert right.metrics[f"alignment.hd95.{label}"].floor is not None
        assert right.metrics[f"alignment.dice.{label}"].interval is not None


@pytest.mark.parametrize(
    ("values", "n", "ok", "said"),
    [
        ((0.97, 0.01), 20, True, "is not below"),
        ((0.80, 0.01), 20, False, "upper 95 % bound"),
        ((0.96, 0.03), 20, None, "undecidable with 20 samples"),
        ((0.94, 0.03), 20, None, "20 held-out patients, about"),
        ((0.951, 0.03), 20, None, "more than 1000"),
        ((0.955, 0.01), 200, False, "not shown"),
    ],
)
def test_the_margin_is_judged_by_the_interval(values: tuple[float, float], n: int, ok: bool | None, said: str) -> None:
    ratio, spread = values
    verdict = _non_inferiority(ratio, (ratio - 1.645 * spread, ratio + 1.645 * spread), (n, n), "phantoms")
    assert verdict.ok is ok and said in verdict.why


def test_few_held_out_patients_leave_the_verdict_open_however_many_samples() -> None:
    verdict = _non_inferiority(0.955, (0.90, 1.0), (500, 12), "phantoms")
    assert verdict.ok is None and "500 samples and 12 held-out patients" in verdict.why


def test_a_set_at_the_margin_is_seldom_taken_for_better() -> None:
    """True agreement is the margin itself: the lower bound lies above it in about 5 % of sets of 12."""
    passed = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        held, rows = (rng.normal(mean, 0.06, size=(12, 2)) for mean in (0.85, 0.85 * NON_INFERIORITY))
        drawn = _drawn(rows, held, seed)
        assert drawn is not None
        passed += _bounds(drawn, 0.05, 12)[0] >= NON_INFERIORITY
    assert passed <= 8


def test_intervals_cover_at_small_n() -> None:
    rng = np.random.default_rng(0)
    covered, excluded = [], []
    for seed in range(150):
        interval = mean_interval(rng.normal(size=8), seed=seed)
        assert interval is not None
        covered.append(interval[0] <= 0 <= interval[1])
        for count, size in ((3, 8), (12, 5)):
            groups = [rng.normal(size=size) for _ in range(count)]
            means = [group.mean() for group in groups]
            low, _ = simultaneous_gap(groups, (int(np.argmax(means)), int(np.argmin(means))))
            excluded.append(low > 0)
    assert np.mean(covered) >= 0.9 and np.mean(excluded) <= 0.08


def test_too_few_samples_leave_the_verdict_open() -> None:
    report = judged(items(0, 3))
    assert report.verdicts["alignment"].ok is None and "it takes 5 of each" in report.verdicts["alignment"].why
    assert report.metrics["alignment.agreement"].interval is None


def test_a_segmenter_known_from_few_hold_outs_widens_the_interval() -> None:
    """The floor's own spread counts: with hold-outs that differ, the interval is wider than with steady ones."""
    made, held = items(0, 10), items(40, 8)
    uneven = [replace(item, mask=eroded(item.mask)) if n % 2 else item for n, item in enumerate(held)]
    widths = []
    for side in (held, uneven):
        interval = judged(made, holdout=side).metrics["alignment.agreement"].interval
        assert interval is not None
        widths.append(interval[1] - interval[0])
    assert widths[1] > 2 * widths[0]


def test_a_structure_that_is_missed_costs_the_diagonal() -> None:
    blind = [replace(item, image=np.minimum(item.image, 0.7)) for item in items(0, 6)]
    report = judged(blind)
    diagonal = float(np.linalg.norm(np.array(GRID) * np.array(SPACING)))
    assert report.metrics["alignment.hd95.core"].value == pytest.approx(diagonal, rel=0.02)
    assert report.metrics["alignment.nsd.core"].value < 0.02
    assert report.verdicts["alignment"].ok is False


def test_edges_lie_at_boundaries_and_not_at_those_of_shifted_masks(right: Report) -> None:
    value, control = right.metrics["alignment.boundary"], right.metrics["alignment.boundary_shifted"]
    assert value.value > 2 > control.value and value.floor == pytest.approx(value.value, rel=0.2)
    off = judged(with_masks(items(0, 10), lambda mask: np.roll(mask, 2, axis=1)))
    assert off.metrics["alignment.boundary"].value < 0.7 * value.value


def test_anatomy_of_the_same_population_is_as_chance_has_it_and_planted_changes_are_not(right: Report) -> None:
    small = judged(with_masks(items(0, 10), lambda mask: np.where(mask == 2, 1, mask).astype(np.uint8)))
    assert small.metrics["alignment.volume.core"].value > 3 * (small.metrics["alignment.volume.core"].floor or 0)
    assert "p = 0.001" in small.metrics["alignment.volume.core"].unit
    assert small.metrics["alignment.adjacency"].value > 2 * right.metrics["alignment.adjacency"].value
    assert "alignment.intensity.core" in small.not_computed, "no sample holds it"
    bright = judged([replace(item, image=1.2 * item.image) for item in items(0, 10)])
    assert bright.metrics["alignment.intensity.shell"].value > 5 * right.metrics["alignment.intensity.shell"].value
    holed = judged(with_masks(items(0, 10), lambda mask: np.where(np.arange(mask.size).reshape(GRID) % 97, mask, 0)))
    assert holed.metrics["alignment.topology"].value > 3 * right.metrics["alignment.topology"].value
    for name in ("alignment.volume.core", "alignment.volume.shell", "alignment.intensity.shell"):
        assert right.metrics[name].value < 3 * (right.metrics[name].floor or 0)


def test_without_hold_out_anatomy_is_not_computed_and_says_so() -> None:
    report = judged(items(0, 6), holdout=[])
    assert "needs 5 of each" in report.not_computed["alignment.volume.core"]
    assert report.metrics["alignment.boundary"].floor is None


def test_calibration_stands_beside_hold_out(right: Report) -> None:
    for family in ("ece_roi", "brier", "volume_crps"):
        figure = right.metrics[f"calibration.{family}"]
        assert figure.n == 10 and figure.floor is not None and figure.interval is not None
        assert figure.value == pytest.approx(figure.floor, rel=0.3)
    same, over = (judged(made, bench=bench(sure=0.999)) for made in (items(0, 10), with_masks(items(0, 10), eroded)))
    assert over.metrics["calibration.ece_roi"].value > 5 * same.metrics["calibration.ece_roi"].value
    assert over.metrics["calibration.volume_crps"].value > right.metrics["calibration.volume_crps"].value


def test_calibration_error_by_hand(right: Report) -> None:
    """All of its labels are right and 0.95 is stated: the error is 0.05."""
    clean = [replace(item, image=np.choose(item.mask, [0.0, 0.5, 1.0])[None]) for item in items(0, 6)]
    report = judged(clean)
    assert report.metrics["calibration.ece_roi"].value == pytest.approx(0.05)
    assert report.metrics["calibration.brier"].value == pytest.approx(0.05**2 + 2 * 0.025**2)


def test_a_segmenter_of_labels_only_gives_no_calibration() -> None:
    class Plain:
        config = Stated.config

        def label(self, image: np.ndarray) -> tuple[np.ndarray, str]:
            return Stated().label(image)

    report = judged(items(0, 6), bench=Bench(cast("Any", Plain()), [{"shell": 1.0, "core": 1.0}] * 8))
    assert "labels only" in report.not_computed["calibration.ece_roi"]
    assert report.verdicts["alignment"].ok is True


def test_every_volume_is_segmented_once() -> None:
    one = bench()
    judged(items(0, 6), bench=one)
    assert cast("Any", one.segmenter).looks == 6 + 8
    many = Evidence(items(0, 1), [], items(0, 60), "phantoms", bench=bench())
    assert len(segmented(many, lambda _: None).holdout) == 48


def test_numbers_asked_for_are_measured_on_the_mask(right: Report) -> None:
    for name in ("core_volume_ml", "core_count"):
        figure = right.metrics[f"condition.{name}"]
        assert figure.value == pytest.approx(0.0, abs=1e-12) and figure.floor == pytest.approx(0.0, abs=1e-12)
    assert right.metrics["condition.core_volume_ml.rank"].value == pytest.approx(1.0)
    off = [
        replace(
            item,
            attributes={**item.attributes, "core_volume_ml": 0.5 + cast("float", item.attributes["core_volume_ml"])},
        )
        for item in items(0, 6, age=3)
    ]
    report = judged(off)
    assert report.metrics["condition.core_volume_ml"].value == pytest.approx(0.5)
    assert "its name" in report.not_computed["condition.age"]


def test_classes_and_words_of_the_prompt_are_checked() -> None:
    texts = ["A, two cores", "b scan, no core", "kind a or b", "a shell", "", None]
    made = [replace(item, text=text, asked="a") for item, text in zip(items(0, 6), texts, strict=True)]
    report = judged(made, holdout=[*items(40, 7), *items(50, 1, kind="b", site="north")])
    assert report.metrics["condition.class"].interval == pytest.approx((0.541, 1.0), abs=1e-3), "exact, not (1, 1)"
    said = report.metrics["condition.text.kind"]
    assert (said.value, said.n) == (pytest.approx(2 / 3), 3), "of the first, second and fourth; the third names both"
    assert (report.metrics["condition.text.core"].value, report.metrics["condition.text.core"].n) == (0.5, 2)
    assert report.metrics["condition.text.shell"].value == 1.0
    north = [replace(item, text="the north scan") for item in made]
    report = judged(north, holdout=items(50, 8, site="north"))
    assert "no classifier" in report.not_computed["condition.text.site"]


def test_size_and_spacing_are_compared_where_both_are_known(right: Report) -> None:
    assert not {"condition.size", "condition.spacing"} & set(right.metrics)
    made = items(0, 2)
    made[0] = replace(made[0], native_grid=(8, 8, 8), asked_grid=(8, 8, 8))
    made[1] = replace(made[1], native_grid=(8, 8, 8), asked_grid=(8, 8, 9))
    spaced = {"native_spacing_mm": (1.0, 1.0, 2.5), "asked_spacing_mm": (1.0, 1.0, 2.0)}
    report = judged([replace(item, **spaced) for item in made])
    assert report.metrics["condition.size"].value == 0.5
    assert report.metrics["condition.spacing"].value == pytest.approx(0.5)


def test_a_level_that_does_worse_is_found_and_chance_is_its_floor() -> None:
    good, bad = items(0, 8, site="north"), with_masks(items(8, 8, site="south"), eroded)
    report = judged([*good, *bad], holdout=[])
    gap = report.metrics["alignment.gap.site"]
    assert gap.interval is not None and gap.floor is not None
    assert gap.value > 3 * gap.floor and 0 < gap.interval[0] < gap.value < gap.interval[1]
    assert "best (north) less worst (south)" in gap.unit and "p = 0.001" in gap.unit
    rows = {(row["level"], row["figure"]): row for row in report.subgroups if row["attribute"] == "site"}
    assert {figure for _, figure in rows} >= {
        "alignment.agreement",
        "alignment.dice.core",
        "alignment.hd95.core",
        "calibration.ece_roi",
    }
    values = [cast("float", rows[level, "alignment.agreement"]["value"]) for level in ("north", "south")]
    assert values[0] - values[1] == pytest.approx(gap.value, abs=1e-5)
    assert all(row["n"] == 8 and row["interval"] for row in rows.values())
    assert cast("dict[str, Any]", report.plain())["subgroups"] == report.subgroups


def test_numbers_are_divided_in_thirds_and_even_levels_show_no_gap(right: Report) -> None:
    levels = {row["level"]: row["n"] for row in right.subgroups if row["attribute"] == "core_volume_ml"}
    assert len(levels) == 3 and sum(cast("int", n) for n in levels.values()) == 10
    assert "one level only" in right.not_computed["alignment.gap.kind"]
    assert "5 samples" in right.not_computed["alignment.gap.core_volume_ml"]
    uneven = [replace(item, mask=eroded(item.mask)) if n % 2 else item for n, item in enumerate(items(0, 18))]
    gap = judged(uneven, holdout=[]).metrics["alignment.gap.core_volume_ml"]
    assert gap.interval is not None and gap.interval[0] < 0 < gap.value <= 3 * (gap.floor or 0)


def test_pictures_in_2d_with_several_channels_are_judged_too() -> None:
    def flat(first: int) -> list[Judged]:
        pairs = [phantom(index, (26, 30)) for index in range(first, first + 6)]
        told: dict[str, Any] = {"core_volume_ml": 1.0, "core_count": 1, "site": "north"}
        return [
            Judged(f"c{n}", np.stack([image, 800 - image]) / 800.0, mask, "a", attributes=told)
            for n, (image, mask) in enumerate(pairs)
        ]

    report = judged(flat(0), holdout=flat(10), spacing_mm=(1.0, 2.0))
    assert report.verdicts["alignment"].ok is True
    assert {"alignment.boundary", "alignment.volume.core", "calibration.volume_crps"} <= set(report.metrics)
    assert report.metrics["condition.core_count"].value == 0.0
    assert "no volume" in report.not_computed["condition.core_volume_ml"]


def test_sections_are_asked_for_by_name() -> None:
    report = judge(Evidence(items(0, 5), [], items(20, 5), "phantoms", bench=bench()), only=["calibration"])
    assert {name.split(".")[0] for name in report.metrics} == {"calibration"}
    with pytest.raises(ConfigError, match="did you mean 'calibration'"):
        judge(Evidence(items(0, 1), [], [], "phantoms"), only=["calibratoin"])


def test_reliability_is_drawn_of_both_sides() -> None:
    report = judged(items(0, 6), holdout=items(40, 10), bench=bench(sure=0.7))
    (chart,) = [chart for family, chart in report.charts if family == "calibration"]
    assert isinstance(chart, Curves) and chart.diagonal and set(chart.lines) == {"synthetic", "held out"}
    for line in chart.lines.values():
        assert [at for at, _ in line] == pytest.approx([0.7]) and [right for _, right in line] == pytest.approx([1.0])
