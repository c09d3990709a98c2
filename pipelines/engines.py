"""Which workers make the samples of a set: this process, processes beside it, or those of a Ray cluster."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.asks import Job
    from pipelines.generate import Generate
    from pipelines.samples import Worker

AHEAD_LOCAL, AHEAD_RAY = 128, 2
"""Samples in the hand of each worker unless --batch says it: a queue in memory, and one across machines."""


def made(worker: "Worker", todo: list[int], how: "Generate") -> Iterator[int]:
    """Yield the index of each sample as it is finished; a single local worker stays in this process."""
    job = worker.job
    if not todo:
        return
    if how.engine == "ray":
        from pipelines.on_ray import run_on_ray

        ahead = how.batch or AHEAD_RAY
        yield from run_on_ray(job, todo, workers=how.workers, ahead=ahead, address=how.address)
        return
    from pipelines.workers import run_all, workers_on

    workers = min(how.workers or workers_on(job.device), len(todo))
    if workers > 1:
        ahead = workers * (how.batch or AHEAD_LOCAL)
        yield from run_all(_make, todo, workers=workers, start=_start, job=job, ahead=ahead)
        return
    for index in todo:
        worker.make(index)
        yield index


_worker: "list[Worker]" = []


def _start(job: "Job") -> None:
    from pipelines.samples import Worker

    _worker.append(Worker(job))


def _make(index: int) -> int:
    _worker[0].make(index)
    return index
