"""One network of one arm, trained by the plan that all arms share. Knows volumes and the network, no scores."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from evaluation.evidence import Judged
from evaluation.segmenter import segmentation_loss
from evaluation.utility.arms import Sides, Volumes
from evaluation.utility.augment import Pair, classical, cutmix
from evaluation.utility.config import Job, UtilityConfig
from evaluation.utility.network import build, padded, patch_of, reduced, scores_of
from synth.rng import numpy_rng

if TYPE_CHECKING:
    from torch import nn

_CLIP, _DECAY, _WARM = 1.0, 1e-4, 0.1
Step = Callable[[], None]
"""Called after each step of training."""


def train(job: Job, sides: Sides, volumes: Volumes, config: UtilityConfig, *, tell: Step) -> "tuple[nn.Module, float]":
    """Return the arm's network and its learning rate: of several, the one that does best on `sides.tune`.

    Each rate is tried for `config.tuning_steps` on `sides.rehearsal`; the network returned is trained on `sides.train`.
    """
    found = [_rehearsed(job, sides, volumes, config, rate, tell) for rate in config.rates]
    rate = config.rates[int(np.argmax(found))]
    return _trained(job, sides.train, volumes, config, rate, tell), rate


def _rehearsed(job: Job, sides: Sides, volumes: Volumes, config: UtilityConfig, rate: float, tell: Step) -> float:
    """Return how good a rate is; 0 where it is the only one."""
    if not config.tuning_steps:
        return 0.0
    short = replace(config, steps=config.tuning_steps)
    return _tuned(_trained(job, sides.rehearsal, volumes, short, rate, tell), sides, volumes, config)


def _trained(
    job: Job, given: Sequence[Judged], volumes: Volumes, config: UtilityConfig, rate: float, tell: Step
) -> "nn.Module":
    """Train one network: AdamW, warm-up and cosine, clipped; cross-entropy and soft Dice, or that of classes alone."""
    import torch

    from synth.precision import brain_float

    first = volumes.test[0]
    grid = first.mask.shape
    segments = config.task == "segmentation"
    classes = len(volumes.labels) + 1 if segments else len(volumes.levels)
    device = torch.device(config.device)
    model = build(config, channels=len(first.image), classes=classes, dims=len(grid), seed=job.seed).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=_DECAY)
    loss_of = segmentation_loss if segments else torch.nn.functional.cross_entropy
    patch = patch_of(grid, config)
    order = _Order(len(given), job.seed)
    for step in range(config.steps):
        rng = numpy_rng(job.seed, "utility step", step)
        picked = [given[order.next()] for _ in range(config.batch)]
        pairs = [_pair(item, job.arm, given, patch, rng) for item in picked]
        images = torch.from_numpy(np.stack([image for image, _ in pairs])).to(device)
        if segments:
            wanted = torch.from_numpy(np.stack([mask for _, mask in pairs]).astype(np.int64))
        else:
            wanted = torch.tensor([volumes.level(item) for item in picked])
        with brain_float(device, wanted=reduced(patch, config)):
            scores = model(images)
        loss = loss_of(scores.float(), wanted.to(device))
        for group in optimizer.param_groups:
            group["lr"] = rate * _warmed(step, config.steps)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), _CLIP)
        optimizer.step()
        tell()
    return model.eval()


def _warmed(step: int, steps: int) -> float:
    """Return the share of the rate at a step: a tenth of the steps to warm up, then half a cosine down."""
    warm = min(1.0, (step + 1) / max(_WARM * steps, 1.0))
    return warm * 0.5 * (1.0 + float(np.cos(np.pi * step / steps)))


class _Order:
    """Goes through the list in shuffled rounds, so that each volume is seen as often as any other."""

    def __init__(self, length: int, seed: int) -> None:
        self.length, self.seed, self.round = length, seed, 0
        self.left: list[int] = []

    def next(self) -> int:
        """Return the next place."""
        if not self.left:
            self.left = numpy_rng(self.seed, "utility order", self.round).permutation(self.length).tolist()
            self.round += 1
        return self.left.pop()


def _pair(item: Judged, arm: str, given: Sequence[Judged], patch: tuple[int, ...], rng: np.random.Generator) -> Pair:
    """Return a patch of one volume as its arm sees it."""
    pair = np.asarray(item.image, dtype=np.float32), np.asarray(item.mask)
    if arm in ("RA", "RSA"):
        pair = classical(*pair, rng)
    elif arm == "RX" and rng.random() < 0.5:
        other = given[int(rng.integers(len(given)))]
        pair = cutmix(pair, (np.asarray(other.image), np.asarray(other.mask)), rng)
    image, mask = padded(pair[0], patch), padded(pair[1][None], patch, fill=0)[0]
    first = [int(rng.integers(n - side + 1)) for n, side in zip(mask.shape, patch, strict=True)]
    box = tuple(slice(start, start + side) for start, side in zip(first, patch, strict=True))
    return np.ascontiguousarray(image[(slice(None), *box)], dtype=np.float32), np.ascontiguousarray(mask[box])


def _tuned(model: "nn.Module", sides: Sides, volumes: Volumes, config: UtilityConfig) -> float:
    """Return the mean Dice of labels that are there (or probability of the right level) on the volumes to tune on."""
    from evaluation.functional import dice

    found = []
    for item in sides.tune:
        probabilities = scores_of(model, np.asarray(item.image), config)
        if config.task == "classification":
            found.append(float(probabilities[volumes.level(item)]))
        elif labels := [label for label in range(1, len(volumes.labels) + 1) if (item.mask == label).any()]:
            found.append(float(dice(probabilities.argmax(dim=0).numpy(), item.mask, labels=labels).mean()))
    return float(np.mean(found)) if found else 0.0
