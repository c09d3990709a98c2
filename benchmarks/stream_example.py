"""A segmenter trained on few real cases, and on the same with a stream beside them: both curves.

python -m benchmarks.stream_example WORK benchmarks/results/stream-example.json

Both loops have the same start, steps, batches and augmentation; only `ratio` differs. Dice is that of whole test cases
of other patients. The population is the simulated cohort, of whose other subjects the bundled model saw many: the
figures say what a stream does in a loop, not what synthetic data do for patients. Each curve is kept once it is whole,
and the same command goes on.
"""

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from matplotlib.figure import Figure

import synth
from benchmarks.keeping import Kept, command_line, say, write_result
from benchmarks.stream_training import LoopOptions, Trainer, held_out_dice, network, prepared_cohort
from synth.data.prepared import Prepared
from synth.generator import environment, load
from synth.rng import numpy_rng
from synth.stream import Balanced


@dataclass(frozen=True, kw_only=True)
class Options(LoopOptions):
    """Train with and without a stream. The picture lies beside the JSON."""

    ratio: float = 0.5
    epoch_steps: int = 40
    cohort_seed: int = 77
    """Of the real cases; the bundled model was trained on subjects of seed 0."""
    real_cases: int = 4
    """Real training cases; few, as where synthetic ones are wanted."""
    epochs: int = 20
    seeds: int = 3


def few(prepared: Prepared, count: int) -> Prepared:
    """Return the data with the first `count` training cases alone."""
    kept = {case.case for case in prepared.split("train")[:count]}
    return replace(prepared, cases=tuple(c for c in prepared.cases if c.split != "train" or c.case in kept))


def augmented(item: dict[str, Any]) -> dict[str, Any]:
    """Flip about the first axis and change gain and noise, drawn from torch's generator, which the item seeds."""
    image, mask = item["image"], item["mask"]
    if torch.rand(()) < 0.5:
        image, mask = image.flip(1), mask.flip(1)
    gain = 1 + 0.14 * (torch.rand(()) - 0.5)
    return {**item, "image": image * gain + 0.01 * torch.randn(image.shape), "mask": mask}


def curve(options: Options, prepared: Prepared, seed: int, ratio: float) -> list[dict[str, float]]:
    """Return the held-out Dice of each label after each epoch."""
    stream = synth.Stream(
        options.model,
        real=few(prepared, options.real_cases),
        ratio=ratio,
        reuse=options.reuse,
        buffer=options.work / f"buffer-{seed}-{ratio:g}",
        size=options.size,
        seed=1000 + seed,
        policy=Balanced(),
        batch=options.batch,
        epoch_steps=options.epoch_steps,
        transform=augmented,
        sampling=synth.Sampling(steps=options.sampling_steps),
    )
    with stream:
        stream.wait()
        trainer = Trainer(network(prepared, seed=seed, width=options.width), stream.loader())
        out = []
        for epoch in range(options.epochs):
            trainer.epoch(epoch)
            out.append(held_out_dice(trainer.model, prepared, prepared.split("test")))
            say(f"seed {seed} ratio {ratio:g} epoch {epoch + 1}/{options.epochs}: {out[-1]}")
    return out


def interval(differences: np.ndarray) -> list[float]:
    """Return the 95 % bootstrap interval of the mean over seeds."""
    rng = numpy_rng(0, "bootstrap")
    means = [rng.choice(differences, len(differences)).mean() for _ in range(2000)]
    return [round(float(v), 4) for v in np.quantile(means, [0.025, 0.975])]


def draw(path: Path, curves: dict[str, np.ndarray], options: Options) -> None:
    """Write the picture: mean Dice over labels by step, a thin line a seed, a thick one for their mean."""
    figure = Figure(figsize=(6, 4), dpi=120)
    axes = figure.subplots()
    steps = options.epoch_steps * np.arange(1, options.epochs + 1)
    for colour, (name, values) in zip(("#555555", "#c1440e"), curves.items(), strict=True):
        axes.plot(steps, values.T, color=colour, alpha=0.3, linewidth=0.8)
        axes.plot(steps, values.mean(axis=0), color=colour, linewidth=2, label=name)
    axes.set(xlabel="step", ylabel="Dice, mean over labels", title=f"simulated cohort, {options.real_cases} real cases")
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Software": None})


def main() -> None:
    """Train, and write the JSON and the picture."""
    options = tyro.cli(Options, description=__doc__)
    torch.set_num_threads(1)
    kept = Kept(options.work, options, "stream_example")
    prepared = prepared_cohort(options.work, subjects=options.subjects, seed=options.cohort_seed)
    arms = {"real": 0.0, "real + stream": options.ratio}
    rows: dict[str, list[list[dict[str, float]]]] = {name: [] for name in arms}
    for seed in range(options.seeds):
        for name, ratio in arms.items():
            one = kept.part(f"seed {seed}, {name}", lambda s=seed, r=ratio: curve(options, prepared, s, r))
            rows[name].append(one)
    curves = {name: np.array([[np.mean(list(at.values())) for at in one] for one in of]) for name, of in rows.items()}
    gain = curves["real + stream"][:, -1] - curves["real"][:, -1]
    result = {
        "command": command_line("stream_example", WORK=options.work),
        "population": prepared.schema.population,
        "options": kept.asked,
        "test_cases": len(prepared.split("test")),
        "final_dice": {name: round(float(values[:, -1].mean()), 4) for name, values in curves.items()},
        "gain": {"value": round(float(gain.mean()), 4), "interval": interval(gain), "n": len(gain)},
        "curves": rows,
        "cores": len(os.sched_getaffinity(0)),
        "environment": environment(torch.device("cpu")),
        "model_sha256": load(options.model).model.sha256,
    }
    write_result(options.out, options.work, result)
    draw(options.out.with_suffix(".png"), curves, options)
    print(json.dumps({name: result[name] for name in ("final_dice", "gain")}, indent=1))


if __name__ == "__main__":
    main()
