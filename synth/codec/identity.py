"""Identity: pixel space as latents."""

from torch import Tensor

from synth.codec.base import Codec
from synth.codec.config import IdentityConfig


class Identity(Codec):
    """Latents are whitened pixels; halo 0, so tiles decode exactly."""

    def __init__(self, config: IdentityConfig) -> None:
        super().__init__(
            in_channels=config.in_channels,
            channels=config.in_channels,
            stride=1,
            spatial_dims=config.spatial_dims,
            halo=0,
        )

    def raw_encode(self, pixels: Tensor) -> Tensor:
        """Return the pixels."""
        return pixels

    def raw_decode(self, latents: Tensor) -> Tensor:
        """Return the latents."""
        return latents
