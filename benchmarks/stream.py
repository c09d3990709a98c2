"""What a stream costs a training: overhead of reading, of sampling beside it, stalls; ranks that are killed.

python -m benchmarks.stream WORK benchmarks/results/stream.json

Three loops train the same small segmenter, one thread, in turn by epochs, so that the machine's load falls on all: real
cases alone; a frozen buffer; samples made beside the training. Producers stand still (SIGSTOP) while it is not their
loop's turn.
"""

import json
import math
import os
import shutil
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

import synth
from benchmarks.stream_training import Trainer, network, prepared_cohort
from synth.generator import environment
from synth.stream import break_even

ROOT = Path(__file__).parents[1]
_WARM = 1
"""First epoch, in which caches fill and workers start: not counted."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measure a stream on the simulated cohort."""

    work: Annotated[Path, tyro.conf.Positional]
    """Scratch folder; what it holds under these names is replaced, but for the data."""
    out: Annotated[Path, tyro.conf.Positional]
    """The JSON to write."""
    model: str = "brain-tiny"
    sampling_steps: int | None = None
    """Steps of the sampler; the model's own otherwise."""
    subjects: int = 20
    steps: int = 500
    epoch_steps: int = 50
    batch: int = 2
    ratio: float = 0.3
    reuse: int = 20
    size: tuple[int, int, int] = (48, 48, 48)
    workers: int = 1
    width: int = 16
    """Of the segmenter that is trained."""
    ranks: bool = True
    """Also kill and resume two ranks."""
    by: str = "contrast"
    """Attribute that the ranks' samples are balanced over."""


def stream_of(options: Options, data: Path, name: str, **own: Any) -> synth.Stream:
    """Return the stream of one loop."""
    folder = options.work / f"buffer-{name}"
    shutil.rmtree(folder, ignore_errors=True)
    return synth.Stream(
        options.model,
        real=data,
        buffer=folder,
        size=options.size,
        batch=options.batch,
        epoch_steps=options.epoch_steps,
        sampling=synth.Sampling(steps=options.sampling_steps),
        **own,
    )


def producer_of(stream: synth.Stream) -> dict[str, Any]:
    """Return what the producer says of itself."""
    return next(iter(stream.store.states()), {})


@contextmanager
def at_work(stream: synth.Stream) -> Iterator[None]:
    """Let a stream's producer run only inside."""
    pid = producer_of(stream).get("pid")
    if pid:
        os.kill(pid, signal.SIGCONT)
    try:
        yield
    finally:
        if pid:
            os.kill(pid, signal.SIGSTOP)


def summary(trainer: Trainer, skipped: int, every: int) -> dict[str, float]:
    """Return seconds a step and waits; the first step of an epoch, in which workers wake, is no stall."""
    steps, waits = trainer.step_s[skipped:], trainer.wait_s[skipped:]
    inner = [wait for number, wait in enumerate(waits) if number % every]
    typical = statistics.median(steps)
    return {
        "steps": len(steps),
        "mean_step_s": round(statistics.fmean(steps), 5),
        "median_step_s": round(typical, 5),
        "mean_wait_s": round(statistics.fmean(waits), 5),
        "longest_wait_s": round(max(inner, default=0.0), 5),
        "stalls": sum(wait > typical for wait in inner),
    }


def measure(options: Options) -> dict[str, Any]:
    """Return the figures of the three loops, and what follows from them."""
    prepared = prepared_cohort(options.work, subjects=options.subjects)
    frozen = math.ceil(options.ratio * options.batch * 10)
    streams = {
        "real": stream_of(options, prepared.folder, "real", ratio=0.0),
        "frozen": stream_of(options, prepared.folder, "frozen", ratio=options.ratio, reuse=math.inf, depth=frozen),
        "reuse": stream_of(options, prepared.folder, "reuse", ratio=options.ratio, reuse=options.reuse),
    }
    streams["frozen"].wait(frozen)
    alone = producer_of(streams["frozen"])
    streams["reuse"].wait()
    loops = {
        name: Trainer(network(prepared, seed=0, width=options.width), stream.loader(options.workers))
        for name, stream in streams.items()
    }
    for stream in streams.values():
        with at_work(stream):
            pass
    begun = 0
    for epoch in range(_WARM + math.ceil(options.steps / options.epoch_steps)):
        if epoch == _WARM:
            begun = producer_of(streams["reuse"]).get("made", 0)
        for name, loop in loops.items():
            with at_work(streams[name]):
                loop.epoch(epoch)
    made = producer_of(streams["reuse"]).get("made", 0) - begun
    for stream in streams.values():
        pid = producer_of(stream).get("pid")
        if pid:
            os.kill(pid, signal.SIGCONT)
        stream.close()
    figures = {name: summary(loop, _WARM * options.epoch_steps, options.epoch_steps) for name, loop in loops.items()}
    return {"loops": figures, **_conclusions(options, figures, alone.get("seconds_a_sample", math.nan), made)}


def _conclusions(options: Options, figures: dict[str, dict[str, float]], sample_s: float, made: int) -> dict[str, Any]:
    plain, per_step = figures["real"]["mean_step_s"], options.ratio * options.batch
    amortised = per_step * sample_s / options.reuse
    beyond = {name: figures[name]["mean_step_s"] - plain for name in ("frozen", "reuse")}
    return {
        "seconds_a_sample_alone": round(sample_s, 4),
        "synthetic_items_a_step": per_step,
        "amortised_s_a_step": round(amortised, 5),
        "samples_made_in_the_measured_steps": made,
        "overhead_over_amortised": round(beyond["reuse"] / amortised, 3),
        "overhead_frozen": round(beyond["frozen"] / plain, 4),
        "break_even_reuse": round(break_even(sample_s, plain, per_step), 2),
        "goals": {"overhead_over_amortised": 1.2, "overhead_frozen": 0.05, "stalls": 0},
    }


def ranks(options: Options) -> dict[str, Any]:
    """Kill two gloo ranks in the middle of an epoch, resume both, and compare every item with those of one process."""
    work = options.work / "ranks"
    shutil.rmtree(work, ignore_errors=True)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    loop = ["-m", "tests.stream.loop", options.model, str(options.work / "data")]
    two = [*launch, *loop, str(work / "buffer"), str(work / "two"), "--by", options.by]
    one = [sys.executable, *loop, str(work / "other"), str(work / "one"), "--by", options.by, "--workers", "0"]
    codes = [_ended([*two, "--kill", "7"]), _ended([*two, "--resume"]), _ended(one)]
    whole = [line.split() for line in (work / "one" / "rank0.txt").read_text().splitlines()]
    halves = [[line.split() for line in (work / "two" / f"rank{r}.txt").read_text().splitlines()] for r in range(2)]
    joined = [[*a[:2], *a[2:], *b[2:]] for a, b in zip(*halves, strict=True)]
    return {
        "command": " ".join(two[1:]),
        "killed": codes[0] != 0,
        "resumed": codes[1] == 0,
        "steps": len(whole),
        "items": sum(len(line) - 2 for line in whole),
        "equal_to_one_process": codes[2] == 0 and joined == whole,
    }


def _ended(line: list[str]) -> int:
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.run(line, cwd=ROOT, env=environ, stderr=subprocess.DEVNULL, check=False).returncode


def main() -> None:
    """Measure and write the JSON."""
    options = tyro.cli(Options, description=__doc__)
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {
        "command": f"python -m benchmarks.stream {' '.join(sys.argv[1:])}",
        "options": {name: value for name, value in asdict(options).items() if name not in ("work", "out")},
        "load_before": round(os.getloadavg()[0], 2),
        "cores": len(os.sched_getaffinity(0)),
        "environment": environment(torch.device("cpu")),
        **measure(options),
    }
    if options.ranks:
        result["two_ranks"] = ranks(options)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1, default=str) + "\n")
    print(json.dumps(result, indent=1, default=str))


if __name__ == "__main__":
    main()
