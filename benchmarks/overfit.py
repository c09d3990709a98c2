"""Does the audit find a model that learned its patients by heart, and leave alone one that did not? JSON out.

synth cohort --out COHORT --count 160 --seed 4
synth prepare COHORT --out DATA
python -m benchmarks.overfit --data DATA --run RUN --out benchmarks/results/overfit.json

The recipe brain-tiny-cpu is trained on 12 subjects until it repeats them, all others are held out; its samples and its
weights are audited as `synth evaluate --model` does. Beside it three stand-ins that need no training, named as such:
`jittered copies` (training volumes in the disguises of planted copies), `fresh subjects` (subjects of their own: what
a generator that copies nobody would make) and `half copied` (the one among the other). --run goes on where it stopped.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import tyro

from benchmarks.brain_samples import Ask, make, start
from benchmarks.keeping import command_line
from evaluation import audit
from evaluation.evidence import Evidence, Judged
from evaluation.privacy.audit import Audit
from evaluation.privacy.plants import plant
from pipelines.configs import config_path
from pipelines.evidence import real_set
from pipelines.progress import progress
from pipelines.whitebox import denoising_losses
from synth import config
from synth.data.prepared import Prepared, PreparedCase, learned
from synth.io import write_bytes
from synth.recipe import Recipe
from synth.rng import numpy_rng
from synth.training.experiment import Experiment


@dataclass(frozen=True, kw_only=True)
class Options:
    """Train on few subjects, generate, audit, and write JSON."""

    data: Path
    """A prepared cohort."""
    run: Path
    """Folder of the training run."""
    out: Path
    subjects: int = 12
    """Subjects to learn by heart."""
    holdout: int = 100
    """Subjects held out."""
    samples: int = 60
    """Samples to audit."""
    recipe: str = "brain-tiny-cpu"
    set: tuple[str, ...] = ()
    """Dotted overrides of the recipe; the steps below are set first."""
    codec_steps: int = 600
    steps: int = 4000
    """Steps of the image generator, each over a few of the subjects; the mask generator takes as many."""
    train: bool = True
    """Train and audit the model; otherwise the stand-ins alone."""


def of_few(prepared: Prepared, count: int, held: int) -> Prepared:
    """Return the folder with `count` subjects to train on and `held` others as test, and what is learned from them."""
    patients = sorted({row.patient for row in prepared.rows})
    order = [patients[i] for i in numpy_rng("overfit subjects").permutation(len(patients))]
    chosen, others = set(order[:count]), set(order[count : count + held])
    rows = [replace(row, split="train") for row in prepared.rows if row.patient in chosen]
    rows += [replace(row, split="test") for row in prepared.rows if row.patient in others]
    schema = learned(prepared.schema, prepared.stored, rows)
    cases = tuple(replace(row, attributes=schema.seen_attributes(row.attributes)) for row in rows)
    return replace(prepared, schema=schema, rows=tuple(rows), cases=cases)


def rest(prepared: Prepared, few: Prepared, count: int) -> list[PreparedCase]:
    """Return `count` subjects that are neither trained on nor held out."""
    used = {row.patient for row in few.rows}
    return [case for case in prepared.cases if case.patient not in used][:count]


def trained(options: Options, few: Prepared) -> Path:
    """Return the folder of a model trained on few subjects; a run that was begun goes on."""
    overrides = [
        f"image.codec_training.fit.steps={options.codec_steps}",
        f"mask.codec_training.fit.steps={options.codec_steps}",
        f"image.training.fit.steps={options.steps}",
        f"mask.training.fit.steps={options.steps}",
        *options.set,
    ]
    recipe = config.load(Recipe, config_path(options.recipe), overrides=overrides)

    def stage(name: str) -> Callable[..., None]:
        def told(done: int, total: int, figures: object) -> None:
            if done % max(1, total // 20) == 0:
                print(f"{name}: {done}/{total} {figures}", file=sys.stderr, flush=True)

        return told

    return Experiment(recipe, few, options.run, stage, print).run()


def generated(model: Path, few: Prepared, count: int) -> list[Judged]:
    """Return samples of the model, asked for as its training subjects are described."""
    start(str(model))
    cases = few.split("train")
    out = []
    with progress("samples", count) as bar:
        for index in range(count):
            case = cases[index % len(cases)]
            wanted = {n: v for n, v in case.attributes.items() if n in ("contrast", "lesion_contrast")}
            found = make(Ask(wanted, 70_000 + index))
            out.append(Judged(f"syn_{index:05d}", found.image[None], found.mask, mask_origin="generated"))
            bar.advance()
    return out


def summary(found: Audit) -> dict[str, object]:
    """Return verdicts and figures of an audit."""
    figures = {name: figure.plain() for name, figure in sorted(found.figures.items())}
    verdicts = {"images": found.images, "weights": found.weights, "images_after_drop": found.after_drop}
    return {
        "verdicts": {name: {"ok": v.ok, "why": v.why} for name, v in verdicts.items() if v is not None},
        "flagged": len(found.flagged),
        "most_exposed_p": [round(row.p_value, 5) for row in found.exposure[:5]],
        "figures": figures,
        "not_computed": found.not_computed,
    }


def stand_ins(prepared: Prepared, few: Prepared, training: Sequence[Judged], count: int) -> dict[str, list[Judged]]:
    """Return sets by name: copies of the training subjects, subjects of their own, and half of each."""
    fresh = [replace(item, case=f"fresh{i}") for i, item in enumerate(real_set(prepared, rest(prepared, few, count)))]
    fresh = [replace(item, patient="") for item in fresh]
    copies = [replace(one.item, case=f"copy{i}", patient="") for i, one in enumerate(plant(training, count, seed=9))]
    half = len(fresh) // 2
    return {"jittered copies": copies, "fresh subjects": fresh, "half copied": [*fresh[half:], *copies[:half]]}


def main(options: Options) -> None:
    """Measure and write JSON."""
    prepared = Prepared.load(options.data)
    few = of_few(prepared, options.subjects, options.holdout)
    training, held = (list(real_set(few, few.split(side))) for side in ("train", "test"))
    base = Evidence(
        training, training, held, few.schema.population, spacing_mm=few.schema.spacing_mm, real_masks_allowed=True
    )
    result: dict[str, object] = {
        "command": command_line("overfit", DATA=options.data, RUN=options.run),
        "population": few.schema.population,
        "subjects": {"training": len(training), "holdout": len(held)},
    }
    for name, made in stand_ins(prepared, few, training, options.samples).items():
        if len(made) >= 2:
            result[f"stand-in: {name}"] = summary(audit(replace(base, synthetic=made)))
            print(name, json.dumps(result[f"stand-in: {name}"], indent=1), flush=True)
    if options.train:
        model = trained(options, few)
        made = generated(model, few, options.samples)
        loss = denoising_losses(str(model), few.schema, made_by=None)
        result["over-fitted model"] = summary(audit(replace(base, synthetic=made, loss=loss)))
        print(json.dumps(result["over-fitted model"], indent=1))
    write_bytes(options.out, (json.dumps(result, indent=1) + "\n").encode())


if __name__ == "__main__":
    main(tyro.cli(Options))
