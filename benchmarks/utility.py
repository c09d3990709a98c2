"""Downstream utility of brain-tiny: what its pairs are worth to a segmenter, beside and instead of real volumes.

synth cohort --out COHORT --count 360 --seed 1
synth prepare COHORT --out DATA
python -m benchmarks.utility --data DATA --work WORK --out benchmarks/results/utility.json

DATA is what the model was trained on; where the model records its patients, that is checked. Its training patients are
the real arm, its test patients are tested on; the hold-out patients, which chose the model's checkpoint, are left out.
WORK keeps the pairs and every network's scores, so that a killed run goes on. At a tenth of the real patients: R,
R + S, R + classical augmentation, R repeated and R + copies; S alone stands against all real patients.
"""

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import tyro

from evaluation.evidence import Evidence
from evaluation.report import Report
from evaluation.sections.utility import utility
from evaluation.utility.config import UtilityConfig
from evaluation.utility.run import UtilityScores, collected
from pipelines.cli import run
from pipelines.evidence import seen_by_model, synthetic_set
from pipelines.judges import class_attribute
from pipelines.utility import run_experiment, unseen, volumes_of
from synth.data.prepared import Prepared
from synth.data.seen import require_trained_on


@dataclass(frozen=True, kw_only=True)
class Options:
    """Generate pairs, train every arm and write JSON."""

    data: Path
    work: Path
    out: Path
    model: str = "brain-tiny"
    pairs: int = 100
    """Synthetic pairs, contrasts in turn."""
    fraction: float = 0.1
    """Share of the real training patients of the small arms."""
    seeds: int = 3
    steps: int = 300
    width: int = 16
    arms: tuple[str, ...] = ("R", "RS", "RA", "RR", "RT")
    """Arms at that share; S, and R at all patients, are always there."""
    classes: bool = False
    """Also recognise the contrast: a second, smaller experiment."""
    tests: int = 0
    """Test cases; 0 = all."""
    workers: int = 0
    """Processes of one thread each; 0 = one a core."""


def main(options: Options) -> None:
    """Generate, train, compare, write."""
    started = time.perf_counter()
    pairs = options.work / "pairs"
    made = ["generate", options.model, "--out", str(pairs), "--count", str(options.pairs), "--spread", "contrast"]
    assert run(made[0], [*made[1:], "--workers", str(options.workers)]) == 0, "the pairs were not generated"
    generated = time.perf_counter() - started
    prepared, seen = Prepared.load(options.data), seen_by_model(pairs)
    if seen is not None:
        require_trained_on(prepared, seen)
    synthetic = synthetic_set(pairs, prepared.schema, attribute=class_attribute(prepared.schema))
    test = unseen(prepared, seen)
    volumes = volumes_of(prepared, synthetic, test[: options.tests or len(test)])
    tasks = ("segmentation", "classification") if options.classes else ("segmentation",)
    found: list[UtilityScores] = []
    for task in tasks:
        small = UtilityConfig(
            task=task,
            arms=options.arms,
            fractions=(options.fraction,),
            seeds=tuple(range(options.seeds)),
            steps=options.steps,
            width=options.width,
        )
        whole = replace(small, arms=("R", "S"), fractions=(1.0,))
        parts = [run_experiment(prepared, volumes, c, options.work, workers=options.workers) for c in (small, whole)]
        for part in parts:
            assert not part.why_not, part.why_not
        both = replace(small, arms=(*options.arms, "S"), fractions=(options.fraction, 1.0))
        found.append(collected([one for part in parts for one in part.results], volumes, both))
    report = Report(prepared.schema.population)
    evidence = Evidence(synthetic, volumes.real, volumes.test, prepared.schema.population, utility=found)
    utility(evidence, report, lambda _: None)
    told = report.plain()
    result = {
        "command": f"python -m benchmarks.utility --data DATA --work WORK --out {options.out} --pairs {options.pairs} "
        f"--fraction {options.fraction:g} --seeds {options.seeds} --steps {options.steps} --width {options.width} "
        f"--arms {' '.join(options.arms)}" + (" --classes" if options.classes else ""),
        "population": prepared.schema.population,
        "model_records_its_patients": seen is not None,
        "n": {"real": len(volumes.real), "synthetic": len(synthetic), "test": len(volumes.test)},
        "seconds": {"generating": round(generated, 1), "all of this run": round(time.perf_counter() - started, 1)},
        **{name: told[name] for name in ("notes", "verdicts", "metrics", "not_computed")},
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    for name, verdict in sorted(report.verdicts.items()):
        print(f"{name}: {verdict.why}")


if __name__ == "__main__":
    main(tyro.cli(Options))
