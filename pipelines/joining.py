"""Shards of one set from separate folders, joined: what one process had written, byte for byte. Needs no model."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.records import (
    MANIFEST,
    REQUEST,
    SetFacts,
    case_name,
    finish_set,
    layout_of,
    manifest_rows,
    prompts_path,
    read_notes,
    read_record,
    read_request,
    record_path,
    recorded,
    unfinished,
    whole_record,
)

if TYPE_CHECKING:
    from synth.formats.writing import Writer

_SHOWN = 8


def join(shards: Sequence[Path], out: Path) -> int:
    """Write the set of `shards` into `out` and return how many samples it has.

    Every file is compared with the sha256 of its record on the way. Errors: DataError for folders of other requests,
    shards that were cut short, samples that are missing or there twice, broken records and changed files; OutputError
    where `out` holds something else.
    """
    from pipelines.places import require_room
    from pipelines.progress import progress
    from pipelines.workers import alone
    from synth.data.seen import read_seen
    from synth.io import write_bytes

    request = _one_request(shards)
    count, validation, facts = _one_set(shards)
    owners = _owners(shards, count)
    require_room(out, _bytes_missing(shards, out), "the set takes")
    _require_own(out, request, count)
    seen = read_seen(shards[0])
    out.mkdir(parents=True, exist_ok=True)
    with alone(out):
        write_bytes(out / REQUEST, request)
        writer = facts.writer(out)
        sources = {folder: facts.writer(folder) for folder in shards}
        todo = [index for index in range(count) if not whole_record(writer, index)]
        if todo:
            writer.reopen()
        with progress("samples", len(todo)) as bar:
            for index in todo:
                _copy(sources[owners[index]], writer, index)
                bar.advance()
        finish_set(out, facts, seen, count, validation)
    return count


def _one_request(shards: Sequence[Path]) -> bytes:
    """Return the ask that all shards share. Errors: DataError for a folder without, and for another ask."""
    from synth.errors import DataError

    first: dict[str, Any] = {}
    content = b""
    for folder in shards:
        path = folder / REQUEST
        if not path.is_file():
            raise DataError(f"{folder} is no shard: it has no {REQUEST}; give folders that `synth generate` wrote")
        asked = read_request(path, mend="run the shard's `synth generate` again")
        first = first if content else asked
        content = content or path.read_bytes()
        differ = [name for name in sorted({*asked, *first}) if asked.get(name) != first.get(name)]
        if differ:
            name = differ[0]
            raise DataError(
                f"{folder} is of another request than {shards[0]}: {name} is {asked.get(name)}, not {first.get(name)}; "
                "join shards of one"
            )
    return content


def _one_set(shards: Sequence[Path]) -> tuple[int, tuple[str, ...], SetFacts]:
    """Return count, validation cases and facts as every shard says them. Errors: DataError."""
    from synth.errors import DataError

    first = None
    whose = shards[0]
    for folder in shards:
        notes = read_notes(folder)
        if not notes and (folder / MANIFEST).is_file():
            raise DataError(f"{folder} is a whole set already; join the others without it, or use it as it is")
        if left := unfinished(folder):
            raise DataError(f"{folder} is not done: {left}")
        if not notes:
            raise DataError(f"{folder} was cut short: its shard is not done; run its `synth generate` again")
        for note in notes:
            own = (note.count, note.validation, note.facts)
            if first is None:
                first, whose = own, folder
            if own[0] != first[0]:
                raise DataError(
                    f"{folder} is of a set of {own[0]} samples, {whose} of one of {first[0]}; run "
                    f"the shorter one again with --count {max(own[0], first[0])}"
                )
            if own != first:
                raise DataError(f"{folder} and {whose} were made with other --data or versions; run one of them again")
    assert first is not None
    return first


def _owners(shards: Sequence[Path], count: int) -> dict[int, Path]:
    """Return whose each sample is. Errors: DataError for holes and doubles, and for samples beyond the count."""
    from synth.errors import DataError

    owners: dict[int, Path] = {}
    for folder in shards:
        for index in recorded(folder):
            if index >= count:
                raise DataError(f"{folder} holds sample {index}, the set has {count}; run every shard with one --count")
            if index in owners:
                raise DataError(
                    f"sample {case_name(index)} is in {owners[index]} and in {folder}; give each shard once"
                )
            owners[index] = folder
    holes = [index for index in range(count) if index not in owners]
    if holes:
        more = f" and {len(holes) - _SHOWN} more" if len(holes) > _SHOWN else ""
        asked = {(note.shard, note.shards) for folder in shards for note in read_notes(folder)}
        wanted = {(shard, number) for _, number in asked for shard in range(number)} - asked
        shard = next((f" (shard {a}/{b})" for a, b in sorted(wanted) if holes[0] % b == a), "")
        raise DataError(
            f"samples {', '.join(map(str, holes[:_SHOWN]))}{more} are in no folder{shard}; generate the shard that is "
            "missing, or give its folder too"
        )
    return owners


def _bytes_missing(shards: Sequence[Path], out: Path) -> int:
    """Return how much of the shards is not in `out` yet."""
    needed = sum(path.stat().st_size for folder in shards for path in folder.rglob("*") if path.is_file())
    there = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) if out.is_dir() else 0
    return needed - there


def _require_own(out: Path, request: bytes, count: int) -> None:
    """Errors: OutputError where `out` holds anything but a merge of this request, or more samples than that."""
    from synth.errors import OutputError

    place = out / REQUEST
    if place.is_file() and place.read_bytes() == request:
        if record_path(out, count).is_file():
            raise OutputError(f"{out} holds more samples than these shards' {count}; give another --out")
        return
    if out.is_dir() and any(found.name != f".{REQUEST}.partial" for found in out.iterdir()):
        raise OutputError(f"{out} holds something else than these shards; give another --out")


def _copy(source: "Writer", target: "Writer", index: int) -> None:
    """Copy one sample, its record last. Errors: DataError for a file that is not as its record says."""
    from synth.formats.writing import copy_checked
    from synth.io import write_bytes

    record, copied = (record_path(one.folder, index) for one in (source, target))
    row = read_record(record, index)
    target.take(source, case_name(index), row["files"])
    if row.get("prompts") is not None:
        copy_checked(prompts_path(record), prompts_path(copied), row["prompts"])
    write_bytes(copied, record.read_bytes())


def whole_set(folder: Path) -> list[dict[str, Any]]:
    """Return the manifest of a set that is complete. Errors: DataError where it is not, with the broken line."""
    from synth.errors import DataError

    needed = [MANIFEST, *_index(folder)]
    if not all((folder / name).is_file() for name in needed):
        told = " and ".join(needed)
        raise DataError(f"{folder} is no whole set (no {told}); run its `synth generate` again")
    rows = list(manifest_rows(folder / MANIFEST))
    if [row["index"] for row in rows] != list(range(len(rows))) or not rows:
        raise DataError(f"{folder / MANIFEST} does not count from 0 up; run the `synth generate` of the set again")
    return rows


def _index(folder: Path) -> tuple[str, ...]:
    """Return the files that make a set a dataset, by the layout it was asked for. Errors: DataError."""
    from synth.formats import WRITERS
    from synth.formats.writing import Description

    path = folder / REQUEST
    asked = read_request(path) if path.is_file() else {}
    return WRITERS[layout_of(asked)](folder, Description(name="", channels=("",), labels=())).index
