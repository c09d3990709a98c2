"""--accept: a rejected sample is its seed's next attempt, whoever makes it; a judge saved, used, and told of later."""

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import synth
from evaluation import Acceptance
from evaluation.acceptance import Reference, fit_acceptance
from evaluation.acceptance_folder import write_acceptance
from evaluation.evidence import Bench, Evidence, Judged
from evaluation.segmenter import Segmenter, SegmenterConfig, as_saved
from pipelines.acceptance import HOPELESS
from pipelines.cli import run
from pipelines.gate import IMAGES
from pipelines.records import record_path
from synth.data.prepared import Prepared
from synth.errors import DataError
from tests.conftest import phantom, tiny_recipe, write_dataset
from tests.laws.dying import files, forked
from tests.pipelines.test_plan import content, generate, manifest, refused

ROOT = Path(__file__).parents[2]
COUNT, TRIES = 4, 12
Cuts = dict[str, float]


@pytest.fixture(scope="module")
def fitted(prepared: Prepared) -> Acceptance:
    """A judge of the tiny model's data, calibrated on further phantoms."""
    schema = prepared.schema
    torch_model = Segmenter(SegmenterConfig(channels=1, labels=("shell", "core"), spatial_dims=3, width=8)).eval()

    def items(first: int, count: int) -> list[Judged]:
        pairs = ((f"c{index}", *phantom(index, schema.grid)) for index in range(first, first + count))
        return [Judged(name, image[None] / 800.0, mask) for name, image, mask in pairs]

    bench = Bench(
        as_saved(torch_model), {"shell": 0.5, "core": 0.5}, facts={"held_out_dice": {"shell": 0.5, "core": 0.5}}
    )
    evidence = Evidence(items(0, 1), items(100, 10), items(200, 19), schema.population, bench=bench)
    digests = {"training": tuple(prepared.digest(case) for case in prepared.split("train")), "unseen": ()}
    return fit_acceptance(evidence, schema, cases=digests)


@pytest.fixture(scope="module")
def scores(fitted: Acceptance, model: Path) -> dict[tuple[int, int], dict[str, float]]:
    """What each attempt of each sample scores, by (index, attempt)."""
    from synth.data.preparation import working_pair

    generator, out = synth.load(model), {}
    for index in range(COUNT):
        for attempt in range(TRIES):
            (sample,) = generator.generate([synth.Condition()], seeds=[synth.Seed(0, index, attempt)])
            assert sample.mask is not None
            out[index, attempt] = fitted.scores(*working_pair(sample.image, sample.mask, fitted.schema)[:2])
    return out


def judge_that(fitted: Acceptance, folder: Path, cuts: Cuts) -> Path:
    """A judge that rejects what scores below the cuts; tests without one reject nothing."""
    held = {name: np.full(19, cuts.get(name, -np.inf)) for name in fitted.references}
    held = {name: np.nan_to_num(row, neginf=-1e9) for name, row in held.items()}
    one = replace(fitted, references={name: Reference(row, np.arange(19)) for name, row in held.items()})
    write_acceptance(one, folder, facts={"held_out_dice": {"shell": 0.5, "core": 0.5}})
    return folder


@pytest.fixture(scope="module")
def picky(fitted: Acceptance, scores: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Cuts]:
    """A judge that rejects about half of the attempts for one reason, and a first one for another."""
    nearest = sorted(scores[index, 0]["near_copy"] for index in range(COUNT))
    cuts = {
        "artefact": float(np.median([one["artefact"] for one in scores.values()])),
        "near_copy": (nearest[0] + nearest[1]) / 2,
    }
    return judge_that(fitted, tmp_path_factory.mktemp("judge") / "picky", cuts), cuts


def expected(scores: dict[tuple[int, int], dict[str, float]], cuts: Cuts, index: int) -> tuple[int, dict[str, int]]:
    """Return the first attempt above every cut, and how many before it fell below each."""
    rejected: Counter[str] = Counter()
    for attempt in range(TRIES):
        reasons = [name for name, cut in cuts.items() if scores[index, attempt][name] < cut]
        if not reasons:
            return attempt, dict(rejected)
        rejected.update(reasons)
    raise AssertionError("no attempt is above the cuts; give the test other cuts")


def accept(model: Path, out: Path, judge: Path, *options: object, tries: int = TRIES) -> int:
    return generate(model, out, "--count", COUNT, "--accept", judge, "--accept-tries", tries, *options)


@pytest.fixture(scope="module")
def whole(model: Path, picky: tuple[Path, Cuts], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set that one process made without interruption."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert accept(model, out, picky[0]) == 0
    return out


def test_the_first_attempt_above_every_cut_is_taken_and_the_others_counted(
    whole: Path, picky: tuple[Path, Cuts], scores: Any
) -> None:
    rows = manifest(whole)
    wanted = [expected(scores, picky[1], index) for index in range(COUNT)]
    assert [(row["attempt"], row["acceptance"]["rejected"]) for row in rows] == wanted
    assert any(attempt > 0 for attempt, _ in wanted) and len({name for _, row in wanted for name in row}) == 2
    judge = Acceptance.load(picky[0])
    for row in rows:
        told = row["acceptance"]
        assert (told["judge"], told["segmenter"]) == (judge.sha256, judge.segmenter_sha256)
        assert min(told["p_values"].values()) > 0.05 and told["agreement"] is None or 0 <= told["agreement"] <= 1
    assert json.loads((whole / "request.json").read_text())["accept"] == judge.sha256
    assert not list(whole.rglob("*.rejected"))


def test_workers_change_no_byte(model: Path, whole: Path, picky: tuple[Path, Cuts], tmp_path: Path) -> None:
    assert accept(model, tmp_path / "two", picky[0], "--workers", 2, "--batch", 1) == 0
    assert content(tmp_path / "two") == content(whole)


def test_shards_change_no_byte(model: Path, whole: Path, picky: tuple[Path, Cuts], tmp_path: Path) -> None:
    parts = [tmp_path / f"part{shard}" for shard in range(2)]
    for shard, part in enumerate(parts):
        assert accept(model, part, picky[0], "--shard", f"{shard}/2") == 0
    assert run("merge", [*map(str, parts), "--out", str(tmp_path / "joined")]) == 0
    assert content(tmp_path / "joined") == content(whole)


@pytest.fixture(scope="module")
def by_artefact(model: Path, picky: tuple[Path, Cuts], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set that one process made, of whose judge one test alone counts."""
    out = tmp_path_factory.mktemp("artefact") / "out"
    assert accept(model, out, picky[0], "--accept-tests", "artefact") == 0
    return out


def test_the_tests_asked_for_alone_count_and_are_told(
    model: Path, by_artefact: Path, whole: Path, picky: tuple[Path, Cuts], scores: Any, capsys: Any
) -> None:
    cuts = {"artefact": picky[1]["artefact"]}
    rows = manifest(by_artefact)
    wanted = [expected(scores, cuts, index) for index in range(COUNT)]
    assert [(row["attempt"], row["acceptance"]["rejected"]) for row in rows] == wanted
    assert wanted != [expected(scores, picky[1], index) for index in range(COUNT)], "the other test rejects too"
    for row in rows:
        told = row["acceptance"]
        assert told["tests"] == ["artefact"] == list(told["p_values"]) and told["agreement"] is None
        assert told["segmenter"] == "", "no segmenter chose it"
    asked = json.loads((by_artefact / "request.json").read_text())
    judge = Acceptance.load(picky[0])
    assert (asked["accept"], asked["accept_tests"]) == (judge.sha256, ["artefact"])
    assert {tuple(row["acceptance"]["tests"]) for row in manifest(whole)} == {judge.tests}
    before = content(by_artefact)
    for options in ([], ["--accept-tests", "near_copy"], ["--accept-tests", "artefact", "near_copy"]):
        capsys.readouterr()
        assert accept(model, by_artefact, picky[0], *options) == 2
        assert "was begun with accept_tests = ['artefact'], now it is [" in refused(capsys)
    assert accept(model, by_artefact, picky[0], "--accept-tests", "artefact", "artefact") == 0
    assert content(by_artefact) == before


def test_tests_that_are_unknown_or_absent_are_refused_by_name(
    model: Path, fitted: Acceptance, picky: tuple[Path, Cuts], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    left = {name: one for name, one in fitted.references.items() if name != "near_copy"}
    lacking = replace(fitted, references=left, near=None, without={"near_copy": "too few patients"})
    write_acceptance(lacking, tmp_path / "lacking", facts={})
    for judge, options, said in (
        (picky[0], ["--accept-tests", "near-copy"], "'near-copy' is no test of single samples; did you mean 'near_c"),
        (picky[0], ["--accept-tests", "artefact", "dice"], "'dice' is no test of single samples; known: agreement, a"),
        (tmp_path / "lacking", ["--accept-tests", "near_copy"], "lacking has no test of near_copy (too few patients)"),
        (picky[0], ["--accept-tests"], "--accept-tests names no test"),
    ):
        assert accept(model, tmp_path / "out", judge, *options) == 2
        assert said in refused(capsys) and not (tmp_path / "out").exists()
    assert generate(model, tmp_path / "out", "--count", 2, "--accept-tests", "artefact") == 2
    assert "--accept-tests is for --accept" in refused(capsys)


def test_shards_by_one_test_change_no_byte(
    model: Path, by_artefact: Path, picky: tuple[Path, Cuts], tmp_path: Path
) -> None:
    parts = [tmp_path / f"part{shard}" for shard in range(2)]
    for shard, part in enumerate(parts):
        assert accept(model, part, picky[0], "--shard", f"{shard}/2", "--accept-tests", "artefact") == 0
    assert run("merge", [*map(str, parts), "--out", str(tmp_path / "joined")]) == 0
    assert content(tmp_path / "joined") == content(by_artefact)


@pytest.mark.slow
def test_ray_changes_no_byte(model: Path, by_artefact: Path, picky: tuple[Path, Cuts], tmp_path: Path) -> None:
    pytest.importorskip("ray")
    line = [sys.executable, "-m", "pipelines.cli", "generate", str(model), "--out", str(tmp_path / "out")]
    line += ["--count", str(COUNT), "--accept", str(picky[0]), "--accept-tests", "artefact"]
    line += ["--accept-tries", str(TRIES), "--engine", "ray", "--workers", "1"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    assert content(tmp_path / "out") == content(by_artefact)


def test_too_few_tries_end_with_3_and_more_go_on(
    model: Path, whole: Path, picky: tuple[Path, Cuts], scores: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was rejected is not made again, and the completed set is the one that had the tries at once."""
    out = tmp_path / "out"
    late = [index for index in range(COUNT) if expected(scores, picky[1], index)[0] > 0]
    capsys.readouterr()
    assert accept(model, out, picky[0], tries=1) == 3
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert (
        f": judge {picky[0]} rejected every try, {len(late)} in all (by" in told and "give more --accept-tries" in told
    )
    assert all(f"syn_0000{index}" in told for index in late)
    assert {path.stem for path in out.glob("records/*.rejected")} == {f"syn_0000{index}" for index in late}
    assert not (out / "manifest.jsonl").exists() and not (out / "dataset.json").exists()
    kept = {path: path.stat().st_mtime_ns for path in out.glob("records/*")}
    assert accept(model, out, picky[0], tries=1) == 3
    assert {path: path.stat().st_mtime_ns for path in out.glob("records/*")} == kept, "nothing was made again"
    assert accept(model, out, picky[0]) == 0
    assert content(out) == content(whole)


@pytest.mark.parametrize("step", [5])
def test_killed_at_any_file_it_completes_to_the_same(
    step: int, model: Path, whole: Path, picky: tuple[Path, Cuts], tmp_path: Path
) -> None:
    from pipelines.generate import Generate

    def act(folder: Path, tries: int = TRIES) -> None:
        command = Generate(
            model=str(model), out=folder / "set", count=COUNT, workers=1, accept=picky[0], accept_tries=tries
        )
        assert command.run() == (0 if tries == TRIES else 3)

    for point in range(3, 60, step):
        folder = tmp_path / f"cut{point}"
        folder.mkdir()
        killed = forked(lambda place: act(place, 1), folder, point)
        forked(act, folder, point)
        forked(act, folder)
        assert files(folder / "set") == files(whole), f"point {point}"
        if not killed:
            break
    assert point > 3 + step, "several points were tried"


def test_what_is_accepted_at_once_has_the_bytes_of_a_set_without_a_judge(
    model: Path, fitted: Acceptance, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judge = judge_that(fitted, tmp_path / "mild", {})
    assert accept(model, tmp_path / "judged", judge) == 0
    assert "4 tries, none rejected" in capsys.readouterr().out
    assert generate(model, tmp_path / "plain", "--count", COUNT) == 0
    one, two = (content(tmp_path / name) for name in ("judged", "plain"))
    changed = {name for name in {*one, *two} if one.get(name) != two.get(name)}
    assert changed == {"manifest.jsonl", "request.json", *(f"records/syn_0000{index}.json" for index in range(COUNT))}
    for told, plain in zip(manifest(tmp_path / "judged"), manifest(tmp_path / "plain"), strict=True):
        assert told.pop("acceptance")["rejected"] == {} and told == plain


def test_a_judge_that_rejects_everything_ends_the_run_early(
    model: Path, fitted: Acceptance, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judge = judge_that(fitted, tmp_path / "never", {"artefact": 1e9, "near_copy": 1e9})
    out = tmp_path / "out"
    options = ["--count", HOPELESS + 20, "--accept", judge, "--accept-tries", 2]
    assert generate(model, out, *options) == 3
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"rejected every try, {2 * HOPELESS} in all" in told and "no sample was accepted" in told
    assert f"(by reason: artefact {2 * HOPELESS}, near copy {2 * HOPELESS})" in told
    assert not list(out.glob("imagesTr/*")) and not (out / "manifest.jsonl").exists()
    assert generate(model, tmp_path / "dry", *options, "--dry-run") == 0
    assert "each sample may take up to 2" in capsys.readouterr().out and not (tmp_path / "dry").exists()


def test_the_first_samples_alone_end_a_run_early(
    model: Path, fitted: Acceptance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What other workers finished beside them, accepted or not, and in which order, changes nothing."""
    judge, out = judge_that(fitted, tmp_path / "mild", {}), tmp_path / "out"
    finished = []

    def made(worker: Any, todo: list[int], how: Any) -> Any:
        for index in (HOPELESS + 2, *range(HOPELESS - 1, -1, -1), HOPELESS):
            path = record_path(out, index)
            path.parent.mkdir(exist_ok=True)
            if index < HOPELESS:
                path.with_suffix(".rejected").write_text('[["artefact"]]')
            else:
                path.write_text("{}")
            finished.append(index)
            yield index

    monkeypatch.setattr("pipelines.engines.made", made)
    assert generate(model, out, "--count", HOPELESS + 9, "--accept", judge, "--accept-tries", 1) == 3
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"rejected every try, {HOPELESS} in all" in told and f"of the first {HOPELESS}" in told
    assert finished[-1] == 0 and len(finished) == HOPELESS + 1


def test_a_night_with_some_refusals_goes_on_after_a_kill(model: Path, fitted: Acceptance, tmp_path: Path) -> None:
    """Samples that used up their tries before the kill do not end the run as if none had ever been accepted."""
    judge, out = judge_that(fitted, tmp_path / "mild", {}), tmp_path / "out"
    assert generate(model, out, "--count", 1, "--accept", judge) == 0
    for index in range(1, HOPELESS + 1):
        (out / "records" / f"syn_0000{index}.rejected").write_text('[["artefact"]]')
    assert generate(model, out, "--count", HOPELESS + 2, "--accept", judge, "--accept-tries", 1) == 3
    assert {path.stem for path in out.glob("records/*.json")} == {"syn_00000", f"syn_0000{HOPELESS + 1}"}
    assert generate(model, out, "--count", HOPELESS + 2, "--accept", judge, "--accept-tries", 2) == 0
    assert {row["attempt"] for row in manifest(out)} == {0, 1} and not list(out.rglob("*.rejected"))


def test_an_accepted_attempt_is_reproduced(model: Path, whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    late = [row["case"] for row in manifest(whole) if row["attempt"] > 0]
    assert run("reproduce", [str(whole), "--model", str(model), "--case", *late]) == 0
    assert capsys.readouterr().out.splitlines() == [f"{case}: identical" for case in late]


def test_the_same_loop_in_python(model: Path, whole: Path, picky: tuple[Path, Cuts]) -> None:
    generator, judge = synth.load(model), Acceptance.load(picky[0])
    for row in manifest(whole):
        seed = synth.Seed(0, row["index"])
        tried = generator.accepted(synth.Condition(), seed=seed, judge=judge, tries=TRIES)
        assert tried.sample is not None and tried.sample.provenance.attempt == row["attempt"] == len(tried.rejected)
        none = generator.accepted(synth.Condition(), seed=seed, judge=lambda _: ["no"], tries=2)
        assert none == (None, (("no",), ("no",)))
    with pytest.raises(synth.SynthError, match="tries is 0"):
        generator.accepted(synth.Condition(), seed=0, judge=judge, tries=0)


def test_wrong_judges_end_in_one_line_before_anything_is_written(
    model: Path, prepared: Prepared, fitted: Acceptance, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(said: str, judge: Path, *options: object, out: Path = tmp_path / "out") -> None:
        capsys.readouterr()
        assert generate(model, out, "--count", 2, "--accept", judge, *options) == 2
        assert said in refused(capsys)
        assert out == whole or not out.exists()

    def other(name: str, **changes: Any) -> Path:
        one = replace(fitted, schema=replace(fitted.schema, **changes))
        write_acceptance(one, tmp_path / name, facts={})
        return tmp_path / name

    refuse("is no judge folder", prepared.folder)
    refuse("is no judge folder", tmp_path / "absent")
    refuse("knows population others", other("population", population="others"))
    refuse("knows channels", other("channels", channels=("CT",)))
    refuse("knows labels", other("labels", labels=fitted.schema.labels[:1]))
    refuse("knows grid", other("grid", grid=(9, 9, 9)))
    refuse("the model was trained on others", _of_others(fitted, tmp_path / "others"))
    damaged = other("damaged")
    (damaged / "real.safetensors").write_bytes(b"")
    refuse("is not the file that accept.json names", damaged)
    mild = judge_that(fitted, tmp_path / "mild", {})
    refuse("--accept-tries is 0; give 1 to", mild, "--accept-tries", 0)
    refuse("was begun with accept = ", mild, out=whole)
    capsys.readouterr()
    assert generate(model, tmp_path / "out", "--count", 2, "--accept-tries", 3) == 2
    assert "--accept-tries is for --accept" in refused(capsys)


def _of_others(fitted: Acceptance, folder: Path) -> Path:
    write_acceptance(replace(fitted, cases={"training": ("x",), "unseen": ()}), folder, facts={})
    return folder


@pytest.fixture(scope="module")
def journey(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Flat phantoms of 50 patients, prepared, and a tiny model of them."""
    work = tmp_path_factory.mktemp("journey")
    source = write_dataset(work / "source", 50, (16, 12), np.eye(4), {"shell": 1, "core": 2})
    sides = ["--patients", "each", "--holdout", "0.3", "--test", "0.2"]
    assert run("prepare", [str(source), "--out", str(work / "data"), *sides]) == 0
    (work / "tiny.yaml").write_text(tiny_recipe(2))
    assert run("train", [str(work / "tiny.yaml"), "--data", str(work / "data"), "--out", str(work / "run")]) == 0
    return {"work": work, "data": work / "data", "model": work / "run" / "model"}


def test_a_judge_is_saved_used_and_told_of(journey: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    work, model = journey["work"], journey["model"]
    judge = work / "report" / "internal" / "judge"

    def evaluate(synthetic: str, out: str, *options: object) -> int:
        line = ["--synthetic", str(work / synthetic), "--data", str(journey["data"]), "--out", str(work / out)]
        return run("evaluate", [*line, "--only", "alignment,artefact", *map(str, options)])

    assert generate(model, work / "first", "--count", 6) == 0
    assert evaluate("first", "report", "--judge-steps", 30, "--save-judge", judge) == 0
    said = capsys.readouterr().out
    assert "(agreement, artefact, near_copy)" in said and "holds data of real patients" in said
    assert "note: 6 of 6" not in said, "the first set was chosen by nobody"
    # the model is hardly trained: what is calibrated on real phantoms rejects what it makes
    assert generate(model, work / "none", "--count", 1, "--accept", judge, "--accept-tries", 2) == 3
    assert "rejected every try, 2 in all" in capsys.readouterr().err
    own = Acceptance.load(judge)
    lax = replace(own, references={name: replace(one, scores=one.scores - 1e6) for name, one in own.references.items()})
    write_acceptance(lax, work / "lax", facts=json.loads((judge / "judge.json").read_text()))
    assert generate(model, work / "second", "--count", 6, "--accept", work / "lax") == 0
    assert evaluate("second", "again", "--judge", judge) == 0
    said = capsys.readouterr().out
    assert run("info", [str(judge), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["sha256"] == own.sha256
    card = (judge / "README.md").read_text()
    assert told["rejects by artefact above"] > 0
    assert f"score of the artefact gate above {told['rejects by artefact above']:.4g} " in card
    notes = json.loads((work / "again" / "report.json").read_text())
    rows = {row["case"]: row["agreement"] for row in notes["samples"]}
    accepted = {row["case"]: row["acceptance"]["agreement"] for row in manifest(work / "second")}
    assert rows == accepted, "the report segments as the judge did"
    (note,) = [note for note in notes["notes"] if "were accepted by judge" in note]
    assert Acceptance.load(work / "lax").sha256[:16] in note and "holds the segmenter of this report" in note
    assert "6 tries, none rejected" in note and f"note: {note}" in said
    assert evaluate("second", "audited", "--judge", judge, "--only", "privacy", "--gate") == 4
    audited = json.loads((work / "audited" / "report.json").read_text())
    why = "the set was chosen by a near-copy test; audit a set made without --accept of the same model"
    assert audited["not_computed"]["privacy.copy_rate_bound"] == why and why in audited["verdicts"][IMAGES]["why"]


def test_an_evaluation_that_was_cut_short_is_repeated_as_it_is(
    journey: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    judge = out / "internal" / "judge"
    assert generate(journey["model"], tmp_path / "set", "--count", 2) == 0
    line = ["--synthetic", str(tmp_path / "set"), "--data", str(journey["data"]), "--out", str(out)]
    line += ["--only", "alignment", "--judge-steps", "2", "--save-judge", str(judge)]

    def cut(*_: object, **__: object) -> None:
        raise DataError("cut short")

    with monkeypatch.context() as patch:
        patch.setattr("evaluation.judge.judge", cut)
        assert run("evaluate", line) == 2 and "cut short" in refused(capsys)
        path = tmp_path / "set" / "manifest.jsonl"
        rows = path.read_text()
        path.write_text(rows.replace('"attempt": 0', '"acceptance": {"judge": 3}, "attempt": 0'))
        assert run("evaluate", line) == 2 and "in another form how it was accepted" in refused(capsys)
        path.write_text(rows)
    assert run("evaluate", line) == 0 and Acceptance.load(judge).references


def test_a_judge_is_not_kept_where_it_does_not_belong(
    journey: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("kept")
    out, synthetic = tmp_path / "out", journey["work"] / "source"
    line = ["--synthetic", str(synthetic), "--data", str(journey["data"]), "--out", str(out), "--save-judge"]
    for place, said in (
        (out / "share" / "judge", "lies in"),
        (out / "judge", "lies in"),
        (out / "internal", "lies in"),
        (synthetic / "judge", "lies in"),
        (tmp_path, "holds --out"),
        (tmp_path / "mine", "is not empty; give another folder"),
    ):
        assert run("evaluate", [*line, str(place)]) == 2
        assert said in refused(capsys) and not out.exists()
