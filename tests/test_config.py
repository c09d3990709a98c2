"""Configuration: what is written is read back, and every mistake is named with its place."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.configs import config_path, shipped
from synth import config
from synth.errors import ConfigError
from synth.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Disc:
    kind: Literal["disc"] = "disc"
    radius: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Box:
    kind: Literal["box"] = "box"
    sides: tuple[float, float] = (1.0, 2.0)


@dataclass(frozen=True, kw_only=True)
class Scene:
    name: str
    shape: Disc | Box = Disc()
    mask: Disc | None = None
    named: Mapping[str, Disc] = field(default_factory=dict)
    sizes: tuple[int, ...] = ()
    either: str | float | None = None
    folder: Path | None = None
    shown: bool = True


def test_shipped_recipes_are_complete_and_round_trip() -> None:
    assert "brain-tiny" in shipped()
    for path in shipped().values():
        recipe = config.load(Recipe, path)
        assert config.load(Recipe, config.dump(recipe)) == recipe


@given(
    st.builds(
        Scene,
        name=st.text(),
        shape=st.one_of(
            st.builds(Disc, radius=st.floats(allow_nan=False)),
            st.builds(Box, sides=st.tuples(st.floats(0, 1e-3), st.floats(1e9, 1e30))),
        ),
        mask=st.none() | st.builds(Disc, radius=st.floats(0, 1)),
        named=st.dictionaries(st.text(), st.builds(Disc, radius=st.floats(0, 1)), max_size=3),
        sizes=st.lists(st.integers(), max_size=3).map(tuple),
        either=st.none() | st.floats(allow_nan=False) | st.text(),
        folder=st.none() | st.just(Path("a/b")),
        shown=st.booleans(),
    )
)
def test_what_is_dumped_loads_equal(scene: Scene) -> None:
    text = config.dump(scene)
    assert config.load(Scene, text) == scene
    assert config.dump(config.load(Scene, text)) == text


@pytest.mark.parametrize("text", ["\x85", "a\x85", "\x85b", "a \x85 b", "\u2028", "a\u2029b", "\ufeff", "\n\x85\r"])
def test_line_separators_survive_as_keys_and_values(text: str) -> None:
    scene = Scene(name=text, named={text: Disc(radius=0.0)})
    assert config.load(Scene, config.dump(scene)) == scene


def test_numpy_scalars_and_paths_are_dumped_plainly() -> None:
    scene = Scene(name="x", shape=Disc(radius=np.float64(1e-5)), sizes=(np.int64(3),), folder=Path("a"))  # pyright: ignore[reportArgumentType]
    assert config.load(Scene, config.dump(scene)) == scene


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: x\nimage: {process: {kind: rectified_flow, shfit: 3}}", "image.process.shfit.*did you mean 'shift'"),
        ("name: x\nimgae: {}", "imgae.*did you mean 'image'"),
        ("name: x\nimage: {training: {fit: {learning_rate: 1e-4}}}", "learning_rate.*write 1.0e-4"),
        ("name: x\nimage: {training: {fit: {learning_rate: 2.5E3}}}", "write 2.5e\\+3"),
        (
            "name: x\nimage: {codec: {kind: wavelet}}",
            "image.codec.kind: 'wavelet'.*known: autoencoder, identity, .*patch_pca",
        ),
        ("name: x\nimage: {codec: {kind: patch_pac}}", "did you mean 'patch_pca'.*known: autoencoder"),
        (
            "name: x\nimage: {codec: {kind: autoencoder, widht: 3}}",
            "unknown field of AutoencoderConfig; did you mean 'width'",
        ),
        ("name: x\nimage: {codec: {stride: 2}}", "image.codec.kind: is missing; write one of identity"),
        ("name: x\nimage: {codec: 3}", "image.codec: should be a section"),
        (
            "name: x\nimage: {process: {kind: rectified_flow, prediction: noise}}",
            "prediction: 'noise'.*clean, velocity",
        ),
        ("name: x\nimage: {training: {patch: [4, a, 4]}}", "image.training.patch.1.*got 'a'"),
        ("name: x\nimage: {training: {patch: 4}}", "image.training.patch: should be a list"),
        ("name: x\nimage: {guidance: 4}", "image.guidance: should be a section"),
        ("name: x\nimage: {guidance: {text: yes}}", "image.guidance.text.*got True"),
        ("name: x\nimage: {steps: '7'}", "image.steps.*got '7'"),
        ("name: x\nimage: {steps: yes}", "image.steps.*got True"),
        ("name: x\nimage:", "image: should be a section of Part, got None"),
        ("image: {}", "name: is missing"),
        ("name: x\nimage: {steps: 0}", "image: steps is 0"),
        ("name: x\nimage: {guidance: {clas: 3.5}}", "image: guidance 'clas' is no condition; did you mean 'class'"),
        ("name: x\nimage: {guidance: {text: -1.0}}", "image: guidance.text is -1.0; give 0 or more"),
        ("name: x\nimage: {guidance: {text: .nan}}", "image: guidance.text is nan; give 0 or more"),
        ("name: x\nseed: -1", "seed is -1; give 0 or more"),
        ("name: x\nname: y", "line 2, column 1.*'name' is written twice"),
        ("name: [x", "line 1, column 9 is not valid YAML"),
        ("name: !!python/object:os.system x", "not valid YAML"),
        ("name: \x00", "not valid YAML"),
        ("- a", "no fields"),
        ("", "no fields"),
    ],
)
def test_mistakes_are_named(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        config.load(Recipe, text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("section", "field", "value", "mend"),
    [
        ("codec_training", "crop", 0, "give at least 1"),
        ("codec_training", "batch", 0, "give at least 1"),
        ("codec_training", "pca_volumes", 0, "give at least 1"),
        ("codec_training", "perceptual", -0.5, "give 0 or more"),
        ("training", "patch", [4, 0, 4], "give at least 1"),
        ("training", "patch_batch", 0, "give at least 1"),
        ("training", "whole_batch", -2, "give at least 1"),
        ("training", "whole_share", 1.5, "give a share of the steps"),
        ("training", "pooled", -1.0, "give 0 or more"),
        ("conditioning", "width", 0, "give at least 1"),
        ("conditioning", "mask_width", 0, "give at least 1"),
        ("conditioning", "text_length", 0, "give at least 1"),
        ("backbone", "head", 0, "give at least 1"),
        ("backbone", "widths", [16, 0, 16], "give at least 1"),
        ("backbone", "widths", [16, 32, 100], "level 2 has attention and width 100; give a multiple of head, 32"),
        ("backbone", "blocks", [2, 0, 2], "give at least 1"),
        ("backbone", "attention", [-1], r"attention names levels 0..2; got \[-1\]"),
        ("codec", "stride", 0, "give at least 1"),
        ("codec", "width", 0, "give at least 1"),
        ("codec", "decoder_blocks", -1, "give 0 or more"),
        ("codec", "kl", float("inf"), "give 0 or more"),
        ("codec", "spatial_dims", 4, "give 2 or 3"),
    ],
)
def test_sizes_that_no_training_takes_are_refused(section: str, field: str, value: object, mend: str) -> None:
    kinds = {"backbone": {"kind": "unet"}, "codec": {"kind": "autoencoder"}}
    data = {"name": "x", "image": {section: {**kinds.get(section, {}), field: value}}}
    with pytest.raises(ConfigError, match=mend) as caught:
        config.build(Recipe, data)
    assert f"image.{section}: " in str(caught.value) and field in str(caught.value).replace("width 100", "widths")


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [("monai_autoencoder", "groups", 0), ("monai_autoencoder", "blocks", 0), ("patch_pca", "stride", -1)],
)
def test_other_codecs_refuse_such_sizes(kind: str, field: str, value: int) -> None:
    with pytest.raises(ConfigError, match=f"image.codec: {kind}: {field} is {value}; give at least 1"):
        config.build(Recipe, {"name": "x", "image": {"codec": {"kind": kind, field: value}}})


def test_fixed_lists_have_their_length() -> None:
    with pytest.raises(ConfigError, match="shape.sides: should have 2 values, got 3"):
        config.load(Scene, "name: x\nshape: {kind: box, sides: [1, 2, 3]}")
    with pytest.raises(ConfigError, match="named.a.radius"):
        config.load(Scene, "name: x\nnamed: {a: {radius: wide}}")


def test_overrides() -> None:
    recipe = config.load(Recipe, "name: x", overrides=["image.training.fit.steps=7", "seed=3"])
    assert recipe.image.training.fit.steps == 7 and recipe.seed == 3
    recipe = config.load(Recipe, "name: x\nmask: null", overrides=["mask.steps=3"])
    assert recipe.mask is not None and recipe.mask.steps == 3


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("seed", "no value"),
        ("=3", "no name"),
        ("a..b=3", "no name"),
        ("image.stesp=3", "did you mean 'steps'"),
        ("image.steps=[", "override image.steps.*not valid YAML"),
        ("name.a=3", "name is a value"),
        ("seed=", "seed.*got None"),
    ],
)
def test_bad_overrides_are_named(override: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        config.load(Recipe, "name: x", overrides=[override])


def test_unknown_recipes_name_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'brain-tiny'"):
        config_path("brain-tny")
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load(Recipe, tmp_path / "gone.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"name: \xff")
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load(Recipe, tmp_path / "latin.yaml")
