"""From folders to evidence: prepared cases and generated sets as the judge takes them, and what a set says of itself.

Knows readers and the evidence, no section and no option of a verb.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evaluation.evidence import Judged
    from synth.data.prepared import Prepared, PreparedCase
    from synth.data.schema import Schema
    from synth.data.seen import Seen
    from synth.volume import Volume


def seen_by_model(folder: Path) -> "Seen | None":
    """Return whom the model of a generated set saw; None where the set does not say.

    Errors: DataError where it tells of another model than the manifest names.
    """
    from pipelines.records import rows_beside
    from synth.data.seen import SEEN_FILE, read_seen
    from synth.errors import DataError

    seen = read_seen(folder)
    if seen is not None and {row["model"]["sha256"] for row in rows_beside(folder)} != {seen.model}:
        raise DataError(
            f"{folder / SEEN_FILE} is of another model than manifest.jsonl names; generate the set again or remove both"
        )
    return seen


def real_set(prepared: "Prepared", cases: "Sequence[PreparedCase]") -> "Iterator[Judged]":
    """Yield prepared cases as the judge takes them."""
    from evaluation.evidence import Judged

    for case in cases:
        yield Judged(
            case.case,
            prepared.image(case),
            prepared.mask(case),
            patient=case.patient,
            attributes=case.attributes,
            text=case.text,
        )


def synthetic_set(
    folder: Path, schema: "Schema", *, attribute: str, masks: Collection[str | None] = ()
) -> "list[Judged]":
    """Return a generated dataset as the judge takes it: on the real data's working grid, mapped, labels by name.

    masks   `mask_digest` of real masks: a sample on an edit of one counts as on a real one
    """
    from evaluation.evidence import Judged
    from pipelines.origins import edits_patient
    from pipelines.records import rows_beside
    from synth.data.preparation import working_pair
    from synth.data.reading import read_image, read_mask
    from synth.errors import DataError
    from synth.formats import read as read_dataset
    from synth.formats.cases import values_of

    dataset = read_dataset(folder)
    rows = rows_beside(folder)
    told = {row["case"]: row for row in rows}
    require_order(folder, dataset.channels, schema.channels)
    names = [label.name for label in schema.labels]
    strange = {label.value: label.name for label in dataset.labels if label.name not in names}
    out = []
    for case in dataset.cases:
        if case.mask is None:
            raise DataError(f"{folder}: case {case.id} has no mask; pairs are judged, so give it one or drop it")
        native = read_image(case, dataset, varied=False)
        _require_like(native, schema, f"{folder}: case {case.id}")
        mask = read_mask(case, dataset, native)
        # a fine-tuned model knows labels that its new data lacks, and may make none of them
        for value in strange.keys() & set(values_of(mask.data)) if strange else ():
            raise DataError(
                f"{folder}: label {strange[value]!r} of case {case.id} is not one of the real data's "
                f"({', '.join(names)}); judge like with like"
            )
        image, labels, _ = working_pair(native, mask, schema)
        row = told.get(case.id, {"condition": {"attributes": {}}})
        condition = row["condition"]
        edited = (condition.get("edit") or {}).get("of", {}).get("masks", ())
        out.append(
            Judged(
                case.id,
                image,
                labels,
                str(condition["attributes"].get(attribute, "")),
                attributes=condition["attributes"],
                text=condition.get("text"),
                mask_origin="real" if set(edited) & set(masks) else row.get("mask_origin"),
                edits_patient=edits_patient(row),
                native_grid=native.grid,
                native_spacing_mm=tuple(float(step) for step in native.spacing_mm),
                asked_grid=tuple(condition.get("size") or ()),
                asked_spacing_mm=tuple(condition.get("spacing_mm") or ()),
            )
        )
    return out


def _require_like(native: "Volume", schema: "Schema", where: str) -> None:
    """Errors: DataError that begins with `where`, for other channels or dimensions than the real data's."""
    from synth.errors import DataError

    if native.channels != len(schema.intensities):
        raise DataError(
            f"{where} has {native.channels} channels, the real data has {len(schema.intensities)}; judge like with like"
        )
    if native.spatial_dims != len(schema.grid):
        raise DataError(f"{where} is {native.spatial_dims}D, the real data {len(schema.grid)}D; judge like with like")


def require_order(folder: Path, channels: tuple[str, ...], wanted: tuple[str, ...]) -> None:
    """Errors: DataError where the channels are the real data's in another order; layouts may call them otherwise."""
    from synth.errors import DataError

    if channels != wanted and sorted(channels) == sorted(wanted):
        raise DataError(
            f"{folder}: channels are {', '.join(channels)}, the real data's {', '.join(wanted)}; reorder them"
        )


SAID = ("dataset.json", "manifest.jsonl", "splits_final.json")
"""What a set says of itself beside its images and masks: a report binds these too, where they are there."""


def require_unchanged(folder: Path, judged: "Mapping[str, str]") -> None:
    """Errors: DataError where a file of a set is not what it was when `digests` told of it: a report would not hold."""
    from synth.errors import DataError

    now = digests(folder)
    changed = sorted(name for name in {*now, *judged} if now.get(name) != judged.get(name))
    if changed:
        raise DataError(f"{folder / changed[0]} was changed while the set was judged; judge it again, left alone")


def digests(folder: Path) -> dict[str, str]:
    """Return {path relative to the folder: sha256} of a dataset's images and masks, in whatever layout, and `SAID`."""
    import os

    from synth.formats import read
    from synth.formats.nnunet import sha256_of

    named = {path for case in read(folder).cases for path in (*case.images, case.mask) if path is not None}
    named |= {folder / name for name in SAID}
    files = {file for path in named for file in (path.iterdir() if path.is_dir() else [path]) if file.is_file()}
    return {Path(os.path.relpath(path, folder)).as_posix(): sha256_of(path) for path in sorted(files)}
