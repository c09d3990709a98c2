"""synth info: what is this model, dataset, volume or report."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True, kw_only=True)
class Info:
    """Describe a model (folder or bundled name), training run, prepared folder, dataset, report, judge or volume."""

    thing: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="THING")]
    """What to describe."""
    json: bool = False
    """Print JSON instead of a table."""

    def run(self) -> int:
        """Print the description."""
        import json

        facts = describe(self.thing)
        if self.json:
            print(json.dumps(facts, indent=1))
            return 0
        width = max(len(name) for name in facts)
        for name, value in facts.items():
            print(f"{name:<{width}}  {value}")
        return 0


def describe(thing: str) -> dict[str, object]:
    """Return facts by name. Errors: DataError when it is nothing known."""
    from synth.errors import DataError

    path = Path(thing)
    if path.is_file():
        return _volume(path)

    from synth.generator import bundled

    folder = path if path.is_dir() else bundled().get(thing)
    if folder is None:
        raise DataError(f"{thing} is no file, folder or bundled model; bundled are {', '.join(bundled()) or 'none'}")
    if (folder / "recipe.yaml").is_file():
        return _model(folder)
    if (folder / "prepared.yaml").is_file():
        return _prepared(folder)
    if (folder / "report.json").is_file():
        return _report(folder)
    if (folder / "accept.json").is_file():
        return _judge(folder)
    if any((folder / part / "codec" / "config.json").is_file() for part in ("image", "mask")):
        return _run(folder)
    return _dataset(folder)


def _volume(path: Path) -> dict[str, object]:
    from synth.io import read

    volume = read(path)
    return {
        "kind": "volume",
        "grid": volume.grid,
        "channels": volume.channels,
        "spacing (mm)": tuple(round(s, 5) for s in volume.spacing_mm),
        "type": str(volume.data.dtype),
        "range": (float(volume.data.min()), float(volume.data.max())),
    }


def _model(folder: Path) -> dict[str, object]:
    from synth.checkpoint import read_model

    model = read_model(folder)
    schema = model.recipe.schema
    assert schema is not None
    return {
        "kind": "model",
        "name": model.recipe.name,
        "sha256": model.sha256,
        "population": schema.population,
        "grid": schema.grid,
        "spacing (mm)": schema.spacing_mm,
        "channels": schema.channels,
        "labels": {label.name: label.value for label in schema.labels},
        "attributes": {a.name: list(a.levels) if a.levels else [a.low, a.high] for a in schema.attributes},
        "makes its own masks": model.mask is not None,
        "trained on": "not recorded" if model.seen is None else model.seen.words(),
        "fold": None if model.seen is None else model.seen.fold,
        "default steps": model.recipe.image.steps,
        "parameters": sum(t.numel() for part in model.parts().values() for t in part.tensors().values()),
    }


def _prepared(folder: Path) -> dict[str, object]:
    from synth.data.power import what_it_can_show
    from synth.data.prepared import Prepared

    prepared = Prepared.load(folder)
    schema = prepared.schema
    whose = {True: "each case its own (assumed)", False: "as the source or --patients says", None: "not said"}
    facts: dict[str, object] = {
        "kind": "prepared data",
        "population": schema.population,
        "cases": len(prepared.cases),
        "grid": schema.grid,
        "spacing (mm)": tuple(round(s, 5) for s in schema.spacing_mm),
        "labels": [label.name for label in schema.labels],
        "attributes": [attribute.name for attribute in schema.attributes],
        "patients": whose[prepared.patients_assumed],
    }
    return {**facts, **dict(what_it_can_show(prepared))}


def _run(folder: Path) -> dict[str, object]:
    """Return the stages that are done, and where the model lies."""
    stages = {f"{part} {stage}": folder / part / stage for part in ("image", "mask") for stage in ("codec", "flow")}
    begun = {name: place for name, place in stages.items() if (place / "config.json").is_file()}
    states = {name: "done" if (place / "done.json").is_file() else "not done" for name, place in begun.items()}
    ready = (folder / "model" / "recipe.yaml").is_file()
    model = str(folder / "model") if ready else "not yet; run the same `synth train` again to go on"
    return {"kind": "training run", "model": model, **states}


def _report(folder: Path) -> dict[str, object]:
    from evaluation.saved import read_report

    report, _ = read_report(folder)
    verdicts = {f"verdict: {name}": v["why"] for name, v in report["verdicts"].items()}
    figures = {name: value["value"] for name, value in report["metrics"].items()}
    return {"kind": "report", "population": report["population"], **verdicts, **figures}


def _judge(folder: Path) -> dict[str, object]:
    from evaluation.acceptance import Acceptance

    judge = Acceptance.load(folder)
    # the artefact gate's score is high where an image is unlike real ones: its reference holds it negated
    thresholds = {
        f"rejects by {name} {'above' if name == 'artefact' else 'below'}": one.threshold(judge.rate)
        * (-1 if name == "artefact" else 1)
        for name, one in judge.references.items()
    }
    return {
        "kind": "judge of samples (holds data of real patients)",
        "sha256": judge.sha256,
        "population": judge.schema.population,
        "grid": judge.schema.grid,
        "spacing (mm)": judge.schema.spacing_mm,
        "labels": [label.name for label in judge.schema.labels],
        "rate": judge.rate,
        **thresholds,
        **{f"no test of {name}": why for name, why in judge.without.items()},
    }


def _dataset(folder: Path) -> dict[str, object]:
    from synth.dicom import holds_dicom
    from synth.formats import read

    if holds_dicom(folder):
        return _volume(folder)
    dataset = read(folder)
    return {
        "kind": "synthetic dataset" if (folder / "manifest.jsonl").is_file() else "dataset",
        "layout": dataset.layout,
        "cases": len(dataset.cases),
        "channels": dataset.channels,
        "labels": dataset.label_values,
        "population": dataset.population or "not stated",
    }
