"""SynthRAD folders: <case>/{mr,ct,cbct,...}.mha with <case>/mask.mha, also below a folder for each region (AB, HN, TH).

Every file of a case but the mask is a channel, called by its name. In the challenge's own data (2025 .mha, 2023
.nii.gz) the mask is the outline of the body; what else lies beside the cases (overview/) is not read.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import final

from synth.data.dataset import Case, Dataset
from synth.errors import DataError
from synth.formats.cases import Names, case_of, read_rows, require_one_grid, values_of
from synth.formats.writing import Told, Writer, dataset_json, safe, write_cases
from synth.io import SUFFIXES, read, suffix_of, write
from synth.volume import Volume

LOOKS = "SynthRAD (<case>/ct.mha, mr.mha, mask.mha)"
_KNOWN = ("ct", "cbct", "mr")


def fits(folder: Path) -> bool:
    """True where a folder below, or below that, holds a mask and another volume."""
    return any(_channels(case) for case in _cases(folder))


def read_dataset(folder: Path) -> Dataset:
    """Return the dataset. Errors: DataError for cases of other channels than the first, GeometryError."""
    names = Names.beside(folder)
    rows = read_rows(folder / "cases.csv")
    cases: list[Case] = []
    channels: tuple[str, ...] = ()
    values: set[int] = set()
    for place in _cases(folder):
        mask = _mask(place)
        assert mask is not None, "cases have one"
        found = _channels(place)
        wanted = tuple(file_name(name) for name in names.channels or ()) or channels or tuple(sorted(found))
        channels = channels or wanted
        if not found or set(found) != set(wanted):
            raise DataError(
                f"{place} has {', '.join(found) or 'no image'}, others {', '.join(wanted)}; give all the same"
            )
        paths = [found[name] for name in wanted]
        require_one_grid(place.name, paths, mask)
        if any(case.id == place.name for case in cases):
            raise DataError(f"{folder} has two cases {place.name!r}; rename one")
        if names.labels is None:
            values.update(values_of(read(mask, labels={}).data))
        cases.append(case_of(place.name, paths, mask, rows.get(place.name, {})))
    for name in rows:
        if all(case.id != name for case in cases):
            raise DataError(f"{folder / 'cases.csv'} names case {name!r}, which has no folder; remove the line")
    outline = names.labels is None and values <= {0, 1}
    return Dataset(
        root=folder,
        cases=tuple(sorted(cases, key=lambda case: case.id)),
        labels=(Names({1: "body"}) if outline else names).describe(sorted(values)),
        channels=names.channels or tuple(name.upper() if name in _KNOWN else name for name in channels),
        file_ending=suffix_of(cases[0].images[0]),
        population=str(names.extra.get("population", "")),
        extra=names.extra,
    )


def file_name(channel: str) -> str:
    """Return the stem of a channel's file: lower case, letters and digits.

    >>> file_name("T1w + Gd")
    't1wgd'
    """
    return re.sub(r"[^a-z0-9]", "", channel.lower()) or "channel"


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] not in "._")


def _cases(folder: Path) -> list[Path]:
    """Return the folders of cases: below the folder, or below regions of it."""
    direct = [place for place in _folders(folder) if _mask(place) is not None]
    return direct or [case for place in _folders(folder) for case in _folders(place) if _mask(case) is not None]


def _mask(place: Path) -> Path | None:
    return next((path for suffix in SUFFIXES if (path := place / f"mask{suffix}").is_file()), None)


def _channels(place: Path) -> dict[str, Path]:
    out: dict[str, Path] = {}
    for path in sorted(place.iterdir()):
        if path.is_file() and path.name[0] != "." and path.name.lower().endswith(SUFFIXES):
            name = path.name[: -len(suffix_of(path))].lower()
            if name != "mask":
                out[name] = path
    return out


@final
class SynthRADWriter(Writer):
    """Writes <case>/<channel>.mha (LPS, compressed by ITK) and <case>/mask.mha, names and labels in labels.json."""

    index = ("labels.json",)

    def paths(self, case: str, grid: tuple[int, ...] = ()) -> list[Path]:
        """Return a file a channel, and the mask."""
        stems = [file_name(name) for name in self.about.channels]
        if len(set(stems)) < len(stems) or "mask" in stems:
            stems = [f"{stem}{number}" for number, stem in enumerate(stems)]
        return [Path(safe(case)) / f"{stem}.mha" for stem in (*stems, "mask")]

    def write(self, case: str, image: Volume, mask: Volume, told: Told) -> None:
        """Write the channels, then the mask."""
        *images, last = self.paths(case)
        for channel, path in enumerate(images):
            write(image.replace(data=image.data[channel : channel + 1]), self.folder / path)
        write(mask, self.folder / last)

    def finish(self, count: int | None = None, told: Iterable[Told] = ()) -> None:
        """Write cases.csv and labels.json."""
        self.require(count, [path.parent.name for path in self.folder.glob("[!.]*/mask.mha")])
        write_cases(self.folder, told)
        self.put_json("labels.json", dataset_json(self.about))
