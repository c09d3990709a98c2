"""synth bench: how fast a model makes pairs on this machine, where the time goes, and what memory it takes."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any

import tyro

if TYPE_CHECKING:
    from synth.generator import Generator
    from synth.sample import Condition, Sample

PAIRS_A_WORKER = 3
_READY_S = 600.0
"""How long a worker that is ready waits for the others."""
REST = "rest"


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Time MODEL making image-mask pairs as `synth generate` makes them; nothing is written.

    Every process makes one pair first that does not count.
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A model folder, or the name of a bundled model."""
    count: int | None = None
    """Pairs to time in all; 3 a process otherwise."""
    steps: int | None = None
    """Sampling steps; the model's own otherwise."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:i; auto takes a GPU where there is one."""
    workers: int = 0
    """Processes of one thread each; 0 = one a core, one in all on a GPU."""
    seed: int = 0
    """Seed of the pairs."""
    json: bool = False
    """Print JSON instead of a table."""

    def run(self) -> int:
        """Time, then print."""
        import json
        import sys

        from pipelines.generate import require_sampling
        from pipelines.machine import device_of
        from pipelines.progress import progress
        from pipelines.workers import workers_on

        require_sampling(self.steps)
        device = str(device_of(self.device))
        workers = min(self.workers or workers_on(device), self.count or sys.maxsize)
        count = self.count or PAIRS_A_WORKER * workers
        job = Job(self.model, self.seed, self.steps, device)
        first = Timed(job)  # here too where others work: a model that cannot be read is told before they begin
        rows: list[Row] = []
        with progress("pairs", count) as bar:
            for row in _run(job, first, count, workers):
                rows.append(row)
                bar.advance()
        facts = {**first.facts(), **figures(rows, workers)}
        print(json.dumps(facts, indent=1) if self.json else table(facts))
        return 0


@dataclass(frozen=True)
class Job:
    """What one process needs to make any pair; plain values only."""

    model: str
    seed: int
    steps: int | None
    device: str = "cpu"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One pair as it was timed: begin and end on the machine's clock, seconds and calls by stage, memory so far."""

    began: float
    ended: float
    seconds: dict[str, float]
    calls: dict[str, int]
    peak: int
    process: int


@dataclass(eq=False)
class Stopwatch:
    """Seconds and calls by stage; `settle` waits for a device that works on after a call has returned."""

    settle: Callable[[], object]
    seconds: dict[str, float] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)

    def timing(self, stage: str, act: Callable[..., Any]) -> Callable[..., Any]:
        """Return `act`, its calls timed as `stage`."""

        def timed(*arguments: Any, **options: Any) -> Any:
            self.settle()
            started = time.perf_counter()
            out = act(*arguments, **options)
            self.settle()
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started
            self.calls[stage] = self.calls.get(stage, 0) + 1
            return out

        return timed


class Watched:
    """An object one of whose methods is timed; all else is the object's own."""

    def __init__(self, target: object, method: str, timed: Callable[..., Any]) -> None:
        self._target, self._method, self._timed = target, method, timed

    def __getattr__(self, name: str) -> Any:
        return self._timed if name == self._method else getattr(self._target, name)


def watched(generator: "Generator", watch: Stopwatch) -> "Generator":
    """Return the generator with denoisers, decoders and texture timed; what it makes is the same."""

    def part(name: str, own: Any) -> Any:
        denoiser = own.flow.denoiser
        denoiser.forward = watch.timing(f"{name} denoiser", denoiser.forward)
        codec = Watched(own.codec, "decode", watch.timing(f"{name} decode", own.codec.decode))
        texture = own.texture and Watched(own.texture, "finish", watch.timing("texture", own.texture.finish))
        return replace(own, codec=codec, texture=texture)

    model = generator.model
    mask = None if model.mask is None else part("mask", model.mask)
    return replace(generator, model=replace(model, image=part("image", model.image), mask=mask))


class Timed:
    """Makes and times pairs of a job with one thread, as a worker of `synth generate` makes them."""

    def __init__(self, job: Job) -> None:
        import torch

        from pipelines.machine import full_float32
        from synth.generator import Sampling, load

        torch.set_num_threads(1)
        full_float32(job.device)
        self.job = job
        plain = load(job.model, device=job.device).with_sampling(Sampling(steps=job.steps))
        self.device = plain.model.image.device
        on_gpu = self.device.type == "cuda"
        self.watch = Stopwatch((lambda: torch.cuda.synchronize(self.device)) if on_gpu else lambda: None)
        self.generator = watched(plain, self.watch)

    def ask(self) -> "Condition":
        """Return what is asked for: nothing, and an empty mask of a model that makes none."""
        import numpy as np

        from synth.sample import Condition
        from synth.volume import Volume

        model = self.generator.model
        schema = model.recipe.schema
        assert schema is not None
        if model.mask is not None or not model.image.part.conditioning.labels:
            return Condition()
        return Condition(mask=Volume(np.zeros((1, *schema.grid), dtype=np.uint8), schema.reference_affine))

    def sample(self, index: int) -> "Sample":
        """Return pair number `index`."""
        from synth.generator import Seed

        return next(self.generator.generate([self.ask()], seeds=[Seed(self.job.seed, index)]))

    def row(self, index: int) -> Row:
        """Make pair number `index` and return its times."""
        import os

        from synth.training.timing import peak_bytes

        self.watch.seconds, self.watch.calls = {}, {}
        began = time.monotonic()
        self.sample(index)
        ended = time.monotonic()
        seconds = {**self.watch.seconds, REST: ended - began - sum(self.watch.seconds.values())}
        peak = peak_bytes(self.device)
        return Row(began=began, ended=ended, seconds=seconds, calls=self.watch.calls, peak=peak, process=os.getpid())

    def facts(self) -> dict[str, Any]:
        """Return what the figures are of."""
        from synth.generator import environment

        model, here = self.generator.model, environment(self.device)
        parts = {name: self.job.steps or part.part.steps for name, part in model.parts().items()}
        return {
            "model": model.recipe.name,
            "sha256": model.sha256,
            "device": here["device"],
            "cpu": here["cpu"],
            "torch": here["torch"],
            "steps": parts,
        }


def figures(rows: list[Row], workers: int) -> dict[str, Any]:
    """Return the figures of timed pairs: pairs a second of all processes, the rest of one pair in one process."""
    from statistics import mean, median

    whole = max(row.ended for row in rows) - min(row.began for row in rows)
    one = mean(row.ended - row.began for row in rows)
    peaks: dict[int, int] = {}
    for row in rows:
        peaks[row.process] = max(row.peak, peaks.get(row.process, 0))
    stages: dict[str, Any] = {}
    for stage in rows[0].seconds:
        seconds = mean(row.seconds[stage] for row in rows)
        stages[stage] = {"seconds": seconds, "share": seconds / one, "calls": rows[0].calls.get(stage, 0)}
    return {
        "workers": workers,
        "threads_a_worker": 1,
        "pairs": len(rows),
        "pairs_a_second": len(rows) / whole,
        "seconds_a_pair": median(row.ended - row.began for row in rows),
        "peak_gb_a_worker": max(peaks.values()) / 1e9,
        "peak_gb": sum(peaks.values()) / 1e9,
        "stages": stages,
    }


def table(facts: dict[str, Any]) -> str:
    """Return the facts for people."""
    steps = " and ".join(f"{count} {name}" for name, count in facts["steps"].items())
    many = "es" if facts["workers"] > 1 else ""
    lines = [
        f"{facts['model']} on {facts['device']} ({facts['cpu']}, torch {facts['torch']}), {steps} steps",
        f"{facts['workers']} process{many} of one thread, {facts['pairs']} pairs",
        f"  pairs a second   {facts['pairs_a_second']:8.3f}",
        f"  seconds a pair   {facts['seconds_a_pair']:8.3f}  in one process, median",
        f"  peak memory, GB  {facts['peak_gb_a_worker']:8.2f}  of one process; {facts['peak_gb']:.2f} in all",
        "  of a pair, seconds",
    ]
    for stage, figure in facts["stages"].items():
        calls = f"{figure['calls']} calls" if figure["calls"] > 1 else ""
        lines.append(f"    {stage:<15}{figure['seconds']:8.3f} {100 * figure['share']:3.0f} %  {calls}".rstrip())
    return "\n".join(lines)


_timed: list[Timed] = []


def _start(job: tuple[Job, Any]) -> None:
    """Begin a worker: it is ready once it has made a pair, and waits until all are."""
    made = Timed(job[0])
    made.sample(0)
    _timed.append(made)
    job[1].wait(_READY_S)


def _make(index: int) -> Row:
    return _timed[0].row(index)


def _run(job: Job, first: Timed, count: int, workers: int) -> Iterator[Row]:
    """Yield the times of each pair; one worker stays in this process."""
    from pipelines.workers import run_all

    if workers > 1:
        import multiprocessing

        together = multiprocessing.get_context("spawn").Barrier(workers)
        yield from run_all(_make, range(count), workers=workers, start=_start, job=(job, together))
        return
    first.sample(0)
    for index in range(count):
        yield first.row(index)
