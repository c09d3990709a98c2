"""The pattern of a key, and what of an image is compared with it. Pure functions on arrays.

A pattern is periodic in millimetres along the axes of the image:

    w(x) = sum over modes m of s(|m_1|, ..., |m_d|) exp(2 pi i m . x / P),   LOW <= |m| <= M + 1/2,  s = +1 or -1

The signs s are the key's. w is even along every axis, so that a mirrored image is a shifted one, and axes are put in
the order of the world's, so that a re-oriented image is the same one. Only the modes of an image at the harmonics of P
count, and a circular shift of the pattern is a phase: the scores of a key under every shift are one inverse FFT.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from synth.errors import DataError
from synth.volume import Volume
from synth.watermark.keys import Key

HIGHEST = {2: 12, 3: 6}
"""M, the highest harmonic, by the number of axes."""
SHIFTS = {2: 32, 3: 16}
"""Shifts that are tried along each axis."""
LOWEST = 2.0
_STEPS = {2: 36.0, 3: 18.0}
"""Steps of the image's grid in a period, about: the finest wave is then 2.5 to 3.6 steps long."""
_NYQUIST, _ROLL = 0.45, 0.1
_AROUND = 1 / 12
_DARK = 0.2
_QUIET = 0.25
Array = NDArray[np.float32]
Spectrum = NDArray[np.complex64]


def channels_of(volume: Volume) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """Return data and steps in mm with the axes in the world's order, and which axis each of them was.

    Errors: DataError for voxels that are NaN or infinite.
    """
    if not np.isfinite(volume.data).all():
        raise DataError("the image has voxels that are NaN or infinite; replace them before use")
    dims = volume.spatial_dims
    order = tuple(int(axis) for axis in np.argsort(_world_axes(volume.affine[:3, :dims]), kind="stable"))
    steps = np.array(volume.spacing_mm)[list(order)]
    # one layout in memory: sums, and so bytes, depend on it
    return np.ascontiguousarray(volume.data.transpose(0, *(axis + 1 for axis in order))), steps, order


def _world_axes(columns: np.ndarray) -> list[int]:
    """Return the world axis along which each voxel axis runs; no two share one.

    >>> _world_axes(np.array([[0.0, 0.0, 2.0], [0.0, -1.0, 0.0], [3.0, 0.0, 0.1]]))
    [2, 1, 0]
    """
    share = np.abs(columns / np.linalg.norm(columns, axis=0))
    out = [0] * share.shape[1]
    for _ in out:
        world, axis = (int(n) for n in np.unravel_index(int(share.argmax()), share.shape))
        out[axis] = world
        share[world, :], share[:, axis] = -1.0, -1.0
    return out


def period_of(steps_mm: np.ndarray, rung: int = 0) -> float:
    """Return the period in mm for an image of these steps: half octaves, so that near steps share one.

    rung   half octaves up or down from the image's own: what it was resampled by since it was marked

    >>> [round(period_of(np.array([step] * 3)), 2) for step in (2.0, 2.6, 3.0)]
    [32.0, 45.25, 64.0]
    """
    step = float(np.exp(np.log(steps_mm).mean()))
    return float(2.0 ** ((np.round(2 * np.log2(_STEPS[len(steps_mm)] * step)) + rung) / 2))


def signs_of(keys: Sequence[Key], dims: int) -> Array:
    """Return the signs of keys (key, M + 1, ...) at the harmonics |m| along each axis; 0 where there is no mode."""
    there = _modes(dims)
    count = int(there.sum())
    out = np.zeros((len(keys), *there.shape), dtype=np.float32)
    for number, key in enumerate(keys):
        drawn = np.frombuffer(key.stream(f"signs {dims}D", (count + 7) // 8), dtype=np.uint8)
        out[number, there] = 2.0 * np.unpackbits(drawn)[:count] - 1.0
    return out


def _modes(dims: int) -> np.ndarray:
    squares = np.arange(HIGHEST[dims] + 1) ** 2
    length = np.sqrt(sum(np.meshgrid(*[squares] * dims, indexing="ij")))
    return (length >= LOWEST) & (length <= HIGHEST[dims] + 0.5)


def _harmonics(dims: int) -> list[np.ndarray]:
    """Return m along each axis: -M to M, and 0 to M along the last, whose other half follows from it."""
    highest = HIGHEST[dims]
    return [np.arange(-highest, highest + 1)] * (dims - 1) + [np.arange(highest + 1)]


def _spread(signs: Array) -> Array:
    """Return signs (key, M + 1, ...) at every m of `_harmonics`."""
    for axis, harmonics in enumerate(_harmonics(signs.ndim - 1)):
        signs = signs.take(np.abs(harmonics), axis=axis + 1)
    return signs


def _held(steps_mm: np.ndarray, period: float) -> Array:
    """Return how much of each mode a grid of these steps holds: 1, down to 0 towards its Nyquist frequency."""
    out: np.ndarray = np.ones((), dtype=np.float32)
    for harmonics, step in zip(_harmonics(len(steps_mm)), steps_mm, strict=True):
        share = np.clip((_NYQUIST - np.abs(harmonics) * step / period) / _ROLL, 0.0, 1.0)
        out = np.multiply.outer(out, share.astype(np.float32))
    return np.asarray(out, dtype=np.float32)


def detail(data: np.ndarray, steps_mm: np.ndarray, period: float) -> tuple[Array, Array, Array]:
    """Return what of a channel stands out of its surroundings, its spread there, and how little it is background.

    Surroundings are Gaussian, a twelfth of the period wide (SD), so that resampled images have the same. The last is 0
    where they are as dark as the darkest hundredth of the channel, and 1 from a fifth of the way to its brightest: air,
    which noise fills in some images, is left alone.
    """
    voxels = data.astype(np.float32)
    wide = [period * _AROUND / step for step in steps_mm]

    def mean(of: np.ndarray) -> Array:
        return np.asarray(ndimage.gaussian_filter(of, wide, mode="nearest", truncate=2.0), dtype=np.float32)

    around = mean(voxels)
    out = voxels - around
    spread = np.sqrt(np.maximum(mean(out * out), 0.0))
    few = voxels[tuple(slice(None, None, 2 if n > 8 else 1) for n in voxels.shape)]
    low, high = (float(level) for level in np.quantile(few, [0.01, 0.99]))
    high = high if high > low else float(voxels.max())
    bright = np.clip((around - low) / (max(high - low, 1e-30) * _DARK), 0.0, 1.0)
    return out, spread, bright.astype(np.float32)


def weighed(data: np.ndarray, steps_mm: np.ndarray, period: float) -> Array:
    """Return a channel's detail, each voxel by what a mark there would stand out of: over its surroundings' variance.

    A variance below a quarter of the median counts as that, so that no smooth corner rules.
    """
    out, spread, bright = detail(data, steps_mm, period)
    variance = spread * spread
    lively = variance[(bright > 0.5) & (variance > 1e-9 * float(variance.max()))]
    if lively.size == 0:
        return np.zeros_like(out)
    typical = float(np.median(lively))
    return (out * bright * (typical / (variance + _QUIET * typical))).astype(np.float32, copy=False)


def spectrum(channels: np.ndarray, steps_mm: np.ndarray, period: float) -> Spectrum:
    """Return the modes of an image at the harmonics of a period, of length 1 in all; zeros where nothing is marked.

    Each is over the root of the power around it and by |m|: images hold the less the finer, and a filter that was put
    over image and mark alike cancels. Modes of channels are added: one mark is in all of them.
    """
    dims = len(steps_mm)
    there = _spread(_modes(dims)[None].astype(np.float32))[0]
    length = np.sqrt(sum(np.meshgrid(*[m.astype(np.float32) ** 2 for m in _harmonics(dims)], indexing="ij")))
    total = np.zeros(there.shape, dtype=np.complex64)
    for channel in channels:
        folded = _folded(weighed(channel, steps_mm, period), steps_mm, period) * there
        power = ndimage.uniform_filter(np.abs(folded) ** 2, 3, mode="nearest")
        if power.max() > 0.0:
            white = folded * (_held(steps_mm, period) * length) / np.sqrt(power + 1e-6 * float(power.max()))
            total += white / (np.linalg.norm(white) or 1.0)
    return (total / (np.linalg.norm(total) or 1.0)).astype(np.complex64)


def _folded(channel: Array, steps_mm: np.ndarray, period: float) -> Spectrum:
    """Return sum over voxels x of channel(x) exp(-2 pi i m . x / P) at every m of `_harmonics`.

    By plain loops: what a BLAS sums depends on its threads, and bytes must not.
    """
    out: np.ndarray = channel
    names = "ijk"[: channel.ndim]
    for axis, harmonics in enumerate(_harmonics(channel.ndim)):
        angle = np.outer(harmonics, np.arange(channel.shape[axis]) * steps_mm[axis]) * (2 * np.pi / period)
        rule = f"m{names[axis]},{names}->{names.replace(names[axis], 'm')}"
        even, odd = (np.einsum(rule, wave.astype(np.float32), out) for wave in (np.cos(angle), np.sin(angle)))
        out = even - np.complex64(1j) * odd
    return out.astype(np.complex64)


def scores(found: Spectrum, signs: Array) -> Array:
    """Return the correlation (key, *shift) of a `spectrum` with patterns under every shift of a sixteenth of a period
    (a thirty-second in 2D); about 1 from chance, whatever the key."""
    dims = found.ndim
    count = SHIFTS[dims]
    modes = _spread(signs) * found
    whole = np.zeros((len(signs), *[count] * (dims - 1), count // 2 + 1), dtype=np.complex64)
    places = [harmonics % count for harmonics in _harmonics(dims)]
    whole[np.ix_(np.arange(len(signs)), *places)] = modes
    out: Any = fft.irfftn(whole, s=[count] * dims, axes=tuple(range(1, dims + 1)))
    return out * np.float32(count**dims)


def waves(signs: Array, steps_mm: np.ndarray, period: float, shift: Sequence[int], grid: Sequence[int]) -> Array:
    """Return the pattern of one key (M + 1, ...) on a grid, by so many of the `scores`' shifts, as far as it holds it.

    Its root mean square over a period is 1.
    """
    dims = len(grid)
    out: Any = (_spread(signs[None])[0] * _held(steps_mm, period)).astype(np.complex64)
    halves = np.ones(HIGHEST[dims] + 1, dtype=np.float32)
    halves[1:] = 2.0  # m and -m along the last axis
    power = float((np.abs(out) ** 2 * halves).sum())
    names = "ijk"[:dims]
    for axis, harmonics in enumerate(_harmonics(dims)):
        place = np.arange(grid[axis]) * steps_mm[axis] - shift[axis] * period / SHIFTS[dims]
        turn = np.exp(2j * np.pi * np.outer(place, harmonics) / period).astype(np.complex64)
        turn = turn * halves if axis == dims - 1 else turn
        rule = f"x{names[axis]},{names}->{names.replace(names[axis], 'x')}"
        out = np.einsum(rule, turn, out)
    return (out.real / np.sqrt(power or 1.0)).astype(np.float32)
