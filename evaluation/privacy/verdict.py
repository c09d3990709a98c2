"""The audit in words: pass, fail or undecidable, with the threat, the bound and the reasons. Knows findings alone."""

from evaluation.functional.membership import Membership, auc_interval, members_needed
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
    if view.edits:
        certain.append(
            f"{len(view.edits)} of {view.n} samples are edits of images not known to be synthetic, which they are "
            "beyond the edit"
        )
    if view.same:
        certain.append(f"{len(view.same)} of {view.n} samples are training volumes, voxel for voxel")
    found = _signs(view, options)
    unclear = [design.chosen] if design.chosen else _doubts(view, design, options)
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
    assert least is not None and view.set_p is not None and view.membership is not None, "else there is a doubt"
    reasons = [
        f"no copy flagged at a false-discovery rate of {_percent(options.q)} over {' and '.join(view.copies)}",
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
    if found.interval[0] > 0.5 or _found_out(found, options):
        return Verdict(False, _said("fail", _WEIGHTS, ["members have lower losses than others", *words], told))
    doubt = _claim_doubt(found, options)
    if doubt:
        return Verdict(None, _said("undecidable", _WEIGHTS, [*words, doubt], told))
    return Verdict(True, _said("pass", _WEIGHTS, words, told))


def _signs(view: View, options: Options) -> list[str]:
    """Return the signs of copying."""
    out = []
    if len(view.test.flagged):
        by = " and ".join(f"{name} ({count})" for name, count in view.by.items()) or " and ".join(view.copies)
        out.append(f"{len(view.test.flagged)} of {view.n} samples are flagged as copies by {by}")
    if view.set_p is not None and view.set_p <= options.level:
        out.append(f"the set as a whole leans to training patients (p = {view.set_p:.3g})")
    found = view.membership
    # at 99 %: one figure of several, and a set must not fail for the chance that an interval of 95 % leaves
    if found is not None and (
        auc_interval(found.auc, found.members, found.non_members, level=0.99)[0] > 0.5 or _found_out(found, options)
    ):
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
    if design.left_out is None and gate is not None:
        out.append(f"no training patients could be left out as a control ({design.no_left})")
    elif design.left_out is not None and design.uneven:
        name, left = design.left_out
        low, high = (_percent(rate) for rate in left.interval)
        out.append(
            f"training patients left out and hold-out patients are not equally near to the rest of training by {name} "
            f"(p = {left.p_value:.2g}; {_percent(left.rate)} are told apart at {_percent(left.expected)}, chance gives "
            f"{low} to {high}); split the same population at random"
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
        small = "no copy rate" if least is None else f"no copy rate below {_percent(least)}"
        asked = _percent(options.decide_at)
        out.append(f"{small} is seen with 80 % power, {asked} is asked for: {_more(view, design, options)}")
    found = view.membership
    if found is None:
        return [*out, f"no membership test ({view.absent.get('membership', '')})"]
    if found.interval[0] > 0.5:
        out += ["the interval of the membership AUC leaves out 0.5", *_membership_words(found)]
    doubt = _claim_doubt(found, options)
    return [*out, doubt] if doubt else out


def _more(view: View, design: Design, options: Options) -> str:
    """Return the n that would decide, in words."""
    needed = view.needed
    ways = []
    if needed is not None and needed.holdout is not None:
        ways.append(f"{needed.holdout} hold-out patients (here {design.holdout})")
    if needed is not None and needed.samples is not None:
        ways.append(f"{needed.samples} samples (here {view.n})")
    if ways:
        return f"about {' or '.join(ways)} would show it, by simulation with the planted copies"
    rare = (1 - options.decide_at) ** view.n > 0.2
    why = "so few samples hold a copy too seldom" if rare else "planted copies are not told from other patients"
    return f"neither more hold-out patients nor 16 times the samples alone would show it, as {why}"


def _claim_doubt(found: Membership, options: Options) -> str:
    """Return why members found at 1 % false positives are not bounded as asked, with the n that would; empty: are."""
    claim = found.claims.get(0.01)
    if claim is not None and claim.interval[1] <= options.tpr_at_most:
        return ""
    asked = f"{_percent(options.tpr_at_most)} of members found at 1 % false positives"
    here = "cannot be claimed" if claim is None else f"is bounded by {_percent(claim.interval[1])} only"
    needed = members_needed(0.01, options.tpr_at_most)
    more = "no n would bound that" if needed is None else f"about {needed} training and as many other patients would"
    return f"at most {asked} is asked for, it {here} with {found.members} and {found.non_members} patients; {more}"


def _found_out(found: Membership, options: Options) -> bool:
    """Say whether more members are found at 1 % false positives than may be, chance apart."""
    claim = found.claims.get(0.01)
    return claim is not None and claim.interval[0] > options.tpr_at_most


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
    return out


def _said(word: str, threat: str, reasons: list[str], told: str) -> str:
    return f"{word}: {'; '.join(reasons)}{f' [{told}]' if told else ''}; {threat}; {NO_GUARANTEE}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
