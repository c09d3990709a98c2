"""nnU-Net v2 raw datasets: imagesTr/<case>_0000.nii.gz, labelsTr/<case>.nii.gz, dataset.json.

Beside them, where present: cases.csv (case, patient, text and one column an attribute) and
truthTr/<case>.nii.gz, the noise-free image of a simulated case.
"""

import csv
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from synth.data.dataset import Case, Dataset
from synth.errors import DataError, OutputError
from synth.io import SUFFIXES, read_header, write, write_bytes
from synth.sample import AttributeValue
from synth.volume import Label, Volume, palette

_CASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def read_dataset(folder: str | Path) -> Dataset:
    """Return the dataset; headers are checked to agree, voxels are not read yet.

    Errors: DataError for broken JSON, missing files or channels, mask and image grids that differ.
    """
    folder = Path(folder)
    info = _read_json(folder / "dataset.json")
    for key in ("channel_names", "labels", "file_ending"):
        if key not in info:
            raise DataError(f"{folder / 'dataset.json'} has no {key!r}; nnU-Net v2 needs it")
    ending = str(info["file_ending"])
    if ending not in SUFFIXES:
        raise DataError(
            f"{folder / 'dataset.json'}: file_ending {ending!r} is not read; known are {', '.join(SUFFIXES)}"
        )
    channels = tuple(str(info["channel_names"][key]) for key in sorted(info["channel_names"], key=int))
    names = _labels(info, folder)
    images = folder / "imagesTr"
    if not images.is_dir():
        raise DataError(f"{folder} has no imagesTr folder; put training images there")
    ids = sorted(
        {_case_of(path.name, ending) for path in images.iterdir() if path.name.endswith(ending) and path.name[0] != "."}
    )
    if not ids:
        raise DataError(f"{images} holds no <case>_0000{ending} files; check file_ending in dataset.json")
    rows = _read_rows(folder / "cases.csv")
    for case in rows:
        if case not in ids:
            raise DataError(f"{folder / 'cases.csv'} names case {case!r}, which has no image in imagesTr")
    cases = tuple(_case(folder, case, len(channels), ending, rows.get(case, {})) for case in ids)
    return Dataset(folder, cases, names, channels, ending, str(info.get("population", "")), info)


def _labels(info: Mapping[str, Any], folder: Path) -> tuple[Label, ...]:
    out: list[Label] = []
    for name, value in info["labels"].items():
        if isinstance(value, list) or name == "ignore":
            raise DataError(f"{folder / 'dataset.json'}: label {name!r} is a region or ignore label; give plain labels")
        if not isinstance(value, int):
            raise DataError(f"{folder / 'dataset.json'}: label {name!r} has value {value!r}; give a whole number")
        if value != 0:
            out.append(Label(str(name), value, palette(len(out))))
    return tuple(sorted(out, key=lambda label: label.value))


def _case_of(name: str, ending: str) -> str:
    stem = name.removesuffix(ending)
    if not re.fullmatch(r".+_\d{4}", stem):
        raise DataError(f"imagesTr/{name} has no channel number; name it <case>_0000{ending}")
    return stem[:-5]


def _case(folder: Path, case: str, channels: int, ending: str, row: Mapping[str, str]) -> Case:
    images = tuple(folder / "imagesTr" / f"{case}_{channel:04d}{ending}" for channel in range(channels))
    for path in images:
        if not path.is_file():
            raise DataError(f"case {case!r} has no {path.name}; every case needs all {channels} channels")
    extra = folder / "imagesTr" / f"{case}_{channels:04d}{ending}"
    if extra.is_file():
        raise DataError(f"case {case!r} has {extra.name}, dataset.json names {channels} channels; mend one of them")
    mask = folder / "labelsTr" / f"{case}{ending}"
    if not mask.is_file():
        raise DataError(f"case {case!r} has no labelsTr/{mask.name}; add the mask or remove the image")
    first = read_header(images[0]).outline()
    for path in (*images[1:], mask):
        first.require_same_geometry(read_header(path).outline(), case=case, what="mask" if path == mask else path.name)
    truth = folder / "truthTr" / f"{case}{ending}"
    attributes = {k: _typed(v) for k, v in row.items() if k not in ("case", "patient", "text") and v != ""}
    return Case(
        id=case,
        images=images,
        mask=mask,
        truth=truth if truth.is_file() else None,
        patient=row.get("patient") or None,
        attributes=attributes,
        text=row.get("text") or None,
    )


def _typed(value: str) -> AttributeValue:
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


def _read_rows(path: Path) -> dict[str, dict[str, str]]:
    if not path.is_file():
        return {}
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if rows and "case" not in rows[0]:
        raise DataError(f"{path} has no column 'case'; the first line names the columns")
    return {row["case"]: row for row in rows}


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DataError(f"{path} does not exist; an nnU-Net dataset needs it")
    try:
        data = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not valid JSON ({error}); mend or write it again") from error
    if not isinstance(data, dict):
        raise DataError(f"{path} holds no JSON object; write it again")
    return data


def check_mask(mask: Volume, labels: Mapping[str, int], *, case: str) -> None:
    """Raise DataError when the mask of `case` has a value that is no label's."""
    strange = sorted(int(v) for v in set(np.unique(mask.data).tolist()) - {0, *labels.values()})
    if strange:
        raise DataError(
            f"mask of case {case!r} has value {strange[0]}, dataset.json knows {sorted(labels.values())}; "
            "mend one of them"
        )


class DatasetWriter:
    """Writes an nnU-Net raw dataset case by case; dataset.json comes last. Gaps in label values are closed."""

    def __init__(
        self,
        folder: str | Path,
        *,
        name: str,
        channels: tuple[str, ...],
        labels: Mapping[str, int],
        file_ending: str = ".nii.gz",
        extra: Mapping[str, object] | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.name, self.channels, self.file_ending = name, channels, file_ending
        self.labels = dict(sorted(labels.items(), key=lambda item: item[1]))
        self.values = {name: number for number, name in enumerate(self.labels, start=1)}
        self.extra = dict(extra or {})

    def paths(self, case: str) -> list[Path]:
        """Return the files of a case, relative to the folder. Errors: OutputError for an id that is no plain name."""
        if not _CASE.fullmatch(case) or ".." in case:
            raise OutputError(f"case id {case!r} is no plain file name; use letters, digits, _ . -")
        images = [Path("imagesTr") / f"{case}_{c:04d}{self.file_ending}" for c in range(len(self.channels))]
        return [*images, Path("labelsTr") / f"{case}{self.file_ending}"]

    def add(self, case: str, image: Volume, mask: Volume) -> dict[str, str]:
        """Write one case and return {relative path: sha256}."""
        *images, label = self.paths(case)
        image.require_same_geometry(mask, case=case)
        for channel, path in enumerate(images):
            write(image.replace(data=image.data[channel : channel + 1]), self.folder / path)
        given = dict(mask.labels or self.labels)
        out = np.zeros(mask.data.shape, dtype=np.uint8)
        for name, value in given.items():
            if value:
                out[mask.data == value] = self.values[name]
        write(mask.replace(data=out, labels=None), self.folder / label)
        return {str(path): sha256_of(self.folder / path) for path in (*images, label)}

    def finish(self, count: int) -> None:
        """Write dataset.json for `count` cases."""
        info: dict[str, object] = {
            "name": self.name,
            "channel_names": {str(i): name for i, name in enumerate(self.channels)},
            "labels": {"background": 0, **self.values},
            "numTraining": count,
            "file_ending": self.file_ending,
            **self.extra,
        }
        if self.values != self.labels:
            info["synth_label_values"] = dict(self.labels)
        write_bytes(self.folder / "dataset.json", (json.dumps(info, indent=2) + "\n").encode())


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
