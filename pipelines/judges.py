"""The judge's segmenter: the shipped one that fits, a folder, or one trained here on real training volumes only.

With what else it takes to judge single samples it is kept for `synth generate --accept`.
"""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evaluation.acceptance import Acceptance
    from evaluation.evidence import Bench, Evidence
    from evaluation.segmenter import Segmenter
    from synth.data.prepared import Prepared
    from synth.data.schema import Schema
    from synth.data.seen import Seen

LEAST_TRAIN, LEAST_HELD = 3, 2
BY_PATIENT = "held_out_dice_by_patient"
"""Fact of a judge that ships: Dice by label, a row for each held-out patient, in an order of its own."""


def find_bench(judge: str | None, schema: "Schema", prepared: "Prepared | None" = None) -> "Bench":
    """Return the bench of the folder `judge`, or of the shipped judge that fits: labels, channels, population, spacing.

    prepared   whose patients the judge is to be measured on: those who trained it are told in the bench
    A named judge of another population or spacing, or one that does not say who trained it, judges nothing: the bench
    says why.
    Errors: CheckpointError for a damaged folder, ConfigError for a named one of other labels, channels or dimensions.
    """
    from evaluation.evidence import Bench
    from evaluation.segmenter import load_judge
    from synth.errors import ConfigError

    folders = _shipped() if judge is None else [Path(judge)]
    wanted = ([label.name for label in schema.labels], len(schema.channels), len(schema.grid))
    for folder in folders:
        model, facts = load_judge(folder)
        fits = (list(model.config.labels), model.config.channels, model.config.spatial_dims) == wanted
        if judge is not None and not fits:
            raise ConfigError(
                f"judge {judge} knows {list(model.config.labels)} in {model.config.channels} channels, "
                f"{model.config.spatial_dims}D; the data has {wanted[0]} in {wanted[1]}, {wanted[2]}D; give another"
            )
        shipped = None if judge is None else _shipped_self(str(facts["weights_sha256"]))
        facts, seen = shipped or (facts, judge_seen(folder, facts))
        why_not = _of_others(facts, schema) or ("" if seen else _UNTOLD)
        if judge is not None and why_not:
            print(f"judge {judge} {why_not}")
            return Bench(why_not=f"the judge given by --judge {why_not}")  # stands in reports: no path
        if fits and not why_not:
            return bench_of(model, facts, seen, prepared, shipped=judge is None or shipped is not None)
    return Bench(why_not="no shipped judge knows these labels in this population; give --judge FOLDER")


def _shipped() -> list[Path]:
    """Return the folders of the judges that ship with this software."""
    spec = find_spec("evaluation")
    places = list(spec.submodule_search_locations or ()) if spec else []
    return [path.parent for place in places for path in sorted(Path(place).glob("assets/*/judge.json"))]


def _shipped_self(weights_sha256: str) -> "tuple[dict[str, object], Seen | None] | None":
    """Return what a shipped judge of these weights, wherever it lies, says of itself and whom it saw; or None."""
    from evaluation.segmenter import load_judge

    found = ((folder, load_judge(folder)[1]) for folder in _shipped())
    return next(
        ((facts, judge_seen(folder, facts)) for folder, facts in found if facts["weights_sha256"] == weights_sha256),
        None,
    )


_UNTOLD = "does not say which patients trained it (patients.json is missing); train one anew with --save-judge"
_NEAR = 0.02  # of a voxel's side


def judge_seen(folder: Path, facts: "Mapping[str, object]") -> "Seen | None":
    """Return which patients trained the judge of a folder; None where it does not say.

    Errors: CheckpointError where the record is of other weights.
    """
    from synth.data.seen import SEEN_FILE, read_seen
    from synth.errors import CheckpointError

    seen = read_seen(folder)
    if seen is not None and seen.model != facts["weights_sha256"]:
        raise CheckpointError(f"{folder / SEEN_FILE} is of other weights than judge.json; copy the folder again")
    return seen


def _of_others(facts: "Mapping[str, object]", schema: "Schema") -> str:
    """Return why the Dice of a judge says nothing of this data; empty where it does."""
    population, spacing = facts.get("population"), facts.get("spacing_mm")
    if population != schema.population:
        return (
            f"was trained on the population {population!r}, the data is of {schema.population!r}: how it does here "
            "tells of the step between them too; train one on this data"
        )
    steps = [float(step) for step in spacing] if isinstance(spacing, list) else []
    if len(steps) != len(schema.spacing_mm) or any(
        abs(own - step) > _NEAR * step for own, step in zip(steps, schema.spacing_mm, strict=True)
    ):
        told, here = (" x ".join(f"{step:g}" for step in one) for one in (steps, schema.spacing_mm))
        return f"was trained at {told or 'an unknown spacing'} mm, the data is at {here}; train one on this data"
    return ""


def bench_of(
    model: "Segmenter",
    facts: "Mapping[str, object]",
    seen: "Seen | None",
    prepared: "Prepared | None",
    *,
    shipped: bool = False,
) -> "Bench":
    """Return the bench of a segmenter, the facts it was saved with, and those who trained it of `prepared`.

    shipped   its record of Dice by held-out patient is its own score where the evidence holds nobody to measure it on
    """
    from evaluation.evidence import Bench

    saw: frozenset[str] = frozenset()
    if prepared is not None and seen is not None:
        saw = frozenset(row.patient or row.case for row in prepared.rows if seen.has(prepared.digest(row)))
    rows = facts.get(BY_PATIENT) if shipped else None
    own = {name: fact for name, fact in facts.items() if name not in ("config", "weights_sha256")}
    return Bench(model, rows if isinstance(rows, list) else (), saw=saw, facts=own, seen=seen)


def keep_segmenter(model: "Segmenter", folder: Path, facts: dict[str, object], seen: "Seen") -> None:
    """Write a judge folder with the salted hashes of the cases that trained it."""
    from evaluation.segmenter import save_judge
    from synth.data.seen import SEEN_FILE
    from synth.io import write_bytes

    digest = save_judge(model, folder, facts=facts)
    write_bytes(folder / SEEN_FILE, seen.of_model(digest).dump())


def calibrated(evidence: "Evidence", prepared: "Prepared") -> "Acceptance":
    """Return the judge of single samples that the real volumes of `evidence` can carry.

    Errors: DataError where there is neither a segmenter nor a test to keep.
    """
    from evaluation.acceptance import fit_acceptance
    from pipelines.progress import progress
    from synth.errors import DataError

    unseen = (*prepared.split("val"), *prepared.split("test"))
    sides = {"training": prepared.split("train"), "unseen": unseen}
    digests = {side: tuple(prepared.digest(case) for case in cases) for side, cases in sides.items()}
    with progress("calibrating the judge", len(evidence.holdout)) as bar:
        judge = fit_acceptance(evidence, prepared.schema, cases=digests, tell=lambda _: bar.advance())
    if judge.segmenter is None and not judge.references:
        raise DataError(f"there is no judge to save ({_told(judge)}); give more patients, or leave --save-judge out")
    return judge


def _told(judge: "Acceptance") -> str:
    return "; ".join(f"no {test}: {why}" for test, why in judge.without.items())


def keep_judge(judge: "Acceptance", bench: "Bench", folder: Path) -> None:
    """Write a judge with what is known of its segmenter, and say what it tests. Errors: OutputError."""
    from evaluation.acceptance_folder import write_acceptance

    told = _told(judge)
    sha256 = write_acceptance(judge, folder, facts=bench.facts, seen=bench.seen)
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
        "spacing_mm": [float(step) for step in schema.spacing_mm],
    }
    return model, facts
