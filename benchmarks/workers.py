"""Two workers of one thread against one of two threads: the same bytes, and pairs a second; memory over many samples.

python -m benchmarks.workers WORK benchmarks/results/workers.json

Throughput counts from the first sample's end to the last one's, in files' times, so that loading is left out; the sides
take turns, and medians count. The process of two threads is this module's own, since `synth generate` gives a worker
one; how many of its volumes are the same, and the largest difference, are told beside. Memory is the
resident set of a worker that makes --many samples: of a tiny model which is trained here first, or of --memory-model.
What is found is kept, and the same command goes on.
"""

import os
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro

import synth
from benchmarks.keeping import ROOT, Kept, command_line, say, write_result
from benchmarks.killing import begin, digests, end
from synth.generator import environment, load, software

_TINY = """
name: tiny
image:
  codec: {kind: autoencoder, in_channels: 1, spatial_dims: 3, stride: 2, channels: 2, width: 8, encoder_blocks: 1, decoder_blocks: 1}
  process: {kind: rectified_flow, prediction: clean}
  backbone: {kind: unet, widths: [8, 8], blocks: [1, 1], attention: [1], head: 8, time_width: 16}
  conditioning: {mask_width: 8, width: 8}
  steps: 2
  codec_training: {fit: {steps: 4, warmup: 1, validate_every: 2, checkpoint_every: 2, log_every: 1}, crop: 8, batch: 2}
  training: {fit: {steps: 4, warmup: 1, validate_every: 2, checkpoint_every: 2, log_every: 1}, patch: [4, 4, 4], patch_batch: 2, whole_batch: 1}
mask:
  codec:
    kind: onehot
    labels: LABELS
    inner: {kind: autoencoder, in_channels: LABELS, spatial_dims: 3, stride: 2, channels: 2, width: 8, encoder_blocks: 1, decoder_blocks: 1}
  process: {kind: rectified_flow, prediction: velocity}
  backbone: {kind: unet, widths: [8, 8], blocks: [1, 1], attention: [], head: 8, time_width: 16}
  conditioning: {width: 8}
  steps: 2
  codec_training: {fit: {steps: 4, warmup: 1, validate_every: 2, checkpoint_every: 2, log_every: 1}, crop: 8, batch: 2}
  training: {fit: {steps: 4, warmup: 1, validate_every: 2, checkpoint_every: 2, log_every: 1}, patch: [4, 4, 4], patch_batch: 2, whole_batch: 1}
"""  # noqa: E501 - a recipe reads best by lines


WORKERS = {"one worker": "1", "two workers": "2"}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Compare workers and threads, and watch memory."""

    work: Annotated[Path, tyro.conf.Positional]
    """Scratch folder: the same command goes on with it; what another one left under these names is replaced."""
    out: Annotated[Path, tyro.conf.Positional]
    """The JSON to write."""
    model: str = "brain-tiny"
    count: int = 12
    """Samples of each set whose throughput is measured."""
    steps: int | None = None
    repeats: int = 3
    """Turns of each side."""
    many: int = 1000
    """Samples over which memory is watched; 0 leaves that out."""
    memory_model: str | None = None
    """Model whose memory is watched, at two steps; a tiny one of its own otherwise."""


def throughput(folder: Path, count: int) -> float:
    """Return pairs a second by the times of records, the first of each of two workers left out."""
    times = sorted(path.stat().st_mtime_ns for path in (folder / "records").glob("*.json"))
    assert len(times) == count
    return (count - 2) / ((times[-1] - times[1]) / 1e9)


def by_threads(options: Options, out: Path, threads: int) -> None:
    """Make the set in one process of so many threads: what `synth generate --workers 1` is but for that."""
    code = (
        "import sys, torch; from pipelines import samples; from pipelines.cli import main\n"
        "own = samples.Worker.__init__\n"
        "def init(self, job):\n"
        f"    own(self, job); torch.set_num_threads({threads})\n"
        "samples.Worker.__init__ = init\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    line = [sys.executable, "-c", code, "generate", *asked(options), "--workers", "1", "--out", str(out)]
    environ = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    subprocess.run(line, cwd=ROOT, env=environ, check=True, stdout=subprocess.DEVNULL)


def asked(options: Options) -> list[str]:
    """Return what both sides are asked."""
    steps = [] if options.steps is None else ["--steps", str(options.steps)]
    return [options.model, "--count", str(options.count), *steps, "--device", "cpu"]


def turn(options: Options, name: str) -> dict[str, Any]:
    """Make the set as one side does; return its throughput, its files, and how busy the machine was before."""
    load_before, folder = round(os.getloadavg()[0], 2), options.work / name
    shutil.rmtree(folder, ignore_errors=True)
    if name == "two threads":
        by_threads(options, folder, 2)
    else:
        end(begin(["generate", *asked(options), "--workers", WORKERS[name], "--out", str(folder)]))
    rate = round(throughput(folder, options.count), 4)
    return {"pairs_a_second": rate, "files": digests(folder), "load_before": load_before}


def largest_difference(one: Path, other: Path) -> float:
    """Return the largest difference of two sets' images, as a share of each image's range."""
    worst = 0.0
    for path in sorted((one / "imagesTr").iterdir()):
        a, b = (synth.read(folder / "imagesTr" / path.name).data.astype(np.float64) for folder in (one, other))
        worst = max(worst, float(np.abs(a - b).max() / max(np.ptp(a), 1e-12)))
    return worst


def compare(options: Options, kept: Kept) -> dict[str, object]:
    """Return throughput and bytes of one worker, two workers, and one worker of two threads."""
    turns: dict[str, list[dict[str, Any]]] = {name: [] for name in (*WORKERS, "two threads")}
    for number in range(options.repeats):
        for name, of in turns.items():
            of.append(kept.part(f"{name}, turn {number}", lambda name=name: turn(options, name)))
    rates = {name: statistics.median(one["pairs_a_second"] for one in of) for name, of in turns.items()}
    one, two, threads = (of[0]["files"] for of in turns.values())
    images = [name for name in one if name.startswith(("imagesTr", "labelsTr"))]
    ratio = rates["two workers"] / rates["two threads"]
    apart = kept.part(
        "difference by threads", lambda: largest_difference(options.work / "one worker", options.work / "two threads")
    )
    return {
        "pairs_a_second": rates,
        "turns": {name: [row["pairs_a_second"] for row in of] for name, of in turns.items()},
        "load_before": {name: [row["load_before"] for row in of] for name, of in turns.items()},
        "two_workers_over_two_threads": round(ratio, 3),
        "two_workers_over_one": round(rates["two workers"] / rates["one worker"], 3),
        "equal": all(row["files"] == one for name in WORKERS for row in turns[name]) and one == two,
        "volumes_equal_with_two_threads": sum(one[name] == threads[name] for name in images),
        "volumes": len(images),
        "largest_difference_with_two_threads": float(f"{apart:.3g}"),
        "goals": {"two_workers_over_two_threads": 0.9, "equal": True},
        "met": ratio >= 0.9,
    }


def tiny_model(work: Path) -> Path:
    """Return a tiny model, trained for a few steps on a small cohort."""
    cohort, data, recipe = work / "cohort", work / "data", work / "tiny.yaml"
    end(begin(["cohort", "--out", str(cohort), "--count", "4"]))
    spacing = ["--spacing", "10.4", "10.4", "10.4", "--overwrite"]
    end(begin(["prepare", str(cohort), "--out", str(data), *spacing]))
    from synth.data.prepared import Prepared

    recipe.write_text(_TINY.replace("LABELS", str(len(Prepared.load(data).schema.labels) + 1)))
    shutil.rmtree(work / "run", ignore_errors=True)
    end(begin(["train", str(recipe), "--data", str(data), "--out", str(work / "run")]))
    return work / "run" / "model"


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def memory(options: Options) -> dict[str, object]:
    """Return the resident memory of one worker by samples made, and how much it grew after the first tenth."""
    model = options.memory_model or str(tiny_model(options.work))
    out, steps = options.work / "many", ["--steps", "2", "--device", "cpu", "--workers", "1"]
    shutil.rmtree(out, ignore_errors=True)
    child = begin(["generate", model, "--count", str(options.many), *steps, "--out", str(out)])
    told = 0
    seen: list[tuple[int, float]] = []
    while child.poll() is None:
        done = sum(1 for _ in (out / "records").glob("syn_*.json")) if (out / "records").is_dir() else 0
        try:
            seen.append((done, resident_mb(child.pid)))
        except (OSError, IndexError):
            break
        if done >= told + max(options.many // 20, 1):
            told = done
            say(f"memory: {done}/{options.many} samples, {seen[-1][1]:.0f} MB")
        time.sleep(0.5)
    end(child)
    tenth = max(options.many // 10, 1)
    early = max((mb for done, mb in seen if 0 < done <= tenth), default=float("nan"))
    late = max((mb for done, mb in seen if done > options.many - tenth), default=float("nan"))
    return {
        "samples": options.many,
        "mb_first_tenth": round(early, 1),
        "mb_last_tenth": round(late, 1),
        "growth": round(late / early - 1, 4),
        "goals": {"growth": 0.05},
        "met": late / early - 1 <= 0.05,
        "mb_by_samples": [[done, round(mb, 1)] for done, mb in seen[:: max(len(seen) // 40, 1)]],
    }


def main(options: Options) -> None:
    """Measure and write JSON; ends with 1 where bytes differ."""
    kept = Kept(options.work, options, "workers")
    result: dict[str, object] = {
        "command": command_line("workers", WORK=options.work),
        "options": kept.asked,
        "environment": environment(torch.device("cpu")),
        "software": software(),
        "cores": len(os.sched_getaffinity(0)),
        "model_sha256": load(options.model).model.sha256,
        "throughput": compare(options, kept),
    }
    if options.many:
        result["memory"] = kept.part("memory", lambda: memory(options))
    text = write_result(options.out, options.work, result)
    print(text)
    sys.exit(1 if '"equal": false' in text else 0)


if __name__ == "__main__":
    main(tyro.cli(Options))
