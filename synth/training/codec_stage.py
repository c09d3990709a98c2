"""The codec stage: train, whiten from all training latents, measure the texture left out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from synth.codec.autoencoder import Autoencoder
from synth.codec.base import Codec
from synth.codec.config import PatchPCAConfig
from synth.codec.onehot import OneHot
from synth.codec.patch_pca import PatchPCA
from synth.codec.texture import Texture
from synth.data.prepared import Prepared, PreparedCase
from synth.recipe import CodecTraining
from synth.rng import numpy_rng
from synth.training.adversary import Contest, Crops, sharpness_gap
from synth.training.fit import Report, Task, fit
from synth.training.preview import codec_preview
from synth.training.team import ALONE, Team

PartName = Literal["image", "mask"]
CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class Pixels:
    """The pixels one codec is trained on: images, or label maps as one channel."""

    prepared: Prepared
    part: PartName
    device: torch.device = CPU

    def of(self, case: PreparedCase, window: tuple[slice, ...] = ()) -> np.ndarray:
        """Return (channel, *grid), those inside `window` where one is given."""
        if self.part == "image":
            return self.prepared.image(case, window)
        return self.prepared.mask(case)[window or ...][None]

    def tensor(self, case: PreparedCase) -> Tensor:
        """Return (channel, *grid) as a float tensor."""
        return torch.from_numpy(np.array(self.of(case), dtype=np.float32)).to(self.device)

    def crops(self, training: CodecTraining, step: int, seed: int) -> Tensor:
        """Return the batch of `step`: random crops of random training cases."""
        cases = self.prepared.split("train")
        rng = numpy_rng(seed, "crops", self.part, step)
        out = []
        for _ in range(training.batch):
            case = cases[int(rng.integers(len(cases)))]
            window = []
            for n in self.prepared.schema.grid:
                size = min(training.crop, n)
                first = int(rng.integers(n - size + 1))
                window.append(slice(first, first + size))
            out.append(np.array(self.of(case, tuple(window)), dtype=np.float32))
        return torch.from_numpy(np.stack(out)).to(self.device)


def train_codec(
    codec: Codec,
    training: CodecTraining,
    pixels: Pixels,
    folder: Path,
    *,
    seed: int,
    report: Report | None = None,
    team: Team = ALONE,
) -> str | None:
    """Train `codec` on the training split and set its whitening; linear codecs are fitted, not trained.

    Returns why training ended early, where it did.
    """
    cases = pixels.prepared.split("train")
    early = None
    start_codec(codec, pixels, cases[: training.pca_volumes])
    if codec.trained:
        early = tune_codec(codec, training, pixels, folder, seed=seed, report=report, team=team)
    codec.eval()
    whiten(codec, pixels, cases)
    return early


def tune_codec(
    codec: Codec,
    training: CodecTraining,
    pixels: Pixels,
    folder: Path,
    *,
    seed: int,
    report: Report | None = None,
    team: Team = ALONE,
) -> str | None:
    """Train a codec from where it stands, its whitening left as it is. Returns why training ended early."""
    task = codec_task(codec, training, pixels, folder / "previews", seed=seed)
    early = fit(task, training.fit, folder, seed=seed, report=report, team=team)
    codec.eval()
    return early


def start_codec(codec: Codec, pixels: Pixels, cases: Sequence[PreparedCase]) -> None:
    """Fit a linear codec to `cases`, or start an autoencoder from the one that fits them."""
    inner = inner_of(codec)
    prepare = codec.scaled if isinstance(codec, OneHot) else _same
    if isinstance(codec, OneHot):
        codec.fit_balance(pixels.tensor(case) for case in cases)
    if isinstance(inner, (PatchPCA, Autoencoder)):
        linear = inner if isinstance(inner, PatchPCA) else _pca_like(inner).to(inner.latent_mean.device)
        linear.fit(prepare(pixels.tensor(case)[None])[0] for case in cases)
        if isinstance(inner, Autoencoder):
            inner.start_from(linear)


def codec_task(codec: Codec, training: CodecTraining, pixels: Pixels, previews: Path, *, seed: int) -> Task:
    """Return the codec on random crops as the loop takes it."""
    holdout = (pixels.prepared.split("holdout") or pixels.prepared.split("train"))[:8]
    plain = Task(
        name=f"{pixels.part} codec",
        module=codec,
        loss=lambda module, batch, rng: module.loss(batch, rng),  # pyright: ignore[reportCallIssue]
        batch=lambda step: pixels.crops(training, step, seed),
        validate=lambda: codec_score(codec, (pixels.tensor(case) for case in holdout)),
        preview=codec_preview(codec, [pixels.tensor(case) for case in holdout[:2]], previews),
        settings={"crop": training.crop, "batch": training.batch},
    )
    if not training.critical:
        return plain
    assert isinstance(codec, Autoencoder), "recipes refuse a critic for anything else"
    contest = Contest(codec, adversarial=training.adversarial, perceptual=training.perceptual)
    # all batches of a step hear it or none: processes that share them add up figures of the same names
    first = round(training.critic_from * training.fit.steps) * training.fit.accumulation
    return replace(
        plain,
        module=contest,
        loss=lambda module, batch, rng: contest.loss(batch, rng),
        batch=lambda step: Crops(plain.batch(step), heard=step >= first),
        validate=lambda: codec_score(codec, (pixels.tensor(case) for case in holdout), sharp=True),
        settings={**plain.settings, **{n: getattr(training, n) for n in ("adversarial", "perceptual", "critic_from")}},
    )


@torch.no_grad()
def whiten(codec: Codec, pixels: Pixels, cases: Sequence[PreparedCase]) -> None:
    """Set the whitening of `codec` to the latents of `cases`."""
    codec.latent_mean.zero_()
    codec.latent_std.fill_(1.0)
    codec.fit_whitening(codec.raw_encode(codec.pad(pixels.tensor(case)[None]))[0] for case in cases)


def inner_of(codec: Codec) -> Codec:
    """Return what is trained of a codec: the one inside one-hot masks, else itself."""
    return codec.inner if isinstance(codec, OneHot) else codec


def codec_score(codec: Codec, volumes: Iterator[Tensor], *, sharp: bool = False) -> Mapping[str, float]:
    """Return hold-out reconstruction: mean absolute error (images) or share of wrong labels (masks) as score.

    sharp   add the gap in sharpness to the score: a critic makes images sharper and their error larger
    """
    errors, gaps = [], []
    for volume in volumes:
        pixels = codec.pad(volume[None])
        decoded = codec.raw_decode(codec.raw_encode(pixels)).float()
        wrong = (decoded != pixels).float() if isinstance(codec, OneHot) else (decoded - pixels).abs()
        errors.append(float(wrong.mean()))
        if sharp:
            gaps.append(sharpness_gap(decoded, pixels))
    error = float(np.mean(errors))
    if not sharp:
        return {"score": error}
    return {"score": error + float(np.mean(gaps)), "error": error, "sharpness_gap": float(np.mean(gaps))}


@torch.no_grad()
def fit_texture(texture: Texture, codec: Codec, pixels: Pixels, *, volumes: int = 32) -> None:
    """Measure the texture on training volumes."""

    def pairs() -> Iterator[tuple[Tensor, Tensor]]:
        for case in pixels.prepared.split("train")[:volumes]:
            voxels = pixels.tensor(case)
            yield voxels.cpu(), codec.decode(codec.encode(voxels[None]), grid=tuple(voxels.shape[1:]))[0].cpu()

    texture.fit(pairs())


@torch.no_grad()
def cache_latents(
    codec: Codec,
    pixels: Pixels,
    folder: Path,
    *,
    report: Callable[[int, int], None] | None = None,
    flip: tuple[int, ...] = (),
    team: Team = ALONE,
) -> None:
    """Write whitened mu of every training and hold-out case to latents_path(folder, case) (float32).

    Training cases also as they are flipped along each choice of the axes `flip`. Finished ones stay.
    """
    train, holdout = pixels.prepared.split("train"), pixels.prepared.split("holdout")
    asked = [(case, axes) for axes in flips(flip) for case in (train if axes else (*train, *holdout))]
    own = team.share(asked)
    for number, (case, axes) in enumerate(own, start=1):
        path = latents_path(folder, case, axes)
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            seen = pixels.tensor(case).flip([axis + 1 for axis in axes])
            latents = codec.encode(seen[None])[0].cpu().numpy()
            partial = path.with_suffix(".partial.npy")
            np.save(partial, latents)
            partial.replace(path)
        if report is not None:
            report(number, len(own))
    team.wait()


def flips(axes: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return every choice of the axes, none first.

    >>> flips((0, 2))
    [(), (0,), (2,), (0, 2)]
    """
    return [chosen for count in range(len(axes) + 1) for chosen in combinations(axes, count)]


def latents_path(folder: Path, case: PreparedCase, axes: tuple[int, ...] = ()) -> Path:
    """Return the file of a case's latents, flipped along `axes`."""
    return (folder / f"flip-{''.join(map(str, axes))}" if axes else folder) / f"{case.case}.npy"


def _pca_like(codec: Autoencoder) -> PatchPCA:
    config = codec.config
    return PatchPCA(
        PatchPCAConfig(
            in_channels=config.in_channels,
            spatial_dims=config.spatial_dims,
            stride=config.stride,
            channels=config.channels,
        )
    )


def _same(pixels: Tensor) -> Tensor:
    return pixels
