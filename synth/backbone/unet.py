"""Our U-Net, 2D and 3D: one residual block, optional attention, any grid."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from synth.backbone.config import UNetConfig
from synth.backbone.layers import (
    Attention,
    Residual,
    fourier,
    recomputed,
    spatial_channels,
    spatial_entry,
    vector_entry,
)
from synth.layers import ChannelNorm, conv, zeroed
from synth.ports import Ports, PortSpec


class UNet(nn.Module):
    """Predict a tensor of x's shape (batch, channel, *grid) from x, time (batch,) and ports.

    Time is what the process feeds: from 0 to 1, or a logarithm of the noise level; its embedding resolves thousandths.
    Spatial ports are brought to x's grid by space-to-depth and joined at the stem; vector slots are
    projected and added to the time embedding; tokens are attended to on the attention levels. A missing
    vector slot is an assertion: conditioning owns what "nothing" looks like.
    """

    def __init__(self, config: UNetConfig, *, channels: int, spatial_dims: int, ports: PortSpec) -> None:
        super().__init__()
        self.ports = ports
        self.frequencies = 64
        width = config.time_width
        self.time = nn.Sequential(nn.Linear(self.frequencies, width), nn.SiLU(), nn.Linear(width, width))
        self.slots = nn.ModuleDict({name: nn.Linear(size, width) for name, size in ports.vector.items()})
        self.checkpoint = config.checkpoint
        extra = spatial_channels(ports.spatial, spatial_dims)
        self.stem = conv(spatial_dims, channels + extra, config.widths[0])
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        self.shrink, self.widen = nn.ModuleList(), nn.ModuleList()
        last = len(config.widths) - 1

        def level(inputs: int, level: int) -> nn.ModuleDict:
            size, count = config.widths[level], config.blocks[level]
            blocks = [Residual(spatial_dims, inputs if i == 0 else size, size, width) for i in range(count)]
            mixer = Attention(size, config.head, ports.token_width) if level in config.attention else nn.Identity()
            return nn.ModuleDict({"blocks": nn.ModuleList(blocks), "mixer": mixer})

        for index, size in enumerate(config.widths):
            self.down.append(level(size, index))
            if index < last:
                self.shrink.append(conv(spatial_dims, size, config.widths[index + 1], stride=2))
                self.widen.append(conv(spatial_dims, config.widths[index + 1], size, kernel=1))
                self.up.append(level(2 * size, index))
        self.norm = ChannelNorm(config.widths[0])
        self.head = zeroed(conv(spatial_dims, config.widths[0], channels))

    def forward(self, x: Tensor, time: Tensor, ports: Ports) -> Tensor:
        """Return the prediction, shaped like x."""
        vector = vector_entry(self.time, self.slots, fourier(time, self.frequencies).to(x.dtype), ports)
        hidden = self.stem(spatial_entry(x, ports))
        kept: list[Tensor] = []
        for index, level in enumerate(self.down):
            hidden = self._level(level, hidden, vector, ports)
            if index < len(self.shrink):
                kept.append(hidden)
                hidden = self.shrink[index](hidden)
        for index in reversed(range(len(self.up))):
            grid = kept[index].shape[2:]
            hidden = functional.interpolate(self.widen[index](hidden), size=grid, mode="nearest")
            hidden = self._level(self.up[index], torch.cat([hidden, kept[index]], dim=1), vector, ports)
        return self.head(functional.silu(self.norm(hidden)))

    def _level(self, level: nn.Module, hidden: Tensor, vector: Tensor, ports: Ports) -> Tensor:
        assert isinstance(level, nn.ModuleDict)
        for block in level["blocks"]:  # pyright: ignore[reportGeneralTypeIssues]
            hidden = recomputed(block, hidden, vector, on=self.checkpoint)
        mixer = level["mixer"]
        return recomputed(mixer, hidden, ports.tokens, on=self.checkpoint) if isinstance(mixer, Attention) else hidden
