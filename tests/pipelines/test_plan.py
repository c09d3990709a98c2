"""Plans and balanced attributes: what is asked of each sample, told by line where it is wrong, extended by rows."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import synth
from pipelines.cli import main
from pipelines.plans import read_plan
from synth.data.balance import balanced
from synth.data.schema import Attribute
from synth.errors import DataError

KIND = Attribute(name="kind", kind="categorical", levels=("a", "b", "c"))
SIDE = Attribute(name="side", kind="categorical", levels=("left", "right"))
AGE = Attribute(name="age", kind="number", low=20.0, high=80.0)
SIZE = Attribute(name="size", kind="number", low=-1.0, high=1.0)


def generate(model: Path, out: Path, *options: object) -> int:
    return main(["generate", str(model), "--out", str(out), "--workers", "1", *map(str, options)])


def manifest(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def refused(capsys: pytest.CaptureFixture[str]) -> str:
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("synth: ")]
    assert len(lines) == 1
    return lines[0]


def test_combinations_of_levels_come_in_turn() -> None:
    asked = [balanced([KIND, SIDE], index, seed=0) for index in range(12)]
    assert set(Counter(tuple(one.values()) for one in asked).values()) == {2}
    assert [one["kind"] for one in asked[:4]] == ["a", "b", "c", "a"]


@pytest.mark.parametrize("seed", [0, 7])
def test_numbers_fall_into_equal_parts_within_each_combination(seed: int) -> None:
    """Of the first 2^k (3^k for the second number) one lies in each part; combinations and seeds have their own."""
    parts = 16
    asked = [balanced([KIND, AGE], index, seed=seed) for index in range(parts * 3)]
    for level in KIND.levels:
        ages = np.array([one["age"] for one in asked if one["kind"] == level], dtype=float)
        assert sorted(np.floor((ages - 20) / 60 * parts).astype(int)) == list(range(parts))
    two = [balanced([AGE, SIZE], index, seed=seed) for index in range(27)]
    sizes = np.array([one["size"] for one in two], dtype=float)
    assert sorted(np.floor((sizes + 1) / 2 * 27).astype(int)) == list(range(27))
    assert len({one["age"] for one in asked}) == len(asked)
    assert asked[0]["age"] != balanced([KIND, AGE], 0, seed=seed + 1)["age"]


def test_spread_asks_combinations_and_numbers(model: Path, tmp_path: Path) -> None:
    assert generate(model, tmp_path / "out", "--count", 4, "--spread", "kind", "--spread", "size") == 0
    asked = [row["condition"]["attributes"] for row in manifest(tmp_path / "out")]
    assert [one["kind"] for one in asked] == ["a", "b", "a", "b"]
    sizes = {kind: [one["size"] for one in asked if one["kind"] == kind] for kind in "ab"}
    low, high = sorted(sizes["a"])
    schema = synth.load(model).model.recipe.schema
    assert schema is not None
    size = next(one for one in schema.attributes if one.name == "size")
    assert high - low == pytest.approx((size.high - size.low) / 2)  # one in each half


def test_a_plan_says_every_sample(model: Path, dataset: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.csv"
    plan.write_text('count,text,mask,kind,size\n2,a round thing,,a,\n1,,c03.nii.gz,b,"2.5"\n\n,"a long thing",c01,,\n')
    options = ["--plan", plan, "--masks", dataset / "labelsTr"]
    # values of labels are the model's own here, and a case is named with or without its suffix
    assert generate(model, tmp_path / "out", *options) == 0
    rows = manifest(tmp_path / "out")
    assert [row["condition"].get("text") for row in rows] == ["a round thing", "a round thing", None, "a long thing"]
    assert [row["condition"]["attributes"] for row in rows] == [{"kind": "a"}] * 2 + [{"kind": "b", "size": 2.5}, {}]
    assert [row["mask_origin"] for row in rows] == ["generated", "generated", "given", "given"]
    for index, case in ((2, "c03"), (3, "c01")):
        given = synth.read(dataset / "labelsTr" / f"{case}.nii.gz")
        assert np.array_equal(synth.read(tmp_path / f"out/labelsTr/syn_{index:05d}.nii.gz").data > 0, given.data > 0)
    same = tmp_path / "plan.jsonl"
    lines = [
        {"count": 2, "text": "a round thing", "kind": "a"},
        {"mask": "c03", "kind": "b", "size": 2.5, "text": None},
        {"text": "a long thing", "mask": "c01.nii.gz"},
    ]
    same.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert generate(model, tmp_path / "again", "--plan", same, "--masks", dataset / "labelsTr", "--workers", 2) == 0
    assert content(tmp_path / "again") == content(tmp_path / "out")


def test_rows_at_its_end_extend_a_plan_and_other_rows_are_refused(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, out = tmp_path / "plan.csv", tmp_path / "out"
    plan.write_text("count,kind\n1,a\n1,b\n")
    assert generate(model, out, "--plan", plan) == 0
    first = content(out)
    assert generate(model, out, "--plan", plan) == 0 and content(out) == first
    plan.write_text("count,kind\n1,a\n2,b\n1,a\n")
    assert generate(model, out, "--plan", plan) == 0
    assert [row["condition"]["attributes"]["kind"] for row in manifest(out)] == ["a", "b", "b", "a"]
    assert all(content(out)[name] == first[name] for name in first if name.startswith(("images", "labels", "records")))
    assert generate(model, tmp_path / "whole", "--plan", plan) == 0
    assert content(tmp_path / "whole") == content(out)
    for rows in ("2,a\n", "1,a\n1,b\n", "1,b\n3,b\n"):
        plan.write_text(f"count,kind\n{rows}")
        capsys.readouterr()
        assert generate(model, out, "--plan", plan) == 2
        assert "was begun with another plan" in refused(capsys)


WRONG = {
    "count": ("plan.csv", "count,kind\n1,a\n0,b\n", "plan.csv line 3: count is '0'; give a whole number from 1"),
    "fraction": ("plan.csv", "count\n1.5\n", "line 2: count is '1.5'"),
    "attribute": ("plan.csv", "kidn\na\n", "line 2: attribute 'kidn' is unknown to the model; did you mean 'kind'"),
    "level": ("plan.csv", "count,kind\n1,a\n\n1,z\n", "line 4: attribute kind='z' is unknown"),
    "range": ("plan.csv", "size\n99\n", "line 2: attribute size=99 is outside what the model saw"),
    "cells": ("plan.csv", "count,kind\n1,a,b\n", "line 2 has 3 cells for 2 columns; mend the line"),
    "columns": ("plan.csv", "kind,kind\na,a\n", "line 1 names columns"),
    "quotes": ("plan.csv", 'kind\n"a\n', "is no CSV"),
    "after a long cell": ("plan.csv", 'text,kind\n"a round\nthing",a\na thing,z\n', "line 4: attribute kind='z'"),
    "mask": ("plan.csv", "mask\nghost.nii.gz\n", "line 2: mask 'ghost.nii.gz' is not in --masks"),
    "outside": ("plan.csv", "mask\n../c00.nii.gz\n", "line 2: mask '../c00.nii.gz' is not in --masks"),
    "text": ("plan.csv", "text\ncolossal\n", "line 2: text 'colossal' has no word that the model knows"),
    "empty": ("plan.csv", "count,kind\n", "has no row"),
    "many": ("plan.csv", "count\n999999\n999999\n", "line 3: the plan asks for more than 1000000"),
    "json": ("plan.jsonl", '{"kind": "a"}\n{"kind": }\n', "plan.jsonl line 2 is no JSON"),
    "list": ("plan.jsonl", '["a"]\n', "line 1 is no object"),
    "nested": ("plan.jsonl", '{"kind": ["a"]}\n', 'line 1: kind is ["a"]; give a text or a number'),
    "truth": ("plan.jsonl", '{"count": true}\n', "line 1: count is 'True'"),
    "twice": ("plan.jsonl", '{"kind": "a", "kind": "b"}\n', "line 1 is no JSON ('kind' stands there twice)"),
    "suffix": ("plan.txt", "kind\na\n", "is neither .csv nor .jsonl"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_row_is_told_by_its_line(
    name: str, model: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, text, words = WRONG[name]
    (tmp_path / file).write_text(text)
    options = ["--plan", tmp_path / file, "--masks", dataset]
    assert generate(model, tmp_path / "out", *options) == 2
    assert words in refused(capsys) and not (tmp_path / "out").exists()


def test_what_a_plan_says_is_said_once(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = tmp_path / "plan.csv"
    plan.write_text("kind,text\na,a round thing\n")
    for options, words in (
        (["--count", 2], "not both"),
        (["--set", "kind=a"], "'kind' is given twice"),
        (["--spread", "kind"], "'kind' is given twice"),
        (["--text", "a long thing"], "both say texts"),
    ):
        assert generate(model, tmp_path / "out", "--plan", plan, *options) == 2
        assert words in refused(capsys)
    assert generate(model, tmp_path / "out", "--plan", tmp_path / "none.csv") == 2
    assert "does not exist" in refused(capsys)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "plan.csv").write_bytes(b"kind\n\xff\n")
    with pytest.raises(DataError, match="write it again as UTF-8"):
        read_plan(tmp_path / "plan.csv")
