"""How to sample brain-tiny's masks: where the calls lie, how many, and how strongly the class is asked for.

synth cohort --out COHORT --count 360 --seed 1
synth prepare COHORT --out DATA
python -m benchmarks.mask_sampling --data DATA --out benchmarks/results/mask-sampling.json

At each setting the same 36 masks are asked for lesions of 0.2 to 12 ml, from the same noise: how much lesion is made,
how far the tissues vary and how rough their surfaces are, beside real masks of DATA. Nobody looks at the images; they
take one call.
"""

import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks.brain_samples import LABELS, Ask, loaded, start
from benchmarks.brain_tiny import lesion_asks, obeyed
from benchmarks.keeping import command_line
from evaluation.extractors.radiomics import radiomics_table
from synth.data.prepared import Prepared
from synth.generator import Generator, load
from synth.io import write_bytes
from synth.process import RectifiedFlow
from synth.sample import Condition
from synth.sampler import SAMPLERS, SamplerName

_FIRST_SEED = 30_000
_TISSUES = 3


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A sampler, its steps, the shift of their times towards noise, the guidance scale of the class."""

    sampler: SamplerName
    steps: int
    shift: float
    guidance: float


SETTINGS = (
    Setting(sampler="heun", steps=4, shift=1.0, guidance=3.5),
    Setting(sampler="heun", steps=4, shift=1.0, guidance=2.5),
    Setting(sampler="heun", steps=4, shift=2.0, guidance=2.5),
    Setting(sampler="heun", steps=4, shift=3.0, guidance=2.5),
    Setting(sampler="heun", steps=5, shift=2.0, guidance=2.5),
    Setting(sampler="heun", steps=6, shift=2.0, guidance=2.5),
    Setting(sampler="dpm_solver_2m", steps=8, shift=2.0, guidance=2.5),
    Setting(sampler="heun", steps=8, shift=1.0, guidance=2.5),
)
_REAL = 100
_SHAPE = ("volume", "roughness")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Sample masks in many ways and write JSON."""

    data: Path
    out: Path
    model: str = "brain-tiny"
    count: int = 36
    """Masks of each setting."""
    workers: int = 2
    """Processes of one thread each."""


def sampled_by(generator: Generator, setting: Setting) -> Generator:
    """Return the generator with its masks sampled so (its denoiser is told the times), and its images by one call."""
    model, mask = generator.model, generator.model.mask
    assert mask is not None, "the model makes masks"
    process = mask.part.process
    assert isinstance(process, RectifiedFlow), "the masks are a flow's"
    mask.flow.denoiser.process = replace(process, shift=setting.shift)
    how = replace(
        mask.part, sampler=SAMPLERS[setting.sampler], steps=setting.steps, guidance={"class": setting.guidance}
    )
    image = replace(model.image, part=replace(model.image.part, steps=1, texture=False), texture=None)
    return Generator(replace(model, mask=replace(mask, part=how), image=image))


def shape_made(setting: Setting, ask: Ask) -> list[list[float]]:
    """Return the shape of the mask that was asked for, by label."""
    generator = sampled_by(loaded(), setting)
    sample = next(generator.generate([Condition(attributes=dict(ask.attributes))], seeds=[ask.seed]))
    assert sample.mask is not None
    return shape(sample.image.data, sample.mask.data[0], sample.mask.spacing_mm)


def shape(image: np.ndarray, mask: np.ndarray, spacing_mm: tuple[float, ...]) -> list[list[float]]:
    """Return the volume in ml of each label, and the area of its surface over its volume to the power of 2/3."""
    table = radiomics_table(image, mask, labels=len(LABELS), spacing_mm=spacing_mm)
    volume, roughness = ([table[f"label{label}.{name}"] for label in LABELS.values()] for name in _SHAPE)
    return [[float(np.expm1(value)) / 1000 for value in volume], roughness]


def told(asked: Sequence[float], made: np.ndarray) -> dict[str, Any]:
    """Return how lesions follow what was asked, and what the tissues are like."""
    lesion = made[:, 0, LABELS["lesion"] - 1]
    return {
        **obeyed(asked, lesion.tolist()),
        "mask_over_asked_of_means": round(float(lesion.mean() / np.mean(asked)), 3),
        **tissues(made),
    }


def tissues(shapes: np.ndarray) -> dict[str, list[float]]:
    """Return mean and SD of the volume, and the mean roughness, of CSF, GM and WM."""
    volume, roughness = shapes[:, 0, :_TISSUES], shapes[:, 1, :_TISSUES]
    figures = {"mean_ml": volume.mean(axis=0), "sd_ml": volume.std(axis=0), "roughness": roughness.mean(axis=0)}
    return {f"{name}_csf_gm_wm": [round(float(v), 2) for v in values] for name, values in figures.items()}


def main(options: Options) -> None:
    """Sample, compare, write JSON."""
    prepared = Prepared.load(options.data)
    cases = prepared.split("train")[:_REAL]
    real = [
        shape(np.array(prepared.image(case)), np.array(prepared.mask(case)), prepared.schema.spacing_mm)
        for case in cases
    ]
    asks = [replace(ask, seed=_FIRST_SEED + index) for index, ask in enumerate(lesion_asks(options.count))]
    asked = [float(ask.attributes["lesion_volume_ml"]) for ask in asks]
    rows: list[dict[str, Any]] = []
    with ProcessPoolExecutor(options.workers, get_context("spawn"), start, (options.model,)) as pool:
        for setting in SETTINGS:
            made = np.array(list(pool.map(partial(shape_made, setting), asks)))
            rows.append({**asdict(setting), **told(asked, made)})
            print(json.dumps(rows[-1]), flush=True)
    result = {
        "command": command_line("mask_sampling", DATA=options.data),
        "model_sha256": load(options.model).model.sha256,
        "n": len(asks),
        "real": {"n": len(real), **tissues(np.array(real))},
        "settings": rows,
    }
    write_bytes(options.out, (json.dumps(result, indent=1) + "\n").encode())


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
