"""MONAI's DiffusionModelUNet as a backbone, for comparison. It is imported only when one is built."""

import torch
from torch import Tensor, nn

from synth.backbone.config import MonaiUNetConfig
from synth.backbone.layers import crop_to, pad_to_multiple, spatial_channels, spatial_entry
from synth.errors import ConfigError
from synth.ports import Ports, PortSpec


class MonaiUNet(nn.Module):
    """Predict a tensor of x's shape (batch, channel, *grid) from x, time (batch,) in [0, 1] and ports.

    Spatial ports join x in channels; vector slots become one context token each, beside those of the token port, and
    enter by cross-attention. Time 1 is MONAI's timestep 1000. Grids are padded to a multiple of its stride, since it
    refuses odd ones. Its attention knows no mask: samples with different numbers of tokens go through it apart, so
    that filling never counts.
    Errors: ConfigError where MONAI is not installed.
    """

    def __init__(self, config: MonaiUNetConfig, *, channels: int, spatial_dims: int, ports: PortSpec) -> None:
        super().__init__()
        self.multiple = 2 ** (len(config.widths) - 1)
        self.slots = nn.ModuleDict({name: nn.Linear(size, config.context) for name, size in ports.vector.items()})
        self.token_in = nn.Linear(ports.token_width, config.context) if ports.token_width else None
        self.network = _network(
            config,
            inputs=channels + spatial_channels(ports.spatial, spatial_dims),
            outputs=channels,
            spatial_dims=spatial_dims,
            conditioned=bool(ports.vector or ports.token_width),
        )

    def forward(self, x: Tensor, time: Tensor, ports: Ports) -> Tensor:
        """Return the prediction, shaped like x."""
        inputs, steps = pad_to_multiple(spatial_entry(x, ports), self.multiple), 1000.0 * time.float()
        slots = [project(ports.vector[name].to(x.dtype))[:, None] for name, project in self.slots.items()]
        if self.token_in is None or ports.tokens is None:
            context = torch.cat(slots, dim=1) if slots else None
            return crop_to(self.network(inputs, steps, context), x.shape[2:])
        values, mask = ports.tokens
        context = torch.cat([*slots, self.token_in(values.to(x.dtype))], dim=1)
        counts = torch.cat([mask.new_ones(len(mask), len(slots)), mask], dim=1)
        out = x.new_empty(x.shape)
        kinds, kind_of = torch.unique(counts, dim=0, return_inverse=True)
        for number, kind in enumerate(kinds):
            rows = (kind_of == number).nonzero()[:, 0]
            made = self.network(inputs[rows], steps[rows], context[rows][:, kind])
            out = out.index_copy(0, rows, crop_to(made, x.shape[2:]).to(out.dtype))
        return out


def _network(config: MonaiUNetConfig, *, inputs: int, outputs: int, spatial_dims: int, conditioned: bool) -> nn.Module:
    levels = range(len(config.widths))
    try:  # MONAI takes einops for its attention as late as when a network is made
        from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet

        return DiffusionModelUNet(
            spatial_dims=spatial_dims,
            in_channels=inputs,
            out_channels=outputs,
            num_res_blocks=config.blocks,
            channels=config.widths,
            attention_levels=tuple(level in config.attention for level in levels),
            norm_num_groups=config.groups,
            num_head_channels=config.head,
            with_conditioning=conditioned,
            cross_attention_dim=config.context if conditioned else None,
            use_flash_attention=True,
        )
    except ImportError as error:
        raise ConfigError(
            "backbone monai_unet needs MONAI and einops; install them with pip install 'synthvol[monai]'"
        ) from error
