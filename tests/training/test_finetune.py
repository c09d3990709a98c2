"""Laws of fine-tuning: it begins with the source's own answers, keeps what names mean, and refuses what does not fit."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import synth
from synth import config
from synth.codec.config import OneHotConfig, PatchPCAConfig
from synth.data.intensity import Window
from synth.data.prepared import Prepared
from synth.data.schema import Attribute
from synth.data.seen import Seen
from synth.errors import ConfigError, DataError
from synth.generator import Generator
from synth.model import Model, PartModel
from synth.ports import Window as Place
from synth.recipe import Recipe
from synth.rng import torch_rng
from synth.sample import Condition
from synth.training.experiment import settled
from synth.training.finetune import Origin, continued, joined
from synth.training.plan import redesign
from synth.volume import Label, Volume

OLD = Condition(text="a long thing", attributes={"kind": "b", "size": 2.5})


@pytest.fixture(scope="module")
def source(model: Path) -> Model:
    """The tiny model with every weight alive: trained for a few steps, many still are 0."""
    read = synth.load(model).model
    for part in read.parts().values():
        for number, tensor in enumerate(part.flow.state_dict().values()):
            tensor.copy_(tensor + 0.1 * torch.randn(tensor.shape, generator=torch_rng("alive", number)))
    return read


def richer(prepared: Prepared) -> Prepared:
    """The same cases under other terms: a label, an attribute, a level and a word more, wider numbers, another order."""
    schema = prepared.schema
    shell, core = schema.labels
    size, kind = schema.attributes
    more = (
        replace(kind, levels=("a", "c")),
        Attribute(name="dose", kind="number", low=1.0, high=2.0),
        replace(size, low=-10.0, high=50.0),
        Attribute(name="site", kind="categorical", levels=("x", "y")),
    )
    cases = tuple(replace(case, text=f"{case.text} anew") for case in prepared.cases)
    changed = replace(schema, labels=(core, Label("rim", 7), replace(shell, value=4)), attributes=more)
    return replace(prepared, schema=changed, cases=cases)


def begun(source: Model, prepared: Prepared) -> tuple[Origin, Model]:
    recipe, _, origin = settled(continued(source.recipe), prepared, source)
    assert origin is not None and recipe.mask is not None
    torch.manual_seed(7)
    return origin, Model(recipe, origin.part("image", recipe.image), origin.part("mask", recipe.mask)).eval()


def estimate(part: PartModel, condition: Condition) -> torch.Tensor:
    """The part's estimate of clean latents at a middle time, of noise that depends on nothing."""
    grid = (4, 4, 4)
    x = torch.randn((1, part.codec.channels, *grid), generator=torch_rng("noise"))
    with torch.no_grad():
        ports = part.flow.conditioner([condition], window=Place.whole(grid))
        return part.flow.denoiser(x, torch.tensor([0.5]), ports).clean


def masked(condition: Condition, values: list[int]) -> Condition:
    labels = np.random.default_rng(0).choice(values, size=(1, 8, 8, 8)).astype(np.uint8)
    return replace(condition, mask=Volume(labels))


ASKS = [
    Condition(),
    masked(Condition(), [0, 1, 2]),
    replace(OLD, mask=None),
    masked(OLD, [0, 2]),
    masked(replace(OLD, text="a strange word"), [0, 1]),
]


@pytest.mark.parametrize("ask", ASKS, ids=["nothing", "mask", "words", "all", "strange"])
def test_old_names_get_the_sources_estimates(source: Model, prepared: Prepared, ask: Condition) -> None:
    for data, tolerance in ((prepared, 0.0), (richer(prepared), 1e-6)):
        _, start = begun(source, data)
        for name, part in source.parts().items():
            own, known = estimate(start.parts()[name], ask), estimate(part, ask)
            torch.testing.assert_close(own, known, rtol=0, atol=tolerance * float(known.abs().max()))


def test_new_names_start_as_if_not_said(source: Model, prepared: Prepared) -> None:
    _, start = begun(source, richer(prepared))
    said = masked(Condition(text="a thing anew", attributes={"kind": "c", "dose": 1.5, "site": "y"}), [1, 3])
    assert said.mask is not None
    unsaid = Condition(mask=said.mask.replace(data=said.mask.data % 3), text="a thing strange")
    for name, part in source.parts().items():
        known = estimate(part, unsaid)
        torch.testing.assert_close(
            estimate(start.parts()[name], said), known, rtol=0, atol=1e-6 * float(known.abs().max())
        )


def test_new_names_can_be_learned(source: Model, prepared: Prepared) -> None:
    _, start = begun(source, richer(prepared))
    flow = start.image.flow.requires_grad_(True)
    said = masked(Condition(text="a thing anew", attributes={"kind": "c", "dose": 1.5, "site": "y"}), [1, 3])
    ports = flow.conditioner([said], window=Place.whole((4, 4, 4)))
    x = torch.randn((1, 2, 4, 4, 4), generator=torch_rng("noise"))
    flow.denoiser.predict(x, torch.tensor([0.5]), ports).square().sum().backward()
    conditioner = flow.conditioner
    for row in (
        conditioner.attributes.tables["a1"].weight.grad[2],  # pyright: ignore[reportIndexIssue, reportOptionalSubscript]
        conditioner.attributes.numbers["a2"][2].weight.grad,  # pyright: ignore[reportIndexIssue]
        conditioner.attributes.tables["a3"].weight.grad[1],  # pyright: ignore[reportIndexIssue, reportOptionalSubscript]
        conditioner.text.table.weight.grad[-1],
        conditioner.mask.project.weight.grad.unflatten(1, (-1, 4))[..., 3],
    ):
        assert float(row.abs().max()) > 0  # pyright: ignore[reportArgumentType]


def test_old_labels_and_latents_pass_the_grown_codec_unchanged(source: Model, prepared: Prepared) -> None:
    origin, start = begun(source, richer(prepared))
    assert source.mask is not None and start.mask is not None
    old, new = source.mask.codec, start.mask.codec
    labels = torch.randint(0, 3, (1, 1, 8, 6, 8), generator=torch_rng("labels")).float()
    latents = torch.randn((1, 2, 4, 3, 4), generator=torch_rng("latents"))
    with torch.no_grad():
        torch.testing.assert_close(new.encode(labels), old.encode(labels), rtol=0, atol=1e-6)
        assert torch.equal(new.decode(3 * latents), old.decode(3 * latents)), "a new label never wins at first"
        rim = torch.where(labels == 2, 3.0, labels)
        torch.testing.assert_close(
            new.encode(rim), old.encode(torch.where(labels == 2, 0.0, labels)), rtol=0, atol=1e-6
        )
        image = torch.randn((1, 1, 8, 6, 8), generator=torch_rng("image"))
        assert torch.equal(start.image.codec.encode(image), source.image.codec.encode(image))
    assert origin.tuned(start.recipe) == ["mask"], "new labels need channels; nothing else is trained on unasked"
    assert torch.equal(new.latent_std, old.latent_std)


def test_names_join_with_the_models_first_and_the_datas_values(source: Model, prepared: Prepared) -> None:
    origin, start = begun(source, richer(prepared))
    schema = origin.prepared.schema
    assert {label.name: label.value for label in schema.labels} == {"shell": 4, "core": 200, "rim": 7}
    assert [a.name for a in schema.attributes] == ["size", "kind", "dose", "site"]
    size, kind = schema.attributes[:2]
    assert (size.low, size.high, kind.levels) == (-10.0, 50.0, ("a", "b", "c"))
    known = source.image.part.conditioning
    read = start.image.part.conditioning
    assert (read.attributes[0].low, read.attributes[0].high) == (known.attributes[0].low, known.attributes[0].high)
    assert read.vocabulary == (*known.vocabulary, "anew")
    case = prepared.cases[0]  # stored as 1 = core, 2 = rim, 3 = shell in the other order
    table = np.array([0, 2, 3, 1])
    assert np.array_equal(origin.prepared.mask(case), table[prepared.mask(case)])
    assert origin.prepared.digest(case) == prepared.digest(case)


def test_values_of_labels_the_data_lacks_make_room(source: Model, prepared: Prepared) -> None:
    schema = replace(prepared.schema, labels=(Label("new", 3),))
    values = {label.name: label.value for label in joined(source, schema).labels}
    assert values == {"shell": 1, "core": 200, "new": 3}


def test_a_number_of_one_value_gets_a_scale_and_keeps_its_place(source: Model, prepared: Prepared) -> None:
    def single(part: Any) -> Any:
        size, kind = part.conditioning.attributes
        own = replace(part.conditioning, attributes=(replace(size, low=5.0, high=5.0), kind))
        return replace(part, conditioning=own)

    schema = source.recipe.schema
    assert schema is not None
    size, kind = schema.attributes
    single_schema = replace(schema, attributes=(replace(size, low=5.0, high=5.0), kind))
    recipe = replace(source.recipe, schema=single_schema, image=single(source.recipe.image))
    origin = Origin.of(replace(source, recipe=recipe), prepared)
    read = origin.complete(recipe).image.conditioning.attributes[0]
    far = max(abs(bound - 5.0) for bound in (size.low, size.high))
    assert (read.low, read.high) == (5.0, 5.0 + far)


def test_ct_stays_in_the_models_window(source: Model, prepared: Prepared) -> None:
    schema = source.recipe.schema
    assert schema is not None
    model = replace(source, recipe=replace(source.recipe, schema=replace(schema, intensities=(Window(high=600.0),))))
    stored = Window(low=-1024.0, high=3071.0)
    data = replace(prepared, stored=(stored,), schema=replace(prepared.schema, intensities=(Window(high=900.0),)))
    origin = Origin.of(model, data)
    assert origin.prepared.schema.intensities == (Window(high=600.0),)
    assert any("window, -1000 to 600 HU" in note for note in origin.notes)
    case = prepared.cases[0]
    raw = stored.invert(np.array(prepared.image(case)))
    assert np.allclose(origin.prepared.image(case), Window(high=600.0).apply(raw))
    with pytest.raises(ConfigError, match="by percentiles .* by a window in HU|by a window in HU, the data by perc"):
        Origin.of(model, prepared)


def without(source: Model, **changes: Any) -> Model:
    schema = source.recipe.schema
    assert schema is not None
    return replace(source, recipe=replace(source.recipe, schema=replace(schema, **changes)))


def test_what_does_not_fit_is_refused_by_name(source: Model, prepared: Prepared) -> None:
    schema = prepared.schema
    faults: list[tuple[Model, Any, str]] = [
        (source, {"grid": (8, 8)}, "the model is 3D, the data 2D"),
        (source, {"channels": ("MR", "CT")}, "the model has 1 channels .MR., the data 2"),
        (without(source, channels=("A", "B")), {"channels": ("B", "A")}, "in the model's order"),
        (source, {"labels": ()}, "the data has no labels, the model has"),
        (
            source,
            {"attributes": (Attribute(name="size", kind="categorical", levels=("big",)),)},
            "attribute 'size' is categorical in the data, number in the model",
        ),
    ]
    for model, changes, words in faults:
        with pytest.raises(ConfigError, match=words):
            Origin.of(model, replace(prepared, schema=replace(schema, **changes)))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("image.codec.channels=3", r"image.codec.channels is 3, the model's is 2; .*`same` or `auto`"),
        ("image.codec.stride=4", "image.codec.stride is 4, the model's is 2"),
        ("mask.backbone.widths=[8, 16]", r"mask.backbone.widths is \[8, 16\], the model's is \[8, 8\]"),
        ("image.process.prediction=velocity", "image.process.prediction is velocity"),
        ("image.conditioning.mask_width=4", "image.conditioning.mask_width is 4, the model's is 8"),
        ("image.codec.spatial_dims=2", "image.codec.spatial_dims is 2"),
        ("mask=null", "mask is missing in the config, the model has one"),
    ],
)
def test_other_networks_are_refused_by_field(source: Model, prepared: Prepared, override: str, words: str) -> None:
    recipe = config.load(Recipe, config.dump(continued(source.recipe)), overrides=(override,))
    with pytest.raises(ConfigError, match=words) as caught:
        Origin.of(source, prepared).complete(recipe)
    assert "\n" not in str(caught.value)


def test_a_codec_without_room_for_labels_is_refused(source: Model, prepared: Prepared) -> None:
    part = source.recipe.mask
    assert part is not None
    codec = OneHotConfig(labels=3, inner=PatchPCAConfig(in_channels=3, stride=2, channels=2))
    recipe = replace(source.recipe, mask=replace(part, codec=codec))
    origin = Origin.of(replace(source, recipe=recipe), richer(prepared))
    with pytest.raises(ConfigError, match="patch_pca, has no room for labels that are new to it: rim"):
        origin.complete(recipe)


def test_training_settings_may_differ(source: Model, prepared: Prepared) -> None:
    overrides = ("image.training.fit.steps=3", "image.codec.kl=0.1", "image.conditioning.drop=0.5", "seed=4")
    recipe = config.load(Recipe, config.dump(continued(source.recipe)), overrides=overrides)
    full = Origin.of(source, prepared).complete(recipe)
    assert full.image.conditioning.drop == 0.5 and full.name == "tiny-tuned"


def test_the_noise_that_training_visits_may_be_another(source: Model, prepared: Prepared) -> None:
    overrides = ("mask.process.shift=3", "mask.process.location=0.5", "mask.process.scale=1.3")
    recipe = config.load(Recipe, config.dump(continued(source.recipe)), overrides=overrides)
    origin = Origin.of(source, prepared)
    mask = origin.complete(recipe).mask
    assert mask is not None
    told = origin.part("mask", mask).flow.denoiser.process
    assert told.grid(2).tolist() == [1.0, 0.75, 0.0]


def test_patients_held_back_that_the_model_saw_are_refused(source: Model, prepared: Prepared) -> None:
    swapped = {"train": "test", "test": "train", "holdout": "holdout", "val": "val"}
    other = replace(prepared, cases=tuple(replace(case, split=swapped[case.split]) for case in prepared.cases))
    with pytest.raises(DataError, match="the model saw patients .*take another --from"):
        Origin.of(source, other)


def test_a_hold_out_that_the_source_trained_on_is_refused(source: Model, prepared: Prepared) -> None:
    """Its own hold-out may stay: that never trained it."""
    swapped = {"train": "holdout", "holdout": "train", "test": "test", "val": "val"}
    other = replace(prepared, cases=tuple(replace(case, split=swapped[case.split]) for case in prepared.cases))
    with pytest.raises(DataError, match="the model saw patients .*take another --from"):
        Origin.of(source, other)
    Origin.of(source, prepared)


def test_a_fine_tuned_model_saw_whom_its_source_saw(source: Model, prepared: Prepared, tmp_path: Path) -> None:
    cases = tuple(replace(case, digest=f"other {case.case}") for case in prepared.cases)
    other = replace(prepared, cases=cases, rows=cases)
    origin = Origin.of(source, other)
    tuned = replace(source, seen=origin.seen(Seen.of(other, seed=3)))
    synth.save(Generator(tuned), tmp_path / "model")
    seen = synth.load(tmp_path / "model").model.seen
    assert seen is not None and source.seen is not None and seen.source == source.seen and not seen.gap
    for data in (prepared, other):
        known = {case.case for case in data.cases if seen.has(data.digest(case))}
        assert known == {case.case for side in ("train", "holdout") for case in data.split(side)}
    again = Origin.of(replace(tuned, seen=seen), prepared).seen(Seen.of(prepared, seed=0))
    assert len(again.line) == 3 and again.words().count("fine-tuned from a model of 4 cases") == 2


def test_a_source_that_does_not_say_whom_it_saw_leaves_a_gap_in_words(source: Model, prepared: Prepared) -> None:
    first = Origin.of(replace(source, seen=None), prepared).seen(Seen.of(prepared, seed=0))
    assert first.source is None and first.gap.startswith("tiny (")
    second = Origin.of(replace(source, seen=first), prepared).seen(Seen.of(prepared, seed=1))
    assert second.gap == first.gap and second.words().endswith("whose cases are not recorded")
    assert all(second.has(prepared.digest(case)) for case in prepared.split("train"))


def test_auto_keeps_the_networks_and_slows_the_rate(source: Model, prepared: Prepared) -> None:
    recipe = redesign(source.recipe, prepared.schema)
    Origin.of(source, prepared).complete(recipe)
    fit, before = recipe.image.training.fit, source.recipe.image.training.fit
    assert fit.learning_rate == pytest.approx(0.3 * before.learning_rate) and fit.patience == 3
