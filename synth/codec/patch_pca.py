"""Patch-PCA: the best linear codec of blocks (Karhunen-Loeve), a baseline and the start of our autoencoder."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from synth.codec.base import Codec, blocks_of, pixels_of
from synth.codec.config import PatchPCAConfig


class PatchPCA(Codec):
    """z = W (block - mean) with W the leading eigenvectors of the blocks' covariance; decode is the transpose."""

    basis: Tensor
    block_mean: Tensor

    def __init__(self, config: PatchPCAConfig) -> None:
        super().__init__(
            in_channels=config.in_channels,
            channels=config.channels,
            stride=config.stride,
            spatial_dims=config.spatial_dims,
            halo=0,
        )
        block = config.in_channels * config.stride**config.spatial_dims
        self.register_buffer("basis", torch.eye(block)[: config.channels].clone())
        self.register_buffer("block_mean", torch.zeros(block))

    @torch.no_grad()
    def fit(self, volumes: Iterable[Tensor]) -> None:
        """Set basis, mean and whitening from volumes (in_channels, *grid), in float64."""
        block = self.basis.shape[1]
        zeros = self.block_mean.new_zeros
        count, total, products = 0, zeros(block).double(), zeros(block, block).double()
        for volume in volumes:
            flat = blocks_of(self.pad(volume[None]), self.stride)[0].reshape(block, -1).double()
            count += flat.shape[1]
            total += flat.sum(dim=1)
            products += flat @ flat.T
        mean = total / max(count, 1)
        values, vectors = torch.linalg.eigh(products / max(count, 1) - torch.outer(mean, mean))
        leading = vectors.flip(1)[:, : self.channels].T
        sign = leading.gather(1, leading.abs().argmax(dim=1, keepdim=True)).sign()
        self.basis.copy_(leading * sign)
        self.block_mean.copy_(mean)
        self.latent_mean.zero_()
        self.latent_std.copy_(values.flip(0)[: self.channels].clamp_min(1e-12).sqrt())

    def raw_encode(self, pixels: Tensor) -> Tensor:
        """Project each block."""
        blocks = blocks_of(pixels, self.stride) - self._column(self.block_mean)
        return torch.einsum("cb,nb...->nc...", self.basis, blocks)

    def raw_decode(self, latents: Tensor) -> Tensor:
        """Expand each block."""
        blocks = torch.einsum("cb,nc...->nb...", self.basis, latents) + self._column(self.block_mean)
        return pixels_of(blocks, self.stride)

    def _column(self, values: Tensor) -> Tensor:
        return values.reshape(1, -1, *([1] * self.spatial_dims))


def as_linear(pca: PatchPCA, encoder: nn.Module, decoder: nn.Module) -> None:
    """Set 1x1 convolutions over blocks to the PCA's whitened projection and its inverse."""
    with torch.no_grad():
        dims = [1] * pca.spatial_dims
        scale = pca.latent_std
        weight = pca.basis / scale[:, None]
        encoder.weight.copy_(weight.reshape(*weight.shape, *dims))  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
        encoder.bias.copy_(-(weight @ pca.block_mean))  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
        back = (pca.basis * scale[:, None]).T
        decoder.weight.copy_(back.reshape(*back.shape, *dims))  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
        decoder.bias.copy_(pca.block_mean)  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
