"""Kill -9 `synth generate` and `synth train` at random moments; what is completed must be the uninterrupted bytes.

python -m benchmarks.kill WORK benchmarks/results/kill.json

Whole process groups are killed, one thread a process. A generated set is compared file by file, hidden ones
included; a training run without times (timing.jsonl, TensorBoard). A set that ends before all kills have hit is
compared and begun anew.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro

from benchmarks.killing import (
    POLL_S,
    ROOT,
    Kill,
    Outcome,
    Whole,
    begin,
    below,
    digests,
    end,
    strike,
    title,
)
from pipelines.configs import config_path
from synth.generator import environment, load, software

_STAGES = ("image/codec", "mask/codec", "mask/flow", "image/flow")
_SMALL = (
    *(f"{part}.codec_training.fit.{name}" for part in ("image", "mask") for name in ("steps=12", "checkpoint_every=3")),
    *(f"{part}.training.fit.{name}" for part in ("image", "mask") for name in ("steps=16", "checkpoint_every=3")),
    *(f"{part}.{kind}.fit.validate_every=5" for part in ("image", "mask") for kind in ("codec_training", "training")),
    *(f"{part}.{kind}.fit.warmup=2" for part in ("image", "mask") for kind in ("codec_training", "training")),
    *(f"{part}.{kind}.fit.log_every=1" for part in ("image", "mask") for kind in ("codec_training", "training")),
    *(f"{part}.backbone.{name}" for part in ("image", "mask") for name in ("widths=[16,16]", "head=8")),
    *("image.codec.width=16", "image.codec.channels=4", "image.conditioning.mask_width=16"),
    *("mask.codec.inner.width=16", "mask.codec.inner.channels=4"),
    *(f"{part}.codec_training.{name}" for part in ("image", "mask") for name in ("crop=16", "batch=2")),
    *(f"{part}.training.patch=[8,8,8]" for part in ("image", "mask")),
)
"""Overrides that make the shipped recipe train in half a minute."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Kill at random moments and compare bytes."""

    work: Annotated[Path, tyro.conf.Positional]
    """Scratch folder; what it holds under these names is replaced."""
    out: Annotated[Path, tyro.conf.Positional]
    """The JSON to write."""
    model: str = "brain-tiny"
    count: int = 8
    """Samples of each set."""
    steps: int = 2
    kills: int = 20
    """Kills of `generate` with one worker; three quarters with two and on Ray, half of shards in one folder and of
    three shards in folders of their own."""
    actors: int = 3
    """Ray actors killed while their run goes on; 0 with no Ray at all."""
    train_kills: int = 5
    subjects: int = 6
    seed: int = 0
    """Of the moments."""


def generate_stage(out: Path) -> str:
    """Return what a run of generate is at, by its files."""
    if not (out / "request.json").is_file():
        return "start"
    if any(out.glob("*/.*")) or any(out.glob(".*")):
        return "writing a file"
    return "sampling" if any(out.glob("records/*.json")) else "before the first sample"


def train_stage(run: Path) -> str:
    """Return what a run of train is at, by its files."""
    begun = [name for name in _STAGES if (run / name / "train.jsonl").is_file()]
    if not begun:
        return "start"
    return f"after {begun[-1]}" if (run / begun[-1] / "done.json").is_file() else begun[-1]


def killed_generate(options: Options, name: str, line: Sequence[str], whole: Whole, kills: int) -> Outcome:
    """Kill one command of generate at random moments until `kills` have hit, and complete every set."""
    moments, out = random.Random(f"{options.seed} {name}"), options.work / name
    outcome = Outcome(f"synth generate {' '.join(line)}")
    shutil.rmtree(out, ignore_errors=True)
    while True:
        left = kills - len(outcome.kills)
        at = moments.uniform(0.0, whole.seconds) if left > 0 else float("inf")
        child = begin(["generate", *line, "--out", str(out)])
        kill = strike(child, lambda after, at=at: after > at, lambda: generate_stage(out))
        outcome.starts += 1
        if kill is not None:
            outcome.kills.append(kill)
            continue
        outcome.compare(whole.files, out)
        if left <= 0:
            return outcome
        shutil.rmtree(out)


def killed_shards(options: Options, line: Sequence[str], whole: Whole, kills: int) -> Outcome:
    """Run two shards at once into one folder, kill each at random moments, complete both."""
    moments, out = random.Random(f"{options.seed} shards"), options.work / "shards"
    outcome = Outcome(f"synth generate {' '.join(line)} --shard 0/2 and 1/2 at once")
    shutil.rmtree(out, ignore_errors=True)
    lines = [["generate", *line, "--shard", f"{shard}/2", "--out", str(out)] for shard in range(2)]
    while True:
        left = kills - len(outcome.kills)
        children = [begin(shard) for shard in lines]
        outcome.starts += 2
        for child in children:
            at = moments.uniform(0.0, whole.seconds / 2) if left > 0 else float("inf")
            kill = strike(child, lambda after, at=at: after > at, lambda: generate_stage(out))
            outcome.kills += [kill] if kill is not None else []
        if (out / "manifest.jsonl").is_file() and all(child.returncode == 0 for child in children):
            outcome.compare(whole.files, out)
            if left <= 0:
                return outcome
            shutil.rmtree(out)


def killed_merge(options: Options, line: Sequence[str], whole: Whole, kills: int) -> Outcome:
    """Run three shards at once into folders of their own, kill each at random moments, then merge, killed once too."""
    moments, out = random.Random(f"{options.seed} merge"), options.work / "merged"
    outcome = Outcome(f"synth generate {' '.join(line)} --shard i/3 into three folders at once, then synth merge")
    folders = [options.work / f"shard{shard}" for shard in range(3)]
    for folder in (*folders, out):
        shutil.rmtree(folder, ignore_errors=True)
    lines = [["generate", *line, "--shard", f"{n}/3", "--out", str(folder)] for n, folder in enumerate(folders)]
    while True:
        left = kills - len(outcome.kills)
        children = [begin(shard) for shard in lines]
        outcome.starts += 3
        for child, folder in zip(children, folders, strict=True):
            at = moments.uniform(0.0, whole.seconds / 2) if left > 0 else float("inf")
            kill = strike(child, lambda after, at=at: after > at, lambda folder=folder: generate_stage(folder))
            outcome.kills += [kill] if kill is not None else []
        if any(child.returncode for child in children):
            continue
        join = ["merge", *map(str, folders), "--out", str(out)]
        first = strike(begin(join), lambda after: any(out.glob("records/*.json")), lambda: "merging")
        outcome.kills += [first] if first is not None else []
        end(begin(join))
        outcome.starts += 2
        outcome.compare(whole.files, out)
        for folder in (*folders, out):
            shutil.rmtree(folder)
        if kills <= len(outcome.kills):
            return outcome


def killed_actors(options: Options, line: Sequence[str], whole: Whole) -> Outcome:
    """Kill one actor of each of some Ray runs as it works; every run must end by itself, in the same bytes."""
    moments, out = random.Random(f"{options.seed} actors"), options.work / "actors"
    outcome = Outcome(f"synth generate {' '.join(line)}, an actor killed")
    while len(outcome.kills) < options.actors:
        shutil.rmtree(out, ignore_errors=True)
        child, started = begin(["generate", *line, "--out", str(out)]), time.monotonic()
        outcome.starts += 1
        wanted = moments.randrange(0, options.count // 2)
        while child.poll() is None:
            actors = [pid for pid in below(child.pid) if "Maker" in title(pid)]
            if actors and len(list(out.glob("records/*.json"))) >= wanted:
                os.kill(moments.choice(actors), signal.SIGKILL)
                outcome.kills.append(Kill(round(time.monotonic() - started, 2), "an actor"))
                break
            time.sleep(POLL_S)
        end(child)
        outcome.compare(whole.files, out)
    return outcome


def killed_train(
    options: Options, line: Sequence[str], whole: Mapping[str, str], spans: Mapping[str, float]
) -> Outcome:
    """Kill one training at a random moment of each stage in turn, the writing of the model too, then let it end."""
    moments, out = random.Random(f"{options.seed} train"), options.work / "killed"
    outcome = Outcome(f"synth train {' '.join(line)}")
    shutil.rmtree(out, ignore_errors=True)
    targets = (*_STAGES, f"after {_STAGES[-1]}")
    for number in range(options.train_kills):
        target = targets[number % len(targets)]
        delay, reached = moments.uniform(0.0, spans[target]), [float("inf")]

        def due(after: float, target: str = target, delay: float = delay, reached: list[float] = reached) -> bool:
            if train_stage(out) == target:
                reached[0] = min(reached[0], after)
            return after > reached[0] + delay

        kill = strike(begin(["train", *line, "--out", str(out)]), due, lambda: train_stage(out))
        outcome.starts += 1
        outcome.kills += [kill] if kill is not None else []
    end(begin(["train", *line, "--out", str(out)]))
    outcome.starts += 1
    outcome.compare(whole, out)
    return outcome


def timed_train(line: Sequence[str], out: Path) -> dict[str, float]:
    """Train uninterrupted and return how long each stage took, in order."""
    shutil.rmtree(out, ignore_errors=True)
    spans: dict[str, float] = {}
    child, last = begin(["train", *line, "--out", str(out)]), time.monotonic()
    while child.poll() is None:
        now, stage = time.monotonic(), train_stage(out)
        spans[stage] = spans.get(stage, 0.0) + now - last
        last = now
        time.sleep(POLL_S)
    end(child)
    return {stage: round(seconds, 2) for stage, seconds in spans.items()}


def measure_generate(options: Options) -> dict[str, object]:
    """Return the outcomes of generate."""
    model = options.work / "model"
    shutil.rmtree(model, ignore_errors=True)
    found = load(options.model)  # the folder is copied so that nothing can change it meanwhile
    source = Path(options.model) if Path(options.model).is_dir() else ROOT / "synth" / "assets" / options.model
    shutil.copytree(source, model)
    line = [str(model), "--count", str(options.count), "--steps", str(options.steps), "--workers"]
    shutil.rmtree(options.work / "whole", ignore_errors=True)
    started = time.monotonic()
    end(begin(["generate", *line, "1", "--out", str(options.work / "whole")]))
    whole = Whole(digests(options.work / "whole"), time.monotonic() - started)
    half, most = -(-options.kills // 2), -(-options.kills * 3 // 4)
    outcomes = {
        "one worker": killed_generate(options, "one", [*line, "1"], whole, options.kills),
        "two workers": killed_generate(options, "two", [*line, "2"], whole, most),
        "two shards": killed_shards(options, [*line, "1"], whole, half),
        "three shards, merged": killed_merge(options, [*line, "1"], whole, half),
    }
    if options.actors:
        on_ray = [*line, "2", "--engine", "ray"]
        shutil.rmtree(options.work / "whole-ray", ignore_errors=True)
        started = time.monotonic()
        end(begin(["generate", *on_ray, "--out", str(options.work / "whole-ray")]))
        lasted = Whole(whole.files, time.monotonic() - started)
        outcomes["ray"] = killed_generate(options, "ray", on_ray, lasted, most)
        outcomes["ray, actors alone"] = killed_actors(options, on_ray, whole)
    plain = {name: outcome.plain() for name, outcome in outcomes.items()}
    return {
        "model_sha256": found.model.sha256,
        "count": options.count,
        "steps": options.steps,
        "uninterrupted_s": round(whole.seconds, 2),
        **plain,
    }


def measure_train(options: Options) -> dict[str, object]:
    """Return the outcome of train on a small cohort."""
    cohort, data, recipe = (options.work / name for name in ("cohort", "data", "recipe.yaml"))
    end(begin(["cohort", "--out", str(cohort), "--count", str(options.subjects)]))
    prepare = ["prepare", str(cohort), "--out", str(data), "--spacing", "5.2", "5.2", "5.2", "--overwrite"]
    end(begin(prepare))
    shutil.copy(config_path("brain-tiny"), recipe)
    line = [str(recipe), "--data", str(data), *(part for value in _SMALL for part in ("--set", value))]
    spans = timed_train(line, options.work / "trained")
    whole = digests(options.work / "trained")
    outcome = killed_train(options, line, whole, spans)
    return {"subjects": options.subjects, "stages_s": spans, **outcome.plain()}


def main(options: Options) -> None:
    """Measure and write JSON; ends with 1 where a byte differs."""
    options.work.mkdir(parents=True, exist_ok=True)
    result = {
        "command": f"python -m benchmarks.kill WORK {options.out} --kills {options.kills} "
        f"--actors {options.actors} --count {options.count} --steps {options.steps} "
        f"--train-kills {options.train_kills} --seed {options.seed}",
        "environment": environment(torch.device("cpu")),
        "software": software(),
        "generate": measure_generate(options),
        "train": measure_train(options) if options.train_kills else None,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=1).replace(str(options.work), "WORK")
    options.out.write_text(text + "\n")
    print(text)
    sys.exit(1 if '"equal": false' in text else 0)


if __name__ == "__main__":
    main(tyro.cli(Options))
