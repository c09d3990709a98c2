"""Configurations of backbones. Free of torch, so that recipes load fast."""

from dataclasses import dataclass
from typing import Literal

from synth.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """Our U-Net: widths per level (each level halves the grid), residual blocks per level.

    attention   levels (0 = finest) that mix all positions by self-attention, and tokens by cross-attention
    head        channels of one attention head
    """

    kind: Literal["unet"] = "unet"
    widths: tuple[int, ...] = (96, 160, 224)
    blocks: tuple[int, ...] = (2, 2, 2)
    attention: tuple[int, ...] = (2,)
    head: int = 32
    time_width: int = 256

    def __post_init__(self) -> None:
        if not self.widths or len(self.widths) != len(self.blocks):
            raise ConfigError("unet: widths and blocks name each level once; give both the same length")
        if any(level >= len(self.widths) for level in self.attention):
            raise ConfigError(f"unet: attention names levels 0..{len(self.widths) - 1}; got {self.attention}")


BackboneConfig = UNetConfig
