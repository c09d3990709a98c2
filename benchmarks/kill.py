"""Kill -9 `synth generate` and `synth train` at random moments; what is completed must be the uninterrupted bytes.

python -m benchmarks.kill WORK benchmarks/results/kill.json

Whole process groups are killed, one thread a process. A generated set is compared file by file, hidden ones
included, and its samples are counted; a training run without times (timing.jsonl, TensorBoard). A set that ends before
all kills have hit is compared and begun anew. By default `generate` is killed 50 times over one worker, two and Ray,
and 20 times more in shards; every kill is kept as it hits, and the same command goes on.
"""

import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from benchmarks.keeping import ROOT, Kept, command_line, write_result
from benchmarks.killing import (
    POLL_S,
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
    """Scratch folder: the same command goes on with it; what another one left under these names is replaced."""
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


@dataclass(frozen=True)
class Job:
    """What is measured, and what of it is there."""

    options: Options
    kept: Kept


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


def killed_generate(job: Job, name: str, line: Sequence[str], whole: Whole, kills: int) -> Outcome:
    """Kill one command of generate at random moments until `kills` have hit, and complete every set."""
    options, out = job.options, job.options.work / name.replace(" ", "-")
    outcome = Outcome.of(job.kept, name, f"synth generate {' '.join(line)}")
    if not outcome.starts:
        shutil.rmtree(out, ignore_errors=True)
    while not outcome.done:
        left = kills - len(outcome.kills)
        at = outcome.moment(options.seed, name, whole.seconds) if left > 0 else float("inf")
        child = begin(["generate", *line, "--out", str(out)])
        kill = strike(child, lambda after, at=at: after > at, lambda: generate_stage(out))
        outcome.starts += 1
        if kill is not None:
            outcome.kills.append(kill)
        else:
            completed(outcome, out, whole, options.count, last=left <= 0)
        outcome.note(job.kept, name, kills)
    return outcome


def killed_shards(job: Job, name: str, line: Sequence[str], whole: Whole, kills: int) -> Outcome:
    """Run two shards at once into one folder, kill each at random moments, complete both."""
    options, out = job.options, job.options.work / "shards"
    outcome = Outcome.of(job.kept, name, f"synth generate {' '.join(line)} --shard 0/2 and 1/2 at once")
    if not outcome.starts:
        shutil.rmtree(out, ignore_errors=True)
    lines = [["generate", *line, "--shard", f"{shard}/2", "--out", str(out)] for shard in range(2)]
    while not outcome.done:
        left = kills - len(outcome.kills)
        ended = struck(job, outcome, name, [(one, out) for one in lines], whole.seconds / 2, left)
        if (out / "manifest.jsonl").is_file() and ended:
            completed(outcome, out, whole, options.count, last=left <= 0)
        outcome.note(job.kept, name, kills)
    return outcome


def completed(outcome: Outcome, out: Path, whole: Whole, count: int, *, last: bool) -> None:
    """Hold a set that was completed against the uninterrupted one and remove it; `last` ends the outcome."""
    outcome.compare(whole.files, out)
    outcome.count_samples(out, count)
    outcome.done = last
    shutil.rmtree(out)


def struck(
    job: Job, outcome: Outcome, name: str, lines: Sequence[tuple[list[str], Path]], most: float, left: int
) -> bool:
    """Start commands at once, kill each at a random moment of its own, and return whether all ended by themselves."""
    began = time.monotonic()
    children = [begin(line) for line, _ in lines]
    for child, (_, out) in zip(children, lines, strict=True):
        outcome.starts += 1
        at = outcome.moment(job.options.seed, name, most) if left > 0 else float("inf")
        kill = strike(child, lambda _, at=at: time.monotonic() - began > at, lambda out=out: generate_stage(out))
        outcome.kills += [kill] if kill is not None else []
    return all(child.returncode == 0 for child in children)


def killed_merge(job: Job, name: str, line: Sequence[str], whole: Whole, kills: int) -> Outcome:
    """Run three shards at once into folders of their own, kill each at random moments, then merge, killed once too."""
    options, out = job.options, job.options.work / "merged"
    said = f"synth generate {' '.join(line)} --shard i/3 into three folders at once, then synth merge"
    outcome = Outcome.of(job.kept, name, said)
    folders = [options.work / f"shard{shard}" for shard in range(3)]
    if not outcome.starts:
        for folder in (*folders, out):
            shutil.rmtree(folder, ignore_errors=True)
    lines = [["generate", *line, "--shard", f"{n}/3", "--out", str(folder)] for n, folder in enumerate(folders)]
    while not outcome.done:
        left = kills - len(outcome.kills)
        if struck(job, outcome, name, list(zip(lines, folders, strict=True)), whole.seconds / 2, left):
            join = ["merge", *map(str, folders), "--out", str(out)]
            first = strike(begin(join), lambda after: any(out.glob("records/*.json")), lambda: "merging")
            outcome.kills += [first] if first is not None else []
            end(begin(join))
            outcome.starts += 2
            outcome.compare(whole.files, out)
            outcome.count_samples(out, options.count)
            outcome.done = kills <= len(outcome.kills)
            for folder in (*folders, out):
                shutil.rmtree(folder)
        outcome.note(job.kept, name, kills)
    return outcome


def killed_actors(job: Job, name: str, line: Sequence[str], whole: Whole) -> Outcome:
    """Kill one actor of each of some Ray runs as it works; every run must end by itself, in the same bytes."""
    options, out = job.options, job.options.work / "actors"
    outcome = Outcome.of(job.kept, name, f"synth generate {' '.join(line)}, an actor killed")
    while not outcome.done:
        shutil.rmtree(out, ignore_errors=True)
        moments = random.Random(f"{options.seed} {name} {outcome.starts}")
        child, started = begin(["generate", *line, "--out", str(out)]), time.monotonic()
        outcome.starts += 1
        wanted = moments.randrange(0, max(options.count // 2, 1))
        while child.poll() is None:
            actors = [pid for pid in below(child.pid) if "Maker" in title(pid)]
            if actors and len(list(out.glob("records/*.json"))) >= wanted:
                os.kill(moments.choice(actors), signal.SIGKILL)
                outcome.kills.append(Kill(round(time.monotonic() - started, 2), "an actor"))
                break
            time.sleep(POLL_S)
        end(child)
        outcome.seconds.append(round(time.monotonic() - started, 2))
        outcome.compare(whole.files, out)
        outcome.count_samples(out, options.count)
        outcome.done = len(outcome.kills) >= options.actors
        outcome.note(job.kept, name, options.actors)
    return outcome


def killed_train(job: Job, line: Sequence[str], whole: Mapping[str, str], spans: Mapping[str, float]) -> Outcome:
    """Kill one training at a random moment of each stage in turn, the writing of the model too, then let it end."""
    options, out, name = job.options, job.options.work / "killed", "train, killed"
    outcome = Outcome.of(job.kept, name, f"synth train {' '.join(line)}")
    if not outcome.starts:
        shutil.rmtree(out, ignore_errors=True)
    targets = (*_STAGES, f"after {_STAGES[-1]}")
    while outcome.starts < options.train_kills:
        target = targets[outcome.starts % len(targets)]
        delay, reached = outcome.moment(options.seed, name, spans[target]), [float("inf")]

        def due(after: float, target: str = target, delay: float = delay, reached: list[float] = reached) -> bool:
            if train_stage(out) == target:
                reached[0] = min(reached[0], after)
            return after > reached[0] + delay

        kill = strike(begin(["train", *line, "--out", str(out)]), due, lambda: train_stage(out))
        outcome.starts += 1
        outcome.kills += [kill] if kill is not None else []
        outcome.note(job.kept, name, options.train_kills)
    if not outcome.done:
        end(begin(["train", *line, "--out", str(out)]))
        outcome.starts += 1
        outcome.compare(whole, out)
        outcome.done = True
        outcome.note(job.kept, name, options.train_kills)
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


def timed(line: Sequence[str], out: Path) -> dict[str, Any]:
    """Run a command uninterrupted; return how long it took, and its files."""
    shutil.rmtree(out, ignore_errors=True)
    started = time.monotonic()
    end(begin([*line, "--out", str(out)]))
    return {"files": digests(out), "seconds": round(time.monotonic() - started, 2)}


def measure_generate(job: Job) -> dict[str, object]:
    """Return the outcomes of generate."""
    options, model = job.options, job.options.work / "model"
    found = load(options.model)  # the folder is copied so that nothing can change it meanwhile
    if not job.kept.parts:
        shutil.rmtree(model, ignore_errors=True)
        source = Path(options.model) if Path(options.model).is_dir() else ROOT / "synth" / "assets" / options.model
        shutil.copytree(source, model)
    line = [str(model), "--count", str(options.count), "--steps", str(options.steps), "--device", "cpu", "--workers"]
    one = job.kept.part("uninterrupted", lambda: timed(["generate", *line, "1"], options.work / "whole"))
    whole = Whole(one["files"], one["seconds"])
    half, most = -(-options.kills // 2), -(-options.kills * 3 // 4)
    outcomes = {
        "one worker": killed_generate(job, "one worker", [*line, "1"], whole, options.kills),
        "two workers": killed_generate(job, "two workers", [*line, "2"], whole, most),
        "two shards": killed_shards(job, "two shards", [*line, "1"], whole, half),
        "three shards, merged": killed_merge(job, "three shards, merged", [*line, "1"], whole, half),
    }
    more: dict[str, object] = {}
    if options.actors:
        on_ray = [*line, "2", "--engine", "ray"]
        ray = job.kept.part("uninterrupted on ray", lambda: timed(["generate", *on_ray], options.work / "whole-ray"))
        more = {"uninterrupted_on_ray_s": ray["seconds"], "ray_equal": ray["files"] == one["files"]}
        lasted = Whole(whole.files, ray["seconds"])
        outcomes["ray"] = killed_generate(job, "ray", on_ray, lasted, most)
        outcomes["ray, actors alone"] = killed_actors(job, "ray, actors alone", on_ray, whole)
    random_kills = sum(len(outcomes[name].kills) for name in ("one worker", "two workers", "ray") if name in outcomes)
    return {
        "model_sha256": found.model.sha256,
        "count": options.count,
        "steps": options.steps,
        "uninterrupted_s": one["seconds"],
        **more,
        "kills_over_one_worker_two_and_ray": random_kills,
        "goals": {"kills_over_one_worker_two_and_ray": 50, "equal": True, "lost": 0, "doubled": 0},
        **{name: outcome.plain() for name, outcome in outcomes.items()},
    }


def measure_train(job: Job) -> dict[str, object]:
    """Return the outcome of train on a small cohort."""
    options = job.options
    cohort, data, recipe = (options.work / name for name in ("cohort", "data", "recipe.yaml"))
    line = [str(recipe), "--data", str(data), "--device", "cpu"]
    line += [part for value in _SMALL for part in ("--set", value)]

    def uninterrupted() -> dict[str, Any]:
        shutil.rmtree(cohort, ignore_errors=True)
        end(begin(["cohort", "--out", str(cohort), "--count", str(options.subjects)]))
        prepare = ["prepare", str(cohort), "--out", str(data), "--spacing", "5.2", "5.2", "5.2", "--overwrite"]
        end(begin(prepare))
        shutil.copy(config_path("brain-tiny-cpu"), recipe)
        spans = timed_train(line, options.work / "trained")
        return {"spans": spans, "files": digests(options.work / "trained")}

    whole = job.kept.part("train, uninterrupted", uninterrupted)
    outcome = killed_train(job, line, whole["files"], whole["spans"])
    return {"subjects": options.subjects, "stages_s": whole["spans"], **outcome.plain()}


def main(options: Options) -> None:
    """Measure and write JSON; ends with 1 where a byte differs."""
    job = Job(options, Kept(options.work, options, "kill"))
    result = {
        "command": command_line("kill", WORK=options.work),
        "options": job.kept.asked,
        "environment": environment(torch.device("cpu")),
        "software": software(),
        "generate": measure_generate(job),
        "train": measure_train(job) if options.train_kills else None,
    }
    text = write_result(options.out, options.work, result)
    print(text)
    sys.exit(1 if '"equal": false' in text or '"ray_equal": false' in text else 0)


if __name__ == "__main__":
    main(tyro.cli(Options))
