"""Every layout is written through one seam, the same bytes each time, and read back whole by our own reader."""

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.cli import run
from synth.data.reading import read_image, read_mask
from synth.errors import DataError, GeometryError, OutputError
from synth.formats import WRITERS, bids_writing, medmnist, read, synthrad, webdataset
from synth.formats.writing import Description, Told
from synth.io import write
from synth.volume import Label, Volume, palette
from tests.conftest import OBLIQUE, phantom

LABELS = (Label("shell", 3, palette(0)), Label("core", 200, palette(1)))
GRID = (14, 12, 10)
AS_FILES = ("nnunet", "msd", "bids", "dicom", "folder", "synthrad", "hf")
LEFT_HANDED = OBLIQUE @ np.diag([-1.0, 1.0, 1.0, 1.0])


def about(channels: tuple[str, ...] = ("MR",), file_ending: str = ".nii.gz") -> Description:
    return Description(
        name="Synthetic_tiny",
        channels=channels,
        labels=LABELS,
        file_ending=file_ending,
        population="phantoms",
        software="synthvol 1.2",
    )


def pair(
    index: int, *, channels: int = 1, affine: np.ndarray = OBLIQUE, dtype: Any = np.float32
) -> tuple[Volume, Volume]:
    image, labels = phantom(index, GRID)
    data = np.stack([np.rint(image) + 10 * c for c in range(channels)]).astype(dtype)
    values = np.array([0, 3, 200], dtype=np.uint8)[labels]
    return Volume(data, affine), Volume(values[None], affine, {"shell": 3, "core": 200})


def told(index: int) -> Told:
    return Told(
        f"syn_{index:05d}", {"kind": ("a", "b")[index % 2], "size": index}, "a round thing", ("ab" * 32, 7, index, 0)
    )


def write_set(
    name: str, folder: Path, *, count: int = 3, order: int = 1, **options: Any
) -> list[tuple[Volume, Volume]]:
    """Write a set through the seam, cases in either order; return what was given."""
    channels = options.pop("channels", ("MR",))
    ending = options.pop("file_ending", ".nii.gz")
    pairs = [pair(index, channels=len(channels), **options) for index in range(count)]
    writer = WRITERS[name](folder, about(channels, ending))
    for index in list(range(count))[::order]:
        files = writer.add(f"syn_{index:05d}", *pairs[index], told(index))
        assert writer.has(f"syn_{index:05d}") and all(len(digest) == 64 for digest in files.values())
    writer.finish(count, [told(index) for index in range(count)])
    return pairs


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("name", WRITERS)
def test_equal_pairs_give_equal_bytes_in_any_order(name: str, tmp_path: Path) -> None:
    write_set(name, tmp_path / "one")
    write_set(name, tmp_path / "two", order=-1)
    one = content(tmp_path / "one")
    assert one == content(tmp_path / "two") and not [path for path in one if "partial" in path]


@pytest.mark.parametrize(
    "affine", [OBLIQUE, LEFT_HANDED, np.diag([-1.0, -2.0, 3.0, 1.0])], ids=["oblique", "left", "flip"]
)
@pytest.mark.parametrize("name", AS_FILES)
def test_image_mask_geometry_and_labels_come_back(name: str, affine: np.ndarray, tmp_path: Path) -> None:
    given = write_set(name, tmp_path, affine=affine)
    dataset = read(tmp_path)
    assert [case.id for case in dataset.cases] == ["syn_00000", "syn_00001", "syn_00002"]
    assert dataset.channels == ("MR",) and dataset.population == "phantoms"
    assert dataset.label_values == ({"shell": 1, "core": 2} if name == "nnunet" else {"shell": 3, "core": 200})
    for case, (image, mask) in zip(dataset.cases, given, strict=True):
        seen = read_image(case, dataset)
        labels = read_mask(case, dataset, seen)
        if name == "dicom" and np.linalg.det(affine) * np.linalg.det(np.diag([-1, -1, 1, 1])) < 0:
            seen, labels = _turned(seen), _turned(labels)
        assert seen.grid == image.grid and np.abs(seen.affine - image.affine).max() < 1e-4
        assert np.array_equal(seen.data, image.data) or np.abs(seen.data - image.data).max() < 0.02
        for label, value in dataset.label_values.items():
            assert np.array_equal(labels.data == value, mask.data == {"shell": 3, "core": 200}[label])
        if name not in ("nnunet",):
            assert case.attributes == dict(told(int(case.id[-1])).attributes) and case.text == "a round thing"
            assert case.patient is None or name == "dicom"


def _turned(volume: Volume) -> Volume:
    """The same volume with its third axis stored the other way."""
    affine = np.array(volume.affine)
    affine[:3, 3] += affine[:3, 2] * (volume.grid[2] - 1)
    affine[:3, 2] *= -1
    return volume.replace(data=volume.data[..., ::-1], affine=affine)


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("name", AS_FILES)
def test_types_and_channels_come_back(name: str, dtype: Any, tmp_path: Path) -> None:
    names = ("T2w", "CT") if name == "dicom" else ("T2w", "FLAIR", "T1ce")
    given = write_set(name, tmp_path, channels=names, dtype=dtype, count=2)
    dataset = read(tmp_path)
    assert dataset.channels == names
    for case, (image, _) in zip(dataset.cases, given, strict=True):
        seen = read_image(case, dataset)
        assert np.abs(seen.data.astype(float) - image.data.astype(float)).max() <= (0.02 if dtype == np.float32 else 0)
        if not (name == "dicom" and dtype == np.float32):
            assert seen.data.dtype == np.dtype(dtype)


@pytest.mark.parametrize("name", [name for name in AS_FILES if name != "nnunet"])
def test_slices_and_pictures_come_back(name: str, tmp_path: Path) -> None:
    image, labels = phantom(1, (16, 12))
    grey = np.clip(image / 4, 0, 255).astype(np.uint8)[None]
    mask = np.array([0, 3, 200], dtype=np.uint8)[labels][None]
    affine = np.diag([-0.5, -0.5, 1.0, 1.0])
    ending = ".png" if name in ("folder", "hf") else ".nii.gz"
    writer = WRITERS[name](tmp_path, about(("grey",), ending))
    writer.add("syn_00000", Volume(grey, affine), Volume(mask, affine, {"shell": 3, "core": 200}), told(0))
    writer.finish(1, [told(0)])
    dataset = read(tmp_path)
    seen = read_image(dataset.cases[0], dataset)
    assert np.array_equal(seen.data, grey) and seen.spacing_mm == pytest.approx((0.5, 0.5))
    assert np.array_equal(read_mask(dataset.cases[0], dataset, seen).data, mask)


@pytest.mark.parametrize("name", WRITERS)
def test_wrong_pairs_leave_nothing_behind(name: str, tmp_path: Path) -> None:
    image, mask = pair(0)
    writer = WRITERS[name](tmp_path / "out", about())
    moved = mask.replace(affine=mask.affine + np.eye(4)[[0, 0, 0, 0]] * 0.5)
    nan = image.replace(data=np.full_like(image.data, np.nan))
    strange = mask.replace(data=np.full_like(mask.data, 9))
    other = mask.replace(labels={"shell": 3, "stranger": 200})
    for wrong, error in (((image, moved), GeometryError), ((nan, mask), DataError), ((image, strange), DataError)):
        with pytest.raises(error):
            writer.add("syn_00000", *wrong, told(0))
    with pytest.raises(DataError, match="stranger"):
        writer.add("syn_00000", image, other, told(0))
    with pytest.raises(DataError, match="2 channels, the dataset 1"):
        writer.add("syn_00000", image.replace(data=np.concatenate([image.data] * 2)), mask, told(0))
    with pytest.raises(OutputError, match="no plain file name"):
        writer.add("../syn_00000", image, mask, told(0))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", WRITERS)
def test_an_unfinished_set_is_no_dataset(name: str, tmp_path: Path) -> None:
    write_set(name, tmp_path, count=2)
    writer = WRITERS[name](tmp_path, about())
    writer.reopen()
    assert not [index for index in writer.index if (tmp_path / index).exists()]
    with pytest.raises(OutputError, match="2 of 3 cases|0 of 3 cases"):
        writer.finish(3, [told(index) for index in range(3)])


def test_medmnist_has_the_arrays_its_loader_asks_for(tmp_path: Path) -> None:
    given = write_set("medmnist", tmp_path)
    info = json.loads((tmp_path / "synth.json").read_text())
    with np.load(tmp_path / info["archive"]) as held:
        assert sorted(held.files) == sorted(
            f"{s}_{k}" for s in ("train", "val", "test") for k in ("images", "labels", "masks")
        )
        assert held["train_images"].shape == (3, 28, 28, 28) and held["train_images"].dtype == np.uint8
        assert held["train_labels"].shape == (3, 2) and held["val_images"].shape == (0, 28, 28, 28)
    assert info["label"] == {"0": "shell", "1": "core"}
    for (image, label, mask), (_, given_mask) in zip(medmnist.pairs(tmp_path / info["archive"]), given, strict=True):
        assert image.shape == (1, 28, 28, 28) and label.tolist() == [1, 1] and mask is not None
        share = (mask == 3).mean() / (given_mask.data == 3).mean()
        # the cube of 14 x 1.92 mm holds 14 x 12 x 10 voxels of 1.92 x 2.02 x 3 mm only in part
        extent = np.array(given_mask.grid) * given_mask.spacing_mm
        assert share == pytest.approx(extent.prod() / extent.max() ** 3, rel=0.1)
        assert image[0][mask == 200].mean() > image[0][mask == 3].mean() > image[0][mask == 0].mean()


def test_medmnist_has_the_sizes_that_its_classes_take_and_what_they_ask_for(tmp_path: Path) -> None:
    sizes = {}
    for name, grid in (("small", (20, 18, 16)), ("large", (130, 20, 20)), ("flat", (130, 90))):
        image = Volume(np.random.default_rng(0).normal(100, 20, (1, *grid)).astype(np.float32), np.eye(4))
        mask = Volume(np.zeros((1, *grid), np.uint8), np.eye(4), about().label_values)
        writer = WRITERS["medmnist"](tmp_path / name, about())
        writer.add("syn_00000", image, mask, told(0))
        writer.finish(1, [told(0)])
        info = json.loads((tmp_path / name / "synth.json").read_text())
        sizes[name] = info["size"]
        suffix = "" if info["size"] == 28 else f"_{info['size']}"
        assert info["archive"] == f"{info['flag']}{suffix}.npz" and (tmp_path / name / info["archive"]).is_file()
        asked = {"task", "label", "n_channels", "n_samples", "description", "license"}
        assert asked <= set(info) and "SYNTHETIC" in info["description"]
    assert sizes == {"small": 28, "large": 64, "flat": 128}, "MedMNIST3D has cubes of 28 and 64 alone"


@pytest.mark.parametrize("channels", [("grey",), ("a", "b"), ("red", "green", "blue")])
def test_medmnist_pictures_are_rows_of_pixels(tmp_path: Path, channels: tuple[str, ...]) -> None:
    """A bar along the columns, high up: PIL shows an archive's first axis downwards."""
    bar = np.zeros((len(channels), 28, 28), np.uint8)
    bar[:, 4:24, 3] = 200
    mask = Volume((bar[:1] > 0).astype(np.uint8) * 3, labels=about().label_values)
    writer = WRITERS["medmnist"](tmp_path, about(channels, ".png"))
    writer.add("syn_00000", Volume(bar), mask, told(0))
    writer.finish(1, [told(0)])
    info = json.loads((tmp_path / "synth.json").read_text())
    with np.load(tmp_path / info["archive"]) as held:
        (picture,), (labels,) = held["train_images"], held["train_masks"]
    assert np.argwhere(labels)[:, 0].tolist() == [3] * 20 and np.argwhere(labels)[:, 1].tolist() == list(range(4, 24))
    assert np.array_equal(picture.reshape(28, 28, -1)[..., 0] > 0, labels > 0)
    ((image, _, read),) = medmnist.pairs(tmp_path / info["archive"])
    assert np.array_equal(image, bar) and np.array_equal(read, mask.data[0])
    part = [writer.part(told(0), name).data for name in writer.parts(told(0))]
    assert np.array_equal(part[0], bar) and np.array_equal(part[1], mask.data)


def test_shards_hold_every_voxel_and_extend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webdataset, "SHARD", 2)
    given = write_set("webdataset", tmp_path / "whole", count=5)
    found = list(webdataset.pairs(tmp_path / "whole"))
    assert [path.name for path in webdataset.shards_of(tmp_path / "whole")] == [f"shard-{n:05d}.tar" for n in range(3)]
    for (image, mask, said), (own, labels) in zip(found, given, strict=True):
        assert np.array_equal(image.data, own.data) and image.data.dtype == own.data.dtype
        assert np.array_equal(mask.data, labels.data) and np.array_equal(image.affine, own.affine)
        assert said["text"] == "a round thing" and dict(mask.labels or {}) == {"shell": 3, "core": 200}
    part = tmp_path / "grown"
    write_set("webdataset", part, count=3)
    writer = WRITERS["webdataset"](part, about())
    assert writer.has("syn_00002") and not writer.has("syn_00003")
    for index in (3, 4):
        writer.add(f"syn_{index:05d}", *pair(index), told(index))
    writer.finish(5)
    assert content(part) == content(tmp_path / "whole")
    with tarfile.open(part / "shard-00000.tar") as shard:
        members = shard.getmembers()
    assert {(m.uid, m.gid, m.mtime, m.mode, m.uname) for m in members} == {(0, 0, 0, 0o644, "")}
    assert [m.name for m in members[:3]] == ["syn_00000.image.npy", "syn_00000.label.npy", "syn_00000.json"]


def test_a_kill_between_packing_and_tidying_loses_nothing(tmp_path: Path) -> None:
    write_set("webdataset", tmp_path / "whole")
    out = tmp_path / "cut"
    writer = WRITERS["webdataset"](out, about())
    for index in range(3):
        writer.add(f"syn_{index:05d}", *pair(index), told(index))
    kept = (out / "parts" / "syn_00001.tar").read_bytes()
    writer.finish(3)
    (out / "parts").mkdir()
    (out / "parts" / "syn_00001.tar").write_bytes(kept)  # its shard is written, the part not yet gone
    again = WRITERS["webdataset"](out, about())
    assert all(again.has(f"syn_{index:05d}") for index in range(3))
    again.finish(3)
    assert content(out) == content(tmp_path / "whole")


def test_damaged_shards_and_archives_are_one_line(tmp_path: Path) -> None:
    write_set("webdataset", tmp_path / "w", count=1)
    shard = tmp_path / "w" / "shard-00000.tar"
    shard.write_bytes(shard.read_bytes()[:1500])
    with pytest.raises(DataError, match=r"shard-00000\.tar"):
        list(webdataset.pairs(tmp_path / "w"))
    with pytest.raises(DataError, match=r"no shard-\*\.tar"):
        list(webdataset.pairs(tmp_path))
    (tmp_path / "x.npz").write_bytes(b"no zip")
    with pytest.raises(DataError, match="no MedMNIST archive"):
        list(medmnist.pairs(tmp_path / "x.npz"))


@pytest.mark.parametrize("name", ["medmnist", "webdataset"])
def test_archives_are_told_from_folders(name: str, tmp_path: Path) -> None:
    write_set(name, tmp_path, count=1)
    with pytest.raises(DataError, match=r"archives of cases, not files; read them by .*pairs"):
        read(tmp_path)


def test_msd_keeps_channels_in_the_fourth_axis(tmp_path: Path) -> None:
    import nibabel

    write_set("msd", tmp_path, channels=("T1w", "FLAIR"))
    info = json.loads((tmp_path / "dataset.json").read_text())
    assert nibabel.load(tmp_path / "imagesTr" / "syn_00000.nii.gz").shape == (*GRID, 2)
    assert info["tensorImageSize"] == "4D" and info["labels"] == {"0": "background", "3": "shell", "200": "core"}
    assert info["training"][1]["seed"] == [7, 1, 0] and info["numTraining"] == 3 and info["test"] == []


def test_monai_reads_the_datalist(tmp_path: Path) -> None:
    from monai.data import load_decathlon_datalist

    write_set("msd", tmp_path, count=2)
    items = load_decathlon_datalist(tmp_path / "dataset.json", is_segmentation=True, data_list_key="training")
    assert [Path(item["image"]).is_file() and Path(item["label"]).is_file() for item in items] == [True, True]


def test_bids_names_files_as_the_standard_does(tmp_path: Path) -> None:
    write_set("bids", tmp_path, channels=("T1", "CT"), count=1)
    names = sorted(p.name for p in (tmp_path / "sub-syn00000" / "anat").iterdir())
    assert names == sorted(
        f"sub-syn00000_desc-synthetic_{suffix}{ending}"
        for suffix in ("T1w", "CT", "dseg")
        for ending in (".nii.gz", ".json")
    )
    description = json.loads((tmp_path / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative" and description["GeneratedBy"][0]["Name"] == "synthvol"
    assert (
        "**/*_CT.*" in (tmp_path / ".bidsignore").read_text()
        and "manifest.jsonl" in (tmp_path / ".bidsignore").read_text()
    )
    assert (tmp_path / "dseg.tsv").read_text().splitlines()[1:] == [
        "0\tbackground\t#000000",
        *(
            f"{one.value}\t{one.name}\t#{one.colour[0]:02x}{one.colour[1]:02x}{one.colour[2]:02x}"
            for one in LABELS
            if one.colour
        ),
    ]
    assert bids_writing.suffixes(("MR",), {"contrast": "T2"}) == ("T2w",)
    assert bids_writing.suffixes(("T1", "T1w"), {}) == ("T1w", "T1w1")


def test_contrasts_of_one_channel_are_one_channel_again(tmp_path: Path) -> None:
    writer = WRITERS["bids"](tmp_path, about())
    said = [Told(f"syn_{n:05d}", {"contrast": name}) for n, name in enumerate(("T1", "FLAIR"))]
    for number, one in enumerate(said):
        writer.add(one.case, *pair(number), one)
    writer.finish(2, said)
    dataset = read(tmp_path)
    assert dataset.channels == ("MR",)
    assert [case.images[0].name.split("_")[-1] for case in dataset.cases] == ["T1w.nii.gz", "FLAIR.nii.gz"]
    assert [case.attributes["contrast"] for case in dataset.cases] == ["T1", "FLAIR"]


def test_synthrad_s_own_folders_are_read(tmp_path: Path) -> None:
    for name in ("1ABA001", "1ABA002"):
        image, mask = pair(int(name[-1]))
        place = tmp_path / "Task1" / "AB" / name
        for part in ("mr", "ct"):
            write(image, place / f"{part}.mha")
        write(mask.replace(data=(mask.data > 0).astype(np.uint8), labels=None), place / "mask.mha")
    (tmp_path / "Task1" / "AB" / "overview").mkdir()
    dataset = read(tmp_path / "Task1")
    assert dataset.channels == ("CT", "MR") and dataset.label_values == {"body": 1} and dataset.layout == "SynthRAD"
    assert [case.id for case in dataset.cases] == ["1ABA001", "1ABA002"]
    (tmp_path / "Task1" / "AB" / "1ABA002" / "ct.mha").unlink()
    with pytest.raises(DataError, match="1ABA002 has mr, others ct, mr"):
        read(tmp_path / "Task1" / "AB")
    assert synthrad.file_name("***") == "channel"


def test_paths_out_of_an_hf_folder_are_refused(tmp_path: Path) -> None:
    write_set("hf", tmp_path, count=2)
    table = tmp_path / "train" / "metadata.jsonl"
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    for name in ("../../x.nii.gz", "/etc/passwd", "images/none.nii.gz"):
        rows[1]["image_file_name"] = name
        table.write_text("\n".join(map(json.dumps, rows)))
        with pytest.raises(DataError, match=r"metadata\.jsonl line 2"):
            read(tmp_path)


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "nnunet"])
def test_generate_writes_it_resumes_and_extends(name: str, model: Path, tmp_path: Path) -> None:
    ask = ["generate", str(model), "--format", name, "--steps", "1", "--prompts", "--spread", "kind"]
    assert run("generate", [*ask[1:], "--out", str(tmp_path / "a"), "--count", "3", "--workers", "1"]) == 0
    whole = content(tmp_path / "a")
    assert (
        run("generate", [*ask[1:], "--out", str(tmp_path / "b"), "--count", "2", "--shard", "1/2", "--workers", "1"])
        == 0
    )
    assert not (tmp_path / "b" / "manifest.jsonl").exists()
    assert run("generate", [*ask[1:], "--out", str(tmp_path / "b"), "--count", "2", "--workers", "1"]) == 0
    assert run("generate", [*ask[1:], "--out", str(tmp_path / "b"), "--count", "3", "--workers", "1"]) == 0
    assert content(tmp_path / "b") == whole
    rows = [json.loads(line) for line in whole["manifest.jsonl"].splitlines()]
    assert [row["case"] for row in rows] == ["syn_00000", "syn_00001", "syn_00002"] and all(
        row["files"] for row in rows
    )
    assert len(whole["prompts.jsonl"].splitlines()) == 3


def test_another_format_in_a_folder_is_refused(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask = [str(model), "--steps", "1", "--out", str(tmp_path / "a"), "--count", "1", "--workers", "1"]
    assert run("generate", [*ask, "--format", "msd"]) == 0
    assert run("generate", ask) == 2
    assert "begun with format = msd" in capsys.readouterr().err
