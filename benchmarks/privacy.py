"""Calibration and power of the privacy tests, by simulation and on planted copies of cohort volumes. JSON out.

synth cohort --out COHORT --count 960 --seed 5
synth prepare COHORT --out DATA
python -m benchmarks.privacy --data DATA --out benchmarks/results/privacy.json

Simulated: Gaussian features, generator, training and hold-out of one law, so that nobody copies; then 5 % near-copies.
Beside it the rule of Dar et al. 2024 (95th percentile of training to nearest validation) on the same features.
Cohort: volumes of subjects of their own as samples, training and hold-out, and copies in every disguise among them.
Without --data the simulated part alone.
"""

import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import tyro
from scipy.stats import norm

from benchmarks.keeping import command_line
from evaluation import functional as F
from evaluation.evidence import Judged
from evaluation.extractors import radiomics_extractor
from evaluation.functional.privacy import copy_rate_bound, copy_test_of_distances, leaning, nearest_distances
from evaluation.functional.statistics import clopper_pearson
from evaluation.privacy.plants import DISGUISES, plant
from evaluation.privacy.search import References, cell_grid, cells
from pipelines.evidence import real_set
from pipelines.progress import Progress, progress
from synth.data.prepared import Prepared
from synth.io import write_bytes
from synth.rng import numpy_rng

SIZES = ((904, 120), (5000, 500), (400, 400))
WIDTH = 64
SHIFTS = {
    "none": lambda image: image,
    "offset 0.01": lambda image: image + 0.01,
    "offset 0.02": lambda image: image + 0.02,
    "offset 0.05": lambda image: image + 0.05,
    "gain 0.97": lambda image: 0.97 * image,
    "gain 0.95": lambda image: 0.95 * image,
    "gamma 1.1": lambda image: np.maximum(image, 0) ** 1.1,
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measure the privacy tests and write JSON."""

    out: Path
    data: Path | None = None
    """A prepared cohort; every case of it is used, whatever its split, as no model is involved."""
    repeats: int = 200
    """Simulated sets of each setting."""
    training: int = 120
    """Cohort subjects as training."""
    holdout: int = 400
    """Cohort subjects held out."""
    samples: int = 400
    """Cohort subjects passed off as samples of a generator that copies nobody."""
    gate_subjects: int = 200
    """Cohort subjects on which the blind gate is tried."""
    gates: int = 40
    """Random splits of the cohort on which the blind gate is tried, for each shift."""


def normal(count: int, *name: int | str, width: int = WIDTH) -> np.ndarray:
    """Return standard normal features of a named stream."""
    return numpy_rng("benchmark privacy", *name).normal(size=(count, width))


def rate(values: Sequence[bool]) -> dict[str, object]:
    """Return a share with its exact 95 % interval."""
    low, high = clopper_pearson(int(np.sum(values)), len(values))
    return {"share": round(float(np.mean(values)), 4), "interval": [round(low, 4), round(high, 4)], "n": len(values)}


def copy_test_sizes(repeats: int, bar: Progress) -> dict[str, object]:
    """Return for each |T| / |H| the size at 5 %, its spread over sets, sets with any discovery, and Dar's rule."""
    out: dict[str, object] = {}
    for training, holdout in SIZES:
        size, discovery, rule = [], [], []
        for run in range(repeats):
            made, train, held = (
                normal(n, side, training, run) for n, side in ((400, "s"), (training, "t"), (holdout, "h"))
            )
            found = F.copy_test(made, train, held)
            size.append(float((found.p_values <= 0.05).mean()))
            discovery.append(len(found.flagged) > 0)
            limit = np.quantile(nearest_distances(train[:400], held), 0.05)
            rule.append(float((nearest_distances(made, train) <= limit).mean()))
            bar.advance()
        out[f"{training}/{holdout}"] = {
            "size_at_5": round(float(np.mean(size)), 4),
            "size_sd_over_sets": round(float(np.std(size)), 4),
            "any_discovery_at_q_10": rate(discovery),
            "dar_rule_flags": round(float(np.mean(rule)), 4),
        }
    return out


def narrow(repeats: int, bar: Progress) -> dict[str, object]:
    """Return sets with any discovery where samples copy nobody and vary less than patients do, by their spread."""
    out: dict[str, object] = {}
    for spread in (0.9, 0.7, 0.5):
        flagged: dict[str, list[bool]] = {"copy_test": [], "by distance to training alone": []}
        for run in range(repeats):
            made, train, held = (normal(400, side, "narrow", run) for side in ("s", "t", "h"))
            near = [nearest_distances(side, train) for side in (spread * made, held)]
            flagged["copy_test"].append(len(F.copy_test(spread * made, train, held).flagged) > 0)
            flagged["by distance to training alone"].append(len(copy_test_of_distances(*near).flagged) > 0)
            bar.advance()
        out[f"spread {spread:g}"] = {name: rate(found) for name, found in flagged.items()}
    return out


def planted_features(repeats: int, bar: Progress) -> dict[str, object]:
    """Return recall and false discoveries with 5 % near-copies among 400 samples at |H| = 400."""
    recall, wrong = [], []
    for run in range(repeats):
        made, train, held = (normal(400, side, "planted", run) for side in "sth")
        made[:20] = train[:20] + 0.3 * normal(20, "jitter", run)
        flagged = F.copy_test(made, train, held).flagged
        recall.append(float(np.isin(np.arange(20), flagged).mean()))
        wrong.append(float((flagged >= 20).sum() / max(len(flagged), 1)))
        bar.advance()
    return {"recall": round(float(np.mean(recall)), 4), "false_discoveries": round(float(np.mean(wrong)), 4)}


def set_level(repeats: int, bar: Progress) -> dict[str, object]:
    """Return size at 5 % of the set-level test, matched and with all, and its power at several copy rates."""
    out: dict[str, object] = {}
    for name, share in (("null", 0.0), ("copies 2 %", 0.02), ("copies 5 %", 0.05), ("copies 10 %", 0.1)):
        for matched in (True, False):
            small = []
            for run in range(repeats):
                made, train, held = (
                    normal(n, side, "set", run, width=16) for n, side in ((200, "s"), (120, "t"), (60, "h"))
                )
                made[: round(share * 200)] = train[: round(share * 200)] + 0.1
                test = F.set_level_test(made, train, held, permutations=199, matched=matched, seed=run)
                small.append(test.p_value <= 0.05)
                bar.advance()
            out[f"{name}, {'matched' if matched else 'all patients'}"] = rate(small)
    return out


def gate_and_membership(repeats: int, bar: Progress) -> dict[str, object]:
    """Return how often the gate lets a fair design pass and an interval of a null AUC covers 0.5."""
    passed, covered = [], []
    for run in range(repeats):
        made, train, held = (normal(n, side, "gate", run, width=24) for n, side in ((100, "s"), (120, "t"), (80, "h")))
        passed.append(F.blind_gate(train, held, permutations=199, seed=run).ok)
        found = F.density_ratio_test(made, train, held, rng=numpy_rng("benchmark membership", run))
        covered.append(found.interval[0] <= 0.5 <= found.interval[1])
        bar.advance()
    return {"blind_gate_passes_fair_designs": rate(passed), "null_auc_interval_covers": rate(covered)}


def bounds(repeats: int, bar: Progress) -> dict[str, object]:
    """Return how often the bound of the copy rate and the interval of members found cover, and how wide they are."""
    out: dict[str, object] = {}
    for holdout, n, share in ((60, 100, 0.0), (200, 200, 0.0), (200, 200, 0.05), (400, 400, 0.05), (400, 400, 0.2)):
        covered, width = [], []
        for run in range(repeats):
            rng = numpy_rng("benchmark bound", holdout, n, round(100 * share), run)
            near = [np.where(rng.random(k) < 0.95, 0.0005 * rng.random(k), rng.random(k)) for k in (n, 24)]
            found = np.where(rng.random(n) < share, near[0], rng.random(n))
            control = rng.random(holdout)
            p, planted = (F.conformal_p_values(one, control) for one in (found, near[1]))
            bound = copy_rate_bound(p, planted, holdout=holdout)
            width.append(1.0 if bound is None else bound)
            covered.append(width[-1] >= share)
            bar.advance()
        name = f"copy rate {100 * share:g} %, {holdout} held out, {n} samples"
        out[name] = {**rate(covered), "median_bound": round(float(np.median(width)), 4)}
    for members, others, shift in ((300, 400, 0.0), (300, 400, 1.5), (1000, 1000, 0.0), (1000, 1000, 1.5)):
        truth, covered, width = float(norm.sf(norm.isf(0.01) - shift)), [], []
        for run in range(repeats):
            rng = numpy_rng("benchmark members", members, others, round(10 * shift), run)
            test = F.membership_test(rng.normal(size=members) + shift, rng.normal(size=others), rates=[0.01])
            low, high = test.claims[0.01].interval
            covered.append(low <= truth <= high)
            width.append(high)
            bar.advance()
        name = f"TPR {truth:.3f} at 1 % FPR, {members} members, {others} others"
        out[name] = {**rate(covered), "median_upper_end": round(float(np.median(width)), 4)}
    return out


def cohort(options: Options, bar: Progress) -> dict[str, object]:
    """Return what is found of copies of cohort volumes, each disguise by itself, and how far subjects lie apart."""
    assert options.data is not None
    prepared = Prepared.load(options.data)
    order = numpy_rng("benchmark cohort").permutation(len(prepared.cases))
    sizes = [options.training, options.holdout, options.samples]
    if sum(sizes) > len(order):  # as many as there are, in the same shares
        sizes = [size * len(order) // sum(sizes) for size in sizes]
    edges = np.cumsum([0, *sizes])
    train, held, others = ([prepared.cases[i] for i in order[a:b]] for a, b in zip(edges[:-1], edges[1:], strict=True))
    grid = cell_grid(prepared.schema.grid)
    training = list(real_set(prepared, train))
    beside = list(real_set(prepared, held))
    references = References(np.stack([cells(item.image, grid) for item in (*training, *beside)]).astype(np.float32))

    def distance(item: Judged) -> tuple[float, float]:
        """To the nearest training subject, and to the nearest held out who is another."""
        bar.advance()
        others = [len(training) + i for i, other in enumerate(beside) if other.whose != item.whose]
        near, apart = references.compare(cells(item.image, grid), [slice(0, len(training)), np.array(others)])[1]
        return near, apart

    control, null = (np.array([distance(item) for item in side]) for side in (beside, real_set(prepared, others)))
    planted = plant(training, max(1, round(0.05 * len(null))) * len(DISGUISES), seed=1)
    near = np.array([distance(one.item) for one in planted])
    kinds = np.array([one.kind for one in planted])
    by_kind = {}
    for kind in DISGUISES:
        mixed = null.copy()
        count = max(1, round(0.05 * len(null)))
        mixed[:count] = near[kinds == kind][:count]
        flagged = copy_test_of_distances(leaning(*mixed.T), leaning(*control.T)).flagged
        by_kind[kind] = {
            "distance": _spread(near[kinds == kind, 0]),
            "recall_of_5_percent": round(float(np.isin(np.arange(count), flagged).mean()), 4),
            "false_discoveries": round(float((flagged >= count).sum() / max(len(flagged), 1)), 4),
        }
    clean = copy_test_of_distances(leaning(*null.T), leaning(*control.T))
    return {
        "subjects": {"training": len(train), "holdout": len(held), "samples": len(others)},
        "distance": "1 - NCC of cells in the best flip, shift and rotation",
        "hold_out_to_training": _spread(control[:, 0]),
        "copies": by_kind,
        "nearest_hold_out_over_furthest_copy": round(float(control[:, 0].min() / near[:, 0].max()), 3),
        "size_at_5": round(float((clean.p_values <= 0.05).mean()), 4),
        "flagged_without_copies": len(clean.flagged),
        "note": clean.note,
    }


def cohort_gates(options: Options, bar: Progress) -> dict[str, object]:
    """Return how often the gate catches a hold-out whose intensities are shifted, over random splits of the cohort."""
    assert options.data is not None
    prepared = Prepared.load(options.data)
    items = list(real_set(prepared, prepared.cases[: options.gate_subjects]))
    labels, spacing, features = len(prepared.schema.labels), prepared.schema.spacing_mm, radiomics_extractor()
    out: dict[str, object] = {}
    plain = np.stack([features(item.image, item.mask, labels=labels, spacing_mm=spacing) for item in items])
    for name, shift in SHIFTS.items():
        moved = [replace(item, image=shift(np.asarray(item.image, dtype=np.float64))) for item in items]
        shifted = np.stack([features(item.image, item.mask, labels=labels, spacing_mm=spacing) for item in moved])
        caught = []
        for run in range(options.gates):
            order = numpy_rng("benchmark gates", run).permutation(len(items))
            held, train = order[: len(order) // 2], order[len(order) // 2 :]
            caught.append(not F.blind_gate(plain[train], shifted[held], permutations=199, seed=run).ok)
            bar.advance()
        out[name] = rate(caught)
    return {"subjects": len(items), "caught": out}


def _spread(values: np.ndarray) -> dict[str, float]:
    of: dict[str, Callable[[np.ndarray], float]] = {"min": np.min, "median": np.median, "max": np.max}
    return {name: round(float(act(values)), 5) for name, act in of.items()}


def main(options: Options) -> None:
    """Measure and write JSON."""
    torch.set_num_threads(1)
    n = options.repeats
    result: dict[str, object] = {
        "command": command_line("privacy", DATA=options.data),
        "environment": {"processor": platform.machine(), "numpy": np.__version__},
        "repeats": n,
    }
    with progress("simulated", (len(SIZES) + 3 + 1 + 8 + 1 + 9) * n) as bar:
        result["copy_test"] = copy_test_sizes(n, bar)
        result["generator_that_varies_less"] = narrow(n, bar)
        result["planted_5_percent_at_400"] = planted_features(n, bar)
        result["set_level"] = set_level(n, bar)
        result |= gate_and_membership(n, bar)
        result["bounds_cover"] = bounds(n, bar)
    if options.data is not None:
        with progress("cohort", options.holdout + 2 * options.samples + len(SHIFTS) * options.gates) as bar:
            result["cohort"] = cohort(options, bar)
            result["cohort_blind_gate"] = cohort_gates(options, bar)
    write_bytes(options.out, (json.dumps(result, indent=1) + "\n").encode())
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main(tyro.cli(Options))
