"""Laws of near copies: the size of the test of single samples, what it finds, whom it must not reject; exposure."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.distance import cdist

from evaluation.acceptance import RATE, Acceptance, Near, fit_acceptance
from evaluation.evidence import Bench, Evidence, Judged
from evaluation.functional.privacy import conformal_p_values, leaning, patient_index
from evaluation.privacy.embeddings import Apart, by_pose
from evaluation.privacy.folds import exposures
from evaluation.privacy.plants import plant
from evaluation.privacy.search import References, rotations
from synth.data.schema import Schema
from synth.rng import numpy_rng
from synth.volume import Label

GRID = (24, 30)
SCHEMA = Schema(
    population="pictures",
    channels=("MR",),
    labels=(Label(name="bright", value=1),),
    grid=GRID,
    spacing_mm=(1.0, 1.0),
    affine=tuple(np.eye(4).ravel().tolist()),
)
COMMON = 10.0 * ndimage.gaussian_filter(numpy_rng("what all share").normal(size=GRID), 3.0)


def patients(side: str, run: int, count: int, each: int = 1) -> list[Judged]:
    """Smooth pictures that share a part, `each` of one patient, and those nearly alike."""
    out = []
    for number in range(count):
        rng = numpy_rng("near copies", side, run, number)
        image = ndimage.gaussian_filter(rng.normal(size=GRID), 1.5) + COMMON
        for scan in range(each):
            noisy = image + 0.01 * rng.normal(size=GRID)
            mask = (noisy > np.quantile(noisy, 0.8)).astype(np.uint8)
            out.append(Judged(f"{side}{number}_{scan}", noisy[None], mask, patient=f"{side}{number}"))
    return out


def judge_of(run: int, each: int = 1, holdout: int = 39) -> tuple[Acceptance, list[Judged]]:
    """A judge with the near-copy test, and the training volumes it knows."""
    train = patients("train", run, 20)
    made = patients("made", run, 1)
    held = patients("held", run, holdout, each)
    judge = fit_acceptance(Evidence(made, train, held, "pictures", bench=Bench()), SCHEMA, cases={})
    return judge.counting(["near_copy"], name="x"), train


def p_values(judge: Acceptance, items: list[Judged]) -> np.ndarray:
    return np.array([judge.references["near_copy"].p_value(score(judge, item)) for item in items])


def score(judge: Acceptance, item: Judged) -> float:
    return judge.scores(item.image, item.mask)["near_copy"]


def by_distance(judge: Acceptance, items: list[Judged]) -> np.ndarray:
    """p-values by distance to training alone."""
    assert judge.near is not None
    known = References(judge.near.training)
    whole = slice(0, len(known.volumes))
    near = [
        [known.compare(one, [whole])[1][0] for one in side] for side in ([i.image for i in items], judge.near.holdout)
    ]
    return conformal_p_values(*near)


@pytest.mark.parametrize("each", [1, 2])
def test_five_percent_of_other_patients_are_rejected(each: int) -> None:
    """Over calibrations; a patient scanned twice is not compared with his own scan, else many more would be."""
    found = [(p_values(judge_of(run, each)[0], patients("more", run, 10)) <= RATE).mean() for run in range(30)]
    assert 0.03 <= np.mean(found) <= 0.07


def test_copies_in_every_disguise_are_found() -> None:
    """No fewer than by distance to training alone."""
    judge, train = judge_of(0)
    copies = [one.item for one in plant(train, 18, seed=1)]
    found = (p_values(judge, copies) <= RATE).mean()
    assert found >= max(0.8, (by_distance(judge, copies) <= RATE).mean())


def test_samples_that_vary_less_than_patients_are_not_taken_for_copies() -> None:
    """They lie nearer to everybody: by distance to training alone most would be rejected, copying nobody."""
    beside, distance = [], []
    for run in range(8):
        judge, train = judge_of(run)
        mean = np.mean([item.image for item in train], axis=0)
        few = [replace(item, image=0.7 * item.image + 0.3 * mean) for item in patients("more", run, 15)]
        beside.append((p_values(judge, few) <= RATE).mean())
        distance.append((by_distance(judge, few) <= RATE).mean())
    assert np.mean(beside) <= 0.1 and np.mean(distance) >= 0.5


def test_patients_that_lie_turned_are_not_taken_for_copies() -> None:
    """Were rotations tried towards training alone, nearly all would be."""
    shares = []
    for run in range(6):
        judge, _ = judge_of(run)
        turned = [replace(item, image=rotations(item.image, 5.0)[0]) for item in patients("more", run, 15)]
        shares.append((p_values(judge, turned) <= RATE).mean())
    assert np.mean(shares) <= 0.15


def test_a_held_out_volume_is_compared_with_other_patients() -> None:
    judge, _ = judge_of(0, each=2)
    assert judge.near is not None
    whose = patient_index([item.whose for item in patients("held", 0, 39, 2)])
    others = [judge.near.score(one, whose != who) for one, who in zip(judge.near.holdout, whose, strict=True)]
    assert judge.references["near_copy"].scores.tolist() == pytest.approx(others)
    assert min(judge.near.score(one) for one in judge.near.holdout) > 100, "beside itself a volume lies at nothing"


def test_a_score_is_the_distance_to_training_over_that_to_hold_out() -> None:
    rng = np.random.default_rng(0)
    train, held = (rng.random((count, 1, 8, 8)).astype(np.float32) for count in (5, 7))
    query = rng.random((1, 8, 8))
    others = np.array([True, False, True, False, True, True, True])
    known = References(np.concatenate([train, held]))
    near, beside = known.compare(query, [slice(0, 5), 5 + np.flatnonzero(others)])[1]
    assert Near(train, held).score(query, others) == pytest.approx(near / beside)
    assert Near(train, held).score(query) == pytest.approx(near / known.compare(query, [slice(5, 12)])[1][0])
    assert known.compare(query, [np.zeros(12, dtype=bool)])[1] == [float("inf")]


def test_the_audit_takes_no_turned_patient_for_a_copy_either() -> None:
    made = [replace(item, image=rotations(item.image, 5.0)[0]) for item in patients("more", 0, 40)]
    sides = Evidence(made, patients("train", 0, 30), patients("held", 0, 79), "pictures")
    found = by_pose(sides, [], "correlation", lambda _: None, Apart((), (), ()))
    p = conformal_p_values(leaning(found.found, found.found_beside), leaning(found.control, found.control_beside))
    assert (p <= RATE).mean() <= 0.15


@pytest.mark.parametrize("spread", [1.0, 0.5])
def test_exposure_compares_patients_with_patients_whatever_samples_are(spread: float) -> None:
    """Samples that vary less lie nearer to training and to hold-out patients alike: 5 % of either have p <= 0.05."""
    rng, clean, copied = np.random.default_rng(3), [], []
    for _ in range(60):
        made, train, held = (rng.normal(size=(n, 12)) for n in (40, 40, 59))
        made *= spread
        for into, samples in ((clean, made), (copied, np.concatenate([made, train[:1] + 0.1]))):
            sides = {"synthetic": samples, "training": train, "holdout": held}
            items = {
                name: [SimpleNamespace(case=f"{name}{i}", whose=f"{name}{i}") for i in range(len(side))]
                for name, side in sides.items()
            }
            distances = SimpleNamespace(to_training=cdist(samples, train), to_holdout=cdist(samples, held))
            fold = SimpleNamespace(evidence=SimpleNamespace(**items), distances={"features": distances})
            rows = exposures([fold], "features")  # pyright: ignore[reportArgumentType]
            into.append((rows[0].patient == "training0", np.mean([row.p_value <= 0.05 for row in rows])))
    assert 0.03 <= np.mean([share for _, share in clean]) <= 0.07
    assert np.mean([first for first, _ in copied]) >= 0.95
