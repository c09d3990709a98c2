"""Faults of MR acquisition, made in k-space. Each changes a nested set of lines, or all of them by a factor.

By Parseval's theorem the squared change of the image is that of the changed lines: it grows with severity. Lines are
changed in pairs of opposite frequency, so that a real image stays real.
"""

import numpy as np


def _lines(n: int) -> np.ndarray:
    """Return whole frequencies of n lines in order of an FFT, without sign: 0, 1, 2, .., 2, 1."""
    return np.abs(np.rint(np.fft.fftfreq(n) * n)).astype(int)


def _changed(image: np.ndarray, axis: int, factor: np.ndarray) -> np.ndarray:
    """Return the image with the lines along `axis` multiplied by `factor` (n,)."""
    shape = [-1 if other == axis else 1 for other in range(image.ndim)]
    return np.fft.ifft(np.fft.fft(image, axis=axis) * factor.reshape(shape), axis=axis).real


def ghosting(image: np.ndarray, level: float, value_range: float, rng: np.random.Generator) -> np.ndarray:
    """Odd lines along the first axis lose the share `level`: a copy half a field of view away."""
    odd = _lines(image.shape[1]) % 2 == 1
    return _changed(image, 1, np.where(odd, 1.0 - level, 1.0))


def motion(image: np.ndarray, level: float, value_range: float, rng: np.random.Generator) -> np.ndarray:
    """A share `level` of the lines along the first axis were taken after the head had moved 2.3 voxels along it.

    At a half the lines agree least; beyond it those that did not move become the odd ones.
    """
    n = image.shape[1]
    frequency = np.fft.fftfreq(n)
    lines = _lines(n)
    # the line of mean intensity and Nyquist's have no partner of opposite frequency
    pairs = np.arange(1, (n + 1) // 2)
    late = np.isin(lines, rng.permutation(pairs)[: max(round(level * len(pairs)), 1)])
    return _changed(image, 1, np.where(late, np.exp(-2j * np.pi * frequency * 2.3), 1.0))


def truncation(image: np.ndarray, level: float, value_range: float, rng: np.random.Generator) -> np.ndarray:
    """The outer share `level` of k-space along every axis is zero: Gibbs ringing at edges."""
    for axis in range(1, image.ndim):
        lines = _lines(image.shape[axis])
        image = _changed(image, axis, (lines <= (1.0 - level) * lines.max()).astype(np.float64))
    return image


def spike(image: np.ndarray, level: float, value_range: float, rng: np.random.Generator) -> np.ndarray:
    """One sample of k-space is far too large: a herringbone cos(2 pi f.r + phase) over the whole image."""
    grid = image.shape[1:]
    lean = rng.uniform(0.15, 0.4, len(grid)) * rng.choice((-1.0, 1.0), len(grid))
    whole = np.rint(lean * np.array(grid)) / np.array(grid)
    phase = rng.uniform(0.0, 2 * np.pi)
    for axis, frequency in enumerate(whole):
        shape = [-1 if other == axis else 1 for other in range(len(grid))]
        phase = phase + (2 * np.pi * frequency * np.arange(grid[axis])).reshape(shape)
    return image + level * value_range * np.cos(phase)
