"""One encoder for each kind of condition; each owns its learned null.

Where an encoder knows more names than one it starts from, the old ones come first in both and mean what they meant,
and each new name starts as if it had not been said.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from synth.conditioning.config import text_heads, words
from synth.data.schema import Attribute
from synth.errors import ConditionError, nearest
from synth.ports import Window
from synth.sample import AttributeValue


class MaskEncoder(nn.Module):
    """Label maps at full resolution -> (batch, width, *latent grid): one-hot, stride^dims to channels, linear."""

    def __init__(self, *, labels: int, stride: int, width: int, spatial_dims: int) -> None:
        super().__init__()
        self.labels, self.stride, self.dims = labels, stride, spatial_dims
        self.project = nn.Linear(labels * stride**spatial_dims, width)
        self.null = nn.Parameter(torch.randn(width) * 0.02)

    def forward(self, masks: Sequence[Tensor | None], grid: tuple[int, ...]) -> Tensor:
        """masks: label maps (*grid * stride) or None; grid: the latent grid."""
        full = tuple(n * self.stride for n in grid)
        null = self.null.reshape(-1, *([1] * self.dims)).expand(-1, *grid)
        out = [null if mask is None else self._embed(mask, full) for mask in masks]
        return torch.stack(out)

    def _embed(self, mask: Tensor, full: tuple[int, ...]) -> Tensor:
        assert tuple(mask.shape) == full, f"mask {tuple(mask.shape)} is not {full}"
        split = [part for n in full for part in (n // self.stride, self.stride)]
        coarse, fine = range(0, 2 * self.dims, 2), range(1, 2 * self.dims, 2)
        cells = mask.to(self.null.device).long().reshape(split).permute(*coarse, *fine).flatten(self.dims)
        hot = functional.one_hot(cells, self.labels).to(self.null.dtype).flatten(self.dims)
        embedded = functional.silu(self.project(hot))
        return embedded.permute(self.dims, *range(self.dims))

    @torch.no_grad()
    def start_from(self, other: "MaskEncoder") -> None:
        """Take up an encoder of the first labels; further ones read as background."""
        old = other.project.weight.unflatten(1, (-1, other.labels))
        background = old[..., :1].expand(-1, -1, self.labels - other.labels)
        self.project.weight.copy_(torch.cat([old, background], dim=2).flatten(1))
        self.project.bias.copy_(other.project.bias)
        self.null.copy_(other.null)


class AttributeEncoder(nn.Module):
    """Named attributes -> (batch, width): levels by a table, numbers by an MLP, each with a learned null; summed."""

    def __init__(self, attributes: tuple[Attribute, ...], width: int) -> None:
        super().__init__()
        self.attributes = attributes
        self.tables = nn.ModuleDict()
        self.numbers = nn.ModuleDict()
        self.nulls = nn.ParameterDict()
        for index, attribute in enumerate(attributes):
            key = f"a{index}"
            self.nulls[key] = nn.Parameter(torch.randn(width) * 0.02)
            if attribute.kind == "categorical":
                self.tables[key] = nn.Embedding(len(attribute.levels), width)
            else:
                self.numbers[key] = nn.Sequential(nn.Linear(9, width), nn.SiLU(), nn.Linear(width, width))
        self.width = width

    def forward(self, values: Sequence[dict[str, AttributeValue]]) -> Tensor:
        """values: one mapping a sample; what is missing becomes that attribute's null."""
        rows: list[Tensor] = []
        for given in values:
            total = torch.zeros(self.width, device=next(iter(self.nulls.values())).device)
            for index, attribute in enumerate(self.attributes):
                total = total + self._one(f"a{index}", attribute, given.get(attribute.name))
            rows.append(total)
        return torch.stack(rows)

    def _one(self, key: str, attribute: Attribute, value: AttributeValue | None) -> Tensor:
        if value is None:
            return self.nulls[key]
        if attribute.kind == "categorical":
            if value not in attribute.levels:
                hint = nearest(str(value), attribute.levels)
                raise ConditionError(f"attribute {attribute.name}={value!r} is unknown to the model; {hint}")
            return self.tables[key].weight[attribute.levels.index(str(value))]  # pyright: ignore[reportIndexIssue]
        span = max(attribute.high - attribute.low, 1e-9)
        unit = 2.0 * (float(value) - attribute.low) / span - 1.0
        waves = [f(math.pi * 2.0**k * unit / 2.0) for k in range(4) for f in (math.sin, math.cos)]
        features = torch.tensor([unit, *waves], dtype=torch.float32, device=self.nulls[key].device)
        return self.numbers[key](features)

    @torch.no_grad()
    def start_from(self, other: "AttributeEncoder") -> None:
        """Take up an encoder of the first attributes and levels; further levels read as null, attributes as 0."""
        own, known = self.state_dict(), other.state_dict()
        for name, tensor in own.items():
            kind, key = name.split(".")[:2]
            if name not in known:
                # an attribute's vectors are added up, so those of a new one must be nothing at first
                if kind != "numbers" or name.startswith(f"numbers.{key}.2."):
                    tensor.zero_()
                continue
            old = known[name]
            if kind == "tables":
                old = torch.cat([old, known[f"nulls.{key}"].expand(len(tensor) - len(old), -1)])
            tensor.copy_(old)


class TextEncoder(nn.Module):
    """Sentences -> tokens (batch, length, width) with their mask, and a pooled (batch, width).

    A word table with places and one self-attention layer, trained with the model. Words outside the
    vocabulary share one "unknown" entry; no text at all is one learned null token.
    """

    def __init__(self, vocabulary: tuple[str, ...], *, width: int, length: int) -> None:
        super().__init__()
        self.index = {word: position + 1 for position, word in enumerate(vocabulary)}
        self.length = length
        self.table = nn.Embedding(len(vocabulary) + 1, width)
        self.place = nn.Parameter(torch.randn(length, width) * 0.02)
        self.null = nn.Parameter(torch.randn(width) * 0.02)
        self.layer = nn.TransformerEncoderLayer(
            width, text_heads(width), 2 * width, dropout=0.0, batch_first=True, norm_first=True, activation="gelu"
        )

    def understood(self, text: str) -> dict[str, bool]:
        """Return each word of `text` and whether the model knows it."""
        return {word: word in self.index for word in words(text)}

    def forward(self, texts: Sequence[str | None]) -> tuple[Tensor, Tensor, Tensor]:
        """Return tokens, their mask (True where one counts) and the pooled vector."""
        ids = [[self.index.get(word, 0) for word in words(text or "")][: self.length] for text in texts]
        device = self.null.device
        padded, mask = pad_tokens(
            [
                self.table(torch.tensor(row, device=device)) + self.place[: len(row)] if row else self.null[None]
                for row in ids
            ]
        )
        tokens = self.layer(padded, src_key_padding_mask=~mask)
        weight = mask[..., None].to(tokens.dtype)
        return tokens, mask, (tokens * weight).sum(dim=1) / weight.sum(dim=1)

    @torch.no_grad()
    def start_from(self, other: "TextEncoder") -> None:
        """Take up an encoder of the first words; further ones read as unknown."""
        known = other.state_dict()
        unknown = known["table.weight"][:1].expand(len(self.table.weight) - len(other.table.weight), -1)
        known["table.weight"] = torch.cat([known["table.weight"], unknown])
        self.load_state_dict(known)


def pad_tokens(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return token rows (n_i, width) as one (batch, max n_i, width) filled with zeros, and the mask of what counts."""
    longest = max(len(row) for row in rows)
    counts = torch.tensor([len(row) for row in rows], device=rows[0].device)
    mask = torch.arange(longest, device=counts.device)[None] < counts[:, None]
    return torch.stack([functional.pad(row, (0, 0, 0, longest - len(row))) for row in rows]), mask


class GeometryEncoder(nn.Module):
    """Spacing, extent and centre of a window in mm -> (batch, width): an MLP over waves of each.

    It has no null: a window always lies somewhere and has a size.
    """

    def __init__(self, *, stride: int, width: int, spatial_dims: int) -> None:
        super().__init__()
        self.stride = stride
        self.mlp = nn.Sequential(nn.Linear(21 * spatial_dims, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, window: Window) -> Tensor:
        """Return one vector a window; its spacing_mm must be there."""
        return self.mlp(geometry_features(window, self.stride))


def geometry_features(window: Window, stride: int) -> Tensor:
    """Return (batch, 21 dims): for each axis log2 of the spacing in mm, log2 of the window's extent in 100 mm and its
    centre in 100 mm from the full volume's, each as itself with sin and cos of 1, 2 and 4 times it.
    """
    spacing = window.spacing_mm
    assert spacing is not None, "this model is told the spacing; give the window its spacing_mm"
    size = torch.tensor(window.grid, dtype=torch.float32, device=spacing.device)
    cell = spacing * stride
    centre = (window.origin + size / 2 - window.full / 2) * cell / 100.0
    values = torch.cat([spacing.log2(), (size * cell / 100.0).log2(), centre], dim=1)
    return torch.cat([values, *(f(k * values) for k in (1, 2, 4) for f in (torch.sin, torch.cos))], dim=1)


def position_features(window: Window) -> Tensor:
    """Return where each latent voxel lies in its full volume: (batch, 7 dims, *grid).

    u in [-1, 1] along each axis, with sin and cos of pi u, 2 pi u and 4 pi u.
    """
    axes: list[Tensor] = []
    dims = len(window.grid)
    for axis, size in enumerate(window.grid):
        places = torch.arange(size, dtype=torch.float32, device=window.origin.device) + 0.5
        unit = 2.0 * (places[None] + window.origin[:, axis : axis + 1]) / window.full[:, axis : axis + 1] - 1.0
        waves = [unit] + [f(math.pi * k * unit) for k in (1, 2, 4) for f in (torch.sin, torch.cos)]
        shape = [1] * dims
        shape[axis] = size
        features = torch.stack(waves, dim=1).reshape(len(unit), 7, *shape)
        axes.append(features.expand(len(unit), 7, *window.grid))
    return torch.cat(axes, dim=1)
