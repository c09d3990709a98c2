"""Lesions placed by hand: where, how large, and the pair made anew around each. Knows no widget.

A placement is `synth.editing.place_label` on the pair's mask and an Inpaint where that changed it, with the seed of the
pair; what was asked of the label itself (its count, its volume) no longer holds and is left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pipelines.page.cases import is_finding
from pipelines.page.studio import Ask, Studio, Tell
from pipelines.spots import Spot, spot_seed
from synth.errors import ConditionError

if TYPE_CHECKING:
    from pipelines.page.pairs import Pair
    from synth.data.schema import Schema

LEAST_VOXELS = 8
LARGEST_SHARE = 0.002
"""Of the model's grid, what the largest blob takes."""


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What can be placed: names of labels, and the range of sizes with the one to begin at."""

    labels: tuple[str, ...]
    low_ml: float
    high_ml: float

    @property
    def first_ml(self) -> float:
        """A size between the ends."""
        return _round((self.low_ml * self.high_ml) ** 0.5)


def offered(studio: "Studio") -> Offer | None:
    """Return what can be placed with a model; None where it follows no mask or knows no finding by its name."""
    labels = tuple(label.name for label in studio.schema.labels if is_finding(label.name))
    if not labels or not studio.follows_masks:
        return None
    return Offer(labels=labels, low_ml=_round(LEAST_VOXELS * _voxel_ml(studio.schema)), high_ml=_largest(studio.schema))


def place(studio: "Studio", pair: "Pair", spot: Mapping[str, Any], tell: Tell = lambda share, words: None) -> "Pair":
    """Return the pair made anew with a blob of label `spot["label"]`, `spot["ml"]` large, at `spot["mm"]` (RAS+).

    Errors: ConditionError for a label that is not offered, a size out of range, a place outside the tissue.
    """
    from synth.editing import Inpaint, changed, place_label
    from synth.sample import Condition

    offer, ask = offered(studio), pair.ask
    if offer is None or ask is None or pair.mask is None:
        raise ConditionError("this model places no lesion; it knows no label of one, or follows no mask")
    with studio.sampling(ask.steps, tell) as generator:
        image, mask = pair.volumes()
        assert mask is not None, "the pair has its file"
        one = _spot(spot, offer, ask, mask)
        new = place_label(mask, label=one.label, at=one.at, ml=one.ml, seed=one.seed)
        now = replace(ask, placed=(*ask.placed, one))
        condition = Condition(mask=new, image=image, text=ask.text, attributes=asked_beside(now))
        edit = Inpaint(region=changed(mask, new))
        sample = next(generator.generate([condition], seeds=[ask.seed], edit=edit))
        return studio.keep(sample, now)


def asked_beside(ask: Ask) -> dict[str, str | float]:
    """Return the attributes that say nothing of the labels placed.

    >>> spot = Spot(label="lesion", at=(1, 2, 3), ml=1.0, seed=0)
    >>> asked_beside(Ask(attributes={"contrast": "T1", "lesion_count": 0.0}, placed=(spot,)))
    {'contrast': 'T1'}
    """
    names = {spot.label.lower() for spot in ask.placed}
    return {key: value for key, value in ask.attributes.items() if not any(name in key.lower() for name in names)}


def _stages(ask: Ask) -> list[dict[str, str | float]]:
    """Return the attributes beside each placement: those that the ones before it left, in turn."""
    return [asked_beside(replace(ask, placed=ask.placed[: k + 1])) for k in range(len(ask.placed))]


def command_of(ask: Ask, model: str) -> str:
    """Return the line of the command that places what was placed in the pair of `out`; nothing where nothing was."""
    import shlex

    if not ask.placed:
        return ""
    if len({repr(beside) for beside in _stages(ask)}) > 1:
        return "\n# placed one by one, each with other attributes, which synth edit cannot say: run the Python"
    words = ["synth", "edit", model, "--images", "out", "--out", "edited", "--seed", str(ask.seed)]
    for spot in ask.placed:
        words += ["--place", spot.spelled]
    words += ["--text", ask.text] if ask.text else []
    for name, value in asked_beside(ask).items():
        words += ["--set", f"{name}={value}"]
    words += ["--steps", str(ask.steps)] if ask.steps is not None else []
    return f"\n{shlex.join(words)}"


def python_of(ask: Ask) -> list[str]:
    """Return the lines of Python that place what was placed, after those that make `sample`."""
    if not ask.placed:
        return []
    stages = _stages(ask)
    alike = all(beside == stages[0] for beside in stages)
    rows = [
        [one.label, one.at, one.ml, one.seed, *([] if alike else [beside])] for one, beside in zip(ask.placed, stages)
    ]
    also = f", text={ask.text!r}" if ask.text else ""
    also += f", attributes={stages[0]!r}" if alike and stages[0] else "" if alike else ", attributes=beside"
    spots = ", ".join(f"({', '.join(map(repr, row))})" for row in rows)
    return [
        f"for label, at, ml, seed{'' if alike else ', beside'} in [{spots}]:",
        "    mask = place_label(sample.mask, label=label, at=at, ml=ml, seed=seed)",
        f"    ask = synth.Condition(image=sample.image, mask=mask{also})",
        "    edit = Inpaint(region=changed(sample.mask, mask))",
        f"    sample = next(generator.generate([ask], seeds=[{ask.seed}], edit=edit))",
    ]


def _spot(said: Mapping[str, Any], offer: Offer, ask: Ask, mask: Any) -> Spot:
    """Return what a visitor asks for as voxels of the mask. Errors: ConditionError."""
    import numpy as np

    label, place, ml = said.get("label"), said.get("mm"), said.get("ml")
    if label not in offer.labels:
        raise ConditionError(f"label {label!r} cannot be placed; take {' or '.join(offer.labels)}")
    if not isinstance(ml, int | float) or not offer.low_ml <= ml <= offer.high_ml:
        raise ConditionError(f"the size is {ml} ml; give {offer.low_ml:g} to {offer.high_ml:g}")
    if place is None or not _is_place(place):
        raise ConditionError("no place was said; click into a slice")
    voxel = np.rint(np.linalg.inv(mask.affine) @ [*(float(c) for c in place), 1.0])[: mask.spatial_dims]
    if not all(0 <= index < n for index, n in zip(voxel, mask.grid, strict=True)):
        raise ConditionError("the place lies outside the volume; click into a slice")
    # of the pair's seed and of what was placed before, so that the same clicks make the same lesions
    seed = spot_seed(ask.seed, 0, len(ask.placed))  # index 0: `out` of the command shown holds this pair alone
    return Spot(label=label, at=tuple(int(i) for i in voxel), ml=float(ml), seed=seed)


def _is_place(place: Any) -> bool:
    import math

    return (
        isinstance(place, Sequence)
        and len(place) == 3
        and all(isinstance(c, int | float) and math.isfinite(c) for c in place)
    )


def _voxel_ml(schema: "Schema") -> float:
    import math

    return math.prod(schema.spacing_mm) / 1000


def _largest(schema: "Schema") -> float:
    import math

    least = 2 * LEAST_VOXELS
    return _round(max(LARGEST_SHARE * math.prod(schema.grid), least) * _voxel_ml(schema))


def _round(value: float) -> float:
    return float(f"{value:.2g}")
