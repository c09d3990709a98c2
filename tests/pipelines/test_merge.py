"""Samples made again, and a set handed to nnU-Net beside real cases."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import synth
from pipelines.cli import main
from synth.data.orientation import Lie, axis_codes, turned_to
from synth.data.prepared import Prepared
from tests.pipelines.test_plan import content, generate, refused

COPIED = (("dataset.json", "dataset.json"), ("splits_nnunet.json", "splits_final.json"))


def merge(*words: object) -> int:
    return main(["merge", *map(str, words)])


def reproduce(*words: object) -> int:
    return main(["reproduce", *map(str, words)])


def test_samples_are_made_again(model: Path, whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert reproduce(whole / "manifest.jsonl", "--case", "syn_00003", "--model", model) == 0
    assert capsys.readouterr().out == "syn_00003: identical\n"
    assert reproduce(whole, "--all", "--model", model) == 0
    assert capsys.readouterr().out.count("identical\n") == 5


def test_given_masks_and_options_are_made_again(
    model: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--masks", dataset, "--sampler", "heun", "--steps", 3, "--guidance", 1.5, "--set", "kind=b"]
    assert generate(model, tmp_path / "set", "--count", 2, "--seed", 4, "--text", "a round thing", *options) == 0
    capsys.readouterr()
    assert reproduce(tmp_path / "set", "--all", "--model", model) == 0
    assert capsys.readouterr().out.splitlines() == ["syn_00000: identical", "syn_00001: identical"]


def test_what_differs_is_said(model: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = Path(shutil.copytree(whole, tmp_path / "set"))
    image = own / "imagesTr" / "syn_00001_0000.nii.gz"
    volume = synth.read(image)
    extent = float(volume.data.max()) - float(volume.data.min())
    moved = volume.data.copy()
    moved[0, 3, 3, 3] += extent / 4
    synth.write(volume.replace(data=moved), image)
    capsys.readouterr()
    assert reproduce(own, "--case", "syn_00001", "--model", model) == 3  # as the manifest says, but not on disk
    assert "identical; on disk imagesTr/syn_00001_0000.nii.gz is missing or was changed" in capsys.readouterr().out
    from synth.formats.nnunet import sha256_of

    rows = [json.loads(line) for line in (own / "manifest.jsonl").read_text().splitlines()]
    rows[1]["files"][f"imagesTr/{image.name}"] = sha256_of(image)
    rows[1]["environment"]["torch"] = "1.0"

    def write() -> None:
        (own / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    write()
    assert reproduce(own, "--case", "syn_00001", "--model", model) == 3
    told = capsys.readouterr().out
    assert "different: imagesTr/syn_00001_0000.nii.gz differs by" in told
    assert "0.25 of its range" in told or "0.2" in told
    assert "environments differ in torch 1.0 -> " in told
    moved[0, 3, 3, 3] = volume.data[0, 3, 3, 3] + extent * 5e-5
    synth.write(volume.replace(data=moved), image)
    rows[1]["files"][f"imagesTr/{image.name}"] = sha256_of(image)
    write()
    assert reproduce(own, "--case", "syn_00001", "--model", model) == 0  # as much as an environment may change
    rows[1]["environment"] = rows[0]["environment"]
    write()
    assert reproduce(own, "--case", "syn_00001", "--model", model) == 3
    assert "in the same environment" in capsys.readouterr().out


def test_faults_of_a_manifest_are_told_by_line(
    model: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (whole / "manifest.jsonl").read_text().splitlines(keepends=True)
    path = tmp_path / "manifest.jsonl"
    for text, words in (
        ("".join([*lines[:2], lines[2][:50] + "\n", *lines[3:]]), "manifest.jsonl line 3 is broken"),
        (lines[0] + "\n" + lines[1], "line 2 is broken"),
        (lines[0].replace('"seed": 0', '"seed": "x"'), "line 1 is broken (seed should be a valid integer, got 'x')"),
        ("", "names no case"),
        ("[]\n", "line 1 is broken (it is no object but [])"),
        (lines[0].replace('"steps": 2', '"steps": "2"'), "line 1 is broken (steps should be a valid integer, got '2')"),
        (lines[0].replace('"condition": {', '"condition": 1, "was": {'), "line 1 is broken (condition should be"),
    ):
        path.write_text(text)
        capsys.readouterr()
        assert reproduce(path, "--all", "--model", model) == 2
        assert words in refused(capsys)
    for options, words in (
        ([], "give --case NAME, or --all"),
        (["--case", "syn_00009", "--model", model], "names no case 'syn_00009'; did you mean"),
        (["--all"], "which is no bundled model; give --model"),
        (["--all", "--model", "brain-tiny"], "is another one"),
    ):
        assert reproduce(whole, *options) == 2
        assert words in refused(capsys)
    assert reproduce(tmp_path / "none.jsonl", "--all") == 2
    assert "does not exist" in refused(capsys)


@pytest.fixture
def real(dataset: Path, tmp_path: Path) -> Path:
    """The data the model was trained on as nnU-Net v2 wants it: label values without gaps, lying as LPS."""
    folder = tmp_path / "Dataset501_Real"
    for path in dataset.glob("*Tr/*.nii.gz"):
        volume = turned_to(synth.read(path), ("L", "P", "S"))
        if path.parent.name == "labelsTr":
            volume = volume.replace(
                data=np.choose(np.searchsorted([0, 3, 200], volume.data), [0, 1, 2]).astype(np.uint8)
            )
        synth.write(volume, folder / path.parent.name / path.name)
    info = json.loads((dataset / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**info, "labels": {"background": 0, "shell": 1, "core": 2}}))
    shutil.copy(dataset / "cases.csv", folder)
    return folder


def test_a_set_joins_real_cases_and_validates_on_unseen_patients(
    whole: Path,
    dataset: Path,
    prepared: Prepared,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "Dataset601_Mixed"
    capsys.readouterr()
    assert merge(whole, "--into", dataset, "--ratio", 0.5, "--out", out) == 0
    told = capsys.readouterr().out
    made = [f"syn_{index:05d}" for index in range(4)]
    folds = json.loads((out / "splits_final.json").read_text())
    unseen = {case.case for case in prepared.split("test")}
    names = {f"c{index:02d}" for index in range(8)}
    assert [set(fold["val"]) for fold in folds] == [unseen]  # one patient of two cases
    assert set(folds[0]["train"]) == (names - unseen) | set(made)
    (alone,) = json.loads((out / "splits_real.json").read_text())
    assert set(alone["train"]) == names - unseen and set(alone["val"]) == unseen
    info = json.loads((out / "dataset.json").read_text())
    assert info["numTraining"] == 12 and info["labels"] == {"background": 0, "shell": 1, "core": 2}
    from synth.formats import read

    assert sorted(case.id for case in read(out).cases) == sorted([*names, *made])
    rows = [json.loads(line) for line in (out / "synthetic.jsonl").read_text().splitlines()]
    assert [row["case"] for row in rows] == made and all(row["synthetic"] for row in rows)
    for line in (
        "nnUNetv2_move_plans_between_datasets -s NNN -t 601 -sp nnUNetPlans -tp nnUNetPlans_of_NNN",
        "nnUNetv2_preprocess -d 601 -plans_name nnUNetPlans_of_NNN -c 3d_fullres",
        "for fold in 0; do nnUNetv2_train 601 3d_fullres $fold -p nnUNetPlans_of_NNN; done",
        "nnUNetv2_train 601 3d_fullres 2 -p nnUNetPlans_of_NNN",
    ):
        assert line in told.splitlines()
    both, real_alone, made_alone = json.loads((out / "splits_nnunet.json").read_text())
    assert both == folds[0] and real_alone == alone
    assert made_alone == {"train": made, "val": sorted(unseen)}, "no training validates on synthetic cases"
    before = content(out)
    assert merge(whole, "--into", dataset, "--ratio", 0.5, "--out", out) == 0 and content(out) == before
    assert merge(whole, "--into", dataset, "--ratio", 0.25, "--out", out) == 2
    assert "holds something else than this merge" in refused(capsys)


def test_cases_in_another_form_are_found_by_the_prepared_data(
    whole: Path, real: Path, prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Turned, the voxels have other digests."""
    out, data = tmp_path / "Dataset601_Mixed", prepared.folder
    assert merge(whole, "--into", real, "--ratio", 0.5, "--out", out, "--data", data) == 0
    assert "no case of --into is one" not in capsys.readouterr().err
    (fold,) = json.loads((out / "splits_final.json").read_text())
    assert fold["val"] == [case.case for case in prepared.split("test")]


def test_synthetic_cases_lie_as_the_real_ones_and_those_are_copied(
    whole: Path, real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Turned, the voxels have other digests: the model's patients are not found again, which is said."""
    out = tmp_path / "Dataset777_Both"
    assert merge(whole, "--into", real, "--ratio", 0.6, "--folds", 3, "--out", out) == 0
    said = capsys.readouterr()
    told = said.out
    assert "no case of --into is one that the model saw, by its voxels" in said.err
    assert "nnUNetv2_train 777 3d_fullres $fold -p nnUNetPlans_of_501" in told and "for fold in 0 1 2; do" in told
    told_lines = told.splitlines()
    assert "# put the real dataset there" not in told
    # nnU-Net reads dataset.json where it preprocessed; only planning would put it there
    copies = [told_lines.index(f'cp {out}/{name} "$nnUNet_preprocessed/Dataset777_Both/{to}"') for name, to in COPIED]
    assert max(copies) < told_lines.index("nnUNetv2_preprocess -d 777 -plans_name nnUNetPlans_of_501 -c 3d_fullres")
    # of the real dataset only fingerprint and plans: its own splits and networks stay
    assert not [line for line in told_lines if "Dataset501" in line]
    assert [line for line in told_lines if " 501" in line and "nnUNetv2_" in line] == [
        "nnUNetv2_extract_fingerprint -d 501 --verify_dataset_integrity",
        "nnUNetv2_plan_experiment -d 501",
        "nnUNetv2_move_plans_between_datasets -s 501 -t 777 -sp nnUNetPlans -tp nnUNetPlans_of_501",
    ]
    place = "$nnUNet_results/Dataset777_Both/nnUNetTrainer__nnUNetPlans_of_501__3d_fullres/fold_6/checkpoint_final.pth"
    train = "nnUNetv2_train 777 3d_fullres $fold -p nnUNetPlans_of_501"
    assert f'for fold in 3 4 5; do {train} -pretrained_weights "{place}"; done' in told_lines
    splits = json.loads((out / "splits_nnunet.json").read_text())
    assert len(splits) == 7 and splits[3:6] == json.loads((out / "splits_real.json").read_text())
    assert [fold["val"] for fold in splits[:3]] == [fold["val"] for fold in splits[3:6]]
    for path in real.glob("*Tr/*"):
        assert (out / path.parent.name / path.name).read_bytes() == path.read_bytes()
    for index in range(5):
        name = f"imagesTr/syn_{index:05d}_0000.nii.gz"
        mine, own = synth.read(out / name), synth.read(whole / name)
        assert axis_codes(mine.affine) == ("L", "P", "S")
        assert np.array_equal(turned_to(mine, axis_codes(own.affine)).data, own.data)
        mask = synth.read(out / f"labelsTr/syn_{index:05d}.nii.gz")
        assert mask.same_geometry(mine)
    assert "numTraining" in (out / "dataset.json").read_text()


def test_printed_paths_are_words_of_a_shell(tmp_path: Path) -> None:
    import shlex

    from pipelines.handover import commands

    out = tmp_path / "two words" / "Dataset601_Mixed"
    lines = list(commands(tmp_path / "else where" / "Dataset501_Real", out, dims=2, folds=1))
    assert "# put the real dataset there as Dataset501_Real, nnU-Net v2 raw, first" in lines
    copied = [shlex.split(line)[1] for line in lines if line.startswith("cp ")]
    assert copied == [f"{out}/{name}" for name, _ in COPIED]
    assert all("3d_fullres" not in line for line in lines)


def test_other_steps_are_resampled_to_the_median() -> None:
    affines = [np.diag([step, step, 3.0, 1.0]) for step in (1.0, 1.0, 2.0)]
    lie = Lie.of(affines, 3)
    image = synth.Volume(np.random.default_rng(0).normal(size=(1, 8, 6, 4)).astype(np.float32), np.diag([2, 2, 3, 1.0]))
    assert lie.take(image) is not image and np.array_equal(lie.take(image).data, image.data)  # steps that were met
    coarse = image.replace(affine=np.diag([4.0, 4.0, 3.0, 1.0]))
    taken = lie.take(coarse)
    assert taken.grid == (32, 24, 4) and taken.spacing_mm == (1.0, 1.0, 3.0)
    middle = [volume.affine @ [*((n - 1) / 2 for n in volume.grid), 1.0] for volume in (coarse, taken)]
    assert np.allclose(middle[0], middle[1])
    mask = synth.Volume((image.data > 0).astype(np.uint8), coarse.affine, {"a": 1})
    assert set(np.unique(lie.take(mask).data)) == {0, 1} and lie.take(mask).labels == {"a": 1}


def test_masks_of_real_patients_keep_those_out_of_validation(
    model: Path,
    dataset: Path,
    prepared: Prepared,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    shutil.copy(dataset / "labelsTr" / f"{prepared.split('test')[0].case}.nii.gz", masks)
    assert generate(model, tmp_path / "set", "--count", 1, "--masks", masks) == 0
    out = tmp_path / "Dataset601_Mixed"
    capsys.readouterr()
    assert merge(tmp_path / "set", "--into", dataset, "--ratio", 0.1, "--out", out) == 2
    assert "nobody is left to validate on" in refused(capsys)
    assert not (out / "dataset.json").exists()


def test_patients_whose_images_were_edited_are_not_validated_on(
    whole: Path, dataset: Path, prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model's only unseen patient: his edited mask and image have other digests than his own."""
    from pipelines.origins import source_of
    from synth.data.reading import read_image, read_mask
    from synth.formats import read

    made, real, out = Path(shutil.copytree(whole, tmp_path / "set")), read(dataset), tmp_path / "Dataset601_Mixed"
    rows = [json.loads(line) for line in (made / "manifest.jsonl").read_text().splitlines()]

    def merged(source: dict) -> int:
        rows[0]["condition"]["edit"] = source
        (made / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        shutil.rmtree(out, ignore_errors=True)
        capsys.readouterr()
        return merge(made, "--into", dataset, "--ratio", 0.2, "--out", out)

    case = next(case for case in real.cases if case.id == prepared.split("test")[0].case)
    image = read_image(case, real)
    source = source_of(case, dataset, None, image, read_mask(case, real, image))
    for of in (source["of"], {**source["of"], "images": ["0"]}, {**source["of"], "masks": ["0"]}):
        assert merged({"of": of}) == 2 and "nobody is left to validate on" in refused(capsys)
    none = {"images": ["0"], "masks": ["0"], "models": []}
    for told in ({}, {"of": none}):  # of before, and of somebody who is not here in this form
        assert merged(told) == 2 and "is neither synthetic nor of --into" in refused(capsys)
    assert merged({"of": none | {"models": ["other"]}, "of_synthetic": "other/syn_00000"}) == 2
    assert "a sample of another model" in refused(capsys)
    own = rows[0]["model"]["sha256"]
    assert merged({"of": none | {"models": [own]}, "of_synthetic": f"{own}/syn_00000"}) == 0
    assert (out / "dataset.json").exists()


def test_sets_that_do_not_fit_the_real_data_are_refused(
    whole: Path, shards: list[Path], real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "Dataset601_Mixed"
    info = json.loads((real / "dataset.json").read_text())

    def says(**changes: object) -> None:
        (real / "dataset.json").write_text(json.dumps({**info, **changes}))

    for spoil, given, options, words in (
        (lambda: None, whole, ["--ratio", 2], "--ratio asks for 16 synthetic cases beside 8 real ones, the set has 5"),
        (lambda: None, whole, ["--ratio", 0], "--ratio is 0; give a number above 0, at most 1000"),
        (lambda: None, whole, ["--folds", 0], "--folds is 0; give at least 1"),
        (lambda: None, shards[0], [], "is no whole set"),
        (lambda: says(channel_names={"0": "CT"}), whole, ["--ratio", 0.5], "has channel 'CT', the set has not"),
        (
            lambda: says(labels={"background": 0, "shell": 1, "heart": 2}),
            whole,
            ["--ratio", 0.5],
            "the set has label 'core'",
        ),
    ):
        spoil()
        assert merge(given, "--into", real, *options, "--out", out) == 2
        assert words in refused(capsys) and not out.exists()
    says()
    bare = Path(shutil.copytree(whole, tmp_path / "bare"))
    for name in ("imagesTr/syn_00001_0000.nii.gz", "labelsTr/syn_00001.nii.gz"):
        (bare / name).unlink()
    info = json.loads((bare / "dataset.json").read_text())
    (bare / "dataset.json").write_text(json.dumps({**info, "numTraining": 4}))
    assert merge(bare, "--into", real, "--ratio", 0.5, "--out", out) == 2
    assert "'syn_00001' stands in manifest.jsonl alone" in refused(capsys) and not out.exists()
    assert merge(whole, "--into", real, "--out", tmp_path / "mixed") == 2
    assert "name it DatasetNNN_NAME" in refused(capsys)
    assert merge(*shards, "--into", real, "--out", out) == 2
    assert "join its shards first" in refused(capsys)


def test_a_larger_set_is_not_merged_into(model: Path, tmp_path: Path) -> None:
    larger, shard, other = tmp_path / "larger", tmp_path / "shard", tmp_path / "other"
    assert generate(model, larger, "--count", 3) == 0
    for number, folder in enumerate((shard, other)):
        assert generate(model, folder, "--count", 2, "--shard", f"{number}/2") == 0
    before = content(larger)
    assert merge(shard, other, "--out", larger) == 2
    assert content(larger) == before
