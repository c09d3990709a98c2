"""Two reports side by side: refused where they rest on different things, intervals against a simulation."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.compare import compare
from evaluation.page import page
from evaluation.report import Figure, Report
from pipelines.cli import run
from synth.errors import DataError


def report(value: float = 1.0, interval: tuple[float, float] | None = (0.8, 1.3), **fields: Any) -> dict[str, Any]:
    made = Report("phantoms", fingerprint={"features": "radiomics 0", "n": "3 synthetic"})
    made.metrics["fidelity.frechet"] = Figure(value, 3, "lower", interval=interval)
    return json.loads(json.dumps({**made.plain(), **fields}))


def test_differences_are_of_b_less_a_with_their_direction() -> None:
    found = compare(report(1.0, (0.9, 1.1)), report(2.0, (1.7, 2.4)))
    row = found.rows[0]
    assert (row.difference, row.better) == (1.0, False)
    assert row.interval == pytest.approx((1 - (0.3**2 + 0.1**2) ** 0.5, 1 + (0.4**2 + 0.1**2) ** 0.5))
    assert compare(report(2.0, (1.7, 2.4)), report(1.0, (0.9, 1.1))).rows[0].better is True
    assert compare(report(1.0), report(1.1)).rows[0].better is None
    assert compare(report(1.0), report(2.0, None)).rows[0].interval is None


def test_a_figure_without_a_better_way_makes_neither_set_better() -> None:
    sides = []
    for value in (0.2, 0.9):
        made = Report("phantoms", fingerprint={"n": "3"})
        made.metrics["fidelity.ssim"] = Figure(value, 3, "", interval=(value - 0.1, value + 0.1), floor=0.5)
        sides.append(json.loads(json.dumps(made.plain())))
    found = compare(*sides)
    assert found.rows[0].better is None and found.rows[0].interval is not None
    assert "no better way" in found.markdown() and "undecided" not in found.markdown()


def test_a_control_is_better_neither_way() -> None:
    sides = []
    for value in (0.5, 0.9):
        made = Report(
            "phantoms", metrics={"privacy.blind_gate_auc": Figure(value, 9, "", "AUC", (value, value + 0.1), 0.5)}
        )
        assert "near the floor" in page(made, with_real=False)
        sides.append(json.loads(json.dumps(made.plain())))
    (row,) = compare(*sides).rows
    assert row.direction == "" and row.better is None and row.interval is not None and row.interval[0] > 0


def test_the_interval_covers_the_difference_of_means() -> None:
    rng, n, hits = np.random.default_rng(0), 30, 0
    for _ in range(400):
        sides = [rng.normal(mean, spread, n) for mean, spread in ((0.0, 1.0), (0.5, 2.0))]
        read = []
        for side in sides:
            half = 2.045 * side.std(ddof=1) / n**0.5
            read.append(report(float(side.mean()), (float(side.mean()) - half, float(side.mean()) + half)))
        interval = compare(*read).rows[0].interval
        assert interval is not None
        hits += interval[0] <= 0.5 <= interval[1]
    assert 0.92 <= hits / 400 <= 0.98


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"fingerprint": {"features": "imagenet 1", "n": "3 synthetic"}}, "features: 'radiomics 0' and 'imagenet 1'"),
        ({"fingerprint": {"features": "radiomics 0"}}, "n: '3 synthetic' and 'absent'"),
        ({"population": "others"}, "different populations"),
        ({"schema": 2}, "different schemas"),
    ],
)
def test_reports_on_different_things_are_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        compare(report(), report(**fields))


def test_files_and_folders_are_read_and_what_is_no_report_is_named(tmp_path: Path) -> None:
    made = Report("phantoms", fingerprint={"features": "radiomics 0"})
    made.metrics["fidelity.ssim"] = Figure(0.5, 3, "higher")
    made.write(tmp_path / "a")
    made.metrics["diversity.vendi"] = Figure(3.0, 3, "higher")
    made.write(tmp_path / "b")
    found = compare(tmp_path / "a", tmp_path / "b" / "report.json")
    assert [row.name for row in found.rows] == ["fidelity.ssim"]
    assert (found.only_a, found.only_b) == ((), ("diversity.vendi",))
    assert "| fidelity.ssim | 0.5 | 0.5 | 0 | - | undecided |" in found.markdown()
    assert "Only in b: diversity.vendi" in found.markdown()
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "empty.json").write_text("{}")
    for name, said in (
        ("broken.json", "not valid JSON"),
        ("empty.json", "is missing"),
        ("absent.json", "is no report"),
    ):
        with pytest.raises(DataError, match=f"{name}.*{said}"):
            compare(tmp_path / "a", tmp_path / name)


def _put(content: dict[str, Any], *keys: Any, value: Any) -> bytes:
    *inner, last = keys
    here: Any = content
    for key in inner:
        here = here[key]
    here[last] = value
    return json.dumps(content, indent=1).encode()


SPOILT: dict[str, tuple[Callable[[dict[str, Any]], bytes], str]] = {
    "a list": (lambda c: b"[1, 2]", "line 1 is broken (it is no object but [1, 2])"),
    "another kind of value": (
        lambda c: _put(c, "metrics", "fidelity.ssim", "value", value="high"),
        "line 9 is broken (metrics.fidelity.ssim.value should be a valid number, got 'high')",
    ),
    "a value that is none": (
        lambda c: json.dumps(c, indent=1).replace("0.5,", "NaN,").encode(),
        "line 9 is broken (metrics.fidelity.ssim.value should be a finite number, got nan)",
    ),
    "half an interval": (
        lambda c: _put(c, "metrics", "fidelity.ssim", "interval", value=[0.1]),
        "metrics.fidelity.ssim.interval List should have at least 2 items",
    ),
    "figures in a list": (lambda c: _put(c, "metrics", value=[]), "metrics should be a valid dictionary, got []"),
    "no direction": (
        lambda c: _put(c, "metrics", "fidelity.ssim", value={"value": 1.0, "interval": None, "n": 3, "unit": ""}),
        "line 8 is broken (metrics.fidelity.ssim.better is missing)",
    ),
    "another fingerprint": (lambda c: _put(c, "fingerprint", value="x"), "fingerprint should be a valid dictionary"),
    "another version": (lambda c: _put(c, "schema", value=2), "is a report of schema 2, this version reads 1"),
    "no UTF-8": (lambda c: b'{"schema": 1,\n "population": "\xff"}', "line 2 is broken (it is not UTF-8)"),
    "cut short": (lambda c: json.dumps(c, indent=1).encode()[:60], "is broken (not valid JSON"),
    "brackets without end": (lambda c: b"[" * 100_000, "is broken ("),
    "a number without end": (lambda c: b'{"schema": ' + b"1" * 5000 + b"}", "is broken ("),
    "nothing": (lambda c: b"", "line 1 is broken (not valid JSON"),
}


@pytest.mark.parametrize("name", SPOILT)
@pytest.mark.parametrize("verb", ["compare", "release", "info"])
def test_a_broken_report_is_one_line_with_its_place(
    verb: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Report("phantoms", fingerprint={"features": "radiomics 0"})
    made.metrics["fidelity.ssim"] = Figure(0.5, 3, "higher")
    made.write(tmp_path / "good")
    made.write(tmp_path / "bad")
    spoil, said = SPOILT[name]
    (tmp_path / "bad" / "report.json").write_bytes(spoil(json.loads((tmp_path / "bad" / "report.json").read_text())))
    line = {
        "compare": [str(tmp_path / "good"), str(tmp_path / "bad")],
        "release": [str(tmp_path / "set"), "--report", str(tmp_path / "bad"), "--out", str(tmp_path / "out")],
        "info": [str(tmp_path / "bad")],
    }[verb]
    assert run(verb, line) == 2
    told = capsys.readouterr().err
    assert f"{tmp_path / 'bad' / 'report.json'} " in told and said in told and len(told.splitlines()) == 1, told
    assert "give a report of `synth evaluate`" in told
