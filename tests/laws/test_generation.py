"""Laws of generation on a tiny trained model: seeds decide, not workers, order or kills; folders round-trip."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import synth
from pipelines.cli import run
from synth.errors import CheckpointError, ConditionError, ConfigError, GeometryError
from synth.generator import Generator, Sampling
from synth.model import build
from synth.sample import Condition
from synth.sampler import Ancestral
from synth.training.config import Coupling


def _content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "request.json"
    }


def _generate(model: Path, out: Path, *options: str) -> dict[str, bytes]:
    assert run("generate", [str(model), "--out", str(out), "--count", "4", "--workers", "1", *options]) == 0
    return _content(out)


def test_a_sample_depends_on_its_seed_alone(model: Path) -> None:
    generator = synth.load(model)
    asks = [Condition(attributes={"kind": "a"}), Condition(text="a round thing")]
    forward = list(generator.generate(asks, seeds=[5, 6]))
    backward = list(generator.generate(asks[::-1], seeds=[6, 5]))[::-1]
    for one, two in zip(forward, backward, strict=True):
        assert np.array_equal(one.image.data, two.image.data)
        assert one.mask is not None and two.mask is not None and np.array_equal(one.mask.data, two.mask.data)
    assert not np.array_equal(forward[0].image.data, forward[1].image.data)


def test_save_load_generate_is_bit_equal(model: Path, tmp_path: Path) -> None:
    generator = synth.load(model)
    synth.save(generator, tmp_path / "copy")
    ask = [Condition()]
    first = next(generator.generate(ask, seeds=[1]))
    second = next(synth.load(tmp_path / "copy").generate(ask, seeds=[1]))
    assert np.array_equal(first.image.data, second.image.data)


def test_the_command_gives_the_python_sample(model: Path, tmp_path: Path) -> None:
    _generate(model, tmp_path / "out")
    sample = next(synth.load(model).generate([Condition()], seeds=[synth.Seed(0, 2)]))
    image = synth.read(tmp_path / "out" / "imagesTr" / "syn_00002_0000.nii.gz")
    assert np.array_equal(image.data, sample.image.data)
    assert image.same_geometry(sample.image)


def test_workers_and_shards_give_the_same_bytes(model: Path, tmp_path: Path) -> None:
    whole = _generate(model, tmp_path / "whole")
    assert _generate(model, tmp_path / "two", "--workers", "2") == whole
    for shard in ("1/2", "0/2"):
        _generate(model, tmp_path / "shards", "--shard", shard)
    assert _content(tmp_path / "shards") == whole


def test_a_killed_run_completes_to_the_same_bytes(model: Path, tmp_path: Path) -> None:
    whole = _generate(model, tmp_path / "whole")
    out = tmp_path / "cut"
    line = [
        sys.executable,
        "-m",
        "pipelines.cli",
        "generate",
        str(model),
        "--out",
        str(out),
        "--count",
        "4",
        "--workers",
        "1",
    ]
    for wanted in (1, 2):
        child = subprocess.Popen(line, cwd=Path(__file__).parents[2], stderr=subprocess.DEVNULL)
        first = time.monotonic()
        while len(list(out.glob("records/*.json"))) < wanted and time.monotonic() - first < 60:
            time.sleep(0.01)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    assert _generate(model, out) == whole


def test_a_larger_count_extends_and_another_ask_is_refused(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _generate(model, tmp_path / "out")
    assert run("generate", [str(model), "--out", str(tmp_path / "out"), "--count", "5", "--workers", "1"]) == 0
    assert len((tmp_path / "out" / "manifest.jsonl").read_text().splitlines()) == 5
    assert run("generate", [str(model), "--out", str(tmp_path / "out"), "--count", "5", "--seed", "9"]) == 2
    assert "begun with seed = 0" in capsys.readouterr().err


def test_given_masks_keep_geometry_and_labels(model: Path, dataset: Path, tmp_path: Path) -> None:
    _generate(model, tmp_path / "out", "--masks", str(dataset))
    info = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert info["labels"] == {"background": 0, "shell": 1, "core": 2}
    assert info["synth_label_values"] == {"shell": 3, "core": 200}
    for index in range(4):
        given = synth.read(dataset / "labelsTr" / f"c{index:02d}.nii.gz")
        mask = synth.read(tmp_path / "out" / "labelsTr" / f"syn_{index:05d}.nii.gz")
        image = synth.read(tmp_path / "out" / "imagesTr" / f"syn_{index:05d}_0000.nii.gz")
        assert np.abs(mask.affine - given.affine).max() < 1e-4 and image.same_geometry(mask)
        assert np.array_equal(mask.data == 2, given.data == 200) and np.array_equal(mask.data == 1, given.data == 3)


def test_a_run_is_taken_for_its_model_and_a_folder_does_not_hide_a_bundled_one(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir()
    shutil.copytree(model, tmp_path / "run" / "model")
    assert synth.load(tmp_path / "run").model.sha256 == synth.load(model).model.sha256
    (tmp_path / "brain-tiny").mkdir()
    monkeypatch.chdir(tmp_path)
    assert synth.load("brain-tiny").model.recipe.name == "brain-tiny"
    with pytest.raises(CheckpointError, match=r"recipe\.yaml is missing"):
        synth.load("./brain-tiny")


def test_a_mask_beyond_the_grid_is_refused_not_cropped(
    model: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = synth.read(dataset / "labelsTr" / "c00.nii.gz", labels={"shell": 3, "core": 200})
    wide = np.zeros((1, 30, 12, 10), dtype=given.data.dtype)
    wide[:, 8:22] = given.data
    wide[0, 0, 5, 5] = 1
    synth.write(synth.Volume(wide, given.affine), tmp_path / "wide" / "c.nii.gz")
    options = ["--out", str(tmp_path / "out"), "--count", "1", "--workers", "1", "--masks", str(tmp_path / "wide")]
    assert run("generate", [str(model), *options]) == 2
    assert "c.nii.gz: 1 of " in capsys.readouterr().err and not (tmp_path / "out").exists()
    asked = Condition(mask=synth.Volume(wide, given.affine, {"shell": 1, "core": 200}))
    with pytest.raises(GeometryError, match="outside the working grid"):
        next(synth.load(model).generate([asked], seeds=[0]))
    asked = Condition(mask=synth.Volume(np.where(wide == 1, 0, wide), given.affine, {"shell": 3, "core": 200}))
    made = next(synth.load(model).generate([asked], seeds=[0]))
    assert made.image.grid == (30, 12, 10)
    assert made.provenance.condition["size"] == [30, 12, 10], "a mask asks for its own grid, and the manifest says so"
    assert made.provenance.condition["spacing_mm"] == pytest.approx(given.spacing_mm)


def test_manifest_says_how_and_names_no_training_case(model: Path, tmp_path: Path) -> None:
    _generate(model, tmp_path / "out", "--set", "kind=a")
    text = (tmp_path / "out" / "manifest.jsonl").read_text()
    row = json.loads(text.splitlines()[1])
    assert row["index"] == 1 and row["synthetic"] is True and row["mask_origin"] == "generated"
    assert row["condition"]["attributes"] == {"kind": "a"} and len(row["model"]["sha256"]) == 64
    assert "c00" not in text and "labelsTr/syn_00001.nii.gz" in row["files"]


def test_unknown_asks_name_the_nearest(model: Path) -> None:
    generator = synth.load(model)
    for attributes, words in (
        ({"kidn": "a"}, "did you mean 'kind'"),
        ({"kind": "c"}, "known: a, b"),
        ({"size": 99}, "outside"),
    ):
        with pytest.raises(ConditionError, match=words):
            next(generator.generate([Condition(attributes=attributes)], seeds=[0]))  # pyright: ignore[reportArgumentType]


def test_damaged_models_are_refused(model: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    with pytest.raises(CheckpointError, match="no model folder"):
        synth.load(tmp_path / "nowhere")
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    tensors = load_file(broken / "weights.safetensors")
    name = next(iter(sorted(tensors)))
    save_file({key: value for key, value in tensors.items() if key != name}, broken / "weights.safetensors")
    with pytest.raises(CheckpointError, match="missing"):
        synth.load(broken)
    save_file({**tensors, "extra": tensors[name].clone()}, broken / "weights.safetensors")
    with pytest.raises(CheckpointError, match="not in this recipe"):
        synth.load(broken)
    (broken / "weights.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(CheckpointError, match="cannot be read"):
        synth.load(broken)


def _finer(mask: synth.Volume) -> synth.Volume:
    """The same labels in voxels of half the size along the first axis."""
    affine = np.array(mask.affine)
    affine[:3, 3] -= affine[:3, 0] / 4
    affine[:3, 0] /= 2
    return mask.replace(data=np.repeat(mask.data, 2, axis=1), affine=affine)


def test_a_mask_without_names_is_resampled_as_the_named_one(model: Path, dataset: Path) -> None:
    given = _finer(synth.read(dataset / "labelsTr" / "c00.nii.gz", labels={"shell": 3, "core": 200}))
    generator = synth.load(model)
    bare = given.replace(labels=None)
    samples = list(generator.generate([Condition(mask=mask) for mask in (given, bare)], seeds=[4, 4]))
    assert np.array_equal(samples[0].image.data, samples[1].image.data)
    out = samples[1].mask
    assert (
        out is not None and np.array_equal(out.data, given.data) and dict(out.labels or {}) == dict(given.labels or {})
    )


def test_masks_that_are_no_label_maps_are_refused(model: Path, dataset: Path) -> None:
    given = synth.read(dataset / "labelsTr" / "c00.nii.gz", labels={"shell": 3, "core": 200})
    generator = synth.load(model)
    for data, error, words in (
        (given.data * 0.5, ConditionError, "mask has the value 1.5, labels are whole numbers"),
        (np.where(given.data == 3, np.inf, 0.0), ConditionError, "mask has the value inf"),
        (
            np.concatenate([given.data] * 2),
            GeometryError,
            "the mask is 3D with 2 channels, the model takes 3D with one",
        ),
        (given.data[..., 5], GeometryError, "the mask is 2D with 1 channels"),
    ):
        with pytest.raises(error, match=words):
            next(generator.generate([Condition(mask=given.replace(data=data, labels=None))], seeds=[0]))


def test_asks_that_the_model_cannot_heed_are_refused(model: Path, dataset: Path) -> None:
    given = synth.read(dataset / "labelsTr" / "c00.nii.gz", labels={"shell": 3, "core": 200})
    generator = synth.load(model)
    image = generator.model.image
    deaf = replace(image.part, conditioning=replace(image.part.conditioning, labels=0, vocabulary=()))
    other = Generator(replace(generator.model, image=replace(image, part=deaf)))
    for asked, ask, words in (
        (generator, Condition(image=given), "the model follows no image"),
        (generator, Condition(text="colossal"), "'colossal' has no word that the model knows; use some of: "),
        (other, Condition(mask=given), "trained without labels; leave the mask out"),
        (other, Condition(text="a round thing"), "trained without text; leave the text out"),
    ):
        with pytest.raises(ConditionError, match=words):
            next(asked.generate([ask], seeds=[0]))


def test_a_sampler_that_draws_noise_is_refused_where_a_flow_was_learned_by_coupling(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = synth.load(model)
    whole = generator.model
    assert whole.recipe.mask is not None and whole.mask is not None
    mask = replace(whole.recipe.mask, training=replace(whole.recipe.mask.training, coupling=Coupling()))
    recipe = replace(whole.recipe, mask=mask)
    synth.save(Generator(replace(whole, recipe=recipe, mask=replace(whole.mask, part=mask))), tmp_path / "coupled")
    ask = [str(tmp_path / "coupled"), "--out", str(tmp_path / "out"), "--count", "1", "--sampler"]
    assert run("generate", [*ask, "ancestral"]) == 2
    assert "sampler ancestral draws noise, which leaves the flow that the mask part" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    coupled = synth.load(tmp_path / "coupled").with_sampling(Sampling(sampler=Ancestral()))
    with pytest.raises(ConfigError, match="take euler, heun or dpm_solver_2m"):
        next(coupled.generate([Condition()], seeds=[0]))
    assert run("generate", [*ask, "heun"]) == 0


def test_a_model_that_comes_to_no_mask_is_refused_before_anything_is_written(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = replace(synth.load(model).model.recipe, mask=None)
    assert recipe.schema is not None
    bare = replace(recipe.image, conditioning=replace(recipe.image.conditioning, labels=0))
    without = replace(recipe, image=bare, schema=replace(recipe.schema, labels=()))
    for name, own, words in (
        ("unmasked", recipe, "has no mask part; give masks"),
        ("unlabelled", without, "was trained without labels, generate writes image-mask pairs"),
    ):
        synth.save(Generator(build(own).eval()), tmp_path / name)
        assert run("generate", [str(tmp_path / name), "--out", str(tmp_path / "out"), "--count", "1"]) == 2
        assert words in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert next(synth.load(tmp_path / "unlabelled").generate([Condition()], seeds=[0])).mask is None
