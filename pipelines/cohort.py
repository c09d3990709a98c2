"""`synth cohort`: the simulated demo cohort as an nnU-Net v2 dataset whose truth is known. No maths here.

Written: imagesTr, labelsTr and truthTr (noise-free), cases.csv (what is said of each case),
request.json (the ask, without count and workers) and, once everything else is there, dataset.json.
Heavy libraries load inside the functions that need them; this module knows no network.
"""

import csv
import io
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, final

from synth.errors import ConfigError, OutputError

if TYPE_CHECKING:
    from synth.simulate import Subject

POPULATION = "simulated cohort"
COLUMNS: tuple[str, ...] = ("case", "patient", "text", "contrast", "lesion_count", "lesion_volume_ml", "lesion_contrast")
Row = dict[str, str]

_SAVE_SECONDS = 5.0
_PLAIN_SECONDS = 10.0


@final
@dataclass(frozen=True, kw_only=True)
class Cohort:
    """Simulate brain MR subjects with masks, attributes, sentences and noise-free truth.

    The result is an nnU-Net v2 raw dataset that `synth prepare` reads. Case i is the same whatever the
    count and the workers; a run that was cut short is completed, and a larger count extends it.
    """

    out: Path
    """Folder of the dataset; made when missing."""
    count: int
    """Number of subjects; one subject is one patient and one case."""
    seed: int = 0
    """Seed of the cohort; another seed gives other subjects."""
    workers: int = 0
    """Processes of one thread each; 0 takes as many as there are cores."""
    overwrite: bool = False
    """Start over in a folder that already holds a cohort."""

    def run(self) -> None:
        """Write the dataset.

        Errors: ConfigError for numbers out of range; OutputError when the folder holds something else or
        cannot be written; DataError when the brain template is not installed.
        """
        for name, least in (("count", 1), ("seed", 0), ("workers", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"--{name} {getattr(self, name)} is too small; give {least} or more")
        try:
            self._write()
        except OSError as error:
            place = error.filename or self.out
            raise OutputError(f"{place} cannot be written ({error.strerror}); choose another --out") from error

    def _write(self) -> None:
        from synth.simulate.template import template

        template()
        rows = self._open()
        missing = [index for index in range(self.count) if case_name(index) not in rows]
        if missing:
            # Without dataset.json, an unfinished folder is not taken for a dataset.
            (self.out / "dataset.json").unlink(missing_ok=True)
            self._simulate(missing, rows)
        _write_text(self.out / "dataset.json", _dataset_json(self.count))
        print(f"{self.count} subjects in {self.out} ({len(missing)} new; {POPULATION}, seed {self.seed})")

    def _open(self) -> dict[str, Row]:
        """Return the rows of finished cases after making sure that the folder is ours to fill."""
        from synth.simulate.cohort import COHORT_VERSION

        request = json.dumps({"verb": "cohort", "seed": self.seed, "version": COHORT_VERSION}, sort_keys=True) + "\n"
        if self.overwrite:
            _remove_cohort(self.out)
        known = self.out / "request.json"
        same = known.is_file() and known.read_text() == request
        if self.out.is_dir() and any(self.out.iterdir()) and not same:
            mend = "choose another --out" if self.overwrite else "choose another --out or pass --overwrite"
            raise OutputError(f"{self.out} already holds something that is not this cohort; {mend}")
        for folder in ("imagesTr", "labelsTr", "truthTr"):
            (self.out / folder).mkdir(parents=True, exist_ok=True)
        if not same:
            _write_text(known, request)
        for draft in self.out.rglob("*.tmp"):
            draft.unlink()
        wanted = {f"{case_name(index)}_0000.nii.gz" for index in range(self.count)}
        other = sorted(path.name for path in (self.out / "imagesTr").iterdir() if path.name not in wanted)
        if other:
            raise OutputError(
                f"{self.out} already holds cases beyond --count {self.count} (such as {other[0]}); "
                "ask for more, choose another --out or pass --overwrite"
            )
        return _finished(self.out)

    def _simulate(self, missing: list[int], rows: dict[str, Row]) -> None:
        workers = min(self.workers or _cores(), len(missing))
        saved = time.monotonic()
        try:
            with _progress(len(missing)) as advance:
                for row in _subjects(self.out, self.seed, missing, workers):
                    rows[row["case"]] = row
                    advance()
                    if time.monotonic() - saved > _SAVE_SECONDS:
                        _write_text(self.out / "cases.csv", _cases_csv(rows))
                        saved = time.monotonic()
        finally:
            # Also on an interruption: what is finished is not simulated again.
            _write_text(self.out / "cases.csv", _cases_csv(rows))


def case_name(index: int) -> str:
    """Return the id of subject `index`.

    >>> case_name(7)
    'sim_0007'
    """
    return f"sim_{index:04d}"


def write_case(folder: Path, index: int, subject: "Subject") -> Row:
    """Write image, truth and, last, mask of `subject`; return its row of cases.csv."""
    case = case_name(index)
    image, truth, mask = _paths(folder, case)
    for volume, path in ((subject.image, image), (subject.truth, truth), (subject.mask, mask)):
        _write_nifti(volume.data[0], volume.affine, path)
    said = {name: str(value) for name, value in subject.attributes.items()}
    return {"case": case, "patient": case, "text": subject.text, **said}


def _paths(folder: Path, case: str) -> tuple[Path, Path, Path]:
    return (
        folder / "imagesTr" / f"{case}_0000.nii.gz",
        folder / "truthTr" / f"{case}.nii.gz",
        folder / "labelsTr" / f"{case}.nii.gz",
    )


def _subject_row(folder: Path, seed: int, index: int) -> Row:
    from synth.simulate.cohort import cohort_subject

    return write_case(folder, index, cohort_subject(seed, index))


def _subjects(folder: Path, seed: int, indices: Sequence[int], workers: int) -> Iterator[Row]:
    """Yield rows as subjects are written; one worker stays in this process."""
    if workers == 1:
        for index in indices:
            yield _subject_row(folder, seed, index)
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor, as_completed

    # spawn: a forked copy of a process whose torch threads have run can hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    try:
        jobs = [pool.submit(_subject_row, folder, seed, index) for index in indices]
        for job in as_completed(jobs):
            yield job.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    """Prepare a worker: one thread, interruptions left to the parent, an end when the parent is gone."""
    import multiprocessing

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    parent = multiprocessing.parent_process()

    def leave_with_parent() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()
    import torch

    torch.set_num_threads(1)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _finished(folder: Path) -> dict[str, Row]:
    """Return the rows of cases whose three files are all there."""
    table = folder / "cases.csv"
    if not table.is_file():
        return {}
    with table.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if tuple(row) == COLUMNS]
    return {row["case"]: row for row in rows if all(path.is_file() for path in _paths(folder, row["case"]))}


def _remove_cohort(folder: Path) -> None:
    """Delete what a cohort consists of and nothing else, so that a mistaken --out loses no other file."""
    if not (folder / "request.json").is_file():
        return
    for name in ("imagesTr", "labelsTr", "truthTr"):
        for path in (folder / name).glob("sim_*.nii.gz*"):
            path.unlink()
        if (folder / name).is_dir() and not any((folder / name).iterdir()):
            (folder / name).rmdir()
    for name in ("dataset.json", "cases.csv", "request.json"):
        (folder / name).unlink(missing_ok=True)


def _cases_csv(rows: dict[str, Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    # Padded ids sort as text only up to 9999.
    writer.writerows(rows[case] for case in sorted(rows, key=lambda case: (len(case), case)))
    return text.getvalue()


def _dataset_json(count: int) -> str:
    from synth.simulate import BRAIN_LABELS

    content = {
        "name": "simulated brain MR",
        "population": POPULATION,
        "synthetic": True,
        "channel_names": {"0": "MR"},
        "labels": {"background": 0, **BRAIN_LABELS},
        "numTraining": count,
        "file_ending": ".nii.gz",
    }
    return json.dumps(content, indent=2) + "\n"


def _write_text(path: Path, text: str) -> None:
    _replace(path, text.encode())


def _replace(path: Path, content: bytes) -> None:
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        draft.write_bytes(content)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _write_nifti(data: "object", affine: "object", path: Path) -> None:
    import gzip

    import numpy as np
    from nibabel.nifti1 import Nifti1Image

    image = Nifti1Image(np.asarray(data), np.asarray(affine))
    for place in (image.set_qform, image.set_sform):
        place(np.asarray(affine), code=1)
    image.header.set_xyzt_units("mm")
    # No name and no time in the gzip header: equal subjects are equal bytes.
    _replace(path, gzip.compress(image.to_bytes(), compresslevel=1, mtime=0))


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    """Yield a function to call after each subject: a bar in a terminal, a line now and then elsewhere."""
    start = spoken = time.monotonic()
    done = 0
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
        with Progress(TextColumn("simulating"), *columns, console=Console(stderr=True)) as bar:
            task = bar.add_task("", total=total, rate="")

            def advance_bar() -> None:
                nonlocal done
                done += 1
                bar.update(task, advance=1, rate=f"{done / (time.monotonic() - start):.2f}/s")

            yield advance_bar
        return

    def advance() -> None:
        nonlocal spoken, done
        done += 1
        now = time.monotonic()
        if now - spoken > _PLAIN_SECONDS or done == total:
            left = (now - start) / done * (total - done)
            rate = done / max(now - start, 1e-9)
            print(f"simulating {done}/{total}, {rate:.2f}/s, {left:.0f} s left", file=sys.stderr, flush=True)
            spoken = now

    yield advance
