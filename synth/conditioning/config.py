"""Configuration of conditioning, free of torch; and how text is cut into words."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from synth.data.schema import Attribute
from synth.errors import ConfigError, require_least

GROUPS = ("mask", "class", "text")
"""What guidance adds one after the other; drop-out trains these prefixes."""

_LATIN = "\u00aa-\u02ff\u1e00-\u1eff\u2000-\u2c7f\ufb00-\ufb06"
"""Beside a to z, what texts in Latin letters hold: it parts words, as it does for models that are there."""
_SIGNS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
"""Scripts without spaces between words: each sign is one."""
_WORD = re.compile(rf"[a-z]+\d*|\d+(?:\.\d+)?|[{_SIGNS}]|[^\W\d_a-z{_LATIN}{_SIGNS}]+")


@dataclass(frozen=True, kw_only=True)
class ConditioningConfig:
    """Which conditions enter, and how wide.

    labels            label values of the mask including background; 0 = no mask port
    stride            mask voxels per latent voxel along each axis
    attributes        as the network reads them: a number's low and high become -1 and 1 (what may be asked of it is the
                      schema's to say, and wider where a model was fine-tuned on more)
    vocabulary        words the text encoder knows; empty = no text
    drop              share of samples trained on a shorter prefix of the groups
    drop_each         share in which each single group is left out, on top
    drop_attributes  share in which each single attribute is left out, so that any subset may be asked for
    geometry        tell the network spacing, extent and centre of what it sees, in mm
    text_encoder    folder of a Hugging Face model that reads texts instead of our word table; never downloaded
    text_sha256     what the encoder's files hash to, text_features its channels; `synth train` fills both in
    """

    labels: int = 0
    stride: int = 1
    attributes: tuple[Attribute, ...] = ()
    vocabulary: tuple[str, ...] = ()
    mask_width: int = 64
    width: int = 128
    text_length: int = 32
    position: bool = True
    drop: float = 0.1
    drop_each: float = 0.05
    drop_attributes: float = 0.0
    geometry: bool = False
    text_encoder: str | None = None
    text_sha256: str = ""
    text_features: int = 0

    def __post_init__(self) -> None:
        for name in ("drop", "drop_each", "drop_attributes"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"conditioning.{name} is {getattr(self, name)}; give a share from 0 to 1")
        require_least(self, ("stride", "mask_width", "width", "text_length"), place="conditioning.")
        if self.vocabulary and self.text_encoder is None and self.width % text_heads(self.width):
            raise ConfigError(f"conditioning.width is {self.width}; where texts are read, give a multiple of 32")


def text_heads(width: int) -> int:
    """Return how many heads the attention over the word table has."""
    return max(width // 32, 1)


def words(text: str) -> list[str]:
    """Return the lower-case words and numbers of `text`, in order.

    >>> words("FLAIR, one large lesion (2.5 ml)")
    ['flair', 'one', 'large', 'lesion', '2.5', 'ml']
    """
    return _WORD.findall(text.lower())


def vocabulary(said: Iterable[tuple[str, str | None]], *, limit: int = 2000) -> tuple[str, ...]:
    """Return the words of texts, the most frequent first (ties in alphabetical order), at most `limit`.

    said   (patient, text or None) of each case; words that one of several patients alone has are left out, since they
           may name that patient

    >>> vocabulary([("p1", "Smith, a cyst"), ("p2", "a large cyst"), ("p2", "large")])
    ('a', 'cyst')
    """
    counts: dict[str, int] = {}
    whose: dict[str, set[str]] = {}
    patients: set[str] = set()
    for patient, text in said:
        patients.add(patient)
        for word in words(text or ""):
            counts[word] = counts.get(word, 0) + 1
            whose.setdefault(word, set()).add(patient)
    known = [word for word in counts if len(whose[word]) > 1 or len(patients) == 1]
    return tuple(sorted(known, key=lambda word: (-counts[word], word))[:limit])
