"""What a set is judged by: volumes of each side and what is known of them. Knows no files, layouts or models."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from evaluation import features as extractor
from evaluation.segmenter import Segmenter
from synth.errors import DataError
from synth.sample import AttributeValue

if TYPE_CHECKING:
    from evaluation.utility.run import UtilityScores

Tell = Callable[[str], None]
"""Called with a word whenever one volume's worth of work is done."""


@dataclass(frozen=True, eq=False)
class Judged:
    """One volume to judge: mapped image (channel, *grid), labels (*grid) 0..K, and what was asked or is known of it.

    asked        class asked for, of the attribute that the bench knows (or empty)
    patient      whose volume it is; empty for synthetic ones
    attributes   asked for (synthetic) or recorded (real)
    text         asked for; None without
    mask_origin  generated, real or given; None where nothing says
    """

    case: str
    image: np.ndarray
    mask: np.ndarray
    asked: str = ""
    patient: str = ""
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    text: str | None = None
    mask_origin: str | None = None

    @property
    def whose(self) -> str:
        """Return the patient, or the case where no patient is known."""
        return self.patient or self.case


@dataclass(frozen=True, eq=False)
class Bench:
    """What a set is judged with: the segmenter and its own held-out Dice by label, the class attribute it knows."""

    segmenter: Segmenter | None = None
    held_out_dice: dict[str, float] = field(default_factory=dict)
    why_not: str = "no segmenter was given"


@dataclass(frozen=True, eq=False)
class Evidence:
    """The volumes of a judgement.

    synthetic    the set that is judged
    training     real volumes that its generator was trained on
    holdout      real volumes of other patients
    labels       names of labels 1..K
    spacing_mm   of the grid on which all are compared
    utility      scores of the utility experiments that were run; empty where none was asked for
    windows      per channel the native values that mapped 0 and 1 stand for; empty where not known
    """

    synthetic: Sequence[Judged]
    training: Sequence[Judged]
    holdout: Sequence[Judged]
    population: str
    labels: tuple[str, ...] = ()
    spacing_mm: tuple[float, ...] = ()
    windows: tuple[tuple[float, float], ...] = ()
    bench: Bench = field(default_factory=Bench)
    seed: int = 0
    utility: "Sequence[UtilityScores]" = ()

    def __post_init__(self) -> None:
        """Errors: DataError for no sample, voxels that are no numbers, other channels or dimensions."""
        if not self.synthetic:
            raise DataError("the synthetic set holds no case; generate some first")
        for item in (*self.synthetic, *self.training, *self.holdout):
            _check(item, self.synthetic[0])

    def features(self, tell: Tell) -> "Features":
        """Return the features of every volume; measured once."""
        if "_features" not in self.__dict__:
            everyone = (*self.synthetic, *self.training, *self.holdout)
            labels = max((int(item.mask.max(initial=0)) for item in everyone), default=0)
            sides = (_rows(side, labels, tell) for side in (self.synthetic, self.training, self.holdout))
            self.__dict__["_features"] = Features(*sides)
        return self.__dict__["_features"]


@dataclass(frozen=True, eq=False)
class Features:
    """Features (n, d) of each side; (0, 1) where it is empty."""

    synthetic: np.ndarray
    training: np.ndarray
    holdout: np.ndarray


def _rows(items: Sequence[Judged], labels: int, tell: Tell) -> np.ndarray:
    out = []
    for item in items:
        out.append(extractor.features(item.image, item.mask, labels=labels))
        tell("measured")
    return np.stack(out) if out else np.zeros((0, 1))


def _check(item: Judged, first: Judged) -> None:
    if item.image.shape[1:] != item.mask.shape:
        raise DataError(f"case {item.case}: image grid {item.image.shape[1:]} is not mask grid {item.mask.shape}")
    if not np.isfinite(item.image).all():
        raise DataError(f"case {item.case} holds NaN or infinite voxels; mend or drop it")
    if item.image.ndim != first.image.ndim or len(item.image) != len(first.image):
        raise DataError(
            f"case {item.case} has {len(item.image)} channels in {item.mask.ndim}D, {first.case} has "
            f"{len(first.image)} channels in {first.mask.ndim}D; judge like with like"
        )
