"""What a generated set says of patients: whom its model saw (salted hashes), and whom a network may validate on."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from synth.data.seen import Seen


def validation_of(
    data: Path | None, seen: "Seen | None", model: str, masks: Iterable[tuple[str, str]] = ()
) -> tuple[str, ...]:
    """Return the real cases of prepared `data` to validate on, of patients that the model never saw; none without data.

    masks   (case, digest) of those that samples follow
    Errors: DataError where the model saw them, where there are none, and where a mask is of a held-out patient.
    """
    import sys

    if data is None:
        return ()
    from synth.data.prepared import Prepared
    from synth.data.seen import require_masks_of_others, unseen_cases

    if seen is None:
        print(f"{model} does not record whom it was trained on: taken as no patient of --data", file=sys.stderr)
    elif seen.gap:
        told = f"{model} was fine-tuned from {seen.gap}, which does not record whom it was trained on"
        print(f"{told}: taken as no patient of --data", file=sys.stderr)
    prepared, masks = Prepared.load(data), list(masks)
    cases = unseen_cases(prepared, seen)
    if masks and any(row.mask_digest is None for row in prepared.rows):
        print(f"{data} does not record its masks: told apart by name alone; `synth prepare` again", file=sys.stderr)
    require_masks_of_others(prepared, [*cases, *prepared.split("test")], masks)
    return tuple(case.case for case in cases)


def write_sidecars(out: Path, seen: "Seen | None", samples: list[str], validation: tuple[str, ...]) -> None:
    """Write patients.json where the model has one, and splits_final.json: train on `samples`, validate on real cases.

    Without `validation`, a splits_final.json that is there keeps its own and takes up new samples.
    """
    from synth.data.folds import SPLITS_FILE, Fold, dump_folds, read_folds
    from synth.data.seen import SEEN_FILE
    from synth.io import write_bytes

    if not validation and (out / SPLITS_FILE).is_file():
        validation = read_folds(out / SPLITS_FILE)[0].val
    if validation:
        write_bytes(out / SPLITS_FILE, dump_folds([Fold(tuple(samples), validation)]))
    if seen is not None:
        write_bytes(out / SEEN_FILE, seen.dump())
