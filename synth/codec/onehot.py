"""One-hot masks: label maps through a codec of as many channels as labels."""

import torch
from torch import Tensor
from torch.nn import functional

from synth.codec.autoencoder import Autoencoder
from synth.codec.base import Codec
from synth.codec.config import OneHotConfig


class OneHot(Codec):
    """Label maps (batch, 1, *grid) of values 0..labels-1 <-> latents of the inner codec.

    Decoding gives label maps by argmax; `logits` gives the scores. Whitening is the inner codec's.
    """

    def __init__(self, config: OneHotConfig, inner: Codec) -> None:
        super().__init__(
            in_channels=1,
            channels=inner.channels,
            stride=inner.stride,
            spatial_dims=inner.spatial_dims,
            halo=inner.halo,
        )
        self.labels = config.labels
        self.inner = inner

    def hot(self, labels: Tensor) -> Tensor:
        """Return one-hot channels (batch, labels, *grid) of label maps (batch, 1, *grid)."""
        return functional.one_hot(labels[:, 0].long(), self.labels).movedim(-1, 1).float()

    def raw_encode(self, pixels: Tensor) -> Tensor:
        """Encode the one-hot channels."""
        return self.inner.raw_encode(self.hot(pixels))

    def logits(self, latents: Tensor) -> Tensor:
        """Return the scores (batch, labels, *grid) of latents before whitening."""
        return self.inner.raw_decode(latents)

    def raw_decode(self, latents: Tensor) -> Tensor:
        """Return the most likely label of each voxel (batch, 1, *grid)."""
        return self.logits(latents).argmax(dim=1, keepdim=True)

    def loss(self, pixels: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """Return per-sample terms: cross-entropy of sharpened scores, soft Dice, and the inner codec's KL."""
        assert isinstance(self.inner, Autoencoder), "only an autoencoder inside is trained"
        labels = self.pad(pixels)
        mean = self.inner.raw_encode(self.hot(labels))
        scores = SHARPNESS * self.inner.raw_decode(self.inner.sample(mean, rng)).float()
        entropy = functional.cross_entropy(scores, labels[:, 0].long(), reduction="none")
        share, hot = scores.softmax(dim=1).flatten(2), self.hot(labels).flatten(2)
        overlap = (2 * (share * hot).sum(dim=2) + 1.0) / ((share + hot).sum(dim=2) + 1.0)
        return {
            "cross_entropy": entropy.flatten(1).mean(dim=1),
            "dice": 0.2 * (1.0 - overlap).mean(dim=1),
            "kl": self.inner.config.kl * self.inner.kl(mean.float()),
        }


SHARPNESS = 8.0
"""One-hot targets start at scores 0 and 1; times this they are confident probabilities."""
