"""The learning rate and steps that utility trains with, held against others on training patients alone.

synth cohort --out COHORT --count 360 --seed 1
synth prepare COHORT --out DATA
python -m benchmarks.utility_settings --data DATA --work WORK --out benchmarks/results/utility-settings.json

Test and hold-out patients of DATA are never read: some of its training patients are put apart and scored, and the real
arm is trained on a tenth of the others, and on all of them. Steps are enough where all of them gain on a tenth: before
that no arm can show what its volumes are worth. WORK keeps every network's scores, so that a killed run goes on.
"""

import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from evaluation.utility.arms import Volumes
from evaluation.utility.config import UtilityConfig
from evaluation.utility.run import Result, digest_of, run_job
from evaluation.utility.tables import Measure, measure
from pipelines.evidence import real_set
from pipelines.workers import cores
from synth.data.prepared import Prepared
from synth.rng import numpy_rng


@dataclass(frozen=True, kw_only=True)
class Options:
    """Train the real arm at each rate and write JSON."""

    data: Path
    work: Path
    out: Path
    rates: tuple[float, ...] = (3e-3, 1e-2, 3e-2)
    fractions: tuple[float, ...] = (0.1, 1.0)
    scored: int = 12
    """Training patients put apart, on which rates are compared."""
    steps: tuple[int, ...] = (300, 1000)
    width: int = 16
    workers: int = 0
    """Processes of one thread each; 0 = one a core."""


def main(options: Options) -> None:
    """Train, score, write."""
    prepared = Prepared.load(options.data)
    patients = sorted({case.patient for case in prepared.split("train")})
    drawn = numpy_rng(0, "utility settings").permutation(len(patients))[: options.scored]
    apart = {patients[i] for i in drawn}
    sides = [[c for c in prepared.split("train") if (c.patient in apart) == held] for held in (False, True)]
    real, scored = (list(real_set(prepared, side)) for side in sides)
    labels = tuple(label.name for label in prepared.schema.labels)
    volumes = Volumes(real, real[:1], scored, labels, prepared.schema.spacing_mm)
    plain = UtilityConfig(arms=("R",), fractions=options.fractions, seeds=(0,), width=options.width)
    runs = [
        (fraction, replace(plain, rates=(rate,), steps=steps))
        for steps in options.steps
        for fraction in options.fractions
        for rate in options.rates
    ]
    started = time.perf_counter()
    workers = min(options.workers or cores(), len(runs))
    with ProcessPoolExecutor(
        workers, get_context("spawn"), initializer=_start, initargs=(volumes, options.work)
    ) as pool:
        # the longest first
        order = sorted(range(len(runs)), key=lambda place: -runs[place][1].steps)
        begun = {place: pool.submit(_run, *runs[place]) for place in order}
        rows = []
        for place in range(len(runs)):
            rows.append(_row(runs[place], begun[place].result(), labels))
            print(rows[-1], flush=True)
    result = {
        "command": "python -m benchmarks.utility_settings --data DATA --work WORK --out benchmarks/results/"
        f"{options.out.name} --rates {' '.join(f'{rate:g}' for rate in options.rates)} --scored {options.scored} "
        f"--steps {' '.join(map(str, options.steps))} --width {options.width}",
        "population": prepared.schema.population,
        "scored_on": f"{len(scored)} volumes of {len(apart)} training patients, put apart; no test or hold-out patient",
        "seconds": round(time.perf_counter() - started),
        "rows": rows,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")


_shared: list[tuple[Volumes, Path]] = []


def _start(volumes: Volumes, work: Path) -> None:
    _shared.append((volumes, work))


def _run(fraction: float, config: UtilityConfig) -> Result:
    volumes, work = _shared[0]
    digest = digest_of(volumes, config)
    job = config.job("R", fraction, 0.0, 0)
    return run_job(job, volumes, config, work / digest, digest=digest, tell=lambda: None)


def _row(run: tuple[float, UtilityConfig], found: Result, labels: Sequence[str]) -> dict[str, Any]:
    told = {"steps": run[1].steps, "fraction": run[0], "real": found.real, "rate": found.rate}
    told["dice"] = _mean(found.rows, measure("dice"))
    return {**told, "by_label": {label: _mean(found.rows, measure("dice", at)) for at, label in enumerate(labels)}}


def _mean(rows: Sequence[Mapping[str, Any]], read: Measure) -> float:
    """Return the mean of a score over the cases that have one."""
    return round(float(np.nanmean([read(row) for row in rows])), 4)


if __name__ == "__main__":
    main(tyro.cli(Options))
