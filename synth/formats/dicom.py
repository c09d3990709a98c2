"""Case folders with DICOM: <case>/image/*.dcm (or image_<channel>/), <case>/mask.nii.gz, mask.dcm (SEG) or mask/.

Names of labels come from labels.json or dataset.json beside the cases, else from the segments of a SEG.
"""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import final

import numpy as np

from synth.data.dataset import Case, Dataset
from synth.data.reading import read_labels
from synth.dicom import Segmentation, Series, find_segmentation, holds_dicom
from synth.errors import DataError, nearest
from synth.formats.cases import Names, case_of, read_rows, values_of
from synth.formats.writing import Told, Writer, dataset_json, safe, write_cases
from synth.io import SUFFIXES, read, write_bytes
from synth.volume import Label, Volume, palette

LOOKS = "case folders with DICOM (<case>/image/*.dcm, <case>/mask.nii.gz or mask.dcm)"
_MASKS = ("mask", "mask.dcm", *(f"mask{suffix}" for suffix in SUFFIXES))


def fits(folder: Path) -> bool:
    """True where a folder below has an image folder."""
    return any(_image_folders(case) for case in _folders(folder))


def read_dataset(folder: Path) -> Dataset:
    """Return the dataset; every series is checked to be one whole stack. Errors: DataError, GeometryError."""
    names = Names.beside(folder)
    rows = read_rows(folder / "cases.csv")
    # a generated set keeps its records beside the cases
    places = [place for place in _folders(folder) if place.name != "records" or _image_folders(place)]
    ids = [case.name for case in places]
    for name in rows:
        if name not in ids:
            raise DataError(f"{folder / 'cases.csv'} names case {name!r}, which has no folder; remove the line")
    cases: list[Case] = []
    channels: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    patients: list[str] = []
    ignored: dict[str, int] = {}
    for place in places:
        images = _image_folders(place)
        if not images:
            raise DataError(f"{place} has no image folder; put the slices in {place.name}/image, or take it away")
        stacks = [Series.find(image) for image in images]
        own = tuple(_channel(image, stack) for image, stack in zip(images, stacks, strict=True))
        channels = channels or own
        if own != channels:
            raise DataError(f"{place} has channels {', '.join(own)}, others {', '.join(channels)}; give all the same")
        modalities = modalities or tuple(stack.modality for stack in stacks)
        _require_one_modality(images, stacks, modalities)
        ignored.update({str(stack.place): stack.ignored for stack in stacks if stack.ignored})
        patients.append(_patient(place, stacks))
        cases.append(case_of(place.name, images, _mask(place), rows.get(place.name, {})))
    if names.channels and len(names.channels) != len(channels):
        raise DataError(f"{folder}: {len(names.channels)} channels are named, cases have {len(channels)}; mend one")
    notes = [f"{count} files in {where} are no images: ignored" for where, count in ignored.items()]
    if any(patients) and not any(case.patient for case in cases):
        cases = _with_patients(cases, patients)
        notes.append("patients were told apart by PatientID; --patients says otherwise")
    return Dataset(
        root=folder,
        cases=tuple(cases),
        labels=_labels(names, cases),
        channels=names.channels or channels,
        modalities=modalities,
        population=str(names.extra.get("population", "")),
        extra=names.extra,
        notes=tuple(notes),
    )


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] not in "._")


def _image_folders(case: Path) -> list[Path]:
    return [path for path in _folders(case) if path.name == "image" or path.name.startswith("image_")]


def _channel(image: Path, stack: Series) -> str:
    """Return a channel's name: what follows image_, else the modality, so that CT is known as such."""
    return image.name.removeprefix("image_") if image.name != "image" else stack.slices[0].kind.split()[0]


def _require_one_modality(images: list[Path], stacks: list[Series], first: tuple[str, ...]) -> None:
    """Errors: DataError where a channel is CT in one case and not in another: its values have no common unit."""
    for image, stack, other in zip(images, stacks, first, strict=True):
        if (stack.modality == "CT") != (other == "CT"):
            told = [name or "no modality" for name in (stack.modality, other)]
            raise DataError(
                f"{image} holds {told[0]}, the same folder of the first case {told[1]}; "
                "give each modality a folder of its own"
            )


def _mask(place: Path) -> Path:
    found = [place / name for name in _MASKS if (place / name).exists()]
    if len(found) > 1:
        raise DataError(f"{place} has {', '.join(path.name for path in found)}; keep one mask")
    if not found:
        raise DataError(f"{place} has no mask; add mask.nii.gz or mask.dcm (SEG), or take the folder away")
    if found[0].is_dir() and not holds_dicom(found[0]):
        raise DataError(f"{found[0]} holds no DICOM files; put the SEG there, or give mask.nii.gz")
    return found[0]


def _patient(place: Path, stacks: list[Series]) -> str:
    known = {one for stack in stacks for one in stack.patients}
    if len(known) > 1:
        raise DataError(f"{place} has slices of {len(known)} PatientIDs; a case is one patient's, part them")
    return next(iter(known), "")


def _with_patients(cases: list[Case], patients: list[str]) -> list[Case]:
    """Return the cases with a number for each PatientID: the ID itself does not leave the source.

    A case without one stays without a patient, so that who asks for patients is told of it.
    """
    from dataclasses import replace

    number = {patient: f"patient_{n:04d}" for n, patient in enumerate(sorted(set(patients) - {""}))}
    return [replace(case, patient=number.get(own)) for case, own in zip(cases, patients, strict=True)]


def _labels(names: Names, cases: list[Case]) -> tuple[Label, ...]:
    """Return the labels: as named; else a SEG's own; numbers of segments may differ between files, names count."""
    numbers: dict[str, set[int]] = {}
    values: set[int] = set()
    for case in cases:
        assert case.mask is not None
        path = find_segmentation(case.mask) if case.mask.suffix.lower() == ".dcm" or case.mask.is_dir() else None
        if path is not None:
            for number, name in Segmentation.open(path).segments.items():
                if names.labels is not None and name not in names.labels.values():
                    hint = nearest(name, names.labels.values())
                    raise DataError(f"{path} has segment {name!r}, which labels.json does not name; {hint}")
                numbers.setdefault(name, set()).add(number)
        elif names.labels is None:
            values.update(values_of(read(case.mask, labels={}).data))
    if names.labels is not None or not numbers:
        return names.describe(sorted(values))
    if values:
        raise DataError("some masks are SEG, some are not, and no labels.json says which values mean the same; add it")
    own = {name: min(found) for name, found in numbers.items()}
    if any(len(found) > 1 for found in numbers.values()) or len(set(own.values())) < len(own):
        own = {name: number for number, name in enumerate(sorted(numbers), start=1)}
    ordered = sorted(own.items(), key=lambda item: item[1])
    return tuple(Label(name, value, palette(n)) for n, (name, value) in enumerate(ordered))


@final
class DICOMWriter(Writer):
    """Writes <case>/image/*.dcm, or a folder a channel, and <case>/mask.dcm, a SEG; values stand in labels.json.

    A column of a left-handed affine turns nothing: slices lie where they lay, and are read in the order of their
    normal, which then runs against the third axis.
    """

    index = ("labels.json",)

    def paths(self, case: str, grid: tuple[int, ...] = ()) -> list[Path]:
        """Return the slices of a grid, and the mask, which is written last."""
        depth = (grid[2:] or (1,))[0] if grid else 0
        slices = [folder / f"{k + 1:05d}.dcm" for folder in self._folders(case) for k in range(depth)]
        return [*slices, Path(safe(case)) / "mask.dcm"]

    def _folders(self, case: str) -> list[Path]:
        channels = self.about.channels
        if len(channels) == 1:
            return [Path(case) / "image"]
        plain = [re.sub(r"[^A-Za-z0-9]+", "", name) for name in channels]
        return [Path(case) / f"image_{number:02d}_{name}" for number, name in enumerate(plain)]

    def parts(self, told: Told) -> tuple[str, ...]:
        """Return a folder a channel, then the SEG."""
        return tuple(path.as_posix() for path in (*self._folders(told.case), Path(safe(told.case)) / "mask.dcm"))

    def part(self, told: Told, name: str) -> Volume:
        """Return a series, or the SEG on the grid of the first one; slices in the order of their normal."""
        first, *_, last = self.parts(told)
        series = self.folder / first
        return read(self.folder / name) if name != last else read_labels(self.folder / name, self.stored_values, series)

    def write(self, case: str, image: Volume, mask: Volume, told: Told) -> None:
        """Write a series a channel, then the SEG, numbered 1, 2, ... in the order of the labels' values."""
        from synth.dicom.writing import Identity, segmentation_of, slices_of, to_bytes

        digest = hashlib.sha256()
        for volume in (image, mask):
            digest.update(np.ascontiguousarray(volume.data).tobytes())
        # equal identifiers only where the voxels are equal too, whatever the machine they were made on
        identity = Identity(case, self.about.software, (*told.identity, digest.hexdigest()))
        first = None
        for number, (channel, folder) in enumerate(zip(self.about.channels, self._folders(case), strict=True)):
            values = image.data[number] if image.spatial_dims == 3 else image.data[number][..., None]
            slices = slices_of(values, image.affine, channel=channel, number=number + 1, identity=identity)
            for k, one in enumerate(slices):
                write_bytes(self.folder / folder / f"{k + 1:05d}.dcm", to_bytes(one))
            first = first or slices
        assert first is not None
        ordered = sorted(self.about.labels, key=lambda label: label.value)
        kind = np.min_scalar_type(len(ordered))
        numbers = np.zeros(1 + max((label.value for label in ordered), default=0), dtype=kind)
        for number, label in enumerate(ordered, start=1):
            numbers[label.value] = number
        labels = numbers[mask.data[0]] if mask.spatial_dims == 3 else numbers[mask.data[0]][..., None]
        made = segmentation_of(labels, first, [(label.name, label.snomed) for label in ordered], identity)
        write_bytes(self.folder / case / "mask.dcm", to_bytes(made))

    def finish(self, count: int | None = None, told: Iterable[Told] = ()) -> None:
        """Write cases.csv and labels.json."""
        self.require(count, [path.parent.name for path in self.folder.glob("[!.]*/mask.dcm")])
        write_cases(self.folder, told)
        self.put_json("labels.json", dataset_json(self.about))
