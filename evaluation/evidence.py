"""What a set is judged by: volumes of each side and what is known of them. Knows no files, layouts or models."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from evaluation.extractors import Extractor, FeatureCache, radiomics_extractor
from evaluation.segmenter import Segmenter
from synth.data.intensity import IntensityMap
from synth.errors import DataError
from synth.sample import AttributeValue

if TYPE_CHECKING:
    from evaluation.utility.run import UtilityScores
    from synth.data.seen import Seen

Tell = Callable[[str], None]
"""Called with a word whenever one volume's worth of work is done."""
Measuring = Callable[[Sequence["Judged"], int], Iterable[np.ndarray]]
"""(volumes, number of labels) -> their features (d,) one by one, in order; in other processes, say."""


@dataclass(frozen=True, eq=False)
class Judged:
    """One volume to judge: mapped image (channel, *grid), labels (*grid) 0..K, and what was asked or is known of it.

    asked        class asked for, of the attribute that the bench knows (or empty)
    patient      whose volume it is; empty for synthetic ones
    attributes   asked for (synthetic) or recorded (real)
    text         asked for; None without
    mask_origin  generated, real or given; None where nothing says
    edits_patient   an edit of an image not known to be synthetic: beyond the edit it is a patient's
    native_grid, native_spacing_mm   of the volume itself, which is judged on the evidence's grid; empty where not known
    asked_grid, asked_spacing_mm     asked for; empty without
    """

    case: str
    image: np.ndarray
    mask: np.ndarray
    asked: str = ""
    patient: str = ""
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    text: str | None = None
    mask_origin: str | None = None
    edits_patient: bool = False
    native_grid: tuple[int, ...] = ()
    native_spacing_mm: tuple[float, ...] = ()
    asked_grid: tuple[int, ...] = ()
    asked_spacing_mm: tuple[float, ...] = ()

    @property
    def whose(self) -> str:
        """Return the patient, or the case where no patient is known."""
        return self.patient or self.case


@dataclass(frozen=True, eq=False)
class Bench:
    """What a set is judged with: the segmenter, and who trained it.

    recorded   Dice by label, a row for each patient held out where it was made, of a segmenter that ships with this
               software: its own score where the evidence holds nobody to measure it on, and never in place of that
    why_not    why there is no segmenter
    saw        patients of the evidence who trained it: its own score is not measured on them
    facts      what it is kept with, its held-out Dice among them
    seen       salted hashes of the cases that trained it; None where that is not known
    """

    segmenter: Segmenter | None = None
    recorded: Sequence[Mapping[str, float]] = ()
    why_not: str = "no segmenter was given"
    saw: frozenset[str] = frozenset()
    facts: Mapping[str, object] = field(default_factory=dict)
    seen: "Seen | None" = None


@dataclass(frozen=True, eq=False)
class Evidence:
    """The volumes of a judgement.

    synthetic    the set that is judged
    training     real volumes that its generator was trained on
    holdout      real volumes of other patients
    labels       names of labels 1..K
    spacing_mm   of the grid on which all are compared
    utility      scores of the utility experiments that were run; empty where none was asked for
    intensities  per channel how native values were mapped; empty where not known
    extractor    what features are measured with; by default the weight-free one
    cache        where features are kept between runs; None measures anew
    measuring    measures features with `extractor`, and keeps them, elsewhere; None measures here
    loss         denoising losses of a volume under the generator's weights, one number or one a noise level; None
                 where the weights are not judged
    real_masks_allowed   masks of real patients in the set are no reason to fail
    selection    hold-out patients that chose the checkpoint: seen by the weights, if not trained on
    interactive  how many synthetic volumes the page holds to be turned
    unaudited    why privacy cannot be judged: `training` is real, but not known to be what trained the generator
    chosen       why copies among the samples are not like planted ones, so that the audit bounds none and passes none:
                 a near-copy test chose them
    """

    synthetic: Sequence[Judged]
    training: Sequence[Judged]
    holdout: Sequence[Judged]
    population: str
    labels: tuple[str, ...] = ()
    spacing_mm: tuple[float, ...] = ()
    intensities: tuple[IntensityMap, ...] = ()
    bench: Bench = field(default_factory=Bench)
    seed: int = 0
    extractor: Extractor = field(default_factory=radiomics_extractor)
    cache: FeatureCache | None = None
    measuring: Measuring | None = None
    loss: Callable[[Judged], Any] | None = None
    real_masks_allowed: bool = False
    selection: frozenset[str] = frozenset()
    interactive: int = 0
    unaudited: str = ""
    chosen: str = ""
    utility: "Sequence[UtilityScores]" = ()

    def __post_init__(self) -> None:
        """Errors: DataError for no sample, voxels that are no numbers, other channels or dimensions."""
        if not self.synthetic:
            raise DataError("the synthetic set holds no case; generate some first")
        for item in (*self.synthetic, *self.training, *self.holdout):
            _check(item, self.synthetic[0])

    @property
    def windows(self) -> tuple[tuple[float, float], ...]:
        """Return per channel the native values that mapped 0 and 1 stand for; of percentiles the population's."""
        return tuple((rule.low, rule.high) for rule in self.intensities)

    @property
    def outsiders(self) -> list[Judged]:
        """Return the hold-out volumes of patients with no part in training."""
        return [item for item in self.holdout if item.whose not in self.selection]

    def features(self, tell: Tell) -> "Features":
        """Return the features of every volume; measured once."""
        if "_features" not in self.__dict__:
            sides = (self.synthetic, self.training, self.holdout)
            rows = self.features_of([item for side in sides for item in side], tell)
            made, train = len(sides[0]), len(sides[0]) + len(sides[1])
            split = (rows[:made], rows[made:train], rows[train:])
            self.__dict__["_features"] = Features(*(side if len(side) else np.zeros((0, 1)) for side in split))
        return self.__dict__["_features"]

    def features_of(self, items: Sequence[Judged], tell: Tell) -> np.ndarray:
        """Return the features (n, d) of volumes that line up with those of `features`, whatever labels they hold."""
        everyone = (*self.synthetic, *self.training, *self.holdout)
        labels = max((int(item.mask.max(initial=0)) for item in everyone), default=0)
        out = []
        for row in (self.measuring or self._measured)(items, labels):
            out.append(row)
            tell("measured")
        return np.stack(out) if out else np.zeros((0, 1))

    def _measured(self, items: Sequence[Judged], labels: int) -> Iterable[np.ndarray]:
        measure = partial(self.cache.features, self.extractor) if self.cache is not None else self.extractor
        return (measure(item.image, item.mask, labels=labels, spacing_mm=self.spacing_mm) for item in items)


@dataclass(frozen=True, eq=False)
class Features:
    """Features (n, d) of each side; (0, 1) where it is empty."""

    synthetic: np.ndarray
    training: np.ndarray
    holdout: np.ndarray


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
