"""Backbones: networks that map (x, time, ports) to a tensor of x's shape.

Know no schedule, guidance, sampler or file. `build` makes the one a configuration asks for.
"""

from typing import TYPE_CHECKING

from synth.backbone.config import BackboneConfig, UNetConfig

if TYPE_CHECKING:
    from torch import nn

    from synth.ports import PortSpec

__all__ = ["BackboneConfig", "UNetConfig", "build"]


def build(config: BackboneConfig, *, channels: int, spatial_dims: int, ports: "PortSpec") -> "nn.Module":
    """Return the backbone of `config` for x of `channels` and the given ports."""
    from synth.backbone.unet import UNet

    return UNet(config, channels=channels, spatial_dims=spatial_dims, ports=ports)
