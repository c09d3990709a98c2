"""Faults of a set rather than of an image: a mode that is missing, samples that are there twice. Indices only."""

from collections.abc import Mapping, Sequence

import numpy as np

from synth.errors import ConfigError, DataError, nearest
from synth.rng import numpy_rng

SET_CORRUPTIONS: Mapping[str, tuple[float, float, float, float, float]] = {
    "mode_drop": (0.2, 0.4, 0.6, 0.8, 1.0),
    "duplication": (0.1, 0.25, 0.45, 0.65, 0.85),
}
"""By name, the levels of severities 1..5: share of one mode that is missing, share of samples that are copies."""


def corrupt_set(modes: Sequence[str], name: str, severity: int, *, count: int, seed: int) -> list[int]:
    """Return the indices of `count` samples out of those whose modes are given, with the fault `name`.

    mode_drop     a share of the samples of one mode (the largest; of equals the first by name) makes room for
                  further samples of the others: none is there twice, and the size stays
    duplication   a share of the samples is replaced by copies of the rest
    The clean set of a seed, `severity` 0, is `count` samples without replacement, modes in their own proportion.
    A severity takes away what the one below did, and more.
    Errors: ConfigError for an unknown name or severity; DataError where the pool is too small.

    >>> modes = ["a"] * 6 + ["b"] * 6
    >>> [modes[i] for i in corrupt_set(modes, "mode_drop", 5, count=4, seed=0)]
    ['b', 'b', 'b', 'b']
    """
    if name not in SET_CORRUPTIONS:
        raise ConfigError(f"no set corruption is called {name!r}; {nearest(name, SET_CORRUPTIONS)}")
    if severity not in range(6):
        raise ConfigError(f"severity {severity} is out of range; give 0 (clean) to 5")
    if not 2 <= count <= len(modes):
        raise DataError(f"{count} samples cannot be drawn from a pool of {len(modes)}; give at least 2, at most that")
    rng = numpy_rng(seed, "corruption", name)
    order = rng.permutation(len(modes)).tolist()
    clean, spare = order[:count], order[count:]
    level = SET_CORRUPTIONS[name][severity - 1] if severity else 0.0
    if name == "duplication":
        kept = max(count - round(level * count), 1)
        return [*clean[:kept], *[clean[i % kept] for i in range(count - kept)]]
    names = sorted(set(modes))
    gone = max(names, key=lambda mode: sum(other == mode for other in modes))
    leaving = [index for index in clean if modes[index] == gone]
    leaving = leaving[: round(level * len(leaving))]
    others = [index for index in spare if modes[index] != gone]
    if len(others) < len(leaving):
        raise DataError(
            f"{len(leaving)} samples of mode {gone!r} leave, and only {len(others)} of others are in the pool; "
            "give a larger pool or fewer samples"
        )
    instead = dict(zip(leaving, others, strict=False))
    return [instead.get(index, index) for index in clean]


def modes_of(values: Sequence[object]) -> list[str]:
    """Return values as names of modes; a number falls into one of four equal parts by rank.

    >>> modes_of([3.0, 1.0, 2.0, 4.0])
    ['q2', 'q0', 'q1', 'q3']
    """
    if all(isinstance(value, (int, float)) for value in values):
        rank = np.argsort(np.argsort(np.array(values, dtype=np.float64), kind="stable"), kind="stable")
        return [f"q{int(4 * r / len(values))}" for r in rank]
    return [str(value) for value in values]
