"""Backbones: networks that map (x, time, ports) to a tensor of x's shape.

Know no schedule, guidance, sampler or file. `build` makes the one a configuration asks for.
"""

from typing import TYPE_CHECKING

from synth.backbone.config import BackboneConfig, DiTConfig, MonaiUNetConfig, UNetConfig

if TYPE_CHECKING:
    from torch import nn

    from synth.ports import PortSpec

__all__ = ["BackboneConfig", "DiTConfig", "MonaiUNetConfig", "UNetConfig", "build"]


def build(config: BackboneConfig, *, channels: int, spatial_dims: int, ports: "PortSpec") -> "nn.Module":
    """Return the untrained backbone of `config` for x of `channels` and the given ports."""
    from synth.backbone.dit import DiT
    from synth.backbone.monai import MonaiUNet
    from synth.backbone.unet import UNet

    match config:
        case UNetConfig():
            return UNet(config, channels=channels, spatial_dims=spatial_dims, ports=ports)
        case DiTConfig():
            return DiT(config, channels=channels, spatial_dims=spatial_dims, ports=ports)
        case MonaiUNetConfig():
            return MonaiUNet(config, channels=channels, spatial_dims=spatial_dims, ports=ports)
