"""Configurations of codecs. Free of torch, so that recipes load fast; the union here is the registry."""

from dataclasses import dataclass
from typing import Literal

from synth.errors import ConfigError, require_least


def _require_pixels(config: "IdentityConfig | PatchPCAConfig | AutoencoderConfig | MonaiConfig") -> None:
    """Errors: ConfigError for pixels that no data has."""
    require_least(config, ("in_channels",), place=f"{config.kind}: ")
    if config.spatial_dims not in (2, 3):
        raise ConfigError(f"{config.kind}: spatial_dims is {config.spatial_dims}; give 2 or 3")


@dataclass(frozen=True, kw_only=True)
class IdentityConfig:
    """Pixel space: latents are whitened pixels."""

    kind: Literal["identity"] = "identity"
    in_channels: int = 1
    spatial_dims: int = 3

    def __post_init__(self) -> None:
        _require_pixels(self)


@dataclass(frozen=True, kw_only=True)
class PatchPCAConfig:
    """The best linear codec of blocks of stride ** spatial_dims pixels; also the baseline."""

    kind: Literal["patch_pca"] = "patch_pca"
    in_channels: int = 1
    spatial_dims: int = 3
    stride: int = 4
    channels: int = 16

    def __post_init__(self) -> None:
        _require_pixels(self)
        require_least(self, ("stride",), place="patch_pca: ")
        block = self.in_channels * self.stride**self.spatial_dims
        if not 1 <= self.channels <= block:
            raise ConfigError(f"patch_pca: channels is {self.channels}; a block has {block} values, give 1 to {block}")


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """Our latent autoencoder: a patch-PCA with residual networks around it.

    width, encoder_blocks, decoder_blocks   residual blocks at latent resolution and their channels
    kl              weight of the Kullback-Leibler term to N(0, 1) of the whitened latents
    gradient        weight of the loss on finite differences, which keeps texture and edges
    """

    kind: Literal["autoencoder"] = "autoencoder"
    in_channels: int = 1
    spatial_dims: int = 3
    stride: int = 4
    channels: int = 16
    width: int = 128
    encoder_blocks: int = 1
    decoder_blocks: int = 4
    kl: float = 1.0e-4
    gradient: float = 0.5

    def __post_init__(self) -> None:
        _require_pixels(self)
        require_least(self, ("stride", "width"), place="autoencoder: ")
        require_least(self, ("encoder_blocks", "decoder_blocks", "kl", "gradient"), 0, place="autoencoder: ")
        block = self.in_channels * self.stride**self.spatial_dims
        if not 1 <= self.channels <= block:
            raise ConfigError(
                f"autoencoder: channels is {self.channels}; a block has {block} values, give 1 to {block}"
            )


@dataclass(frozen=True, kw_only=True)
class MonaiConfig:
    """MONAI's AutoencoderKL without attention, for comparison; its group norms see the whole volume: no tiling.

    widths      channels by level; the stride is 2 ** (levels - 1)
    blocks      residual blocks a level
    groups      groups of the normalisation; divides every width
    kl          weight of the Kullback-Leibler term to N(0, 1)
    gradient    weight of the loss on finite differences, as for `autoencoder`
    """

    kind: Literal["monai_autoencoder"] = "monai_autoencoder"
    in_channels: int = 1
    spatial_dims: int = 3
    channels: int = 16
    widths: tuple[int, ...] = (32, 64, 128)
    blocks: int = 1
    groups: int = 16
    kl: float = 1.0e-5
    gradient: float = 0.5

    def __post_init__(self) -> None:
        _require_pixels(self)
        require_least(self, ("channels", "blocks", "groups"), place="monai_autoencoder: ")
        require_least(self, ("kl", "gradient"), 0, place="monai_autoencoder: ")
        if not self.widths or any(width < 1 or width % self.groups for width in self.widths):
            raise ConfigError(
                f"monai_autoencoder: widths are {list(self.widths)}; give multiples of groups, {self.groups}"
            )


@dataclass(frozen=True, kw_only=True)
class OneHotConfig:
    """Label maps of `labels` values (background included): one-hot channels through an inner codec.

    balance   a label's channel is scaled by its variance ** (-balance / 2); at 0 a rare label is too faint for a latent
              channel of its own, at 1 all are equal
    """

    kind: Literal["onehot"] = "onehot"
    labels: int = 2
    inner: IdentityConfig | PatchPCAConfig | AutoencoderConfig = AutoencoderConfig(in_channels=2)
    balance: float = 0.5

    def __post_init__(self) -> None:
        require_least(self, ("labels",), place="onehot: ")
        if not 0 <= self.balance <= 1:
            raise ConfigError(f"onehot: balance is {self.balance}; give 0 to 1")
        if self.inner.in_channels != self.labels:
            raise ConfigError(
                f"onehot: inner.in_channels is {self.inner.in_channels}, labels is {self.labels}; give both one value"
            )


CodecConfig = IdentityConfig | PatchPCAConfig | AutoencoderConfig | MonaiConfig | OneHotConfig
