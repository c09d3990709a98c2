"""`generate --dry-run`: one sample made and measured, the whole reckoned from it. Leaves nothing on disk."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.generate import Generate
    from pipelines.samples import Worker

_FIRST_ENOUGH_S = 10.0
"""A first sample that takes longer is not made again: what only the first one does is then little of it."""
_RESERVE = 1.05


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one sample took: seconds, bytes on disk with its lines, and the memory of the process that made it."""

    seconds: float
    bytes: int
    peak_bytes: int


def measure(worker: "Worker", index: int) -> Measured:
    """Make sample `index` in a scratch folder that goes at once."""
    import tempfile

    from pipelines.records import read_record, record_path
    from synth.formats.writing import Told
    from synth.training.timing import peak_bytes

    with tempfile.TemporaryDirectory(prefix="synth-dry-run-") as scratch:
        trial = worker.into(Path(scratch))
        if trial.judge is not None:  # one try is measured, whatever the judge makes of it
            trial.judge = replace(trial.judge, rate=0.0)
        seconds = 0.0
        for _ in range(2):
            started = time.perf_counter()
            trial.make(index)
            seconds = time.perf_counter() - started
            if seconds > _FIRST_ENOUGH_S:
                break
        # what lies in records/ stands a second time in the manifest and in prompts.jsonl
        again = sum(path.stat().st_size for path in (Path(scratch) / "records").iterdir())
        told = Told.of(read_record(record_path(trial.out, index), index))
        trial.writer.finish(1, [told])
        trial.writer.reopen()  # one index is of the whole set
        files = [path.stat().st_size for path in Path(scratch).rglob("*") if path.is_file()]
    return Measured(
        seconds=seconds, bytes=sum(files) + again, peak_bytes=peak_bytes(worker.generator.model.image.device)
    )


def rehearse(worker: "Worker", todo: list[int], how: "Generate") -> None:
    """Say what the missing samples will take. Errors: OutputError, ConfigError where disk or memory are short."""
    from pipelines.machine import in_words, memory_gb
    from pipelines.places import free_bytes, require_room, size_in_words
    from pipelines.workers import cores, workers_on
    from synth.errors import ConfigError

    if not todo:
        print(f"every sample is in {how.out}; nothing is left to make")
        return
    one = measure(worker, todo[0])
    device = worker.generator.model.image.device
    workers = min(how.workers or workers_on(worker.job.device), len(todo))
    at_once = workers if how.engine != "local" or device.type != "cpu" else min(workers, cores())
    seconds = one.seconds * -(-len(todo) // at_once)
    needed = one.bytes * len(todo)
    memory, there = one.peak_bytes * workers / 1e9, memory_gb(device)
    many = "es" if workers > 1 else ""
    print(f"{len(todo)} samples are to be made, one took {one.seconds:.2f} s in one process")
    print(f"  time    {in_words(seconds)} with {workers} process{many} of one thread")
    print(f"  disk    {size_in_words(needed)} in {how.out}, {size_in_words(free_bytes(how.out))} are free")
    print(f"  memory  {memory:.2f} GB, of {there:.1f} GB here")
    if worker.judge is not None:
        print(f"  tries   each sample may take up to {worker.job.tries}: as many times the time of one")
    print("nothing was written")
    require_room(how.out, needed * _RESERVE, "the samples take")
    if how.engine == "local" and memory > there:
        most = max(int(there * 1e9 / one.peak_bytes), 1)
        raise ConfigError(f"{workers} workers take {memory:.1f} GB, {there:.1f} are here; give --workers {most}")
