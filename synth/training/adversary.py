"""A codec trained against a critic of patches. Knows codecs and losses; no loop, no file.

Both are one module, so that one optimiser, one average and one checkpoint serve them and a resumed run stays exact.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from synth.codec.autoencoder import Autoencoder
from synth.layers import ChannelNorm, conv

_CRITIC_SHARE = 0.1
"""Weight of the critic's own loss: the optimiser does not mind its scale, the clipping of the joint gradient does."""


@dataclass(frozen=True, eq=False)
class Crops:
    """Pixels (batch, channel, *grid) of a step, and whether the critic is heard yet."""

    pixels: Tensor
    heard: bool


class Critic(nn.Module):
    """Scores every patch as real (high) or rendered (low), in 2D and 3D (Isola et al. 2017).

    Three convolutions of stride 2, normalised over channels alone, see 15 voxels along an axis.
    """

    def __init__(self, *, channels: int, spatial_dims: int, width: int = 32) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [
                nn.Sequential(conv(spatial_dims, channels, width, stride=2), nn.LeakyReLU(0.2)),
                nn.Sequential(conv(spatial_dims, width, 2 * width, stride=2), ChannelNorm(2 * width), nn.SiLU()),
                nn.Sequential(conv(spatial_dims, 2 * width, 4 * width, stride=2), ChannelNorm(4 * width), nn.SiLU()),
            ]
        )
        self.head = conv(spatial_dims, 4 * width, 1, kernel=1)

    def forward(self, pixels: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the scores (batch, 1, *patches) and the features of each layer."""
        features: list[Tensor] = []
        for layer in self.layers:
            pixels = layer(pixels)
            features.append(pixels)
        return self.head(pixels), features


class Contest(nn.Module):
    """An autoencoder and the critic it is trained against.

    codec:  its own terms + adversarial * mean(-score(rendered)) + perceptual * mean_l |f_l(rendered) - f_l(real)|
    critic: hinge, mean(max(0, 1 - score(real))) / 2 + mean(max(0, 1 + score(rendered))) / 2  (Lim & Ye 2017)

    f_l are the critic's own layers (feature matching, Wang et al. 2018), so no pretrained network is needed.
    """

    def __init__(self, codec: Autoencoder, *, adversarial: float, perceptual: float) -> None:
        super().__init__()
        self.codec = codec
        critic = Critic(channels=codec.in_channels, spatial_dims=codec.spatial_dims)
        self.critic = critic.to(codec.latent_mean.device)
        self.adversarial, self.perceptual = adversarial, perceptual

    def loss(self, crops: Crops, rng: torch.Generator) -> dict[str, Tensor]:
        """Return per-sample terms; the codec's hold no gradient for the critic, the critic's none for the codec."""
        rendered, target, terms = self.codec.rendered(crops.pixels, rng)
        # once, with its gradient: autocast would keep weights that it cast without one, for the critic's own loss too
        real, wanted = self.critic(target)
        if crops.heard:
            fixed = {name: value.detach() for name, value in self.critic.named_parameters()}
            score, found = functional_call(self.critic, fixed, (rendered,))
            apart = [(a - b.detach()).float().abs().flatten(1).mean(dim=1) for a, b in zip(found, wanted, strict=True)]
            terms["adversarial"] = -self.adversarial * _each(score)
            terms["perceptual"] = self.perceptual * torch.stack(apart).mean(dim=0)
        made = self.critic(rendered.detach())[0]
        hinge = _each(functional.relu(1.0 - real)) + _each(functional.relu(1.0 + made))
        return {**terms, "critic": 0.5 * _CRITIC_SHARE * hinge}


def _each(scores: Tensor) -> Tensor:
    return scores.float().flatten(1).mean(dim=1)


def sharpness_gap(rendered: Tensor, target: Tensor) -> float:
    """Return the Wasserstein distance between the gradient magnitudes of two volumes (batch, channel, *grid).

    In pixel units: blur and false grain both raise it, and a shifted edge does not.
    """
    rows: list[Tensor] = []
    for volume in (rendered.float(), target.float()):
        inner = (slice(0, -1),) * (volume.ndim - 2)
        slopes = [volume.diff(dim=axis).square() for axis in range(2, volume.ndim)]
        whole = [slope[(..., *(inner[:k] + (slice(None),) + inner[k + 1 :]))] for k, slope in enumerate(slopes)]
        rows.append(torch.stack(whole).sum(dim=0).sqrt().flatten().sort().values)
    return float((rows[0] - rows[1]).abs().mean())
