"""A folder of images with masks of the same names: images/<case>.nii.gz, masks/<case>.nii.gz; PNG and JPEG too.

Names of labels and channels come from dataset.json or labels.json beside them; without, they are numbers.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import final

from synth.data.dataset import Dataset
from synth.errors import DataError
from synth.formats.cases import Names, case_of, read_rows, require_one_grid, values_of
from synth.formats.writing import Told, Writer, dataset_json, safe, write_cases
from synth.io import PICTURES, SUFFIXES, read, read_header, suffix_of, write
from synth.volume import Label, Volume, palette

LOOKS = "images/ and masks/ (or labels/) with files of the same names"
_MASKS = ("masks", "labels")
_COLOURS = ("R", "G", "B")
_BINARY = {0, 255}
MOST_GREYS = 32
"""Grey masks that nothing names hold at most so many labels."""
MOST_BESIDE_WHITE = 8
"""... and at most so many beside 255: drawings of black and white whose edges are soft have more."""


def fits(folder: Path) -> bool:
    """True for a folder of this layout."""
    if (folder / "imagesTr").is_dir():
        return False
    return (folder / "images").is_dir() and any((folder / name).is_dir() for name in _MASKS)


def read_dataset(folder: Path) -> Dataset:
    """Return the dataset of `folder`. Errors: DataError, also for both masks/ and labels/."""
    masks = [folder / name for name in _MASKS if (folder / name).is_dir()]
    if len(masks) > 1:
        raise DataError(f"{folder} has masks/ and labels/; keep the one that is meant")
    return read_folder(folder / "images", masks[0])


def read_folder(images: str | Path, masks: str | Path | None = None) -> Dataset:
    """Return the dataset of two folders whose files share names.

    One file is one case, its channels the file's own. Beside the image folder, cases.csv, and dataset.json or
    labels.json, are read where present. Errors: DataError for an image without a mask or a mask without an image,
    channels that nothing names, masks as JPEG; GeometryError where grids differ.
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
    for case in rows:
        if case not in files:
            raise DataError(f"{images.parent / 'cases.csv'} names case {case!r}, which has no image; remove the line")
    names = Names.beside(images.parent)
    channels = _channels(names, files)
    values: set[int] = set()
    greys: set[int] = set()
    cases = []
    for case, path in files.items():
        mask = own[case] if own else None
        if mask is not None:
            require_one_grid(case, (path,), mask)
            held = values_of(read(mask, labels={}).data)
            values.update(held)
            greys.update(held if _is_grey(mask) else ())
            if names.labels is None:
                _require_hard(greys, mask, images.parent)
        cases.append(case_of(case, (path,), mask, rows.get(case, {})))
    pictures = [path for path in (own or {}).values() if path.name.lower().endswith(PICTURES)]
    labels, notes = _labels(names, values, all_pictures=bool(own) and len(pictures) == len(own or {}))
    first = next(iter(files.values()))
    flat = [path for path in files.values() if path.name.lower().endswith(PICTURES)]
    bare = sum(_without_spacing(path) for path in flat)
    if bare:
        notes.append(f"{bare} of {len(files)} pictures say no spacing: one pixel was taken as 1 mm (assumed)")
    return Dataset(
        root=images.parent,
        cases=tuple(cases),
        labels=labels,
        channels=channels,
        file_ending=".png" if first in flat else suffix_of(first),
        population=str(names.extra.get("population", "")),
        extra=names.extra,
        notes=tuple(notes),
    )


def _channels(names: Names, files: dict[str, Path]) -> tuple[str, ...]:
    """Return the channels' names, after every file has as many. Errors: DataError."""
    first = next(iter(files.values()))
    count = len(names.channels) if names.channels else read_header(first).channels
    for path in files.values():
        found = read_header(path).channels
        if found != count:
            whose = "dataset.json names" if names.channels else "others have"
            raise DataError(
                f"{path} has {found} channels, {whose} {count}; give files of one kind, or split the folder"
            )
    if names.channels:
        return names.channels
    if first.name.lower().endswith(PICTURES):
        return _COLOURS if count == len(_COLOURS) else ("grey",)
    if count > 1:
        raise DataError(
            f"{first} holds {count} volumes, and nothing says whether they are channels or time points; "
            f"name them as channel_names in {first.parent.parent / 'dataset.json'}, or split the file"
        )
    return ("channel_0",)


def _labels(names: Names, values: set[int], *, all_pictures: bool) -> tuple[tuple[Label, ...], list[str]]:
    """Return the labels and what to say of them: masks of 0 and 255 are one label, drawn white."""
    binary = all_pictures and 255 in values and values <= _BINARY
    if binary and names.labels is None:
        return (Label("foreground", 255, palette(0)),), []
    if binary and names.labels is not None and set(names.labels) == {1}:
        name = names.labels[1]
        return (Label(name, 255, palette(0)),), [f"masks hold 0 and 255: 255 was taken as {name!r}"]
    return names.describe(sorted(values)), []


def _is_grey(mask: Path) -> bool:
    from synth.pictures import is_palette

    return mask.name.lower().endswith(PICTURES) and not is_palette(mask)


def _require_hard(greys: set[int], mask: Path, folder: Path) -> None:
    """Raise DataError where grey masks that nothing names have more values than labels: their edges are soft."""
    labels = greys - {0}
    if len(labels) > MOST_GREYS or (255 in labels and len(labels) > 1 + MOST_BESIDE_WHITE):
        raise DataError(
            f"{mask}: masks up to this one hold {len(labels)} grey values, as soft edges or JPEG leave them; save "
            f"masks with hard edges, one value a label, or name the labels in {folder / 'labels.json'}"
        )


def _without_spacing(path: Path) -> bool:
    from synth.pictures import plan

    return plan(path).spacing_mm is None


def _volumes(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give a folder of volumes")
    known: Sequence[str] = (*SUFFIXES, *PICTURES)
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.lower().endswith(tuple(known)) and path.name[0] != ".":
            case = path.name[: -len(suffix_of(path))]
            if case in found:
                raise DataError(f"{path} and {found[case].name} have one name; remove one of them")
            found[case] = path
    if not found:
        raise DataError(f"{folder} holds no volumes; known suffixes are {', '.join(known)}")
    return found


@final
class FolderWriter(Writer):
    """Writes images/ and masks/ with files of the same names, channels in one file, names in dataset.json."""

    index = ("dataset.json",)

    def paths(self, case: str, grid: tuple[int, ...] = ()) -> list[Path]:
        """Return the image and the mask of a case."""
        return [Path(part) / f"{safe(case)}{self.about.file_ending}" for part in ("images", "masks")]

    def write(self, case: str, image: Volume, mask: Volume, told: Told) -> None:
        """Write two files."""
        for volume, path in zip((image, mask), self.paths(case), strict=True):
            write(volume, self.folder / path)

    def finish(self, count: int | None = None, told: Iterable[Told] = ()) -> None:
        """Write cases.csv and dataset.json."""
        ending = self.about.file_ending
        cases = [path.name.removesuffix(ending) for path in (self.folder / "images").glob(f"[!.]*{ending}")]
        self.require(count, cases)
        write_cases(self.folder, told)
        self.put_json("dataset.json", dataset_json(self.about))
