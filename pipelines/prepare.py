"""synth prepare: a labelled dataset -> splits by patient, working arrays, schema."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

if TYPE_CHECKING:
    from synth.data.prepared import Prepared

LEAST_PLAN_S = 600.0
"""Time that a plan is written for at least: below it, stages have no steps to speak of."""


@dataclass(frozen=True, kw_only=True)
class Prepare:
    """Check a labelled dataset and write what training reads. A faulty case writes nothing.

    The layout is detected: nnU-Net raw, MSD, BIDS, DICOM case folders, or images/ with masks/ (volumes, PNG, JPEG).
    """

    source: Annotated[Path, tyro.conf.Positional]
    """The dataset's folder."""
    out: Path
    """Folder to write."""
    patients: str | None = None
    """Which cases share a patient: each, a regular expression with one group, or a CSV (case, patient)."""
    folds: int | None = None
    """Number of folds over all but the test patients, each patient in one validation; `train --fold` uses them."""
    splits: Path | None = None
    """nnU-Net's splits_final.json, to take its folds; patients it leaves out are the test patients."""
    holdout: float = 0.1
    """Share of patients the generator is not trained on, for privacy and the choice of checkpoints."""
    test: float | None = None
    """Share of patients kept for judging downstream models; 0.1 without --splits."""
    spacing: tuple[float, ...] | None = None
    """Working spacing in mm; otherwise the data's median, or coarser where the budget asks for it."""
    size: tuple[int, ...] | None = None
    """Working grid; what covers every case otherwise."""
    budget: str = "2h"
    """Time for training that the working spacing and the plan are made for, such as 20m or 8h, on two cores."""
    seed: int = 0
    """Seed of the split."""
    overwrite: bool = False
    """Replace an earlier prepared folder."""

    def run(self) -> int:
        """Prepare, and print what this data can show."""
        from pipelines.machine import seconds
        from pipelines.progress import staged
        from synth.data.power import what_it_can_show
        from synth.data.preparation import PreparationOptions, label_volumes, prepare, voxels_for
        from synth.data.splits import DivisionOptions, divide
        from synth.errors import OutputError
        from synth.formats import read

        budget_s = seconds(self.budget, "--budget")
        if self.out.exists() and not self.overwrite and not (self.out.is_dir() and not any(self.out.iterdir())):
            raise OutputError(f"{self.out} is not an empty folder; give --overwrite or another --out")
        options = PreparationOptions(spacing_mm=self.spacing, grid=self.size, voxels=voxels_for(budget_s))
        how = DivisionOptions(
            patients=self.patients,
            holdout=self.holdout,
            test=self.test,
            folds=self.folds,
            given=self.splits,
            seed=self.seed,
        )
        dataset = read(self.source)
        division = divide(dataset.cases, how)
        with staged() as report:
            prepared = prepare(dataset, self.out, division=division, options=options, report=report)
        schema = prepared.schema
        print(
            f"{len(prepared.cases)} cases in {self.out}: grid {schema.grid} at {_short(schema.spacing_mm)} mm; "
            f"layout: {dataset.layout}"
        )
        if schema.native_grid:
            native = _short(schema.native_spacing_mm)
            print(
                f"that is coarser than the data ({schema.native_grid} at {native} mm), for a budget of {self.budget};"
            )
            print("samples are made there and written on the data's own grid; --budget or --spacing asks for finer")
        _write_plan(prepared, self.budget, budget_s)
        for note in (*dataset.notes, *_kept_back(prepared)):
            print(note)
        if division.assumed:
            print("each case was taken as its own patient (assumed; --patients says otherwise)")
        if self.splits is not None and division.unnamed:
            print(f"cases that no fold names: {', '.join(division.unnamed)}; no fold reads them")
        unit = "ml" if len(schema.grid) == 3 else "cm2"
        for name, rule in zip(schema.channels, prepared.stored, strict=True):
            print(f"  {'channel ' + name:<32} {'CT window (HU)' if rule.kind == 'window' else 'percentiles'}")
        for name, size in label_volumes(prepared).items():
            print(f"  {'median of ' + name:<32} {size:.4g} {unit}")
        for name, value in what_it_can_show(prepared):
            print(f"  {name:<32} {value}")
        return 0


def _short(spacing_mm: tuple[float, ...]) -> tuple[float, ...]:
    """Return spacings as people read them: five digits, of micrometres too."""
    return tuple(float(f"{step:.5g}") for step in spacing_mm)


def _kept_back(prepared: "Prepared") -> Iterator[str]:
    """Yield what of tables and texts no model will hold since it may name a patient, or that it cannot be told."""
    from synth.conditioning.config import vocabulary, words
    from synth.data.schema import FEW_PATIENTS, of_one_patient

    train = [row for row in prepared.rows if row.split == "train"]
    known = {attribute.name: attribute for attribute in prepared.schema.attributes}
    for name, levels in of_one_patient((row.patient, row.attributes) for row in train).items():
        if name in known:
            count = f"{len(levels)} {'level' if len(levels) == 1 else 'levels'} of {name!r}, of one patient each"
            yield f"{count}, stay out of models: they may name patients"
        else:
            yield f"column {name!r} stays out of models: most patients have a level of their own, which may name them"
    patients = len({row.patient for row in train})
    kept = [name for name, attribute in known.items() if attribute.kind == "categorical"]
    if kept and patients <= FEW_PATIENTS:
        yield (
            f"{patients} training patients are too few to tell names from kinds: models hold every level of "
            f"{', '.join(kept)}; leave out columns that name patients"
        )
    said = {word for row in train for word in words(row.text or "")}
    own = len(said - set(vocabulary(((row.patient, row.text) for row in train), limit=len(said))))
    if own:
        what = "word of texts, of one patient, stays" if own == 1 else "words of texts, of one patient each, stay"
        yield f"{own} {what} out of models: they may name patients"
    elif said and patients == 1:
        yield "one training patient: models hold every word of the texts; leave out names"


def _write_plan(prepared: "Prepared", budget: str, budget_s: float) -> None:
    """Write plan.yaml, a recipe for this data with steps for two cores, and plan.json, the budget it is made for.

    `synth train auto` takes it from there, edited or not, and counts its steps anew on the machine it runs on.
    """
    import json

    from pipelines.train import ASKED, PLAN
    from synth import config
    from synth.io import write_bytes
    from synth.training.plan import design, nominal, schedule

    recipe = design(prepared.schema)
    recipe, _ = schedule(recipe, nominal(recipe), budget_s=max(budget_s, LEAST_PLAN_S))
    write_bytes(prepared.folder / PLAN, config.dump(recipe).encode())
    write_bytes(prepared.folder / ASKED, (json.dumps({"budget": budget}) + "\n").encode())
