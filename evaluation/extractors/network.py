"""From a network on pictures or grids to one vector a volume: slices, windows, resampling, padding, pooling.

Knows no architecture and no file.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from evaluation.extractors.base import InputSpec, Measure
from synth.errors import DataError
from synth.volume import Volume

Network = Callable[[Tensor], Tensor]
"""(batch, channel, *size) float32 -> (batch, d) or (batch, d, *grid), whose mean over the grid is taken."""
_AT_ONCE = 8  # slices in one forward: memory, not results, depends on it
_EMPTY = 0.02  # a slice whose mapped intensities all lie below holds air alone


def measure_with(network: Network, spec: InputSpec) -> Measure:
    """Return the function of an Extractor that sees volumes through `network`.

    Planes: every slice of every axis goes through the network, and mean and standard deviation over all slices are
    the volume's features (2 d,); a 2D image gives (d,). Volume: (d,). Several channels are measured one by one.
    """

    def measure(image: np.ndarray, mask: np.ndarray | None, labels: int, spacing_mm: tuple[float, ...]) -> np.ndarray:
        rows = [_channel(network, spec, channel, spacing_mm) for channel in image]
        return np.concatenate(rows)

    return measure


@torch.inference_mode()
def _channel(network: Network, spec: InputSpec, channel: np.ndarray, spacing_mm: tuple[float, ...]) -> np.ndarray:
    if spec.view == "volume":
        if channel.ndim != 3:
            raise DataError("this extractor sees volumes, and the image is 2D; take one that sees planes")
        return _features(network, _normalised(_volume(channel, spec, spacing_mm), spec, channel)[None])[0]
    batches = [part for batch in planes(channel, spec, spacing_mm) for part in batch.split(_AT_ONCE)]
    rows = np.concatenate([_features(network, _normalised(batch, spec, channel)) for batch in batches])
    return rows[0] if channel.ndim == 2 else np.concatenate([rows.mean(axis=0), rows.std(axis=0)])


def _features(network: Network, x: Tensor) -> np.ndarray:
    out = network(x)
    if not isinstance(out, Tensor) or out.ndim < 2 or len(out) != len(x):
        told = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise DataError(f"the network of an extractor gives (batch, d) or (batch, d, *grid), got {told}")
    return out.flatten(2).mean(dim=2).double().numpy() if out.ndim > 2 else out.double().numpy()


def planes(channel: np.ndarray, spec: InputSpec, spacing_mm: tuple[float, ...]) -> Iterator[Tensor]:
    """Yield batches (slices, windows, height, width) of one channel (*grid), windowed to 0..1, one for each axis.

    Slices lie `gap_mm` apart about the middle; those that hold air alone are left out, unless all do.
    """
    x = torch.from_numpy(np.array(channel, dtype=np.float32))
    if x.ndim == 2:
        yield _sized(_windowed(x[None], spec), spec, spacing_mm)
        return
    for axis in range(3):
        stack = x.movedim(axis, 0)
        step = max(round(spec.gap_mm / spacing_mm[axis]), 1) if spec.gap_mm else 1
        chosen = stack[(len(stack) // 2) % step :: step]
        full = chosen.flatten(1).amax(dim=1) > _EMPTY
        chosen = chosen[full] if bool(full.any()) else stack[len(stack) // 2][None]
        yield _sized(_windowed(chosen, spec), spec, tuple(s for other, s in enumerate(spacing_mm) if other != axis))


def _windowed(stack: Tensor, spec: InputSpec) -> Tensor:
    return torch.stack([((stack - low) / (high - low)).clamp(0.0, 1.0) for low, high in spec.windows], dim=1)


def _sized(x: Tensor, spec: InputSpec, spacing_mm: tuple[float, ...]) -> Tensor:
    """Resample to the spacing, then pad or crop to the size; without a spacing pad to a square and resize."""
    if spec.spacing_mm is None:
        return resized(_fitted(x, (max(x.shape[2:]),) * 2), spec) if spec.size else _padded(x, spec.multiple)
    target = tuple(max(round(n * s / spec.spacing_mm), 1) for n, s in zip(x.shape[2:], spacing_mm, strict=True))
    x = functional.interpolate(x, size=target, mode="bilinear", align_corners=False, antialias=True)
    return _fitted(x, spec.size) if spec.size else _padded(x, spec.multiple)


def resized(x: Tensor, spec: InputSpec) -> Tensor:
    """Return (batch, channel, height, width) at `spec.size` by `spec.filter`."""
    if spec.filter == "bilinear-tf1":
        return _tf1_bilinear(x, spec.size)
    if spec.filter == "linear-antialiased":
        return functional.interpolate(x, size=spec.size, mode="bilinear", align_corners=False, antialias=True)
    if tuple(x.shape[2:]) != spec.size:
        raise DataError(f"an extractor without a filter takes {spec.size} pixels, got {tuple(x.shape[2:])}")
    return x


def _tf1_bilinear(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """Resize as tf.image.resize_bilinear(align_corners=False) of TensorFlow 1: source = i n / size, no antialiasing."""
    for axis, wanted in zip((2, 3), size, strict=True):
        n = x.shape[axis]
        at = torch.arange(wanted, dtype=torch.float32) * (n / wanted)
        low = at.floor().long().clamp(max=n - 1)
        weight = (at - low).reshape([-1 if other == axis else 1 for other in range(4)])
        x = x.index_select(axis, low) * (1 - weight) + x.index_select(axis, (low + 1).clamp(max=n - 1)) * weight
    return x


def _fitted(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """Return (batch, channel, *grid) padded with 0 and cropped about its middle to `size`."""
    pad: list[int] = []
    for n, wanted in zip(reversed(x.shape[2:]), reversed(size), strict=True):
        before = math.floor((wanted - n) / 2)
        pad += [before, wanted - n - before]
    return functional.pad(x, pad)


def _padded(x: Tensor, multiple: int) -> Tensor:
    return _fitted(x, tuple(n + -n % multiple for n in x.shape[2:]))


def _volume(channel: np.ndarray, spec: InputSpec, spacing_mm: tuple[float, ...]) -> Tensor:
    """Return (windows, *grid): resampled to the spacing, else to the size; then padded or cropped."""
    wanted = spec.size or channel.shape
    if spec.spacing_mm is not None:
        sides = zip(channel.shape, spacing_mm, strict=True)
        wanted = tuple(max(round(n * step / spec.spacing_mm), 1) for n, step in sides)
    x = torch.from_numpy(np.array(_resampled(channel, wanted, spec), dtype=np.float32))[None]
    x = _windowed(x, spec) if spec.normalise == "fixed" else x[None]
    return (_fitted(x, spec.size) if spec.size else _padded(x, spec.multiple))[0]


def _resampled(channel: np.ndarray, grid: tuple[int, ...], spec: InputSpec) -> np.ndarray:
    if grid == channel.shape:
        return channel
    if spec.filter != "linear-gaussian":
        raise DataError(f"volumes are resampled by the filter linear-gaussian, not {spec.filter}")
    step = np.array(channel.shape) / np.array(grid)
    affine = np.diag([*step, 1.0])
    affine[:3, 3] = (step - 1) / 2
    return Volume(channel[None]).resample_to(grid, affine).data[0]


def _normalised(x: Tensor, spec: InputSpec, channel: np.ndarray) -> Tensor:
    if spec.normalise == "zscore":
        inside = channel[channel != 0] if (channel != 0).any() else channel
        return (x - float(inside.mean())) / max(float(inside.std()), 1e-6)
    shape = [-1, *[1] * (x.ndim - 2 if spec.view == "planes" else x.ndim - 1)]
    mean, std = (torch.tensor(values, dtype=torch.float32).reshape(shape) for values in (spec.mean, spec.std))
    return (x * spec.scale - mean) / std
