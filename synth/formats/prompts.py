"""What can be said of a mask because it is known voxel by voxel: points, boxes, scribbles, captions, questions.

Every answer is measured on the mask. Places are voxel indices; sides are the patient's, from the affine (RAS+: the
patient's left is towards smaller x), so that a flipped grid changes no answer. Pictures, whose affine says nothing of
the patient, are spoken of as they are seen. Knows no layout and no model; random only by its seed.
"""

import json
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from synth.io import write_bytes, write_file
from synth.rng import numpy_rng
from synth.volume import Volume

POINTS = 3
"""Points a label: one as deep inside as can be, others anywhere inside; as many outside all labels."""
APART = 0.1
"""Sides are asked about where centres differ by more than this share of the larger extent, and by two voxels."""
PATIENT = (("left", "right"), ("posterior", "anterior"), ("inferior", "superior"))
"""Words for lesser and greater along the axes of RAS+."""
SEEN = (("left of", "right of"), ("above", "below"))
"""Words for lesser and greater column and row of a picture."""


@dataclass(frozen=True, eq=False)
class Structure:
    """One label as measured: `size` in ml (2D: mm2), components joined over faces, edges and corners, centre in mm.

    box    first and last voxel + 1 along each axis
    step   largest distance between neighbouring voxels, in mm (pictures: 1 pixel)
    """

    name: str
    value: int
    voxels: int
    size: float
    components: int
    centre: np.ndarray
    extent_mm: np.ndarray
    box: tuple[tuple[int, int], ...]
    step: float
    inside: np.ndarray


def measure(mask: Volume, *, patient_space: bool = True) -> list[Structure]:
    """Return the labels that are there, by value. `mask` carries labels; centres are RAS+ mm, or of pictures pixels.

    >>> data = np.zeros((1, 6, 4, 4), np.uint8); data[0, 0, 0, 0] = data[0, 5] = 1
    >>> one, = measure(Volume(data, np.diag([2.0, 1, 1, 1]), {"lesion": 1}))
    >>> one.voxels, one.components, one.size, one.box
    (17, 2, 0.034, ((0, 6), (0, 4), (0, 4)))
    """
    from scipy import ndimage

    dims = mask.spatial_dims
    step = mask.affine[:3, :3] if patient_space else np.eye(3)
    unit = float(np.prod(mask.spacing_mm)) / (1000.0 if dims == 3 else 1.0)
    out: list[Structure] = []
    for name, value in sorted((mask.labels or {}).items(), key=lambda item: item[1]):
        inside = mask.data[0] == value
        count = int(inside.sum())
        if value == 0 or count == 0:
            continue
        places = np.argwhere(inside).astype(np.float64)
        placed = places @ step[:, :dims].T + (mask.affine[:3, 3] if patient_space else 0.0)
        joined: Any = ndimage.label(inside, np.ones((3,) * dims))
        low, high = places.min(axis=0).astype(int), places.max(axis=0).astype(int) + 1
        out.append(
            Structure(
                name=name,
                value=value,
                voxels=count,
                size=round(count * unit, 6),
                components=int(joined[1]),
                centre=placed.mean(axis=0),
                extent_mm=placed.max(axis=0) - placed.min(axis=0),
                box=tuple((int(a), int(b)) for a, b in zip(low, high, strict=True)),
                step=max(mask.spacing_mm) if patient_space else 1.0,
                inside=inside,
            )
        )
    return out


def derive(mask: Volume, *, case: str, seed: tuple[int, ...] = (0,), patient_space: bool = True) -> dict[str, Any]:
    """Return everything that is derived of one mask, as JSON takes it; equal masks and seeds give equal answers."""
    found = measure(mask, patient_space=patient_space)
    names = sorted((name for name, value in (mask.labels or {}).items() if value != 0))
    rng = numpy_rng(*seed, "prompts")
    prompts = []
    for one in found:
        prompts.append(
            {
                "label": one.name,
                "value": one.value,
                "points": points_in(one.inside, rng),
                "box": box_of(one),
                "scribble": scribble_in(one.inside, rng),
                "voxels": one.voxels,
            }
        )
    outside = np.argwhere(mask.data[0] == 0)
    chosen = rng.permutation(len(outside))[:POINTS] if len(outside) else []
    return {
        "case": case,
        "grid": list(mask.grid),
        "spacing_mm": [round(step, 6) for step in mask.spacing_mm],
        "prompts": prompts,
        "background_points": outside[chosen].tolist() if len(outside) else [],
        "caption": caption(found, patient_space=patient_space, dims=mask.spatial_dims),
        "questions": questions(found, names, patient_space=patient_space, dims=mask.spatial_dims),
    }


def points_in(inside: np.ndarray, rng: np.random.Generator) -> list[list[int]]:
    """Return voxels inside: the deepest (largest distance to the outside), then some drawn at random."""
    from scipy import ndimage

    depth: Any = ndimage.distance_transform_edt(np.pad(inside, 1))
    deepest = np.unravel_index(int(np.argmax(depth)), depth.shape)
    places = np.argwhere(inside)
    drawn = places[rng.integers(len(places), size=POINTS - 1)].tolist()
    return [[int(n) - 1 for n in deepest], *drawn]


def box_of(one: Structure) -> list[int]:
    """Return a box as COCO has it, first voxel and number of voxels: [x, y, width, height], or with z and depth."""
    return [*(low for low, _ in one.box), *(high - low for low, high in one.box)]


def scribble_in(inside: np.ndarray, rng: np.random.Generator) -> list[list[int]]:
    """Return a path of neighbouring voxels inside, in the slice of the last axis that holds most of the label.

    It is the shortest one (over faces and corners) between two random ends of the largest part of that slice.
    """
    from scipy import ndimage

    k = int(np.argmax(inside.sum(axis=(0, 1)))) if inside.ndim == 3 else None
    plane = inside if k is None else inside[:, :, k]
    labelled: Any = ndimage.label(plane, np.ones((3, 3)))
    parts, count = labelled
    largest = 1 + int(np.argmax(np.bincount(parts.ravel(), minlength=count + 1)[1:]))
    places = np.argwhere(parts == largest)
    first, last = (tuple(int(n) for n in places[rng.integers(len(places))]) for _ in range(2))
    path = _path(parts == largest, first, last)
    return [[*place, *([] if k is None else [k])] for place in path]


def caption(found: Sequence[Structure], *, patient_space: bool, dims: int) -> str:
    """Return what the mask shows, in one or two sentences."""
    if not found:
        return "Nothing is labelled."
    unit = _unit(dims)
    told = []
    for one in found:
        parts = "" if one.components == 1 else f" in {one.components} separate parts"
        told.append(f"{one.name} ({_number(one.size)} {unit}{parts})")
    largest = max(found, key=lambda one: one.voxels)
    text = f"Labelled: {', '.join(told)}."
    for one in found:
        sides = [] if one is largest else _sides(one, largest, patient_space=patient_space)
        if sides:
            text += f" The centre of {one.name} is {' and '.join(words for words, _ in sides)} that of {largest.name}."
    return text


def questions(
    found: Sequence[Structure], names: Sequence[str], *, patient_space: bool, dims: int
) -> list[dict[str, Any]]:
    """Return questions with their answers, each as words and as the value that was measured."""
    out: list[dict[str, Any]] = []

    def ask(kind: str, question: str, answer: str, value: object, *labels: str) -> None:
        out.append({"kind": kind, "question": question, "answer": answer, "value": value, "labels": list(labels)})

    there = {one.name for one in found}
    for name in names:
        ask("presence", f"Is any {name} labelled?", "yes" if name in there else "no", name in there, name)
    for one in found:
        count, size = one.components, f"{_number(one.size)} {_unit(dims)}"
        ask("count", f"How many separate parts does {one.name} have?", str(count), count, one.name)
        ask("volume" if dims == 3 else "area", f"How large is {one.name}?", size, one.size, one.name)
    for number, one in enumerate(found):
        for other in found[number + 1 :]:
            if one.voxels != other.voxels:
                larger = max(one, other, key=lambda each: each.voxels).name
                ask("larger", f"Which is larger, {one.name} or {other.name}?", larger, larger, one.name, other.name)
            for words, (low, high) in _sides(one, other, patient_space=patient_space):
                asked = f"Is the centre of {one.name} {low} or {high} that of {other.name}?"
                ask("position", asked, words, words, one.name, other.name)
    return out


def write_prompts(folder: Path, parts: Iterable[Path]) -> None:
    """Write prompts.jsonl, a line a case, and boxes.json in COCO's form, from what `derive` gave of each case.

    `parts` are read twice. Ids count from 1; a box in 3D has six numbers, area counts its label's voxels.
    """
    parts = list(parts)
    write_file(folder / "prompts.jsonl", (part.read_bytes() + b"\n" for part in parts))
    images: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
    categories: dict[int, str] = {}
    for number, part in enumerate(parts, start=1):
        row: Mapping[str, Any] = json.loads(part.read_bytes())
        sides = dict(zip(("width", "height", "depth"), row["grid"], strict=False))
        images.append({"id": number, "file_name": row["case"], **sides})
        for one in row["prompts"]:
            categories[one["value"]] = one["label"]
            boxes.append(
                {
                    "id": len(boxes) + 1,
                    "image_id": number,
                    "category_id": one["value"],
                    "bbox": one["box"],
                    "area": one["voxels"],
                    "iscrowd": 0,
                }
            )
    named = [{"id": value, "name": categories[value]} for value in sorted(categories)]
    coco = {"info": {"synthetic": True}, "images": images, "annotations": boxes, "categories": named}
    write_bytes(folder / "boxes.json", (json.dumps(coco) + "\n").encode())


def _sides(one: Structure, other: Structure, *, patient_space: bool) -> list[tuple[str, tuple[str, str]]]:
    """Return (words that hold of one against other, both choices) of each axis along which they clearly differ."""
    words = PATIENT if patient_space else SEEN
    out: list[tuple[str, tuple[str, str]]] = []
    gap = one.centre - other.centre
    for axis, (low, high) in enumerate(words):
        pair = (_joined(low), _joined(high))
        least = max(APART * float(np.maximum(one.extent_mm, other.extent_mm).max()), 2 * one.step)
        if abs(gap[axis]) > least:
            out.append((pair[int(gap[axis] > 0)], pair))
    return out


def _joined(word: str) -> str:
    """Return a side with what joins it to a name.

    >>> [_joined(word) for word in ("left", "anterior", "left of", "above")]
    ['left of', 'anterior to', 'left of', 'above']
    """
    if word in ("left", "right"):
        return f"{word} of"
    return word if word in (*SEEN[0], *SEEN[1]) else f"{word} to"


def _path(inside: np.ndarray, first: tuple[int, ...], last: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return the shortest way over neighbours inside a 2D part that holds both ends (breadth first)."""
    before: dict[tuple[int, ...], tuple[int, ...] | None] = {first: None}
    waiting = deque([first])
    while waiting and last not in before:
        i, j = waiting.popleft()
        for place in ((i + a, j + b) for a in (-1, 0, 1) for b in (-1, 0, 1) if a or b):
            within = 0 <= place[0] < inside.shape[0] and 0 <= place[1] < inside.shape[1]
            if within and inside[place] and place not in before:
                before[place] = (i, j)
                waiting.append(place)
    path: list[tuple[int, ...]] = []
    step: tuple[int, ...] | None = last
    while step is not None:
        path.append(step)
        step = before[step]
    return path[::-1]


def _unit(dims: int) -> str:
    return "ml" if dims == 3 else "mm2"


def _number(value: float) -> str:
    """Return three significant digits, spelled without an exponent.

    >>> _number(1234.5), _number(0.01234)
    ('1230', '0.0123')
    """
    return np.format_float_positional(float(f"{value:.3g}"), trim="-")
