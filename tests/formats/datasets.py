"""Small datasets of phantoms in each layout, for tests to read and to spoil."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from synth.io import write
from synth.volume import Volume
from tests.conftest import OBLIQUE, phantom

GRID = (10, 8, 6)
LABELS = {"shell": 1, "core": 2}


def pair(index: int, grid: tuple[int, ...] = GRID, affine: np.ndarray = OBLIQUE) -> tuple[Volume, Volume]:
    """Image (int16) and mask of one phantom."""
    image, labels = phantom(index, grid)
    return Volume(image.astype(np.int16)[None], affine), Volume(labels[None], affine)


def write_4d(path: Path, volumes: list[Volume]) -> None:
    """Write channels along the fourth axis, as MSD does; `write` would use the fifth."""
    import nibabel

    data = np.stack([volume.data[0] for volume in volumes], axis=-1)
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(data, volumes[0].affine), path)


def msd(folder: Path, *, channels: tuple[str, ...] = ("FLAIR", "T1w"), count: int = 3) -> Path:
    """A decathlon task of several channels."""
    listed = []
    for index in range(count):
        image, mask = pair(index)
        name = f"brain_{index:03d}.nii.gz"
        write_4d(folder / "imagesTr" / name, [image.replace(data=image.data + c) for c in range(len(channels))])
        write(mask, folder / "labelsTr" / name)
        (folder / "imagesTr" / f"._{name}").write_bytes(b"\0\5\x16\7")
        listed.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    info = {
        "name": "Phantoms",
        "tensorImageSize": "4D",
        "modality": {str(n): name for n, name in enumerate(channels)},
        "labels": {"0": "background", **{str(value): name for name, value in LABELS.items()}},
        "numTraining": count,
        "training": listed,
        "test": [],
    }
    (folder / "dataset.json").write_text(json.dumps(info))
    return folder


SESSIONS = ("sub-01_ses-a", "sub-01_ses-b", "sub-02_ses-a", "sub-03_ses-a")


def bids(folder: Path) -> Path:
    """Three subjects, one of two sessions, T1w and FLAIR, masks with their table as a derivative."""
    made = folder / "derivatives" / "manual"
    for index, name in enumerate(SESSIONS):
        image, mask = pair(index)
        place = Path(*name.split("_"), "anat")
        for suffix in ("T1w", "FLAIR"):
            write(image, folder / place / f"{name}_{suffix}.nii.gz")
        write(mask, made / place / f"{name}_dseg.nii.gz")
    write(pair(0)[0], folder / "sub-02" / "ses-a" / "anat" / "sub-02_ses-a_T2w.nii.gz")
    (folder / "dataset_description.json").write_text(json.dumps({"Name": "Phantoms", "BIDSVersion": "1.9.0"}))
    (made / "dseg.tsv").write_text("index\tname\n0\tbackground\n1\tshell\n2\tcore\n")
    (folder / "participants.tsv").write_text(
        "participant_id\tage\tsex\nsub-01\t61\tF\nsub-02\tn/a\tM\nsub-03\t44\tF\nsub-09\t5\tM\n"
    )
    return folder


def dicom(folder: Path, *, segmentation: bool = False) -> Path:
    """Three cases of two patients; masks as NIfTI with labels.json, or as SEG with its own names."""
    from tests.formats.dicom_files import write_segmentation, write_series

    for index in range(3):
        image, mask = pair(index)
        case = folder / f"case{index}"
        write_series(
            case / "image", image, patient=("Smith^A", "Smith^A", "Jones^B")[index], series=f"1.2.3.{index + 1}"
        )
        if segmentation:
            write_segmentation(case / "mask.dcm", mask, {1: "shell", 2: "core"})
        else:
            write(mask, case / "mask.nii.gz")
    if not segmentation:
        (folder / "labels.json").write_text(json.dumps(LABELS))
    return folder


def pictures(folder: Path, *, colour: bool = True, ending: str = ".png", count: int = 3) -> Path:
    """2D pictures with grey masks of label values, named in dataset.json."""
    for index in range(count):
        image, labels = phantom(index, (12, 9))
        grey = np.clip(image / 4, 0, 255).astype(np.uint8).T
        data = np.stack([grey, grey // 2, 255 - grey], axis=-1) if colour else grey
        for kind, values in (("images", data), ("masks", labels.T)):
            path = folder / kind / (f"c{index}{ending}" if kind == "images" else f"c{index}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.ascontiguousarray(values)).save(path)
    (folder / "dataset.json").write_text(json.dumps({"labels": LABELS}))
    return folder
