"""Dataset layouts, read and written. `read` finds out which one a folder has."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from synth.data.dataset import Dataset
from synth.errors import DataError
from synth.formats import bids, bids_writing, dicom, folder, hf, medmnist, msd, nnunet, synthrad, webdataset
from synth.formats.writing import WriterMaker


class Layout(NamedTuple):
    """One way to lay out a dataset: how it is recognised, read, and told to users."""

    name: str
    fits: Callable[[Path], bool]
    read: Callable[[Path], Dataset]
    looks: str


LAYOUTS = (
    Layout("MSD", msd.fits, msd.read_dataset, msd.LOOKS),
    Layout("images and masks", folder.fits, folder.read_dataset, folder.LOOKS),
    Layout("nnU-Net", nnunet.fits, nnunet.read_dataset, nnunet.LOOKS),
    Layout("BIDS", bids.fits, bids.read_dataset, bids.LOOKS),
    Layout("DICOM", dicom.fits, dicom.read_dataset, dicom.LOOKS),
    Layout("SynthRAD", synthrad.fits, synthrad.read_dataset, synthrad.LOOKS),
    Layout("HF datasets", hf.fits, hf.read_dataset, hf.LOOKS),
)
"""In the order in which they are tried; the first that fits counts."""

WRITERS: Mapping[str, WriterMaker] = {
    "nnunet": nnunet.DatasetWriter.of,
    "msd": msd.MSDWriter,
    "bids": bids_writing.BIDSWriter,
    "dicom": dicom.DICOMWriter,
    "folder": folder.FolderWriter,
    "medmnist": medmnist.MedMNISTWriter,
    "synthrad": synthrad.SynthRADWriter,
    "webdataset": webdataset.WebDatasetWriter,
    "hf": hf.HFWriter,
}
"""What `--format` may name -> the writer of that layout."""


def detect(place: str | Path) -> Layout:
    """Return the layout of a folder. Errors: DataError that says what was looked for, and where one is below."""
    place = Path(place)
    if not place.is_dir():
        raise DataError(f"{place} is not a folder; give a dataset folder")
    found = find(place)
    if found is not None:
        return found
    from synth.dicom import holds_dicom

    below = [path for path in sorted(place.iterdir()) if path.is_dir() and path.name[0] != "." and find(path)]
    looked = "; ".join(layout.looks for layout in LAYOUTS)
    if below:
        raise DataError(f"{place} has no layout known here, {below[0]} has; give that folder")
    if webdataset.shards_of(place) or any(place.glob("*.npz")):
        raise DataError(
            f"{place} holds archives of cases, not files; read them by synth.formats.webdataset.pairs or "
            "medmnist.pairs, or generate the set in another --format"
        )
    if holds_dicom(place):
        raise DataError(f"{place} is one DICOM folder, no dataset; lay out <case>/image/*.dcm with <case>/mask.nii.gz")
    raise DataError(f"{place} has no layout known here. Looked for: {looked}; give a folder of one of these")


def read(place: str | Path) -> Dataset:
    """Return the dataset of a folder. Errors: DataError when no known layout is there, or the dataset is faulty."""
    layout = detect(place)
    return replace(layout.read(Path(place)), layout=layout.name)


def find(place: Path) -> Layout | None:
    """Return the layout of a folder, None where none fits."""
    return next((layout for layout in LAYOUTS if layout.fits(place)), None)
