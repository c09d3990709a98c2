"""Pictures of a stage while it trains: real beside made, middle planes, as PNG. They show hold-out voxels, so they
stay in the run's folder and never enter a model's. Knows no loop."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from synth.codec.base import Codec
from synth.denoiser import Bound
from synth.io import write_bytes
from synth.model import PartModel
from synth.rng import torch_rng
from synth.training.objectives import LatentBatch

Preview = Callable[[int], None]
_GAP = 2


def codec_preview(codec: Codec, volumes: Sequence[Tensor], folder: Path) -> Preview:
    """Return what writes folder/<steps>.png: each volume (channel, *grid) beside its reconstruction."""

    def show(step: int) -> None:
        rows = []
        for volume in volumes:
            pixels = codec.pad(volume[None])
            rows.append((pixels[0], codec.raw_decode(codec.raw_encode(pixels))[0]))
        _write(rows, folder, step)

    return show


def flow_preview(model: PartModel, wholes: Sequence[LatentBatch], folder: Path) -> Preview:
    """Return what writes folder/<steps>.png: each whole volume (a batch of one) beside one made for its condition.

    The noise is the same at every step, so that a series of pictures shows the training and nothing else.
    """

    def show(step: int) -> None:
        denoiser, process = model.flow.denoiser, model.flow.denoiser.process
        rows = []
        for number, whole in enumerate(wholes):
            rng = torch_rng("preview", number)
            grid = tuple(whole.clean.shape[2:])
            times = process.grid(model.part.steps, grid)  # pyright: ignore[reportAttributeAccessIssue]
            ports = model.flow.conditioner(whole.conditions, window=whole.window, drop=None)
            start = process.start(tuple(whole.clean.shape), rng).to(whole.clean)
            made = model.part.sampler(Bound(denoiser, ports), times, start, rng)
            rows.append((model.codec.decode(whole.clean)[0], model.codec.decode(made)[0]))
        _write(rows, folder, step)

    return show


def mosaic(rows: Sequence[Sequence[Tensor]]) -> Tensor:
    """Return one grey picture (height, width), uint8: a row of volumes (channel, *grid) each as its middle planes.

    The grey window of a row is its first volume's range, so that brightness can be compared along the row.
    """
    return _stack([_row(row) for row in rows], axis=0)


def _row(volumes: Sequence[Tensor]) -> Tensor:
    low, high = float(volumes[0][0].min()), float(volumes[0][0].max())
    planes = [plane for volume in volumes for plane in _planes(volume[0].float())]
    scaled = [255.0 * (plane - low) / max(high - low, 1e-6) for plane in planes]
    return _stack([plane.clamp(0, 255).round().to(torch.uint8) for plane in scaled], axis=1)


def _planes(volume: Tensor) -> list[Tensor]:
    """Return the middle plane across each axis, last axis first, turned so that the second axis of RAS+ is up."""
    if volume.ndim == 2:
        return [volume.T.flip(0)]
    return [volume.select(axis, volume.shape[axis] // 2).T.flip(0) for axis in (2, 1, 0)]


def _stack(pictures: Sequence[Tensor], axis: int) -> Tensor:
    """Return pictures one after another along `axis`, a dark gap between them, shorter ones filled up."""
    across = max(picture.shape[1 - axis] for picture in pictures)
    along = sum(picture.shape[axis] + _GAP for picture in pictures) - _GAP
    out = torch.zeros((along, across) if axis == 0 else (across, along), dtype=torch.uint8)
    place = 0
    for picture in pictures:
        spot = out.narrow(axis, place, picture.shape[axis]).narrow(1 - axis, 0, picture.shape[1 - axis])
        spot.copy_(picture)
        place += picture.shape[axis] + _GAP
    return out


def _write(rows: Sequence[Sequence[Tensor]], folder: Path, step: int) -> None:
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    Image.fromarray(mosaic(rows).numpy()).save(content, format="PNG")
    write_bytes(folder / f"{step:07d}.png", content.getvalue())
