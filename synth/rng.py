"""Seeds. A sample's randomness depends on (seed, index, attempt) and on nothing else.

Not on batch, worker, rank or order. Sub-streams are named, so that a new consumer of
randomness never shifts the numbers of another.
"""

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def _entropy(parts: tuple[int | str, ...]) -> list[int]:
    out: list[int] = []
    for part in parts:
        if isinstance(part, str):
            out.append(int.from_bytes(hashlib.sha256(part.encode()).digest()[:8], "little"))
        elif part < 0:
            raise ValueError(f"seed parts are not negative, got {part}")
        else:
            out.append(int(part))
    return out


def sequence(*parts: int | str) -> np.random.SeedSequence:
    """Return the SeedSequence of `parts` (whole numbers, and names of sub-streams)."""
    return np.random.SeedSequence(_entropy(parts))


def numpy_rng(*parts: int | str) -> np.random.Generator:
    """Return a numpy generator for `parts`.

    >>> bool(numpy_rng(1, "noise").random() == numpy_rng(1, "noise").random())
    True
    """
    return np.random.Generator(np.random.PCG64(sequence(*parts)))


def torch_rng(*parts: int | str, device: str = "cpu") -> "torch.Generator":
    """Return a torch generator for `parts`; draw on the CPU so that every device starts from the same noise."""
    import torch

    state = int(sequence(*parts).generate_state(1, np.uint64)[0])
    return torch.Generator(device=device).manual_seed(state & 0x7FFF_FFFF_FFFF_FFFF)
