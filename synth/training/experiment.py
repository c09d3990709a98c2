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
from synth.data.seen import Seen
from synth.errors import ConfigError
from synth.model import Model, PartModel, build, build_part
from synth.recipe import Part, Recipe
from synth.training.claim import claim, facts
from synth.training.codec_stage import (
    CPU,
    PartName,
    Pixels,
    cache_latents,
    codec_score,
    fit_texture,
    train_codec,
    tune_codec,
)
from synth.training.finetune import Origin, kept
from synth.training.fit import Report
from synth.training.flow_stage import Latents, train_flow
from synth.training.team import ALONE, Team

StageReport = Callable[[str], Report]


@dataclass(frozen=True)
class Experiment:
    """A recipe completed by its data, and where it runs.

    prepared must be at its fold where it has one: every stage reads its train and holdout cases, and no others.
    report   called with a stage's name, returns what is told after each of its steps
    say      told in words what a user should know of a stage
    source   the model to start from, where it is fine-tuned and not trained anew
    team     the processes that run it together, on one folder; each is given its own place in it
    device   where this process's networks are trained
    """

    recipe: Recipe
    prepared: Prepared
    folder: Path
    report: StageReport
    say: Callable[[str], None] = lambda _: None
    source: Model | None = None
    team: Team = ALONE
    device: torch.device = CPU

    def run(self) -> Path:
        """Train every stage that is not done and return the model's folder."""
        recipe, prepared, origin = settled(self.recipe, self.prepared, self.source)
        with torch.device("meta"):  # a network that cannot be is told now, not after the stages before it
            build(recipe)
        seen = Seen.of(self.prepared, seed=self.recipe.seed)
        seen = seen if origin is None else origin.seen(seen)
        self.folder.mkdir(parents=True, exist_ok=True)
        claim(self.folder / "data.json", facts(self.prepared, seen, origin, recipe), self.team)
        for note in () if origin is None else origin.notes:
            self.say(note)
        if not prepared.split("holdout"):
            self.say(_NO_HOLDOUT)
            recipe = _to_the_end(recipe)
        if not recipe.image.conditioning.vocabulary and any(case.text for case in prepared.split("train")):
            self.say("no word of the texts is said of two patients: the model reads no texts")
        work = replace(self, prepared=prepared)
        image = work._codec(recipe.image, "image", origin)
        mask = None if recipe.mask is None else work._codec(recipe.mask, "mask", origin)
        if mask is not None:
            work._flow(mask, "mask")
        work._flow(image, "image")
        model = Model(recipe, image, mask, seen=seen).eval()
        folder = self.folder / "model"
        if self.team.leads:
            write_model(model, folder, card=card(recipe, prepared, origin), half=True)
        self.team.wait()
        return folder

    def _codec(self, part: Part, name: PartName, origin: Origin | None) -> PartModel:
        torch.manual_seed(_stage_seed(self.recipe.seed, f"{name} codec"))
        model = (build_part(part) if origin is None else origin.part(name, part)).to(self.device)
        pixels = Pixels(self.prepared, name, self.device)
        stage = f"{name} codec"
        if origin is not None and not origin.tunes(name, part):
            self._kept(model, pixels)
        else:
            early = (train_codec if origin is None else tune_codec)(
                model.codec,
                part.codec_training,
                pixels,
                self.folder / name / "codec",
                seed=self.recipe.seed,
                report=self.report(stage),
                team=self.team,
            )
            if early:
                self.say(early)
        if model.texture is not None:
            fit_texture(model.texture, model.codec, pixels)
        if name in kept(self.recipe):  # it learns from no latents
            return model
        report = self.report(f"{name} latents")
        cache_latents(
            model.codec,
            pixels,
            self.folder / name / "latents",
            report=lambda done, total: report(done, total, {}),
            flip=part.training.flip,
            team=self.team,
        )
        return model

    def _kept(self, model: PartModel, pixels: Pixels) -> None:
        """Say how well a codec that is kept renders the data: one that does not is the user's to train on."""
        cases = (self.prepared.split("holdout") or self.prepared.split("train"))[:4]
        with torch.no_grad():
            score = codec_score(model.codec, (pixels.tensor(case) for case in cases))["score"]
        what = "mean error" if pixels.part == "image" else "share of wrong labels"
        self.say(
            f"{pixels.part} codec: the model's, kept; {what} {score:.4f} on the data "
            f"({pixels.part}.codec_training.tune=true trains it on)"
        )

    def _flow(self, model: PartModel, name: PartName) -> None:
        if name in kept(self.recipe):
            self.say(f"{name} generator: the model's, kept")
            return
        latents = Latents(
            self.prepared,
            self.folder / name / "latents",
            model.codec.stride,
            masks=model.part.conditioning.labels > 0,
            device=self.device,
        )
        if flip := model.part.training.flip:
            self.say(
                f"{name} generator: training volumes are flipped along axes {list(flip)}; where texts or attributes "
                f"name sides, say --set {name}.training.flip=[]"
            )
        early = train_flow(
            model,
            model.part.training,
            latents,
            self.folder / name / "flow",
            seed=self.recipe.seed,
            report=self.report(f"{name} generator"),
            team=self.team,
        )
        if early:
            self.say(f"{name} generator: {early}")


def settled(recipe: Recipe, prepared: Prepared, source: Model | None) -> tuple[Recipe, Prepared, Origin | None]:
    """Return the completed recipe, the data as its stages read it, and what they start from.

    Errors: ConfigError, DataError where the data fits neither the recipe nor the model to start from.
    """
    for stage, fit in recipe.fits().items():
        if not fit.steps and (source is None or stage.endswith("codec_training")):
            raise ConfigError(
                f"{stage}.fit.steps is 0, which keeps the generator of a model to start from (--from); give 1 or more"
            )
    if source is None:
        return complete(recipe, prepared), prepared, None
    origin = Origin.of(source, prepared)
    full = origin.complete(recipe)
    _check_sizes(full, prepared.schema)
    return full, origin.prepared, origin


_NO_HOLDOUT = (
    "no hold-out patients: checkpoints are chosen by the loss on training patients, which cannot tell learning from "
    "memorising, so no stage ends early; prepare with more patients or a larger --holdout"
)


def _to_the_end(recipe: Recipe) -> Recipe:
    """Return the recipe without patience: what it would wait for is no hold-out score."""

    def patient(part: Part) -> Part:
        codec_training, training = part.codec_training, part.training
        return replace(
            part,
            codec_training=replace(codec_training, fit=replace(codec_training.fit, patience=0)),
            training=replace(training, fit=replace(training.fit, patience=0)),
        )

    return replace(recipe, image=patient(recipe.image), mask=None if recipe.mask is None else patient(recipe.mask))


def complete(recipe: Recipe, prepared: Prepared) -> Recipe:
    """Return the recipe with schema, labels, attributes and vocabulary of the data filled in.

    Errors: ConfigError where the recipe does not fit the data's channels, labels, dimensions or texts.
    """
    schema = prepared.schema
    cases = prepared.split("train")
    known = vocabulary((case.patient, case.text) for case in cases)
    labels = len(schema.labels) + 1

    def conditioned(part: Part, *, with_mask: bool) -> Part:
        given = part.conditioning
        if given.text_encoder is not None and not known:
            raise ConfigError(
                "conditioning.text_encoder is set, the data has no texts in which two patients share a word; remove it "
                "from the config, or mend the texts"
            )
        filled = ConditioningConfig(
            **{
                **{name: getattr(given, name) for name in given.__dataclass_fields__},
                "labels": labels if with_mask and schema.labels else 0,
                "stride": build_codec(part.codec).stride,
                "attributes": schema.attributes,
                "vocabulary": known,
                **completed(given),
            }
        )
        return replace(part, conditioning=filled)

    _check_sizes(recipe, schema)
    if isinstance(recipe.image.codec, OneHotConfig):
        raise ConfigError("image.codec is onehot, which is for masks; give an autoencoder")
    _check_codec(recipe.image, len(schema.channels), schema)
    mask = recipe.mask
    if mask is not None:
        if not schema.labels:
            raise ConfigError("the recipe has a mask part, the data has no labels; remove `mask` from the config")
        if not isinstance(mask.codec, OneHotConfig):
            raise ConfigError(f"mask.codec is {mask.codec.kind}, masks are label maps; give onehot with it as inner")
        _check_codec(mask, labels, schema)
        mask = replace(conditioned(mask, with_mask=False), texture=False)
    return replace(recipe, image=conditioned(recipe.image, with_mask=True), mask=mask, schema=schema)


def _check_sizes(recipe: Recipe, schema: Schema) -> None:
    """Errors: ConfigError where a size names other axes than the data has."""
    dims = len(schema.grid)
    for name, part in (("image", recipe.image), ("mask", recipe.mask)):
        for field, size in () if part is None else (("training.patch", part.training.patch), ("window", part.window)):
            cut = field == "training.patch" and size is not None and len(size) > dims  # the default is of 3D
            if size is not None and len(size) != dims and not cut:
                raise ConfigError(f"{name}.{field} is {list(size)}, the data is {dims}D; give {dims} numbers")
        for axis in () if part is None else part.training.flip:
            if axis >= dims:
                raise ConfigError(f"{name}.training.flip names axis {axis}, the data is {dims}D; change the config")


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


def card(recipe: Recipe, prepared: Prepared, origin: Origin | None = None) -> str:
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
        *([] if origin is None else [f"- fine-tuned from: {origin.name}"]),
        "",
        "Synthetic data. Not for diagnosis. What it leaks and whether it helps is for `synth evaluate` to measure.",
        "",
    ]
    return "\n".join(lines)


def _stage_seed(seed: int, stage: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {stage}".encode()).digest()[:4], "little")
