"""A whole experiment: every stage of a recipe in order, each resumable, ending in a model folder."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from synth import config
from synth.checkpoint import write_model
from synth.codec import build as build_codec
from synth.codec.config import CodecConfig, OneHotConfig
from synth.conditioning.config import ConditioningConfig, vocabulary
from synth.conditioning.pretrained import completed
from synth.data.prepared import Prepared
from synth.data.schema import Schema
from synth.data.seen import Seen
from synth.errors import ConfigError
from synth.model import Model, PartModel, build_part
from synth.recipe import Part, Recipe
from synth.training.codec_stage import PartName, Pixels, cache_latents, fit_texture, train_codec
from synth.training.fit import Report
from synth.training.flow_stage import Latents, train_flow
from synth.training.state import write_json

StageReport = Callable[[str], Report]


@dataclass(frozen=True)
class Experiment:
    """A recipe completed by its data, and where it runs.

    prepared must be at its fold where it has one: every stage reads its train and holdout cases, and no others.
    report   called with a stage's name, returns what is told after each of its steps
    say      told in words what a user should know of a stage
    """

    recipe: Recipe
    prepared: Prepared
    folder: Path
    report: StageReport
    say: Callable[[str], None] = lambda _: None

    def run(self) -> Path:
        """Train every stage that is not done and return the model's folder."""
        recipe = complete(self.recipe, self.prepared)
        seen = Seen.of(self.prepared, seed=self.recipe.seed)
        self.folder.mkdir(parents=True, exist_ok=True)
        _claim(self.folder / "data.json", self.prepared, seen)
        image = self._codec(recipe.image, "image")
        mask = None if recipe.mask is None else self._codec(recipe.mask, "mask")
        if mask is not None:
            self._flow(mask, "mask")
        self._flow(image, "image")
        model = Model(recipe, image, mask, seen=seen).eval()
        folder = self.folder / "model"
        write_model(model, folder, card=card(recipe, self.prepared), half=True)
        return folder

    def _codec(self, part: Part, name: PartName) -> PartModel:
        torch.manual_seed(_stage_seed(self.recipe.seed, f"{name} codec"))
        model = build_part(part)
        pixels = Pixels(self.prepared, name)
        stage = f"{name} codec"
        early = train_codec(
            model.codec,
            part.codec_training,
            pixels,
            self.folder / name / "codec",
            seed=self.recipe.seed,
            report=self.report(stage),
        )
        if early:
            self.say(early)
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
        early = train_flow(
            model,
            model.part.training,
            latents,
            self.folder / name / "flow",
            seed=self.recipe.seed,
            report=self.report(f"{name} generator"),
        )
        if early:
            self.say(f"{name} generator: {early}")


def _claim(path: Path, prepared: Prepared, seen: Seen) -> None:
    """Write on which data a new run is; refuse another fold or other data for a run that was begun.

    Stages that are fitted, and latents that are kept, could not tell themselves. A run of before folds is of none.
    """
    voxels = hashlib.sha256(seen.dump() + config.dump(prepared.schema).encode()).hexdigest()
    now = {"fold": prepared.fold, "data": voxels}
    if not path.is_file():
        if prepared.fold is not None and any((path.parent / part).exists() for part in ("image", "mask")):
            raise ConfigError(f"{path.parent} was begun without folds; give another --out for fold {prepared.fold}")
        write_json(path, now)
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        fold, data = before["fold"], before["data"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is broken ({error!r}); give another --out") from error
    if fold != now["fold"]:
        words = ["no fold" if one is None else f"fold {one}" for one in (fold, now["fold"])]
        raise ConfigError(f"{path.parent} was begun on {words[0]}, now it is {words[1]}; give another --out")
    if data != now["data"]:
        raise ConfigError(f"{path.parent} was begun on other data or another seed; give another --out")


def complete(recipe: Recipe, prepared: Prepared) -> Recipe:
    """Return the recipe with schema, labels, attributes and vocabulary of the data filled in.

    Errors: ConfigError where a codec does not fit the data's channels, labels or dimensions.
    """
    schema = prepared.schema
    texts = [case.text for case in prepared.split("train") if case.text]
    labels = len(schema.labels) + 1

    def conditioned(part: Part, *, with_mask: bool) -> Part:
        given = part.conditioning
        if given.text_encoder is not None and not texts:
            raise ConfigError("conditioning.text_encoder is set, the data has no texts; remove it from the config")
        filled = ConditioningConfig(
            **{
                **{name: getattr(given, name) for name in given.__dataclass_fields__},
                "labels": labels if with_mask and schema.labels else 0,
                "stride": build_codec(part.codec).stride,
                "attributes": schema.attributes,
                "vocabulary": vocabulary(texts),
                **completed(given),
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
    count = {split: len(prepared.split(split)) for split in ("train", "holdout", "val", "test")}
    fold = "" if prepared.fold is None else f"; fold {prepared.fold}, validation {count['val']}"
    patients = len({case.patient for case in prepared.split("train")})
    lines = [
        f"# {recipe.name}",
        "",
        recipe.description or "A generator of paired image-mask volumes.",
        "",
        f"- population: {schema.population}",
        f"- training cases: {count['train']} of {patients} patients "
        f"(hold-out {count['holdout']}, test {count['test']}{fold})",
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
