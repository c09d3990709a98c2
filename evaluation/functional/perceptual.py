"""Distance of images in the features of a given extractor. Knows no network: the caller brings it."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from evaluation.functional.arrays import array

_TINY = 1e-10


def perceptual_distance(
    x: Any, y: Any, extractor: Callable[[Any], Any], *, weights: Sequence[Any] | None = None
) -> np.ndarray:
    """Return the distance of LPIPS (Zhang et al. 2018) on the maps of `extractor`: (batch,).

    d = sum_l mean_p sum_c w_lc (f_lc(p) - g_lc(p))^2, with f, g the features of x and y scaled to unit length over
    channels at each place p. Without `weights` w = 1, the paper's uncalibrated form: values compare within one
    extractor only, and none is LPIPS itself.
    extractor   takes x and y as they are given; returns one array, or one for each layer, of maps (batch, channel,
                *grid) or of vectors (batch, d)
    weights     (channel,) for each layer, not negative
    Errors: ValueError for features that differ in shape, are no numbers or do not fit the weights.
    """
    layers = list(zip(_layers(extractor(x)), _layers(extractor(y)), strict=True))
    if weights is not None and len(weights) != len(layers):
        raise ValueError(f"{len(weights)} weights for {len(layers)} layers; give one for each")
    total = np.zeros(len(layers[0][0]))
    for number, (f, g) in enumerate(layers):
        if f.shape != g.shape or f.ndim < 2:
            raise ValueError(f"features are (batch, channel, *grid), alike for both; got {f.shape} and {g.shape}")
        if not (np.isfinite(f).all() and np.isfinite(g).all()):
            raise ValueError("an extractor's features hold NaN or infinite values")
        apart = (_unit(f) - _unit(g)) ** 2
        if weights is not None:
            w = array(weights[number])
            if w.shape != (f.shape[1],) or (w < 0).any():
                raise ValueError(f"weights of layer {number} are ({f.shape[1]},) and not negative, got {w.shape}")
            apart = apart * w.reshape(-1, *[1] * (f.ndim - 2))
        total += apart.sum(axis=1).reshape(len(f), -1).mean(axis=1)
    return total


def _layers(found: Any) -> list[np.ndarray]:
    layers = [array(part) for part in found] if isinstance(found, (list, tuple)) else [array(found)]
    if not layers:
        raise ValueError("the extractor returned no features")
    return layers


def _unit(features: np.ndarray) -> np.ndarray:
    return features / np.sqrt((features**2).sum(axis=1, keepdims=True) + _TINY)
