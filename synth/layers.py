"""Layers that backbones and codecs share: 2D and 3D by one argument, no normalisation over space.

Know no port, no latent and no time.
"""

import torch
from torch import Tensor, nn


def conv(spatial_dims: int, inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> nn.Module:
    """Return a convolution that keeps the grid (or halves it with stride 2)."""
    if kernel == 1 and stride == 1:
        return Pointwise3d(inputs, outputs, 1) if spatial_dims == 3 else Pointwise2d(inputs, outputs, 1)
    layer = nn.Conv3d if spatial_dims == 3 else nn.Conv2d
    return layer(inputs, outputs, kernel, stride=stride, padding=kernel // 2)


class _Pointwise:
    """A convolution of one voxel as a matrix product: sums are the same for any number of threads, torch's are not."""

    weight: Tensor
    bias: Tensor | None

    def forward(self, input: Tensor) -> Tensor:
        """(batch, inputs, *grid) -> (batch, outputs, *grid)."""
        out = torch.matmul(self.weight.flatten(1), input.flatten(2))
        assert self.bias is not None
        return (out + self.bias[:, None].to(out.dtype)).unflatten(2, input.shape[2:])


class Pointwise3d(_Pointwise, nn.Conv3d):
    """In 3D."""


class Pointwise2d(_Pointwise, nn.Conv2d):
    """In 2D."""


def zeroed(layer: nn.Module) -> nn.Module:
    """Return `layer` with all its parameters zero: a residual branch that starts silent."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class ChannelNorm(nn.Module):
    """RMS norm over the channels of each voxel: x / sqrt(mean_c x^2 + eps) * gain (Zhang & Sennrich 2019)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channel, *grid) -> same."""
        scale = torch.rsqrt(x.float().square().mean(dim=1, keepdim=True) + 1e-6).to(x.dtype)
        return x * scale * self.gain.to(x.dtype).reshape(1, -1, *([1] * (x.ndim - 2)))
