"""The network is told what it sees in mm: spacing, extent and centre; a model without it is as it was."""

from dataclasses import replace

import pytest
import torch

from synth.conditioning.conditioner import Conditioner
from synth.conditioning.config import ConditioningConfig
from synth.conditioning.encoders import geometry_features
from synth.ports import Window
from synth.sample import Condition
from synth.training.flow_stage import Crop, Latents

CONFIG = ConditioningConfig(geometry=True, stride=4, width=8)


@pytest.mark.parametrize("dims", [2, 3])
def test_features_are_in_mm(dims: int) -> None:
    grid, spacing = (4, 5, 6)[:dims], (0.5, 1.0, 2.0)[:dims]
    origin, full = torch.tensor([[2.0] * dims]), torch.tensor([[10.0] * dims])
    features = geometry_features(Window(grid, origin, full, torch.tensor([spacing])), 4)[0]
    told = features[: 3 * dims].reshape(3, dims)
    for axis in range(dims):
        assert float(2 ** told[0, axis]) == pytest.approx(spacing[axis])
        assert float(100 * 2 ** told[1, axis]) == pytest.approx(grid[axis] * 4 * spacing[axis])
        centre = (2 + grid[axis] / 2 - 5) * 4 * spacing[axis]
        assert float(100 * told[2, axis]) == pytest.approx(centre, abs=1e-4)
    assert features.shape == (21 * dims,)


@pytest.mark.parametrize("dims", [2, 3])
@torch.no_grad()
def test_spacing_size_and_region_each_reach_the_network(dims: int) -> None:
    conditioner = Conditioner(CONFIG, spatial_dims=dims)
    assert conditioner.spec.vector["geometry"] == CONFIG.width
    grid = (4, 5, 6)[:dims]
    whole = Window.whole(grid, spacing_mm=(1.0, 1.0, 2.0)[:dims])
    others = {
        "spacing": Window.whole(grid, spacing_mm=(1.0, 1.2, 2.0)[:dims]),
        "size": Window.whole((4, 6, 6)[:dims], spacing_mm=(1.0, 1.0, 2.0)[:dims]),
        "region": replace(whole, full=whole.full + 3),
    }
    plain = conditioner([Condition()], window=whole).vector["geometry"]
    for name, window in others.items():
        assert not torch.allclose(conditioner([Condition()], window=window).vector["geometry"], plain), name


def test_without_it_nothing_is_drawn_and_no_slot_is_there() -> None:
    torch.manual_seed(0)
    before = Conditioner(replace(CONFIG, geometry=False, labels=3), spatial_dims=3)
    torch.manual_seed(0)
    after = Conditioner(replace(CONFIG, labels=3), spatial_dims=3)
    names = set(before.state_dict())
    assert "geometry" not in before.spec.vector and not any("geometry" in name for name in names)
    assert {name for name in after.state_dict() if "geometry" not in name} == names
    assert all(torch.equal(before.state_dict()[name], after.state_dict()[name]) for name in names)


def test_training_and_generation_name_the_spacing_of_the_data(prepared, model) -> None:  # noqa: ANN001
    import synth

    case = prepared.split("train")[0]
    folder = model.parent / "image" / "latents"
    crops = [Crop(case, (0, 0, 0)), Crop(case, (1, 0, 0))]
    window = Latents(prepared, folder, 2, masks=False).batch(crops, (2, 2, 2)).window
    assert window.spacing_mm is not None
    assert torch.equal(window.spacing_mm, torch.tensor([prepared.schema.spacing_mm] * 2, dtype=torch.float32))
    generator = synth.load(model)
    seen: list[Window] = []
    conditioner = generator.model.image.flow.conditioner
    conditioner.register_forward_pre_hook(lambda _, __, options: seen.append(options["window"]), with_kwargs=True)
    next(generator.generate([Condition(attributes={"kind": "a"})], seeds=[0]))
    assert seen and all(torch.equal(w.spacing_mm, window.spacing_mm[:1]) for w in seen if w.spacing_mm is not None)
    assert all(w.spacing_mm is not None for w in seen)
