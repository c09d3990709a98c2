"""`synth edit`: masks changed by blobs or by files, what is kept, resumption, what is refused, and the page's command."""

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

import synth
from pipelines.cli import main, run
from pipelines.page.placing import place
from pipelines.page.studio import Ask, Studio, how


@pytest.fixture(scope="module")
def begun(lesion_model: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pairs of the tiny model on masks with both labels."""
    folder = tmp_path_factory.mktemp("edit")
    (folder / "masks").mkdir()
    for name in ("c00.nii.gz", "c01.nii.gz"):
        shutil.copy(dataset / "labelsTr" / name, folder / "masks" / name)
    out = folder / "out"
    line = ["generate", str(lesion_model), "--out", str(out), "--count", "2", "--workers", "1", "--seed", "5"]
    assert main([*line, "--masks", str(folder / "masks")]) == 0
    return out


def pair(folder: Path, index: int) -> tuple[np.ndarray, np.ndarray]:
    image = synth.read(folder / "imagesTr" / f"syn_{index:05d}_0000.nii.gz")
    return image.data, synth.read(folder / "labelsTr" / f"syn_{index:05d}.nii.gz").data


def shell_of(folder: Path) -> str:
    """A voxel that is shell in both pairs, as the command spells it."""
    both = np.argwhere((pair(folder, 0)[1][0] == 1) & (pair(folder, 1)[1][0] == 1))
    return ",".join(map(str, both[len(both) // 3]))


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_blobs_are_placed_and_a_cut_run_completes(lesion_model: Path, begun: Path, tmp_path: Path) -> None:
    spot = f"lesion@{shell_of(begun)}:0.1"
    common = [
        str(lesion_model),
        "--images",
        str(begun),
        "--place",
        spot,
        "--place",
        spot,
        "--seed",
        "5",
        "--margin-mm",
        "5",
    ]
    out = tmp_path / "edited"
    out.mkdir()
    (out / ".request.json.partial").write_text("{")  # a kill as the ask was kept
    assert run("edit", [*common, "--out", str(out)]) == 0
    (out / ".request.json.partial").unlink(missing_ok=True)
    whole = content(out)
    for index in range(2):
        (old, before), (new, after) = pair(begun, index), pair(out, index)
        grown = (after == 2) & (before != 2)
        assert grown.any() and (before[grown] == 1).all() and (after[~grown] == before[~grown]).all()
        assert 0 < (old != new).mean() < 0.9
    rows = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert [row["case"] for row in rows] == ["syn_00000", "syn_00001"]
    assert all(row["synthetic"] and row["mask_origin"] == "given" for row in rows)
    edits = [row["condition"]["edit"] for row in rows]
    sha256 = synth.load(str(lesion_model)).model.sha256
    assert [edit["of_synthetic"] for edit in edits] == [f"{sha256}/syn_0000{index}" for index in range(2)]
    stages = [stage for edit in edits for stage in edit["stages"]]
    assert [(one["task"], one["placed"]) for one in stages] == [("inpaint", spot)] * 4
    assert len({one["seed"] for one in stages}) == 4, "a shape of its own for each blob of each image"
    (out / "records" / "syn_00001.json").unlink()
    (out / "imagesTr" / "syn_00001_0000.nii.gz").unlink()
    assert run("edit", [*common, "--out", str(out)]) == 0 and content(out) == whole
    assert run("edit", [*common, "--out", str(out), "--steps", "1"]) == 2  # another ask


def test_a_blob_that_finds_too_little_room_says_so(
    lesion_model: Path, begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same size twice at one voxel: the second one finds its place taken."""
    there, out = shell_of(begun), tmp_path / "edited"
    line = [str(lesion_model), "--images", str(begun), "--out", str(out)]
    for ml in ("0.1", "0.12"):
        line += ["--place", f"lesion@{there}:{ml}"]
    assert run("edit", line) == 0
    told = capsys.readouterr().out
    rows = [json.loads(text) for text in (out / "manifest.jsonl").read_text().splitlines()]
    volume = synth.read(out / "labelsTr" / "syn_00000.nii.gz")
    unit = float(np.prod(volume.spacing_mm)) / 1000
    for index, row in enumerate(rows):
        before, after = ((pair(folder, index)[1] == 2) for folder in (begun, out))
        stages = row["condition"]["edit"]["stages"]
        first, second = (stage["placed_ml"] for stage in stages)
        assert first + second == pytest.approx((after & ~before).sum() * unit, rel=1e-4)
        assert second == pytest.approx(stages[1]["region_voxels"] * unit, rel=1e-4) and second < 0.1
        assert f"syn_0000{index} lesion@{there}:0.12 has {second:.4g} ml" in told
    assert "blobs are smaller than asked, as their tissue is thin or of that label already" in told


def test_only_an_edit_of_the_very_files_of_a_sample_is_of_a_synthetic_one(begun: Path, tmp_path: Path) -> None:
    """Of others, and of edits of others, the digests of every image and mask are told, to know their patients by."""
    from pipelines.origins import edits_patient, source_of
    from pipelines.records import rows_beside
    from synth.data.prepared import mask_digest, voxel_digest
    from synth.data.reading import read_image, read_mask
    from synth.formats import read

    folder = Path(shutil.copytree(begun, tmp_path / "set"))

    def source(row: dict | None) -> dict:
        dataset = read(folder)
        image = read_image(dataset.cases[0], dataset)
        return source_of(dataset.cases[0], folder, row, image, read_mask(dataset.cases[0], dataset, image))

    def edit(**told: object) -> dict:
        return {**row, "condition": {**row["condition"], "edit": told}}

    row = rows_beside(folder)[0]
    assert "of_synthetic" in source(row) and "of_synthetic" not in source(None)
    assert "of_synthetic" in source(edit(of_synthetic="m/syn_00000"))
    patient = source(edit(of={"images": ["i"], "masks": ["k"], "models": ["m"]}))
    assert "of_synthetic" not in patient and edits_patient(edit(**patient))
    assert {"i"} < set(patient["of"]["images"]) and {"k"} < set(patient["of"]["masks"])
    assert set(patient["of"]["models"]) == {"m", row["model"]["sha256"]}
    path = folder / "imagesTr" / "syn_00000_0000.nii.gz"
    image = synth.read(path)
    synth.write(image.replace(data=image.data[:, ::-1].copy()), path)  # a patient's image under the sample's name
    other = source(row)
    labels = synth.read(folder / "labelsTr" / "syn_00000.nii.gz").data
    assert "of_synthetic" not in other and other["of"]["models"] == []
    assert other["of"]["images"] == [voxel_digest(synth.read(path).data)]
    assert other["of"]["masks"] == [mask_digest(labels)]


def test_changed_masks_are_followed_by_name(
    lesion_model: Path, begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(begun / "labelsTr", tmp_path / "masks")
    for index in range(2):
        path = tmp_path / "masks" / f"syn_{index:05d}.nii.gz"
        mask = synth.read(path, labels={"shell": 1, "lesion": 2})
        table = np.array([0, 3, 200])  # a folder of volumes has the model's own values
        data = table[mask.data].astype(np.uint8)
        data[0][tuple(np.argwhere(mask.data[0] == 1)[4])] = 200
        synth.write(synth.Volume(data, mask.affine), path)
    common = [str(lesion_model), "--images", str(begun), "--seed", "5", "--margin-mm", "4"]
    out = tmp_path / "edited"
    assert run("edit", [*common, "--masks", str(tmp_path / "masks"), "--out", str(out)]) == 0
    for index in range(2):
        assert (pair(out, index)[1] != pair(begun, index)[1]).sum() == 1
    (tmp_path / "masks" / "syn_00000.nii.gz").unlink()
    given = [*common, "--masks", str(tmp_path / "masks"), "--out", str(tmp_path / "two")]
    assert run("edit", given) == 2
    told = capsys.readouterr().err
    assert "has no mask for syn_00000 of " in told and "give --some" in told and "did you mean" not in told
    assert not (tmp_path / "two").exists()
    assert run("edit", [*given, "--some"]) == 0, "the other one alone"
    assert [path.name for path in (tmp_path / "two" / "labelsTr").iterdir()] == ["syn_00000.nii.gz"]
    assert (pair(tmp_path / "two", 0)[1] != pair(begun, 1)[1]).sum() == 1
    (row,) = [json.loads(line) for line in (tmp_path / "two" / "manifest.jsonl").read_text().splitlines()]
    assert row["condition"]["edit"]["of_synthetic"].endswith("/syn_00001"), "which it was made of"
    (tmp_path / "masks" / "syn_00001.nii.gz").rename(tmp_path / "masks" / "syn_0000.nii.gz")
    for more in ([], ["--some"]):
        assert run("edit", [*common, "--masks", str(tmp_path / "masks"), "--out", str(tmp_path / "four"), *more]) == 2
        told = capsys.readouterr().err
        assert "case syn_0000 is none of" in told and "did you mean 'syn_0000" in told
        assert not (tmp_path / "four").exists()
    assert run("edit", [*common, "--masks", str(begun), "--out", str(tmp_path / "three")]) == 2
    assert "did not change" in capsys.readouterr().err


def test_wrong_asks_are_one_line_and_write_nothing(
    lesion_model: Path, begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = shell_of(begun)
    bad = {
        (): "give --masks",
        ("--place", "lesion"): "LABEL@i,j,k:ML",
        ("--place", f"lesion@{there}:nan"): "the size is nan ml; give a number above 0",
        ("--place", f"lesion@{there}:-1"): "the size is -1 ml; give a number above 0",
        ("--place", "lesion@-1,2,3:0.1"): "voxel -1,2,3 has a number below 0; they count from 0",
        ("--place", f"lesion@{there}:0.1", "--some"): "--some is for --masks",
        ("--place", f"leison@{there}:0.1"): "lesion",
        ("--place", "lesion@0,0,0:0.1"): "no tissue",
        ("--place", "lesion@900,0,0:0.1"): "outside",
        ("--place", f"lesion@{there}:0.1", "--margin-mm", "nan"): "--margin-mm",
        ("--place", f"lesion@{there}:0.1", "--set", "kind=zebra"): "zebra",
        ("--place", f"lesion@{there}:0.1", "--masks", str(begun)): "not both",
    }
    for options, said in bad.items():
        out = tmp_path / "out"
        assert run("edit", [str(lesion_model), "--images", str(begun), "--out", str(out), *options]) == 2, options
        told = capsys.readouterr().err
        assert said in told and told.count("\n") == 1, (options, told)
        assert not out.exists()


def test_reproduce_says_that_an_edit_needs_its_image(
    lesion_model: Path, begun: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spot = f"lesion@{shell_of(begun)}:0.1"
    out = tmp_path / "edited"
    assert run("edit", [str(lesion_model), "--images", str(begun), "--place", spot, "--out", str(out)]) == 0
    assert run("reproduce", [str(out), "--all", "--model", str(lesion_model)]) == 2
    assert "is an edit" in capsys.readouterr().err


def test_the_command_that_the_page_shows_makes_its_pair(
    lesion_model: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "masks").mkdir()
    mask = tmp_path / "masks" / "c00.nii.gz"
    shutil.copy(dataset / "labelsTr" / "c00.nii.gz", mask)
    studio = Studio(str(lesion_model), tmp_path / "files")
    shown = studio.make(Ask(seed=7, mask=mask, text="a round thing", attributes={"kind": "b"}))
    for ml in (0.1, 0.12):
        _, labels = shown.volumes()
        assert labels is not None
        voxels = np.argwhere(labels.data[0] == 3)
        mm = (labels.affine @ [*voxels[len(voxels) // 3], 1.0])[:3].tolist()
        shown = place(studio, shown, {"label": "lesion", "ml": ml, "mm": mm})
    assert shown.ask is not None
    monkeypatch.chdir(tmp_path)
    first, second = how(shown.ask, str(lesion_model))[0].splitlines()
    assert main([*shlex.split(first)[1:], "--workers", "1"]) == 0
    assert main(shlex.split(second)[1:]) == 0
    image, labels = shown.volumes()
    assert labels is not None
    made, after = pair(tmp_path / "edited", 0)
    np.testing.assert_array_equal(made, image.data)
    np.testing.assert_array_equal(np.array([0, 3, 200])[after], labels.data)
