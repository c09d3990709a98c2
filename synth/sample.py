"""What is asked for (Condition) and what comes back (Sample, Provenance). Knows no network."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from synth.volume import Volume

AttributeValue = str | float | int
MaskOrigin = Literal["generated", "real", "given"]


@dataclass(frozen=True, eq=False)
class Condition:
    """What a user asks for. An absent field is None (or missing from `attributes`), never -1 or zeros.

    A mask that carries `labels` is matched to the model by name; without them its values are the model's.

    >>> Condition(text="FLAIR, one large lesion", attributes={"contrast": "FLAIR"}).attributes["contrast"]
    'FLAIR'
    """

    mask: Volume | None = None
    image: Volume | None = None
    text: str | None = None
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "attributes", MappingProxyType(dict(self.attributes)))


@dataclass(frozen=True)
class Provenance:
    """Everything needed to make a sample again, and to know that it is synthetic."""

    case: str
    seed: int
    index: int
    attempt: int
    model: Mapping[str, str]
    sampler: str
    steps: int
    guidance: Mapping[str, float]
    mask_origin: MaskOrigin | None
    environment: Mapping[str, str]
    software: str
    condition: Mapping[str, object] = field(default_factory=dict)
    mask_provenance: "Provenance | None" = None
    seam: float | None = None
    """How much more latents step across the windows of overlapped denoising than elsewhere; None without windows."""


@dataclass(frozen=True, eq=False)
class Sample:
    """The aligned pair and how to make it again; image and mask share one geometry."""

    image: Volume
    mask: Volume | None
    condition: Condition
    provenance: Provenance
