"""Configurations of backbones. Free of torch, so that recipes load fast; the union here is the registry."""

from dataclasses import dataclass
from typing import Literal

from synth.errors import ConfigError, require_least


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """Our U-Net: widths per level (each level halves the grid), residual blocks per level.

    attention   levels (0 = finest) that mix all positions by self-attention, and tokens by cross-attention
    head        channels of one attention head
    checkpoint  compute activations again in the backward pass: less memory, about a third more time
    """

    kind: Literal["unet"] = "unet"
    widths: tuple[int, ...] = (96, 160, 224)
    blocks: tuple[int, ...] = (2, 2, 2)
    attention: tuple[int, ...] = (2,)
    head: int = 32
    time_width: int = 256
    checkpoint: bool = False

    def __post_init__(self) -> None:
        if not self.widths or len(self.widths) != len(self.blocks):
            raise ConfigError("unet: widths and blocks name each level once; give both the same length")
        require_least(self, ("widths", "blocks", "head", "time_width"), place="unet: ")
        if any(not 0 <= level < len(self.widths) for level in self.attention):
            raise ConfigError(f"unet: attention names levels 0..{len(self.widths) - 1}; got {list(self.attention)}")
        for level in self.attention:
            width = self.widths[level]
            if width % max(width // self.head, 1):
                raise ConfigError(
                    f"unet: level {level} has attention and width {width}; give a multiple of head, {self.head}"
                )


@dataclass(frozen=True, kw_only=True)
class DiTConfig:
    """Our diffusion transformer (Peebles & Xie 2023), for any grid: positions enter by rotation, not by a table.

    width, depth   channels of a token, and how many blocks
    head           channels of one attention head; even, at least two for each axis of the grid
    patch          voxels of a token along each axis; a grid it does not divide is padded, and cropped again
    hidden         channels of the block's inner layer, as a multiple of width
    checkpoint     compute activations again in the backward pass: less memory, about a third more time
    """

    kind: Literal["dit"] = "dit"
    width: int = 384
    depth: int = 12
    head: int = 48
    patch: int = 2
    hidden: int = 4
    time_width: int = 256
    checkpoint: bool = False

    def __post_init__(self) -> None:
        require_least(self, _DIT_SIZES, place="dit: ")
        if self.width % self.head or self.head % 2:
            raise ConfigError(f"dit: head is {self.head}, width {self.width}; give an even head that divides width")


_DIT_SIZES = ("width", "depth", "head", "patch", "hidden", "time_width")


@dataclass(frozen=True, kw_only=True)
class MonaiUNetConfig:
    """MONAI's DiffusionModelUNet, for comparison; its group norms see the whole grid, so a crop is not the whole.

    widths      channels by level; each level halves the grid
    blocks      residual blocks by level
    attention   levels (0 = finest) with attention; the bottom has it in any case
    head        channels of one attention head; divides the widths that have attention, and the last
    groups      groups of the normalisation; divides every width
    context     channels of the tokens that vector slots and text become
    """

    kind: Literal["monai_unet"] = "monai_unet"
    widths: tuple[int, ...] = (64, 128, 192)
    blocks: tuple[int, ...] = (2, 2, 2)
    attention: tuple[int, ...] = (2,)
    head: int = 32
    groups: int = 32
    context: int = 128

    def __post_init__(self) -> None:
        require_least(self, ("head", "groups", "context"), place="monai_unet: ")
        last = len(self.widths) - 1
        if not self.widths or len(self.widths) != len(self.blocks):
            raise ConfigError("monai_unet: widths and blocks name each level once; give both the same length")
        require_least(self, ("blocks",), place="monai_unet: ")
        if any(width < 1 or width % self.groups for width in self.widths):
            raise ConfigError(f"monai_unet: widths are {list(self.widths)}; give multiples of groups, {self.groups}")
        if any(not 0 <= level <= last for level in self.attention):
            raise ConfigError(f"monai_unet: attention names levels 0..{last}; got {list(self.attention)}")
        for level in sorted({*self.attention, last}):
            if self.widths[level] % self.head:
                raise ConfigError(
                    f"monai_unet: level {level} has attention and width {self.widths[level]}; "
                    f"give a multiple of head, {self.head}"
                )


BackboneConfig = UNetConfig | DiTConfig | MonaiUNetConfig
