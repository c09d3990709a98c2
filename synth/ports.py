"""Ports: the only ways anything enters a network. Conditioning fills them, backbones read them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import torch
from torch import Tensor

_EMPTY: Mapping[str, Tensor] = MappingProxyType({})


@dataclass(frozen=True, eq=False)
class Ports:
    """Values for a network's three kinds of entry.

    spatial  tuple of (tensor (batch, channel, *grid x stride), stride): concatenated at the stem
    tokens   (tensor (batch, token, width), mask (batch, token) True where a token counts)
    vector   named slots, each (batch, width): added to the time embedding
    """

    spatial: tuple[tuple[Tensor, int], ...] = ()
    tokens: tuple[Tensor, Tensor] | None = None
    vector: Mapping[str, Tensor] = field(default_factory=lambda: _EMPTY)


@dataclass(frozen=True)
class PortSpec:
    """What a backbone must be built for: spatial (channels, stride) each, token width, vector slots' widths."""

    spatial: tuple[tuple[int, int], ...] = ()
    token_width: int = 0
    vector: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Window:
    """Where a batch of latent grids lies in its full latent grids: origin and full are (batch, dims) voxels.

    spacing_mm  (batch, dims), of a voxel of the volume and not of the latents; None where nobody asks for it
    """

    grid: tuple[int, ...]
    origin: Tensor
    full: Tensor
    spacing_mm: Tensor | None = None

    @classmethod
    def whole(cls, grid: tuple[int, ...], batch: int = 1, *, spacing_mm: tuple[float, ...] | None = None) -> "Window":
        """The window that is the whole volume."""
        full = torch.tensor([grid] * batch, dtype=torch.float32)
        spacing = None if spacing_mm is None else torch.tensor([spacing_mm] * batch, dtype=torch.float32)
        return cls(grid, torch.zeros(batch, len(grid)), full, spacing)

    def to(self, device: torch.device) -> "Window":
        """Return the window with its numbers on `device`."""
        spacing = None if self.spacing_mm is None else self.spacing_mm.to(device)
        return replace(self, origin=self.origin.to(device), full=self.full.to(device), spacing_mm=spacing)

    @classmethod
    def at(
        cls, place: tuple[slice, ...], full: tuple[int, ...], *, spacing_mm: tuple[float, ...] | None = None
    ) -> "Window":
        """The window at one place of a full grid."""
        whole = cls.whole(full, spacing_mm=spacing_mm)
        grid = tuple(part.stop - part.start for part in place)
        return replace(whole, grid=grid, origin=torch.tensor([[float(part.start) for part in place]]))
