"""What every codec promises: whitened latents, any size, a stated halo."""

from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional


class Codec(nn.Module, ABC):
    """Pixels (batch, in_channels, *grid) <-> latents (batch, channels, *ceil(grid / stride)) of unit variance.

    halo   latent voxels around a tile that decide what the tile decodes to (0 = none); None = the whole volume
    """

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, *, in_channels: int, channels: int, stride: int, spatial_dims: int, halo: int | None) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.channels = channels
        self.stride = stride
        self.spatial_dims = spatial_dims
        self.halo = halo
        self.register_buffer("latent_mean", torch.zeros(channels))
        self.register_buffer("latent_std", torch.ones(channels))

    @property
    def trained(self) -> bool:
        """True where gradients train it, by a `loss` of (pixels, rng); others are fitted, or have nothing to learn."""
        return False

    @abstractmethod
    def raw_encode(self, pixels: Tensor) -> Tensor:
        """Return latents before whitening; the grid is a multiple of stride."""

    @abstractmethod
    def raw_decode(self, latents: Tensor) -> Tensor:
        """Return pixels of latents before whitening."""

    def encode(self, pixels: Tensor) -> Tensor:
        """Return whitened latents; a grid that is no multiple of stride is padded with its edge values."""
        shape = (1, -1, *([1] * self.spatial_dims))
        return (self.raw_encode(self.pad(pixels)) - self.latent_mean.reshape(shape)) / self.latent_std.reshape(shape)

    def decode(self, latents: Tensor, *, grid: tuple[int, ...] | None = None) -> Tensor:
        """Return pixels, cropped to `grid` where given."""
        shape = (1, -1, *([1] * self.spatial_dims))
        pixels = self.raw_decode(latents * self.latent_std.reshape(shape) + self.latent_mean.reshape(shape))
        return pixels if grid is None else pixels[(..., *(slice(0, n) for n in grid))]

    def pad(self, pixels: Tensor) -> Tensor:
        """Return pixels grown at the far ends to multiples of stride, repeating the edge."""
        extra = [-n % self.stride for n in pixels.shape[2:]]
        if not any(extra):
            return pixels
        amounts = [amount for n in reversed(extra) for amount in (0, n)]
        return functional.pad(pixels.float(), amounts, mode="replicate").to(pixels.dtype)

    def latent_grid(self, grid: tuple[int, ...]) -> tuple[int, ...]:
        """Return the latent grid of a pixel grid."""
        return tuple(-(-n // self.stride) for n in grid)

    @torch.no_grad()
    def fit_whitening(self, raw_latents: Iterable[Tensor]) -> None:
        """Set mean and scale per channel from raw latents (channel, *grid) of *all* training volumes."""
        count, sums = 0, self.latent_mean.new_zeros(4, self.channels).double()
        for latents in raw_latents:
            flat = latents.double().reshape(self.channels, -1)
            count += flat.shape[1]
            sums += torch.stack([(flat**power).sum(dim=1) for power in (1, 2, 3, 4)])
        moments = sums / max(count, 1)
        self.latent_mean.copy_(moments[0])
        self.latent_std.copy_(self.spread(moments))

    def spread(self, moments: Tensor) -> Tensor:
        """Return what a channel is divided by, its standard deviation, of its moments E z .. E z^4 (4, channel)."""
        return (moments[1] - moments[0] ** 2).clamp_min(1e-12).sqrt()


def blocks_of(pixels: Tensor, stride: int) -> Tensor:
    """Space to depth: (batch, channel, *grid) -> (batch, channel stride^dims, *grid / stride)."""
    dims = pixels.ndim - 2
    split = [part for n in pixels.shape[2:] for part in (n // stride, stride)]
    fine, coarse = [3 + 2 * d for d in range(dims)], [2 + 2 * d for d in range(dims)]
    return pixels.reshape(*pixels.shape[:2], *split).permute(0, 1, *fine, *coarse).flatten(1, 1 + dims)


def pixels_of(blocks: Tensor, stride: int) -> Tensor:
    """Depth to space, the inverse of blocks_of."""
    dims = blocks.ndim - 2
    grid = blocks.shape[2:]
    split = blocks.reshape(blocks.shape[0], -1, *([stride] * dims), *grid)
    order = [axis for d in range(dims) for axis in (2 + dims + d, 2 + d)]
    return split.permute(0, 1, *order).reshape(blocks.shape[0], -1, *(n * stride for n in grid))
