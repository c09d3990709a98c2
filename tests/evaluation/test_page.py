"""The page: what it shows first, what a shared page may not hold, charts of odd numbers."""

import re
from xml.etree import ElementTree

import pytest

from evaluation.charts import Curves, Dots, Histogram, svg, ticks
from evaluation.page import page
from evaluation.report import Figure, Report, Verdict


def report() -> Report:
    made = Report("phantoms <b>")
    made.metrics["privacy.copy_test"] = Figure(0.1, 10, "lower", "share", (0.0, 0.3), 0.0)
    made.verdicts = {"a": Verdict(True, "good"), "b": Verdict(False, "bad"), "c": Verdict(None, "too few")}
    made.not_computed["fidelity.frechet"] = "3 < 50"
    made.samples = [{"case": "syn_zero", "flagged": False}, {"case": "syn_one", "flagged": True}]
    made.subgroups = [{"attribute": "contrast", "level": "T1", "value": 0.5, "interval": [0.4, 0.6]}]
    return made


def test_failures_come_first_and_text_is_escaped() -> None:
    text = page(report(), with_real=False)
    marks = re.findall(r"<b>(FAIL|UNDECIDABLE|PASS)</b>", text)
    assert marks == ["FAIL", "UNDECIDABLE", "PASS"]
    assert "phantoms &lt;b&gt;" in text and "3 &lt; 50" in text
    assert "1 of 2 are flagged" in text and "syn_one" in text and "syn_zero" not in text
    assert "0.4 to 0.6" in text
    assert "http" not in text and "<script" not in text


def test_samples_that_were_not_judged_are_not_called_clean() -> None:
    made = report()
    made.samples = [{"case": f"syn_{n}", "flagged": None, "agreement": 0.5 + n / 10} for n in range(3)]
    text = page(made, with_real=False)
    assert "Whether they are copies was not judged; shown are the least agreeing" in text and "are flagged" not in text
    assert "<th>flagged</th>" not in text and "<th>agreement</th>" in text and "syn_2" in text


def test_a_figure_without_a_better_way_says_so() -> None:
    made = report()
    assert "near the floor" not in page(made, with_real=False) and "&darr; lower" in page(made, with_real=False)
    made.metrics["fidelity.ssim"] = Figure(0.5, 8, "", floor=0.4)
    assert "near the floor" in page(made, with_real=False)
    made.metrics["fidelity.ssim"] = Figure(0.5, 8, "")
    assert "near the floor" not in page(made, with_real=False), "there is none"


def test_real_pictures_are_for_inside_alone() -> None:
    made = report()
    made.pictures = [("synthetic", b"one", False), ("real", b"two", True)]
    assert page(made, with_real=False).count("<img") == 1
    assert page(made, with_real=True).count("<img") == 2


@pytest.mark.parametrize(
    "chart",
    [
        Dots("one & <two>", [("a<b", 1.0, None, None), ("c", 1.0, (0.5, 2.0), 0.7)]),
        Dots("alone", [("zero", 0.0, None, None)]),
        Histogram("h", "mm", {"one": [1.0], "two": [1.0, 1.0], "none": []}),
        Histogram("h", "mm", {"one": [-3.0, 2e6]}),
        Curves("c", "x", "y", {"a": [(0.0, 0.0), (1.0, 1e-9)], "b": [(0.5, 3.0)]}, {"a": [(0.0, -1.0, 1.0)]}, True),
    ],
)
def test_charts_are_well_formed_and_inside_their_frame(chart: Dots | Histogram | Curves) -> None:
    drawn = svg(chart)
    root = ElementTree.fromstring(drawn)
    assert root.get("aria-label") == chart.title
    _, _, width, height = (float(v) for v in str(root.get("viewBox")).split())
    for dot in root.iter("circle"):
        assert 0 <= float(str(dot.get("cx"))) <= width and 0 <= float(str(dot.get("cy"))) <= height
    for shape in (*root.iter("polygon"), *root.iter("polyline")):
        for point in str(shape.get("points")).split():
            x, y = (float(v) for v in point.split(","))
            assert 0 <= x <= width and 0 <= y <= height
    assert "nan" not in drawn and "inf" not in drawn
    assert svg(chart) == drawn


def test_ticks_are_round_and_within() -> None:
    for low, high in ((0.0, 1.0), (-3.2, 17.0), (1e-6, 5e-6), (1234.0, 1235.0)):
        found = ticks(low, high)
        assert 2 <= len(found) <= 7
        assert low <= found[0] and found[-1] <= high
