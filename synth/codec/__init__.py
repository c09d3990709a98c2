"""Codecs: pixels <-> latents. They own scale, shift, padding and tiling, and know no noise and no condition."""

from typing import TYPE_CHECKING

from synth.codec.config import (
    AutoencoderConfig,
    CodecConfig,
    IdentityConfig,
    MonaiConfig,
    OneHotConfig,
    PatchPCAConfig,
)

if TYPE_CHECKING:
    from synth.codec.base import Codec

__all__ = [
    "AutoencoderConfig",
    "CodecConfig",
    "IdentityConfig",
    "MonaiConfig",
    "OneHotConfig",
    "PatchPCAConfig",
    "build",
]


def build(config: CodecConfig) -> "Codec":
    """Return the untrained codec of `config`."""
    from synth.codec.autoencoder import Autoencoder
    from synth.codec.identity import Identity
    from synth.codec.monai import MonaiAutoencoder
    from synth.codec.onehot import OneHot
    from synth.codec.patch_pca import PatchPCA

    match config:
        case IdentityConfig():
            return Identity(config)
        case PatchPCAConfig():
            return PatchPCA(config)
        case AutoencoderConfig():
            return Autoencoder(config)
        case MonaiConfig():
            return MonaiAutoencoder(config)
        case OneHotConfig():
            return OneHot(config, build(config.inner))
