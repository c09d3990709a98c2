"""Synth: synthetic medical imaging data, paired image-mask volumes, judged by measurement.

Public names load on first use, so that `import synth` does not pay for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from synth.errors import SynthError
    from synth.generator import Generator, Sampling, Seed, load, save
    from synth.io import read, write
    from synth.sample import Condition, Provenance, Sample
    from synth.stream import Stream
    from synth.volume import Label, Volume

_HOME = {
    "Condition": "synth.sample",
    "Generator": "synth.generator",
    "Label": "synth.volume",
    "Provenance": "synth.sample",
    "Sample": "synth.sample",
    "Sampling": "synth.generator",
    "Seed": "synth.generator",
    "Stream": "synth.stream",
    "SynthError": "synth.errors",
    "Volume": "synth.volume",
    "load": "synth.generator",
    "read": "synth.io",
    "save": "synth.generator",
    "write": "synth.io",
}

__all__ = [
    "Condition",
    "Generator",
    "Label",
    "Provenance",
    "Sample",
    "Sampling",
    "Seed",
    "Stream",
    "SynthError",
    "Volume",
    "load",
    "read",
    "save",
    "write",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'synth' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
