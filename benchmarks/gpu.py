"""A model on one GPU: seconds a pair, the same bytes again and in shards, how far its samples lie from the CPU's.

python -m benchmarks.gpu WORK benchmarks/results/gpu.json

Samples of one ask are made twice in one process, once in two shards at the same time, all on the GPU, and once on the
CPU. Those of the GPU must be the same bytes. Between devices only closeness can be asked: the noise is the CPU's on
both, sums are not.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro

import synth
from benchmarks.keeping import ROOT, command_line, say, write_result
from benchmarks.killing import begin, digests, end
from synth.generator import environment, load


@dataclass(frozen=True, kw_only=True)
class Options:
    """Time, compare and write JSON."""

    work: Annotated[Path, tyro.conf.Positional]
    """Scratch folder."""
    out: Annotated[Path, tyro.conf.Positional]
    """The JSON to write."""
    model: str = "brain-tiny"
    count: int = 8
    """Samples of each set."""
    pairs: int = 20
    """Pairs that are timed."""
    device: str = "cuda"


def ran(verb: str, *given: object) -> str:
    """Run one command of synth in a process of its own and return what it prints."""
    line = [sys.executable, "-m", "pipelines.cli", verb, *map(str, given)]
    return subprocess.run(line, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def made(options: Options, name: str, *more: object) -> Path:
    """Make the set and return its folder."""
    say(name)
    folder = options.work / name.replace(" ", "-")
    shutil.rmtree(folder, ignore_errors=True)
    ran("generate", options.model, "--out", folder, "--count", options.count, *more)
    return folder


def sharded(options: Options) -> Path:
    """Make the set as two shards at the same time and return its folder."""
    say("two shards")
    folder = options.work / "shards"
    shutil.rmtree(folder, ignore_errors=True)
    line = ["generate", options.model, "--out", str(folder), "--count", str(options.count), "--device", options.device]
    for shard in [begin([*line, "--shard", f"{k}/2"]) for k in range(2)]:
        end(shard)
    return folder


def apart(one: Path, other: Path) -> dict[str, Any]:
    """Return the share of mask voxels that differ, and by how much of its range an image does at most."""
    shares, gaps = [], []
    for path in sorted((one / "labelsTr").glob("*.nii.gz")):
        here, there = (synth.read(folder / "labelsTr" / path.name).data for folder in (one, other))
        shares.append(float(np.mean(here != there)))
        images = sorted((one / "imagesTr").glob(f"{path.name.removesuffix('.nii.gz')}_*.nii.gz"))
        for image in images:
            a, b = (synth.read(folder / "imagesTr" / image.name).data.astype(np.float64) for folder in (one, other))
            gaps.append(float(np.abs(a - b).max() / max(np.ptp(a), 1e-12)))
    same = [gap for share, gap in zip(shares, gaps, strict=True) if share == 0.0]
    return {
        "masks_equal": f"{sum(share == 0.0 for share in shares)} of {len(shares)}",
        "largest_share_of_mask_voxels": max(shares),
        "largest_difference_of_images_with_equal_masks": max(same, default=None),
    }


def figures(options: Options) -> dict[str, Any]:
    """Return what was measured."""
    timed = ran("bench", options.model, "--device", options.device, "--count", options.pairs, "--json")
    first, again = (made(options, name, "--device", options.device) for name in ("gpu", "gpu again"))
    whole = digests(first)
    sets: Sequence[Path] = (again, sharded(options))
    cpu = made(options, "cpu", "--device", "cpu")
    return {
        "bench": json.loads(timed),
        "same_bytes": {"again": digests(sets[0]) == whole, "two shards at once": digests(sets[1]) == whole},
        "against_cpu": apart(first, cpu),
    }


def main() -> None:
    """Measure and write the JSON."""
    options = tyro.cli(Options, description=__doc__)
    options.work.mkdir(parents=True, exist_ok=True)
    result = {
        "command": command_line("gpu", WORK=options.work),
        "environment": environment(torch.device(options.device)),
        "model_sha256": load(options.model).model.sha256,
        "count": options.count,
        **figures(options),
    }
    print(write_result(options.out, options.work, result))


if __name__ == "__main__":
    main()
