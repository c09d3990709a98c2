"""Judges: who trained them is recorded and asked for, and what a judge of others cannot say is refused in words."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evaluation.acceptance import Acceptance
from evaluation.segmenter import Segmenter
from pipelines.judges import find_bench, keep_judge, keep_segmenter, train_bench
from synth.data.prepared import Prepared
from synth.data.seen import SEEN_FILE, Seen
from synth.errors import CheckpointError, ConfigError
from synth.volume import Label


@pytest.fixture(scope="module")
def trained(prepared: Prepared) -> tuple[Segmenter, dict[str, object]]:
    return train_bench(prepared, steps=1)


@pytest.fixture
def judge(trained: tuple[Segmenter, dict[str, object]], prepared: Prepared, tmp_path: Path) -> Path:
    keep_segmenter(trained[0], tmp_path / "judge", trained[1], Seen.of(prepared, seed=0).trained())
    return tmp_path / "judge"


def test_a_judge_knows_who_trained_it_by_hashes_alone(judge: Path, prepared: Prepared) -> None:
    bench = find_bench(str(judge), prepared.schema, prepared)
    assert bench.segmenter is not None and not bench.recorded
    assert bench.saw == {case.patient for case in prepared.split("train")} and len(bench.saw) == 2
    assert not bench.saw & {case.patient for case in prepared.held_out}
    text = (judge / SEEN_FILE).read_text()
    assert not any(case.case in text or prepared.digest(case) in text for case in prepared.cases)
    assert json.loads(text)["holdout"] == [], "those it is measured on did not choose it"


def test_a_judge_of_the_patients_that_it_would_be_measured_on_is_found_out(judge: Path, prepared: Prepared) -> None:
    """The same cases, divided the other way round, under other names of patients."""
    rows = tuple(
        replace(row, split="test" if row.split == "train" else "train", patient=f"q{row.patient}")
        for row in prepared.rows
    )
    turned = replace(prepared, rows=rows, cases=rows)
    bench = find_bench(str(judge), turned.schema, turned)
    assert bench.saw == {case.patient for case in turned.held_out}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"population": "others"}, "the data is of 'others'"),
        ({"spacing_mm": (9.0, 9.0, 9.0)}, "the data is at 9 x 9 x 9"),
    ],
)
def test_a_judge_of_others_judges_nothing(
    judge: Path, prepared: Prepared, change: dict[str, object], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = find_bench(str(judge), replace(prepared.schema, **change), prepared)
    assert bench.segmenter is None and said in bench.why_not
    assert "--judge" in bench.why_not and str(judge) not in bench.why_not, "it stands in what is shared"
    assert str(judge) in capsys.readouterr().out


def test_a_judge_of_other_labels_is_refused(judge: Path, prepared: Prepared) -> None:
    for schema in (
        replace(prepared.schema, labels=tuple(reversed(prepared.schema.labels))),
        replace(prepared.schema, channels=("T1", "T2")),
    ):
        with pytest.raises(ConfigError, match="give another"):
            find_bench(str(judge), schema, prepared)


def test_a_judge_that_does_not_say_who_trained_it_judges_nothing(judge: Path, prepared: Prepared) -> None:
    seen = json.loads((judge / SEEN_FILE).read_text())
    (judge / SEEN_FILE).write_text(json.dumps({**seen, "model": "0" * 64}))
    with pytest.raises(CheckpointError, match="other weights"):
        find_bench(str(judge), prepared.schema, prepared)
    (judge / SEEN_FILE).unlink()
    why = find_bench(str(judge), prepared.schema, prepared).why_not
    assert "--save-judge" in why and str(judge) not in why


def test_the_shipped_judge_is_known_where_it_was_kept(prepared: Prepared, tmp_path: Path) -> None:
    """--save-judge keeps it with who trained it; its own facts count, not those beside it."""
    labels = tuple(Label(value=n, name=name) for n, name in enumerate(("csf", "gm", "wm", "lesion"), start=1))
    ours: dict[str, Any] = {
        "labels": labels,
        "channels": ("MR",),
        "spacing_mm": (2.6, 2.6, 2.6),
        "population": "simulated cohort",
    }
    schema = replace(prepared.schema, **ours)
    shipped = find_bench(None, schema)
    kept = tmp_path / "judge"
    keep_judge(Acceptance(schema=schema, segmenter=shipped.segmenter), shipped, kept)
    told = json.loads((kept / "judge.json").read_text())
    (kept / "judge.json").write_text(json.dumps({**told, "held_out_dice": {"csf": 1.0}, "population": "others"}))
    found = find_bench(str(kept), schema)
    assert found.segmenter is not None and shipped.seen is not None and found.seen == shipped.seen
    assert (found.recorded, found.facts) == (shipped.recorded, shipped.facts)
    elsewhere = find_bench(str(kept), replace(schema, population="others"))
    assert elsewhere.segmenter is None and "the data is of 'others'" in elsewhere.why_not


def test_the_shipped_judge_is_for_its_own_population(prepared: Prepared) -> None:
    labels = tuple(Label(value=n, name=name) for n, name in enumerate(("csf", "gm", "wm", "lesion"), start=1))
    schema = replace(prepared.schema, labels=labels, channels=("MR",), spacing_mm=(2.6, 2.6, 2.6))
    assert "in this population" in find_bench(None, schema).why_not, "real brains of the same labels are others"
    bench = find_bench(None, replace(schema, population="simulated cohort"))
    assert bench.segmenter is not None and len(bench.recorded) == bench.facts["held_out_n"]
    assert bench.seen is not None and len(bench.seen.training) == bench.facts["trained_n"]
    assert "in this population" in find_bench(None, replace(schema, spacing_mm=(1.0, 1.0, 1.0))).why_not
