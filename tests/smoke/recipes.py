"""For each recipe that has a page in docs/recipes: phantoms of its shape, written small, and what makes it fast."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from synth.formats.nnunet import DatasetWriter
from synth.io import write
from synth.simulate.phantoms import (
    CARDIAC_LABELS,
    CHEST_LABELS,
    ORGAN_LABELS,
    RETINA_LABELS,
    Pair,
    abdomen_organs_ct,
    brain_two_channels,
    cardiac_mr,
    chest_xray,
    retina,
)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Data of a recipe's kind.

    make       the phantom of a seed
    prepare    options of `synth prepare` at test size
    full       the working grid that the recipe is written for
    spacing    working spacing in mm at test size; `coarser` where that is coarser than the phantoms
    """

    make: Callable[[int], Pair]
    channels: tuple[str, ...]
    labels: Mapping[str, int]
    full: tuple[int, ...]
    spacing: tuple[float, ...]
    coarser: bool = False
    size: tuple[int, ...] = ()

    @property
    def prepare(self) -> list[str]:
        """Options of `synth prepare`."""
        size = ["--size", *map(str, self.size)] if self.size else []
        return (["--spacing", *map(str, self.spacing)] if not self.flat else []) + size

    @property
    def flat(self) -> bool:
        """True for pictures."""
        return len(self.full) == 2

    def write(self, folder: Path, count: int) -> list[Pair]:
        """Write `count` phantoms in the layout that the recipe's page shows, and return them."""
        pairs = [self.make(seed) for seed in range(count)]
        if self.flat:
            for seed, pair in enumerate(pairs):
                write(pair.image, folder / "images" / f"case_{seed}.png")
                write(pair.mask, folder / "masks" / f"case_{seed}.png")
            names = {str(number): name for number, name in enumerate(self.channels)}
            (folder / "labels.json").write_text(json.dumps({"labels": dict(self.labels), "channel_names": names}))
            return pairs
        writer = DatasetWriter(folder, name=folder.name, channels=self.channels, labels=self.labels)
        for seed, pair in enumerate(pairs):
            writer.add(f"case_{seed}", pair.image, pair.mask)
        writer.finish(count)
        return pairs

    def mask(self, folder: Path, seed: int) -> Path:
        """Return the file of the mask of a phantom that was written to `folder`."""
        return folder / ("masks" if self.flat else "labelsTr") / f"case_{seed}{'.png' if self.flat else '.nii.gz'}"


@cache
def _brain() -> Pair:
    return brain_two_channels(0)


def _brain_moved(seed: int) -> Pair:
    """One subject, moved by a voxel a seed: simulating each takes seconds."""
    pair = _brain()
    image, mask = (np.roll(volume.data, seed, axis=1) for volume in (pair.image, pair.mask))
    return Pair(pair.image.replace(data=image), pair.mask.replace(data=mask))


BRAIN_LABELS = {"csf": 1, "gm": 2, "wm": 3, "lesion": 4}
SHAPES = {
    "mr-brain-flow-2mm": Shape(
        make=_brain_moved,
        channels=("T1", "FLAIR"),
        labels=BRAIN_LABELS,
        full=(96, 112, 96),
        spacing=(5.2, 5.2, 5.2),
        coarser=True,
    ),
    "ct-abdomen-flow-3mm": Shape(
        make=lambda seed: abdomen_organs_ct(seed, grid=(40, 40, 32), spacing_mm=(10.0, 10.0, 12.0)),
        channels=("CT",),
        labels=ORGAN_LABELS,
        full=(136, 136, 128),
        spacing=(10.0, 10.0, 12.0),
    ),
    "mr-cardiac-flow-8mm": Shape(
        make=lambda seed: cardiac_mr(seed, grid=(64, 54, 10), spacing_mm=(5.6, 5.6, 8.0)),
        channels=("cine",),
        labels=CARDIAC_LABELS,
        full=(160, 160, 16),
        spacing=(5.6, 5.6, 8.0),
        size=(40, 40, 12),
    ),
    "xray-chest-flow-256": Shape(
        make=lambda seed: chest_xray(seed, size=64),
        channels=("xray",),
        labels=CHEST_LABELS,
        full=(256, 256),
        spacing=(5.6, 5.6),
    ),
    "colour-retina-flow-256": Shape(
        make=lambda seed: retina(seed, size=64),
        channels=("R", "G", "B"),
        labels=RETINA_LABELS,
        full=(256, 256),
        spacing=(1.0, 1.0),
    ),
}


def quick() -> list[str]:
    """Overrides that leave kinds, strides and channels as shipped, and make networks narrow and stages two steps."""
    sets = ["mask.codec.inner.width=16", "mask.codec.inner.decoder_blocks=1"]
    sets += ["image.codec.width=16", "image.codec.decoder_blocks=1"]
    for part in ("image", "mask"):
        sets += [
            f"{part}.backbone.widths=[16, 16, 16]",
            f"{part}.backbone.blocks=[1, 1, 1]",
            f"{part}.backbone.head=16",
            f"{part}.codec_training.batch=1",
            f"{part}.training.patch_batch=1",
            f"{part}.training.whole_batch=1",
            f"{part}.steps=2",
        ]
        for stage in ("codec_training", "training"):
            # fp32: at this size, levels are shorter than a kernel, where bfloat16 gradients are wrong on a CPU
            sets += [f"{part}.{stage}.fit.{name}" for name in ("steps=2", "warmup=1", "precision=fp32")]
    return [word for value in sets for word in ("--set", value)]
