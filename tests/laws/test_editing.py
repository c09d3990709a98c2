"""Laws of inpainting: what is kept is kept to the last bit, what is free follows the model, seeds decide."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import synth
from synth.data.intensity import Percentiles, Window
from synth.data.placement import Placement
from synth.editing import Inpaint, changed, place_label
from synth.editing.inpaint import Held
from synth.errors import ConditionError, ConfigError, GeometryError
from synth.generator import Generator, Sampling
from synth.process import EDM, RectifiedFlow, VariancePreserving
from synth.process.base import Estimate, GaussianProcess
from synth.sample import Condition, Sample
from synth.sampler import SAMPLERS, Sampler
from synth.volume import Volume

MARGIN_MM = 5.0


@pytest.fixture(scope="module")
def generator(model: Path) -> Generator:
    return synth.load(model)


@pytest.fixture(scope="module")
def base(generator: Generator, dataset: Path) -> Sample:
    """A pair on the tiny model's oblique grid, of a mask with both labels."""
    labels = generator.model.recipe.schema.label_values  # pyright: ignore[reportOptionalMemberAccess]
    mask = synth.read(dataset / "labelsTr" / "c00.nii.gz", labels=labels)
    return next(generator.generate([Condition(mask=mask)], seeds=[3]))


def placed(base: Sample) -> Volume:
    """Its mask with a core where shell was."""
    assert base.mask is not None
    shell = np.argwhere(base.mask.data[0] == 3)
    return place_label(base.mask, label="core", at=shell[len(shell) // 3], ml=0.05, seed=1)


def edited(generator: Generator, base: Sample, mask: Volume, *, seed: int = 3, **options: Any) -> Sample:
    assert base.mask is not None
    edit = Inpaint(region=changed(base.mask, mask), margin_mm=MARGIN_MM, **options)
    return next(generator.generate([Condition(mask=mask, image=base.image)], seeds=[seed], edit=edit))


def far(base: Sample, mask: Volume, margin_mm: float = MARGIN_MM) -> np.ndarray:
    """Which voxels lie further than the margin from the change, by comparing with every changed voxel."""
    assert base.mask is not None
    places = np.argwhere(np.ones(mask.grid, bool)) * np.array(mask.spacing_mm)
    region = np.argwhere(base.mask.data[0] != mask.data[0]) * np.array(mask.spacing_mm)
    apart = np.sqrt(((places[:, None] - region[None]) ** 2).sum(axis=2)).min(axis=1)
    return (apart > margin_mm).reshape(mask.grid)


def test_beyond_the_margin_every_byte_is_kept_and_within_it_changes(generator: Generator, base: Sample) -> None:
    mask = placed(base)
    made = edited(generator, base, mask)
    kept = far(base, mask)
    assert 0 < kept.sum() < kept.size
    assert made.image.data.dtype == base.image.data.dtype
    assert made.image.data[0][kept].tobytes() == base.image.data[0][kept].tobytes()
    assert (made.image.data[0][~kept] != base.image.data[0][~kept]).mean() > 0.5
    assert made.image.same_geometry(base.image)
    assert made.mask is mask and made.provenance.mask_origin == "given"
    told = made.provenance.condition["edit"]
    assert isinstance(told, dict) and told["task"] == "inpaint" and told["margin_mm"] == MARGIN_MM


def test_a_seed_decides_the_edit(generator: Generator, base: Sample) -> None:
    mask = placed(base)
    first, again = (edited(generator, base, mask) for _ in range(2))
    assert first.image.data.tobytes() == again.image.data.tobytes()
    other = edited(generator, base, mask, seed=4)
    assert other.image.data.tobytes() != first.image.data.tobytes()


def test_an_image_on_a_finer_grid_keeps_its_own_voxels(generator: Generator, base: Sample) -> None:
    affine = np.array(base.image.affine)
    affine[:3, :3] /= 2.0
    grid = tuple(2 * n for n in base.image.grid)
    rng = np.random.default_rng(0)
    image = Volume(np.rint(rng.uniform(0, 900, (1, *grid))).astype(np.int16), affine)
    assert base.mask is not None
    mask = base.mask.resample_to(grid, affine)
    shell = np.argwhere(mask.data[0] == 3)
    new = place_label(mask, label="core", at=shell[len(shell) // 3], ml=0.05, seed=1)
    edit = Inpaint(region=changed(mask, new), margin_mm=MARGIN_MM)
    made = next(generator.generate([Condition(mask=new, image=image)], seeds=[3], edit=edit))
    kept = far(Sample(image, mask, base.condition, base.provenance), new)
    assert made.image.data.dtype == np.int16 and made.image.same_geometry(image)
    assert np.array_equal(made.image.data[0][kept], image.data[0][kept])
    assert not np.array_equal(made.image.data, image.data)


@pytest.mark.parametrize("process", [RectifiedFlow(), VariancePreserving(), EDM(location=0.0, scale=1.0)])
@pytest.mark.parametrize("kind", ["euler", "heun", "ancestral", "dpm_solver_2m"])
def test_held_latents_end_exactly_and_are_seen_at_their_own_noise(process: GaussianProcess, kind: Any) -> None:
    rng = torch.Generator().manual_seed(0)
    clean = torch.randn(1, 2, 6, 6, generator=rng)
    free = torch.zeros(1, 1, 6, 6, dtype=torch.bool)
    free[..., 2:4, 2:4] = True
    noise = torch.randn(clean.shape, generator=rng)
    seen: list[float] = []

    class Model:
        """Says 7 whatever it sees, and remembers whether it saw the known part at the right noise."""

        def __init__(self) -> None:
            self.process = process

        def __call__(self, x: torch.Tensor, t: torch.Tensor, *, to: torch.Tensor) -> Estimate:
            wanted = process.mix(clean, noise, t.reshape(1))
            seen.append(float(((x - wanted).abs() * ~free).max()))
            seven = torch.full_like(x, 7.0)
            alpha, sigma = process.alpha(t).to(x), process.sigma(t).to(x)
            return Estimate(clean=seven, noise=(x - alpha * seven) / sigma.clamp_min(1e-4), raw=seven)

    held = Held(Model(), clean, noise, free)
    sampler: Sampler = SAMPLERS[kind]
    start = process.start(clean.shape, torch.Generator().manual_seed(1))
    made = held.settle(sampler(held, process.grid(6), start, torch.Generator().manual_seed(2)))
    assert seen and max(seen) == 0.0
    assert torch.equal(made[~free.expand_as(made)], clean[~free.expand_as(made)])
    assert (made[free.expand_as(made)] - 7.0).abs().max() < 0.05  # the solvers are of second order at most


@pytest.mark.parametrize("rule", [Percentiles(), Window(low=-1000.0, high=1000.0, tissue=(-160.0, 240.0))])
def test_a_change_arrives_in_native_units(rule: Any) -> None:
    """Half way to a new image that is brighter by 0.1 everywhere, in a full region, is the new image."""
    rng = np.random.default_rng(0)
    image = Volume(rng.uniform(-150, 200, (1, 8, 8, 8)).astype(np.float32))
    region = np.zeros((1, 8, 8, 8), np.uint8)
    region[0, 3:5, 3:5, 3:5] = 1
    placement = Placement.of(image, grid=image.grid, spacing_mm=image.spacing_mm)
    canvas = Inpaint(region=image.replace(data=region), margin_mm=2.0).prepare(image, placement, [rule])
    new = canvas.pixels + 0.1
    made = canvas.finish(new, new, canvas.pixels)
    own = canvas.maps[0]
    inner = canvas.share.numpy() == 1.0
    np.testing.assert_allclose(made.data[0][inner], own.invert(new[0].numpy())[inner], atol=1e-3)
    assert inner.sum() >= 8 and np.array_equal(made.data[0][~canvas.near], image.data[0][~canvas.near])


def test_fading_keeps_the_variance_of_grain() -> None:
    rng = np.random.default_rng(0)
    grid = (24, 24, 24)
    image = Volume(rng.normal(100, 10, (1, *grid)).astype(np.float32))
    region = np.zeros((1, *grid), np.uint8)
    region[0, 10:14, 10:14, 10:14] = 1
    placement = Placement.of(image, grid=grid, spacing_mm=image.spacing_mm)
    canvas = Inpaint(region=image.replace(data=region), margin_mm=8.0).prepare(image, placement, [Percentiles()])
    smooth = torch.full((1, *grid), float(canvas.pixels.mean()))
    spread = float(canvas.pixels.std())
    grain = torch.from_numpy(rng.normal(0, spread, (1, *grid)).astype(np.float32))
    made = canvas.finish(smooth, smooth + grain, smooth)
    between = (canvas.share.numpy() > 0.3) & (canvas.share.numpy() < 0.7)
    assert between.sum() > 300
    assert made.data[0][between].std() == pytest.approx(image.data.std(), rel=0.1)  # a plain fade leaves 0.71


def test_what_cannot_be_edited_is_said(generator: Generator, base: Sample) -> None:
    assert base.mask is not None
    mask = placed(base)
    region = changed(base.mask, mask)
    edit = Inpaint(region=region)

    def make(condition: Condition, edit: Inpaint | None) -> Sample:
        return next(generator.generate([condition], seeds=[0], edit=edit))

    with pytest.raises(ConditionError, match="needs the image"):
        make(Condition(mask=mask), edit)
    with pytest.raises(ConditionError, match="needs the mask"):
        make(Condition(image=base.image), edit)
    with pytest.raises(ConditionError, match="or give an edit"):
        make(Condition(mask=mask, image=base.image), None)
    with pytest.raises(ConditionError, match="region of the edit is empty"):
        Inpaint(region=changed(mask, mask))
    with pytest.raises(ConfigError, match="margin_mm is nan"):
        Inpaint(region=region, margin_mm=float("nan"))
    with pytest.raises(GeometryError, match="region"):
        make(Condition(mask=mask, image=base.image), Inpaint(region=Volume(np.ones((1, 3, 3, 3), np.uint8))))
    with pytest.raises(GeometryError, match="resample"):
        make(Condition(mask=mask, image=Volume(base.image.data, np.eye(4))), edit)
    broken = base.image.data.copy()
    broken[0, 0, 0, 0] = np.nan
    with pytest.raises(ConditionError, match="no numbers"):
        make(Condition(mask=mask, image=base.image.replace(data=broken)), edit)


def test_a_plain_sample_is_what_it_was(generator: Generator, base: Sample) -> None:
    again = next(generator.with_sampling(Sampling()).generate([Condition(mask=base.mask)], seeds=[3]))
    assert again.image.data.tobytes() == base.image.data.tobytes()
    assert "edit" not in again.provenance.condition


def ball(grid: tuple[int, ...] = (21, 21, 21)) -> Volume:
    """Tissue in a ball, fluid around it, air outside, at 2 x 2 x 1 mm."""
    axes = np.meshgrid(*[np.arange(n) - n // 2 for n in grid], indexing="ij")
    radius = np.sqrt(sum(axis**2 for axis in axes))
    data = (radius < 10).astype(np.uint8) + (radius < 8)
    return Volume(data[None].astype(np.uint8), np.diag([2.0, 2.0, 1.0, 1.0]), {"fluid": 1, "tissue": 2, "lesion": 3})


def test_a_blob_has_its_size_is_connected_and_stays_in_its_tissue() -> None:
    from scipy import ndimage

    mask = ball()
    for seed in range(4):
        made = place_label(mask, label="lesion", at=(10, 10, 14), ml=1.0, seed=seed)
        blob = made.data[0] == 3
        assert blob[10, 10, 14] and abs(int(blob.sum()) - 250) <= 12  # of 4 mm3; strays are dropped
        assert ndimage.label(blob)[1] == 1  # pyright: ignore[reportIndexIssue]
        assert set(np.unique(mask.data[0][blob])) == {2}
    again = place_label(mask, label="lesion", at=(10, 10, 14), ml=1.0, seed=0)
    assert np.array_equal(again.data, place_label(mask, label="lesion", at=(10, 10, 14), ml=1.0, seed=0).data)
    assert not np.array_equal(again.data, place_label(mask, label="lesion", at=(10, 10, 14), ml=1.0, seed=9).data)
    larger = place_label(again, label="lesion", at=(10, 10, 14), ml=2.0, seed=0)  # on a lesion: it grows
    assert (larger.data == 3).sum() > (again.data == 3).sum() and set(mask.data[larger.data == 3]) == {2}
    both = place_label(mask, label="lesion", at=(10, 10, 10), ml=8.0, seed=0, within=("tissue", "fluid"))
    assert set(mask.data[both.data == 3]) >= {2}


def test_a_blob_at_the_border_is_cut_there() -> None:
    mask = Volume(np.ones((1, 12, 9), np.uint8), labels={"skin": 1, "mole": 2})
    made = place_label(mask, label="mole", at=(0, 8), ml=0.02, seed=2)
    assert made.data[0, 0, 8] == 2 and 10 <= (made.data == 2).sum() <= 20


def test_where_no_blob_can_be_placed_is_said() -> None:
    mask = ball()
    with pytest.raises(ConditionError, match="no tissue"):
        place_label(mask, label="lesion", at=(0, 0, 0), ml=1.0, seed=0)
    with pytest.raises(ConditionError, match="leison"):
        place_label(mask, label="leison", at=(10, 10, 10), ml=1.0, seed=0)
    with pytest.raises(ConditionError, match="size"):
        place_label(mask, label="lesion", at=(10, 10, 10), ml=0.0, seed=0)
    with pytest.raises(GeometryError, match="outside"):
        place_label(mask, label="lesion", at=(10, 10, 21), ml=1.0, seed=0)
    with pytest.raises(GeometryError, match="names"):
        place_label(mask.replace(labels=None), label="lesion", at=(10, 10, 10), ml=1.0, seed=0)
    with pytest.raises(ConditionError, match="100000 ml is more than the"):
        place_label(mask, label="lesion", at=(10, 10, 10), ml=1e5, seed=0)
    with pytest.raises(GeometryError, match="has 2 coordinates, the mask 3 axes"):
        place_label(mask, label="lesion", at=(10, 10), ml=1.0, seed=0)
