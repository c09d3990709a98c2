"""Overlapped denoising: a volume larger than its network sees at once, estimated in windows that are blended.

Knows places in latents and denoisers; no network, no condition, no file.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from synth.denoiser import Denoise
from synth.process.base import Estimate, GaussianProcess

Place = tuple[slice, ...]


def places(grid: Sequence[int], window: Sequence[int]) -> list[Place]:
    """Return where windows of at most `window` voxels lie in `grid`: evenly, each overlapping the next by a third.

    >>> [place[0].start for place in places((20,), (9,))]
    [0, 6, 11]
    >>> places((4, 4), (8, 8))
    [(slice(0, 4, None), slice(0, 4, None))]
    """
    starts: list[list[tuple[int, int]]] = []
    for size, wanted in zip(grid, window, strict=True):
        side = min(size, wanted)
        stride = max(side - math.ceil(side / 3), 1)
        last = size - side
        count = math.ceil(last / stride)
        starts.append([(round(last * k / count), side) for k in range(count + 1)] if count else [(0, side)])
    return [tuple(slice(first, first + side) for first, side in corner) for corner in product(*starts)]


@dataclass(frozen=True, eq=False)
class Windowed:
    """A Denoise over a whole grid from denoisers of its windows, at every step anew (Bar-Tal et al. 2023).

    E(x, t)[v] = sum_k w_k[v] E_k(x|k, t)[v] / sum_k w_k[v], w_k a pyramid that falls towards the window's border, so
    no window ends with a step. The windows must cover the grid; x = alpha clean + sigma noise holds, for it is linear.
    """

    windows: Sequence[tuple[Place, Denoise]]

    @property
    def process(self) -> GaussianProcess:
        """The denoisers' shared noise law."""
        return self.windows[0][1].process

    def __call__(self, x: Tensor, t: Tensor, *, to: Tensor) -> Estimate:
        """Estimate at t; one evaluation a window."""
        sums = [torch.zeros_like(x) for _ in range(3)]
        total = torch.zeros_like(x[:1, :1])
        for place, denoise in self.windows:
            here = (..., *place)
            part = denoise(x[here], t, to=to)
            weight = _pyramid(part.clean)
            total[here] += weight
            for into, value in zip(sums, (part.clean, part.noise, part.raw), strict=True):
                into[here] += weight * value
        return Estimate(*(value / total for value in sums))


def _pyramid(like: Tensor) -> Tensor:
    """Return weights (1, 1, *grid) that rise from every border to the middle."""
    weight = like.new_ones((1, 1, *like.shape[2:]))
    for axis, size in enumerate(like.shape[2:]):
        at = torch.arange(size, dtype=like.dtype, device=like.device) + 0.5
        shape = [1] * like.ndim
        shape[2 + axis] = size
        weight = weight * torch.minimum(at, size - at).reshape(shape)
    return weight


def seam(latents: Tensor, windows: Sequence[Place]) -> float | None:
    """Return how much more latents (batch, channel, *grid) step across the windows' borders than elsewhere.

    For each axis, RMS of the differences of neighbours over planes where a window begins or ends, over that of all
    other planes; the largest axis counts. 1 = no seam; None where one window is the whole.
    """
    ratios: list[float] = []
    for axis in range(latents.ndim - 2):
        size = latents.shape[2 + axis]
        steps = latents.diff(dim=2 + axis).double().square().movedim(2 + axis, 0).flatten(1).mean(dim=1)
        edges = {edge for place in windows for edge in (place[axis].start, place[axis].stop) if 0 < edge < size}
        at = torch.zeros(len(steps), dtype=torch.bool, device=steps.device)
        at[[edge - 1 for edge in sorted(edges)]] = True
        if edges and not bool(at.all()):
            ratios.append(float((steps[at].mean() / steps[~at].mean().clamp_min(1e-30)).sqrt()))
    return max(ratios, default=None)
