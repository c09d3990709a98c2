"""Feature extractors: a volume in, one vector out, with a fingerprint of how. Nothing here downloads.

radiomics_extractor()  weight-free, 2D and 3D, the default, always there
imagenet_extractor()   2.5D EfficientNet-Lite0 from the extra synthvol[imagenet]
from_file(SPECS[...])  Inception, RadImageNet, DINOv2, MedicalNet: input specifications without weights
"""

from pathlib import Path

from evaluation.extractors.base import Extractor, InputSpec, mapped_windows
from evaluation.extractors.cache import FeatureCache
from evaluation.extractors.radiomics import radiomics_extractor, radiomics_table

__all__ = [
    "Extractor",
    "FeatureCache",
    "InputSpec",
    "find_extractor",
    "mapped_windows",
    "radiomics_extractor",
    "radiomics_table",
]


def find_extractor(name: str, *, file: str | Path | None = None, sha256: str = "") -> Extractor:
    """Return an extractor by name: radiomics, imagenet, or one of specs.SPECS with its TorchScript `file` and sha256.

    Errors: ConfigError for an unknown name, a file where none belongs or none where one is needed; those of the rest.

    >>> find_extractor("radiomics").name
    'radiomics 3'
    """
    from synth.errors import ConfigError, nearest

    if name in ("radiomics", "imagenet"):
        if file is not None:
            raise ConfigError(f"extractor {name} takes no file")
        if name == "radiomics":
            return radiomics_extractor()
        from evaluation.extractors.imagenet import imagenet_extractor

        return imagenet_extractor()
    from evaluation.extractors.specs import SPECS, from_file

    if name not in SPECS:
        raise ConfigError(f"no extractor is called {name!r}; {nearest(name, ('radiomics', 'imagenet', *SPECS))}")
    if file is None:
        raise ConfigError(f"extractor {name} needs its weights as a TorchScript file: {SPECS[name].file}")
    return from_file(name, file, sha256=sha256)
