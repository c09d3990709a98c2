"""Medical Segmentation Decathlon folders: dataset.json, imagesTr and labelsTr with <case>.nii.gz.

Channels lie in the fourth axis of an image. The files are those of the list `training`; what else lies there
(._ files of macOS, imagesTs) is not read.
"""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import final

from synth.data.dataset import Case, Dataset
from synth.errors import DataError
from synth.formats.cases import case_of, channel_names, label_names, peek_json, read_json, read_rows, require_one_grid
from synth.formats.writing import NOTICE, Told, Writer, safe, write_cases
from synth.io import SUFFIXES, read_header, suffix_of, write
from synth.volume import Label, Volume, palette

LOOKS = 'MSD (dataset.json with "modality" and "training")'
_NEEDED = ("modality", "labels", "training")


def fits(folder: Path) -> bool:
    """True for a folder whose dataset.json speaks of modality or training, and not of channel_names."""
    info = peek_json(folder / "dataset.json")
    return "channel_names" not in info and ("modality" in info or "training" in info)


def read_dataset(folder: Path) -> Dataset:
    """Return the dataset; headers are checked to agree. Errors: DataError, GeometryError."""
    where = folder / "dataset.json"
    info = read_json(where, needed_by="an MSD dataset")
    for key in _NEEDED:
        if key not in info:
            raise DataError(f"{where} has no {key!r}; an MSD dataset needs it")
    try:
        channels = channel_names(info["modality"], where)
    except DataError:
        raise DataError(f'{where}: modality is {info["modality"]!r}; write {{"0": "CT", ...}} from 0') from None
    names = label_names(info["labels"], where)
    listed = info["training"]
    if not isinstance(listed, list) or not listed:
        raise DataError(f'{where}: training is no list of cases; write [{{"image": ..., "label": ...}}, ...]')
    if info.get("numTraining", len(listed)) != len(listed):
        raise DataError(f"{where} says numTraining {info['numTraining']!r}, training lists {len(listed)}; mend one")
    rows = read_rows(folder / "cases.csv")
    cases: dict[str, Case] = {}
    for number, entry in enumerate(listed):
        case = _case(folder, entry, f"{where}: training[{number}]", len(channels), rows)
        if case.id in cases:
            raise DataError(f"{where}: training[{number}] lists case {case.id!r} again; remove one")
        cases[case.id] = case
    for name in rows:
        if name not in cases:
            raise DataError(
                f"{folder / 'cases.csv'} names case {name!r}, which training does not list; remove the line"
            )
    ordered = tuple(cases[name] for name in sorted(cases))
    return Dataset(
        root=folder,
        cases=ordered,
        labels=tuple(Label(names[value], value, palette(n)) for n, value in enumerate(sorted(names))),
        channels=channels,
        file_ending=suffix_of(ordered[0].images[0]),
        population=str(info.get("population", "")),
        extra=info,
    )


def _case(folder: Path, entry: object, where: str, channels: int, rows: dict) -> Case:
    if not isinstance(entry, dict) or not {"image", "label"} <= set(entry):
        raise DataError(
            f'{where} is {entry!r}; write {{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}}'
        )
    image, label = (_inside(folder, entry[key], where) for key in ("image", "label"))
    header = read_header(image)
    if header.channels != channels:
        raise DataError(
            f"{image} has {header.channels} channels in its fourth axis, modality names {channels}; mend one of them"
        )
    name = image.name[: -len(suffix_of(image))]
    require_one_grid(name, (image,), label)
    return case_of(name, (image,), label, rows.get(name, {}))


def _inside(folder: Path, given: object, where: str) -> Path:
    """Return a listed file of the folder. Errors: DataError for paths that leave it, absent and other files."""
    plain = PurePosixPath(str(given))
    parts = plain.parts
    odd = not isinstance(given, str) or "\\" in given or PureWindowsPath(given).drive
    if odd or plain.is_absolute() or ".." in parts:
        raise DataError(f"{where} names {given!r}, which is no path inside {folder}; give one like ./imagesTr/a.nii.gz")
    if not plain.name.lower().endswith(SUFFIXES):
        raise DataError(f"{where} names {given!r}, which is no volume; known suffixes are {', '.join(SUFFIXES)}")
    path = folder.joinpath(*parts)
    if not path.is_file():
        raise DataError(f"{where} names {given!r}, which is not there; add the file or remove the entry")
    return path


@final
class MSDWriter(Writer):
    """Writes a decathlon task, which is a MONAI datalist too: channels in the fourth axis, labels by value.

    An entry of `training` carries attributes, text and seed beside image and label; `test` is empty.
    """

    index = ("dataset.json",)

    def paths(self, case: str, grid: tuple[int, ...] = ()) -> list[Path]:
        """Return the image and the mask of a case."""
        return [Path(part) / f"{safe(case)}.nii.gz" for part in ("imagesTr", "labelsTr")]

    def write(self, case: str, image: Volume, mask: Volume, told: Told) -> None:
        """Write one 4D image and its mask."""
        first, second = self.paths(case)
        write(image, self.folder / first, fourth=True)
        write(mask, self.folder / second)

    def finish(self, count: int | None = None, told: Iterable[Told] = ()) -> None:
        """Write cases.csv and dataset.json."""
        known = {one.case: one for one in told}
        cases = sorted(path.name.removesuffix(".nii.gz") for path in (self.folder / "imagesTr").glob("[!.]*.nii.gz"))
        found = self.require(count, cases)
        listed = [self._entry(case, known.get(case, Told(case))) for case in cases if self.has(case)]
        names = {value: name for name, value in self.about.label_values.items()}
        write_cases(self.folder, (known[case] for case in cases if case in known))
        info = {
            "name": self.about.name,
            "description": NOTICE,
            "reference": self.about.software,
            "licence": "see the licence of the model and of the data it was trained on",
            "release": "1.0",
            "tensorImageSize": "4D" if len(self.about.channels) > 1 else "3D",
            "modality": {str(number): name for number, name in enumerate(self.about.channels)},
            "labels": {"0": "background", **{str(value): names[value] for value in sorted(names)}},
            "numTraining": found,
            "numTest": 0,
            "training": listed,
            "test": [],
            "population": self.about.population,
            "synthetic": True,
        }
        self.put_json("dataset.json", info)

    @staticmethod
    def _entry(case: str, told: Told) -> dict[str, object]:
        out: dict[str, object] = {"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"}
        if told.attributes:
            out["attributes"] = dict(told.attributes)
        if told.text is not None:
            out["text"] = told.text
        if told.identity:
            out["seed"] = list(told.identity[1:])
        return out
