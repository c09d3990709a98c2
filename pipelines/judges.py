"""The judge's segmenter: the shipped one that fits, a folder, or one trained here on real training volumes only."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evaluation.evidence import Bench
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
    return Bench(model, {str(name): float(score) for name, score in scores.items()})


def class_attribute(schema: "Schema") -> str:
    """Return the categorical attribute that a judge learns to recognise: the first of two levels or more, or none."""
    return next((a.name for a in schema.attributes if a.kind == "categorical" and len(a.levels) > 1), "")


def train_bench(
    prepared: "Prepared", *, steps: int, seed: int = 0, report: Callable[[int, int, float], None] | None = None
) -> "tuple[Segmenter, dict[str, object]]":
    """Return a segmenter trained on the training patients, and its facts: Dice on hold-out and test patients.

    Errors: DataError where there are too few cases to train or to score it.
    """
    from evaluation.segmenter import Example, SegmenterConfig, score_by_label, train_segmenter
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
    model = train_segmenter(config, examples[0], steps=steps, seed=seed, report=report)
    scores, recognised = score_by_label(model, examples[1])
    facts: dict[str, object] = {
        "held_out_dice": scores,
        "held_out_class_accuracy": recognised,
        "held_out_n": len(held),
        "trained_n": len(train),
        "population": schema.population,
    }
    return model, facts
