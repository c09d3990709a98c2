"""Hugging Face datasets folders: train/metadata.jsonl with file names, attributes and text; images and masks beside.

`datasets.load_dataset` reads it as a niftifolder (or imagefolder for pictures): columns ending in _file_name become
Nifti (Image) features. README.md is the dataset card, which declares the split.
"""

import json
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any, final

from synth.data.dataset import Case, Dataset
from synth.errors import DataError
from synth.formats.cases import Names, case_of, read_json, require_one_grid
from synth.formats.writing import NOTICE, Told, Writer, dataset_json, safe
from synth.io import SUFFIXES, suffix_of, write, write_bytes
from synth.volume import Volume

LOOKS = "HF datasets folder (train/metadata.jsonl with image_file_name and mask_file_name)"
_SPLIT = "train"
_INFO = "synth.json"
_OWN = ("case", "image_file_name", "mask_file_name", "text", "synthetic")


def fits(folder: Path) -> bool:
    """True for a folder whose train/metadata.jsonl names a mask of its first image."""
    table = folder / _SPLIT / "metadata.jsonl"
    if not table.is_file():
        return False
    with table.open(encoding="utf-8") as file:
        return "mask_file_name" in file.readline()


def read_dataset(folder: Path) -> Dataset:
    """Return the dataset. Errors: DataError with the line of a fault, GeometryError where grids differ."""
    place = folder / _SPLIT
    names = Names.of(read_json(folder / _INFO, needed_by="names of labels and channels"), folder / _INFO)
    cases: list[Case] = []
    for number, line in enumerate((place / "metadata.jsonl").read_text(encoding="utf-8").splitlines(), start=1):
        where = f"{place / 'metadata.jsonl'} line {number}"
        try:
            row: dict[str, Any] = json.loads(line)
            image, mask = (_inside(place, row[f"{kind}_file_name"], where) for kind in ("image", "mask"))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{where} is broken ({error}); mend or remove it") from error
        name = str(row.get("case") or image.name[: -len(suffix_of(image))])
        require_one_grid(name, (image,), mask)
        said = {key: value for key, value in row.items() if key not in _OWN and value is not None}
        text = row.get("text")
        cases.append(case_of(name, (image,), mask, said if text is None else {**said, "text": text}))
    if not cases:
        raise DataError(f"{place / 'metadata.jsonl'} is empty; generate the set again")
    first = cases[0].images[0]
    return Dataset(
        root=folder,
        cases=tuple(sorted(cases, key=lambda case: case.id)),
        labels=names.describe(()),
        channels=names.channels or ("channel_0",),
        file_ending=suffix_of(first),
        population=str(names.extra.get("population", "")),
        extra=names.extra,
    )


def _inside(place: Path, given: object, where: str) -> Path:
    plain = PurePosixPath(str(given))
    if plain.is_absolute() or ".." in plain.parts or "\\" in str(given):
        raise DataError(f"{where} names {given!r}, which is no path inside {place}; give one like images/a.nii.gz")
    if not plain.name.lower().endswith((*SUFFIXES, ".png")) or not (place / plain).is_file():
        raise DataError(f"{where} names {given!r}, which is no volume there; add the file or remove the line")
    return place / plain


@final
class HFWriter(Writer):
    """Writes train/images, train/masks and train/metadata.jsonl, the card README.md, and synth.json with all names."""

    index = ("synth.json", "train/metadata.jsonl")

    def paths(self, case: str, grid: tuple[int, ...] = ()) -> list[Path]:
        """Return the image and the mask of a case."""
        ending = ".png" if self.about.file_ending == ".png" else ".nii.gz"
        return [Path(_SPLIT) / part / f"{safe(case)}{ending}" for part in ("images", "masks")]

    def write(self, case: str, image: Volume, mask: Volume, told: Told) -> None:
        """Write two files; channels lie in the fourth axis, as nibabel and MONAI take them."""
        first, second = self.paths(case)
        write(image, self.folder / first, fourth=True)
        write(mask, self.folder / second)

    def finish(self, count: int | None = None, told: Iterable[Told] = ()) -> None:
        """Write metadata.jsonl, the card and synth.json."""
        rows = sorted(told, key=lambda one: one.case)
        found = self.require(count, [one.case for one in rows])
        columns = sorted({name for one in rows for name in one.attributes if name not in _OWN})
        lines: list[str] = []
        for one in rows:
            image, mask = (path.relative_to(_SPLIT).as_posix() for path in self.paths(one.case))
            row = {"image_file_name": image, "mask_file_name": mask, "case": one.case, "synthetic": True}
            row |= {name: one.attributes.get(name) for name in columns} | {"text": one.text}
            lines.append(json.dumps(row) + "\n")
        write_bytes(self.folder / _SPLIT / "metadata.jsonl", "".join(lines).encode())
        card = (
            "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: train/**\n"
            f"tags:\n- synthetic\n- medical\nsize_categories:\n- {_category(found)}\n---\n\n"
            f"# {self.about.name}\n\n{NOTICE}. {found} image-mask pairs, "
            f"population: {self.about.population or 'unknown'}.\n"
            f"Labels: {', '.join(f'{value} {name}' for name, value in self.about.label_values.items())}.\n"
        )
        write_bytes(self.folder / "README.md", card.encode())
        self.put_json(_INFO, dataset_json(self.about))


def _category(count: int) -> str:
    """Return the hub's word for a number of rows.

    >>> _category(12), _category(5000)
    ('n<1K', '1K<n<10K')
    """
    limits = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
    return next((name for most, name in limits if count < most), "1M<n<10M")
