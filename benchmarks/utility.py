"""Downstream utility of brain-tiny: what its pairs are worth to a segmenter, beside and instead of real volumes.

synth cohort --out COHORT --count 360 --seed 1
synth prepare COHORT --out DATA
python -m benchmarks.utility --data DATA --work WORK --out benchmarks/results/utility.json

DATA is what the model was trained on, last or before it was fine-tuned. Its training patients are the real arm, its
test patients are tested on: the model must have seen none of them, which is checked where it records its patients. The
hold-out patients, which chose the model's checkpoint, are left out. Whom the model saw beside stands in the JSON.
At a tenth of the real patients: R, R + S, R + classical augmentation, R repeated and R + copies; beside them G, all
real patients of DATA, and S, which stands against G.

WORK keeps the pairs and every network's scores: the same command goes on after a kill, and says how long the rest
takes.
`--smoke` runs all of it in small on a cohort of its own, for the way alone: its figures mean nothing.
"""

import json
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import tyro

from evaluation.evidence import Evidence
from evaluation.report import Report
from evaluation.sections.utility import utility
from evaluation.utility.arms import Volumes
from evaluation.utility.config import Task, UtilityConfig
from evaluation.utility.run import UtilityScores, digest_of
from pipelines.cli import run
from pipelines.evidence import seen_by_model, synthetic_set
from pipelines.judges import class_attribute
from pipelines.machine import device_of
from pipelines.origins import seen_beside
from pipelines.utility import run_experiment, unseen, volumes_of
from synth.data.prepared import Prepared
from synth.data.seen import Seen
from synth.errors import Interrupted

SMOKE = {"pairs": 4, "fraction": 0.5, "seeds": 1, "steps": 2, "width": 8, "arms": ("R", "RS"), "tests": 5}
"""Options of --smoke."""
_SMOKE_CASES, _SMOKE_STEPS = 16, 2


@dataclass(frozen=True, kw_only=True)
class Options:
    """Generate pairs, train every arm and write JSON."""

    data: Path | None = None
    """The prepared folder; --smoke makes its own."""
    work: Path
    out: Path
    model: str = "brain-tiny"
    pairs: int = 100
    """Synthetic pairs, contrasts in turn."""
    fraction: float = 0.1
    """Share of the real training patients of the small arms."""
    seeds: int = 3
    steps: int = 1000
    width: int = 16
    rates: tuple[float, ...] = (1e-2,)
    """Learning rates; of several, each network takes the best on training patients: about twice the time."""
    arms: tuple[str, ...] = ("R", "RS", "RA", "RR", "RT")
    """Arms at that share; G, real at all patients, and S are always there."""
    classes: bool = False
    """Also recognise the contrast: a second, smaller experiment."""
    tests: int = 0
    """Test cases; 0 = all."""
    workers: int = 0
    """Processes of one thread each; 0 = one a core."""
    device: str = "cpu"
    """Where the networks are trained: cpu, cuda, cuda:i or auto."""
    smoke: bool = False
    """All of it in small, to try the way."""

    @property
    def command(self) -> str:
        """What was run, without places of this machine."""
        said = f"python -m benchmarks.utility --data DATA --work WORK --out benchmarks/results/{self.out.name}"
        said += f" --model {self.model if '/' not in self.model else 'MODEL'} --pairs {self.pairs} --tests {self.tests}"
        said += f" --fraction {self.fraction:g} --seeds {self.seeds} --steps {self.steps} --width {self.width}"
        said += f" --rates {' '.join(f'{rate:g}' for rate in self.rates)} --arms {' '.join(self.arms)}"
        said += "" if self.device == "cpu" else f" --device {self.device}"
        return said + (" --classes" if self.classes else "") + (" --smoke" if self.smoke else "")

    def configs(self) -> list[UtilityConfig]:
        """One experiment a task."""
        tasks: list[Task] = ["segmentation", "classification"] if self.classes else ["segmentation"]
        return [
            UtilityConfig(
                task=task,
                arms=tuple(dict.fromkeys((*self.arms, "G", "S"))),
                fractions=(self.fraction,),
                seeds=tuple(range(self.seeds)),
                steps=self.steps,
                width=self.width,
                rates=self.rates,
                device=str(device_of(self.device)),
            )
            for task in tasks
        ]


def main(options: Options) -> None:
    """Generate, train, compare, write."""
    started = time.perf_counter()
    options = _small(options) if options.smoke else options
    if options.data is None:
        raise SystemExit("give --data, the prepared folder that the model was trained on, or --smoke")
    pairs = options.work / "pairs"
    more = ["--steps", str(_SMOKE_STEPS)] if options.smoke else []
    made = ["--count", str(options.pairs), "--spread", "contrast", "--workers", str(options.workers), *more]
    _do("generate", [options.model, "--out", str(pairs), *made])
    generated = time.perf_counter() - started
    prepared, volumes, seen = _volumes(options, pairs)
    found: list[UtilityScores] = []
    networks: list[list[bool]] = []
    for config in options.configs():
        place, jobs = options.work / digest_of(volumes, config), config.jobs()
        networks.append([not (place / f"{job.name}.json").is_file() for job in jobs])
        print(f"{config.task}: {len(jobs)} networks of {config.steps} steps, {sum(networks[-1])} to train", flush=True)
        found.append(run_experiment(prepared, volumes, config, options.work, workers=options.workers))
        if found[-1].why_not:
            raise SystemExit(f"{config.task}: {found[-1].why_not}")
    report = _judged(volumes, prepared, found)
    told = report.plain()
    result = {
        "command": options.command,
        "population": prepared.schema.population,
        "model_records_its_patients": seen is not None,
        "model_saw_beside": [] if seen is None else _beside(prepared, seen),
        "n": {"real": len(volumes.real), "synthetic": len(volumes.synthetic), "test": len(volumes.test)},
        "networks": {"all": sum(map(len, networks)), "trained in this run": sum(map(sum, networks))},
        "seconds": {"generating": round(generated, 1), "all of this run": round(time.perf_counter() - started, 1)},
        **{name: told[name] for name in ("notes", "verdicts", "metrics", "not_computed")},
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    for name, verdict in sorted(report.verdicts.items()):
        print(f"{name}: {verdict.why}")


def _small(options: Options) -> Options:
    """Return the options of a smoke run, with a small cohort in WORK. Knows no other data."""
    cohort, data = options.work / "cohort", options.work / "data"
    _do("cohort", ["--out", str(cohort), "--count", str(_SMOKE_CASES), "--seed", "7"])
    if not (data / "prepared.yaml").is_file():
        _do("prepare", [str(cohort), "--out", str(data), "--holdout", "0.2", "--test", "0.4"])
    return replace(options, data=data, **SMOKE)


def _do(verb: str, given: list[str]) -> None:
    code = run(verb, given)
    if code:
        raise SystemExit(f"synth {verb} ended with exit code {code}; run the same command again to go on")


def _volumes(options: Options, pairs: Path) -> tuple[Prepared, Volumes, Seen | None]:
    """Return the sides of the experiment. Errors: DataError where the model saw a test patient."""
    assert options.data is not None
    prepared, seen = Prepared.load(options.data), seen_by_model(pairs)
    if seen is not None:
        prepared = prepared if seen.fold is None else prepared.at_fold(seen.fold)
    synthetic = synthetic_set(pairs, prepared.schema, attribute=class_attribute(prepared.schema))
    test = unseen(prepared, seen)
    return prepared, volumes_of(prepared, synthetic, test[: options.tests or len(test)], seen), seen


def _beside(prepared: Prepared, seen: Seen) -> list[str]:
    """Return in words whom the model was trained on beside the real patients of the experiment."""
    return seen_beside(seen, [prepared.digest(case) for case in prepared.split("train")])


def _judged(volumes: Volumes, prepared: Prepared, found: list[UtilityScores]) -> Report:
    report = Report(prepared.schema.population)
    evidence = Evidence(volumes.synthetic, volumes.real, volumes.test, prepared.schema.population, utility=found)
    utility(evidence, report, lambda _: None)
    return report


if __name__ == "__main__":
    try:
        main(tyro.cli(Options))
    except Interrupted as stop:
        sys.exit(f"{stop or 'interrupted; run the same command again to go on'}")
