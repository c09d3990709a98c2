"""BIDS: sub-<x>[/ses-<y>]/anat/*_<suffix>.nii.gz, masks under derivatives/, participants.tsv as attributes.

A session is a case, a subject a patient. Suffixes that every case has are the channels, in order of the alphabet.
Masks may lie beside the images where derivatives/ has none, as in a set written here (bids_writing.py), whose
dataset_description.json says under `SynthChannels` which channel a suffix is, and whose sidecars name the case.
"""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from synth.data.dataset import Case, Dataset
from synth.errors import DataError
from synth.formats.cases import Names, case_of, peek_json, read_rows, require_one_grid, values_of
from synth.io import read
from synth.volume import Label

LOOKS = "BIDS (sub-<x>/anat/*_T1w.nii.gz, masks *_dseg or *_mask in derivatives/)"
_ENDINGS = (".nii.gz", ".nii")
_MASKS = ("dseg", "mask")
_NO_IMAGE = (*_MASKS, "defacemask", "probseg")
_ENTITY = re.compile(r"([A-Za-z]+)-([A-Za-z0-9+]+)")


class Named(NamedTuple):
    """A BIDS file by its name: entities (sub-01 -> sub: 01) and the suffix."""

    path: Path
    entities: Mapping[str, str]
    suffix: str

    @property
    def case(self) -> str:
        """Subject and session, as files spell them."""
        return "_".join(f"{key}-{self.entities[key]}" for key in ("sub", "ses") if key in self.entities)


def fits(folder: Path) -> bool:
    """True where subjects lie in the folder, or its description says BIDS."""
    return "BIDSVersion" in peek_json(folder / "dataset_description.json") or bool(_subjects(folder))


def read_dataset(folder: Path) -> Dataset:
    """Return the dataset. Errors: DataError for several files that could be meant, GeometryError where grids differ."""
    about = peek_json(folder / "dataset_description.json")
    own = {str(suffix): str(channel) for suffix, channel in dict(about.get("SynthChannels") or {}).items()}
    images = _images(folder, own)
    masks = _masks(folder, images)
    counts = Counter(suffix for found in images.values() for suffix in found)
    ordered = list(dict.fromkeys(own.values())) or sorted(counts)
    channels = tuple(suffix for suffix in ordered if counts[suffix] == len(images))
    if not channels:
        told = ", ".join(f"{suffix} ({count})" for suffix, count in sorted(counts.items()))
        raise DataError(f"{folder} has no suffix that all {len(images)} sessions have: {told}; leave some out")
    notes = [
        f"{suffix} is in {count} of {len(images)} sessions: left out"
        for suffix, count in sorted(counts.items())
        if count < len(images)
    ]
    table = folder / "participants.tsv"
    rows = read_rows(table, key="participant_id", delimiter="\t", absent="n/a")
    cases: list[Case] = []
    for name, found in images.items():
        paths = [found[suffix].path for suffix in channels]
        require_one_grid(name, paths, masks[name].path)
        subject = name.split("_")[0]
        row = {column: value for column, value in rows.get(subject, {}).items() if column != "patient"}
        case = _synthetic_case(paths[0]) if own else None
        cases.append(case_of(case or name, paths, masks[name].path, row, patient=None if case else subject))
    return Dataset(
        root=folder,
        cases=tuple(cases),
        labels=_labels(folder, masks),
        channels=channels,
        file_ending=".nii.gz",
        population=str(about.get("Population", "")) if own else "",
        extra={"name": str(about.get("Name", folder.name))},
        notes=tuple(notes),
    )


def _subjects(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name.startswith("sub-"))


def _parsed(path: Path) -> Named | None:
    """Return a file's entities and suffix; None for what is no volume by a BIDS name."""
    ending = next((ending for ending in _ENDINGS if path.name.endswith(ending)), None)
    if ending is None or path.name[0] == ".":
        return None
    *pairs, suffix = path.name.removesuffix(ending).split("_")
    matches = [_ENTITY.fullmatch(pair) for pair in pairs]
    if not matches or not all(matches) or "-" in suffix:
        return None
    entities = {match[1]: match[2] for match in matches if match}
    return Named(path, entities, suffix) if "sub" in entities else None


def _synthetic_case(image: Path) -> str | None:
    """Return the case that the sidecar of a synthetic image names."""
    case = peek_json(image.with_name(f"{image.name.split('.')[0]}.json")).get("SynthCase")
    return None if case is None else str(case)


def _images(folder: Path, own: Mapping[str, str]) -> dict[str, dict[str, Named]]:
    """Return session -> suffix (or the channel that `own` calls it) -> image.

    Errors: DataError for misplaced and several files of one suffix.
    """
    out: dict[str, dict[str, Named]] = {}
    for subject in _subjects(folder):
        for anat in sorted([subject / "anat", *subject.glob("ses-*/anat")]):
            for path in sorted(anat.iterdir()) if anat.is_dir() else ():
                named = _parsed(path)
                if named is None or named.suffix in _NO_IMAGE:
                    continue
                place = "_".join([subject.name, *([anat.parent.name] if anat.parent != subject else [])])
                if named.case != place:
                    raise DataError(f"{path} is named {named.case}, its folder says {place}; rename or move it")
                found = out.setdefault(named.case, {})
                suffix = own.get(named.suffix, named.suffix)
                if suffix in found:
                    both = f"{found[suffix].path.name}, {path.name}"
                    raise DataError(f"{anat} has several {suffix} of {named.case}: {both}; keep one")
                found[suffix] = named
    if not out:
        raise DataError(f"{folder} has no images sub-<x>[/ses-<y>]/anat/*.nii.gz; put them there")
    return out


def _masks(folder: Path, images: Mapping[str, object]) -> dict[str, Named]:
    """Return session -> its one mask. Errors: DataError with the list where there are several, or none."""
    found: dict[str, list[Named]] = {name: [] for name in images}
    places = sorted((folder / "derivatives").rglob("sub-*"))
    beside = [path for subject in _subjects(folder) for path in sorted(subject.rglob("anat/sub-*"))]
    for paths in (places, beside):
        for path in paths:
            named = _parsed(path) if path.is_file() else None
            if named is not None and named.suffix in _MASKS and named.case in found:
                found[named.case].append(named)
        if any(found.values()):
            break
    for name, masks in found.items():
        if not masks:
            raise DataError(
                f"{name} has no mask in {folder / 'derivatives'}; add {name}_dseg.nii.gz there or take the session out"
            )
        if len(masks) > 1:
            told = ", ".join(str(one.path.relative_to(folder)) for one in masks)
            raise DataError(f"{name} has {len(masks)} masks: {told}; keep one of them in derivatives")
    out = {name: masks[0] for name, masks in found.items()}
    kinds = {_kind(one): one for one in out.values()}
    if len(kinds) > 1:
        told = ", ".join(sorted(str(one.path.relative_to(folder)) for one in kinds.values()))
        raise DataError(f"{folder / 'derivatives'} has masks of several kinds: {told}; keep one kind")
    return out


def _kind(mask: Named) -> tuple[str, str]:
    return mask.suffix, mask.entities.get("desc", mask.entities.get("label", ""))


def _labels(folder: Path, masks: Mapping[str, Named]) -> tuple[Label, ...]:
    """Return the labels: of a _mask its desc or label entity, of a _dseg the names of dseg.tsv, else numbers."""
    first = next(iter(masks.values()))
    if first.suffix == "mask":
        return Names({1: _kind(first)[1] or "mask"}).describe(())
    names: dict[int, str] = {}
    for one in masks.values():
        for value, name in _table(folder, one).items():
            if names.setdefault(value, name) != name:
                raise DataError(f"{one.path}: its table calls {value} {name!r}, others {names[value]!r}; mend one")
    if names:
        return Names(names).describe(())
    return Names().describe([value for one in masks.values() for value in values_of(read(one.path, labels={}).data)])


def _table(folder: Path, mask: Named) -> dict[int, str]:
    """Return value -> name of the nearest table: beside the mask under its name, then dseg.tsv in folders above."""
    stem = mask.path.name.split(".")[0]
    desc = f"desc-{mask.entities['desc']}_dseg.tsv" if "desc" in mask.entities else "dseg.tsv"
    above = [parent for parent in mask.path.parents if parent.is_relative_to(folder)]
    places = [mask.path.with_name(f"{stem}.tsv"), *(parent / name for parent in above for name in (desc, "dseg.tsv"))]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        return {}
    names: dict[int, str] = {}
    for index, row in read_rows(path, key="index", delimiter="\t").items():
        if not re.fullmatch(r"\d{1,9}", index) or not str(row.get("name", "")).strip():
            raise DataError(f"{path}: index {index!r} is no whole number with a name; mend the line")
        if int(index):
            names[int(index)] = str(row["name"])
    twice = next((name for name, count in Counter(names.values()).items() if count > 1), None)
    if twice is not None or not names:
        raise DataError(f"{path} names {f'{twice!r} twice' if twice else 'no label but the background'}; mend it")
    return names
