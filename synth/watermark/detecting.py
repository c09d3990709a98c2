"""Is a key's mark in an image? The key's score among those of decoys that were drawn as it was.

The p-value is exact whatever the images are: if nobody marked them with the key, it is one of K + 1 keys that nothing
tells apart, and its rank is uniform. No distribution of scores is assumed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from synth.errors import ConfigError
from synth.statistics import benjamini_hochberg
from synth.volume import Volume
from synth.watermark.keys import KEY_BYTES, Key
from synth.watermark.pattern import Array, channels_of, period_of, scores, signs_of, spectrum

RUNGS = (0, -1, 1, -2, 2)
"""Periods that are tried, in half octaves from the image's own: it may have been resampled by up to about 2."""
FEWEST, MOST = 19, 99_999
_AT_ONCE = 64


def decoy_keys(key: Key, count: int, rng: np.random.Generator | None = None) -> list[Key]:
    """Return keys drawn as `key` was: from `rng`, or from the key itself, which nobody without it can tell.

    Whoever knew the decoys could mark an image with many of them, and so hide the mark of the key.
    Errors: ConfigError for a count out of range.
    """
    if not FEWEST <= count <= MOST:
        raise ConfigError(f"{count} decoys; give {FEWEST} to {MOST}")
    whole = key.stream("decoys", KEY_BYTES * count) if rng is None else rng.bytes(KEY_BYTES * count)
    return [Key(whole[place : place + KEY_BYTES]) for place in range(0, len(whole), KEY_BYTES)]


class Detector:
    """Scores images by many keys at once; the first may be the one that is looked for, the others its decoys."""

    def __init__(self, keys: Sequence[Key]) -> None:
        self.keys = tuple(keys)
        self._signs: dict[int, Array] = {}

    def scores(self, volume: Volume) -> Array:
        """Return each key's highest correlation with the image over all shifts and periods; 0 for a constant image.

        Errors: DataError for voxels that are NaN or infinite.
        """
        dims = volume.spatial_dims
        if dims not in self._signs:
            self._signs[dims] = signs_of(self.keys, dims)
        signs = self._signs[dims]
        data, steps, _ = channels_of(volume)
        best = np.full(len(signs), -np.inf, dtype=np.float32)
        for rung in RUNGS:
            found = spectrum(data, steps, period_of(steps, rung))
            for begin in range(0, len(signs), _AT_ONCE):
                part = slice(begin, begin + _AT_ONCE)
                tops = scores(found, signs[part]).reshape(len(signs[part]), -1).max(axis=1)
                best[part] = np.maximum(best[part], tops)
        return best


def p_value(own: float, others: np.ndarray) -> float:
    """Return p = (1 + how many of K others score at least `own`) / (K + 1) (Phipson & Smyth 2010).

    >>> p_value(3.0, np.array([1.0, 3.0, 2.0]))
    0.5
    """
    return (1 + int((others >= own).sum())) / (len(others) + 1)


def pooled_p(rows: np.ndarray) -> float:
    """Return one p-value for many images, of their scores (image, key), the key looked for first.

    Scores are centred and scaled within each image over all its keys alike, and summed by key: as exact as for one
    image, for the keys are still exchangeable.
    """
    spread = rows.std(axis=1, keepdims=True)
    level = (rows - rows.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1.0)
    total = level.astype(np.float64).sum(axis=0)
    return p_value(float(total[0]), total[1:])


def detect(volume: Volume, key: Key, *, decoys: int = 999, rng: np.random.Generator | None = None) -> float:
    """Return the p-value of the key's mark in an image: at most alpha in a share alpha of images without it.

    rng   what decoys are drawn from; by default the key itself (see `decoy_keys`), so that equal calls agree
    Errors: ConfigError for a number of decoys out of range; DataError for voxels that are NaN or infinite.

    >>> image = Volume(np.random.default_rng(0).normal(100, 20, (1, 40, 40, 40)).astype(np.float32))
    >>> from synth.watermark.marking import embed
    >>> key = Key(bytes(32))
    >>> detect(embed(image, key, 2.0), key, decoys=99), detect(image, key, decoys=99) > 0.01
    (0.01, True)
    """
    rows = Detector([key, *decoy_keys(key, decoys, rng)]).scores(volume)
    return p_value(float(rows[0]), rows[1:])


@dataclass(frozen=True)
class Verdict:
    """What is said of many images: a p-value each, which are marked, and one p-value of all together.

    marked   by Benjamini-Hochberg: of the images named, a share `rate` is wrongly named at most, on average
    found    the p-value of all together is at most `rate`: so many sets without the mark are said to have it at most
    """

    p_values: tuple[float, ...]
    marked: tuple[bool, ...]
    p: float
    found: bool

    @classmethod
    def of(cls, rows: np.ndarray, rate: float) -> "Verdict":
        """Return the verdict on scores (image, key), the key looked for first.

        >>> rng = np.random.default_rng(2)
        >>> rows = rng.normal(size=(2, 200)); rows[0, 0] = 9.0
        >>> verdict = Verdict.of(rows, 0.05)
        >>> verdict.marked, verdict.found
        ((True, False), True)
        """
        each = np.array([p_value(float(row[0]), row[1:]) for row in rows])
        marked = set(benjamini_hochberg(each, q=rate).tolist())
        whole = pooled_p(rows)
        return cls(tuple(each.tolist()), tuple(index in marked for index in range(len(each))), whole, whole <= rate)
