"""A whole experiment: every stage of a recipe in order, each resumable, ending in a model folder."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from synth.checkpoint import write_model
from synth.codec import build as build_codec
from synth.codec.config import CodecConfig, OneHotConfig
from synth.conditioning.config import ConditioningConfig, vocabulary
from synth.conditioning.pretrained import completed
from synth.data.prepared import Prepared
from synth.data.schema import Schema
from synth.errors import ConfigError
from synth.model import Model, PartModel, build_part
from synth.recipe import Part, Recipe
from synth.training.codec_stage import PartName, Pixels, cache_latents, fit_texture, train_codec
from synth.training.fit import Report
from synth.training.flow_stage import Latents, train_flow

StageReport = Callable[[str], Report]


@dataclass(frozen=True)
class Experiment:
    """A recipe completed by its data, and where it runs.

    report   called with a stage's name, returns what is told after each of its steps
    """

    recipe: Recipe
    prepared: Prepared
    folder: Path
    report: StageReport

    def run(self) -> Path:
        """Train every stage that is not done and return the model's folder."""
        recipe = complete(self.recipe, self.prepared)
        self.folder.mkdir(parents=True, exist_ok=True)
        image = self._codec(recipe.image, "image")
        mask = None if recipe.mask is None else self._codec(recipe.mask, "mask")
        if mask is not None:
            self._flow(mask, "mask")
        self._flow(image, "image")
        model = Model(recipe, image, mask).eval()
        folder = self.folder / "model"
        write_model(model, folder, card=card(recipe, self.prepared), half=True)
        return folder

    def _codec(self, part: Part, name: PartName) -> PartModel:
        torch.manual_seed(_stage_seed(self.recipe.seed, f"{name} codec"))
        model = build_part(part)
        pixels = Pixels(self.prepared, name)
        stage = f"{name} codec"
        train_codec(
            model.codec,
            part.codec_training,
            pixels,
            self.folder / name / "codec",
            seed=self.recipe.seed,
            report=self.report(stage),
        )
        if model.texture is not None:
            fit_texture(model.texture, model.codec, pixels)
        report = self.report(f"{name} latents")
        cache_latents(
            model.codec, pixels, self.folder / name / "latents", report=lambda done, total: report(done, total, {})
        )
        return model

    def _flow(self, model: PartModel, name: PartName) -> None:
        latents = Latents(
            self.prepared, self.folder / name / "latents", model.codec.stride, masks=model.part.conditioning.labels > 0
        )
        train_flow(
            model,
            model.part.training,
            latents,
            self.folder / name / "flow",
            seed=self.recipe.seed,
            report=self.report(f"{name} generator"),
        )


def complete(recipe: Recipe, prepared: Prepared) -> Recipe:
    """Return the recipe with schema, labels, attributes and vocabulary of the data filled in.

    Errors: ConfigError where a codec does not fit the data's channels, labels or dimensions.
    """
    schema = prepared.schema
    texts = [case.text for case in prepared.split("train") if case.text]
    labels = len(schema.labels) + 1

    def conditioned(part: Part, *, with_mask: bool) -> Part:
        config = part.conditioning
        if config.text_encoder is not None and not texts:
            raise ConfigError("conditioning.text_encoder is set, the data has no texts; remove it from the config")
        filled = ConditioningConfig(
            **{
                **{name: getattr(config, name) for name in config.__dataclass_fields__},
                "labels": labels if with_mask and schema.labels else 0,
                "stride": build_codec(part.codec).stride,
                "attributes": schema.attributes,
                "vocabulary": vocabulary(texts),
                **completed(config),
            }
        )
        return replace(part, conditioning=filled)

    _check_codec(recipe.image, len(schema.channels), schema)
    mask = recipe.mask
    if mask is not None:
        if not schema.labels:
            raise ConfigError("the recipe has a mask part, the data has no labels; remove `mask` from the config")
        _check_codec(mask, labels, schema)
        mask = replace(conditioned(mask, with_mask=False), texture=False)
    return replace(recipe, image=conditioned(recipe.image, with_mask=True), mask=mask, schema=schema)


def _pixel_codec(part: Part) -> CodecConfig:
    return part.codec.inner if isinstance(part.codec, OneHotConfig) else part.codec


def _check_codec(part: Part, channels: int, schema: Schema) -> None:
    codec = _pixel_codec(part)
    assert not isinstance(codec, OneHotConfig)
    if codec.in_channels != channels:
        raise ConfigError(f"codec.in_channels is {codec.in_channels}, the data has {channels}; give {channels}")
    if codec.spatial_dims != len(schema.grid):
        raise ConfigError(
            f"codec.spatial_dims is {codec.spatial_dims}, the data is {len(schema.grid)}D; change the config"
        )


def card(recipe: Recipe, prepared: Prepared) -> str:
    """Return the README of a model folder: what it knows, on what it was trained, what it is not for."""
    schema = prepared.schema
    count = {split: len(prepared.split(split)) for split in ("train", "holdout", "test")}
    patients = len({case.patient for case in prepared.split("train")})
    lines = [
        f"# {recipe.name}",
        "",
        recipe.description or "A generator of paired image-mask volumes.",
        "",
        f"- population: {schema.population}",
        f"- training cases: {count['train']} of {patients} patients "
        f"(hold-out {count['holdout']}, test {count['test']})",
        f"- grid {'x'.join(map(str, schema.grid))} at {', '.join(f'{s:g}' for s in schema.spacing_mm)} mm",
        f"- labels: {', '.join(label.name for label in schema.labels) or 'none'}",
        f"- attributes: {', '.join(attribute.name for attribute in schema.attributes) or 'none'}",
        "",
        "Synthetic data. Not for diagnosis. What it leaks and whether it helps is for `synth evaluate` to measure.",
        "",
    ]
    return "\n".join(lines)


def _stage_seed(seed: int, stage: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {stage}".encode()).digest()[:4], "little")
