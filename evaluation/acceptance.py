"""The judge of single samples: tests that real volumes rarely fail, so that a sample that fails can be made again.

agreement   mean Dice of the segmenter with the sample's own mask, over the labels that the mask holds
artefact    score of the artefact gate
near_copy   how much nearer to training than to held-out volumes: 1 - correlation with the nearest training volume, the
            best over flips, small shifts and small rotations, over that with the nearest held-out one (`leaning`)

Each is calibrated on real volumes of held-out patients: at most a stated share of such volumes fails it. Knows volumes,
arrays and the schema; no model, no manifest and no file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from evaluation.artefact import Gate, fit_gate, why_no_gate
from evaluation.evidence import Evidence, Judged, Tell
from evaluation.fingerprint import weights_sha256
from evaluation.functional.privacy import conformal_p_values, leaning, patient_index, patient_weights
from evaluation.privacy.search import References, cell_grid, cells
from evaluation.segmented import dice_rows, unseen
from evaluation.segmenter import Segmenter
from synth.data.preparation import working_pair
from synth.data.schema import Schema
from synth.data.seen import Seen
from synth.errors import ConfigError, nearest
from synth.sample import Sample
from synth.volume import Volume

REASONS = ("agreement", "artefact", "near_copy")
"""Why a sample is rejected, and what the tests are called."""
RATE = 0.05
_EPSILON = 1e-9
_AFTER = ", after "  # how a fine-tuned model names the population of its source after its own


@dataclass(frozen=True, eq=False)
class Reference:
    """What held-out real volumes score (h,) in a test, the lower the more suspicious, and whose each is (h,)."""

    scores: np.ndarray
    patients: np.ndarray

    def p_value(self, score: float) -> float:
        """Return how rarely held-out patients score as low, see `conformal_p_values`.

        >>> Reference(np.array([0.8, 0.9, 0.7]), np.array([0, 1, 2])).p_value(0.75)
        0.5
        """
        return float(conformal_p_values([score], self.scores, patients=self.patients.tolist())[0])

    def threshold(self, rate: float) -> float:
        """Return the score below which, and only below which, the p-value is `rate` or less; inf where every one is.

        >>> Reference(np.linspace(0.5, 0.95, 19), np.arange(19)).threshold(0.05)
        0.5
        """
        weights, count = patient_weights(len(self.scores), self.patients.tolist())
        order = np.argsort(self.scores, kind="stable")
        beyond = (1.0 + np.cumsum(weights[order])) / (count + 1) > rate + _EPSILON
        return float(self.scores[order][beyond][0]) if beyond.any() else float("inf")

    @property
    def count(self) -> int:
        """How many patients it rests on."""
        return len(set(self.patients.tolist()))


@dataclass(frozen=True, eq=False)
class Near:
    """Training and held-out volumes in cells, (t, channel, *cells) and (h, channel, *cells), that samples lie between.

    p-values of `score` are valid, P(p <= a) <= a with one volume a patient: had each held-out volume's distances to the
    others counted the sample among those, sample and held-out volumes would be one exchangeable pool (full conformal
    prediction, Vovk et al. 2005). Without it held-out scores are lower, if anything, so that p is larger.
    """

    training: np.ndarray
    holdout: np.ndarray

    @cached_property
    def _both(self) -> References:
        return References(np.concatenate([self.training, self.holdout]))

    def score(self, query: np.ndarray, others: np.ndarray | None = None) -> float:
        """Return how far a volume (channel, *cells) lies from training, over how far from held-out volumes.

        others   which held-out volumes (h,) are of other patients, for one that is held out itself; None: all
        """
        count = len(self.training)
        beside = np.arange(len(self.holdout)) if others is None else np.flatnonzero(others)
        return float(leaning(*self._both.compare(query, [slice(0, count), count + beside])[1]))


@dataclass(frozen=True)
class Found:
    """What the tests found of a sample: its agreement (None: no test, or no label in the mask), p-values, reasons."""

    agreement: float | None
    p_values: Mapping[str, float]
    reasons: tuple[str, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class Acceptance:
    """Tests of single samples, each calibrated on held-out real volumes; `Acceptance.load` reads a saved judge.

    Called with a sample, it returns the reasons to reject it: those tests whose p-value is at most `rate`.

    schema       of the data that it was learned from: samples are judged on its working grid
    references   of each test that it has; `without` says why others are absent
    rate         share of real volumes like the held-out ones that each test rejects, at most
    near         the training and held-out volumes in cells
    cases        digests of the training and held-out cases, so that a model trained on others is told apart
    sha256       of the saved judge; empty before it is saved
    """

    schema: Schema
    segmenter: Segmenter | None = None
    gate: Gate | None = None
    near: Near | None = None
    references: Mapping[str, Reference] = field(default_factory=dict)
    without: Mapping[str, str] = field(default_factory=dict)
    rate: float = RATE
    cases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    sha256: str = ""

    @classmethod
    def load(cls, folder: str | Path) -> "Acceptance":
        """Return the judge that `synth evaluate --save-judge` wrote. Errors: CheckpointError, as `read_acceptance`."""
        from evaluation.acceptance_folder import read_acceptance

        return read_acceptance(Path(folder))

    @property
    def tests(self) -> tuple[str, ...]:
        """The tests that count, in the order of `REASONS`."""
        return tuple(name for name in REASONS if name in self.references)

    def counting(self, tests: Sequence[str], *, name: str) -> "Acceptance":
        """Return the judge with these of its tests alone; the others are neither measured nor a reason.

        Its sha256 stays that of the folder, so `tests` belongs beside it wherever it is recorded.
        Errors: ConfigError for a test that is unknown, or that the judge (folder `name`) does not hold.
        """
        for test in tests:
            if test not in REASONS:
                raise ConfigError(f"{test!r} is no test of single samples; {nearest(test, REASONS)}")
            if test not in self.references:
                raise ConfigError(
                    f"judge {name} has no test of {test} ({self.without.get(test, 'it was saved without')}); "
                    "leave it out, or save a judge that has it"
                )
        left = {test: "it is not among the tests asked for" for test in self.references if test not in tests}
        return replace(
            self,
            segmenter=self.segmenter if "agreement" in tests else None,
            gate=self.gate if "artefact" in tests else None,
            near=self.near if "near_copy" in tests else None,
            references={test: one for test, one in self.references.items() if test in tests},
            without={**self.without, **left},
        )

    def __call__(self, sample: Sample) -> tuple[str, ...]:
        """Return the reasons to reject a sample, none for one that is accepted."""
        if sample.mask is None:
            raise ConfigError("a judge compares images with their masks, the sample has none; give pairs")
        return self.measure(sample.image, sample.mask).reasons

    def measure(self, image: Volume, mask: Volume) -> Found:
        """Judge a pair in native units, on the working grid, as `synth evaluate` does with a file.

        A mask without any label that the judge knows has no agreement, and is not rejected for it.
        """
        mapped, labels, _ = working_pair(image, mask, self.schema)
        scores = self.scores(mapped, labels)
        p = {name: self.references[name].p_value(value) for name, value in scores.items() if name in self.references}
        reasons = tuple(name for name in REASONS if p.get(name, 1.0) <= self.rate + _EPSILON)
        agreement = round(scores["agreement"], 6) if "agreement" in scores else None
        return Found(agreement, {name: round(value, 6) for name, value in p.items()}, reasons)

    def scores(self, image: np.ndarray, mask: np.ndarray, *, others: np.ndarray | None = None) -> dict[str, float]:
        """Return what a mapped image (channel, *grid) and its labels (*grid) score, the lower the more suspicious.

        others   see `Near.score`
        """
        out: dict[str, float] = {}
        if self.segmenter is not None:
            labels = list(range(1, len(self.segmenter.config.labels) + 1))
            row = dice_rows([self.segmenter.label(image)[0]], [mask], labels)[0]
            if np.isfinite(row).any():
                out["agreement"] = float(np.nanmean(row))
        if self.gate is not None:
            out["artefact"] = -self.gate.score(image)
        if self.near is not None:
            out["near_copy"] = self.near.score(cells(image, self._cells), others)
        return out

    @cached_property
    def segmenter_sha256(self) -> str:
        """What a report's fingerprint calls its judge where that is this one's segmenter; empty without one."""
        return weights_sha256(self.segmenter)

    @cached_property
    def _cells(self) -> tuple[int, ...]:
        return cell_grid(self.schema.grid)

    def require(self, model: Schema, seen: Seen | None, *, name: str) -> None:
        """Refuse to judge samples of a model of another schema, or of one trained on other cases than the judge knows.

        A fine-tuned model may know further labels and populations, those of its source; what it makes of them is
        background to the judge. `seen` None: not recorded whom the model saw.
        Errors: ConfigError.
        """
        if not self.references:
            why = "; ".join(f"{test}: {reason}" for test, reason in self.without.items())
            raise ConfigError(f"judge {name} has no test of single samples ({why}); save one on more patients")
        own = self.schema
        tuned = model.population.startswith(f"{own.population}{_AFTER}")
        labels = [{label.name for label in schema.labels} for schema in (own, model)]
        differ = {
            "population": (own.population, model.population, tuned or own.population == model.population),
            "channels": (list(own.channels), list(model.channels), own.channels == model.channels),
            "labels": (*map(sorted, labels), labels[0] <= labels[1] if tuned else labels[0] == labels[1]),
            "grid": (own.grid, model.grid, own.grid == model.grid),
            "spacing": (own.spacing_mm, model.spacing_mm, np.allclose(own.spacing_mm, model.spacing_mm, rtol=1e-3)),
            "intensities": (*([rule.kind for rule in one.intensities] for one in (own, model)), _like(own, model)),
        }
        for what, (judged, made, same) in differ.items():
            if not same:
                raise ConfigError(
                    f"judge {name} knows {what} {judged}, the model makes {made}; give a judge that "
                    "`synth evaluate --save-judge` wrote on the model's own data"
                )
        if seen is not None and "near_copy" in self.references:
            self._require_trained(seen, name)

    def _require_trained(self, seen: Seen, name: str) -> None:
        """Errors: ConfigError where near copies would be looked for among others than the model was trained on."""
        if not seen.trained_on(self.cases["training"]):
            raise ConfigError(
                f"judge {name} looks for copies of {len(self.cases['training'])} training cases, the model was trained "
                "on others; give a judge that was saved with the model's own training data"
            )
        shown = sum(map(seen.has, self.cases["unseen"]))
        if shown:
            raise ConfigError(
                f"the model saw {shown} of the cases that judge {name} takes for held out; give a judge that was saved "
                "with the model's own split"
            )


def _like(own: Schema, model: Schema) -> bool:
    return [rule.kind for rule in own.intensities] == [rule.kind for rule in model.intensities]


def fit_acceptance(
    evidence: Evidence,
    schema: Schema,
    *,
    cases: Mapping[str, tuple[str, ...]],
    rate: float = RATE,
    tell: Tell = lambda _: None,
) -> Acceptance:
    """Return the tests that the real volumes of `evidence` can carry; `without` says why others are absent.

    A test needs held-out volumes of 1 / rate - 1 patients: with fewer no p-value reaches the rate. Agreement is
    calibrated on those alone who did not train the segmenter.
    cases   digests by side: training; unseen, those held out that did not even choose a checkpoint
    tell    called for every held-out volume
    Errors: ConfigError for a rate that is no share.
    """
    if not 0 < rate < 1:
        raise ConfigError(f"the rate is {rate}; give a share between 0 and 1, such as {RATE}")
    train, held = evidence.training, evidence.holdout
    without: dict[str, str] = {}
    if evidence.bench.segmenter is None:
        without["agreement"] = evidence.bench.why_not
    no_gate = why_no_gate(item.whose for item in train)
    if no_gate:
        without["artefact"] = no_gate
    if evidence.unaudited or not len(train):
        without["near_copy"] = evidence.unaudited or "no training volume is known"
    few = _too_few(held, rate)
    without = dict.fromkeys(REASONS, few) if few else without
    judge = Acceptance(
        schema=schema,
        segmenter=evidence.bench.segmenter,
        gate=None if "artefact" in without else fit_gate(item.image for item in train),
        near=None if "near_copy" in without else _near(train, held, schema),
        without=without,
        rate=rate,
        cases=cases,
    )
    if few:
        return judge
    rows, patients = [], patient_index([item.whose for item in held])
    for item, one in zip(held, patients, strict=True):
        rows.append(judge.scores(item.image, item.mask, others=patients != one))
        tell("calibrated")
    others = {item.whose for item in unseen(evidence)}
    references: dict[str, Reference] = {}
    for name in (name for name in REASONS if name not in without):
        scored = [(row[name], item) for row, item in zip(rows, held, strict=True) if name in row]
        if name == "agreement":  # on patients who trained it a segmenter does better than on others
            scored = [(score, item) for score, item in scored if item.whose in others]
        few = _too_few([item for _, item in scored], rate)
        if few:  # held-out masks without a label have no agreement
            trained = name == "agreement" and len(others) < len({item.whose for item in held})
            without[name] = few + (" (those who trained the segmenter left out)" if trained else "")
            continue
        whose = patient_index([item.whose for _, item in scored])
        references[name] = Reference(np.array([score for score, _ in scored], dtype=np.float64), whose)
    return replace(judge, references=references)


def _near(train: Sequence[Judged], held: Sequence[Judged], schema: Schema) -> Near:
    grid = cell_grid(schema.grid)
    return Near(*(np.stack([cells(item.image, grid) for item in side]).astype(np.float32) for side in (train, held)))


def _too_few(held: Sequence[Judged], rate: float) -> str:
    """Return why so many held-out volumes are too few for the rate; empty where they are enough."""
    patients, needed = len({item.whose for item in held}), int(np.ceil(1.0 / rate - 1.0 - _EPSILON))
    if patients >= needed:
        return ""
    return f"{patients} held-out patients, {needed} are needed to reject at most {rate:g} of real volumes"
