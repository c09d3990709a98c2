"""The audit as a call: evidence of one generator, or of K fold-wise ones, -> verdicts, figures, samples to drop."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from evaluation.evidence import Evidence, Judged, Tell
from evaluation.privacy import checks
from evaluation.privacy.embeddings import measure
from evaluation.privacy.figures import figures_of
from evaluation.privacy.findings import Options, View, design_of, nearest_of, view_of
from evaluation.privacy.folds import Exposure, Fold, everything, exposures
from evaluation.privacy.plants import plant
from evaluation.privacy.verdict import NO_GUARANTEE, images_verdict, weights_verdict
from evaluation.report import Figure, Verdict
from synth.errors import DataError

_LEAST = 2
_FACES_LOOKED_AT = 8
_TELLING = 20


@dataclass(frozen=True)
class Audit:
    """What an audit says.

    images, weights   may the samples, may the weights, leave the house; ok None: undecidable at this n
    after_drop        of the images once `flagged` are dropped, by other embeddings than those that find them;
                      undecidable where no other is left; None where nothing was flagged
    figures           by name, without their family; of the whole set, before anything is dropped
    flagged           cases to drop
    p_values          of each case, over all embeddings together
    exposure          of each training patient; for the owner of the data alone
    nearest           distances to the nearest training volume, of samples and of hold-out volumes
    """

    images: Verdict
    weights: Verdict
    after_drop: Verdict | None
    figures: dict[str, Figure]
    not_computed: dict[str, str]
    flagged: tuple[str, ...] = ()
    p_values: tuple[tuple[str, float], ...] = ()
    exposure: tuple[Exposure, ...] = ()
    notes: tuple[str, ...] = ()
    nearest: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())


def audit(evidence: Evidence, *, options: Options | None = None, tell: Tell | None = None) -> Audit:
    """Return the privacy audit of a synthetic set, and of its generator's weights where `evidence.loss` gives losses.

    What is done, in which order, is told in `evaluation.privacy`.
    Errors: DataError where a patient is in training and hold-out both.

    >>> from evaluation.evidence import Evidence, Judged
    >>> rng = np.random.default_rng(0)
    >>> def volumes(name, count):
    ...     return [Judged(f"{name}{i}", rng.random((1, 9, 9)), np.zeros((9, 9), np.uint8)) for i in range(count)]
    >>> found = audit(Evidence(volumes("s", 12), volumes("t", 9), volumes("h", 9), "noise"))
    >>> found.images.ok is None, found.images.why.split(":")[0], found.weights.ok
    (True, 'undecidable', None)
    """
    return pool([evidence], options=options, tell=tell)


def pool(evidences: Sequence[Evidence], *, options: Options | None = None, tell: Tell | None = None) -> Audit:
    """Return the audit of K generators of one recipe, each trained without its fold, so that all patients are held out.

    Every evidence has its generator's samples and training volumes, and as hold-out those of its fold.
    Errors: DataError where a patient is in training and hold-out of one fold, or held out of two.
    """
    options, tell = options or Options(), tell or (lambda _: None)
    seed = evidences[0].seed
    _require_folds(evidences)
    fewest = min(len({item.whose for item in side}) for e in evidences for side in (e.synthetic, e.training, e.holdout))
    if fewest < _LEAST:
        return undecided("needs samples, training and hold-out patients, at least 2 of each")
    count = -(-options.plants // len(evidences))
    folds, absent = [], {}
    for index, evidence in enumerate(evidences):
        plants = plant(evidence.training, count, seed=seed + index)
        distances, missing = measure(evidence, plants, tell)
        absent |= missing
        folds.append(Fold(evidence, evidence.features(tell), plants, distances, _losses(evidence, tell)))
    names = [name for name in folds[0].distances if all(name in fold.distances for fold in folds)]
    design = design_of(folds, names, seed=seed)
    view = view_of(folds, names, everything(folds), options, seed=seed)
    if design.chosen:  # the copies that a near-copy test let through are not like the planted ones
        view = replace(view, bound=None)
    allowed = all(evidence.real_masks_allowed for evidence in evidences)
    dropped, after = _dropped(view, options)
    second, unjudged = _rest(folds, view, dropped, after, options, seed=seed)
    figures, not_computed = figures_of(folds, view, design, options)
    after_drop = None
    if unjudged:
        not_computed["copy_test_after_drop"] = unjudged
        after_drop = Verdict(None, f"undecidable: {unjudged}; {NO_GUARANTEE}")
    elif second is not None:
        after_drop = images_verdict(second, design, options, real_masks_allowed=allowed)
        rate = len(second.test.flagged) / second.n
        figures["copy_test_after_drop"] = Figure(rate, second.n, "lower", f"share flagged then, by {', '.join(after)}")
    not_computed |= {f"copy_test.{name}": why for name, why in absent.items()}
    cases = [item.case for evidence in evidences for item in evidence.synthetic]
    images = images_verdict(view, design, options, real_masks_allowed=allowed)
    # masks and images that were given are no one's weights
    copied = images_verdict(replace(view, real=(), edits=()), design, options, real_masks_allowed=True)
    return Audit(
        images=images,
        weights=weights_verdict(design, options, images=copied),
        after_drop=after_drop,
        figures=figures,
        not_computed=not_computed,
        flagged=tuple(cases[index] for index in dropped),
        p_values=tuple(zip(cases, view.test.p_values.tolist(), strict=True)),
        exposure=tuple(exposures(folds, names[0])),
        notes=_notes(evidences, view, allowed=allowed),
        nearest=_nearest(folds, names[0]),
    )


def _rest(
    folds: Sequence[Fold], view: View, dropped: Sequence[int], after: Sequence[str], options: Options, *, seed: int
) -> tuple[View | None, str]:
    """Return the samples that are not `dropped`, seen by the embeddings `after`, or why nothing tells of them."""
    if not dropped:
        return None, ""
    if view.n - len(dropped) < _LEAST:
        return None, f"fewer than {_LEAST} samples are left without the flagged ones"
    if not after:
        return (
            None,
            "every embedding finds samples that are dropped, so nothing independent is left to judge the rest by",
        )
    second = view_of(folds, after, _without(view, dropped), options, seed=seed)
    # what is left was chosen by not being flagged: at most all copies of the whole set are among it
    rest = 1.0 if view.bound is None else view.bound * view.n / second.n
    return replace(second, bound=rest if rest < 1 else None), ""


def _nearest(folds: Sequence[Fold], name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    found, control = nearest_of(folds, name)
    return tuple(found.tolist()), tuple(control.tolist())


def _require_folds(evidences: Sequence[Evidence]) -> None:
    held: set[str] = set()
    for evidence in evidences:
        checks.require_apart(evidence)
        own = {item.whose for item in evidence.holdout}
        if held & own:
            raise DataError(f"{len(held & own)} patients are held out of two folds; pool folds that share none")
        held |= own


def undecided(why: str) -> Audit:
    """Return the audit that says why nothing could be tested."""
    open_ = Verdict(None, f"undecidable: {why}; {NO_GUARANTEE}")
    return Audit(open_, open_, None, {}, dict.fromkeys(("nearest", "copy_test", "set_level_p", "mia_auc"), why))


def _losses(evidence: Evidence, tell: Tell) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the denoising losses of training volumes and of patients with no part in training; None without a way to
    get them, or such patients."""
    if evidence.loss is None or not evidence.outsiders:
        return None
    loss = evidence.loss

    def measured(items: Sequence[Judged]) -> np.ndarray:
        rows = []
        for item in items:
            rows.append(np.atleast_1d(np.asarray(loss(item), dtype=np.float64)))
            tell("scored")
        return np.stack(rows)

    return measured(evidence.training), measured(evidence.outsiders)


def _dropped(view: View, options: Options) -> tuple[list[int], list[str]]:
    """Return the samples to drop, and the embeddings for the audit after: not those that find them, see `found_by`.

    An embedding that finds no more than a share q of them does not count: so many may be there by chance.
    """
    limit = options.q * len(view.test.flagged)
    after = [name for name in view.copies if view.by.get(name, 0) <= limit]
    # voxel for voxel the same is no embedding's finding, so all are left for the audit after
    return sorted({*view.same, *view.test.flagged.tolist()}), after


def _without(view: View, dropped: Sequence[int]) -> list[np.ndarray]:
    whole = np.ones(view.n, dtype=bool)
    whole[list(dropped)] = False
    return np.split(whole, np.cumsum([len(keep) for keep in view.kept])[:-1])


def _notes(evidences: Sequence[Evidence], view: View, *, allowed: bool) -> tuple[str, ...]:
    out = []
    held = {one for evidence in evidences for one in (item.whose for item in evidence.holdout)}
    if view.lag > 0.8 and len(held) >= _TELLING:
        out.append(
            f"samples lie further from training than most hold-out volumes do (median p {view.lag:.2f}): the copy test "
            "sees less than its controls say, the set-level test does not suffer"
        )
    if view.real and allowed:
        out.append(f"{len(view.real)} of {view.n} samples carry the mask of a real patient, which was allowed")
    faces = sum(
        checks.shows_a_face(item, evidence.spacing_mm)
        for evidence in evidences
        for item in evidence.synthetic[:_FACES_LOOKED_AT]
    )
    if faces:
        looked = sum(min(len(evidence.synthetic), _FACES_LOOKED_AT) for evidence in evidences)
        out.append(
            f"{faces} of {looked} samples looked at seem to be heads with their skin: a face can be rebuilt from such "
            "a surface; deface them, or check that it is nobody's"
        )
    return tuple(out)
