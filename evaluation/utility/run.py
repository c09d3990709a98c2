"""Runs the jobs of an experiment and keeps each one's scores as a file, so that a killed run goes on.

Each job trains with one thread, whatever the machine has: its scores depend on nothing but its settings and volumes.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from evaluation.evidence import Judged
from evaluation.utility.arms import Volumes, sides
from evaluation.utility.config import Job, UtilityConfig
from evaluation.utility.knowledge import Knowledge, knowledge_of
from synth.errors import DataError
from synth.io import write_bytes

LEAST_TEST = 2
Cell = tuple[float, float]
"""Fraction and ratio (0: the whole synthetic set)."""


@dataclass(frozen=True, eq=False)
class Result:
    """The scores of one job: how many volumes it was trained on, its learning rate, and a row for each test case."""

    job: Job
    real: int
    synthetic: int
    rate: float
    rows: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, eq=False)
class UtilityScores:
    """Everything an experiment found, or why it was not run.

    knowledge   patients of the generator and of the segmenter, by fraction
    left_out    cells that could not be run, and why
    """

    config: UtilityConfig
    results: tuple[Result, ...]
    labels: tuple[str, ...] = ()
    why_not: str = ""
    knowledge: tuple[Knowledge, ...] = ()
    left_out: Mapping[Cell, str] = field(default_factory=dict)
    dims: int = 3

    def cells(self) -> list[Cell]:
        """Return the cells that were run; the first is the headline."""
        return [cell for cell in self.config.cells() if cell not in self.left_out]

    def known(self, cell: Cell) -> Knowledge | None:
        """Return the knowledge at a cell's fraction; None where nothing was counted."""
        return next((one for one in self.knowledge if one.fraction == cell[0]), None)


def digest_of(volumes: Volumes, config: UtilityConfig) -> str:
    """Return what decides scores beside the job: the plan, cases, patients and a hash of every volume's voxels."""
    whole = hashlib.sha256(config.fingerprint.encode())
    whole.update(json.dumps([volumes.labels, volumes.spacing_mm, volumes.attribute, volumes.levels]).encode())
    for side in (volumes.real, volumes.synthetic, volumes.test):
        for item in side:
            whole.update(f"\0{item.case}\0{item.whose}\0{volumes.level(item)}".encode())
            for array in (item.image, item.mask):
                whole.update(memoryview(array.tobytes()))
    return whole.hexdigest()[:16]


def run_job(
    job: Job, volumes: Volumes, config: UtilityConfig, folder: Path, *, digest: str, tell: Callable[[], None]
) -> Result:
    """Train one network, score it on every test volume and write its file; a file that is there is read instead.

    tell   called after each step of training and each case scored
    Errors: DataError for too few volumes or a file of another experiment, ConfigError without MONAI.
    """
    there = read_result(job, folder, digest=digest)
    if there is not None:
        return there
    import torch

    from evaluation.utility.score import score
    from evaluation.utility.train import train

    own = sides(job, volumes, config)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model, rate = train(job, own, volumes, config, tell=tell)
        rows = []
        for item in tested(volumes, config):
            rows.append(score(model, item, volumes, config))
            tell()
    finally:
        torch.set_num_threads(threads)
    result = Result(job, own.real, own.synthetic, rate, tuple(rows))
    _write(result, folder, digest)
    # as it will be read: JSON knows no tuples
    return read_result(job, folder, digest=digest) or result


def collected(
    results: Sequence[Result], volumes: Volumes, config: UtilityConfig, left_out: Mapping[Cell, str]
) -> UtilityScores:
    """Return the results of an experiment with what their rows mean."""
    known = knowledge_of(volumes, config.fractions, config.seeds)
    return UtilityScores(config, tuple(results), volumes.labels, "", known, left_out, dims=volumes.test[0].mask.ndim)


def check(volumes: Volumes, config: UtilityConfig) -> tuple[list[Job], dict[Cell, str]]:
    """Return the jobs that can be trained, and why each cell that lacks volumes is left out.

    Errors: DataError where no cell is left, or there are too few test cases; ConfigError without MONAI.
    """
    from evaluation.utility.network import needs_monai

    needs_monai()
    if config.task == "classification" and len(volumes.levels) < 2:
        raise DataError("no categorical attribute of two levels or more is known of the training patients")
    if config.task == "segmentation" and not volumes.labels:
        raise DataError("the data has no labels to segment")
    test = tested(volumes, config)
    if len({item.whose for item in test}) < LEAST_TEST:
        raise DataError(f"{len(test)} test cases; {LEAST_TEST} test patients at least are needed")
    left_out: dict[Cell, str] = {}
    for cell in config.cells():
        try:
            for job in _jobs_at(cell, config):
                sides(job, volumes, config)
        except DataError as error:
            left_out[cell] = str(error)
    if len(left_out) == len(config.cells()):
        raise DataError(next(iter(left_out.values())))
    wanted = {job for cell in config.cells() if cell not in left_out for job in _jobs_at(cell, config)}
    return [job for job in config.jobs() if job in wanted], left_out


def _jobs_at(cell: Cell, config: UtilityConfig) -> list[Job]:
    return [config.job(arm, *cell, seed) for arm in config.arms for seed in config.seeds]


def tested(volumes: Volumes, config: UtilityConfig) -> list[Judged]:
    """Return the test volumes that can be scored: all, or those whose level is known."""
    return [item for item in volumes.test if config.task == "segmentation" or volumes.level(item) >= 0]


def work_of(volumes: Volumes, config: UtilityConfig) -> int:
    """Return how often `tell` is called for a job that has no file yet."""
    return config.steps + config.tuning_steps * len(config.rates) + len(tested(volumes, config))


def read_result(job: Job, folder: Path, *, digest: str) -> Result | None:
    """Return the scores of a finished job; None where it has no file.

    Errors: DataError where the file is broken, or of other settings or volumes.
    """
    path = folder / f"{job.name}.json"
    if not path.is_file():
        return None
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
        known = Job(**row["job"])
        result = Result(known, row["real"], row["synthetic"], row["rate"], tuple(row["cases"]))
        same = row["digest"] == digest and known == job
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is broken ({error!r}); remove it and run again") from error
    if not same:
        raise DataError(f"{path} is of other settings or volumes; give another folder, or remove this one")
    return result


def _write(result: Result, folder: Path, digest: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    said = {"schema": 1, "digest": digest, "job": asdict(result.job), "real": result.real}
    said |= {"synthetic": result.synthetic, "rate": result.rate, "cases": list(result.rows)}
    write_bytes(folder / f"{result.job.name}.json", (json.dumps(said, sort_keys=True) + "\n").encode())
