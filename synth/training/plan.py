"""The plan: what this data, this machine and this much time make of a recipe.

`design` chooses sizes from the data's schema, `measure` times every stage on a few cases, `schedule` turns a time
budget into steps. Knows no command and no layout; leaves no file.
"""

import math
import re
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from synth.backbone.config import UNetConfig
from synth.codec.base import Codec
from synth.codec.config import AutoencoderConfig, IdentityConfig, MonaiConfig, OneHotConfig
from synth.conditioning.config import ConditioningConfig
from synth.data.prepared import Prepared
from synth.data.schema import Schema
from synth.errors import ConfigError
from synth.model import Model, build_part
from synth.process import RectifiedFlow
from synth.recipe import CodecTraining, FlowTraining, Part, Recipe
from synth.training.codec_stage import (
    CPU,
    PartName,
    Pixels,
    cache_latents,
    codec_score,
    codec_task,
    start_codec,
    whiten,
)
from synth.training.config import FitConfig
from synth.training.experiment import settled
from synth.training.finetune import continued, kept
from synth.training.flow_stage import Latents, flow_task
from synth.training.timing import Cost, time_steps

STAGES = ("image codec", "mask codec", "mask generator", "image generator")
_SHARES = {"image codec": 0.16, "mask codec": 0.07, "mask generator": 0.27, "image generator": 0.5}
"""Shares of the time; what brain-tiny was trained with, the codecs given more since short runs need them first."""
_MOST_STEPS = {"image codec": 6000, "mask codec": 3000, "mask generator": 20_000, "image generator": 40_000}
_NOMINAL_S = {"image codec": 0.31, "mask codec": 0.17, "mask generator": 0.36, "image generator": 0.55}
"""Seconds of a step on two cores, from the training of brain-tiny; steps are of one size whatever the data."""
_SLOWER = 0.3
"""Of the rate a model was trained with, the share it is fine-tuned with: its start is no random one to be left fast."""
_LEAST_STEPS = 40
_VALIDATIONS = 8
_TIMES = RectifiedFlow(prediction="clean", location=0.6, scale=1.4)
"""Latents of a smooth image tell its outline, and how much of a rare label there is, through much noise."""
_STEP_LATENTS = 10_240
"""Latent voxels of a training step in patches, and of the largest volume of which no patches are trained."""
_WHOLE_LATENTS = 3_000
"""Latent voxels of a step of whole volumes: in equal time, many small steps come further than few large ones."""
_LARGEST_WHOLE = 8 * _STEP_LATENTS
"""Latent voxels of the largest volume that is trained and sampled whole; larger ones are in patches and windows."""
_CHECKPOINT_S = 120.0
_KERNEL = 3
"""torch 2.13, CPU: weight gradients of bfloat16 convolutions over grids shorter than this are unwritten memory."""
_FEW = 6


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a training will take: the cost of each stage, seconds of encoding all cases, and the peak memory."""

    stages: Mapping[str, Cost]
    encoding_s: float

    @property
    def hours(self) -> float:
        """Hours in all."""
        return sum(cost.hours for cost in self.stages.values()) + self.encoding_s / 3600

    @property
    def peak_gb(self) -> float:
        """Largest memory of any stage."""
        return max(cost.peak_gb for cost in self.stages.values())


def design(schema: Schema) -> Recipe:
    """Return a recipe for data of `schema`, its steps still those of the defaults."""
    dims, labels = len(schema.grid), len(schema.labels) + 1
    stride = 4 if dims == 3 or max(schema.grid) <= 160 else 8
    latent = tuple(-(-n // stride) for n in schema.grid)
    channels = len(schema.channels)
    image_codec = AutoencoderConfig(
        in_channels=channels,
        spatial_dims=dims,
        stride=stride,
        channels=min(16 + 8 * (channels - 1), channels * stride**dims, 48),
        width=96,
        kl=1e-5,
    )
    image = _part(image_codec, latent, narrow=False)
    mask_codec = OneHotConfig(
        labels=labels,
        inner=AutoencoderConfig(
            in_channels=labels,
            spatial_dims=dims,
            stride=stride,
            channels=16 if labels <= 6 else 24,
            width=48,
            decoder_blocks=2,
            kl=1e-5,
        ),
    )
    mask = _part(mask_codec, latent, narrow=True)
    recipe = Recipe(
        name="-".join(re.findall(r"[a-z0-9]+", schema.population.lower()))[:40].strip("-") or "planned",
        description=f"Planned from the data: {len(schema.labels)} labels, grid {'x'.join(map(str, schema.grid))}.",
        image=image,
        mask=replace(mask, texture=False) if schema.labels else None,
    )
    return at_grid(recipe, schema)


def _part(codec: AutoencoderConfig | OneHotConfig, latent: tuple[int, ...], *, narrow: bool) -> Part:
    crop, batch = (48, 4) if len(latent) == 3 else (128, 12)
    patch = tuple(n if n < 12 else max(8, -(-n // 2)) for n in latent)
    while math.prod(patch) > _STEP_LATENTS:
        patch = tuple(-(-n // 2) if axis == patch.index(max(patch)) else n for axis, n in enumerate(patch))
    whole = math.prod(latent)
    windowed, small = whole > _LARGEST_WHOLE, whole <= _STEP_LATENTS
    at_once = math.prod(patch) if windowed else whole
    deep = at_once // 2 ** len(latent) > 4096  # attention over every position of the second level would dominate
    widths = ((72, 96) if narrow else (96, 112)) + ((112,) if deep else ())
    return Part(
        codec=codec,
        process=_TIMES,
        backbone=UNetConfig(
            widths=widths,
            blocks=(2,) * len(widths),
            attention=(len(widths) - 1,),
            head=28 if widths[-1] == 112 else 24,
            time_width=192,
        ),
        conditioning=ConditioningConfig(mask_width=96, width=128, drop_each=0.15, drop_attributes=0.15),
        window=tuple(max(n, 2) for n in patch) if windowed else None,
        codec_training=CodecTraining(fit=FitConfig(precision="bf16", ema=0.995, warmup=50), crop=crop, batch=batch),
        training=FlowTraining(
            fit=FitConfig(precision="bf16", ema=0.999, patience=3),
            patch=patch,
            patch_batch=max(_STEP_LATENTS // math.prod(patch), 1),
            whole_batch=max(min(_WHOLE_LATENTS // whole, 16), 1),
            whole_share=0.0 if windowed else 1.0 if small else 0.5 if narrow else 0.3,
            channel_power=1.5 if narrow else 1.0,  # rare labels then weigh as they would at unit variance
            pooled=0.002 if narrow else 0.0,
        ),
    )


def redesign(source: Recipe, schema: Schema) -> Recipe:
    """Return a model's recipe for fine-tuning it on data of `schema`: its networks, a slower rate, patience.

    Its steps are still those it was trained with.
    """
    recipe = at_grid(continued(source), schema)
    for stage in _stages(recipe):
        fit = _fit_of(recipe, stage)
        patience = fit.patience if _split(stage)[1] == "codec_training" else 3
        recipe = _with_fit(recipe, stage, replace(fit, learning_rate=_SLOWER * fit.learning_rate, patience=patience))
    return recipe


def at_grid(recipe: Recipe, schema: Schema) -> Recipe:
    """Return a recipe of another grid for the grid of `schema`: in float32 where that is short for its networks."""
    for stage in _stages(recipe):
        name, kind = _split(stage)
        if _shortest(getattr(recipe, name), kind, schema) < _KERNEL:
            recipe = _with_fit(recipe, stage, replace(_fit_of(recipe, stage), precision="fp32"))
    return recipe


def _shortest(part: Part, kind: str, schema: Schema) -> int:
    """Return the shortest axis of what a stage's deepest convolutions see of a crop, a patch or a volume."""
    stride = _stride(part)
    if kind == "codec_training":
        training = part.codec_training
        step = max(stride, 4) if training.critical else stride  # the last layer of a critic sees every fourth voxel
        return min(-(-min(training.crop, size) // step) for size in schema.grid)
    if not isinstance(part.backbone, UNetConfig):
        return _KERNEL
    shortest = min(min(n, -(-size // stride)) for n, size in zip(part.training.patch, schema.grid))
    return shortest // 2 ** (len(part.backbone.widths) - 1)


def _stride(part: Part) -> int:
    """Return the voxels of a latent voxel along each axis."""
    codec = part.codec.inner if isinstance(part.codec, OneHotConfig) else part.codec
    if isinstance(codec, MonaiConfig):
        return 2 ** (len(codec.widths) - 1)
    return 1 if isinstance(codec, IdentityConfig) else codec.stride


def shared(recipe: Recipe, processes: int) -> Recipe:
    """Return the recipe as several processes can share it: each stage's accumulation is a multiple of their number."""
    for stage in _stages(recipe) if processes > 1 else ():
        fit = _fit_of(recipe, stage)
        recipe = _with_fit(recipe, stage, replace(fit, accumulation=-(-fit.accumulation // processes) * processes))
    return recipe


def nominal(recipe: Recipe) -> Estimate:
    """Return what the stages cost on two cores, measured on no machine: for a plan that is written before training."""
    return Estimate(
        stages={stage: Cost.of(_NOMINAL_S[stage], 0.0, 0.0, FitConfig()) for stage in _stages(recipe)}, encoding_s=0.0
    )


def measure(
    recipe: Recipe,
    prepared: Prepared,
    *,
    steps: int = 20,
    report: Callable[[str], None] | None = None,
    source: Model | None = None,
    device: torch.device = CPU,
) -> Estimate:
    """Return what the stages of `recipe` cost, by `steps` timed steps of each on a few training cases.

    From a model `source`, the stages are those that fine-tuning has: codecs that are kept take no steps.
    """
    tell = report or (lambda _: None)
    full, prepared, origin = settled(recipe, prepared, source)
    train = prepared.split("train")
    few = replace(prepared, cases=(*train[:_FEW], *prepared.split("holdout")[:_FEW]))
    costs: dict[str, Cost] = {}
    encoding = 0.0
    with tempfile.TemporaryDirectory() as place:
        parts: tuple[tuple[PartName, Part | None], ...] = (("image", full.image), ("mask", full.mask))
        for name, part in parts:
            if part is None:
                continue
            torch.manual_seed(0)
            model = (build_part(part) if origin is None else origin.part(name, part)).to(device)
            pixels = Pixels(few, name, device)
            folder = Path(place) / name
            started = time.perf_counter()
            if origin is None:
                start_codec(model.codec, pixels, few.split("train"))
                whiten(model.codec, pixels, few.split("train"))
            else:
                with torch.no_grad():
                    codec_score(model.codec, (pixels.tensor(case) for case in few.split("train")))
            per_case = (time.perf_counter() - started) / len(few.split("train"))
            encoding += 1.5 * per_case * len(prepared.cases) * 2 ** len(part.training.flip)
            tell(f"{name} codec")
            if origin.tunes(name, part) if origin is not None else model.codec.trained:
                costs[f"{name} codec"] = _codec_cost(model.codec, part.codec_training, pixels, folder, steps)
                model.codec.eval()
            if name in kept(recipe):
                continue
            cache_latents(model.codec, pixels, folder, flip=part.training.flip)
            masks = part.conditioning.labels > 0
            latents = Latents(few, folder, model.codec.stride, masks=masks, device=device)
            tell(f"{name} generator")
            kinds = []
            for share in sorted({float(part.training.whole_share == 1.0), float(part.training.whole_share > 0.0)}):
                task = flow_task(model, replace(part.training, whole_share=share), latents, folder, seed=0)
                kinds.append(time_steps(task, part.training.fit, seed=0, steps=steps))
            costs[f"{name} generator"] = _mixed(
                kinds[0], kinds[-1], share=part.training.whole_share, fit=part.training.fit
            )
    return Estimate(stages=costs, encoding_s=encoding)


def _codec_cost(codec: Codec, training: CodecTraining, pixels: Pixels, folder: Path, steps: int) -> Cost:
    """Return what training a codec costs: steps before and after it hears its critic, where it has one."""

    def timed(critic_from: float) -> Cost:
        task = codec_task(codec, replace(training, critic_from=critic_from), pixels, folder, seed=0)
        return time_steps(task, training.fit, seed=0, steps=steps)

    if not training.critical:
        return timed(1.0)
    return _mixed(timed(1.0), timed(0.0), share=1.0 - training.critic_from, fit=training.fit)


def _mixed(one: Cost, other: Cost, *, share: float, fit: FitConfig) -> Cost:
    """Return the cost of a stage of two kinds of steps, `share` of them of the `other` kind."""
    step = (1 - share) * one.step_s + share * other.step_s
    return Cost.of(step, max(one.validation_s, other.validation_s), max(one.peak_gb, other.peak_gb), fit)


def schedule(recipe: Recipe, estimate: Estimate, *, budget_s: float) -> tuple[Recipe, Estimate]:
    """Return the recipe whose steps fill `budget_s` on the machine that was measured, and what it will take.

    Errors: ConfigError where the budget leaves a stage fewer than 40 steps.
    """
    left = budget_s - estimate.encoding_s
    total = sum(_SHARES[stage] for stage in estimate.stages)
    stages: dict[str, Cost] = {}
    fits: dict[str, FitConfig] = {}
    for stage, cost in estimate.stages.items():
        seconds = left * _SHARES[stage] / total - _VALIDATIONS * cost.validation_s
        steps = min(int(seconds / cost.step_s), _MOST_STEPS[stage])
        if steps < _LEAST_STEPS:
            needed = estimate.encoding_s + max(
                (_LEAST_STEPS * c.step_s + _VALIDATIONS * c.validation_s) * total / _SHARES[s]
                for s, c in estimate.stages.items()
            )
            raise ConfigError(
                f"--budget of {budget_s / 60:.0f} min leaves the {stage} {max(steps, 0)} steps; give "
                f"{math.ceil(needed / 60)} min or more, or prepare with a coarser --spacing"
            )
        fits[stage] = _fit(_fit_of(recipe, stage), steps, cost)
        stages[stage] = Cost.of(cost.step_s, cost.validation_s, cost.peak_gb, fits[stage])
    for stage, fit in fits.items():
        recipe = _with_fit(recipe, stage, fit)
    return recipe, Estimate(stages=stages, encoding_s=estimate.encoding_s)


def _fit(fit: FitConfig, steps: int, cost: Cost) -> FitConfig:
    return replace(
        fit,
        steps=steps,
        warmup=min(100, -(-steps // 10)),
        checkpoint_every=max(1, min(int(_CHECKPOINT_S / cost.step_s), steps)),
        validate_every=-(-steps // _VALIDATIONS),
    )


def _stages(recipe: Recipe) -> list[str]:
    return [stage for stage in STAGES if recipe.mask is not None or not stage.startswith("mask")]


def _split(stage: str) -> tuple[str, str]:
    name, kind = stage.split()
    return name, "codec_training" if kind == "codec" else "training"


def _fit_of(recipe: Recipe, stage: str) -> FitConfig:
    return recipe.fits()[".".join(_split(stage))]


def _with_fit(recipe: Recipe, stage: str, fit: FitConfig) -> Recipe:
    name, field = _split(stage)
    part = getattr(recipe, name)
    return replace(recipe, **{name: replace(part, **{field: replace(getattr(part, field), fit=fit)})})
