"""Texture: the grain that a codec leaves out, measured on its residuals and given back as seeded noise.

A decoder trained on mean error renders the expected image; acquisition noise is not in it. The residual
pixels - decode(encode(pixels)) of training volumes is modelled as stationary Gaussian noise with a radial
power spectrum, scaled by a standard deviation that depends on the decoded intensity.
"""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

_LEVELS = 24
_BANDS = 24
_LOW, _HIGH = -0.1, 1.5


class Texture(nn.Module):
    """residual(x) = sd(decoded(x)) * n(x), with n Gaussian of unit variance and the measured spectrum.

    sd        (levels,) standard deviation by decoded intensity, evenly spaced from -0.1 to 1.5
    spectrum  (bands,) power by radial frequency from 0 to the corner of the band, mean 1
    """

    sd: Tensor
    spectrum: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("sd", torch.zeros(_LEVELS))
        self.register_buffer("spectrum", torch.ones(_BANDS))

    @torch.no_grad()
    def fit(self, pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Measure from (pixels, decoded) pairs, each (channel, *grid)."""
        kept = [(decoded, pixels - decoded) for pixels, decoded in pairs]
        squares, count = torch.zeros(_LEVELS).double(), torch.zeros(_LEVELS).double()
        for decoded, residual in kept:
            place = self._place(decoded).flatten().double()
            low = place.floor().long().clamp_max(_LEVELS - 2)
            energy = (residual**2).flatten().double()
            for level, weight in ((low, 1 - (place - low)), (low + 1, place - low)):  # as `_scale` reads them
                squares += torch.bincount(level, weight * energy, minlength=_LEVELS)
                count += torch.bincount(level, weight, minlength=_LEVELS)
        seen = count > 1e-6
        levels = np.arange(_LEVELS)
        sd = (squares / count.clamp_min(1e-12)).sqrt().numpy()
        if seen.any():  # levels nobody reached take what their neighbours have
            sd = np.interp(levels, levels[seen.numpy()], sd[seen.numpy()])
        self.sd.copy_(torch.from_numpy(sd))
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

    def _place(self, decoded: Tensor) -> Tensor:
        return ((decoded - _LOW) / (_HIGH - _LOW) * (_LEVELS - 1)).clamp(0, _LEVELS - 1)

    def _scale(self, decoded: Tensor) -> Tensor:
        place = self._place(decoded)
        low = place.floor().long().clamp_max(_LEVELS - 2)
        share = place - low
        return self.sd[low] * (1 - share) + self.sd[low + 1] * share


def _bands(grid: tuple[int, ...]) -> Tensor:
    """Return the band of each frequency of an FFT over `grid`."""
    axes = [torch.fft.fftfreq(n) for n in grid]
    squares = torch.stack(torch.meshgrid(*[axis**2 for axis in axes], indexing="ij")).sum(dim=0)
    corner = 0.5 * len(grid) ** 0.5
    return (squares.sqrt() / corner * _BANDS).long().clamp_max(_BANDS - 1)
