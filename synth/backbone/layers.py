"""Layers shared by backbones: 2D and 3D by one argument, no normalisation over space.

RMS norm works over the channels of one voxel, so that a crop sees what the whole would.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from synth.layers import ChannelNorm, conv, zeroed
from synth.ports import Ports


def fourier(t: Tensor, width: int) -> Tensor:
    """Return sines and cosines of 1000 t at `width` / 2 geometric frequencies (Vaswani et al. 2017): (batch, width)."""
    half = width // 2
    rates = torch.exp(-math.log(10_000.0) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angles = 1000.0 * t.float()[:, None] * rates[None]
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def vector_entry(embed: nn.Module, slots: nn.ModuleDict, waves: Tensor, ports: Ports) -> Tensor:
    """Return SiLU of the embedded time (its waves) plus each projected vector slot: (batch, outputs of `embed`).

    A missing slot is an assertion: conditioning owns what "nothing" looks like.
    """
    vector = embed(waves)
    for name, project in slots.items():
        assert name in ports.vector, f"vector slot {name} is not filled"
        vector = vector + project(ports.vector[name].to(waves.dtype))
    return functional.silu(vector)


def spatial_entry(x: Tensor, ports: Ports) -> Tensor:
    """Return x with every spatial port beside it in channels, each brought to x's grid by space-to-depth."""
    return torch.cat([x, *(space_to_depth(tensor, stride).to(x.dtype) for tensor, stride in ports.spatial)], dim=1)


def spatial_channels(spatial: Sequence[tuple[int, int]], spatial_dims: int) -> int:
    """Return how many channels `spatial_entry` adds, for ports of (channels, stride) each."""
    return sum(count * stride**spatial_dims for count, stride in spatial)


def recomputed(module: nn.Module, *inputs: Any, on: bool) -> Any:
    """Return module(*inputs); where `on`, its activations are computed again in the backward pass, not kept."""
    if not (on and torch.is_grad_enabled()):
        return module(*inputs)
    return checkpoint(module, *inputs, use_reentrant=False, preserve_rng_state=False)  # nothing here is random


class Residual(nn.Module):
    """norm - SiLU - conv - modulated norm - SiLU - conv, added to the input; the vector sets scale and shift."""

    def __init__(self, spatial_dims: int, inputs: int, outputs: int, vector: int) -> None:
        super().__init__()
        self.first_norm = ChannelNorm(inputs)
        self.first = conv(spatial_dims, inputs, outputs)
        self.modulate = zeroed(nn.Linear(vector, 2 * outputs))
        self.second_norm = ChannelNorm(outputs)
        self.second = zeroed(conv(spatial_dims, outputs, outputs))
        self.skip = nn.Identity() if inputs == outputs else conv(spatial_dims, inputs, outputs, kernel=1)

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        """x (batch, inputs, *grid), vector (batch, vector) -> (batch, outputs, *grid)."""
        hidden = self.first(functional.silu(self.first_norm(x)))
        scale, shift = self.modulate(vector).reshape(len(x), -1, *([1] * (x.ndim - 2))).chunk(2, dim=1)
        hidden = self.second_norm(hidden) * (1 + scale) + shift
        return self.skip(x) + self.second(functional.silu(hidden))


class Attention(nn.Module):
    """Self-attention over all positions, and cross-attention to tokens where there are any; both start silent."""

    def __init__(self, channels: int, head: int, tokens: int) -> None:
        super().__init__()
        self.heads = max(channels // head, 1)
        self.norm = ChannelNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = zeroed(nn.Linear(channels, channels))
        self.tokens = tokens
        if tokens:
            self.token_norm = ChannelNorm(channels)
            self.query = nn.Linear(channels, channels)
            self.key_value = nn.Linear(tokens, 2 * channels)
            self.token_out = zeroed(nn.Linear(channels, channels))

    def forward(self, x: Tensor, tokens: tuple[Tensor, Tensor] | None) -> Tensor:
        """x (batch, channels, *grid); tokens ((batch, n, width), mask (batch, n)) -> like x."""
        flat = self.norm(x).flatten(2).transpose(1, 2)
        query, key, value = self.qkv(flat).chunk(3, dim=-1)
        x = x + self._back(self.out(self._attend(query, key, value, None)), x)
        if self.tokens and tokens is not None:
            values, mask = tokens
            flat = self.token_norm(x).flatten(2).transpose(1, 2)
            key, value = self.key_value(values.to(flat.dtype)).chunk(2, dim=-1)
            x = x + self._back(self.token_out(self._attend(self.query(flat), key, value, mask)), x)
        return x

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        def split(values: Tensor) -> Tensor:
            return values.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        keep = None if mask is None else mask[:, None, None, :]
        mixed = functional.scaled_dot_product_attention(split(query), split(key), split(value), attn_mask=keep)
        return mixed.transpose(1, 2).flatten(2)

    @staticmethod
    def _back(flat: Tensor, like: Tensor) -> Tensor:
        return flat.transpose(1, 2).reshape(like.shape)


def space_to_depth(x: Tensor, stride: int) -> Tensor:
    """(batch, channel, *grid) -> (batch, channel stride^dims, *grid / stride)."""
    if stride == 1:
        return x
    dims = x.ndim - 2
    split = [part for n in x.shape[2:] for part in (n // stride, stride)]
    x = x.reshape(*x.shape[:2], *split)
    fine = [3 + 2 * d for d in range(dims)]
    coarse = [2 + 2 * d for d in range(dims)]
    return x.permute(0, 1, *fine, *coarse).flatten(1, 1 + dims)


def depth_to_space(x: Tensor, stride: int, spatial_dims: int) -> Tensor:
    """(batch, channel stride^dims, *grid) -> (batch, channel, *grid x stride): the inverse of space_to_depth."""
    grid = x.shape[2:]
    x = x.reshape(len(x), -1, *([stride] * spatial_dims), *grid)
    order = [axis for d in range(spatial_dims) for axis in (2 + spatial_dims + d, 2 + d)]
    return x.permute(0, 1, *order).reshape(len(x), -1, *(n * stride for n in grid))


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Return x with zeros at the far end of each axis of its grid, which `multiple` then divides.

    Zeros and no repeated edge: the gradient of that is not deterministic on a GPU.
    """
    amounts = [amount for n in reversed(x.shape[2:]) for amount in (0, -n % multiple)]
    return functional.pad(x, amounts) if any(amounts) else x


def crop_to(x: Tensor, grid: Sequence[int]) -> Tensor:
    """Return x without what lies beyond `grid` at the far ends."""
    return x[(..., *(slice(n) for n in grid))]
