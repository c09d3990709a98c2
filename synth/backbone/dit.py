"""Our diffusion transformer, 2D and 3D: patches as tokens, positions by rotation, any grid."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from synth.backbone.config import DiTConfig
from synth.backbone.layers import (
    crop_to,
    depth_to_space,
    fourier,
    pad_to_multiple,
    recomputed,
    space_to_depth,
    spatial_channels,
    spatial_entry,
    vector_entry,
)
from synth.errors import ConfigError
from synth.layers import zeroed
from synth.ports import Ports, PortSpec

_BASE = 100.0
"""Wavelengths reach from 2 pi to about 2 pi 100 tokens: latent grids are tens of tokens wide, not thousands."""


class DiT(nn.Module):
    """Predict a tensor of x's shape (batch, channel, *grid) from x, time (batch,) in [0, 1] and ports.

    Blocks are modulated by time and vector slots and start silent (adaLN-zero, Peebles & Xie 2023); the head starts
    at zero. Spatial ports are brought to x's grid by space-to-depth and joined before patches are cut; tokens are
    attended to in every block. A grid that the patch does not divide is padded at the far ends and cropped again.
    Attention sees how far apart two tokens are, and nothing else of where they lie: absolute places are a port's.
    Errors: ConfigError where a head has too few channels to tell the axes apart.
    """

    def __init__(self, config: DiTConfig, *, channels: int, spatial_dims: int, ports: PortSpec) -> None:
        super().__init__()
        if config.head < 2 * spatial_dims:
            raise ConfigError(f"dit: head is {config.head}; {spatial_dims}D needs at least {2 * spatial_dims}")
        self.patch, self.dims, self.head_channels = config.patch, spatial_dims, config.head
        self.checkpoint = config.checkpoint
        self.frequencies = 64
        width, vector = config.width, config.time_width
        self.time = nn.Sequential(nn.Linear(self.frequencies, vector), nn.SiLU(), nn.Linear(vector, vector))
        self.slots = nn.ModuleDict({name: nn.Linear(size, vector) for name, size in ports.vector.items()})
        voxels = config.patch**spatial_dims
        self.stem = nn.Linear((channels + spatial_channels(ports.spatial, spatial_dims)) * voxels, width)
        self.blocks = nn.ModuleList(Block(config, tokens=ports.token_width) for _ in range(config.depth))
        self.modulate = zeroed(nn.Linear(vector, 2 * width))
        self.head = zeroed(nn.Linear(width, channels * voxels))

    def forward(self, x: Tensor, time: Tensor, ports: Ports) -> Tensor:
        """Return the prediction, shaped like x."""
        vector = vector_entry(self.time, self.slots, fourier(time, self.frequencies).to(x.dtype), ports)
        cells = space_to_depth(pad_to_multiple(spatial_entry(x, ports), self.patch), self.patch)
        grid = cells.shape[2:]
        # the stream stays in x's precision: under autocast each block adds to it in full, not in half
        hidden = self.stem(cells.flatten(2).transpose(1, 2)).to(x.dtype)
        turns = rotations(grid, self.head_channels, x.device)
        for block in self.blocks:
            hidden = recomputed(block, hidden, vector, turns, ports.tokens, on=self.checkpoint)
        scale, shift = self.modulate(vector)[:, None].chunk(2, dim=-1)
        out = self.head(_modulated(hidden, scale, shift)).transpose(1, 2).unflatten(2, grid)
        return crop_to(depth_to_space(out, self.patch, self.dims), x.shape[2:])


class Block(nn.Module):
    """Self-attention, cross-attention to tokens where the port has them, and an inner layer; all start silent."""

    def __init__(self, config: DiTConfig, *, tokens: int) -> None:
        super().__init__()
        width = config.width
        self.heads = width // config.head
        self.modulate = zeroed(nn.Linear(config.time_width, 6 * width))
        self.qkv = nn.Linear(width, 3 * width)
        # queries and keys of one length keep the softmax from saturating at high learning rates (Henry et al. 2020)
        self.query_gain, self.key_gain = nn.Parameter(torch.ones(config.head)), nn.Parameter(torch.ones(config.head))
        self.out = nn.Linear(width, width)
        self.inner = nn.Linear(width, config.hidden * width)
        self.outer = nn.Linear(config.hidden * width, width)
        self.tokens = tokens
        if tokens:
            self.token_query = nn.Linear(width, width)
            self.token_key_value = nn.Linear(tokens, 2 * width)
            self.token_out = zeroed(nn.Linear(width, width))

    def forward(self, x: Tensor, vector: Tensor, turns: Tensor, tokens: tuple[Tensor, Tensor] | None) -> Tensor:
        """x (batch, n, width), vector (batch, vector), turns of `rotations` -> like x."""
        scale, shift, gate, inner_scale, inner_shift, inner_gate = self.modulate(vector)[:, None].chunk(6, dim=-1)
        query, key, value = map(self._split, self.qkv(_modulated(x, scale, shift)).chunk(3, dim=-1))
        query, key = turned(_rms(query, self.query_gain), turns), turned(_rms(key, self.key_gain), turns)
        x = x + gate * self.out(_attended(query, key, value))
        if self.tokens and tokens is not None:
            values, mask = tokens
            query = self._split(self.token_query(_normal(x)))
            key, value = map(self._split, self.token_key_value(values.to(x.dtype)).chunk(2, dim=-1))
            x = x + self.token_out(_attended(query, key, value, mask[:, None, None, :]))
        hidden = self.inner(_modulated(x, inner_scale, inner_shift))
        return x + inner_gate * self.outer(functional.gelu(hidden, approximate="tanh"))

    def _split(self, values: Tensor) -> Tensor:
        """(batch, n, width) -> (batch, heads, n, head)."""
        return values.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def rotations(grid: Sequence[int], head: int, device: torch.device) -> Tensor:
    """Return the angles by which pairs of channels turn at each token: (tokens, head / 2), float32.

    Each axis owns head / 2 / dims pairs; pair k turns by place * 100^(-k / pairs) (rotary embedding, Su et al. 2021,
    along each axis). Pairs that are left over do not turn. A function of the grid alone: no grid is too large.
    """
    pairs = head // 2 // len(grid)
    rates = _BASE ** (-torch.arange(pairs, dtype=torch.float32, device=device) / pairs)
    places = [torch.arange(n, dtype=torch.float32, device=device) for n in grid]
    angles = [(axis.flatten()[:, None] * rates) for axis in torch.meshgrid(*places, indexing="ij")]
    return functional.pad(torch.cat(angles, dim=1), (0, head // 2 - pairs * len(grid)))


def turned(values: Tensor, angles: Tensor) -> Tensor:
    """Return values (..., tokens, head) with channel k and k + head / 2 turned as one complex number by angle k."""
    real, imaginary = values.chunk(2, dim=-1)
    cos, sin = angles.cos().to(values.dtype), angles.sin().to(values.dtype)
    return torch.cat([real * cos - imaginary * sin, real * sin + imaginary * cos], dim=-1)


def _attended(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """(batch, heads, n, head) each -> (batch, n, heads * head)."""
    mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return mixed.transpose(1, 2).flatten(2)


def _rms(x: Tensor, gain: Tensor) -> Tensor:
    return functional.rms_norm(x, x.shape[-1:], gain.to(x.dtype), eps=1e-6)


def _normal(x: Tensor) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:], eps=1e-6)


def _modulated(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return _normal(x) * (1 + scale) + shift
