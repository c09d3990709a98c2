"""`synth cohort`: the simulated demo cohort as an nnU-Net v2 dataset whose truth is known. No maths here.

Written: imagesTr, labelsTr and truthTr (noise-free), records (one file a finished subject), cases.csv,
request.json (the ask, without count and workers) and, last, dataset.json. Knows no network.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from synth.errors import ConfigError, OutputError

POPULATION = "simulated cohort"
_FOLDERS = ("imagesTr", "labelsTr", "truthTr", "records")

Row = Mapping[str, str | float | int]


@final
@dataclass(frozen=True, kw_only=True)
class Cohort:
    """Write the simulated brain cohort: imagesTr, labelsTr, truthTr (noise-free), cases.csv, dataset.json.

    The same command again completes a set that was cut short; a larger count extends it.
    """

    out: Path
    """Folder to write."""
    count: int
    """Number of subjects; each is a patient with one case."""
    seed: int = 0
    """The cohort: subject i of one seed is always the same."""
    workers: int = 0
    """Processes of one thread each; 0 = one a core."""
    overwrite: bool = False
    """Start over in a folder that already holds a cohort; other files there are kept."""

    def run(self) -> int:
        """Write what is missing and return 0.

        Errors: ConfigError for a number out of range; OutputError when the folder holds something else or
        cannot be written; DataError when the template is not installed.
        """
        for name, least in (("count", 1), ("seed", 0), ("workers", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"--{name} is {getattr(self, name)}; give at least {least}")
        from pipelines.progress import progress
        from pipelines.workers import cores
        from synth.simulate.template import template

        template()
        self._claim(cleared=self.overwrite and _remove_cohort(self.out))
        rows = {index: row for index in range(self.count) if (row := _finished(self.out, index)) is not None}
        missing = [index for index in range(self.count) if index not in rows]
        if missing:
            # Without dataset.json, an unfinished folder is not taken for a dataset.
            (self.out / "dataset.json").unlink(missing_ok=True)
            with progress("subjects", len(missing)) as bar:
                for index, row in _subjects(self.out, self.seed, missing, min(self.workers or cores(), len(missing))):
                    rows[index] = row
                    bar.advance()
        self._finish([rows[index] for index in range(self.count)])
        print(f"{self.count} subjects in {self.out} ({len(missing)} new)")
        return 0

    def _claim(self, *, cleared: bool) -> None:
        """Make sure that the folder is empty, just cleared or holds this cohort, no larger than asked."""
        from synth.io import write_bytes
        from synth.simulate.cohort import COHORT_VERSION

        request = self.out / "request.json"
        asked = json.dumps({"simulator": f"brain {COHORT_VERSION}", "seed": self.seed}).encode()
        mend = "give another --out" if self.overwrite else "give another --out or pass --overwrite"
        for place in (self.out, *self.out.parents):
            if place.is_file():
                raise OutputError(f"{place} is a file; give another --out")
        if request.is_file() and request.read_bytes() != asked:
            raise OutputError(f"{self.out} holds another cohort than seed {self.seed} of this simulator; {mend}")
        if not (cleared or request.is_file()) and self.out.is_dir() and any(self.out.iterdir()):
            raise OutputError(f"{self.out} is not empty and holds no cohort; give another --out")
        for partial in self.out.glob("*/.*.partial"):
            partial.unlink()
        wanted = {f"{case_name(index)}_0000.nii.gz" for index in range(self.count)}
        beyond = sorted(path.name for path in (self.out / "imagesTr").glob("*") if path.name not in wanted)
        if beyond:
            raise OutputError(f"{self.out} holds cases beyond --count {self.count}, such as {beyond[0]}; {mend}")
        write_bytes(request, asked)

    def _finish(self, rows: Sequence[Row]) -> None:
        import csv
        import io

        from synth.formats.nnunet import DatasetWriter
        from synth.io import write_bytes
        from synth.simulate import BRAIN_LABELS

        table = io.StringIO()
        writer = csv.DictWriter(table, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_bytes(self.out / "cases.csv", table.getvalue().encode())
        DatasetWriter(
            self.out,
            name="SimulatedBrain",
            channels=("MR",),
            labels=BRAIN_LABELS,
            extra={"population": POPULATION, "description": "simulated brain MR; truthTr holds noise-free images"},
        ).finish(len(rows))


def case_name(index: int) -> str:
    """Return the id of subject `index`.

    >>> case_name(7)
    'sim_0007'
    """
    return f"sim_{index:04d}"


def _paths(folder: Path, index: int) -> tuple[Path, Path, Path, Path]:
    """Return where image, mask, truth and record of a subject lie."""
    case = case_name(index)
    image, mask, truth = (folder / name / f"{case}.nii.gz" for name in _FOLDERS[:3])
    return image.with_name(f"{case}_0000.nii.gz"), mask, truth, folder / "records" / f"{case}.json"


def _finished(folder: Path, index: int) -> Row | None:
    """Return the row of a subject whose files are all there; the record is written last."""
    paths = _paths(folder, index)
    if not all(path.is_file() for path in paths):
        return None
    return json.loads(paths[3].read_text())


def _subject(folder: Path, seed: int, index: int) -> tuple[int, Row]:
    """Simulate and write one subject; return its index and its row of cases.csv."""
    from synth.io import write, write_bytes
    from synth.simulate.cohort import cohort_subject

    image, mask, truth, record = _paths(folder, index)
    subject = cohort_subject(seed, index)
    for volume, path in ((subject.image, image), (subject.mask, mask), (subject.truth, truth)):
        write(volume, path)
    case = case_name(index)
    row: Row = {"case": case, "patient": case, "text": subject.text, **subject.attributes}
    write_bytes(record, json.dumps(row).encode())
    return index, row


_job: list[tuple[Path, int]] = []


def _start(job: tuple[Path, int]) -> None:
    _job.append(job)


def _make(index: int) -> tuple[int, Row]:
    return _subject(*_job[0], index)


def _subjects(folder: Path, seed: int, indices: Sequence[int], workers: int) -> Iterator[tuple[int, Row]]:
    """Yield (index, row) as subjects are written; one worker stays in this process."""
    from pipelines.workers import run_all

    if workers > 1:
        yield from run_all(_make, indices, workers=workers, start=_start, job=(folder, seed))
        return
    for index in indices:
        yield _subject(folder, seed, index)


def _remove_cohort(folder: Path) -> bool:
    """Delete what a cohort consists of and nothing else (a mistaken --out loses no file); False where there is none."""
    if not (folder / "request.json").is_file() or b"simulator" not in (folder / "request.json").read_bytes():
        return False
    for name in _FOLDERS:
        for path in (folder / name).glob("sim_*"):
            path.unlink()
        if (folder / name).is_dir() and not any((folder / name).iterdir()):
            (folder / name).rmdir()
    for name in ("dataset.json", "cases.csv", "request.json"):
        (folder / name).unlink(missing_ok=True)
    return True
