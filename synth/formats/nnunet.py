"""nnU-Net v2 raw datasets: imagesTr/<case>_0000.nii.gz, labelsTr/<case>.nii.gz, dataset.json.

Beside them, where present: cases.csv (case, patient, text and one column an attribute) and
truthTr/<case>.nii.gz, the noise-free image of a simulated case. Knows no model and no training.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

from synth.data.dataset import Case, Dataset
from synth.errors import DataError, OutputError
from synth.formats.cases import case_of, channel_names, read_json, read_rows, require_one_grid
from synth.formats.cases import check_mask as check_mask
from synth.formats.writing import Description, Told, Writer, renumbered, safe
from synth.formats.writing import sha256_of as sha256_of
from synth.io import SUFFIXES, read_header, write
from synth.sample import AttributeValue
from synth.volume import Label, Volume, palette

LOOKS = "nnU-Net v2 raw dataset (dataset.json, imagesTr, labelsTr)"
IGNORE = "ignore"
"""nnU-Net's name for voxels that count in no loss."""
ENDINGS = (*SUFFIXES, ".png")
COLOURS = 3
"""Channels of a colour picture, which nnU-Net keeps in one file: its NaturalImage2DIO reads RGB interleaved."""
_NEEDED = ("channel_names", "labels", "numTraining", "file_ending")


def fits(folder: Path) -> bool:
    """True for a folder with imagesTr or a dataset.json."""
    return (folder / "dataset.json").is_file() or (folder / "imagesTr").is_dir()


def read_dataset(folder: str | Path) -> Dataset:
    """Return the dataset; headers are checked to agree, voxels are not read yet.

    `extra` is the whole of dataset.json; what else it says (regions too: `regions_of`) stays there.
    Errors: DataError for broken JSON, missing files or channels, cases that are not as many as numTraining;
    GeometryError where the grids of a case differ.
    """
    folder = Path(folder)
    where = folder / "dataset.json"
    info = read_json(where, needed_by="an nnU-Net dataset")
    if "modality" in info and "channel_names" not in info:
        raise DataError(
            f"{where} is of nnU-Net v1 or MSD; convert it (nnUNetv2_convert_MSD_dataset) and give the result"
        )
    for key in _NEEDED:
        if key not in info:
            raise DataError(f"{where} has no {key!r}; nnU-Net v2 needs it")
    ending = str(info["file_ending"])
    if ending not in ENDINGS:
        raise DataError(f"{where}: file_ending {ending!r} is not read; known are {', '.join(ENDINGS)}")
    channels = channel_names(info["channel_names"], where)
    labels = _labels(info, where)
    files = _listed(info, folder) if "dataset" in info else _found(folder, ending, channels)
    if info["numTraining"] != len(files):
        raise DataError(
            f"{where} says numTraining {info['numTraining']!r}, {len(files)} cases are there; mend one of them"
        )
    rows = read_rows(folder / "cases.csv")
    for case in rows:
        if case not in files:
            raise DataError(f"{folder / 'cases.csv'} names case {case!r}, which has no image; remove the line")
    cases = tuple(_case(folder, case, files[case], channels, rows.get(case, {})) for case in sorted(files))
    return Dataset(folder, cases, labels, channels, ending, str(info.get("population", "")), info)


def regions_of(info: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the regions (name -> label values) that a dataset.json declares; empty where labels are plain.

    >>> regions_of({"labels": {"background": 0, "whole": [1, 2], "core": [2]}})
    {'whole': (1, 2), 'core': (2,)}
    """
    return {str(name): tuple(value) for name, value in info["labels"].items() if isinstance(value, (list, tuple))}


def _labels(info: Mapping[str, Any], where: Path) -> tuple[Label, ...]:
    """Return one label a value; values that only regions name get their name from `synth_labels`, or a plain one."""
    given = info["labels"]
    if not isinstance(given, dict) or not given:
        raise DataError(f'{where}: labels is {given!r}; write {{"background": 0, "lesion": 1, ...}}')
    if all(str(name).isdigit() and isinstance(value, str) for name, value in given.items()):
        raise DataError(f"{where}: labels are spelled value: name, as in nnU-Net v1; turn them round to name: value")
    names: dict[int, str] = {}
    for name, value in given.items():
        values = value if isinstance(value, list) else [value]
        if not values or not all(isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in values):
            raise DataError(f"{where}: label {name!r} has value {value!r}; give a whole number, or a list of them")
        if len(values) == 1:
            if values[0] in names:
                raise DataError(
                    f"{where}: labels {names[values[0]]!r} and {name!r} both have value {values[0]}; mend one"
                )
            names[values[0]] = str(name)
    if 0 not in names:
        raise DataError(f'{where}: no label has value 0; add "background": 0')
    regions = regions_of(info)
    order = info.get("regions_class_order")
    if regions and (not isinstance(order, list) or len(order) != sum(name != IGNORE for name in given) - 1):
        raise DataError(f"{where}: regions_class_order is {order!r}; give one value for each region and label")
    own = {value: str(name) for name, value in dict(info.get("synth_labels", {})).items() if isinstance(value, int)}
    for value in sorted({v for values in regions.values() for v in values}):
        names[value] = own.get(value, names.get(value, f"label_{value}"))
    return tuple(Label(names[v], v, palette(n)) for n, v in enumerate(v for v in sorted(names) if v != 0))


def _listed(info: Mapping[str, Any], folder: Path) -> dict[str, tuple[list[Path], Path]]:
    """Return the files of `dataset` in dataset.json: case -> images, label, relative to the folder."""
    where, given = folder / "dataset.json", info["dataset"]
    if not isinstance(given, dict) or not given:
        raise DataError(f'{where}: dataset is no table of cases; write {{case: {{"images": [...], "label": ...}}}}')
    out: dict[str, tuple[list[Path], Path]] = {}
    for case, entry in given.items():
        try:
            out[safe(case)] = ([folder / path for path in entry["images"]], folder / entry["label"])
        except (KeyError, TypeError) as error:
            raise DataError(f'{where}: dataset.{case} needs "images" (a list) and "label"; add them') from error
        except OutputError as error:
            raise DataError(f"{where}: {error}") from None
    return out


def _found(folder: Path, ending: str, names: tuple[str, ...]) -> dict[str, tuple[list[Path], Path]]:
    """Return the files that lie in imagesTr and labelsTr by their names: case -> images, label."""
    channels = len(names)
    images, masks = folder / "imagesTr", folder / "labelsTr"
    if not images.is_dir():
        raise DataError(f"{folder} has no imagesTr folder; put training images there")
    there: dict[str, set[int]] = {}
    for path in _files(images, ending):
        parts = re.fullmatch(r"(.+)_(\d{4})", path.name.removesuffix(ending))
        if parts is None:
            raise DataError(f"{path} has no channel number; name it <case>_0000{ending}")
        there.setdefault(parts[1], set()).add(int(parts[2]))
    if not there:
        raise DataError(f"{images} holds no <case>_0000{ending} files; check file_ending in dataset.json")
    if ending == ".png" and channels == COLOURS:
        first = images / f"{min(there)}_0000{ending}"
        channels = 1 if first.is_file() and read_header(first).channels == COLOURS else channels
    for case, numbers in sorted(there.items()):
        missing, beyond = sorted(set(range(channels)) - numbers), sorted(numbers - set(range(channels)))
        if missing:
            raise DataError(
                f"case {case!r} has no {case}_{missing[0]:04d}{ending}; every case needs all {channels} channels"
            )
        if beyond:
            name = f"{case}_{beyond[0]:04d}{ending}"
            raise DataError(f"case {case!r} has {name}, dataset.json names {channels} channels; mend one of them")
        if not (masks / f"{case}{ending}").is_file():
            raise DataError(f"case {case!r} has no labelsTr/{case}{ending}; add the mask or remove the image")
    for path in _files(masks, ending):
        if path.name.removesuffix(ending) not in there:
            raise DataError(f"{path} has no image in imagesTr; add it or remove the mask")
    return {
        case: ([images / f"{case}_{c:04d}{ending}" for c in range(channels)], masks / f"{case}{ending}")
        for case in there
    }


def _files(folder: Path, ending: str) -> Iterable[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.name.endswith(ending) and path.name[0] != ".")


def _case(
    folder: Path,
    case: str,
    files: tuple[Sequence[Path], Path],
    channels: tuple[str, ...],
    row: Mapping[str, AttributeValue],
) -> Case:
    images, mask = files
    colour = len(images) == 1 and images[0].name.endswith(".png") and len(channels) == COLOURS
    if len(images) != len(channels) and not colour:
        raise DataError(
            f"case {case!r} lists {len(images)} images, dataset.json names {len(channels)} channels; mend one"
        )
    require_one_grid(case, images, mask)
    truth = folder / "truthTr" / mask.name
    return case_of(case, images, mask, row, truth=truth if truth.is_file() else None)


@final
class DatasetWriter(Writer):
    """Writes an nnU-Net raw dataset case by case; dataset.json comes last.

    nnU-Net wants label values without gaps: `labels` (name -> value) are numbered 1, 2, ... in order of their
    values, a label named "ignore" last; the original values stand in dataset.json under `synth_label_values`.
    Three channels as .png are one colour picture, R, G and B in one file, as nnU-Net reads them.
    `regions` (name -> values of `labels`) become nnU-Net regions; then `synth_labels` keeps the plain names.
    """

    index = ("dataset.json",)

    def __init__(
        self,
        folder: str | Path,
        *,
        name: str,
        channels: tuple[str, ...],
        labels: Mapping[str, int],
        file_ending: str = ".nii.gz",
        regions: Mapping[str, Sequence[int]] | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        if file_ending not in ENDINGS:
            raise OutputError(f"file ending {file_ending!r} is not written; known are {', '.join(ENDINGS)}")
        named = tuple(Label(label, value) for label, value in labels.items() if value != 0)
        super().__init__(folder, Description(name=name, channels=channels, labels=named, file_ending=file_ending))
        self.name, self.channels, self.file_ending = name, channels, file_ending
        known = {label: value for label, value in labels.items() if value != 0}
        self.labels = dict(sorted(known.items(), key=lambda item: (item[0] == IGNORE, item[1])))
        if len(set(self.labels.values())) != len(self.labels):
            raise OutputError(f"labels {dict(labels)} share a value; give each its own")
        self.values = {label: number for number, label in enumerate(self.labels, start=1)}
        self.regions = {region: tuple(values) for region, values in (regions or {}).items()}
        for region, values in self.regions.items():
            if not values or not set(values) <= set(self.labels.values()):
                raise OutputError(f"region {region!r} has values {values}; use those of {self.labels}")
        self.extra = dict(extra or {})

    @classmethod
    def of(cls, folder: Path, about: Description) -> "DatasetWriter":
        """Return the writer of a described set; its dataset.json says whose population it is of."""
        return cls(
            folder,
            name=about.name,
            channels=about.channels,
            labels=about.label_values,
            file_ending=about.file_ending,
            extra={"population": about.population, "synthetic": True},
        )

    @property
    def stored_values(self) -> Mapping[str, int]:
        """Name -> number, from 1, of every label."""
        return self.values

    @property
    def _colour(self) -> bool:
        """True where all channels lie in one file."""
        return self.file_ending == ".png" and len(self.channels) == COLOURS

    def paths(self, case: str, grid: tuple[int, ...] = ()) -> list[Path]:
        """Return the images and the mask of a case. Errors: OutputError for an id that is no plain name."""
        count = 1 if self._colour else len(self.channels)
        images = [Path("imagesTr") / f"{safe(case)}_{c:04d}{self.file_ending}" for c in range(count)]
        return [*images, Path("labelsTr") / f"{case}{self.file_ending}"]

    def write(self, case: str, image: Volume, mask: Volume, told: Told) -> None:
        """Write a file a channel, then the mask as 1, 2, ... in the smallest type."""
        *images, label = self.paths(case)
        numbered = renumbered(case, mask, self.values, self.labels)
        for channel, path in enumerate(images):
            data = image.data if self._colour else image.data[channel : channel + 1]
            write(image.replace(data=data), self.folder / path)
        write(Volume(numbered, mask.affine), self.folder / label)

    def finish(self, count: int | None = None, told: Iterable[Told] = ()) -> None:
        """Write dataset.json for the cases that are there. Errors: OutputError when they are fewer than `count`."""
        suffix = f"_0000{self.file_ending}"
        names = [path.name.removesuffix(suffix) for path in _files(self.folder / "imagesTr", suffix)]
        found = self.require(count, names)
        info: dict[str, object] = {
            "name": self.name,
            "channel_names": {str(i): name for i, name in enumerate(self.channels)},
            "labels": {"background": 0, **self.values},
            "numTraining": found,
            "file_ending": self.file_ending,
            **self.extra,
        }
        if self.regions:
            info.update(self._regions())
        if self.values != self.labels:
            info["synth_label_values"] = dict(self.labels)
        self.put_json("dataset.json", info)

    def _regions(self) -> dict[str, object]:
        """Return nnU-Net's labels, largest region first, and the order in which they are painted."""
        number = {value: self.values[name] for name, value in self.labels.items()}
        ordered = sorted(self.regions.items(), key=lambda item: -len(item[1]))
        regions = {name: sorted(number[value] for value in values) for name, values in ordered}
        own: list[int] = []
        for position, values in enumerate(regions.values()):
            inner = {v for later in list(regions.values())[position + 1 :] for v in later}
            own.append(next((v for v in values if v not in inner), values[0]))
        ignore = {IGNORE: self.values[IGNORE]} if IGNORE in self.values else {}
        return {
            "labels": {"background": 0, **regions, **ignore},
            "regions_class_order": own,
            "synth_labels": dict(self.values),
        }
