"""A tiny untrained model folder, and streams whose buffer is filled in this process: what is tested then takes no time."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import synth
from synth import config
from synth.checkpoint import read_recipe
from synth.data.prepared import Prepared
from synth.generator import Generator, Seed
from synth.model import Model, build
from synth.recipe import Recipe
from synth.rng import numpy_rng
from synth.stream import Stream
from synth.stream.lead import Producers
from synth.stream.producer import Producer
from tests.conftest import phantom, tiny_recipe


@pytest.fixture(scope="session")
def tiny(prepared: Prepared) -> Path:
    """A model folder with the schema of the tiny dataset and weights as they begin."""
    schema = prepared.schema
    recipe = config.load(Recipe, tiny_recipe(3))
    assert recipe.mask is not None
    kinds = tuple(one for one in schema.attributes if one.name == "kind")
    schema = replace(schema, attributes=kinds, texts=False)
    image = replace(recipe.image.conditioning, labels=3, stride=2, attributes=kinds)
    mask = replace(recipe.mask.conditioning, attributes=kinds)
    recipe = replace(
        recipe,
        schema=schema,
        image=replace(recipe.image, conditioning=image),
        mask=replace(recipe.mask, conditioning=mask),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        built = build(recipe)
    folder = prepared.folder.parent / "tiny-untrained"
    synth.save(Generator(Model(recipe, built.image, built.mask).eval()), folder)
    return folder


class Quick:
    """Samples as a generator would give them, of phantoms: what comes depends on seed and condition alone."""

    def __init__(self, schema: Any) -> None:
        self.schema = schema
        self.asked: list[tuple[Seed, dict[str, Any]]] = []

    def generate(self, conditions: Iterable[synth.Condition], *, seeds: Iterable[Seed]) -> Iterator[Any]:
        for condition, seed in zip(conditions, seeds, strict=True):
            self.asked.append((seed, dict(condition.attributes)))
            image, labels = phantom(seed.index + 1000 * seed.seed, self.schema.grid)
            values = np.array([0, *self.schema.label_values.values()])
            affine = self.schema.reference_affine
            mask = synth.Volume(values[labels][None].astype(np.uint8), affine, self.schema.label_values)
            level = 1.0 if dict(condition.attributes).get("kind") == "b" else 0.0
            noise = numpy_rng(*seed, "level").random() + level
            yield synth.Sample(synth.Volume(image[None] + noise, affine), mask, condition, None)  # pyright: ignore[reportArgumentType]


@pytest.fixture
def make(tiny: Path, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Stream]:
    """Streams of the tiny model and data that start no process; `fill` makes what they want."""
    monkeypatch.setattr(Producers, "start", lambda self: None)

    def made(**options: Any) -> Stream:
        settings = dict(real=prepared, ratio=0.5, reuse=2, buffer=tmp_path / "buffer", batch=4, epoch_steps=6, depth=4)
        return Stream(options.pop("generator", tiny), **{**settings, **options})

    return made


def fill(stream: Stream, model: Path) -> Quick:
    """Make every sample that the stream wants, in this process; return whom it asked."""
    schema = read_recipe(model).schema
    assert schema is not None
    quick = Quick(schema)
    producer = Producer(stream.store, quick)  # pyright: ignore[reportArgumentType]
    while producer.once():
        pass
    return quick


def told(batches: Iterable[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Return what identifies each item of batches: case, index, group and the bytes of both arrays."""
    out: list[tuple[Any, ...]] = []
    for batch in batches:
        for n, case in enumerate(batch["case"]):
            arrays = tuple(batch[name][n].numpy().tobytes() for name in ("image", "mask"))
            out.append(
                (case, int(batch["index"][n]), int(batch["group"][n]), bool(batch["synthetic"][n]), hash(arrays))
            )
    return out
