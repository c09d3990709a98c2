"""What a utility experiment is: arms, fractions, ratios, seeds and one plan of training for all. Free of torch."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Literal

from synth.errors import ConfigError, nearest, require_least

Task = Literal["segmentation", "classification"]
ARMS = {
    "R": "real",
    "S": "synthetic",
    "RS": "real + synthetic",
    "RA": "real + classical augmentation",
    "RSA": "real + synthetic + classical augmentation",
    "RR": "real, repeated as often as real + synthetic is long",
    "RX": "real + CutMix",
    "RT": "real + copies of the generator's training volumes (leakage ceiling)",
    "T": "copies of the generator's training volumes alone (leakage ceiling)",
    "G": "real, every training patient: all that the generator may have seen (its ceiling)",
}
"""By name, in words. With equal steps RR is R in another order: a control that must show no gain. G is R at every
patient, whatever the fraction: what the generator's patients are worth themselves."""
SYNTHETIC = ("S", "RS", "RSA")
COMPARED = (("RS", "R"), ("RS", "RA"), ("RS", "RR"), ("RSA", "RA"), ("G", "R"), ("RS", "G"), ("RS", "RT"), ("S", "T"))
"""Gains that are tested, where both arms were trained; beside them stands S over R as a ratio."""
SCORES = 4
"""Version of what scores mean: files of another one are not taken for these."""
TUNING = 3
"""A network that only tells how good a rate is takes a TUNING-th of the steps."""
NON_INFERIORITY = 0.90
"""Share of the real arm's score that the synthetic arm must reach to stand for it."""


@dataclass(frozen=True, kw_only=True)
class UtilityConfig:
    """One experiment: every arm at every fraction, ratio and seed, all trained in the same way.

    fractions   shares of the real training patients; a smaller one is part of a larger one, anew for each seed
    ratios      synthetic to real volumes; empty: the whole synthetic set, whatever the fraction
    rates       learning rates; of several, each network takes its own: it is trained with each for a third of the
                steps (`TUNING`) without a share `validation` of the real patients of its fraction, on which the rates
                are compared, and then anew on all its volumes. The same budget for every arm; no test patient has a
                part in it. With one rate, nothing is tuned
    blocks      a voxel of the network is 2^dims voxels of the image; off: the network works on the image itself
    patch       longest side of what is trained on at once, in voxels
    lesions     labels whose connected components are counted; empty: those whose names say so
    tolerance_mm   of the surface Dice; 0 takes the longest side of a voxel
    device  cpu, cuda or cuda:i, where networks are trained; scores of a GPU are not the CPU's to the last digit
    """

    task: Task = "segmentation"
    arms: tuple[str, ...] = ("R", "S", "RS", "RA", "RR", "G")
    fractions: tuple[float, ...] = (1.0,)
    ratios: tuple[float, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 1000
    batch: int = 2
    width: int = 16
    blocks: bool = True
    patch: int = 96
    rates: tuple[float, ...] = (1e-2,)
    validation: float = 0.2
    lesions: tuple[str, ...] = ()
    tolerance_mm: float = 0.0
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Errors: ConfigError with the field."""
        require_least(self, ("steps", "batch", "patch"), place="utility.")
        require_least(self, ("tolerance_mm",), 0, place="utility.")
        for name in ("arms", "fractions", "seeds", "rates"):
            if not getattr(self, name) or len(set(getattr(self, name))) != len(getattr(self, name)):
                raise ConfigError(f"utility.{name} is {list(getattr(self, name))}; give one or more, each once")
        for arm in self.arms:
            if arm not in ARMS:
                raise ConfigError(f"utility.arms names {arm!r}; {nearest(arm, ARMS)}")
        if self.task not in ("segmentation", "classification"):
            raise ConfigError(f"utility.task is {self.task!r}; give segmentation or classification")
        if self.task == "classification" and "RX" in self.arms:
            raise ConfigError("utility.arms has RX: CutMix mixes masks, and classification has none; leave it out")
        if self.width < 8 or self.width % 8:
            raise ConfigError(f"utility.width is {self.width}; give a multiple of 8")
        for name, low, high in (("fractions", 0.0, 1.0), ("ratios", 0.0, 1e3), ("rates", 0.0, 1.0)):
            if not all(low < value <= high for value in getattr(self, name)):
                raise ConfigError(
                    f"utility.{name} is {list(getattr(self, name))}; give numbers above 0, up to {high:g}"
                )
        if min(self.seeds) < 0 or not 0 < self.validation < 1:
            raise ConfigError("utility.seeds are 0 or more, utility.validation is a share between 0 and 1")

    def cells(self) -> list[tuple[float, float]]:
        """Return (fraction, ratio) in order, ratio 0 for the whole synthetic set; the first is the headline."""
        return [(fraction, ratio) for fraction in self.fractions for ratio in self.ratios or (0.0,)]

    def jobs(self) -> "list[Job]":
        """Return what is to be trained, seed by seed, each job once.

        R does not depend on the ratio, G on neither, nor S and T on the fraction where they take the whole set.
        """
        out: dict[Job, None] = {}
        for seed in self.seeds:
            for fraction, ratio in self.cells():
                for arm in self.arms:
                    out[self.job(arm, fraction, ratio, seed)] = None
        return list(out)

    def job(self, arm: str, fraction: float, ratio: float, seed: int) -> "Job":
        """Return the job that stands for an arm in a cell."""
        if arm == "G":
            arm, fraction = "R", 1.0
        if arm in ("R", "RA", "RX"):
            ratio = -1.0
        elif arm in ("S", "T") and ratio == 0.0:
            fraction = 0.0
        return Job(task=self.task, arm=arm, fraction=fraction, ratio=ratio, seed=seed)

    @property
    def tuning_steps(self) -> int:
        """Steps that a network of each rate takes before the one that is scored; 0 where nothing is tuned."""
        return max(1, self.steps // TUNING) if len(self.rates) > 1 else 0

    @property
    def fingerprint(self) -> str:
        """Hash of what decides a single job's scores: all but the lists of arms, fractions, ratios and seeds."""
        listed = ("arms", "fractions", "ratios", "seeds", "device")
        said = {name: value for name, value in asdict(self).items() if name not in listed} | {"scores": SCORES}
        if self.device != "cpu":
            said["device"] = self.device.partition(":")[0]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True, order=True)
class Job:
    """One network to train. fraction 0: no real volumes of its own; ratio 0: the whole set, -1: none of it."""

    task: Task
    arm: str
    fraction: float
    ratio: float
    seed: int

    @property
    def name(self) -> str:
        """Name of its file, without suffix."""
        parts = [self.task, self.arm]
        parts += [f"real{100 * self.fraction:g}"] if self.fraction > 0 else []
        parts += [] if self.ratio < 0 else ["all"] if self.ratio == 0 else [f"ratio{self.ratio:g}"]
        return "_".join([*parts, f"seed{self.seed}"])
