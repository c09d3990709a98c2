"""What each arm is trained on: lists of volumes, by patient, and whom the generator saw. Trains nothing."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from evaluation.evidence import Judged
from evaluation.utility.config import Job, UtilityConfig
from synth.errors import DataError
from synth.rng import numpy_rng

LEAST_TRAIN = 2
"""Volumes below which no network is trained."""


@dataclass(frozen=True)
class Known:
    """Whom the generator saw, as its set records it.

    patients    of the real training patients; None: nothing records it
    chose       cases that chose its checkpoint
    elsewhere   in words, what else it saw; empty: nothing
    """

    patients: frozenset[str] | None = None
    chose: int = 0
    elsewhere: str = ""


@dataclass(frozen=True, eq=False)
class Volumes:
    """The volumes of an experiment, all on one grid.

    real        of the patients that the generator was trained on (or may be)
    test        of patients that neither generator nor any arm sees
    labels      names of labels 1..K
    attribute   the categorical attribute of the classification task and its levels; empty without
    generator   whom the generator saw; decides no score
    """

    real: Sequence[Judged]
    synthetic: Sequence[Judged]
    test: Sequence[Judged]
    labels: tuple[str, ...]
    spacing_mm: tuple[float, ...]
    attribute: str = ""
    levels: tuple[str, ...] = ()
    generator: Known = Known()

    def __post_init__(self) -> None:
        """Errors: DataError for no volumes of a side, other grids, or a patient on both sides."""
        for name in ("real", "synthetic", "test"):
            if not getattr(self, name):
                raise DataError(f"there is no {name} volume; utility needs training, synthetic and test volumes")
        grid = self.test[0].image.shape
        for item in (*self.real, *self.synthetic, *self.test):
            if item.image.shape != grid or item.mask.shape != grid[1:]:
                odd = f"shape {item.image.shape}"
                raise DataError(
                    f"case {item.case} has {odd}, {self.test[0].case} {grid}",
                    unnamed=f"a volume has {odd}, the first test volume {grid}",
                )
        both = {item.whose for item in self.real} & {item.whose for item in self.test}
        if both:
            raise DataError(
                f"patients {', '.join(sorted(both)[:4])} are in training and test; keep them apart",
                unnamed=f"{len(both)} patients are in training and test; keep them apart",
            )

    def level(self, item: Judged) -> int:
        """Return the number of an item's level of the attribute; -1 where it has none."""
        said = str(item.attributes.get(self.attribute, item.asked))
        return self.levels.index(said) if said in self.levels else -1


@dataclass(frozen=True, eq=False)
class Sides:
    """What one job is trained on, in order and with repeats.

    real, synthetic   how many of `train` are the arm's real volumes, and how many synthetic ones or copies
    rehearsal, tune   where rates are compared: what is trained on, and real volumes of other patients to score
    """

    train: tuple[Judged, ...]
    real: int
    synthetic: int
    rehearsal: tuple[Judged, ...] = ()
    tune: tuple[Judged, ...] = ()


def sides(job: Job, volumes: Volumes, config: UtilityConfig) -> Sides:
    """Return the volumes of a job. Real patients are drawn by seed alone, so that arms of one seed share them.

    Errors: DataError where the synthetic set is too small for the ratio, or too few volumes are left to train on.
    """
    pool = volumes.real
    real = _share(pool, job.fraction, job.seed) if job.fraction > 0 else []
    # S and T at a ratio are as many as RS would add: a ratio of the real volumes of that fraction
    count = 0 if job.ratio < 0 else _count(job.ratio, len(real), len(volumes.synthetic))
    if count > len(volumes.synthetic):
        raise DataError(
            f"ratio {job.ratio:g} to {len(real)} real volumes needs {count} synthetic ones, there are "
            f"{len(volumes.synthetic)}; generate more or ask for a smaller ratio"
        )
    order = numpy_rng(job.seed, "utility synthetic").permutation(len(volumes.synthetic))[:count]
    made = [volumes.synthetic[i] for i in np.sort(order)]
    copies = [pool[i % len(pool)] for i in numpy_rng(job.seed, "utility copies").permutation(max(len(pool), count))]
    lists: dict[str, list[Judged]] = {
        "R": real,
        "RA": real,
        "RX": real,
        "S": made,
        "RS": [*real, *made],
        "RSA": [*real, *made],
        "RR": [real[i % len(real)] for i in range(len(real) + count)] if real else [],
        "T": copies[:count],
        "RT": [*real, *copies[:count]],
    }
    train = lists[job.arm]
    if job.task == "classification":
        train = [item for item in train if volumes.level(item) >= 0]
    if len(train) < LEAST_TRAIN:
        raise DataError(f"arm {job.name} has {len(train)} volumes to train on; {LEAST_TRAIN} at least are needed")
    own = sum(job.task == "segmentation" or volumes.level(item) >= 0 for item in real)
    own = 0 if job.arm in ("S", "T") else own if job.arm in ("RS", "RSA", "RT") else len(train)
    found = Sides(tuple(train), own, len(train) - own)
    return found if not config.tuning_steps else _tuned(found, job, real or list(pool), volumes, config)


def _tuned(found: Sides, job: Job, real: list[Judged], volumes: Volumes, config: UtilityConfig) -> Sides:
    """Return the sides with real patients of the fraction set apart to compare rates on. Errors: DataError."""
    known = [item for item in real if job.task == "segmentation" or volumes.level(item) >= 0]
    patients = sorted({item.whose for item in known})
    drawn = numpy_rng(job.seed, "utility validation").permutation(len(patients))
    held = {patients[i] for i in drawn[: max(1, round(config.validation * len(patients)))]}
    rehearsal = tuple(item for item in found.train if item.whose not in held)
    if len(rehearsal) < LEAST_TRAIN:
        raise DataError(
            f"arm {job.name}: {len(patients)} real patients are too few to tune on some of them; give one rate"
        )
    return replace(found, rehearsal=rehearsal, tune=tuple(item for item in known if item.whose in held))


def patients_at(fraction: float, volumes: Volumes, seed: int) -> frozenset[str]:
    """Return the real patients that the arms of a fraction and seed train on."""
    return frozenset(item.whose for item in _share(volumes.real, fraction, seed))


def _share(pool: Sequence[Judged], fraction: float, seed: int) -> list[Judged]:
    """Return the volumes of a share of the patients; of one seed, smaller shares lie in larger ones."""
    patients = sorted({item.whose for item in pool})
    drawn = numpy_rng(seed, "utility patients").permutation(len(patients))
    kept = {patients[i] for i in drawn[: max(1, round(fraction * len(patients)))]}
    return [item for item in pool if item.whose in kept]


def _count(ratio: float, real: int, synthetic: int) -> int:
    return synthetic if ratio == 0 else max(1, round(ratio * real))
