"""What a set says of its samples: a record each, the manifest of all, and notes of shards that are done. No model."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from synth.data.seen import Seen
    from synth.formats.writing import Description, Writer

MANIFEST, REQUEST = "manifest.jsonl", "request.json"
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
    from synth.errors import DataError

    try:
        row = _row(path.read_text(encoding="utf-8"))
        if row["index"] != index:
            raise ValueError(f"it is of sample {row['index']}")
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is broken ({error}); run the shard's `synth generate` again") from error
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


def read_request(path: Path) -> dict[str, Any]:
    """Return what a set was asked for; what a request of before does not say had one value then.

    Errors: OSError, and ValueError where it is broken.
    """
    asked = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(asked, dict):
        raise ValueError("it is no object")
    return {"device": "cpu", "format": "nnunet", "prompts": False, **asked}


def manifest_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a manifest, one at a time. Errors: DataError with the line that is broken."""
    from synth.errors import DataError

    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    yield _row(line)
                except (ValueError, RecursionError) as error:
                    raise DataError(
                        f"{path} line {number} is broken ({error}); run the `synth generate` of the set again"
                    ) from error
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; give the manifest.jsonl of a generated set") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}); run the `synth generate` of the set again") from error


def _row(text: str) -> dict[str, Any]:
    """Return a row. Errors: ValueError where something of it is missing."""
    row = json.loads(text)
    if not isinstance(row, dict):
        raise ValueError("it is no object")
    kinds = {"case": str, "index": int, "seed": int, "attempt": int, "model": dict, "condition": dict, "files": dict}
    for name, kind in kinds.items():
        if not isinstance(row.get(name), kind):
            raise ValueError(f"{name!r} is missing or of another kind")
    for path, digest in row["files"].items():
        if Path(path).is_absolute() or ".." in Path(path).parts or not isinstance(digest, str):
            raise ValueError(f"file {path!r} is no file of the set")
    return row


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
    def of(cls, row: dict[str, Any]) -> "SetFacts":
        """Return the facts of their JSON. Errors: KeyError, TypeError, AttributeError where something is missing."""
        from synth.formats import WRITERS
        from synth.formats.writing import Description
        from synth.volume import Label

        about = dict(row["about"])
        labels = [{**label, "colour": label["colour"] and tuple(label["colour"])} for label in about.pop("labels")]
        known = tuple(Label(**label) for label in labels)
        described = Description(**{**about, "channels": tuple(about["channels"]), "labels": known})
        if row["format"] not in WRITERS:
            raise KeyError(f"format {row['format']!r}")
        return cls(about=described, format=row["format"], prompts=row["prompts"])


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


def read_notes(out: Path) -> list[ShardNote]:
    """Return the notes of the shards that are done in a folder. Errors: DataError for a broken one."""
    from synth.errors import DataError

    notes = []
    for path in sorted(out.glob("shard-*-of-*.json")):
        try:
            row = json.loads(path.read_text(encoding="utf-8"))
            facts = SetFacts.of(row.pop("facts"))
            row["validation"] = tuple(row["validation"])
            notes.append(ShardNote(facts=facts, **row))
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(f"{path} is broken ({error!r}); run the shard's `synth generate` again") from error
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
    for path in (*out.glob("shard-*-of-*.json"), *out.glob("records/*.rejected*")):
        path.unlink(missing_ok=True)
    if len(places) > 1:
        print(
            f"samples were made in {len(places)} numeric environments (torch, CPU, device; see manifest.jsonl): "
            "equal bytes hold within one",
            file=sys.stderr,
        )
