"""Laws of conditioning: what is dropped is what was never asked; guidance at 1 and 0 is a plain model."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from synth.backbone.config import UNetConfig
from synth.codec.config import IdentityConfig
from synth.conditioning.conditioner import draw_drops
from synth.conditioning.config import ConditioningConfig
from synth.data.schema import Attribute
from synth.denoiser import Bound, Guided
from synth.model import FlowModel, build_part
from synth.ports import Ports, Window
from synth.process import RectifiedFlow
from synth.recipe import Part
from synth.rng import torch_rng
from synth.sample import Condition
from synth.volume import Volume

GRIDS = [(4, 6), (4, 6, 4)]
CONFIG = ConditioningConfig(
    labels=3,
    stride=2,
    attributes=(
        Attribute(name="contrast", kind="categorical", levels=("T1", "T2")),
        Attribute(name="age", kind="numeric", low=0.0, high=90.0),
    ),
    vocabulary=("large", "lesion"),
    mask_width=6,
    width=8,
)


def _model(grid: tuple[int, ...]) -> FlowModel:
    """A flow whose every parameter is alive: fresh ones start with silent branches."""
    torch.manual_seed(0)
    part = Part(
        codec=IdentityConfig(spatial_dims=len(grid)),
        process=RectifiedFlow(),
        backbone=UNetConfig(widths=(8, 8), blocks=(1, 1), attention=(1,), head=8, time_width=16),
        conditioning=CONFIG,
    )
    flow = build_part(part).flow.eval()
    for parameter in flow.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return flow


def _condition(grid: tuple[int, ...]) -> Condition:
    labels = np.random.default_rng(0).integers(0, 3, size=(1, *(2 * n for n in grid))).astype(np.uint8)
    return Condition(mask=Volume(labels), text="one large lesion", attributes={"contrast": "T2", "age": 41.0})


def _tensors(ports: Ports) -> list[torch.Tensor]:
    assert ports.tokens is not None
    return [*(tensor for tensor, _ in ports.spatial), *ports.tokens, *ports.vector.values()]


def _equal(one: Ports, two: Ports) -> bool:
    pairs = list(zip(_tensors(one), _tensors(two), strict=True))
    return all(a.shape == b.shape and torch.equal(a, b) for a, b in pairs)


ABSENT = {"mask": {"mask": None}, "class": {"attributes": {}}, "text": {"text": None}}


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("group", ABSENT)
def test_a_dropped_condition_is_one_never_asked(grid: tuple[int, ...], group: str) -> None:
    conditioner, asked = _model(grid).conditioner, _condition(grid)
    window = Window.whole(grid)
    dropped = conditioner([asked], window=window, drop=[frozenset({group})])
    absent = conditioner([replace(asked, **ABSENT[group])], window=window)
    assert _equal(dropped, absent)
    assert not _equal(dropped, conditioner([asked], window=window))


def test_the_nulls_are_learned() -> None:
    flow = _model((4, 6))
    ports = flow.conditioner([Condition()], window=Window.whole((4, 6)))
    torch.stack([tensor.float().sum() for tensor in _tensors(ports)]).sum().backward()
    nulls = {name: p for name, p in flow.conditioner.named_parameters() if "null" in name}
    assert len(nulls) == 4  # mask, text and one for each attribute
    assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in nulls.values())


def _guided(flow: FlowModel, condition: Condition, grid: tuple[int, ...], scales: Sequence[float]) -> Guided:
    window = Window.whole(grid)
    prefixes = flow.conditioner.prefixes(condition)
    bound = [Bound(flow.denoiser, flow.conditioner([condition], window=window, drop=[drop])) for _, drop in prefixes]
    return Guided(bound, scales)


@pytest.mark.parametrize("grid", GRIDS)
@torch.no_grad()
def test_guidance_at_one_is_the_plain_model_and_at_zero_the_unconditional(grid: tuple[int, ...]) -> None:
    flow, asked = _model(grid), _condition(grid)
    x, t = torch.randn(1, 1, *grid, generator=torch_rng(0)), torch.tensor(0.4, dtype=torch.float64)
    plain = flow.denoiser(x, t.reshape(1), flow.conditioner([asked], window=Window.whole(grid)))
    nothing = flow.denoiser(x, t.reshape(1), flow.conditioner([Condition()], window=Window.whole(grid)))
    assert torch.equal(_guided(flow, asked, grid, [1.0, 1.0, 1.0])(x, t, to=t).raw, plain.raw)
    assert torch.equal(_guided(flow, asked, grid, [0.0, 0.0, 0.0])(x, t, to=t).raw, nothing.raw)
    assert not torch.allclose(plain.raw, nothing.raw)


def test_drop_out_trains_the_prefixes_that_guidance_asks_for() -> None:
    groups = ("mask", "class", "text")
    config = replace(CONFIG, drop=0.3, drop_each=0.0)
    drawn = draw_drops(4000, config, groups, torch_rng(1))
    counts = {length: drawn.count(frozenset(groups[length:])) / len(drawn) for length in range(4)}
    assert sum(counts.values()) == 1.0
    assert abs(counts[3] - 0.7) < 0.03
    assert all(abs(counts[length] - 0.1) < 0.02 for length in range(3))


def test_any_subset_of_the_attributes_is_trained_when_they_are_dropped_one_by_one() -> None:
    config = replace(CONFIG, drop=0.0, drop_each=0.0, drop_attributes=0.25)
    names = [attribute.name for attribute in config.attributes]
    drawn = draw_drops(4000, config, ("mask", "class", "text"), torch_rng(2))
    for name in names:
        assert abs(sum(f"attribute:{name}" in gone for gone in drawn) / len(drawn) - 0.25) < 0.03
    assert len(set(drawn)) == 2 ** len(names)
    assert draw_drops(5, replace(config, drop_attributes=0.0), (), torch_rng(2)) == [frozenset()] * 5


@torch.no_grad()
def test_a_dropped_attribute_is_the_same_as_one_never_given() -> None:
    grid = GRIDS[0]
    flow, asked = _model(grid), _condition(grid)
    name = CONFIG.attributes[0].name
    without = replace(asked, attributes={key: value for key, value in asked.attributes.items() if key != name})
    window = Window.whole(grid)
    dropped = flow.conditioner([asked], window=window, drop=[frozenset({f"attribute:{name}"})]).vector["attributes"]
    assert torch.equal(dropped, flow.conditioner([without], window=window).vector["attributes"])
    assert not torch.equal(dropped, flow.conditioner([asked], window=window).vector["attributes"])
