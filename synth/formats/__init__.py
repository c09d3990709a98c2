"""Dataset layouts, read and written. `read` finds out which one a folder has."""

from pathlib import Path

from synth.data.dataset import Dataset
from synth.errors import DataError
from synth.formats import folder as folders
from synth.formats import nnunet

_MASK_FOLDERS = ("masks", "labels")


def read(folder: str | Path) -> Dataset:
    """Return the dataset of `folder`. Errors: DataError when no known layout is there."""
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give a dataset folder")
    if (folder / "dataset.json").is_file() or (folder / "imagesTr").is_dir():
        return nnunet.read_dataset(folder)
    masks = [name for name in _MASK_FOLDERS if (folder / name).is_dir()]
    if (folder / "images").is_dir() and masks:
        return folders.read_folder(folder / "images", folder / masks[0])
    raise DataError(
        f"{folder} has no layout known here; give an nnU-Net v2 raw dataset (dataset.json, imagesTr, labelsTr) "
        "or images/ and masks/ with files of the same names"
    )
