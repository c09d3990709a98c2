"""The audit in words: pass, fail or undecidable, with the threat, the bound and the reasons. Knows findings alone."""

import numpy as np

from evaluation.functional.membership import Membership, auc_interval
from evaluation.functional.privacy import patients_needed
from evaluation.privacy.findings import Design, Options, View
from evaluation.report import Verdict

NO_GUARANTEE = "no formal (DP) guarantee, not a legal finding"
_IMAGES = (
    "threat: who holds the set looks in it for volumes of training patients, turned, mirrored or disguised a little"
)
_WEIGHTS = "threat: who holds the weights asks whether a volume he has was trained on"


def images_verdict(view: View, design: Design, options: Options, *, real_masks_allowed: bool) -> Verdict:
    """Return what may be said of the images."""
    certain: list[str] = []
    if view.real and not real_masks_allowed:
        certain.append(f"{len(view.real)} of {view.n} samples carry the mask of a real patient (--allow-real-masks)")
    if view.same:
        certain.append(f"{len(view.same)} of {view.n} samples are training volumes, voxel for voxel")
    found, unclear = _signs(view, options), _doubts(view, design, options)
    invalid = _invalid(design)
    # signs of copying rest on hold-out volumes that are like the training ones; without that they say nothing
    failed = certain + ([] if invalid else found)
    told = f"{view.n} samples against {design.training} training and {design.holdout} hold-out patients"
    told += f", {design.folds} folds pooled" if design.folds > 1 else ""
    bound = "" if view.bound is None else f"; bound: at most {_percent(view.bound)} are copies (95 %)"
    if failed:
        return Verdict(False, _said("fail", _IMAGES, [*failed, *invalid], f"{told}{bound}"))
    if invalid or unclear:
        return Verdict(None, _said("undecidable", _IMAGES, [*invalid, *unclear], told))
    least = view.detectable(power=80)
    assert least is not None and view.set_p is not None, "else there is a doubt"
    reasons = [
        f"no copy flagged at a false-discovery rate of {_percent(options.q)} in {' and '.join(view.copies)}",
        f"set-level p = {view.set_p:.3g}",
        f"a copy rate of {_percent(least)} would have been seen with 80 % power",
        *_membership_words(view.membership),
    ]
    return Verdict(True, _said("pass", _IMAGES, reasons, f"{told}{bound}"))


def weights_verdict(design: Design, options: Options, *, images: Verdict) -> Verdict:
    """Return what may be said of the weights: only where denoising losses were handed over.

    Whoever holds them can make such images too, so that they are no safer than those.
    """
    if images.ok is False:
        return Verdict(False, _said("fail", _WEIGHTS, ["the images that they make fail"], ""))
    found = design.weights
    if found is None:
        return Verdict(None, _said("undecidable", _WEIGHTS, [design.no_weights], ""))
    told = f"{found.members} members, {found.non_members} others"
    words = _membership_words(found)
    invalid = _invalid(design)
    if invalid:
        return Verdict(None, _said("undecidable", _WEIGHTS, [*invalid, *words], told))
    if found.interval[0] > 0.5:
        return Verdict(False, _said("fail", _WEIGHTS, ["members have lower losses than others", *words], told))
    claim = found.claims.get(0.01)
    if claim is not None and claim.interval[1] <= options.tpr_at_most:
        return Verdict(True, _said("pass", _WEIGHTS, words, told))
    return Verdict(None, _said("undecidable", _WEIGHTS, words, told))


def _signs(view: View, options: Options) -> list[str]:
    """Return the signs of copying."""
    out = []
    for name, test in view.copies.items():
        if len(test.flagged):
            out.append(f"{len(test.flagged)} of {view.n} samples are flagged as copies by {name}")
    if view.set_p is not None and view.set_p <= options.level:
        out.append(f"the set as a whole leans to training patients (p = {view.set_p:.3g})")
    found = view.membership
    # at 99 %: one figure of several, and a set must not fail for the chance that an interval of 95 % leaves
    if found is not None and auc_interval(found.auc, found.members, found.non_members, level=0.99)[0] > 0.5:
        out += ["training patients are told from others by the set's density", *_membership_words(view.membership)]
    return out


def _invalid(design: Design) -> list[str]:
    """Return why the design itself decides nothing."""
    out = []
    if design.twins:
        out.append(f"{design.twins} hold-out volumes are training volumes or nearly so; remove them from one side")
    gate = design.gate
    if gate is None:
        out.append(f"whether training and hold-out are alike is not known ({design.no_gate})")
    elif design.apart:
        out.append(
            f"training and hold-out are told apart without any generator (AUC {gate.auc:.2f}, 95 % interval "
            f"{gate.interval[0]:.2f} to {gate.interval[1]:.2f}); split the same population at random"
        )
    if not design.control.ok:
        out.append(f"the negative control flags {_percent(design.control.rate)} at 5 %")
    return out


def _doubts(view: View, design: Design, options: Options) -> list[str]:
    """Return why signs that are absent do not tell, with the n that would decide."""
    out = []
    least = view.detectable(power=80)
    if view.set_p is None:
        out.append(f"no set-level test ({view.absent.get('set_level', '')})")
    if least is None or least > options.decide_at:
        seen = max((one.seen for one in view.reach.values()), default=0.0)
        small = "no copy rate" if least is None else f"no copy rate below {_percent(least)}"
        if seen < 0.5:
            out.append(f"{small} is seen with 80 % power: planted copies are not told from other patients")
        else:
            out.append(
                f"{small} is seen with 80 % power, {_percent(options.decide_at)} is asked for: "
                f"{patients_needed(options.decide_at, q=options.q)} hold-out patients (here {design.holdout}) or "
                f"{samples_needed(design, options, len(view.sets))} samples (here {view.n}) would decide"
            )
    doubtful = view.membership is not None and view.membership.interval[0] > 0.5
    if doubtful:
        out += ["the interval of the membership AUC leaves out 0.5", *_membership_words(view.membership)]
    claim = view.membership.claims.get(0.01) if view.membership is not None else None
    if claim is not None and claim.interval[1] > options.tpr_at_most:
        out.append(
            f"membership at 1 % false positives is bounded by {_percent(claim.interval[1])} only, "
            f"{_percent(options.tpr_at_most)} is asked for; more training patients would decide"
        )
    return out


def samples_needed(design: Design, options: Options, embeddings: int) -> int:
    """Return how many samples let the set-level test see copies at the rate to decide at, with 80 % power or so.

    k copies of different patients reach 2 (t / (t + h))^k at best; half as many again leave room for chance.
    """
    lean = design.training / (design.training + design.holdout)
    needed = np.log(options.level / (2 * max(embeddings, 1))) / np.log(lean)
    return int(np.ceil(1.5 * np.ceil(needed) / options.decide_at))


def _membership_words(found: Membership | None) -> list[str]:
    if found is None:
        return []
    out = [f"membership AUC {found.auc:.2f} ({found.interval[0]:.2f} to {found.interval[1]:.2f})"]
    for rate, claim in found.claims.items():
        low, high = claim.interval
        out.append(
            f"at {_percent(rate)} false positives {_percent(claim.tpr)} of members are found "
            f"({_percent(low)} to {_percent(high)})"
        )
    return out + [f"not claimed: {why}" for rate, why in found.refused.items() if rate == 0.01]


def _said(word: str, threat: str, reasons: list[str], told: str) -> str:
    return f"{word}: {'; '.join(reasons)}{f' [{told}]' if told else ''}; {threat}; {NO_GUARANTEE}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
