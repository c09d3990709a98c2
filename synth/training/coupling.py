"""Coupling: which noise goes with which data of a batch. Knows conditions only by whether they are equal."""

import hashlib
from collections.abc import Hashable, Sequence

import numpy as np
import torch
from torch import Tensor

from synth.ports import Window
from synth.sample import Condition
from synth.volume import Volume


def coupled(clean: Tensor, noise: Tensor, conditions: Sequence[Condition], window: Window) -> Tensor:
    """Return the index (batch,) of the noise that each sample gets: least sum of squared distances, within conditions.

    The optimal assignment of minibatch optimal transport (Pooladian et al. 2023), solved apart for each set of samples
    that the network is told the same of: conditions and place. Across those, pairing would tell of the condition.
    """
    from scipy.optimize import linear_sum_assignment

    chosen = torch.arange(len(clean), device=clean.device)
    keys = [condition_key(c, window, sample) for sample, c in enumerate(conditions)]
    for key in dict.fromkeys(keys):
        rows = torch.tensor([sample for sample, own in enumerate(keys) if own == key], device=clean.device)
        if len(rows) > 1:
            # |a - b|^2 = |a|^2 + |b|^2 - 2 a b, and the squares are the same for every assignment
            cost = -(clean[rows].flatten(1).double() @ noise[rows].flatten(1).double().T)
            _, columns = linear_sum_assignment(cost.cpu().numpy())
            chosen[rows] = rows[torch.from_numpy(columns).to(rows)]
    return chosen


def condition_key(condition: Condition, window: Window, sample: int) -> Hashable:
    """Return what is equal for two samples exactly where the network is told the same of both."""
    place = tuple(window.origin[sample].tolist()), tuple(window.full[sample].tolist())
    asked = condition.text, tuple(sorted(condition.attributes.items()))
    return place, asked, _digest(condition.mask), _digest(condition.image)


def _digest(volume: Volume | None) -> Hashable:
    if volume is None:
        return None
    data = np.ascontiguousarray(volume.data)
    return data.shape, data.dtype.str, hashlib.sha256(data.tobytes()).digest()
