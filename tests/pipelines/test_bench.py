"""`synth bench`: its figures add up, its pairs are those of `generate`, and it writes nothing."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import synth
from pipelines.bench import Bench, Job, Row, Stopwatch, Timed, figures, watched
from pipelines.cli import main
from synth.generator import Generator


def bench(capsys: pytest.CaptureFixture[str], *options: str) -> dict:
    capsys.readouterr()
    assert main(["bench", *options, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("workers", [1, 2])
def test_figures_add_up(
    model: Path, workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    facts = bench(capsys, str(model), "--count", "4", "--workers", str(workers))
    assert facts["pairs"] == 4 and facts["workers"] == workers and facts["threads_a_worker"] == 1
    assert facts["sha256"] == synth.load(model).model.sha256 and facts["device"] == "cpu"
    assert facts["steps"] == {"image": 2, "mask": 2}
    stages = facts["stages"]
    assert set(stages) == {f"{part} {act}" for part in ("image", "mask") for act in ("denoiser", "decode")} | {
        "texture",
        "rest",
    }
    assert sum(stage["share"] for stage in stages.values()) == pytest.approx(1.0)
    assert all(stage["seconds"] >= 0 for stage in stages.values())
    assert {name: stages[name]["calls"] for name in ("image denoiser", "mask denoiser", "image decode")} == {
        "image denoiser": 2,
        "mask denoiser": 2,
        "image decode": 1,
    }
    assert 0.05 < facts["peak_gb_a_worker"] <= facts["peak_gb"] <= workers * facts["peak_gb_a_worker"] + 1e-9
    assert 0 < facts["pairs_a_second"] <= workers / facts["seconds_a_pair"] * 4
    assert list(tmp_path.iterdir()) == []


def test_pairs_a_second_are_of_all_processes_at_once() -> None:
    def row(began: float, process: int) -> Row:
        return Row(began=began, ended=began + 2.0, seconds={"rest": 2.0}, calls={}, peak=10**9, process=process)

    told = figures([row(5.0, 1), row(5.0, 2), row(7.0, 1), row(7.0, 2)], workers=2)
    assert told["pairs_a_second"] == pytest.approx(1.0) and told["seconds_a_pair"] == 2.0
    assert (told["peak_gb_a_worker"], told["peak_gb"]) == (1.0, 2.0)


def test_steps_are_those_asked(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = bench(capsys, str(model), "--count", "1", "--steps", "5", "--workers", "1")
    assert facts["steps"] == {"image": 5, "mask": 5} and facts["stages"]["mask denoiser"]["calls"] == 5


def test_a_watched_generator_makes_the_same_pair(model: Path) -> None:
    ask, plain = synth.Condition(text="round thing"), synth.load(model)
    expected = next(plain.generate([ask], seeds=[3]))
    own = next(watched(synth.load(model), Stopwatch(lambda: None)).generate([ask], seeds=[3]))
    assert np.array_equal(own.image.data, expected.image.data)
    assert own.mask is not None and expected.mask is not None and np.array_equal(own.mask.data, expected.mask.data)


def test_a_model_without_masks_of_its_own_follows_an_empty_one(model: Path, tmp_path: Path) -> None:
    whole = synth.load(model).model
    synth.save(Generator(replace(whole, mask=None, recipe=replace(whole.recipe, mask=None))), tmp_path / "image only")
    row = Timed(Job(str(tmp_path / "image only"), 0, None)).row(0)
    assert set(row.seconds) == {"image denoiser", "image decode", "texture", "rest"}


def test_the_table_says_it_in_words(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert Bench(model=str(model), count=1).run() == 0
    told = capsys.readouterr().out
    for words in ("tiny on cpu", "1 process of one thread, 1 pairs", "pairs a second", "image denoiser", "2 calls"):
        assert words in told


def test_wrong_asks_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for options, words in (
        (["nothing"], "no model folder or bundled model 'nothing'"),
        (["brain-tiny", "--count", "0"], "--count is 0; give at least 1"),
        (["brain-tiny", "--steps", "1000000"], "--steps is 1000000; give 1 to 10000"),
    ):
        assert main(["bench", *options]) == 2
        said = capsys.readouterr().err
        assert words in said and said.count("\n") == 1
