"""Our latent autoencoder: a patch-PCA path with residual networks around it, all at latent resolution.

No normalisation over space, so that a tile with its halo decodes to what the whole decodes to.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from synth.codec.base import Codec, blocks_of, pixels_of
from synth.codec.config import AutoencoderConfig
from synth.codec.patch_pca import PatchPCA, as_linear
from synth.layers import ChannelNorm, conv, zeroed

_POSTERIOR_PIXELS = 0.008
"""Root mean square, in mapped pixels, of the noise that the posterior starts with."""


class _Block(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))), quiet at first."""

    def __init__(self, dims: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            ChannelNorm(width),
            nn.SiLU(),
            conv(dims, width, width),
            ChannelNorm(width),
            nn.SiLU(),
            conv(dims, width, width),
        )
        with torch.no_grad():
            self.layers[-1].weight.mul_(0.3)  # pyright: ignore[reportCallIssue, reportArgumentType, reportAttributeAccessIssue]

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def _network(dims: int, inputs: int, width: int, outputs: int, blocks: int) -> nn.Sequential:
    last = zeroed(conv(dims, width, outputs))
    body = [_Block(dims, width) for _ in range(blocks)]
    return nn.Sequential(conv(dims, inputs, width), *body, ChannelNorm(width), nn.SiLU(), last)


class Autoencoder(Codec):
    """KL-regularised autoencoder (Kingma & Welling 2014) whose linear path starts as the patch-PCA.

    mu = P block + e(block);  pixels = Q z + d(z), with P, Q 1x1 convolutions over blocks of stride^dims
    pixels and e, d residual networks that start silent: training begins at patch-PCA quality.
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        dims, block = config.spatial_dims, config.in_channels * config.stride**config.spatial_dims
        super().__init__(
            in_channels=config.in_channels,
            channels=config.channels,
            stride=config.stride,
            spatial_dims=dims,
            halo=2 * config.decoder_blocks + 2,
        )
        self.config = config
        self.project = conv(dims, block, config.channels, kernel=1)
        self.refine = _network(dims, block, config.width, config.channels, config.encoder_blocks)
        self.log_variance = nn.Parameter(torch.full((config.channels,), -5.0))
        self.expand = conv(dims, config.channels, block, kernel=1)
        self.render = _network(dims, config.channels, config.width, block, config.decoder_blocks)

    @property
    def trained(self) -> bool:
        """True."""
        return True

    def start_from(self, pca: PatchPCA) -> None:
        """Set the linear path to a fitted patch-PCA of the same size.

        The posterior starts narrow: each channel's noise moves a pixel by the same small amount, since a wide
        one on the leading channels would drown everything the others say.
        """
        as_linear(pca, self.project, self.expand)
        block = self.config.in_channels * self.config.stride**self.spatial_dims
        with torch.no_grad():
            spread = _POSTERIOR_PIXELS * (block / self.channels) ** 0.5 / pca.latent_std.clamp_min(1e-6)
            self.log_variance.copy_(2.0 * spread.clamp_max(1.0).log())

    def raw_encode(self, pixels: Tensor) -> Tensor:
        """Return mu, the mean of the posterior: what latent caches hold."""
        blocks = blocks_of(pixels, self.stride)
        return self.project(blocks) + self.refine(blocks)

    def raw_decode(self, latents: Tensor) -> Tensor:
        """Return the rendered pixels."""
        return pixels_of(self.expand(latents) + self.render(latents), self.stride)

    def kl(self, mean: Tensor) -> Tensor:
        """Return KL(N(mean, exp(log_variance)) || N(0, 1)) a latent value, averaged: (batch,)."""
        variance = self.log_variance.exp()
        fixed = 0.5 * (variance - 1.0 - self.log_variance).mean()
        return 0.5 * mean.flatten(1).square().mean(dim=1) + fixed

    def loss(self, pixels: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """Return per-sample terms: L1, finite differences at two scales (texture), and the weighted KL."""
        return self.rendered(pixels, rng)[2]

    def rendered(self, pixels: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return a draw rendered, what it should be, and the terms of the loss."""
        mean = self.raw_encode(self.pad(pixels))
        rendered = self.raw_decode(self.sample(mean, rng)).float()
        target = self.pad(pixels).float()
        return (
            rendered,
            target,
            {
                "l1": (rendered - target).abs().flatten(1).mean(dim=1),
                "gradient": self.config.gradient * gradient_loss(rendered, target),
                "kl": self.config.kl * self.kl(mean.float()),
            },
        )

    def sample(self, mean: Tensor, rng: torch.Generator) -> Tensor:
        """Return a draw of the posterior."""
        noise = torch.randn(mean.shape, generator=rng, device=rng.device).to(mean)
        spread = (0.5 * self.log_variance).exp().reshape(1, -1, *([1] * self.spatial_dims))
        return mean + spread.to(mean.dtype) * noise


def gradient_loss(rendered: Tensor, target: Tensor) -> Tensor:
    """Return the mean L1 between finite differences along every axis, at full and half resolution: (batch,)."""
    total = rendered.new_zeros(len(rendered))
    for level in range(2):
        if level:
            pool = functional.avg_pool3d if rendered.ndim == 5 else functional.avg_pool2d
            rendered, target = pool(rendered, 2), pool(target, 2)
        for axis in range(2, rendered.ndim):
            gap = (rendered.diff(dim=axis) - target.diff(dim=axis)).abs()
            total = total + gap.flatten(1).mean(dim=1)
    return total / (2 * (rendered.ndim - 2))
