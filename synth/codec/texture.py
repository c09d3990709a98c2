"""Texture: the grain that a codec leaves out, measured on its residuals and given back as seeded noise.

A decoder trained on mean error renders the expected image; acquisition noise is not in it. The residual
pixels - decode(encode(pixels)) of training volumes is modelled as Gaussian noise with a radial power spectrum,
scaled by a standard deviation that depends on the decoded intensity and on how steep the decoded image is there:
flat tissue bears acquisition noise alone, edges also what the codec could not follow. Residual that only takes back
what the decoder made up adds no variance, and is not given back.

Where data rest on a floor (air of a stripped brain, the low end of a CT window), their voxels there are equal
to the last bit and bear no grain; a decoder only comes near. What it leaves below a measured level is set to it.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

_LEVELS = 24
_SLOPES = 6
_BANDS = 24
_LOW, _HIGH = -0.1, 1.5
_PRIOR_VOXELS = 50.0
"""Voxels that the product of the spread by intensity and the spread by slope weighs in each cell of the table."""
_LEAST_SHARE = 0.25
"""Share of a residual's energy that is given back at least, so that no tissue looks painted."""
_FLOOR_SHARE = 0.05
"""Share of voxels at the lowest value from which on that value counts as a floor."""
_FLOOR_STEPS = 512


class Texture(nn.Module):
    """pixels(x) = floor where level(x) < below, else decoded(x) + sd(decoded(x), slope(x)) n(x).

    n is Gaussian of unit variance with the measured spectrum; slope is |grad decoded| a voxel; level is the mean of
    decoded and its binomial blur, since a voxel whose neighbours all rest on the floor hardly stands alone above it.
    sd        (levels, slopes) standard deviation, by decoded intensity evenly spaced from -0.1 to 1.5
    slopes    (slopes,) the slopes of the table's columns, quantiles of the data's, ascending
    spectrum  (bands,) power by radial frequency from 0 to the corner of the band, mean 1
    floor     (channels,) lowest value of the data
    below     (channels,) level that tells floor from content; -inf where data have no floor
    """

    sd: Tensor
    slopes: Tensor
    spectrum: Tensor
    floor: Tensor
    below: Tensor

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.register_buffer("sd", torch.zeros(_LEVELS, _SLOPES))
        self.register_buffer("slopes", torch.arange(_SLOPES, dtype=torch.float32))
        self.register_buffer("spectrum", torch.ones(_BANDS))
        self.register_buffer("floor", torch.zeros(channels))
        self.register_buffer("below", torch.full((channels,), -torch.inf))

    @torch.no_grad()
    def fit(self, pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Measure from (pixels, decoded) pairs, each (channel, *grid)."""
        seen = list(pairs)
        for channel in range(len(self.floor)):
            floor, below = _floor_of([(pixels[channel], _level(decoded)[channel]) for pixels, decoded in seen])
            self.floor[channel], self.below[channel] = floor, below
        above = [~self._rests(decoded) for _, decoded in seen]
        kept = [(d, torch.where(content, pixels - d, 0.0)) for (pixels, d), content in zip(seen, above, strict=True)]
        self._fit_spread(kept, above)
        self._fit_spectrum(kept)
        self._keep_what_adds(kept, above)

    @torch.no_grad()
    def finish(self, decoded: Tensor, rng: torch.Generator) -> Tensor:
        """Return `decoded` (channel, *grid) with its floor and grain."""
        floor = self._by_channel(self.floor, decoded)
        return torch.where(self._rests(decoded), floor, decoded + self.sample(decoded, rng))

    @torch.no_grad()
    def sample(self, decoded: Tensor, rng: torch.Generator) -> Tensor:
        """Return a residual for `decoded` (channel, *grid), drawn on the generator's device."""
        noise = torch.randn(decoded.shape, generator=rng, device=rng.device)
        grid = tuple(decoded.shape[1:])
        dims = tuple(range(1, decoded.ndim))
        gain = self.spectrum.clamp_min(0).sqrt()[_bands(grid)]
        gain = gain / gain.square().mean().sqrt().clamp_min(1e-12)
        shaped = torch.fft.ifftn(torch.fft.fftn(noise, dim=dims) * gain, dim=dims).real
        return self._scale(decoded) * shaped.to(decoded)

    def _fit_spread(self, kept: Sequence[tuple[Tensor, Tensor]], above: Sequence[Tensor]) -> None:
        """Set `slopes` and `sd` from (decoded, residual) pairs where they lie above the floor."""
        steep = [_slope(decoded)[content].numpy()[::7] for (decoded, _), content in zip(kept, above, strict=True)]
        every = np.concatenate(steep) if steep else np.zeros(0)
        if every.size:
            knots = np.quantile(every, np.linspace(0.02, 0.98, _SLOPES))
            self.slopes.copy_(torch.from_numpy(knots + 1e-6 * np.arange(_SLOPES)))  # apart, whatever the data
        squares, count = torch.zeros(_LEVELS * _SLOPES).double(), torch.zeros(_LEVELS * _SLOPES).double()
        for (decoded, residual), content in zip(kept, above, strict=True):
            self._add_by_cell(decoded, content, count, ((squares, residual**2),))
        self.sd.copy_(_shrunk(squares.reshape(_LEVELS, _SLOPES).numpy(), count.reshape(_LEVELS, _SLOPES).numpy()))

    def _keep_what_adds(self, kept: Sequence[tuple[Tensor, Tensor]], above: Sequence[Tensor]) -> None:
        """Scale `sd` to the part of the residual that adds variance to what was decoded.

        share = (E[h(decoded + residual)^2] - E[h(decoded)^2]) / E[h(residual)^2] by cell, h the high pass x - level(x);
        at most 1, for the edges that a codec blurs are not sharpened by noise.
        """
        adds, energy, count = (torch.zeros(_LEVELS * _SLOPES).double() for _ in range(3))
        for (decoded, residual), content in zip(kept, above, strict=True):
            own, rest = decoded - _level(decoded), residual - _level(residual)
            sums = ((adds, (own + rest).square() - own.square()), (energy, rest.square()))
            self._add_by_cell(decoded, content, count, sums)
        prior = _PRIOR_VOXELS * energy.sum() / count.sum().clamp_min(1e-12)
        share = ((adds + prior) / (energy + prior).clamp_min(1e-24)).clamp(_LEAST_SHARE, 1.0)
        self.sd.mul_(share.sqrt().reshape(_LEVELS, _SLOPES).to(self.sd))

    def _fit_spectrum(self, kept: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Set `spectrum` from (decoded, residual) pairs, each residual over its own spread."""
        power, voxels = torch.zeros(_BANDS).double(), torch.zeros(_BANDS).double()
        for decoded, residual in kept:
            scale = self._scale(decoded)
            normal = torch.where(scale > 1e-3 * self.sd.max(), residual / scale.clamp_min(1e-6), torch.zeros(()))
            dims = tuple(range(1, normal.ndim))
            energy = torch.fft.fftn(normal, dim=dims).abs().square().mean(dim=0)
            band = _bands(tuple(energy.shape)).flatten()
            power += torch.bincount(band, energy.flatten().double(), minlength=_BANDS)
            voxels += torch.bincount(band, minlength=_BANDS)
        reached, bands = voxels.numpy() > 0, np.arange(_BANDS)
        mean = power / voxels.clamp_min(1)
        if reached.any():  # small grids skip bands that larger ones ask for
            mean = torch.from_numpy(np.interp(bands, bands[reached], mean.numpy()[reached]))
        self.spectrum.copy_(mean / (mean * voxels).sum().clamp_min(1e-12) * voxels.sum().clamp_min(1))

    def _rests(self, decoded: Tensor) -> Tensor:
        """Return where `decoded` is taken for the floor."""
        below = self._by_channel(self.below, decoded)
        if not bool(torch.isfinite(below).any()):
            return torch.zeros_like(decoded, dtype=torch.bool)
        return _level(decoded) < below

    @staticmethod
    def _by_channel(values: Tensor, like: Tensor) -> Tensor:
        return values.to(like).reshape(-1, *([1] * (like.ndim - 1)))

    def _cells(self, decoded: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return the four cells of the flattened table around each voxel with their weights (bilinear)."""
        place = ((decoded - _LOW) / (_HIGH - _LOW) * (_LEVELS - 1)).clamp(0, _LEVELS - 1)
        level = place.floor().long().clamp_max(_LEVELS - 2)
        slope = _slope(decoded).clamp(float(self.slopes[0]), float(self.slopes[-1]))
        column = (torch.searchsorted(self.slopes, slope, right=True) - 1).clamp(0, _SLOPES - 2)
        width = self.slopes[column + 1] - self.slopes[column]
        across = [(0, 1 - (place - level)), (1, place - level)]
        share = (slope - self.slopes[column]) / width
        along = [(0, 1 - share), (1, share)]
        return [((level + i) * _SLOPES + column + j, a * b) for i, a in across for j, b in along]

    def _add_by_cell(
        self, decoded: Tensor, content: Tensor, count: Tensor, sums: Sequence[tuple[Tensor, Tensor]]
    ) -> None:
        """Add voxels of `content` to `count`, and each (total, values) to its total, by cell as `_scale` reads them."""
        chosen = [(total, values[content].double()) for total, values in sums]
        for cell, weight in self._cells(decoded):
            place, share = cell[content], weight[content].double()
            count += torch.bincount(place, share, minlength=len(count))
            for total, values in chosen:
                total += torch.bincount(place, share * values, minlength=len(total))

    def _scale(self, decoded: Tensor) -> Tensor:
        table = self.sd.flatten()
        return torch.stack([table[cell] * weight for cell, weight in self._cells(decoded)]).sum(dim=0)


def _level(decoded: Tensor) -> Tensor:
    """Return the mean of `decoded` (channel, *grid) and its blur by (1, 2, 1) / 4 along every axis."""
    blurred = decoded
    for axis in range(1, decoded.ndim):
        size = decoded.shape[axis]
        first, last = blurred.narrow(axis, 0, 1), blurred.narrow(axis, size - 1, 1)
        grown = torch.cat([first, blurred, last], dim=axis)
        blurred = (grown.narrow(axis, 0, size) + 2 * blurred + grown.narrow(axis, 2, size)) / 4
    return (decoded + blurred) / 2


def _slope(decoded: Tensor) -> Tensor:
    """Return the magnitude of the central differences of each channel: like `decoded`."""
    axes = [axis for axis in range(1, decoded.ndim) if decoded.shape[axis] > 1]
    if not axes:
        return torch.zeros_like(decoded)
    return torch.stack([part.square() for part in torch.gradient(decoded, dim=axes)]).sum(dim=0).sqrt()


def _shrunk(squares: np.ndarray, count: np.ndarray) -> Tensor:
    """Return standard deviations of cells (levels, slopes), drawn to the product of their margins where few voxels are.

    A level that no voxel reached takes what its neighbours have.
    """
    total = max(float(count.sum()), 1e-12)
    overall = max(float(squares.sum()) / total, 1e-24)
    by_level, by_slope = squares.sum(axis=1), squares.sum(axis=0) / np.maximum(count.sum(axis=0), 1e-12)
    reached, levels = count.sum(axis=1) > 1e-6, np.arange(len(squares))
    by_level = by_level / np.maximum(count.sum(axis=1), 1e-12)
    if reached.any():
        by_level = np.interp(levels, levels[reached], by_level[reached])
    by_slope = np.where(count.sum(axis=0) > 1e-6, by_slope, overall)
    product = by_level[:, None] * by_slope[None] / overall
    return torch.from_numpy(np.sqrt((squares + _PRIOR_VOXELS * product) / (count + _PRIOR_VOXELS)))


def _floor_of(pairs: Sequence[tuple[Tensor, Tensor]]) -> tuple[float, float]:
    """Return the lowest pixel of one channel's (pixels, levels), and the level with the fewest on its wrong side.

    The level is -inf where less than _FLOOR_SHARE of all voxels rest on the lowest value.
    """
    floor = min((float(pixels.min()) for pixels, _ in pairs), default=0.0)
    rest, other = torch.zeros(_FLOOR_STEPS).double(), torch.zeros(_FLOOR_STEPS).double()
    for pixels, level in pairs:
        place = ((level - floor - _LOW) / (_HIGH - _LOW) * _FLOOR_STEPS).long().clamp(0, _FLOOR_STEPS - 1)
        rest += torch.bincount(place[pixels == floor].flatten(), minlength=_FLOOR_STEPS)
        other += torch.bincount(place[pixels != floor].flatten(), minlength=_FLOOR_STEPS)
    if not pairs or rest.sum() < _FLOOR_SHARE * (rest.sum() + other.sum()):
        return floor, -np.inf
    wrong = other.cumsum(0) + rest.sum() - rest.cumsum(0)
    return floor, floor + _LOW + (int(wrong.argmin()) + 1) * (_HIGH - _LOW) / _FLOOR_STEPS


def _bands(grid: tuple[int, ...]) -> Tensor:
    """Return the band of each frequency of an FFT over `grid`."""
    axes = [torch.fft.fftfreq(n) for n in grid]
    squares = torch.stack(torch.meshgrid(*[axis**2 for axis in axes], indexing="ij")).sum(dim=0)
    corner = 0.5 * len(grid) ** 0.5
    return (squares.sqrt() / corner * _BANDS).long().clamp_max(_BANDS - 1)
