"""MONAI's AutoencoderKL as a Codec, for comparison. It is imported only when one is built."""

from typing import Any

import torch
from torch import Tensor, nn

from synth.codec.autoencoder import gradient_loss
from synth.codec.base import Codec
from synth.codec.config import MonaiConfig
from synth.errors import ConfigError


class MonaiAutoencoder(Codec):
    """monai.networks.nets.AutoencoderKL with the Codec's padding and whitening; latents are the posterior mean.

    halo is None: a group norm averages over space, so a tile decodes differently from the whole.
    Errors: ConfigError where MONAI is not installed.
    """

    network: nn.Module

    def __init__(self, config: MonaiConfig) -> None:
        super().__init__(
            in_channels=config.in_channels,
            channels=config.channels,
            stride=2 ** (len(config.widths) - 1),
            spatial_dims=config.spatial_dims,
            halo=None,
        )
        self.config = config
        self.network = _network(config)

    @property
    def trained(self) -> bool:
        """True: it starts at random."""
        return True

    def raw_encode(self, pixels: Tensor) -> Tensor:
        """Return mu, the mean of the posterior."""
        return self._call("encode", pixels)[0]

    def raw_decode(self, latents: Tensor) -> Tensor:
        """Return the decoded pixels."""
        return self._call("decode", latents)

    def loss(self, pixels: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """Return per-sample terms, the same as our autoencoder's: L1, finite differences, weighted KL."""
        target = self.pad(pixels)
        mean, spread = self._call("encode", target)
        noise = torch.randn(mean.shape, generator=rng, device=rng.device).to(mean)
        rendered, target = self.raw_decode(mean + spread * noise).float(), target.float()
        mean, spread = mean.float(), spread.float()
        kl = 0.5 * (mean.square() + spread.square() - 1.0 - 2.0 * spread.clamp_min(1e-12).log())
        return {
            "l1": (rendered - target).abs().flatten(1).mean(dim=1),
            "gradient": self.config.gradient * gradient_loss(rendered, target),
            "kl": self.config.kl * kl.flatten(1).mean(dim=1),
        }

    def _call(self, method: str, x: Tensor) -> Any:
        return getattr(self.network, method)(x)


def _network(config: MonaiConfig) -> nn.Module:
    try:
        from monai.networks.nets.autoencoderkl import AutoencoderKL
    except ImportError as error:
        raise ConfigError("codec monai_autoencoder needs MONAI; install it with pip install 'monai>=1.5'") from error
    levels = len(config.widths)
    return AutoencoderKL(
        spatial_dims=config.spatial_dims,
        in_channels=config.in_channels,
        out_channels=config.in_channels,
        num_res_blocks=(config.blocks,) * levels,
        channels=config.widths,
        attention_levels=(False,) * levels,
        latent_channels=config.channels,
        norm_num_groups=config.groups,
        with_encoder_nonlocal_attn=False,
        with_decoder_nonlocal_attn=False,
    )
