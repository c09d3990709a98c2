"""How well the artefact gate tells corrupted volumes from clean ones, beside patch-wise alternatives. JSON out.

synth cohort --out COHORT --count 360 --seed 1
synth prepare COHORT --out DATA
python -m benchmarks.artefact DATA benchmarks/results/artefact.json --training 100 --held-out 60

The gate is learned from the first `training` cases, and calibrated on the next `held_out`, of other patients; these,
corrupted, are told from themselves clean. AUROC by corruption and severity, for the gate and, on the same patch
descriptors, for the mean of the most unlikely 5 % of patches by Mahalanobis distance (as PaDiM, without position) and
by distance to the nearest 3 of 8000 real patches (as PatchCore). `local` is severity 4 in one cube of 16 voxels alone.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from scipy.spatial import KDTree

from benchmarks.keeping import command_line
from evaluation.artefact import auroc, describe, fit_gate
from synth.augment import CORRUPTIONS, corrupt
from synth.data.prepared import Prepared
from synth.errors import ConfigError
from synth.io import write_bytes
from synth.rng import numpy_rng

_SIDE = 16
Score = Callable[[np.ndarray], float]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measure and write JSON."""

    data: tyro.conf.Positional[Path]
    out: tyro.conf.Positional[Path]
    training: int = 100
    held_out: int = 60
    each: int = 20
    """Held-out volumes behind each corruption and severity."""
    severities: tuple[int, ...] = (1, 2, 3)


def patchwise(images: list[np.ndarray]) -> dict[str, Score]:
    """Return the two alternatives, learned from `images`."""
    rng = numpy_rng(0, "patches")
    rows = np.concatenate([found[rng.permutation(len(found))[:400]] for found, _ in map(describe, images)])
    centre, spread = rows.mean(axis=0), rows.std(axis=0) + 1e-6
    z = (rows - centre) / spread
    factor = np.linalg.cholesky(np.linalg.inv(np.cov(z.T) + 0.02 * np.eye(z.shape[1])))
    core = KDTree((z @ factor)[rng.permutation(len(z))[:8000]])

    def white(image: np.ndarray) -> np.ndarray:
        return ((describe(image)[0] - centre) / spread) @ factor

    def top(values: np.ndarray) -> float:
        return float(np.sort(values)[-max(len(values) // 20, 1) :].mean())

    return {
        "patch_mahalanobis_top_5": lambda image: top((white(image) ** 2).sum(axis=1)),
        "patch_nearest_3_top_5": lambda image: top(np.asarray(core.query(white(image), k=3)[0]).mean(axis=1)),
    }


def spoilt(image: np.ndarray, name: str, severity: int, seed: int) -> np.ndarray:
    """Return the image corrupted; severity 0: at severity 4 inside one cube alone."""
    if severity:
        return corrupt(image, name, severity, seed=seed)[0]
    whole, rng = corrupt(image, name, 4, seed=seed)[0], numpy_rng(seed, "place")
    starts = [int(rng.integers(n // 4, max(3 * n // 4 - _SIDE, n // 4 + 1))) for n in image.shape[1:]]
    cube = (slice(None), *(slice(start, start + _SIDE) for start in starts))
    out = image.copy()
    out[cube] = whole[cube]
    return out


def main(options: Options) -> None:
    """Learn, score and write JSON after each corruption."""
    prepared = Prepared.load(options.data)
    cases = prepared.cases[: options.training + options.held_out]
    if len(cases) < options.training + options.held_out:
        raise ConfigError(f"{options.data} has {len(prepared.cases)} cases; {options.training} + {options.held_out}")
    train, held = ([np.array(prepared.image(case)) for case in part] for part in (
        cases[: options.training], cases[options.training :],
    ))  # fmt: skip
    shared = {case.patient for case in cases[: options.training]} & {c.patient for c in cases[options.training :]}
    if shared:
        raise ConfigError(f"{len(shared)} patients would be on both sides; choose --training so that none is")
    began, cpu = time.perf_counter(), time.process_time()
    gate = fit_gate(train)
    fitted, fitted_cpu = time.perf_counter() - began, time.process_time() - cpu
    gate = gate.calibrated(held)
    scores: dict[str, Score] = {"gate": gate.score, **patchwise(train)}
    clean = {name: [score(image) for image in held] for name, score in scores.items()}
    about = {
        "command": command_line("artefact", DATA=options.data),
        "population": prepared.schema.population,
        "n": [len(train), len(held), options.each],
        "fit_seconds": round(fitted, 2),
        "fit_cpu_seconds": round(fitted_cpu, 2),
        "clean_median": round(float(np.median(clean["gate"])), 4),
    }
    rows: list[dict[str, object]] = []
    found: dict[str, list[float]] = {name: [] for name in scores}
    for corruption in CORRUPTIONS:
        for severity in (*options.severities, 0):
            chosen = [(options.each * len(rows) + index) % len(held) for index in range(options.each)]
            made = [spoilt(held[item], corruption, severity, seed) for seed, item in enumerate(chosen)]
            row: dict[str, object] = {"corruption": corruption, "severity": severity or "local"}
            for name, score in scores.items():
                value = auroc([score(image) for image in made], clean[name])
                row[name] = round(value, 4)
                if severity:
                    found[name].append(value)
            rows.append(row)
            print(json.dumps(row), flush=True)
        means = {f"mean_auroc_{name}": round(float(np.mean(values)), 4) for name, values in found.items()}
        write_bytes(options.out, (json.dumps({**about, **means, "rows": rows}, indent=1) + "\n").encode())


if __name__ == "__main__":
    main(tyro.cli(Options))
