"""The artefact gate: how unlike real patches the patches of an image are. Learned from real images only.

A patch (8 voxels along every axis) is described by log energies at several scales and directions, as PaDiM and
PatchCore describe it by activations of a network (Defard 2021, Roth 2022; AdverX-Ray, 2025, trains a discriminator on
patches for the same purpose). An image is described by what its patches are like on the whole and at their extremes.
Knows no corruption, no file layout but its own, and no model.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from synth.errors import CheckpointError, DataError
from synth.io import write_bytes

NAME = "artefact gate 1"
PATCH = 8
SMALLEST = 10
"""Real images, of as many patients, that a gate is learned from, at least."""
_FLOOR = 1e-3  # added before logarithms, in shares of the intensity window
_BODY = 0.05
_QUANTILES = (0.1, 0.5, 0.9)
_TIGHTEST = 0.02  # no statistic counts as known better than this: 2 % of an energy, or of the intensity window
_MISSING = 10.0  # standard deviations that count for a statistic that an image lacks and no real image did
_TENSORS = ("mean", "spread", "always", "factor", "calibration")


def describe(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return descriptors (patches, d) of a mapped image (channel, *grid), and which patches hold tissue (patches,).

    For each channel and patch: mean; log RMS of first differences along each axis; of second differences along each
    axis; of the difference between neighbours of odd and even parity (checkerboards, doubled slices) along each axis;
    of bands between Gaussian blurs of 0.8, 1.6 and 3.2 voxels. Axes shorter than a patch make one patch.
    """
    if image.ndim not in (3, 4) or not np.isfinite(image).all():
        raise DataError(f"a gate takes finite images (channel, *grid) in 2D or 3D, got shape {image.shape}")
    parts, tissue = [], None
    for channel in np.asarray(image, dtype=np.float32):
        mean = _pooled(channel)
        tissue = mean > _BODY if tissue is None else tissue | (mean > _BODY)
        parts.append(mean.ravel())
        parts += [np.log(_FLOOR + np.sqrt(np.maximum(_pooled(m), 0.0))).ravel() for m in _energies(channel)]
    assert tissue is not None
    return np.stack(parts, axis=1).astype(np.float64), tissue.ravel()


def _energies(channel: np.ndarray) -> list[np.ndarray]:
    """Return maps of squared filter responses, each on the grid of the channel."""
    out = []
    for axis in range(channel.ndim):
        first = np.diff(channel, axis=axis, append=np.take(channel, [-1], axis=axis))
        second = np.diff(first, axis=axis, prepend=np.take(first, [0], axis=axis))
        out += [first**2, second**2, _parity(first, axis)]
    blurs = [channel] + [ndimage.gaussian_filter(channel, s, mode="nearest", truncate=3.0) for s in (0.8, 1.6, 3.2)]
    out += [(fine - coarse) ** 2 for fine, coarse in zip(blurs, blurs[1:], strict=False)]
    return out


def _parity(first: np.ndarray, axis: int) -> np.ndarray:
    """Return (x_{2i+1} - x_{2i})^2 at both voxels of a pair: beside `first` it tells pairs that are too alike."""
    odd = np.arange(first.shape[axis]) // 2 * 2
    return np.take(first, odd, axis=axis) ** 2


def _pooled(x: np.ndarray) -> np.ndarray:
    for axis in range(x.ndim):
        starts = np.arange(0, max(x.shape[axis] - PATCH // 2, 1), PATCH)
        sizes = np.diff([*starts, x.shape[axis]])
        shape = [-1 if other == axis else 1 for other in range(x.ndim)]
        x = np.add.reduceat(x, starts, axis=axis) / sizes.reshape(shape)
    return x


def _summary(image: np.ndarray) -> np.ndarray:
    """Return what an image's patches are like: mean, quantiles, least and most in tissue, mean in air; NaN if none."""
    rows, tissue = describe(image)
    nothing = np.full(rows.shape[1], np.nan)
    inside, outside = rows[tissue], rows[~tissue]
    parts = [nothing] * 6
    if len(inside):
        parts = [inside.mean(axis=0), *np.quantile(inside, _QUANTILES, axis=0), inside.max(axis=0), inside.min(axis=0)]
    return np.concatenate([*parts, outside.mean(axis=0) if len(outside) else nothing])


@dataclass(frozen=True, eq=False)
class Gate:
    """What real images are like. Scores are distances: the higher, the less an image is like them.

    score = |F^T z| / sqrt(p), z the p standardised statistics of an image's patches, F F^T the inverse of their
    covariance over real images, shrunk (Ledoit & Wolf 2004): a Mahalanobis distance that is near 1 for real images.

    mean, spread   of each statistic (p,) over real images; NaN where none has it (no air, say)
    always         statistics that every real image has (p,)
    factor         F (p, p)
    calibration    scores of real images that the gate was not learned from; empty before `calibrated`
    """

    channels: int
    dims: int
    mean: np.ndarray
    spread: np.ndarray
    always: np.ndarray
    factor: np.ndarray
    calibration: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def score(self, image: np.ndarray) -> float:
        """Return how unlike real images a mapped image (channel, *grid) is. Errors: DataError for another form, NaN."""
        if (len(image), image.ndim - 1) != (self.channels, self.dims):
            raise DataError(
                f"this gate knows {self.channels} channels in {self.dims}D, the image has {len(image)} in "
                f"{image.ndim - 1}D; give one like those it was learned from"
            )
        z = (_summary(image) - self.mean) / self.spread
        z = np.where(np.isnan(z), np.where(self.always, _MISSING, 0.0), z)
        return float(np.linalg.norm(z @ self.factor) / np.sqrt(len(z)))

    def calibrated(self, images: Iterable[np.ndarray]) -> "Gate":
        """Return the gate with the scores of real images that it was not learned from."""
        return replace(self, calibration=np.array([self.score(image) for image in images], dtype=np.float64))


def why_no_gate(patients: Iterable[str]) -> str:
    """Return why no gate is learned from volumes of these patients, one name a volume; empty where one is.

    >>> why_no_gate(["a", "a", "b"])
    'a gate is learned from volumes of at least 10 real training patients, there are 2'
    """
    count = len(set(patients))
    if count >= SMALLEST:
        return ""
    return f"a gate is learned from volumes of at least {SMALLEST} real training patients, there are {count}"


def fit_gate(images: Iterable[np.ndarray]) -> Gate:
    """Return a gate learned from mapped real images (channel, *grid), of one number of channels and dimensions.

    Errors: DataError for fewer than 10 images, unlike forms, voxels that are no numbers.
    """
    rows, form = [], None
    for image in images:
        form = form or (len(image), image.ndim - 1)
        if (len(image), image.ndim - 1) != form:
            raise DataError(f"a gate is learned from images of one form, got {form} and {(len(image), image.ndim - 1)}")
        rows.append(_summary(image))
    if form is None or len(rows) < SMALLEST:
        raise DataError(f"a gate is learned from at least {SMALLEST} real images, got {len(rows)}")
    x = np.stack(rows)
    there = ~np.isnan(x)
    count = there.sum(axis=0)
    mean = np.where(count > 0, np.where(there, x, 0.0).sum(axis=0) / np.maximum(count, 1), np.nan)
    apart = np.where(there, x - mean, 0.0)
    spread = np.maximum(np.sqrt((apart**2).sum(axis=0) / np.maximum(count, 1)), _TIGHTEST)
    factor = np.linalg.cholesky(np.linalg.inv(_shrunk(apart / spread)))
    return Gate(form[0], form[1], mean, spread, count == len(x), factor)


def _shrunk(z: np.ndarray) -> np.ndarray:
    """Return the covariance (p, p) of centred rows (n, p), drawn to a multiple of 1 (Ledoit & Wolf 2004)."""
    n, p = z.shape
    sample = z.T @ z / n
    level = float(np.trace(sample)) / p
    spread = float(((sample - level * np.eye(p)) ** 2).sum())
    noise = float(((z**2).T @ (z**2) / n - sample**2).sum()) / n
    share = min(noise / spread, 1.0) if spread > 0 else 1.0
    # a floor, so that statistics which real images share exactly have an inverse
    return (1.0 - share) * sample + (share * level + 1e-6) * np.eye(p)


def auroc(positive: Sequence[float] | np.ndarray, negative: Sequence[float] | np.ndarray) -> float:
    """Return the area under the ROC curve: the chance that a positive scores above a negative, ties counting half.

    >>> auroc([2.0, 3.0], [1.0, 2.0])
    0.875
    """
    above, below = np.asarray(positive, dtype=np.float64), np.asarray(negative, dtype=np.float64)
    if not len(above) or not len(below):
        raise ValueError("an AUROC needs scores on both sides")
    return float(np.mean((above[:, None] > below) + 0.5 * (above[:, None] == below)))


def save_gate(gate: Gate, path: str | Path) -> None:
    """Write a gate as one safetensors file, atomically; equal gates give equal bytes."""
    from safetensors.numpy import save

    about = {"name": NAME, "channels": gate.channels, "dims": gate.dims, "patch": PATCH}
    tensors = {name: np.ascontiguousarray(getattr(gate, name), dtype=np.float64) for name in _TENSORS}
    content = save(tensors, metadata={"gate": json.dumps(about, sort_keys=True)})
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_bytes(Path(path), content)


def load_gate(path: str | Path) -> Gate:
    """Return the gate of a file. Errors: CheckpointError when it is missing, damaged or of another version."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            about = json.loads((file.metadata() or {}).get("gate", "{}"))
            tensors = {name: file.get_tensor(name) for name in _TENSORS}
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path} is no artefact gate ({error}); save one with save_gate") from error
    if (about.get("name"), about.get("patch")) != (NAME, PATCH):
        raise CheckpointError(f"{path} was written by another version ({about.get('name')}); fit the gate again")
    return Gate(about["channels"], about["dims"], **{**tensors, "always": tensors["always"] > 0})
