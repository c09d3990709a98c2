"""Dataset layouts, read and written. `read` finds out which one a folder has."""

from pathlib import Path

from synth.data.dataset import Dataset
from synth.errors import DataError
from synth.formats import nnunet


def read(folder: str | Path) -> Dataset:
    """Return the dataset of `folder`. Errors: DataError when no known layout is there."""
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give a dataset folder")
    if (folder / "dataset.json").is_file() or (folder / "imagesTr").is_dir():
        return nnunet.read_dataset(folder)
    raise DataError(f"{folder} has no layout known here: no dataset.json and imagesTr (nnU-Net raw); arrange it so")
