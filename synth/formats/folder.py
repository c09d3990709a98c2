"""A folder of volumes with masks of the same names: images/<case>.nii.gz, masks/<case>.nii.gz.

Knows no names of labels or channels: they are called by their numbers.
"""

from pathlib import Path

from synth.data.dataset import Case, Dataset
from synth.errors import DataError
from synth.formats.cases import read_rows, values_of
from synth.io import SUFFIXES, read, read_header, suffix_of
from synth.volume import Label, palette


def read_folder(images: str | Path, masks: str | Path | None = None) -> Dataset:
    """Return the dataset of two folders whose files share names; labels are named by their values.

    One file is one case, its channels the file's own. Beside the image folder, cases.csv is read where present.
    Errors: DataError for an image without a mask or a mask without an image; GeometryError where grids differ.
    """
    images = Path(images)
    files = _volumes(images)
    own = None if masks is None else _volumes(Path(masks))
    if own is not None:
        for one, other, where in ((files, own, masks), (own, files, images)):
            lost = sorted(set(one) - set(other))
            if lost:
                raise DataError(f"{one[lost[0]]} has no file of the same name in {where}; add it or remove this one")
    rows = read_rows(images.parent / "cases.csv")
    values: set[int] = set()
    cases = []
    channels = read_header(next(iter(files.values()))).channels
    for case, path in files.items():
        header = read_header(path)
        if header.channels != channels:
            raise DataError(f"{path} has {header.channels} channels, others have {channels}; split the folder")
        mask = own[case] if own else None
        if mask is not None:
            volume = read(mask, labels={})
            header.outline().require_same_geometry(volume, case=case)
            values.update(values_of(volume.data))
        row = dict(rows.get(case, {}))
        patient, text = row.pop("patient", None), row.pop("text", None)
        cases.append(
            Case(
                id=case,
                images=(path,),
                mask=mask,
                patient=None if patient is None else str(patient),
                attributes=row,
                text=None if text is None else str(text),
            )
        )
    labels = tuple(Label(f"label_{v}", v, palette(n)) for n, v in enumerate(sorted(values - {0})))
    ending = suffix_of(next(iter(files.values())))
    return Dataset(images.parent, tuple(cases), labels, tuple(f"channel_{c}" for c in range(channels)), ending)


def _volumes(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give a folder of volumes")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.lower().endswith(SUFFIXES) and path.name[0] != ".":
            case = path.name[: -len(suffix_of(path))]
            if case in found:
                raise DataError(f"{path} and {found[case].name} have one name; remove one of them")
            found[case] = path
    if not found:
        raise DataError(f"{folder} holds no volumes; known suffixes are {', '.join(SUFFIXES)}")
    return found
