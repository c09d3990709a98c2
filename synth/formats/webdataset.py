"""WebDataset shards: shard-00000.tar, ... of <case>.image.npy, <case>.label.npy and <case>.json, in order of cases.

image (channel, *grid), label (*grid) with the source's label values; the json holds affine (4, 4, RAS+), spacing_mm,
channels, labels, attributes, text and seed. Members are plain USTAR without owner or time, so equal sets are equal
bytes. Nothing but the standard library writes or reads them here; `webdataset` reads them with its own `.decode()`.
"""

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, final

import numpy as np

from synth.errors import DataError, OutputError
from synth.formats.writing import NOTICE, Told, Writer, require_digest, safe
from synth.io import write_file
from synth.volume import Volume

SHARD = 64
"""Samples in a shard: case number n lies in shard n // 64, whatever the number of samples."""
_PARTS = "parts"
_KINDS = ("image.npy", "label.npy", "json")
_NUMBER = re.compile(r"(\d+)$")


@final
class WebDatasetWriter(Writer):
    """Writes parts/<case>.tar as cases come; `finish` packs them into shards and takes the parts away.

    A larger set later reopens the last shard. Case ids end in a number and hold no dot, which parts key from ending.
    """

    index = ("synth.json",)

    def __init__(self, folder: str | Path, about: Any) -> None:
        super().__init__(folder, about)
        self._held: dict[int, tuple[tuple[int, int], frozenset[str]]] = {}

    def paths(self, case: str, grid: tuple[int, ...] = ()) -> list[Path]:
        """Return the case's part, which its shard takes up in the end."""
        if "." in safe(case) or not _NUMBER.search(case):
            raise OutputError(f"case id {case!r} cannot stand in a shard; end it in a number and leave dots out")
        return [Path(_PARTS) / f"{case}.tar"]

    def has(self, case: str) -> bool:
        """True when the case is a part, or in its shard."""
        return super().has(case) or case in self._cases_of(_shard(case))

    def whole(self, case: str, files: Iterable[str]) -> bool:
        """True when the case is a part that holds something, or in its shard."""
        part = self.folder / self.paths(case)[0]
        return part.stat().st_size > 0 if part.is_file() else self.has(case)

    def add(self, case: str, image: Volume, mask: Volume, told: Told | None = None) -> dict[str, str]:
        """Write one case; the answer names members of its shard, shard-00000.tar/<case>.image.npy."""
        super().add(case, image, mask, told)
        with tarfile.open(self.folder / self.paths(case)[0]) as part:
            shard = _name(_shard(case))
            return {
                f"{shard}/{member.name}": hashlib.sha256(_content(part, member)).hexdigest()
                for member in part.getmembers()
            }

    def write(self, case: str, image: Volume, mask: Volume, told: Told) -> None:
        """Write a small tar of the case's three members."""
        about = {
            "case": case,
            "affine": image.affine.tolist(),
            "spacing_mm": list(image.spacing_mm),
            "channels": list(self.about.channels),
            "labels": self.about.label_values,
            "attributes": dict(told.attributes),
            "text": told.text,
            "seed": list(told.identity[1:]),
            "population": self.about.population,
            "synthetic": NOTICE,
        }
        self._put_part(case, (_npy(image.data), _npy(mask.data[0]), json.dumps(about, sort_keys=True).encode()))

    def take(self, source: Writer, case: str, files: Mapping[str, str]) -> None:
        """Write a case's part from its part or shard in another folder. Errors: as `Writer.take`."""
        contents: list[bytes] = []
        for kind in _KINDS:
            name = f"{_name(_shard(case))}/{case}.{kind}"
            with source.opened(name) as file:
                contents.append(file.read())
            require_digest(source.folder / name, hashlib.sha256(contents[-1]).hexdigest(), files.get(name, ""))
        self._put_part(case, contents)

    @contextmanager
    def opened(self, name: str) -> Iterator[IO[bytes]]:
        """Open a member, wherever its case is. Errors: DataError where it is not there."""
        shard, _, member = name.rpartition("/")
        part = self.folder / _PARTS / f"{member.partition('.')[0]}.tar"
        place = part if part.is_file() else self.folder / shard
        try:
            with tarfile.open(place) as archive:
                content = _content(archive, archive.getmember(member))
        except (tarfile.TarError, KeyError, EOFError, OSError) as error:
            raise DataError(f"{place} cannot be read ({error}); generate it again") from error
        yield io.BytesIO(content)

    def parts(self, told: Told) -> tuple[str, ...]:
        """Return the members of image and mask."""
        return tuple(f"{_name(_shard(told.case))}/{told.case}.{kind}" for kind in _KINDS[:2])

    def part(self, told: Told, name: str) -> Volume:
        """Return image or mask; the json beside them says where they lie."""
        held: dict[str, bytes] = {}
        for kind in _KINDS:
            with self.opened(f"{_name(_shard(told.case))}/{told.case}.{kind}") as file:
                held[kind] = file.read()
        try:
            image, mask, _ = _pair(held)
        except (ValueError, KeyError, EOFError) as error:
            raise DataError(f"{self.folder}: case {told.case!r} is damaged ({error}); generate it again") from error
        return image if name == self.parts(told)[0] else mask

    def _put_part(self, case: str, contents: Sequence[bytes]) -> None:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as part:
            for kind, content in zip(_KINDS, contents, strict=True):
                _put(part, f"{case}.{kind}", content)
        write_file(self.folder / self.paths(case)[0], [out.getvalue()])

    def finish(self, count: int | None = None, told: Iterable[Told] = ()) -> None:
        """Pack parts into shards, then write synth.json."""
        parts = sorted(path.stem for path in (self.folder / _PARTS).glob("[!.]*.tar"))
        for number in sorted({_shard(case) for case in parts}):
            own = {case: self.folder / self.paths(case)[0] for case in parts if _shard(case) == number}
            self._pack(number, own)
            for path in own.values():
                path.unlink()
        if (self.folder / _PARTS).is_dir() and not any((self.folder / _PARTS).iterdir()):
            (self.folder / _PARTS).rmdir()
        shards = shards_of(self.folder)
        cases = [case for shard in shards for case in sorted(self._cases_of(_shard(shard.stem)))]
        found = self.require(count, cases)
        about = {
            "name": self.about.name,
            "description": NOTICE,
            "shards": [path.name for path in shards],
            "samples": found,
            "channels": list(self.about.channels),
            "labels": self.about.label_values,
            "population": self.about.population,
            "synthetic": True,
        }
        self.put_json("synth.json", about)

    def _pack(self, number: int, parts: dict[str, Path]) -> None:
        """Write a shard of what it held and of `parts`, ordered by case."""
        path = self.folder / _name(number)
        held = self._cases_of(number) - set(parts)

        def fill(file: IO[bytes]) -> None:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as shard:
                before = tarfile.open(path) if held else None  # noqa: SIM115 - closed below
                try:
                    for case in sorted({*held, *parts}):
                        if case in parts:
                            with tarfile.open(parts[case]) as part:
                                _copy(part, shard, case)
                        elif before is not None:
                            _copy(before, shard, case)
                finally:
                    if before is not None:
                        before.close()

        write_file(path, fill)

    def _cases_of(self, number: int) -> frozenset[str]:
        """Return the cases of a shard, looked up again only when its file has changed."""
        path = self.folder / _name(number)
        if not path.is_file():
            return frozenset()
        stamp = (path.stat().st_mtime_ns, path.stat().st_size)
        if number not in self._held or self._held[number][0] != stamp:
            try:
                with tarfile.open(path) as shard:
                    cases = frozenset(name.partition(".")[0] for name in shard.getnames())
            except (tarfile.TarError, EOFError, OSError) as error:
                raise OutputError(f"{path} is damaged ({error}); remove it, its samples are made again") from error
            self._held[number] = (stamp, cases)
        return self._held[number][1]


def shards_of(folder: str | Path) -> list[Path]:
    """Return the shards of a folder in order."""
    return sorted(Path(folder).glob("shard-*.tar"))


def pairs(folder: str | Path) -> Iterator[tuple[Volume, Volume, dict[str, Any]]]:
    """Yield (image, mask, what its json says) of every sample, in order. Errors: DataError for damaged shards."""
    shards = shards_of(folder)
    if not shards:
        raise DataError(f"{folder} holds no shard-*.tar; give the folder of the shards")
    for path in shards:
        try:
            with tarfile.open(path) as shard:
                held: dict[str, dict[str, bytes]] = {}
                for member in shard:
                    case, _, kind = member.name.partition(".")
                    held.setdefault(case, {})[kind] = _content(shard, member)
                    if len(held[case]) == len(_KINDS):
                        yield _pair(held.pop(case))
        except (tarfile.TarError, EOFError, KeyError, ValueError) as error:
            raise DataError(f"{path} is damaged ({error}); copy or generate it again") from error
        if held:
            raise DataError(f"{path}: sample {min(held)} is not whole; copy or generate it again")


def _pair(held: dict[str, bytes]) -> tuple[Volume, Volume, dict[str, Any]]:
    about = json.loads(held["json"])
    image, label = (np.load(io.BytesIO(held[kind]), allow_pickle=False) for kind in _KINDS[:2])
    affine = np.array(about["affine"])
    return Volume(image, affine), Volume(label[None], affine, about["labels"]), about


def _shard(name: str) -> int:
    found = _NUMBER.search(name)
    assert found is not None, "checked by paths"
    return int(found[1]) if name.startswith("shard-") else int(found[1]) // SHARD


def _name(number: int) -> str:
    return f"shard-{number:05d}.tar"


def _npy(data: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, np.ascontiguousarray(data), allow_pickle=False)
    return out.getvalue()


def _put(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o644  # owner and time stay 0
    archive.addfile(member, io.BytesIO(content))


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    if file is None:
        raise DataError(f"{archive.name}: {member.name} is no file; generate the set again")
    return file.read()


def _copy(source: tarfile.TarFile, target: tarfile.TarFile, case: str) -> None:
    for kind in _KINDS:
        member = source.getmember(f"{case}.{kind}")
        _put(target, member.name, _content(source, member))
