"""Malformed and odd datasets of every layout but nnU-Net's (tests/test_cli.py): exit code 2, one line, nothing written.

The tables are the list: layout, what was done to it, what the line says.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from pipelines.cli import main
from synth.data.prepared import Prepared
from synth.io import read, write
from synth.volume import Volume
from tests.formats import datasets
from tests.test_cli import refusal

Spoil = Callable[[Path], object]


def _json(folder: Path, **fields: object) -> None:
    """Change dataset.json; None takes a field out."""
    info = {**json.loads((folder / "dataset.json").read_text()), **fields}
    (folder / "dataset.json").write_text(json.dumps({name: value for name, value in info.items() if value is not None}))


def _entry(folder: Path, **fields: object) -> None:
    """Change the first case that an MSD list names."""
    info = json.loads((folder / "dataset.json").read_text())
    info["training"][0].update(fields)
    (folder / "dataset.json").write_text(json.dumps(info))


def _copy(folder: Path, source: str, target: str) -> None:
    (folder / target).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / source, folder / target)


def _moved(path: Path) -> None:
    volume = read(path)
    affine = np.array(volume.affine)
    affine[2, 3] += 4.0
    write(volume.replace(affine=affine), path)


def _value(path: Path, value: int) -> None:
    volume = read(path)
    data = volume.data.copy()
    data.flat[0] = value
    write(volume.replace(data=data), path)


def _picture(path: Path, data: np.ndarray, **options: object) -> None:
    Image.fromarray(data).save(path, **options)  # pyright: ignore


A, ONE, MADE = "sub-01/ses-a/anat/sub-01_ses-a", "brain_000.nii.gz", "derivatives/manual"
MASK = f"{MADE}/{A}_dseg.nii.gz"

FAULTS: dict[tuple[str, str], tuple[Spoil, str]] = {
    # MSD
    ("msd", "modality is text"): (lambda f: _json(f, modality="MR"), "modality is 'MR'"),
    ("msd", "one modality for two"): (lambda f: _json(f, modality={"0": "MR"}), "2 channels in its fourth axis"),
    ("msd", "no labels"): (lambda f: _json(f, labels=None), "has no 'labels'"),
    ("msd", "labels without values"): (lambda f: _json(f, labels={"a": "b"}), "names no whole number"),
    ("msd", "background alone"): (lambda f: _json(f, labels={"0": "background"}), "names the background alone"),
    ("msd", "no list"): (lambda f: _json(f, training={}), "training is no list"),
    ("msd", "count"): (lambda f: _json(f, numTraining=9), "numTraining 9"),
    ("msd", "entry leaves the folder"): (lambda f: _entry(f, image="../other/a.nii.gz"), "no path inside"),
    ("msd", "entry is absolute"): (lambda f: _entry(f, label="/etc/passwd.nii.gz"), "no path inside"),
    ("msd", "entry with a drive"): (lambda f: _entry(f, label="C:\\data\\a.nii.gz"), "no path inside"),
    ("msd", "entry is a number"): (lambda f: _entry(f, image=3), "no path inside"),
    ("msd", "entry without label"): (lambda f: _json(f, numTraining=1, training=[{"image": "./imagesTr/a.nii.gz"}]), "training[0] is"),
    ("msd", "image missing"): (lambda f: (f / "imagesTr" / ONE).unlink(), "is not there"),
    ("msd", "case twice"): (lambda f: _entry(f, image="./imagesTr/brain_001.nii.gz"), "again; remove one"),
    ("msd", "value of no label"): (lambda f: _value(f / "labelsTr" / ONE, 9), "value 9"),
    ("msd", "mask elsewhere"): (lambda f: _moved(f / "labelsTr" / ONE), "mask affine does not match"),
    ("msd", "time and channels"): (
        lambda f: nibabel.save(nibabel.Nifti1Image(np.zeros((10, 8, 6, 2, 2), np.int16), np.eye(4)), f / "imagesTr" / ONE),
        "split time points",
    ),
    ("msd", "a constant channel"): (
        lambda f: datasets.write_4d(f / "imagesTr" / ONE, [datasets.pair(0)[0], Volume(np.ones((1, *datasets.GRID), np.int16), datasets.OBLIQUE)]),
        "channel 1 of",
    ),
    # BIDS
    ("bids", "two runs"): (lambda f: _copy(f, f"{A}_T1w.nii.gz", f"{A}_run-2_T1w.nii.gz"), "several T1w"),
    ("bids", "two derivatives"): (lambda f: _copy(f, MASK, "derivatives/auto/sub-01/sub-01_ses-a_dseg.nii.gz"), "2 masks: derivatives/auto"),
    ("bids", "dseg and mask"): (
        lambda f: (f / MASK).rename((f / MASK).with_name("sub-01_ses-a_desc-brain_mask.nii.gz")),
        "masks of several kinds",
    ),
    ("bids", "no mask"): (lambda f: (f / MASK).unlink(), "sub-01_ses-a has no mask"),
    ("bids", "another subject's folder"): (lambda f: _copy(f, f"{A}_T1w.nii.gz", "sub-02/ses-a/anat/sub-01_ses-a_T1w.nii.gz"), "its folder says sub-02_ses-a"),
    ("bids", "no suffix in common"): (
        lambda f: [path.rename(path.with_name(path.name.replace("FLAIR", f"c{n}").replace("T1w", f"d{n}"))) for n, path in enumerate(sorted(f.glob("sub-*/*/anat/*.nii.gz")))],
        "no suffix that all 4 sessions have",
    ),
    ("bids", "no images"): (lambda f: [shutil.rmtree(path) for path in f.glob("sub-*")], "has no images"),
    ("bids", "channels on two grids"): (lambda f: write(Volume(np.ones((1, 5, 4, 3), np.int16)), f / f"{A}_T1w.nii.gz"), "T1w.nii.gz grid (5, 4, 3)"),
    ("bids", "mask in template space"): (lambda f: _moved(f / MASK), "mask affine does not match"),
    ("bids", "ragged participants"): (lambda f: (f / "participants.tsv").write_text("participant_id\tage\nsub-01\n"), "line 2 has 1 cells"),
    ("bids", "participants without id"): (lambda f: (f / "participants.tsv").write_text("id\tage\nsub-01\t3\n"), "'participant_id'"),
    ("bids", "table of text"): (lambda f: (f / MADE / "dseg.tsv").write_text("index\tname\nx\tshell\n"), "index 'x'"),
    ("bids", "table names twice"): (lambda f: (f / MADE / "dseg.tsv").write_text("index\tname\n1\ta\n2\ta\n"), "'a' twice"),
    ("bids", "tables disagree"): (lambda f: (f / MASK.replace(".nii.gz", ".tsv")).write_text("index\tname\n1\tcore\n2\tshell\n"), "calls 1"),
    ("bids", "value without name"): (lambda f: (f / MADE / "dseg.tsv").write_text("index\tname\n1\tshell\n"), "value 2"),
    # DICOM case folders; faults of a series are in test_dicom.py
    ("dicom", "slice missing"): (lambda f: (f / "case1/image/im757.dcm").unlink(), "case1/image misses slices: 1 between"),
    ("dicom", "no mask"): (lambda f: (f / "case1/mask.nii.gz").unlink(), "case1 has no mask"),
    ("dicom", "two masks"): (lambda f: _copy(f, "case1/mask.nii.gz", "case1/mask.nii"), "has mask.nii.gz, mask.nii; keep one"),
    ("dicom", "empty image folder"): (lambda f: [p.unlink() for p in (f / "case1/image").iterdir()], "case1/image holds no DICOM"),
    ("dicom", "folder without image"): (lambda f: (f / "misc").mkdir(), "misc has no image folder"),
    ("dicom", "other channels"): (lambda f: (f / "case1/image").rename(f / "case1/image_T1"), "case1 has channels T1, others CT"),
    ("dicom", "a PatientID missing"): (lambda f: _changed(f / "case1/image", PatientID=""), "there is no patient for case 'case1'"),
    ("dicom", "CT and MR in one channel"): (lambda f: [p.rename(p.with_name("image_a")) for p in sorted(f.glob("*/image"))] and _changed(f / "case1/image_a", Modality="MR"), "case1/image_a holds MR, the same folder of the first case CT"),
    ("dicom", "two patients in a case"): (lambda f: _patient(f / "case0/image/im000.dcm"), "2 PatientIDs"),
    ("dicom", "mask elsewhere"): (lambda f: _moved(f / "case2/mask.nii.gz"), "case 'case2'"),
    ("dicom", "value of no label"): (lambda f: _value(f / "case2/mask.nii.gz", 9), "value 9"),
    ("dicom", "labels.json broken"): (lambda f: (f / "labels.json").write_text("{"), "labels.json line 1"),
    ("dicom", "labels.json names twice"): (lambda f: (f / "labels.json").write_text('{"1": "a", "2": "a"}'), "twice"),
    ("dicom", "stranger in cases.csv"): (lambda f: (f / "cases.csv").write_text("case,age\nghost,3\n"), "'ghost'"),
    ("segments", "unnamed by labels.json"): (lambda f: (f / "labels.json").write_text('{"shel": 1, "core": 2}'), "did you mean 'shel'"),
    ("segments", "one mask is NIfTI"): (lambda f: _nifti_mask(f / "case1"), "no labels.json says"),
    ("segments", "another case's"): (lambda f: _other_segmentation(f), "frame 1 does not lie on a slice"),
    # pictures and folders of volumes
    ("pictures", "mask missing"): (lambda f: (f / "masks/c1.png").unlink(), "c1.png has no file of the same name"),
    ("pictures", "image missing"): (lambda f: (f / "images/c1.png").unlink(), "c1.png has no file of the same name"),
    ("pictures", "masks and labels"): (lambda f: shutil.copytree(f / "masks", f / "labels"), "has masks/ and labels/"),
    ("pictures", "JPEG masks"): (lambda f: (_picture(f / "masks/c1.jpg", np.zeros((9, 12), np.uint8)), (f / "masks/c1.png").unlink()), "save masks as PNG"),
    ("pictures", "coloured mask"): (lambda f: _picture(f / "masks/c1.png", np.arange(324, dtype=np.uint8).reshape(9, 12, 3)), "mask in colours"),
    ("pictures", "other size"): (lambda f: _picture(f / "masks/c1.png", np.zeros((12, 9), np.uint8)), "mask grid (9, 12)"),
    ("pictures", "grey among colours"): (lambda f: _picture(f / "images/c1.png", np.zeros((9, 12), np.uint8)), "has 1 channels, others have 3"),
    ("pictures", "one name twice"): (lambda f: _picture(f / "images/c1.jpg", np.zeros((9, 12, 3), np.uint8)), "have one name"),
    ("pictures", "JPEG named PNG"): (lambda f: _picture(f / "images/c1.png", np.zeros((9, 12, 3), np.uint8), format="JPEG"), "is JPEG data"),
    ("pictures", "soft edges"): (lambda f: (f / "dataset.json").unlink() or _soft(f / "masks/c1.png", 12), "hold 13 grey values, as soft edges"),
    ("pictures", "many greys"): (lambda f: (f / "dataset.json").unlink() or _soft(f / "masks/c1.png", 80), "grey values, as soft edges"),
    ("pictures", "empty masks"): (lambda f: (f / "dataset.json").unlink() or [_picture(p, np.zeros((9, 12), np.uint8)) for p in (f / "masks").iterdir()], "has no label but the background"),
    ("pictures", "CMYK"): (lambda f: (f / "images/c1.png").rename(f / "images/c1.jpg") and Image.new("CMYK", (12, 9)).save(f / "images/c1.jpg"), "kind CMYK"),
    ("pictures", "truncated"): (lambda f: (f / "images/c1.png").write_bytes((f / "images/c1.png").read_bytes()[:90]), "images/c1.png is truncated"),
    ("pictures", "text"): (lambda f: (f / "images/c1.png").write_text("no"), "is no picture"),
    ("pictures", "transparent"): (lambda f: _picture(f / "images/c1.png", np.zeros((9, 12, 4), np.uint8)), "transparent"),
    ("pictures", "constant"): (lambda f: _picture(f / "images/c1.png", np.full((9, 12, 3), 7, np.uint8)), "is constant"),
    ("pictures", "two channels named"): (lambda f: _json(f, channel_names={"0": "a", "1": "b"}), "dataset.json names 2"),
    ("pictures", "value of no label"): (lambda f: _picture(f / "masks/c1.png", np.full((9, 12), 9, np.uint8)), "value 9"),
    ("pictures", "empty"): (lambda f: [p.unlink() for p in (f / "images").iterdir()], "holds no volumes"),
    # none
    ("nothing", "empty folder"): (lambda f: f.mkdir(), "Looked for: "),
    ("nothing", "one series"): (lambda f: datasets.dicom(f.parent / "x") and (f.parent / "x/case0/image").rename(f) and shutil.rmtree(f.parent / "x"), "is one DICOM folder, no dataset"),
    ("nothing", "a file"): (lambda f: f.write_text("x"), "is not a folder"),
}  # fmt: skip


def _patient(path: Path) -> None:
    from tests.formats.dicom_files import edit

    edit(path, PatientID="Q")


def _changed(folder: Path, **elements: object) -> None:
    """Change elements of every slice of a folder."""
    from tests.formats.dicom_files import edit

    for path in folder.iterdir():
        edit(path, **elements)


def _soft(path: Path, levels: int) -> None:
    """A white square with edges of so many greys."""
    ramp = np.linspace(0, 255, levels).astype(np.uint8)
    _picture(path, np.resize(ramp, (9, 12)))


def _nifti_mask(case: Path) -> None:
    (case / "mask.dcm").unlink()
    write(datasets.pair(1)[1], case / "mask.nii.gz")


def _other_segmentation(folder: Path) -> None:
    from tests.formats.dicom_files import write_segmentation

    mask = datasets.pair(1)[1]
    there = np.array(mask.affine)
    there[:3, 3] += 1.0
    write_segmentation(folder / "case1" / "mask.dcm", mask.replace(affine=there), {1: "shell", 2: "core"})


MAKERS: dict[str, Callable[[Path], object]] = {
    "msd": datasets.msd,
    "bids": datasets.bids,
    "dicom": datasets.dicom,
    "segments": lambda folder: datasets.dicom(folder, segmentation=True),
    "pictures": datasets.pictures,
    "nothing": lambda folder: None,
}


@pytest.mark.parametrize(("layout", "name"), FAULTS)
def test_a_fault_ends_in_one_line(layout: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "source"
    MAKERS[layout](source)
    spoil, words = FAULTS[layout, name]
    spoil(source)
    said = refusal(source, capsys)
    assert words in said and ";" in said


ODD: dict[tuple[str, str], tuple[Spoil, int]] = {
    ("msd", "._ files listed nowhere"): (lambda f: None, 3),
    ("msd", "images that the list leaves out"): (lambda f: _copy(f, f"imagesTr/{ONE}", "imagesTr/extra.nii.gz"), 3),
    ("msd", "labels spelled name: value"): (lambda f: _json(f, labels={"background": 0, "shell": 1, "core": 2}), 3),
    ("bids", "no participants.tsv"): (lambda f: (f / "participants.tsv").unlink(), 4),
    ("bids", "functional images beside"): (lambda f: _copy(f, f"{A}_T1w.nii.gz", "sub-01/ses-a/func/sub-01_ses-a_bold.nii.gz"), 4),
    ("bids", "probabilities beside the masks"): (lambda f: _copy(f, MASK, MASK.replace("dseg", "label-GM_probseg")), 4),
    ("dicom", "notes beside the slices"): (lambda f: (f / "case0/image/notes.txt").write_text("x"), 3),
    ("dicom", "hidden folders"): (lambda f: (f / ".git").mkdir(), 3),
    ("pictures", "thumbnails"): (lambda f: (f / "images/Thumbs.db").write_bytes(b"x"), 3),
    ("pictures", "palette masks"): (lambda f: _picture(f / "masks/c1.png", np.asarray(Image.open(f / "masks/c1.png"))), 3),
}  # fmt: skip
"""What is handled, with the number of cases that come out."""


@pytest.mark.parametrize(("layout", "name"), ODD)
def test_what_is_only_odd_is_read(layout: str, name: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    MAKERS[layout](source)
    spoil, count = ODD[layout, name]
    spoil(source)
    assert main(["prepare", str(source), "--out", str(tmp_path / "out")]) == 0
    assert len(Prepared.load(tmp_path / "out").cases) == count
