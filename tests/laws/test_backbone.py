"""Laws of every backbone, 2D and 3D: any grid, every port counts, samples do not know one another."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from synth import backbone
from synth.backbone import BackboneConfig, DiTConfig, MonaiUNetConfig, UNetConfig
from synth.backbone.dit import rotations, turned
from synth.backbone.layers import depth_to_space, space_to_depth
from synth.codec.config import IdentityConfig
from synth.conditioning.config import ConditioningConfig
from synth.data.schema import Attribute
from synth.errors import ConfigError
from synth.layers import conv
from synth.model import build_part
from synth.ports import Ports, PortSpec, Window
from synth.process import RectifiedFlow
from synth.recipe import Part
from synth.rng import torch_rng
from synth.sample import Condition
from synth.volume import Volume

CONFIGS: dict[str, BackboneConfig] = {
    "unet": UNetConfig(widths=(8, 12), blocks=(1, 1), attention=(1,), head=4, time_width=16),
    "dit": DiTConfig(width=24, depth=2, head=12, hidden=2, time_width=16),
    "monai_unet": MonaiUNetConfig(widths=(8, 12), blocks=(1, 1), attention=(1,), head=4, groups=4, context=8),
}
SPEC = PortSpec(spatial=((3, 1), (2, 2)), token_width=6, vector={"attributes": 5, "text": 6})
CHANNELS = 3
GRIDS = [(5, 7), (3, 5, 6)]


@pytest.fixture(params=CONFIGS)
def config(request: pytest.FixtureRequest) -> BackboneConfig:
    if request.param == "monai_unet":
        pytest.importorskip("monai")
        pytest.importorskip("einops")
    return CONFIGS[request.param]


def _network(config: BackboneConfig, dims: int, *, alive: bool = True, spec: PortSpec = SPEC) -> nn.Module:
    """A backbone; `alive` gives every parameter a value, since fresh ones start with silent branches."""
    torch.manual_seed(0)
    network = backbone.build(config, channels=CHANNELS, spatial_dims=dims, ports=spec)
    for parameter in network.parameters() if alive else ():
        nn.init.normal_(parameter, std=0.3)
    return network


def _inputs(grid: tuple[int, ...], batch: int = 3) -> tuple[Tensor, Tensor, Ports]:
    rng = torch_rng("backbone", *grid)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng)

    ports = Ports(
        spatial=((draw(batch, 3, *grid), 1), (draw(batch, 2, *(2 * n for n in grid)), 2)),
        tokens=(draw(batch, 4, 6), torch.arange(4)[None] < torch.tensor([4, 1, 2])[:batch, None]),
        vector={"attributes": draw(batch, 5), "text": draw(batch, 6)},
    )
    return draw(batch, CHANNELS, *grid), torch.linspace(0.1, 0.9, batch), ports


def _changed(ports: Ports) -> Iterator[tuple[str, Ports]]:
    """Yield ports that differ in one entry of the first sample each."""
    for index, (tensor, stride) in enumerate(ports.spatial):
        other = tensor.clone()
        other[0] += 1.0
        spatial = (*ports.spatial[:index], (other, stride), *ports.spatial[index + 1 :])
        yield f"spatial {index}", replace(ports, spatial=spatial)
    assert ports.tokens is not None
    values = ports.tokens[0].clone()
    values[0, 3] += 1.0
    yield "tokens", replace(ports, tokens=(values, ports.tokens[1]))
    for name in ports.vector:
        vector = {key: value.clone() for key, value in ports.vector.items()}
        vector[name][0] += 1.0
        yield name, replace(ports, vector=vector)


@pytest.mark.parametrize("grid", [(5, 7), (1, 3), (3, 5, 6), (2, 1, 4)])
def test_any_grid_keeps_its_shape_and_a_fresh_network_says_zero(config: BackboneConfig, grid: tuple[int, ...]) -> None:
    network = _network(config, len(grid), alive=False)
    x, time, ports = _inputs(grid)
    out = network(x, time, ports)
    assert out.shape == x.shape and not bool(out.detach().any())
    (out - 1.0).square().mean().backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert gradients and all(bool(torch.isfinite(g).all()) for g in gradients)
    assert any(bool(g.any()) for g in gradients)


@pytest.mark.parametrize("grid", GRIDS)
@torch.no_grad()
def test_every_port_counts_and_no_sample_sees_another(config: BackboneConfig, grid: tuple[int, ...]) -> None:
    network = _network(config, len(grid))
    x, time, ports = _inputs(grid)
    out = network(x, time, ports)
    for name, other in _changed(ports):
        told = network(x, time, other)
        assert not torch.allclose(told[0], out[0], atol=1e-4), name
        assert torch.allclose(told[1:], out[1:], atol=1e-4), name
    late = network(x, time + torch.tensor([0.05, 0.0, 0.0]), ports)
    assert not torch.allclose(late[0], out[0], atol=1e-4) and torch.allclose(late[1:], out[1:], atol=1e-4)


@pytest.mark.parametrize("grid", GRIDS)
@torch.no_grad()
def test_permuting_the_batch_permutes_the_output(config: BackboneConfig, grid: tuple[int, ...]) -> None:
    network = _network(config, len(grid))
    x, time, ports = _inputs(grid)
    order = torch.tensor([2, 0, 1])
    assert ports.tokens is not None
    turned_ports = Ports(
        spatial=tuple((tensor[order], stride) for tensor, stride in ports.spatial),
        tokens=(ports.tokens[0][order], ports.tokens[1][order]),
        vector={name: value[order] for name, value in ports.vector.items()},
    )
    out = network(x, time, ports)
    assert torch.allclose(network(x[order], time[order], turned_ports), out[order], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("grid", GRIDS)
@torch.no_grad()
def test_tokens_that_only_fill_do_not_count(config: BackboneConfig, grid: tuple[int, ...]) -> None:
    network = _network(config, len(grid))
    x, time, ports = _inputs(grid)
    assert ports.tokens is not None
    values, mask = ports.tokens
    longer = torch.cat([torch.where(mask[..., None], values, 9.0), torch.full((3, 2, 6), 9.0)], dim=1)
    padded = replace(ports, tokens=(longer, torch.cat([mask, mask.new_zeros(3, 2)], dim=1)))
    assert torch.allclose(network(x, time, padded), network(x, time, ports), rtol=1e-4, atol=1e-4)


def test_networks_without_ports_run(config: BackboneConfig) -> None:
    x, time, _ = _inputs((4, 6))
    assert _network(config, 2, spec=PortSpec())(x, time, Ports()).shape == x.shape


LABELLED = ConditioningConfig(
    labels=3,
    attributes=(Attribute(name="contrast", kind="categorical", levels=("T1", "T2")),),
    vocabulary=("large", "lesion"),
    mask_width=4,
    width=32,
)
ABSENT: dict[str, dict[str, Any]] = {"mask": {"mask": None}, "class": {"attributes": {}}, "text": {"text": None}}


@pytest.mark.parametrize("grid", [(4, 5), (4, 5, 3)])
@torch.no_grad()
def test_what_is_dropped_gives_what_was_never_asked(config: BackboneConfig, grid: tuple[int, ...]) -> None:
    codec = IdentityConfig(spatial_dims=len(grid))
    flow = build_part(Part(codec=codec, process=RectifiedFlow(), backbone=config, conditioning=LABELLED)).flow.eval()
    for parameter in flow.parameters():
        nn.init.normal_(parameter, std=0.3)
    labels = np.random.default_rng(0).integers(0, 3, size=(1, *grid)).astype(np.uint8)
    asked = Condition(mask=Volume(labels), text="large lesion", attributes={"contrast": "T2"})
    x, window = torch.randn(1, 1, *grid, generator=torch_rng(0)), Window.whole(grid)

    def say(condition: Condition, *drop: str) -> Tensor:
        ports = flow.conditioner([condition], window=window, drop=[frozenset(drop)])
        return flow.denoiser.predict(x, torch.tensor([0.4]), ports)

    for group, absent in ABSENT.items():
        assert torch.equal(say(asked, group), say(replace(asked, **absent)))
        assert not torch.allclose(say(asked, group), say(asked))


@pytest.mark.parametrize("name", ["unet", "dit"])
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("half", [False, True])
def test_recomputed_activations_give_the_same_gradients(name: str, grid: tuple[int, ...], half: bool) -> None:
    x, time, ports = _inputs(grid)
    gradients: list[list[Tensor]] = []
    for checkpoint in (False, True):
        config: Any = replace(CONFIGS[name], checkpoint=checkpoint)  # pyright: ignore[reportCallIssue]
        network = _network(config, len(grid))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            network(x, time, ports).square().mean().backward()
        gradients.append([p.grad for p in network.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) == len(list(_network(CONFIGS[name], len(grid)).parameters()))
    for kept, again in zip(*gradients, strict=True):
        assert float((kept - again).abs().max()) <= 1e-6 * max(float(kept.abs().max()), 1.0)


def test_recomputing_keeps_less() -> None:
    x, time, ports = _inputs((8, 8))
    kept: list[int] = []
    for checkpoint in (False, True):
        network, sizes = _network(replace(CONFIGS["dit"], checkpoint=checkpoint, depth=4), 2), []  # pyright: ignore[reportCallIssue]
        with torch.autograd.graph.saved_tensors_hooks(lambda t, sizes=sizes: sizes.append(t.numel()) or t, lambda t: t):
            network(x, time, ports)
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 3


@pytest.mark.parametrize("dims", [2, 3])
def test_a_dit_has_the_parameters_its_config_says(dims: int) -> None:
    config = DiTConfig(width=36, depth=3, head=12, patch=3, hidden=2, time_width=20)
    width, vector, cell = 36, 20, 3**dims

    def linear(inputs: int, outputs: int) -> int:
        return inputs * outputs + outputs

    entries = linear(64, vector) + linear(vector, vector) + linear(5, vector) + linear(6, vector)
    stem = linear((CHANNELS + 3 + 2 * 2**dims) * cell, width)
    block = linear(vector, 6 * width) + linear(width, 3 * width) + linear(width, width) + 2 * 12
    block += linear(width, 2 * width) + linear(2 * width, width)
    block += linear(width, width) + linear(6, 2 * width) + linear(width, width)
    head = linear(vector, 2 * width) + linear(width, CHANNELS * cell)
    count = sum(p.numel() for p in _network(config, dims).parameters())
    assert count == entries + stem + 3 * block + head


@pytest.mark.parametrize("grid", [(6, 4), (4, 6, 2)])
def test_patches_go_and_come_back(grid: tuple[int, ...]) -> None:
    x = torch.randn(2, 3, *grid, generator=torch_rng(1))
    assert torch.equal(depth_to_space(space_to_depth(x, 2), 2, len(grid)), x)


@pytest.mark.parametrize(("small", "large"), [((3, 4), (5, 9)), ((3, 4, 2), (5, 4, 7))])
def test_attention_sees_distances_and_no_table_of_places(small: tuple[int, ...], large: tuple[int, ...]) -> None:
    device, head = torch.device("cpu"), 14
    of_small, of_large = (rotations(grid, head, device).reshape(*grid, head // 2) for grid in (small, large))
    corner = tuple(slice(n) for n in small)
    assert torch.equal(of_small, of_large[corner])
    query, key = torch.randn(2, 1, head, generator=torch_rng(2))

    def score(one: tuple[int, ...], two: tuple[int, ...]) -> float:
        return float((turned(query, of_large[one][None]) * turned(key, of_large[two][None])).sum())

    origin, step = (0,) * len(small), (1,) * len(small)
    along = [tuple(int(axis == d) for axis in range(len(small))) for d in range(len(small))]
    for direction in along:
        shifted = tuple(a + b for a, b in zip(direction, step, strict=True))
        assert abs(score(origin, direction) - score(step, shifted)) < 1e-5
    assert len({round(score(origin, place), 4) for place in (origin, *along)}) == 1 + len(small)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: DiTConfig(width=30, head=12), "even head that divides width"),
        (lambda: DiTConfig(depth=0), "dit: depth is 0; give at least 1"),
        (lambda: MonaiUNetConfig(widths=(30, 64), blocks=(1, 1), attention=()), "multiples of groups, 32"),
        (lambda: MonaiUNetConfig(widths=(32, 96), blocks=(1, 1), attention=(), head=64), "level 1 has attention"),
        (lambda: MonaiUNetConfig(widths=(32,), blocks=(1,), attention=(1,)), "levels 0..0"),
        (lambda: _network(DiTConfig(width=8, head=4), 3), "3D needs at least 6"),
    ],
)
def test_sizes_that_cannot_be_are_refused(make: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make()


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "monai.networks.nets.diffusion_model_unet", None)
    with pytest.raises(ConfigError, match=r"pip install 'synthvol\[monai\]'"):
        _network(CONFIGS["monai_unet"], 2)


@pytest.mark.parametrize(("dims", "inputs", "outputs", "side"), [(3, 192, 96, 16), (3, 96, 112, 16), (2, 256, 128, 64)])
def test_a_convolution_of_one_voxel_is_the_same_for_any_number_of_threads(
    dims: int, inputs: int, outputs: int, side: int
) -> None:
    rng = torch.Generator().manual_seed(0)
    layer, plain = conv(dims, inputs, outputs, kernel=1), (nn.Conv3d if dims == 3 else nn.Conv2d)(inputs, outputs, 1)
    plain.load_state_dict(layer.state_dict())
    x = torch.randn((1, inputs, *[side] * dims), generator=rng)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            with torch.no_grad():
                found.append(layer(x))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(found[0], other) for other in found[1:])
    torch.testing.assert_close(found[0], plain(x).detach(), rtol=1e-4, atol=1e-5)
