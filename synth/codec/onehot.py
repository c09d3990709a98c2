"""One-hot masks: label maps through a codec of as many channels as labels."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional

from synth.codec.autoencoder import Autoencoder
from synth.codec.base import Codec
from synth.codec.config import OneHotConfig


class OneHot(Codec):
    """Label maps (batch, 1, *grid) of values 0..labels-1 <-> latents of the inner codec.

    Decoding gives label maps by argmax; `logits` gives the scores. Latents have mean 0 and E z^4 = 3, as a Gaussian of
    unit variance has: at variance 1 a label in few voxels lies some 30 deviations away, and a flow then decides where
    it is in the first step from noise, blindly.
    scale   (labels,) what each one-hot channel is multiplied by on its way in and divided by on its way out
    """

    scale: Tensor

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
        self.balance = config.balance
        self.register_buffer("scale", torch.ones(config.labels))

    @property
    def trained(self) -> bool:
        """True where the codec inside is trained."""
        return self.inner.trained

    @torch.no_grad()
    def fit_balance(self, maps: Iterable[Tensor]) -> None:
        """Set `scale` from label maps (1, *grid): (v / max v) ** (-balance / 2), v = p (1 - p), p its share."""
        counts = sum(
            (torch.bincount(m.long().flatten(), minlength=self.labels) for m in maps), torch.zeros_like(self.scale)
        )
        share = counts / counts.sum().clamp_min(1)
        variance = (share * (1 - share)).clamp_min(_RAREST)
        self.scale.copy_((variance / variance.max()) ** (-self.balance / 2))

    def spread(self, moments: Tensor) -> Tensor:
        """Return (E (z - mean)^4 / 3)^(1/4): a Gaussian channel's deviation, more where values are rare and large."""
        mean, second, third, fourth = moments
        central = fourth - 4 * mean * third + 6 * mean**2 * second - 3 * mean**4
        return (central / 3).clamp_min(1e-24) ** 0.25

    def hot(self, labels: Tensor) -> Tensor:
        """Return one-hot channels (batch, labels, *grid) of label maps (batch, 1, *grid)."""
        return functional.one_hot(labels[:, 0].long(), self.labels).movedim(-1, 1).float()

    def scaled(self, labels: Tensor) -> Tensor:
        """Return what the inner codec sees of label maps: scaled one-hot channels."""
        return self.hot(labels) * self._by_channel()

    def raw_encode(self, pixels: Tensor) -> Tensor:
        """Encode the scaled one-hot channels."""
        return self.inner.raw_encode(self.scaled(pixels))

    def logits(self, latents: Tensor) -> Tensor:
        """Return the scores (batch, labels, *grid) of latents before whitening."""
        return self.inner.raw_decode(latents) / self._by_channel()

    def raw_decode(self, latents: Tensor) -> Tensor:
        """Return the most likely label of each voxel (batch, 1, *grid)."""
        return self.logits(latents).argmax(dim=1, keepdim=True)

    def loss(self, pixels: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """Return per-sample terms: cross-entropy of sharpened scores, soft Dice, and the inner codec's KL."""
        assert isinstance(self.inner, Autoencoder), "only an autoencoder inside is trained"
        labels = self.pad(pixels)
        mean = self.raw_encode(labels)
        scores = SHARPNESS * self.logits(self.inner.sample(mean, rng)).float()
        entropy = functional.cross_entropy(scores, labels[:, 0].long(), reduction="none")
        share, hot = scores.softmax(dim=1).flatten(2), self.hot(labels).flatten(2)
        overlap = (2 * (share * hot).sum(dim=2) + 1.0) / ((share + hot).sum(dim=2) + 1.0)
        return {
            "cross_entropy": entropy.flatten(1).mean(dim=1),
            "dice": 0.2 * (1.0 - overlap).mean(dim=1),
            "kl": self.inner.config.kl * self.inner.kl(mean.float()),
        }

    @torch.no_grad()
    def start_from(self, other: "OneHot") -> None:
        """Take up the weights of a codec of the first labels; further ones are encoded as background.

        Decoded they score below the background by a little that training can make up: what other labels encode and
        decode to stays the same. Only an autoencoder inside has room for further labels.
        """
        known, extra = other.inner.state_dict(), self.labels - other.labels
        for name, tensor in self.inner.state_dict().items():
            old = known[name]
            axis = next((a for a, (n, m) in enumerate(zip(tensor.shape, old.shape)) if n != m), None)
            if axis is not None:  # channels of pixels are labels, each with all cells of a block
                background = old.narrow(axis, 0, old.shape[axis] // other.labels)
                if name == "expand.bias":
                    background = background - _BELOW * other.scale[0]
                old = torch.cat([old, *[background] * extra], dim=axis)
            tensor.copy_(old)
        self.scale.copy_(torch.cat([other.scale, other.scale[:1].expand(extra)]))
        self.latent_mean.copy_(other.latent_mean)
        self.latent_std.copy_(other.latent_std)

    def _by_channel(self) -> Tensor:
        return self.scale.reshape(1, -1, *([1] * self.spatial_dims))


SHARPNESS = 8.0
"""One-hot targets start at scores 0 and 1; times this they are confident probabilities."""

_BELOW = 0.5
"""How much less a new label scores than the background at first: a hundredth of its probability, once sharpened."""

_RAREST = 1e-5
"""Variance below which a label counts as this rare; one that is in no map must not blow up."""
