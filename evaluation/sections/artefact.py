"""Whether samples hold what real volumes do not: a gate learned from real patches, corrupted ones as its control.

Patients are counted, not volumes: however often one was scanned, he is one answer to what real volumes are like.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from evaluation.artefact import Gate, auroc, fit_gate, why_no_gate
from evaluation.charts import LEAST_DRAWN, Histogram
from evaluation.evidence import Evidence, Judged, Tell
from evaluation.functional import conformal_p_values
from evaluation.functional.statistics import SMALLEST as SMALLEST_INTERVAL
from evaluation.functional.statistics import clopper_pearson, expanded_tail
from evaluation.report import Figure, Report, Verdict
from synth.augment import corrupt
from synth.rng import numpy_rng

LEVEL = 0.05
SMALLEST_HOLDOUT = 19
"""Held-out patients below which no p-value reaches 0.05."""
CONTROLS = (
    "gaussian_noise",
    "blur",
    "offset",
    "slice_duplication",
    "elastic",
    "checkerboard",
    "contrast",
    "thick_slices",
    "ghosting",
    "blocks",
    "slice_dropping",
    "spike",
)
SEVERITY = 2
_TRIALS, _RESAMPLED, _SEES = 24, 1000, 0.8
_ARTEFACTS, _POWER = 0.2, 0.8
"""The share of artefacts that a pass would have seen, and how surely."""


def artefact(evidence: Evidence, report: Report, tell: Tell) -> None:
    """Score every sample, share of them flagged at p <= 0.05, and the gate's AUROC on corrupted held-out volumes."""
    made, train, held = evidence.synthetic, evidence.training, evidence.holdout
    whose = [item.whose for item in held]
    patients = len(set(whose))
    why = why_no_gate(item.whose for item in train)
    if why:
        report.not_computed["artefact.share_flagged"] = report.not_computed["artefact.auroc"] = why
        return
    gate = fit_gate(_told(train, tell)).calibrated(_told(held, tell))
    scores = [gate.score(image) for image in _told(made, tell)]
    for row, score in zip(report.samples, scores, strict=True):
        row["artefact"] = float(f"{score:.6g}")
    if patients >= LEAST_DRAWN:
        sets = {"synthetic": scores, "held out": gate.calibration.tolist()}
        report.charts.append(("artefact", Histogram("Scores of the artefact gate", "how unlike real volumes", sets)))
    control = _control(evidence, gate, tell)
    if control is None:
        report.not_computed["artefact.auroc"] = "needs held-out volumes to corrupt"
    else:
        report.metrics["artefact.auroc"] = control
    if patients < SMALLEST_HOLDOUT:
        report.not_computed["artefact.share_flagged"] = (
            f"{patients} held-out patients; below {SMALLEST_HOLDOUT} no p-value reaches {LEVEL:g}"
        )
        return
    # high scores are unlike: their negative plays the distance, small where it counts
    p_values = conformal_p_values(-np.array(scores), -gate.calibration, patients=whose)
    for row, p in zip(report.samples, p_values, strict=True):
        row["artefact_p"] = float(f"{p:.6g}")
    _share(report, int((p_values <= LEVEL + 1e-9).sum()), len(made), patients, control)


def _told(items: Sequence[Judged], tell: Tell) -> Iterator[np.ndarray]:
    for item in items:
        yield item.image
        tell("gated")


def _share(report: Report, flagged: int, n: int, held: int, control: Figure | None) -> None:
    """Add the share of `n` samples that are flagged, by `held` patients, and the verdict on it."""
    from scipy import stats

    rank = int(np.floor(LEVEL * (held + 1) + 1e-9))
    expected = rank / (held + 1)
    report.metrics["artefact.share_flagged"] = Figure(
        flagged / n, n, "lower", "share of samples at p <= 0.05", clopper_pearson(flagged, n), floor=expected
    )
    # how many of n volumes like the held-out ones would be flagged: exact for one volume of each held-out patient,
    # those being a sample too; more volumes of each place the threshold better, which this does not count on
    chance = float(stats.betabinom(n, rank, held + 1 - rank).sf(flagged - 1))
    sees = control is not None and control.value >= _SEES
    counts = np.arange(n + 1)
    least = int(
        np.searchsorted(-stats.betabinom(n, rank, held + 1 - rank).sf(counts - 1), -LEVEL)
    )  # no chance any more
    power = float(stats.binom(n, _ARTEFACTS + (1.0 - _ARTEFACTS) * expected).sf(least - 1))
    strong = power >= _POWER
    ok = (False if chance < LEVEL - 1e-9 else True if strong else None) if sees else None
    told = f"{flagged} of {n} samples are less like real volumes than 95 % of {held} held-out patients' are; "
    told += f"of real ones about {expected * n:.1f} would be (p = {chance:.2g})"
    if not sees:
        told += "; but the gate does not tell corrupted volumes apart here, so that this decides nothing"
    elif ok is None:
        told += f"; with {n} samples a set of which {_ARTEFACTS:.0%} are artefacts would pass too: more would decide"
    report.verdicts["artefact"] = Verdict(ok, told)


def trials_of(held: int) -> int:
    """Return how many corrupted volumes the gate is tried on, of so many held-out ones."""
    return max(min(held, _TRIALS), len(CONTROLS)) if held else 0


def _control(evidence: Evidence, gate: Gate, tell: Tell) -> Figure | None:
    """Return the AUROC of held-out volumes, each corrupted in one way, against clean ones; bootstrap by patient."""
    held = evidence.holdout
    if not held:
        return None
    members: dict[str, list[int]] = {}
    for place, item in enumerate(held):
        members.setdefault(item.whose, []).append(place)
    turns = sorted((turn, place) for places in members.values() for turn, place in enumerate(places))
    corrupted: list[list[float]] = [[] for _ in held]
    for trial in range(trials_of(len(held))):
        place = turns[trial % len(held)][1]  # one volume of each patient before a second of any
        name = CONTROLS[trial % len(CONTROLS)]
        image, _ = corrupt(held[place].image, name, SEVERITY, seed=evidence.seed + trial)
        corrupted[place].append(gate.score(image))
        tell("corrupted")
    clean = gate.calibration
    value = auroc(np.concatenate([np.array(row) for row in corrupted]), clean)
    groups = [
        (np.array([score for i in places for score in corrupted[i]]), clean[places]) for places in members.values()
    ]
    tried = sum(bool(len(above)) for above, _ in groups)
    unit = f"{len(CONTROLS)} corruptions of severity {SEVERITY} against clean"
    if len(groups) < SMALLEST_INTERVAL:
        return Figure(value, tried, "higher", unit)
    rng, drawn = numpy_rng(evidence.seed, "artefact"), []
    for _ in range(_RESAMPLED):
        chosen = [groups[i] for i in rng.integers(len(groups), size=len(groups))]
        above = np.concatenate([scores for scores, _ in chosen])
        if len(above):
            drawn.append(auroc(above, np.concatenate([scores for _, scores in chosen])))
    tail = expanded_tail(0.025, len(groups))
    interval = float(np.quantile(drawn, tail)), float(np.quantile(drawn, 1 - tail))
    return Figure(value, tried, "higher", unit, interval)
