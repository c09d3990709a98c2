"""What the figures of a report rest on, as one small table: reports in which it differs are not compared."""

import hashlib
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from evaluation.evidence import Evidence, Judged


def fingerprint_of(evidence: Evidence) -> dict[str, str]:
    """Return the fingerprint of a judgement, of strings only.

    features       name of the extractor and what identifies it; its weights (or definition), input and pooling beside
    resampling     the filter, and the version of what resamples
    intensity      what mapped 0 and 1 stand for
    spacing_mm     of the grid on which all are compared
    n              volumes of each side: distances between sets depend on them
    real           sha256 over the voxels of all real volumes, whatever their order and names
    judge          sha256 of the segmenter's weights; empty without one
    """
    extractor = evidence.extractor
    n = [len(side) for side in (evidence.synthetic, evidence.training, evidence.holdout)]
    windows = "; ".join(f"{low:g}..{high:g}" for low, high in evidence.windows)
    return {
        "features": f"{extractor.name} {extractor.fingerprint()}",
        "features_sha256": extractor.sha256,
        "features_input": extractor.spec.text(),
        "features_pooling": extractor.pooling,
        "resampling": f"{extractor.spec.filter}; torch {_version('torch')}; scipy {_version('scipy')}",
        "intensity": windows or "mapped 0.5/99.5 %",
        "spacing_mm": " x ".join(f"{step:g}" for step in evidence.spacing_mm) or "not given",
        "n": f"{n[0]} synthetic, {n[1]} training, {n[2]} held out",
        "real": _set_digest((*evidence.training, *evidence.holdout)),
        "judge": _weights(evidence.bench.segmenter),
    }


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


def _weights(model: object) -> str:
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
