"""The judge's segmenter: the shipped one that fits, a folder, or one trained here on real training volumes only.

With what else it takes to judge single samples it is kept for `synth generate --accept`.
"""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evaluation.evidence import Bench, Evidence
    from evaluation.segmenter import Segmenter
    from synth.data.prepared import Prepared
    from synth.data.schema import Schema

LEAST_TRAIN, LEAST_HELD = 3, 2


def find_bench(judge: str | None, schema: "Schema") -> "Bench":
    """Return the bench of the folder `judge`, or of the shipped judge whose labels, channels and dimensions fit.

    Errors: CheckpointError for a damaged folder, ConfigError where the named one does not fit.
    """
    from evaluation.evidence import Bench
    from evaluation.segmenter import load_judge
    from synth.errors import ConfigError

    if judge is not None:
        folders = [Path(judge)]
    else:
        spec = find_spec("evaluation")
        places = list(spec.submodule_search_locations or ()) if spec else []
        folders = [path.parent for place in places for path in sorted(Path(place).glob("assets/*/judge.json"))]
    wanted = ([label.name for label in schema.labels], len(schema.channels), len(schema.grid))
    for folder in folders:
        model, facts = load_judge(folder)
        if (list(model.config.labels), model.config.channels, model.config.spatial_dims) == wanted:
            return bench_of(model, facts)
        if judge is not None:
            raise ConfigError(
                f"judge {judge} knows {list(model.config.labels)} in {model.config.channels} channels, "
                f"{model.config.spatial_dims}D; the data has {wanted[0]} in {wanted[1]}, {wanted[2]}D; give another"
            )
    return Bench(why_not="no shipped judge knows these labels; give --judge FOLDER")


def bench_of(model: "Segmenter", facts: dict[str, object]) -> "Bench":
    """Return the bench of a segmenter and the facts it was saved with."""
    from evaluation.evidence import Bench

    scores = facts["held_out_dice"]
    assert isinstance(scores, dict)
    own = {name: fact for name, fact in facts.items() if name not in ("config", "weights_sha256")}
    return Bench(model, {str(name): float(score) for name, score in scores.items()}, facts=own)


def keep_judge(evidence: "Evidence", prepared: "Prepared", folder: Path) -> None:
    """Write the judge of single samples that the real volumes of `evidence` can carry, and say what it tests.

    Errors: DataError where there is neither a segmenter nor a test to keep; OutputError.
    """
    from evaluation.acceptance import fit_acceptance
    from evaluation.acceptance_folder import write_acceptance
    from pipelines.progress import progress
    from synth.errors import DataError

    unseen = (*prepared.split("val"), *prepared.split("test"))
    sides = {"training": prepared.split("train"), "unseen": unseen}
    digests = {side: tuple(prepared.digest(case) for case in cases) for side, cases in sides.items()}
    with progress("calibrating the judge", len(evidence.holdout)) as bar:
        judge = fit_acceptance(evidence, prepared.schema, cases=digests, tell=lambda _: bar.advance())
    told = "; ".join(f"no {test}: {why}" for test, why in judge.without.items())
    if judge.segmenter is None and not judge.references:
        raise DataError(f"there is no judge to save ({told}); give more patients, or leave --save-judge out")
    sha256 = write_acceptance(judge, folder, facts=evidence.bench.facts)
    tests = ", ".join(judge.references) or "no test of single samples"
    print(f"judge {sha256[:16]} in {folder} ({tests}{'; ' if told else ''}{told})")
    print(f"it holds data of real patients: keep {folder} where their images are kept, do not share it")


def class_attribute(schema: "Schema") -> str:
    """Return the categorical attribute that a judge learns to recognise: the first of two levels or more, or none."""
    return next((a.name for a in schema.attributes if a.kind == "categorical" and len(a.levels) > 1), "")


def train_bench(
    prepared: "Prepared", *, steps: int, seed: int = 0, report: Callable[[int, int, float], None] | None = None
) -> "tuple[Segmenter, dict[str, object]]":
    """Return a segmenter trained on the training patients, and its facts: Dice on hold-out and test patients.

    Errors: DataError where there are too few cases to train or to score it.
    """
    from evaluation.segmenter import Example, SegmenterConfig, as_saved, score_by_label, train_segmenter
    from synth.errors import DataError

    schema, attribute = prepared.schema, class_attribute(prepared.schema)
    train = prepared.split("train")
    held = prepared.held_out
    if len(train) < LEAST_TRAIN or len(held) < LEAST_HELD:
        raise DataError(
            f"{len(train)} training and {len(held)} held-out cases; a judge needs {LEAST_TRAIN} and {LEAST_HELD}"
        )
    levels = next((a.levels for a in schema.attributes if a.name == attribute), ())
    # a level that one patient alone has is none of the data's: its cases train the labels and no class
    told = [{str(c.attributes[attribute]) for c in cases if attribute in c.attributes} for cases in (train, held)]
    complete = bool(attribute) and told[0] == set(levels) and bool(told[1])
    config = SegmenterConfig(
        channels=len(schema.channels),
        labels=tuple(label.name for label in schema.labels),
        attribute=attribute if complete else "",
        classes=levels if complete else (),
        spatial_dims=len(schema.grid),
    )
    examples = [
        [Example(prepared.image(c), prepared.mask(c), str(c.attributes.get(config.attribute, ""))) for c in cases]
        for cases in (train, held)
    ]
    model = as_saved(train_segmenter(config, examples[0], steps=steps, seed=seed, report=report))
    scores, recognised = score_by_label(model, examples[1])
    facts: dict[str, object] = {
        "held_out_dice": scores,
        "held_out_class_accuracy": recognised,
        "held_out_n": len(held),
        "trained_n": len(train),
        "population": schema.population,
    }
    return model, facts
