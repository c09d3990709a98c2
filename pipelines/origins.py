"""Whose a sample may be: what an edit was made of, and whom models saw beside the patients at hand. Knows no verb."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.handover import RealCase
    from synth.data.dataset import Case
    from synth.data.seen import Seen
    from synth.volume import Volume


def edits_patient(row: Mapping[str, Any]) -> bool:
    """True where a row is of an edit of an image not known to be synthetic: beyond the edit it is that image.

    >>> edits_patient({"condition": {"edit": {"task": "inpaint"}}}), edits_patient({"condition": {}})
    (True, False)
    """
    edit = row["condition"].get("edit")
    return edit is not None and not edit.get("of_synthetic")


def source_of(case: "Case", folder: Path, row: Mapping[str, Any] | None, image: "Volume", mask: "Volume") -> dict:
    """Return what the row of an edit says of its source: `of`, and `of_synthetic` where that is a recorded sample.

    of             `voxel_digest` of the images, `mask_digest` of the masks, and models, of all edits in turn
    of_synthetic   MODEL_SHA256/CASE, where `row` of the manifest beside it has the sha256 of the very files

    row   of the manifest in `folder` with the name of the case; None without
    """
    from synth.data.prepared import mask_digest, voxel_digest

    known = row if row is not None and _same_files(case, folder, row) else None
    edit = {} if known is None else known["condition"].get("edit") or {}
    before = edit.get("of", {})
    of: dict[str, set[str]] = {name: set(before.get(name, ())) for name in ("images", "masks", "models")}
    of["images"].add(voxel_digest(image.data))
    of["masks"].add(mask_digest(as_given(mask, None if known is None else known.get("mask_affine")).data))
    out: dict[str, Any] = {}
    if known is not None:
        of["models"].add(known["model"]["sha256"])
        if not edits_patient(known):
            out["of_synthetic"] = f"{known['model']['sha256']}/{case.id}"
    return {**out, "of": {name: sorted(values - {""}) for name, values in of.items()}}


def as_given(mask: "Volume", affine: Sequence[float] | None) -> "Volume":
    """Return a mask whose voxels lie as those of the mask that it follows, whose affine its row tells, if any."""
    import numpy as np

    from synth.data.orientation import lying_as

    return mask if affine is None else lying_as(mask, np.array(affine, dtype=np.float64).reshape(4, 4))


def shown_by_edit(row: Mapping[str, Any], cases: "Sequence[RealCase]") -> set[str]:
    """Return the digests of images and masks that an edit was made of; none of a row without.

    Errors: DataError where whose image was edited is not known: not synthetic and of none of these cases, or of a
    model that the set does not tell of.
    """
    from synth.errors import DataError

    edit = row["condition"].get("edit")
    of = {} if edit is None else edit.get("of", {})
    digests = {*of.get("images", ()), *of.get("masks", ())}
    if edits_patient(row) and not any({case.digest, case.mask_digest} & digests for case in cases):
        raise DataError(
            f"case {row['case']} is an edit of an image that is neither synthetic nor of --into, so that its patient "
            "may be one to validate on; leave it out, or edit the images of --into themselves"
        )
    if other_models([row]):
        raise DataError(
            f"case {row['case']} is an edit of a sample of another model, and whom that saw is not told here; edit "
            "samples of the model itself"
        )
    return digests


def other_models(rows: Iterable[Mapping[str, Any]]) -> set[str]:
    """Return the sha256 of models whose samples were edited by another model: a set tells nothing of whom those saw.

    >>> other_models([{"model": {"sha256": "a"}, "condition": {"edit": {"of": {"models": ["a", "b"]}}}}])
    {'b'}
    """
    edits = ((row["model"]["sha256"], row["condition"].get("edit") or {}) for row in rows)
    return {model for own, edit in edits for model in edit.get("of", {}).get("models", ()) if model != own}


def seen_beside(seen: "Seen", digests: Collection[str]) -> list[str]:
    """Return in words whom a model and its sources were trained on beside the cases of these digests."""
    from dataclasses import replace

    line = [replace(one, holdout=(), source=None) for one in seen.line]
    others = sum(len(one.training) - sum(map(one.has, digests)) for one in line)
    told = [f"{others} cases that are not among these training patients"] if others else []
    return told + ([f"those of {seen.gap}, its source, which does not say whom it saw"] if seen.gap else [])


def not_searched(seen: "Seen | None", digests: Collection[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Return in words among whom copies are looked for, and among whom not though samples may show them.

    Empty where the set tells of nobody else.
    digests   of the training cases at hand
    rows      of the set's manifest
    """
    told = (
        []
        if seen is None
        else [f"{one}, though the model or its source saw them" for one in seen_beside(seen, digests)]
    )
    if models := other_models(rows):
        told.append(f"whoever trained the {len(models)} other models whose samples were edited")
    searched = f"copies were looked for among {len(digests)} training cases"
    return f"{searched}, and not among {' nor among '.join(told)}" if told else ""


def _same_files(case: "Case", folder: Path, row: Mapping[str, Any]) -> bool:
    """True where the image's files are those of the row, byte for byte."""
    import os

    from synth.formats.nnunet import sha256_of

    files = [file for path in case.images for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
    told = row.get("files", {})
    return bool(files) and all(
        told.get(Path(os.path.relpath(file, folder)).as_posix()) == sha256_of(file) for file in files
    )
