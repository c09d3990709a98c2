"""Noise laws and samplers on the brain model, each law trained with the same budget. JSON out.

synth cohort --out COHORT --count 360 --seed 1
synth prepare COHORT --out DATA
python -m benchmarks.noise_laws WORK benchmarks/results/noise-laws.json --data DATA --steps 1200

Every law (rectified flow, variance preserving, EDM: brain-tiny-cpu, brain-tiny-vp, brain-tiny-edm) trains the same
network on the same latents of the bundled model's image codec, with the same batches in the same order, steps and
learning rate. Then each sampler at each number of network calls follows the masks of unseen cases. Under variance
preserving, Euler is DDIM. Training resumes where it was stopped; one thread unless --threads says otherwise.
"""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
import tyro

from benchmarks.brain_samples import Volumes, make, start
from benchmarks.brain_tiny import asks_of, obedience, sharpness
from pipelines.configs import config_path
from pipelines.judges import find_bench
from synth import config
from synth.checkpoint import write_model
from synth.data.prepared import Prepared
from synth.generator import load
from synth.io import write_bytes
from synth.model import Model, PartModel, build_part
from synth.recipe import Part, Recipe
from synth.sampler import SAMPLERS, SamplerName
from synth.training.codec_stage import Pixels, cache_latents
from synth.training.experiment import complete
from synth.training.flow_stage import Latents, train_flow

LAWS = {"rectified_flow": "brain-tiny-cpu", "variance_preserving": "brain-tiny-vp", "edm": "brain-tiny-edm"}
_SAMPLERS: tuple[SamplerName, ...] = ("euler", "heun", "ancestral", "dpm_solver_2m")
_CALLS = (2, 4, 8, 16, 32)
_LONG = {"rectified_flow": (1, 64), "variance_preserving": (1, 64, 250, 1000), "edm": ()}
"""Further calls of Euler: the long curve, which variance preserving is told to need."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Train three laws alike, measure every sampler, write JSON."""

    work: tyro.conf.Positional[Path]
    out: tyro.conf.Positional[Path]
    data: Path
    model: str = "brain-tiny"
    """Whose image codec and texture are used."""
    steps: int = 1200
    """Optimiser steps of each law."""
    count: int = 12
    """Unseen masks behind each point; a third of them beyond 64 calls."""
    workers: int = 2
    threads: int = 1
    """Of training."""
    only_train: bool = False


def trained(law: str, options: Options, prepared: Prepared) -> Path:
    """Return the folder of the model of `law`, trained where it is not there yet."""
    folder = options.work / law
    if (folder / "model" / "recipe.yaml").is_file():
        return folder / "model"
    bundled = load(options.model).model.image
    recipe = complete(replace(config.load(Recipe, config_path(LAWS[law])), mask=None), prepared)
    part = _budgeted(replace(recipe.image, codec=bundled.part.codec), options.steps)
    torch.manual_seed(0)
    fresh = build_part(part)
    model = PartModel(part, bundled.codec, fresh.flow, bundled.texture)
    latents = options.work / "latents"
    cache_latents(model.codec, Pixels(prepared, "image"), latents)
    started = time.perf_counter()

    def report(done: int, total: int, figures: dict[str, float]) -> None:
        if done % 50 == 0:
            print(f"{law} {done}/{total} {time.perf_counter() - started:.0f} s {figures.get('loss')}", flush=True)

    train_flow(
        model,
        part.training,
        Latents(prepared, latents, model.codec.stride, masks=True),
        folder / "flow",
        seed=0,
        report=report,  # pyright: ignore[reportArgumentType]
    )
    whole = Model(replace(recipe, image=part), model).eval()
    write_model(whole, folder / "model", card=f"# {recipe.name}: {options.steps} steps, for a comparison\n")
    return folder / "model"


def _budgeted(part: Part, steps: int) -> Part:
    fit = replace(part.training.fit, steps=steps, warmup=100, ema=0.998, checkpoint_every=100, validate_every=steps)
    return replace(part, training=replace(part.training, fit=fit))


def points(law: str) -> list[tuple[SamplerName, int, int]]:
    """Return (sampler, steps, calls) of a law's rows; a sampler has no row where its steps cannot make the calls."""
    long: list[tuple[SamplerName, int]] = [("euler", calls) for calls in _LONG[law]]
    rows = [*product(_SAMPLERS, _CALLS), *long]
    found = [(name, SAMPLERS[name].steps_for(calls), calls) for name, calls in rows]
    return [row for row in found if SAMPLERS[row[0]].evaluations(row[1]) == row[2]]


def rows_of(
    law: str, model: Path, options: Options, volumes: Volumes, known: list[dict[str, object]]
) -> Iterator[dict[str, object]]:
    """Yield the figures of every sampler and number of calls for one law; rows that are `known` are not made again."""
    judge = find_bench(None, volumes.prepared.schema).segmenter
    assert judge is not None, "no judge fits these labels"
    done = {(row["law"], row["sampler"], row["calls"]): row for row in known}
    with ProcessPoolExecutor(options.workers, get_context("spawn"), start, (str(model),)) as pool:
        for sampler, steps, calls in points(law):
            if (law, sampler, calls) in done:
                yield done[law, sampler, calls]
                continue
            few = replace(volumes, cases=volumes.cases[:: 3 if calls > 64 else 1])
            made = list(pool.map(make, [ask.by(sampler, steps) for ask in asks_of(few)]))
            found = {**sharpness(made, few), **obedience(made, few, judge)}
            row = {
                "law": law,
                "sampler": sampler,
                "calls": calls,
                "n": len(few.cases),
                "agreement": found["agreement"],
                "permuted": found["permuted"],
                "contrast_recognised": found["contrast_recognised"],
                "spectrum_gap_db_worst": found["spectrum_gap_db_worst"],
                "texture_sd_ratio_csf_gm_wm": found["texture_sd_ratio_csf_gm_wm"],
                "seconds_per_image": float(np.median([sample.seconds for sample in made])),
            }
            print(json.dumps(row), flush=True)
            yield row


def main(options: Options) -> None:
    """Train, measure and write JSON after each row; rows of an earlier run of the same ask stay."""
    torch.set_num_threads(options.threads)
    prepared = Prepared.load(options.data)
    models = {law: trained(law, options, prepared) for law in LAWS}
    if options.only_train:
        return
    cases = [*prepared.split("test"), *prepared.split("holdout")][: options.count]
    about: dict[str, object] = {
        "command": f"python -m benchmarks.noise_laws WORK {options.out} --data DATA --model {options.model} "
        f"--steps {options.steps} --count {options.count}",
        "population": prepared.schema.population,
        "codec_of": load(options.model).model.sha256,
        "models": {law: load(model).model.sha256 for law, model in models.items()},
        "samplers": "under variance_preserving euler is DDIM; ancestral draws fresh noise",
    }
    before = json.loads(options.out.read_text()) if options.out.is_file() else {}
    known = before["rows"] if all(before.get(name) == value for name, value in about.items()) else []
    rows: list[dict[str, object]] = []
    for law, model in models.items():
        for row in rows_of(law, model, options, Volumes(prepared, cases), known):
            rows.append(row)
            write_bytes(options.out, (json.dumps({**about, "rows": rows}, indent=1) + "\n").encode())


if __name__ == "__main__":
    main(tyro.cli(Options))
