"""What the figures of a report rest on, as one small table: reports in which it differs are not compared."""

import hashlib
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from evaluation.evidence import Evidence, Judged
from synth.data.intensity import IntensityMap, Window


def fingerprint_of(evidence: Evidence) -> dict[str, str]:
    """Return the fingerprint of a judgement, of strings only.

    features       name of the extractor and what identifies it; its weights (or definition), input and pooling beside
    resampling     the filter, and the version of what resamples
    intensity      how each channel was mapped
    spacing_mm     of the grid on which all are compared
    n              volumes of each side: distances between sets depend on them
    real           sha256 over the voxels of all real volumes, whatever their order and names
    judge          sha256 of the segmenter's weights; empty without one
    """
    extractor = evidence.extractor
    n = [len(side) for side in (evidence.synthetic, evidence.training, evidence.holdout)]
    return {
        "features": f"{extractor.name} {extractor.fingerprint()}",
        "features_sha256": extractor.sha256,
        "features_input": extractor.spec.text(),
        "features_pooling": extractor.pooling,
        "resampling": f"{extractor.spec.filter}; torch {_version('torch')}; scipy {_version('scipy')}",
        "intensity": "; ".join(mapping(rule) for rule in evidence.intensities) or "not given",
        "spacing_mm": " x ".join(f"{step:g}" for step in evidence.spacing_mm) or "not given",
        "n": f"{n[0]} synthetic, {n[1]} training, {n[2]} held out",
        "real": f"{_set_digest(evidence.training)} training, {_set_digest(evidence.holdout)} held out",
        "judge": weights_sha256(evidence.bench.segmenter),
    }


def mapping(rule: IntensityMap) -> str:
    """Return in words how a channel was mapped.

    >>> mapping(Window(low=-1024.0, high=800.0, tissue=(-160.0, 240.0)))
    'CT window -1024..800 HU, the middle half -160..240 HU'
    >>> from synth.data.intensity import Percentiles
    >>> mapping(Percentiles(low=3.0, high=812.5))
    'own 0.5 and 99.5 % of each volume (median of the training volumes: 3..812.5)'
    """
    if isinstance(rule, Window):
        middle = "" if rule.tissue is None else f", the middle half {rule.tissue[0]:g}..{rule.tissue[1]:g} HU"
        return f"CT window {rule.low:g}..{rule.high:g} HU{middle}"
    shares = f"{100 * rule.low_share:g} and {100 * rule.high_share:g} %"
    return f"own {shares} of each volume (median of the training volumes: {rule.low:g}..{rule.high:g})"


def _set_digest(items: Sequence[Judged]) -> str:
    """Return one hash of a set; none of a single volume can be read from it."""
    rows = sorted(_digest(item) for item in items)
    return hashlib.sha256("".join(rows).encode()).hexdigest() if rows else ""


def _digest(item: Judged) -> str:
    whole = hashlib.sha256()
    for array in (item.image, item.mask):
        whole.update(f"{array.dtype.str} {array.shape}|".encode())
        whole.update(np.ascontiguousarray(array).tobytes())
    return whole.hexdigest()


def weights_sha256(model: object) -> str:
    """Return what identifies a segmenter by its weights; empty where there is none, or it has none."""
    state = getattr(model, "state_dict", None)
    if state is None:
        return ""
    whole = hashlib.sha256()
    for name, tensor in sorted(state().items()):
        whole.update(name.encode())
        whole.update(tensor.detach().cpu().numpy().tobytes())
    return whole.hexdigest()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"
