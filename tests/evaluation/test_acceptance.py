"""The judge of single samples: its error rate, what each test finds, its folder, and for whom it is none."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from evaluation.acceptance import RATE, Acceptance, Reference, fit_acceptance
from evaluation.acceptance_folder import ACCEPT_FILE, _own_hash, _sha256, write_acceptance
from evaluation.evidence import Bench, Evidence, Judged
from evaluation.segmenter import Segmenter, SegmenterConfig, as_saved
from synth.data.schema import Schema
from synth.data.seen import Seen
from synth.errors import CheckpointError, ConfigError, OutputError
from synth.sample import Condition, Sample
from synth.volume import Label, Volume
from tests.conftest import phantom

GRID = (24, 20)
SCHEMA = Schema(
    population="phantoms",
    channels=("MR",),
    labels=(Label(name="shell", value=1), Label(name="core", value=2)),
    grid=GRID,
    spacing_mm=(1.0, 1.0),
    affine=tuple(np.eye(4).ravel().tolist()),
)
CASES = {"training": ("a", "b"), "unseen": ("c",)}


class Oracle:
    """Thresholds phantoms; stands in for a trained segmenter."""

    config = SimpleNamespace(labels=("shell", "core"))

    def label(self, image: np.ndarray) -> tuple[np.ndarray, str]:
        return (image[0] > 0.25).astype(np.uint8) + (image[0] > 0.75).astype(np.uint8), ""


def items(first: int, count: int, each: int = 1) -> list[Judged]:
    """Phantoms mapped to about 0..1 and a texture of their own, `each` of one patient."""
    out = []
    for index in range(first, first + count):
        image, mask = phantom(index, GRID)
        own = np.random.default_rng(index).normal(0, 0.02, GRID)
        out.append(Judged(f"c{index}", (image / 800.0 + own)[None], mask, patient=f"p{index // each}"))
    return out


def evidence(train: int = 12, held: int = 39, each: int = 1, **changes: Any) -> Evidence:
    bench = Bench(cast("Any", Oracle()), {"shell": 1.0, "core": 1.0})
    made = items(0, 1)
    return Evidence(made, items(100, train), items(200, held, each), "phantoms", **{"bench": bench, **changes})


def _trained_on(count: int) -> Bench:
    """A bench whose segmenter was trained on the first of the held-out patients."""
    return Bench(cast("Any", Oracle()), saw=frozenset(item.whose for item in items(200, count)))


@pytest.fixture(scope="module")
def judge() -> Acceptance:
    return fit_acceptance(evidence(), SCHEMA, cases=CASES)


def reasons(judge: Acceptance, item: Judged) -> set[str]:
    """What a mapped pair is rejected for."""
    found = judge.scores(item.image, item.mask)
    return {name for name, score in found.items() if judge.references[name].p_value(score) <= judge.rate + 1e-9}


def test_each_test_rejects_its_share_of_real_volumes(judge: Acceptance) -> None:
    """p is uniform on 1/40, 2/40, ...: of fresh volumes 2 of 40 are at most 0.05, whatever the score."""
    fresh = [judge.scores(item.image, item.mask) for item in items(1000, 120)]
    for name, reference in judge.references.items():
        share = np.mean([reference.p_value(one[name]) <= RATE for one in fresh])
        assert share <= 0.15, f"{name}: binomial and the calibration's own chance"
        below = [one[name] < reference.threshold(RATE) for one in fresh]
        assert below == [reference.p_value(one[name]) <= RATE + 1e-9 for one in fresh]


def test_p_values_are_exact_over_calibrations() -> None:
    """Over draws of calibration and sample, a share of exactly 2/40 is rejected at 0.05."""
    rng = np.random.default_rng(0)
    hits = [Reference(rng.random(39), np.arange(39)).p_value(rng.random()) <= 0.05 for _ in range(4000)]
    assert np.mean(hits) == pytest.approx(0.05, abs=0.012)


def test_a_patient_counts_once_however_often_scanned() -> None:
    once = Reference(np.linspace(0, 1, 19), np.arange(19))
    often = Reference(np.repeat(once.scores, 3), np.repeat(once.patients, 3))
    for score in (-0.1, 0.0, 0.33, 2.0):
        assert often.p_value(score) == pytest.approx(once.p_value(score))
    assert often.threshold(0.05) == once.threshold(0.05) == 0.0 and often.count == 19


def test_what_is_wrong_with_a_sample_is_the_reason(judge: Acceptance) -> None:
    real = items(100, 1)[0]
    swapped = replace(real, mask=np.roll(real.mask, 7, axis=0))
    assert "agreement" in reasons(judge, replace(items(300, 1)[0], mask=swapped.mask))
    stripes = items(300, 1)[0]
    stripes.image[0, ::2] += 0.4
    assert "artefact" in reasons(judge, stripes)
    copy = replace(real, image=np.ascontiguousarray(np.flip(real.image, 1)) * 1.1, mask=np.flip(real.mask, 0))
    assert "near_copy" in reasons(judge, copy), "flipped, brighter"


def test_a_mask_without_labels_has_no_agreement(judge: Acceptance) -> None:
    item = items(301, 1)[0]
    found = judge.scores(item.image, 0 * item.mask)
    assert "agreement" not in found and "near_copy" in found


def test_pairs_in_native_units_are_judged_as_prepared_ones_are(judge: Acceptance) -> None:
    image, mask = phantom(302, GRID)
    volume, labels = Volume(image[None] * 3 + 100), Volume(mask[None], labels={"shell": 1, "core": 2})
    found = judge.measure(volume, labels)
    turned = [one.replace(data=np.ascontiguousarray(one.data[:, ::-1]), affine=_flipped()) for one in (volume, labels)]
    assert judge.measure(*turned) == found, "how voxels lie in memory does not matter"
    provenance = cast("Any", None)
    assert judge(Sample(volume, labels, Condition(), provenance)) == found.reasons
    with pytest.raises(ConfigError, match="has none"):
        judge(Sample(volume, None, Condition(), provenance))


def _flipped() -> np.ndarray:
    affine = np.diag([-1.0, 1.0, 1.0, 1.0])
    affine[0, 3] = GRID[0] - 1
    return affine


@pytest.mark.parametrize(
    ("given", "absent"),
    [
        (evidence(held=18), {"agreement": "18 held-out patients, 19", "artefact": "18", "near_copy": "18"}),
        (evidence(held=38, each=3), {"agreement": "14 held-out patients", "artefact": "14", "near_copy": "14"}),
        (evidence(train=9), {"artefact": "at least 10 real training patients, there are 9"}),
        (replace(evidence(), training=items(100, 12, 3)), {"artefact": "there are 5"}),
        (evidence(bench=_trained_on(21)), {"agreement": "18 held-out patients, 19 are needed"}),
        (evidence(bench=Bench(why_not="none fits")), {"agreement": "none fits"}),
        (evidence(unaudited="not said"), {"near_copy": "not said"}),
    ],
)
def test_what_the_data_cannot_carry_is_told(given: Evidence, absent: dict[str, str]) -> None:
    judge = fit_acceptance(given, SCHEMA, cases=CASES)
    assert set(judge.without) == set(absent) and all(said in judge.without[name] for name, said in absent.items())
    assert set(judge.references) == {"agreement", "artefact", "near_copy"} - set(absent)
    if not judge.references:
        with pytest.raises(ConfigError, match="no test of single samples"):
            judge.require(SCHEMA, None, name="x")


def test_agreement_is_calibrated_on_patients_who_did_not_train_the_segmenter() -> None:
    found = fit_acceptance(evidence(bench=_trained_on(19)), SCHEMA, cases=CASES)
    assert {name: one.count for name, one in found.references.items()} == {
        "agreement": 20,
        "artefact": 39,
        "near_copy": 39,
    }
    few = fit_acceptance(evidence(bench=_trained_on(39)), SCHEMA, cases=CASES)
    assert few.without["agreement"].startswith("0 held-out") and "trained the segmenter" in few.without["agreement"]


def test_a_rate_that_is_no_share_is_refused() -> None:
    with pytest.raises(ConfigError, match="rate is 1.5"):
        fit_acceptance(evidence(), SCHEMA, cases=CASES, rate=1.5)


@pytest.fixture
def saved(judge: Acceptance, tmp_path: Path) -> Path:
    model = as_saved(Segmenter(SegmenterConfig(channels=1, labels=("shell", "core"), spatial_dims=2, width=8)).eval())
    write_acceptance(replace(judge, segmenter=model), tmp_path / "judge", facts={"held_out_dice": {"shell": 0.5}})
    return tmp_path / "judge"


def test_a_folder_gives_the_judge_back(judge: Acceptance, saved: Path, tmp_path: Path) -> None:
    found = Acceptance.load(saved)
    item = items(303, 1)[0]
    own = replace(judge, segmenter=found.segmenter)
    assert found.scores(item.image, item.mask) == own.scores(item.image, item.mask)
    assert (found.schema, found.rate, dict(found.cases)) == (SCHEMA, RATE, CASES)
    names = {"accept.json", "gate.safetensors", "judge.json", "README.md", "real.safetensors", "weights.safetensors"}
    assert {path.name for path in saved.iterdir()} == names
    again = write_acceptance(own, tmp_path / "again", facts={"held_out_dice": {"shell": 0.5}})
    assert again == found.sha256 and len(again) == 64
    assert all((saved / name).read_bytes() == (tmp_path / "again" / name).read_bytes() for name in names)
    card = (saved / "README.md").read_text()
    assert "data of real patients" in card and "do not share" in card and "12 training and 39 held-out volumes" in card
    told = json.loads((saved / ACCEPT_FILE).read_text())
    assert told["thresholds"]["near_copy"] == judge.references["near_copy"].threshold(RATE)
    assert "c100" not in (saved / ACCEPT_FILE).read_text(), "no case is named"


def _cut(folder: Path) -> None:
    path = folder / "real.safetensors"
    path.write_bytes(path.read_bytes()[:-8])


def _relabel(folder: Path) -> None:
    """Held-out volumes are gone, and every hash is right."""
    from safetensors.numpy import load, save

    path, told = folder / "real.safetensors", json.loads((folder / ACCEPT_FILE).read_text())
    path.write_bytes(save({name: one for name, one in load(path.read_bytes()).items() if name != "holdout"}))
    told["files"][path.name] = _sha256(path.read_bytes())
    (folder / ACCEPT_FILE).write_text(json.dumps({**told, "sha256": _own_hash(told)}))


def _edit(**changes: Any) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        info = json.loads((folder / ACCEPT_FILE).read_text())
        (folder / ACCEPT_FILE).write_text(json.dumps({**info, **changes}))

    return act


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (_cut, "is not the file that accept.json names"),
        (lambda folder: (folder / "gate.safetensors").unlink(), "damaged"),
        (lambda folder: (folder / ACCEPT_FILE).write_text("{"), "damaged"),
        (lambda folder: (folder / ACCEPT_FILE).write_text("[]"), "damaged"),
        (lambda folder: (folder / ACCEPT_FILE).unlink(), "holds a segmenter alone"),
        (_edit(rate=0.5), "it was changed"),
        (_edit(format=1), "of format 1, this version reads 2; write it again with `synth evaluate --save-judge`"),
        (_edit(format=3), "of format 3, this version reads 2"),
        (_relabel, "damaged"),
    ],
)
def test_a_damaged_folder_is_refused(harm: Callable[[Path], None], said: str, saved: Path) -> None:
    harm(saved)
    with pytest.raises(CheckpointError, match=said):
        Acceptance.load(saved)
    with pytest.raises(CheckpointError, match="is no judge folder"):
        Acceptance.load(saved / "absent")


def test_a_folder_is_written_whole_or_not_at_all(
    judge: Acceptance, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in saved.iterdir()}

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("evaluation.acceptance_folder.save_gate", full)
    with pytest.raises(OutputError, match="cannot be written"):
        write_acceptance(replace(judge, segmenter=None), saved, facts={})
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    assert [path.name for path in saved.parent.iterdir()] == ["judge"]
    saved.rename(saved.with_name(".judge.old"))  # killed between the two moves
    with pytest.raises(OutputError, match="cannot be written"):
        write_acceptance(replace(judge, segmenter=None), saved, facts={})
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    assert [path.name for path in saved.parent.iterdir()] == ["judge"]


def test_the_former_judge_comes_back_where_the_new_one_cannot_take_its_place(
    judge: Acceptance, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    move = os.replace

    def refuse(source: Path, target: Path) -> None:
        if source.name.endswith(".partial"):
            raise OSError(5, "Input/output error")
        move(source, target)

    monkeypatch.setattr("evaluation.acceptance_folder.os.replace", refuse)
    with pytest.raises(OutputError, match="cannot be written"):
        write_acceptance(replace(judge, segmenter=None), saved, facts={})
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    assert [path.name for path in saved.parent.iterdir()] == ["judge"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"population": "others"}, "population phantoms"),
        ({"channels": ("CT",)}, "channels"),
        ({"labels": SCHEMA.labels[:1]}, "labels"),
        ({"grid": (24, 24)}, "grid"),
        ({"spacing_mm": (1.0, 2.0)}, "spacing"),
    ],
)
def test_a_model_of_other_data_is_refused(judge: Acceptance, changes: dict[str, Any], said: str) -> None:
    judge.require(SCHEMA, None, name="x")
    with pytest.raises(ConfigError, match=f"judge x knows {said}"):
        judge.require(replace(SCHEMA, **changes), None, name="x")


def test_a_fine_tuned_model_may_know_more(judge: Acceptance) -> None:
    more = (*SCHEMA.labels, Label(name="rim", value=3))
    judge.require(replace(SCHEMA, population="phantoms, after brains", labels=more), None, name="x")
    with pytest.raises(ConfigError, match="labels"):
        judge.require(replace(SCHEMA, labels=more), None, name="x")


def test_a_model_of_other_patients_is_refused(judge: Acceptance) -> None:
    def seen(*training: str, holdout: tuple[str, ...] = ()) -> Seen:
        from synth.data.seen import _hashed

        return Seen(salt="s", training=_hashed("s", training), holdout=_hashed("s", holdout))

    judge.require(SCHEMA, seen("b", "a"), name="x")
    with pytest.raises(ConfigError, match="looks for copies of 2 training cases, the model was trained on others"):
        judge.require(SCHEMA, seen("a"), name="x")
    with pytest.raises(ConfigError, match="saw 1 of the cases that judge x takes for held out"):
        judge.require(SCHEMA, seen("a", "b", holdout=("c",)), name="x")
