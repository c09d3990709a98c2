"""Conditioner: conditions -> ports, with drop-out and learned nulls."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from synth.conditioning.config import GROUPS, ConditioningConfig
from synth.conditioning.encoders import (
    AttributeEncoder,
    GeometryEncoder,
    MaskEncoder,
    TextEncoder,
    position_features,
)
from synth.conditioning.pretrained import PretrainedText
from synth.ports import Ports, PortSpec, Window
from synth.sample import AttributeValue, Condition

Drop = Sequence[frozenset[str]]
"""For each sample, what to treat as absent: groups, and single attributes as `attribute:NAME`."""


class Conditioner(nn.Module):
    """Turn conditions into ports on the latent window; absent and dropped fields become the same learned null."""

    def __init__(self, config: ConditioningConfig, *, spatial_dims: int) -> None:
        super().__init__()
        self.config = config
        self.spatial_dims = spatial_dims
        if config.labels:
            self.mask = MaskEncoder(
                labels=config.labels, stride=config.stride, width=config.mask_width, spatial_dims=spatial_dims
            )
        if config.attributes:
            self.attributes = AttributeEncoder(config.attributes, config.width)
        if config.vocabulary and config.text_encoder is not None:
            self.text = PretrainedText(config)
        elif config.vocabulary:
            self.text = TextEncoder(config.vocabulary, width=config.width, length=config.text_length)
        if config.geometry:
            self.geometry = GeometryEncoder(stride=config.stride, width=config.width, spatial_dims=spatial_dims)

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups this model can be asked for, in guidance order."""
        present = (self.config.labels > 0, bool(self.config.attributes), bool(self.config.vocabulary))
        return tuple(group for group, there in zip(GROUPS, present, strict=True) if there)

    @property
    def spec(self) -> PortSpec:
        """What a backbone must be built for."""
        config = self.config
        spatial = ((config.mask_width, 1),) if config.labels else ()
        if config.position:
            spatial = (*spatial, (7 * self.spatial_dims, 1))
        vector = {"attributes": config.width} if config.attributes else {}
        if config.vocabulary:
            vector["text"] = config.width
        if config.geometry:
            vector["geometry"] = config.width
        return PortSpec(spatial=spatial, token_width=config.width if config.vocabulary else 0, vector=vector)

    def forward(self, conditions: Sequence[Condition], *, window: Window, drop: Drop | None = None) -> Ports:
        """Return the ports of one batch; masks are label maps on the window's grid x stride."""
        dropped = drop if drop is not None else [frozenset()] * len(conditions)
        pairs = list(zip(conditions, dropped, strict=True))
        spatial: tuple[tuple[Tensor, int], ...] = ()
        if self.config.labels:
            masks = [None if "mask" in gone or c.mask is None else self._labels(c) for c, gone in pairs]
            spatial = ((self.mask(masks, window.grid), 1),)
        if self.config.position:
            spatial = (*spatial, (position_features(window), 1))
        vector: dict[str, Tensor] = {}
        if self.config.attributes:
            vector["attributes"] = self.attributes([_kept(c, gone) for c, gone in pairs])
        tokens = None
        if self.config.vocabulary:
            values, mask, pooled = self.text([None if "text" in gone else c.text for c, gone in pairs])
            tokens, vector["text"] = (values, mask), pooled
        if self.config.geometry:
            vector["geometry"] = self.geometry(window)
        return Ports(spatial=spatial, tokens=tokens, vector=vector)

    def prefixes(self, condition: Condition) -> list[tuple[str, frozenset[str]]]:
        """Return (group, groups dropped) of each nested prefix of `condition`, the unconditional first."""
        asked = [group for group in self.groups if _has(condition, group)]
        everything = frozenset(self.groups)
        return [("null", everything)] + [
            (group, everything - frozenset(asked[: number + 1])) for number, group in enumerate(asked)
        ]

    def start_from(self, other: "Conditioner") -> None:
        """Take up the weights of a conditioner of the same ports that knows the first of each kind of name.

        Labels, attributes, levels and words that it does not know start as if they had not been said, so that every
        ask gives the ports that its known names gave.
        """
        for name, encoder in self.named_children():
            known = getattr(other, name)
            if isinstance(encoder, (MaskEncoder, AttributeEncoder, TextEncoder)):
                encoder.start_from(known)
            else:
                encoder.load_state_dict(known.state_dict())

    def _labels(self, condition: Condition) -> Tensor:
        assert condition.mask is not None
        return torch.from_numpy(np.ascontiguousarray(condition.mask.data[0]))


def draw_drops(
    count: int, config: ConditioningConfig, groups: Sequence[str], rng: torch.Generator
) -> list[frozenset[str]]:
    """Draw training drop-out: shorter prefixes of `groups` with probability `drop`, then independent drops.

    Of the attributes each is dropped by itself too, with probability `drop_attributes`: people ask for some of them.
    """
    out: list[frozenset[str]] = []
    for _ in range(count):
        chance = torch.rand(2 + len(groups), generator=rng, dtype=torch.float64).tolist()
        length = len(groups)
        if chance[0] < config.drop and groups:
            length = int(chance[1] * len(groups))
        gone = set(groups[length:])
        gone |= {group for group, value in zip(groups, chance[2:], strict=True) if value < config.drop_each}
        if config.drop_attributes:
            values = torch.rand(len(config.attributes), generator=rng, dtype=torch.float64).tolist()
            pairs = zip(config.attributes, values, strict=True)
            gone |= {_single(attribute.name) for attribute, value in pairs if value < config.drop_attributes}
        out.append(frozenset(gone))
    return out


def _single(attribute: str) -> str:
    return f"attribute:{attribute}"


def _kept(condition: Condition, gone: frozenset[str]) -> dict[str, AttributeValue]:
    if "class" in gone:
        return {}
    return {name: value for name, value in condition.attributes.items() if _single(name) not in gone}


def _has(condition: Condition, group: str) -> bool:
    if group == "mask":
        return condition.mask is not None
    return bool(condition.attributes) if group == "class" else condition.text is not None
