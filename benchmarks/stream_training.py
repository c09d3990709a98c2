"""A small segmenter in a training loop that a stream feeds: what the stream's benchmarks train and time."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from torch import Tensor
from torch.nn import functional

from evaluation.functional import dice
from evaluation.segmenter import Segmenter, SegmenterConfig
from pipelines.cli import run
from synth.data.prepared import Prepared, PreparedCase
from synth.stream import Loader


@dataclass(frozen=True, kw_only=True)
class LoopOptions:
    """A loop on the simulated cohort that a stream feeds."""

    work: Annotated[Path, tyro.conf.Positional]
    """Scratch folder: the same command goes on with it; the data in it are kept whatever the options."""
    out: Annotated[Path, tyro.conf.Positional]
    """The JSON to write."""
    model: str = "brain-tiny"
    sampling_steps: int | None = None
    """Steps of the sampler; the model's own otherwise."""
    subjects: int = 20
    ratio: float = 0.3
    reuse: int = 20
    epoch_steps: int = 50
    batch: int = 2
    size: tuple[int, int, int] = (48, 48, 48)
    width: int = 16
    """Of the segmenter that is trained."""


def prepared_cohort(work: Path, *, subjects: int, seed: int = 0) -> Prepared:
    """Return a prepared simulated cohort in `work`; made where it is not there."""
    data = work / "data"
    if not (data / "prepared.yaml").is_file():
        for verb, line in (
            ("cohort", ["--out", str(work / "cohort"), "--count", str(subjects), "--seed", str(seed)]),
            ("prepare", [str(work / "cohort"), "--out", str(data), "--holdout", "0.0", "--test", "0.4"]),
        ):
            if run(verb, line) != 0:
                raise RuntimeError(f"synth {verb} failed")
    return Prepared.load(data)


def network(prepared: Prepared, *, seed: int, width: int = 16) -> Segmenter:
    """Return an untrained segmenter for the labels and channels of the data; its start depends on the seed alone."""
    schema = prepared.schema
    config = SegmenterConfig(
        channels=len(schema.channels),
        labels=tuple(label.name for label in schema.labels),
        spatial_dims=len(schema.grid),
        width=width,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Segmenter(config)


def losses_of(model: Segmenter, images: Tensor, masks: Tensor) -> Tensor:
    """Return cross-entropy and soft Dice of each item (batch,)."""
    scores, _ = model(images)
    entropy = functional.cross_entropy(scores, masks, reduction="none").flatten(1).mean(1)
    share = scores.softmax(1).flatten(2)
    hot = functional.one_hot(masks, scores.shape[1]).movedim(-1, 1).flatten(2).to(share.dtype)
    overlap = (2 * (share * hot).sum(2) + 1) / (share.sum(2) + hot.sum(2) + 1)
    return entropy + 1 - overlap[:, 1:].mean(1)


@dataclass
class Trainer:
    """A loop over a loader: seconds of each step, and those of them that it waited for its batch."""

    model: Segmenter
    loader: Loader
    step_s: list[float] = field(default_factory=list)
    wait_s: list[float] = field(default_factory=list)
    learning_rate: float = 2e-3

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=self.learning_rate)

    def epoch(self, number: int) -> None:
        """Train one epoch. The first step's wait holds the start of the workers, which is told apart."""
        self.loader.set_epoch(number)
        self.model.train()
        began = time.perf_counter()
        for batch in self.loader:
            came = time.perf_counter()
            losses = losses_of(self.model, batch["image"], batch["mask"][:, 0].long())
            self.optimizer.zero_grad()
            losses.mean().backward()
            self.optimizer.step()
            self.loader.stream.report(batch["group"], losses)
            ended = time.perf_counter()
            self.wait_s.append(came - began)
            self.step_s.append(ended - began)
            began = ended


@torch.inference_mode()
def held_out_dice(model: Segmenter, prepared: Prepared, cases: tuple[PreparedCase, ...]) -> dict[str, float]:
    """Return the mean Dice of each label over whole held-out cases; a label is left out of cases that lack it."""
    model.eval()
    labels = list(range(1, len(model.config.labels) + 1))
    rows = []
    for case in cases:
        truth = np.asarray(prepared.mask(case))
        found, _ = model.label(np.asarray(prepared.image(case)))
        rows.append(np.where([(truth == label).any() for label in labels], dice(found, truth, labels=labels), np.nan))
    means = np.nanmean(np.array(rows), axis=0)
    return {name: round(float(value), 4) for name, value in zip(model.config.labels, means, strict=True)}
