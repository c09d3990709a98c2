"""What a stream costs a training: overhead of reading, of sampling beside it, stalls; ranks that are killed.

python -m benchmarks.stream WORK benchmarks/results/stream.json

Three loops train the same small segmenter, one thread, in turn by epochs, so that the machine's load falls on all: real
cases alone; a frozen buffer; samples made beside the training. Producers stand still (SIGSTOP) while it is not their
loop's turn. The loops and the ranks are kept once each is done, and the same command goes on.
"""

import contextlib
import math
import os
import shutil
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

import synth
from benchmarks.keeping import ROOT, Kept, command_line, say, write_result
from benchmarks.stream_training import LoopOptions, Trainer, network, prepared_cohort
from synth.generator import environment, load
from synth.stream import break_even

_WARM = 1
"""First epoch, in which caches fill and workers start: not counted."""


@dataclass(frozen=True, kw_only=True)
class Options(LoopOptions):
    """Measure a stream on the simulated cohort."""

    steps: int = 500
    workers: int = 1
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
    }
    streams["frozen"].wait(frozen, lambda done, count: say(f"frozen buffer: {done}/{count} samples"))
    alone = producer_of(streams["frozen"])
    # only now: two producers at once would each take longer
    streams["reuse"] = stream_of(options, prepared.folder, "reuse", ratio=options.ratio, reuse=options.reuse)
    streams["reuse"].wait(told=lambda done, count: say(f"buffer: {done}/{count} samples"))
    loops = {
        name: Trainer(network(prepared, seed=0, width=options.width), stream.loader(options.workers))
        for name, stream in streams.items()
    }
    for stream in streams.values():
        with at_work(stream):
            pass
    begun = 0
    epochs = _WARM + math.ceil(options.steps / options.epoch_steps)
    try:
        for epoch in range(epochs):
            if epoch == _WARM:
                begun = producer_of(streams["reuse"]).get("made", 0)
            for name, loop in loops.items():
                with at_work(streams[name]):
                    loop.epoch(epoch)
            last = {
                name: round(statistics.fmean(loop.step_s[-options.epoch_steps :]), 4) for name, loop in loops.items()
            }
            say(f"epoch {epoch + 1}/{epochs}: s a step {last}")
        made = producer_of(streams["reuse"]).get("made", 0) - begun
    finally:  # a producer that stands still does not see that its training is gone
        for stream in streams.values():
            if pid := producer_of(stream).get("pid"):
                with contextlib.suppress(ProcessLookupError):
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
        "stalls": {name: figures[name]["stalls"] for name in ("frozen", "reuse")},
        "goals": {"overhead_over_amortised": 1.2, "overhead_frozen": 0.05, "stalls": 0, "steps": 500},
        "met": {
            "overhead_over_amortised": beyond["reuse"] <= 1.2 * amortised,
            "overhead_frozen": beyond["frozen"] <= 0.05 * plain,
            "stalls": not any(figures[name]["stalls"] for name in ("frozen", "reuse")),
            "steps": figures["reuse"]["steps"] >= 500,
        },
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
    kept = Kept(options.work, options, "stream")
    result: dict[str, Any] = {
        "command": command_line("stream", WORK=options.work),
        "options": kept.asked,
        "load_before": kept.part("load before", lambda: round(os.getloadavg()[0], 2)),
        "cores": len(os.sched_getaffinity(0)),
        "environment": environment(torch.device("cpu")),
        "model_sha256": load(options.model).model.sha256,
        **kept.part("loops", lambda: measure(options)),
    }
    if options.ranks:
        result["two_ranks"] = kept.part("two ranks", lambda: ranks(options))
    print(write_result(options.out, options.work, result))


if __name__ == "__main__":
    main()
