"""Case mode: questions about a pair, with answers measured on its mask or as asked of the model. Knows no widget."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pipelines.page.pairs import Pair
    from synth.volume import Volume

SMALLEST_PART = 3
"""Voxels below which a connected part is not counted."""
_FOCUS = ("lesion", "tumor", "tumour", "nodule", "cyst", "metastas", "stroke", "polyp", "edema", "oedema")
_SIZES = (0.25, 1.0, 4.0, 16.0)


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question, its choices, which of them is right, and how that is known."""

    text: str
    choices: tuple[str, ...]
    answer: str
    because: str


def questions(pair: "Pair", levels: dict[str, tuple[str, ...]]) -> list[Question]:
    """Return the questions of a pair: attributes asked of it (`levels` by name), then what its mask measures.

    Errors: DataError where its mask cannot be read.
    """
    asked = (pair.provenance.get("condition") or {}).get("attributes") or {}
    out = [
        Question(text=f"Which {name.replace('_', ' ')}?", choices=known, answer=str(asked[name]), because="as asked")
        for name, known in levels.items()
        if name in asked and len(known) > 1 and _seen_in(name)
    ]
    _, mask = pair.volumes()
    if mask is not None and (label := focus(pair)) is not None:
        out += _of_mask(mask, *label)
    return out


def focus(pair: "Pair") -> tuple[str, int] | None:
    """Return name and value of the label to ask about: a finding by its name, else the smallest that is there."""
    for one in pair.legend:
        if is_finding(one.name):
            return one.name, one.value
    there = sorted((one for one in pair.legend if one.ml > 0), key=lambda one: one.ml)
    return (there[0].name, there[0].value) if there else None


def is_finding(name: str) -> bool:
    """True for the name of a label or attribute that tells of a finding.

    >>> is_finding("white matter lesion"), is_finding("wm")
    (True, False)
    """
    return any(word in name.lower() for word in _FOCUS)


def side_of(found: np.ndarray, body: np.ndarray, affine: np.ndarray) -> str:
    """Return left, right or both of the patient: centroid sides about the middle of all labels; voxels as (n, 3).

    Both where the smaller share is above a tenth.
    """
    rights = [points @ affine[0, :3] + affine[0, 3] for points in (found, body)]
    share = float((rights[0] > (rights[1].min() + rights[1].max()) / 2).mean())  # x grows to the patient's right
    return "both sides" if 0.1 < share < 0.9 else "right" if share >= 0.9 else "left"


def _of_mask(mask: "Volume", name: str, value: int) -> Iterator[Question]:
    from scipy import ndimage

    found = mask.data[0] == value
    there = bool(found.any())
    voxels = int(found.sum())
    yield Question(
        text=f"Is there a {name}?",
        choices=("yes", "no"),
        answer="yes" if there else "no",
        because=f"the mask has {voxels} voxels of it",
    )
    if not there:
        return
    if mask.spatial_dims == 3:
        points: Callable[[np.ndarray], np.ndarray] = lambda where: np.argwhere(where).astype(float)  # noqa: E731
        side = side_of(points(found), points(mask.data[0] > 0), mask.affine)
        choices = ("left", "right", "both sides")
        yield Question(
            text=f"On which side of the patient is the {name}?",
            choices=choices,
            answer=side,
            because="voxels about the middle of all labels",
        )
    parts, count = ndimage.label(found, np.ones((3,) * found.ndim))  # pyright: ignore[reportGeneralTypeIssues]
    large = int((np.bincount(parts.ravel())[1:] >= SMALLEST_PART).sum())
    yield Question(
        text=f"How many separate parts of {name} (of at least {SMALLEST_PART} voxels)?",
        choices=("0", "1", "2", "3", "4", "5 or more"),
        answer=str(large) if large < 5 else "5 or more",
        because=f"{large} of {count} connected parts are that large",
    )
    if mask.spatial_dims == 3:
        ml = voxels * float(np.prod(mask.spacing_mm)) / 1000
        names = [f"under {_SIZES[0]:g} ml"]
        names += [f"{low:g} to {high:g} ml" for low, high in zip(_SIZES[:-1], _SIZES[1:], strict=True)]
        names.append(f"{_SIZES[-1]:g} ml or more")
        yield Question(
            text=f"How large is all {name} together?",
            choices=tuple(names),
            answer=names[int(np.searchsorted(_SIZES, ml, side="right"))],
            because=f"{ml:.2f} ml in the mask",
        )


def _seen_in(name: str) -> bool:
    """True for attributes that a picture shows; how strong or how many is asked of the mask."""
    return not is_finding(name)
