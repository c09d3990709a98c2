"""The generator stage: cached latents and conditions -> a denoiser, judged by its hold-out denoising loss."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from synth.data.prepared import Prepared, PreparedCase
from synth.model import PartModel
from synth.ports import Window
from synth.recipe import FlowTraining
from synth.rng import numpy_rng, torch_rng
from synth.sample import Condition
from synth.training.codec_stage import latents_path
from synth.training.fit import Report, Task, fit
from synth.training.objectives import DenoisingObjective, LatentBatch, channel_weights
from synth.training.preview import flow_preview
from synth.training.team import ALONE, Team
from synth.volume import Volume
from synth.windows import places

TIME_BINS = (0.1, 0.3, 0.5, 0.7, 0.9)
_SCORED_WINDOWS = 4


class Crop(NamedTuple):
    """A window of a case: its first latent voxel in the volume as flipped along `axes`."""

    case: PreparedCase
    origin: tuple[int, ...]
    axes: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Latents:
    """Cached latents of a part with the conditions of their cases."""

    prepared: Prepared
    folder: Path
    stride: int
    masks: bool
    device: torch.device = torch.device("cpu")
    _cache: dict[Path, Tensor] = field(default_factory=dict)

    def of(self, case: PreparedCase, axes: tuple[int, ...] = ()) -> Tensor:
        """Return (channel, *latent grid) of the volume flipped along `axes`; kept in memory once read."""
        path = latents_path(self.folder, case, axes)
        if path not in self._cache:
            self._cache[path] = torch.from_numpy(np.load(path))
        return self._cache[path]

    def batch(self, crops: Sequence[Crop], grid: tuple[int, ...]) -> LatentBatch:
        """Return windows of `grid` latent voxels as `crops` say, with their conditions."""
        clean, conditions, full = [], [], []
        for case, origin, axes in crops:
            latents = self.of(case, axes)
            clean.append(latents[(slice(None), *(slice(o, o + n) for o, n in zip(origin, grid, strict=True)))])
            mask = self._mask(case, origin, axes, grid)
            conditions.append(Condition(mask=mask, text=case.text, attributes=case.attributes))
            full.append(tuple(latents.shape[1:]))
        spacing = torch.tensor([self.prepared.schema.spacing_mm] * len(crops), dtype=torch.float32)
        origins = torch.tensor([crop.origin for crop in crops], dtype=torch.float32)
        window = Window(grid, origins, torch.tensor(full, dtype=torch.float32), spacing)
        return LatentBatch(torch.stack(clean).to(self.device), conditions, window.to(self.device))

    def _mask(
        self, case: PreparedCase, origin: tuple[int, ...], axes: tuple[int, ...], grid: tuple[int, ...]
    ) -> Volume | None:
        if not self.masks:
            return None
        labels = np.flip(self.prepared.mask(case), axes)
        window = tuple(
            slice(o * self.stride, min((o + n) * self.stride, size))
            for o, n, size in zip(origin, grid, labels.shape, strict=True)
        )
        return Volume(pad_labels(np.array(labels[window]), tuple(n * self.stride for n in grid))[None])


def pad_labels(labels: np.ndarray, grid: tuple[int, ...]) -> np.ndarray:
    """Return label maps grown at the far ends to `grid`, repeating the edge as codecs do."""
    amounts = [(0, n - size) for n, size in zip(grid, labels.shape, strict=True)]
    return np.pad(labels, amounts, mode="edge") if any(after for _, after in amounts) else labels


def plan_windows(latents: Latents, training: FlowTraining, step: int, seed: int) -> tuple[list[Crop], tuple[int, ...]]:
    """Return the windows of the batch of `step` and their grid: patches at first, whole volumes at the end."""
    cases = latents.prepared.split("train")
    rng = numpy_rng(seed, "flow batches", step)
    whole = step >= round(training.fit.steps * training.fit.accumulation * (1.0 - training.whole_share))
    count = training.whole_batch if whole else training.patch_batch
    chosen = [cases[int(rng.integers(len(cases)))] for _ in range(count)]
    smallest = np.min([latents.of(case).shape[1:] for case in chosen], axis=0)
    patch = smallest if whole else np.minimum(np.array(training.patch[: len(smallest)]), smallest)
    grid = tuple(int(n) for n in patch)
    origins = [
        tuple(int(rng.integers(size - n + 1)) for size, n in zip(latents.of(case).shape[1:], grid, strict=True))
        for case in chosen
    ]
    sides = [tuple(axis for axis in training.flip if rng.random() < 0.5) for _ in chosen]
    return [Crop(*one) for one in zip(chosen, origins, sides, strict=True)], grid


def flow_task(model: PartModel, training: FlowTraining, latents: Latents, previews: Path, *, seed: int) -> Task:
    """Return the part's flow on its latents as the loop takes it."""
    weights = channel_weights(_scale(model), training.channel_power)
    objective = DenoisingObjective(weights, pooled=training.pooled, coupling=training.coupling)
    holdout = latents.prepared.split("holdout") or latents.prepared.split("train")[:4]

    def batch(step: int) -> LatentBatch:
        return latents.batch(*plan_windows(latents, training, step, seed))

    return Task(
        name="flow",
        module=model.flow,
        loss=lambda module, data, rng: {"denoising": objective(model.flow, data, rng)},
        batch=batch,
        validate=lambda: holdout_score(model, objective, latents, holdout[:12]),
        preview=flow_preview(model, [_scored(model, latents, case)[0] for case in holdout[:2]], previews),
        settings=_settings(model, training),
    )


def train_flow(
    model: PartModel,
    training: FlowTraining,
    latents: Latents,
    folder: Path,
    *,
    seed: int,
    report: Report | None = None,
    team: Team = ALONE,
) -> str | None:
    """Train the part's flow on its latents; afterwards it holds the averaged weights of the best hold-out score.

    Returns why training ended early, where it did.
    """
    task = flow_task(model, training, latents, folder / "previews", seed=seed)
    early = fit(task, training.fit, folder, seed=seed, report=report, team=team)
    model.flow.eval()
    return early


def holdout_score(
    model: PartModel, objective: DenoisingObjective, latents: Latents, cases: Sequence[PreparedCase]
) -> Mapping[str, float]:
    """Return the conditional denoising loss of hold-out volumes at fixed times and noise, and its mean.

    Volumes are whole, or some windows of them where the part samples in windows: it never learned more at once.
    t is the share of the way from data to noise, so that figures of one name compare across runs of one process.
    """
    process = model.flow.denoiser.process
    figures: dict[str, list[float]] = {f"t={t}": [] for t in TIME_BINS}
    for number, case in enumerate(cases):
        for index, batch in enumerate(_scored(model, latents, case)):
            for t in TIME_BINS:
                rng = torch_rng("holdout", number, round(100 * t), *([index] if index else []))
                times = process.at_share(torch.tensor([t], dtype=torch.float64))
                loss = replace(objective, pooled=0.0).at(model.flow, batch, times, rng)
                figures[f"t={t}"].append(float(loss.mean()))
    means = {name: float(np.mean(values)) for name, values in figures.items()}
    return {**means, "score": float(np.mean(list(means.values())))}


def _settings(model: PartModel, training: FlowTraining) -> dict[str, object]:
    """Return what decides the weights beside the loop's own config; a run goes on only with equal ones."""
    encoder = model.part.conditioning.text_sha256
    settings: dict[str, object] = {name: value for name, value in asdict(training).items() if name != "fit"}
    settings["window"] = model.part.window  # hold-out volumes are scored through it
    return {**settings, "text_sha256": encoder} if encoder else settings


def _scored(model: PartModel, latents: Latents, case: PreparedCase) -> list[LatentBatch]:
    """Return what a hold-out case is scored on, batches of one: the whole, or windows from all over it."""
    full = tuple(latents.of(case).shape[1:])
    found = places(full, model.part.window or full)
    batches: list[LatentBatch] = []
    for place in found[:: -(-len(found) // _SCORED_WINDOWS)]:
        origin, grid = tuple(part.start for part in place), tuple(part.stop - part.start for part in place)
        batches.append(latents.batch([Crop(case, origin)], grid))
    return batches


def _scale(model: PartModel) -> Tensor:
    """Return each latent channel's scale in pixels: what one whitened unit of it moves the decoded image."""
    codec = model.codec
    with torch.no_grad():
        grid = (3,) * codec.spatial_dims
        inner = getattr(codec, "inner", codec)
        steps = codec.latent_mean.new_zeros(codec.channels + 1, codec.channels, *grid)
        centre = (1,) * codec.spatial_dims
        for channel in range(codec.channels):
            steps[(channel + 1, channel, *centre)] = 1.0
        shape = (1, -1, *([1] * codec.spatial_dims))
        raw = steps * codec.latent_std.reshape(shape) + codec.latent_mean.reshape(shape)
        pixels = inner.raw_decode(raw)
        return (pixels[1:] - pixels[:1]).flatten(1).square().sum(dim=1).sqrt()
