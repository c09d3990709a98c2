"""synth prepare: a labelled dataset -> splits by patient, working arrays, schema."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


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
    holdout: float = 0.1
    """Share of patients the generator never sees, for privacy and the choice of checkpoints."""
    test: float = 0.1
    """Share of patients kept for judging downstream models."""
    spacing: tuple[float, ...] | None = None
    """Working spacing in mm; the data's median otherwise."""
    size: tuple[int, ...] | None = None
    """Working grid; what covers every case otherwise."""
    seed: int = 0
    """Seed of the split."""
    overwrite: bool = False
    """Replace an earlier prepared folder."""

    def run(self) -> int:
        """Prepare, and print what this data can show."""
        from pipelines.progress import Progress
        from synth.data.preparation import PreparationOptions, label_volumes, prepare, what_it_can_show
        from synth.data.splits import patients_of, split_patients
        from synth.errors import OutputError
        from synth.formats import read

        if self.out.exists() and not self.overwrite and not (self.out.is_dir() and not any(self.out.iterdir())):
            raise OutputError(f"{self.out} is not an empty folder; give --overwrite or another --out")
        options = PreparationOptions(spacing_mm=self.spacing, grid=self.size)
        dataset = read(self.source)
        patients, assumed = patients_of(dataset.cases, self.patients)
        splits = split_patients(patients, holdout=self.holdout, test=self.test, seed=self.seed)
        bars: dict[str, Progress] = {}

        def report(stage: str, done: int, total: int) -> None:
            bars.setdefault(stage, Progress(stage, total)).advance(done)

        try:
            prepared = prepare(dataset, self.out, patients=patients, splits=splits, options=options, report=report)
        finally:
            for bar in bars.values():
                bar.close()
        schema = prepared.schema
        spacing = tuple(round(step, 5) for step in schema.spacing_mm)
        print(
            f"{len(prepared.cases)} cases in {self.out}: grid {schema.grid} at {spacing} mm; layout: {dataset.layout}"
        )
        for note in dataset.notes:
            print(note)
        if assumed:
            print("each case was taken as its own patient (assumed; --patients says otherwise)")
        unit = "ml" if len(schema.grid) == 3 else "cm2"
        for name, size in label_volumes(prepared).items():
            print(f"  {'median of ' + name:<32} {size:.4g} {unit}")
        for name, value in what_it_can_show(prepared):
            print(f"  {name:<32} {value}")
        if (known := len(set(patients.values()))) < 3:
            whose = "one patient only" if known == 1 else "two patients only"
            print(f"{whose}, all in training: privacy and utility cannot be judged; add patients, three at least")
        return 0
