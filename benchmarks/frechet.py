"""Frechet and kernel distances: speed beside peers, bias, recovery, coverage of intervals, power of the test. JSON out.

python -m benchmarks.frechet benchmarks/results/frechet.json [--repeats 3] [--draws 400] [--only speed bias]

Parts that OUT holds already stay, unless they are measured again; `speed` wants an idle machine, the others do not.

speed      seconds from features to distance of ours, of torchmetrics' eigvals of the product of covariances and of
           MONAI's matrix root (scipy.linalg.sqrtm, as clean-fid and pytorch-fid), run in turn in one process on
           the same features; medians of rounds and the median of their ratios. MONAI's is left out above
           --monai-width, where one run takes minutes
bias       mean over sets of one distribution (true 0) and of one moved by 0.1 in each of 64 features (true 0.64)
coverage   share of 95 % intervals that hold the true distance of Gaussian, and of centred exponential, features. Real
           patients have several rows that share half their variance, synthetic rows are independent; law "flat" has
           equal variances, "falling" 1, 1/2, 1/3, ... as features that go together have
directions coverage, and share of intervals that lie above 0, at equal sets and at a move, of 112 features, as they are
           and along as many fixed directions as the report takes for so few patients (evaluation.sections.distribution)
kernel     share of permutation tests with p <= 0.05, and of intervals that hold the truth, for equal sets and for three
           times the spread; MONAI's MMDMetric (mean and standard deviation) on the same sets
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

import monai
import numpy as np
import scipy
import torch
import torchmetrics
import tyro
from monai.metrics.fid import get_fid_score
from monai.metrics.mmd import MMDMetric
from torchmetrics.image.fid import _compute_fid

from evaluation import functional as F  # noqa: N812 - the name users type
from evaluation.sections.distribution import directions_of
from synth.generator import environment
from synth.io import write_bytes

SIZES = ((64, 800), (1280, 200), (2048, 500))
"""(features, samples a side) of the timings."""
Law = Literal["flat", "falling"]
Part = Literal["speed", "bias", "coverage", "directions", "kernel"]
LAWS: tuple[Law, ...] = ("flat", "falling")
Rows = np.ndarray
COHORTS = ((16, 100, 1, 100), (16, 50, 2, 100), (16, 100, 3, 200), (16, 200, 4, 800), (64, 100, 2, 200),
           (64, 200, 2, 400), (64, 400, 2, 800))  # fmt: skip
"""(features, patients, rows of each, synthetic rows)"""
MOVES = ((0.0, 1.0), (0.1, 1.0), (0.3, 1.2))
"""(shift in root mean square standard deviations, factor on the spread) of the synthetic rows."""
SHARED = 0.5


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measure distances of feature sets."""

    out: Annotated[Path, tyro.conf.Positional]
    """The JSON to write."""
    repeats: int = 3
    """Rounds of each timing."""
    draws: int = 400
    """Simulated pairs of sets for each coverage; a quarter of them for bias, half for the kernel test."""
    monai_width: int = 1280
    """Most features at which MONAI's way is timed."""
    widths: tuple[int, ...] = tuple(d for d, _ in SIZES)
    """Feature counts that are timed."""
    only: tuple[Part, ...] = ("speed", "bias", "coverage", "directions", "kernel")

    @property
    def command(self) -> str:
        """The command that repeats this."""
        words = [f"--repeats {self.repeats}", f"--draws {self.draws}", f"--monai-width {self.monai_width}"]
        words += [f"--widths {' '.join(map(str, self.widths))}", f"--only {' '.join(self.only)}"]
        return f"python -m benchmarks.frechet {self.out} {' '.join(words)}"


def torchmetrics_way(x: Rows, y: Rows) -> float:
    """Return the distance as torchmetrics computes it, from features."""
    one, other = torch.from_numpy(x), torch.from_numpy(y)
    return float(_compute_fid(one.mean(dim=0), one.T.cov(), other.mean(dim=0), other.T.cov()))


def monai_way(x: Rows, y: Rows) -> float:
    """Return the distance as MONAI computes it; TypeError on a SciPy whose sqrtm has no `disp`."""
    return float(get_fid_score(torch.from_numpy(x), torch.from_numpy(y)))


def clocked(way: Callable[[Rows, Rows], float], x: Rows, y: Rows) -> tuple[float, float]:
    """Return seconds and value."""
    begin = time.perf_counter()
    value = way(x, y)
    return time.perf_counter() - begin, value


def speed(options: Options) -> list[dict[str, Any]]:
    """Time all ways in turn on the same features."""
    found = []
    for d, n in ((d, n) for d, n in SIZES if d in options.widths):
        rng = np.random.default_rng(d)
        x, y = rng.normal(size=(n, d)), 1.1 * rng.normal(size=(n, d)) + 0.05
        ways: dict[str, Callable[[Rows, Rows], float]] = {"synth": F.frechet_distance, "torchmetrics": torchmetrics_way}
        if d <= options.monai_width:
            ways["monai"] = monai_way
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        values: dict[str, float] = {}
        F.frechet_distance(x[:50], y[:50])
        for _ in range(options.repeats):
            for name, way in ways.items():
                took, values[name] = clocked(way, x, y)
                seconds[name].append(took)
        row: dict[str, Any] = {"features": d, "samples": n, "self_distance": F.frechet_distance(x, x)}
        row["seconds"] = {name: round(float(np.median(took)), 5) for name, took in seconds.items()}
        for name in ways:
            if name != "synth":
                ratio = np.median(np.array(seconds[name]) / np.array(seconds["synth"]))
                row[f"{name}_to_synth"] = round(float(ratio), 1)
                row[f"relative_difference_to_{name}"] = float(f"{abs(values[name] / values['synth'] - 1):.3g}")
        found.append(row)
        print(json.dumps(row), flush=True)
    return found


def scales(law: Law, d: int) -> Rows:
    """Return the standard deviations (d,) of a law."""
    return np.ones(d) if law == "flat" else 1.0 / np.sqrt(np.arange(1, d + 1))


def bias(options: Options) -> list[dict[str, Any]]:
    """Mean distance of sets of one distribution, and of one moved, at 64 features."""
    found = []
    for law, n in product(LAWS, (100, 200, 800)):
        sd = scales(law, 64)
        rows = []
        for seed in range(max(4, options.draws // 4)):
            rng = np.random.default_rng([seed, n])
            x, y = rng.normal(size=(n, 64)) * sd, rng.normal(size=(n, 64)) * sd
            moved = F.frechet_distance(x, y + 0.1, debias=True)
            rows.append((F.frechet_distance(x, y), F.frechet_distance(x, y, debias=True), moved))
        plain, null, far = np.mean(rows, axis=0).tolist()
        error = (np.std(rows, axis=0)[1:] / np.sqrt(len(rows))).tolist()
        found.append({
            "law": law, "features": 64, "samples": n, "sets": len(rows), "null_plain": round(plain, 4),
            "null": round(null, 4), "null_standard_error": round(error[0], 4), "true_0.64": round(far, 4),
            "true_0.64_standard_error": round(error[1], 4),
        })  # fmt: skip
        print(json.dumps(found[-1]), flush=True)
    return found


def draw(rng: np.random.Generator, patients: int, rows: int, sd: Rows, exponential: bool) -> Rows:
    """Return rows (patients * rows, d) that share half their variance within a patient; the marginal has spread sd."""

    def standard(n: int) -> Rows:
        return rng.exponential(size=(n, len(sd))) - 1.0 if exponential else rng.normal(size=(n, len(sd)))

    if rows == 1:
        return standard(patients) * sd
    shared = np.repeat(standard(patients), rows, axis=0)
    return (SHARED**0.5 * shared + (1 - SHARED) ** 0.5 * standard(patients * rows)) * sd


def covered(
    law: Law, cohort: Sequence[int], move: Sequence[float], draws: int, *, exponential: bool = False
) -> dict[str, Any]:
    """Return how often the interval holds the true distance in one setting."""
    d, patients, each, synthetic = cohort
    shift, factor = move
    sd = scales(law, d)
    step = shift * float(np.sqrt((sd**2).mean()))
    truth = d * step**2 + float(((factor - 1.0) * sd) @ ((factor - 1.0) * sd))
    whose = np.repeat(np.arange(patients), each)
    found, begin = [], time.process_time()
    for seed in range(draws):
        rng = np.random.default_rng([seed, d, patients, each])
        real = draw(rng, patients, each, sd, exponential)
        made = draw(rng, synthetic, 1, factor * sd, exponential) + step
        one = F.frechet_interval(made, real, clusters_y=whose, seed=seed)
        low, high = one.interval
        found.append((one.value, one.standard_error**2, low <= truth <= high, high < truth, one.plain))
    value, variance, share, below, plain = np.mean(found, axis=0).tolist()
    row = {
        "law": ("exponential " if exponential else "") + law, "features": d, "patients": patients,
        "rows_each": each, "synthetic": synthetic, "shift": shift, "factor": factor, "true": round(truth, 4),
        "plain": round(plain, 4), "value": round(value, 4), "sd": round(float(np.std(found, axis=0)[0]), 4),
        "standard_error": round(variance**0.5, 4), "coverage": round(share, 4), "below_truth": round(below, 4),
        "coverage_standard_error": round((share * (1 - share) / draws) ** 0.5, 4),
        "processor_seconds_each": round((time.process_time() - begin) / draws, 4),
    }  # fmt: skip
    print(json.dumps(row), flush=True)
    return row


def coverage(options: Options) -> dict[str, Any]:
    """Return coverage in all settings and its range."""
    rows = [covered(law, cohort, move, options.draws) for law in LAWS for cohort in COHORTS for move in MOVES]
    rows += [
        covered("falling", cohort, move, options.draws, exponential=True) for cohort in COHORTS[:3] for move in MOVES
    ]
    found = [row["coverage"] for row in rows]
    return {
        "draws": options.draws, "settings": len(rows), "lowest": min(found), "highest": max(found),
        "mean": round(float(np.mean(found)), 4),
        "within_92_to_98": int(sum(0.92 <= value <= 0.98 for value in found)), "rows": rows,
    }  # fmt: skip


def long_tailed(rng: np.random.Generator, n: int, d: int) -> Rows:
    """Return log-normal features (n, d) of mean 0 and spread 1."""
    return (np.exp(rng.normal(size=(n, d))) - np.exp(0.5)) / np.sqrt((np.e - 1.0) * np.e)


def directions(options: Options) -> list[dict[str, Any]]:
    """Return coverage at few patients and many features, with and without leaving directions out."""
    found, d = [], 112
    for n, law, tails in product((50, 100, 200), LAWS, (0, 1)):
        sd, fixed = scales(law, d), directions_of(d, n)
        for axes, (shift, factor) in ((axes, move) for axes in (None, fixed) for move in (MOVES[0], MOVES[2])):
            turn = np.eye(d) if axes is None else axes
            step = np.full(d, shift * float(np.sqrt((sd**2).mean()))) @ turn
            truth = float(step @ step) + (factor - 1.0) ** 2 * float(((sd[:, None] * turn) ** 2).sum())
            rows = []
            for seed in range(max(20, options.draws // 4)):
                rng = np.random.default_rng([seed, n])
                x, y = (long_tailed(rng, n, d) if tails else rng.normal(size=(n, d)) for _ in range(2))
                low, high = F.frechet_interval(factor * (x * sd) @ turn + step, (y * sd) @ turn, seed=seed).interval
                rows.append((low <= truth <= high, low > truth))
            covers, above = np.mean(rows, axis=0).tolist()
            found.append({
                "features": d, "patients": n, "law": f"{'log-normal ' if tails else ''}{law}", "shift": shift,
                "directions": turn.shape[1], "sets": len(rows), "coverage": round(covers, 4),
                "above_truth": round(above, 4),
            })  # fmt: skip
            print(json.dumps(found[-1]), flush=True)
    return found


def kernel(options: Options) -> dict[str, Any]:
    """Return size and power of the permutation test, and what MONAI's MMDMetric makes of the same sets."""
    draws, sets = max(10, options.draws // 2), (100, 60, 16)
    n, m, d = sets
    p: dict[str, list[float]] = {"equal": [], "three times the spread": []}
    theirs: dict[str, list[float]] = {name: [] for name in p}
    covers: dict[str, list[bool]] = {name: [] for name in p}
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        x, y = rng.normal(size=(n, d)), rng.normal(size=(m, d))
        for name, factor in (("equal", 1.0), ("three times the spread", 3.0)):
            p[name].append(F.kernel_test(factor * x, y, resamples=199, seed=seed).p_value)
            truth = 3.0 / d * (factor**2 - 1.0) ** 2
            low, high = F.kernel_interval(factor * x, y, seed=seed).interval
            covers[name].append(low <= truth <= high)
            sides = (torch.from_numpy(v[:m]) for v in (factor * x, y))
            theirs[name].append(float(MMDMetric()(*sides)))
    try:
        raises = ""
        MMDMetric()(torch.zeros(n, d), torch.zeros(m, d))
    except Exception as error:
        raises = f"{type(error).__name__}: {error}"
    row = {
        "samples": [n, m], "features": d, "sets": draws,
        "share_p_below_0.05": {name: round(float(np.mean(np.array(values) <= 0.05)), 4) for name, values in p.items()},
        "interval_coverage": {name: round(float(np.mean(held)), 4) for name, held in covers.items()},
        "monai_mmd": {name: [round(float(np.mean(v)), 5), round(float(np.std(v)), 5)] for name, v in theirs.items()},
        "monai_at_unequal_sizes": raises or "no error",
    }  # fmt: skip
    print(json.dumps(row), flush=True)
    return row


def main(options: Options) -> None:
    """Measure and write the JSON; parts that another run left in it stay."""
    parts: dict[str, Callable[[Options], Any]] = {
        "speed": speed,
        "bias": bias,
        "coverage": coverage,
        "directions": directions,
        "kernel": kernel,
    }
    versions = {"scipy": scipy.__version__, "torchmetrics": torchmetrics.__version__, "monai": monai.__version__}
    versions["dtype"] = "float64"
    before = json.loads(options.out.read_text()) if options.out.exists() else {}
    commands = before.get("commands", {}) | dict.fromkeys(options.only, options.command)
    found = before | {name: part(options) for name, part in parts.items() if name in options.only}
    result = {
        "commands": {name: commands[name] for name in parts if name in commands},
        "environment": {**environment(torch.device("cpu")), **versions},
        **{name: found[name] for name in parts if name in found},
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(options.out, (json.dumps(result, indent=1) + "\n").encode())


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
