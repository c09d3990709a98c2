"""Two workers of one thread against one of two threads: the same bytes, and pairs a second; memory over many samples.

python -m benchmarks.workers WORK benchmarks/results/workers.json

Throughput counts from the first sample's end to the last one's, in files' times, so that loading is left out; the
process of two threads is this module's own, since `synth generate` gives a worker one. Memory is the resident set of a
worker that makes --many samples of a tiny model which is trained here first.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro

from benchmarks.killing import ROOT, begin, digests, end
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


@dataclass(frozen=True, kw_only=True)
class Options:
    """Compare workers and threads, and watch memory."""

    work: Annotated[Path, tyro.conf.Positional]
    """Scratch folder; what it holds under these names is replaced."""
    out: Annotated[Path, tyro.conf.Positional]
    """The JSON to write."""
    model: str = "brain-tiny"
    count: int = 12
    """Samples of each set whose throughput is measured."""
    steps: int | None = None
    many: int = 1000
    """Samples over which memory is watched; 0 leaves that out."""


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


def compare(options: Options) -> dict[str, object]:
    """Return throughput and bytes of one worker, two workers, and one worker of two threads."""
    folders = {name: options.work / name for name in ("one worker", "two workers", "two threads")}
    for folder in folders.values():
        shutil.rmtree(folder, ignore_errors=True)
    for name, workers in (("one worker", "1"), ("two workers", "2")):
        end(begin(["generate", *asked(options), "--workers", workers, "--out", str(folders[name])]))
    by_threads(options, folders["two threads"], 2)
    rates = {name: throughput(folder, options.count) for name, folder in folders.items()}
    one, two, threads = (digests(folder) for folder in folders.values())
    images = [name for name in one if name.startswith(("imagesTr", "labelsTr"))]
    return {
        "pairs_a_second": {name: round(rate, 4) for name, rate in rates.items()},
        "two_workers_over_two_threads": round(rates["two workers"] / rates["two threads"], 3),
        "two_workers_over_one": round(rates["two workers"] / rates["one worker"], 3),
        "equal": one == two,
        "volumes_equal_with_two_threads": sum(one[name] == threads[name] for name in images),
        "volumes": len(images),
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
    model, out = tiny_model(options.work), options.work / "many"
    shutil.rmtree(out, ignore_errors=True)
    child = begin(["generate", str(model), "--count", str(options.many), "--workers", "1", "--out", str(out)])
    seen: list[tuple[int, float]] = []
    while child.poll() is None:
        done = sum(1 for _ in (out / "records").glob("syn_*.json")) if (out / "records").is_dir() else 0
        try:
            seen.append((done, resident_mb(child.pid)))
        except (OSError, IndexError):
            break
        time.sleep(0.5)
    end(child)
    tenth = options.many // 10
    early = max((mb for done, mb in seen if 0 < done <= tenth), default=float("nan"))
    late = max((mb for done, mb in seen if done > options.many - tenth), default=float("nan"))
    return {
        "samples": options.many,
        "mb_first_tenth": round(early, 1),
        "mb_last_tenth": round(late, 1),
        "growth": round(late / early - 1, 4),
        "mb_by_samples": [[done, round(mb, 1)] for done, mb in seen[:: max(len(seen) // 40, 1)]],
    }


def main(options: Options) -> None:
    """Measure and write JSON; ends with 1 where bytes differ."""
    options.work.mkdir(parents=True, exist_ok=True)
    result: dict[str, object] = {
        "command": f"python -m benchmarks.workers WORK {options.out} --model {options.model} --count {options.count} "
        f"--many {options.many}" + (f" --steps {options.steps}" if options.steps else ""),
        "environment": environment(torch.device("cpu")),
        "software": software(),
        "cores": len(os.sched_getaffinity(0)),
        "model_sha256": load(options.model).model.sha256,
        "throughput": compare(options),
    }
    if options.many:
        result["memory"] = memory(options)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=1).replace(str(options.work), "WORK")
    options.out.write_text(text + "\n")
    print(text)
    sys.exit(1 if '"equal": false' in text else 0)


if __name__ == "__main__":
    main(tyro.cli(Options))
