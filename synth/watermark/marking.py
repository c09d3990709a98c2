"""A key's pattern put into an image, at the place where the image resembles it most already."""

import hashlib
from collections.abc import Sequence

import numpy as np

from synth.data.intensity import IntensityMap, Window
from synth.errors import ConfigError
from synth.volume import Volume
from synth.watermark.keys import Key
from synth.watermark.pattern import channels_of, detail, period_of, scores, signs_of, spectrum, waves

SHARE_OF_RANGE = 1 / 400
"""What stands for 1 HU where there are none: HU are shown by windows of 400 (soft tissue), this is that share."""
WEAKEST, STRONGEST = 0.05, 10.0
_GAIN = 3.0


def peaks(intensities: Sequence[IntensityMap], strength: float) -> tuple[float, ...]:
    """Return the largest change of each channel in native units: `strength` in HU, or in 1/400 of the range.

    The range of what is no CT is that of the intensity map: 0.5 to 99.5 percent of its data.
    Errors: ConfigError for a strength out of range.

    >>> from synth.data.intensity import Percentiles
    >>> peaks([Window(), Percentiles(low=0.0, high=800.0)], 1.0)
    (1.0, 2.0)
    """
    if not WEAKEST <= strength <= STRONGEST:
        raise ConfigError(f"the watermark's strength is {strength}; give {WEAKEST} to {STRONGEST:g}")
    return tuple(
        strength if isinstance(m, Window) else strength * SHARE_OF_RANGE * (m.high - m.low) for m in intensities
    )


def embed(volume: Volume, key: Key, strength: float | Sequence[float]) -> Volume:
    """Return the image with the key's mark in it, of the same grid, place and type.

    y(x) = x + a(x) clip(3 w(x - u), -1, 1), where w is the key's pattern and u the shift at which the image's own
    detail resembles it most: the detector takes the best shift anyhow, so that this is had for nothing. The amplitude
    a is `strength`, less where the surroundings vary by less than that, and 0 on constant ones and on voxels of the
    lowest value; it falls to 0 towards the dark of the background. No voxel leaves the range of its channel. Whole
    numbers are rounded up or down by a chance that keeps the mean, drawn from key and image.

    strength   largest change in native units, one for all channels or one each; whole numbers change by a step of 1
               where it is less than that
    Equal calls give equal bytes. Errors: ConfigError for strengths that are not above 0, or of another number;
    DataError for voxels that are NaN or infinite.

    >>> rng = np.random.default_rng(0)
    >>> image = Volume(rng.normal(100, 20, (1, 40, 40, 40)).astype(np.float32))
    >>> marked = embed(image, Key(bytes(32)), 1.0)
    >>> bool(0.3 < np.abs(marked.data - image.data).max() <= 1.0 + 1e-4)
    True
    """
    each = (strength,) * volume.channels if isinstance(strength, (int, float)) else tuple(strength)
    if len(each) != volume.channels or not all(np.isfinite(one) and one > 0 for one in each):
        raise ConfigError(
            f"strength is {strength} for {volume.channels} channels; give one number above 0, or one each"
        )
    data, steps, order = channels_of(volume)
    period, signs = period_of(steps), signs_of([key], volume.spatial_dims)
    found = scores(spectrum(data, steps, period), signs)[0]
    shift = [int(n) for n in np.unravel_index(int(found.argmax()), found.shape)]
    wave = np.clip(_GAIN * waves(signs[0], steps, period, shift, data.shape[1:]), -1.0, 1.0)
    digest = hashlib.sha256(key.stream("rounding", 32) + data.tobytes()).digest()
    rng = np.random.default_rng(int.from_bytes(digest, "little"))
    rooms = (_room(channel, steps, period, one) for channel, one in zip(data, each, strict=True))
    moved = zip(data, rooms, each, strict=True)
    out = np.stack([_marked(channel, wave * room, one, rng) for channel, room, one in moved])
    back = np.argsort(order)
    return volume.replace(data=np.ascontiguousarray(out.transpose(0, *(int(axis) + 1 for axis in back))))


def _room(channel: np.ndarray, steps: np.ndarray, period: float, strength: float) -> np.ndarray:
    """Return how far each voxel may be moved."""
    _, spread, bright = detail(channel, steps, period)
    return bright * np.minimum(spread, np.float32(strength)) * (channel > channel.min())


def _marked(channel: np.ndarray, change: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    low, high = channel.min(), channel.max()
    if channel.dtype.kind not in "iu":
        return np.clip(channel + change.astype(channel.dtype), low, high)
    change = np.floor(change + rng.random(change.shape, dtype=np.float32))
    # whole numbers change by whole steps, at most by the strength; one step where that is less
    most = max(1.0, np.floor(strength))
    wide = channel.astype(np.float64) + np.clip(change, -most, most)
    return np.clip(wide, low, high).astype(channel.dtype)
