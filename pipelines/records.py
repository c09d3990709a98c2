"""What a set says of its samples: a record each, the manifest of all, and notes of shards that are done. No model."""

import json
import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from synth.data.seen import Seen
    from synth.formats.writing import Description, Writer

MANIFEST, REQUEST = "manifest.jsonl", "request.json"
_UNFINISHED = ("shard-*-of-*.json", "begun-*-of-*.json", "records/*.rejected*")
_AGAIN = "run the `synth generate` of the set again"
_CASE = re.compile(r"syn_([0-9]{5,})")


def case_name(index: int) -> str:
    """Return the id of sample `index`.

    >>> case_name(7)
    'syn_00007'
    """
    return f"syn_{index:05d}"


def record_path(out: Path, index: int) -> Path:
    """Return where the record of a finished sample lies."""
    return out / "records" / f"{case_name(index)}.json"


def prompts_path(record: Path) -> Path:
    """Return where lies what was derived of a sample's mask: beside its record, which keeps the sha256."""
    return record.with_suffix(".prompts")


def write_derived(record: Path, derived: dict[str, Any]) -> str:
    """Write what was derived of a sample's mask beside its record and return the sha256."""
    import hashlib

    from synth.io import write_bytes

    content = json.dumps(derived).encode()
    write_bytes(prompts_path(record), content)
    return hashlib.sha256(content).hexdigest()


def recorded(out: Path) -> Iterator[int]:
    """Yield the indices of the records of a folder, whatever they hold."""
    names = (path.stem for path in (out / "records").glob("*.json"))
    yield from sorted(int(match[1]) for match in map(_CASE.fullmatch, names) if match)


def read_record(path: Path, index: int) -> dict[str, Any]:
    """Return a record. Errors: DataError where it is broken or another sample's."""
    from synth.documents import read_document
    from synth.errors import DataError

    again = "run the shard's `synth generate` again"
    row = read_document(path, form("MadeRow"), mend=again)
    if row["index"] != index:
        raise DataError(f"{path} line 1 is broken (it is of sample {row['index']}); {again}")
    return row


def whole_record(writer: "Writer", index: int) -> bool:
    """True where the record of a sample is whole and its files are there: a cut of power may leave empty ones."""
    from synth.errors import DataError

    record = record_path(writer.folder, index)
    try:
        row = read_record(record, index)
        derived = row.get("prompts") is None or prompts_path(record).stat().st_size > 0
        return derived and writer.whole(case_name(index), row["files"])
    except (DataError, OSError):
        return False


def read_request(path: Path, *, mend: str = "generate the set again") -> dict[str, Any]:
    """Return what a set was asked for; what a request of before does not say had one value then.

    Errors: DataError with the line, and `mend`.
    """
    from synth.documents import read_document

    asked = read_document(path, form("Request"), mend=mend)
    return {"device": "cpu", "format": "nnunet", "prompts": False, **asked}


def manifest_rows(path: Path, *, remade: bool = True) -> Iterator[dict[str, Any]]:
    """Yield the rows of a manifest, one at a time. Errors: DataError with the line that is broken.

    remade   rows say all that making a sample again takes, as ours do; False: what judging takes is enough
    """
    from synth.documents import read_lines
    from synth.errors import DataError

    if not path.exists():
        raise DataError(f"{path} does not exist; give the manifest.jsonl of a generated set")
    for _, row in read_lines(path, form("MadeRow" if remade else "Row"), mend=_AGAIN):
        yield row


def rows_beside(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of a set's manifest, as far as judging takes them; none without one.

    Errors: DataError with the line that is broken, or that tells of a case a second time.
    """
    from synth.errors import DataError

    path = folder / MANIFEST
    rows = list(manifest_rows(path, remade=False)) if path.exists() else []
    first: dict[str, int] = {}
    for number, row in enumerate(rows, start=1):
        before = first.setdefault(row["case"], number)
        if before != number:
            raise DataError(f"{path} line {number} is broken (case {row['case']!r} stands in line {before}); {_AGAIN}")
    return rows


def form(name: str) -> Any:
    """Return a form of `pipelines.forms`, which brings pydantic along."""
    from pipelines import forms

    return getattr(forms, name)


def layout_of(asked: dict[str, Any]) -> str:
    """Return the name of a set's layout by its request: as it was generated, or as it was exported. Errors: DataError.

    >>> layout_of({"format": "msd"}), layout_of({"export": "bids", "format": "nnunet"})
    ('msd', 'bids')
    """
    from synth.errors import DataError, nearest
    from synth.formats import WRITERS

    name = asked.get("export", asked.get("format", "nnunet"))
    if name not in WRITERS:
        raise DataError(f"{REQUEST} says the layout {name!r}, which is not written here; {nearest(str(name), WRITERS)}")
    return name


@dataclass(frozen=True, kw_only=True)
class SetFacts:
    """What all samples of a set share, the layout and whether prompts are derived; `writer` writes it."""

    about: "Description"
    format: str = "nnunet"
    prompts: bool = False

    def writer(self, out: Path) -> "Writer":
        """Return what writes samples into `out`."""
        from synth.formats import WRITERS

        return WRITERS[self.format](out, self.about)

    @classmethod
    def of(cls, row: dict[str, Any], where: str) -> "SetFacts":
        """Return the facts of their JSON. Errors: ConfigError that begins with `where`."""
        from synth import config
        from synth.errors import ConfigError, nearest
        from synth.formats import WRITERS
        from synth.formats.writing import Description

        if row["format"] not in WRITERS:
            raise ConfigError(f"{where}.format: {row['format']!r} is no layout; {nearest(row['format'], WRITERS)}")
        about = config.build(Description, row["about"], where=f"{where}.about")
        return cls(about=about, format=row["format"], prompts=row["prompts"])


@dataclass(frozen=True, kw_only=True)
class ShardNote:
    """What a shard that is done says, so that shards of separate folders can be joined without the model.

    count   samples of the whole set      validation   real cases to validate on
    """

    shard: int
    shards: int
    count: int
    validation: tuple[str, ...]
    facts: SetFacts

    def write(self, out: Path) -> None:
        """Write the note into the shard's folder."""
        from synth.config import plain
        from synth.io import write_bytes

        write_bytes(note_path(out, self.shard, self.shards), (json.dumps(plain(self), sort_keys=True) + "\n").encode())


def note_path(out: Path, shard: int, shards: int) -> Path:
    """Return where a shard says that it is done, as long as the set is not."""
    return out / f"shard-{shard}-of-{shards}.json"


def begun_path(out: Path, shard: int, shards: int) -> Path:
    """Return where a shard says how it is gone on with, as long as it is not done."""
    return out / f"begun-{shard}-of-{shards}.json"


def unfinished(out: Path) -> str:
    """Return in words what is not done in a folder: which shards, how far they are, and the commands that end them.

    Empty where no shard says that it was begun. Errors: DataError for a broken file.
    """
    from synth.documents import read_document

    told = []
    for path in sorted(out.glob("begun-*-of-*.json")):
        row = read_document(path, form("Begun"), mend="run the shard's `synth generate` again")
        if note_path(out, row["shard"], row["shards"]).is_file():
            continue  # a kill between the note and this file's end
        own = range(row["shard"], row["count"], row["shards"])
        there = sum(index in own for index in recorded(out))
        command = shlex.join([*row["command"], "--out", str(out)])
        told.append(f"shard {row['shard']}/{row['shards']} has {there} of {len(own)} samples; end it by `{command}`")
    return "; ".join(told)


def read_notes(out: Path) -> list[ShardNote]:
    """Return the notes of the shards that are done in a folder. Errors: DataError for a broken one."""
    from synth.documents import read_document
    from synth.errors import ConfigError, DataError

    notes, again = [], "run the shard's `synth generate` again"
    for path in sorted(out.glob("shard-*-of-*.json")):
        row = read_document(path, form("Note"), mend=again)
        try:
            facts = SetFacts.of(row["facts"], "facts")
        except ConfigError as error:
            raise DataError(f"{path} line 1 is broken ({error}); {again}") from error
        own = {name: row[name] for name in ("shard", "shards", "count")}
        notes.append(ShardNote(**own, validation=tuple(row["validation"]), facts=facts))
    return notes


def finish_set(out: Path, facts: SetFacts, seen: "Seen | None", count: int, validation: Iterable[str] = ()) -> None:
    """Write manifest.jsonl and the layout's index from the records, and what the set says of patients; notes go.

    Standard error is told where samples were made in several numeric environments.
    """
    import sys

    from pipelines.sidecars import write_sidecars
    from synth.formats.writing import Told
    from synth.io import write_file

    samples = [case_name(index) for index in range(count)]
    write_sidecars(out, seen, samples, tuple(validation))
    places: set[str] = set()

    def lines() -> Iterator[bytes]:
        for index in range(count):
            text = record_path(out, index).read_bytes()
            places.add(json.dumps(json.loads(text).get("environment"), sort_keys=True))
            yield text + b"\n"

    write_file(out / MANIFEST, lines())
    if facts.prompts:
        from synth.formats.prompts import write_prompts

        write_prompts(out, (prompts_path(record_path(out, index)) for index in range(count)))
    facts.writer(out).finish(count, (Told.of(row) for row in manifest_rows(out / MANIFEST)))
    for path in (path for rest in _UNFINISHED for path in out.glob(rest)):
        path.unlink(missing_ok=True)
    if len(places) > 1:
        print(
            f"samples were made in {len(places)} numeric environments (torch, CPU, device; see manifest.jsonl): "
            "equal bytes hold within one",
            file=sys.stderr,
        )
