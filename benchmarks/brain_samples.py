"""Samples for measuring a brain model: what is asked, made by processes of one thread, in mapped intensities."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from synth.data.intensity import Percentiles
from synth.data.prepared import Prepared, PreparedCase
from synth.generator import Generator, Sampling, load
from synth.sample import Condition
from synth.sampler import SAMPLERS, SamplerName
from synth.volume import Volume

LABELS = {"csf": 1, "gm": 2, "wm": 3, "lesion": 4}


@dataclass(frozen=True, eq=False)
class Ask:
    """One sample to make, in plain values that travel between processes; the model's own sampler by default."""

    attributes: Mapping[str, str | float | int]
    seed: int
    mask: np.ndarray | None = None
    text: str | None = None
    sampler: SamplerName | None = None
    steps: int | None = None

    def by(self, sampler: SamplerName, steps: int) -> "Ask":
        """Return this ask with another sampler."""
        return replace(self, sampler=sampler, steps=steps)


@dataclass(frozen=True, eq=False)
class Made:
    """A sample: image (*grid) mapped by its own percentiles, labels (*grid), and the seconds it took."""

    image: np.ndarray
    mask: np.ndarray
    spacing_mm: tuple[float, ...]
    seconds: float


@dataclass(frozen=True, eq=False)
class Volumes:
    """Prepared cases with their mapped image (*grid) and labels (*grid), read as they are gone through."""

    prepared: Prepared
    cases: Sequence[PreparedCase]

    def __iter__(self) -> Iterator[tuple[PreparedCase, np.ndarray, np.ndarray]]:
        for case in self.cases:
            yield case, np.array(self.prepared.image(case))[0], np.array(self.prepared.mask(case))


_generator: list[Generator] = []


def start(model: str) -> None:
    """Prepare a process: one thread, one model."""
    torch.set_num_threads(1)
    _generator.append(load(model))


def loaded() -> Generator:
    """Return the model that this process was prepared with."""
    return _generator[0]


def make(ask: Ask) -> Made:
    """Return the sample that was asked for."""
    generator = loaded().with_sampling(
        Sampling(sampler=SAMPLERS[ask.sampler] if ask.sampler else None, steps=ask.steps)
    )
    schema = generator.model.recipe.schema
    assert schema is not None
    mask = None if ask.mask is None else Volume(ask.mask[None], schema.reference_affine, LABELS)
    started = time.perf_counter()
    condition = Condition(mask=mask, text=ask.text, attributes=dict(ask.attributes))
    sample = next(generator.generate([condition], seeds=[ask.seed]))
    seconds = time.perf_counter() - started
    assert sample.mask is not None
    image = Percentiles().apply(sample.image.data)[0]
    return Made(image, sample.mask.data[0], tuple(sample.image.spacing_mm), seconds)
